"""The training of an embedder, on a few drawings; how good an embedder becomes is for scripts/bench_embedder.py to say."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts import train_embedder
from scripts.augment import (
    FRAME_WEIGHTS,
    Frame,
    apply_edits,
    apply_frame,
    apply_light_edits,
    pick_frame,
)
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
from tests.support.images import draw_scene, save_image

SMALL = Recipe(dim=8, size=32, batch_size=3, copies_per_image=2, shared_frames=2, warmup_steps=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        save_image(folder / f"{number}.png", draw_scene(number, (120, 90)))
    return TrainingImages(folder)


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_embedder, "HELD_OUT_COUNT", 4)


# Views


@pytest.mark.parametrize("kind", [kind for kind, _ in FRAME_WEIGHTS])
def test_a_frame_is_the_same_for_whatever_is_put_into_it(kind: str) -> None:
    one, other = draw_scene(1, (120, 90)), draw_scene(2, (120, 90))
    given = Frame(kind, 7)
    first, again, second = (
        np.asarray(apply_frame(picture, draw_scene(3), given)) for picture in (one, one, other)
    )
    assert np.array_equal(first, again)
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("size", [(120, 90), (48, 48), (400, 50), (1, 1), (3, 300)])
def test_any_picture_can_be_changed(size: tuple[int, int]) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        inside = pick_frame(rng) if seed % 2 else None
        view = apply_edits(
            apply_light_edits(draw_scene(seed, size), rng),
            draw_scene(seed + 1, (64, 48)),
            rng,
            inside,
        )
        assert view.mode == "RGB"
        assert min(view.size) >= 1


def test_the_views_of_a_step_depend_on_its_number_alone(pictures: TrainingImages) -> None:
    one, again = TrainingBatches(pictures, SMALL), TrainingBatches(pictures, SMALL)
    one[0]
    for first, second in zip(one[5], again[5], strict=True):
        assert torch.equal(first, second)
    views, shown, _ = one[5]
    assert views.shape == (6, 32, 32, 3)
    assert views.dtype == torch.uint8
    assert shown[0] == shown[1] != shown[2]


def test_an_epoch_shows_each_picture_that_is_not_held_out(pictures: TrainingImages) -> None:
    views = TrainingBatches(pictures, Recipe(size=32, batch_size=4, copies_per_image=1))
    shown = {int(number) for step in range(2) for number in views[step][1]}
    assert shown == set(range(len(pictures) - 4))


# The network


def test_folding_changes_no_feature() -> None:
    pixels = torch.from_numpy(
        np.stack([np.asarray(draw_scene(number, (96, 96))) for number in range(3)])
    )
    with torch.inference_mode():
        assert torch.allclose(
            Network(8).eval().extract_features(pixels)[:, :1280],
            FeatureExtractor()(pixels),
            atol=1e-4,
        )


def test_the_discriminant_drops_what_differs_between_copies() -> None:
    rng = np.random.default_rng(0)
    who = rng.normal(size=(200, 1, 6)) * [3, 2, 1, 0, 0, 0]
    copies = who + rng.normal(size=(200, 4, 6)) * [0.1, 0.1, 0.1, 2, 2, 2]
    features = copies.reshape(-1, 6)
    weight, bias = fit_discriminant(features, 4, 3)
    rows = torch.nn.functional.normalize(
        torch.from_numpy(features).float() @ weight.T + bias
    ).reshape(200, 4, 3)
    assert (rows[:, 0] * rows[:, 1]).sum(1).mean() > 0.9
    assert abs((rows[:-1, 0] * rows[1:, 0]).sum(1).mean()) < 0.2
    assert (weight[:, 3:].abs().sum() / weight.abs().sum()) < 0.1


def test_an_exported_network_is_what_it_was(tmp_path: Path, pictures: TrainingImages) -> None:
    network = train_embedder.make_initial_network(pictures, SMALL, sample_size=8)
    export(network, 32, tmp_path / "net.onnx")
    again = load_from_onnx(tmp_path / "net.onnx")
    pixels = TrainingBatches(pictures, SMALL)[0][0]
    with torch.inference_mode():
        one, other = (torch.nn.functional.normalize(each(pixels)) for each in (network, again))
    assert torch.allclose(one, other, atol=5e-3)


def test_the_last_head_is_the_mean_of_two_one_of_them_turned_onto_the_other(
    pictures: TrainingImages,
) -> None:
    network = train_embedder.make_initial_network(pictures, SMALL, sample_size=8)
    with torch.no_grad():
        network.head.weight.add_(
            torch.randn(network.head.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.1
        )
    before = copy.deepcopy(network)
    found = train_embedder._extract_copy_features(network, pictures, 32, 8, 0.35, 11)
    weight, bias = fit_discriminant(
        found, COPIES_PER_IMAGE, 8, FINAL_SHRINKAGE, FINAL_VARIANCE_POWER
    )
    average_heads(network, pictures, 32, sample_size=8)
    rows = torch.from_numpy(found).float()
    with torch.inference_mode():
        trained, lda = before.head(rows), rows @ weight.T + bias
        rest = network.head(rows) - trained / trained.norm(dim=1).mean()
    own = lda / lda.norm(dim=1).mean()
    assert torch.allclose(
        rest @ rest.T, own @ own.T, atol=1e-3
    )  # a turn changes no angle and no length
    assert float((rest * trained).sum()) >= float((own * trained).sum())  # and brings it nearer


def test_the_mean_of_networks_is_that_of_their_weights(pictures: TrainingImages) -> None:
    one, other = Network(8).eval(), Network(8).eval()
    mean = average_networks([one, other])
    for name, tensor in mean.named_parameters():
        assert torch.allclose(tensor, (one.get_parameter(name) + other.get_parameter(name)) / 2), (
            name
        )
    assert not torch.equal(one.head.weight, other.head.weight)  # they are no copies of one


# The loss


def unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32))


def test_the_loss_is_that_of_the_formula() -> None:
    bank, rows = unit([1, 0, 0], [0, 1, 0], [0, 0, 1]), unit([1, 0.5, 0], [0, 1, 0.2])
    shown, none = torch.tensor([0, 1]), torch.tensor([-1, -1])
    recipe = Recipe(temperature=0.5, entropy_weight=2.0)
    expected = 0.0
    for view, own in enumerate((0, 1)):
        strangers = [float(rows[view] @ bank[other]) for other in range(3) if other != own] + [
            float(rows[view] @ rows[1 - view])
        ]
        mine = float(rows[view] @ bank[own])
        expected += -np.log(np.exp(mine / 0.5) / np.exp(np.array([mine, *strangers]) / 0.5).sum())
        expected += -2.0 * np.log(np.sqrt(2 - 2 * max(strangers)))
    assert float(
        compute_loss(rows, shown, none, bank, find_twins(bank, 0.9), recipe)
    ) == pytest.approx(expected / 2, rel=1e-5)


def test_neither_twins_nor_what_is_below_a_view_are_strangers() -> None:
    bank, rows = unit([1, 0, 0], [0.99, 0.1, 0], [0, 0, 1], [0, 1, 0]), unit([1, 0, 0.8])
    recipe = Recipe(temperature=0.5, entropy_weight=0.0)
    mine, other = float(rows[0] @ bank[0]), float(rows[0] @ bank[3])
    expected = -np.log(np.exp(mine / 0.5) / (np.exp(mine / 0.5) + np.exp(other / 0.5)))
    assert float(
        compute_loss(
            rows, torch.tensor([0]), torch.tensor([2]), bank, find_twins(bank, 0.9), recipe
        )
    ) == pytest.approx(expected)
    assert (
        float(
            compute_loss(
                rows, torch.tensor([0]), torch.tensor([-1]), bank, find_twins(bank, 0.9), recipe
            )
        )
        > 2 * expected
    )


# Training


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    pictures: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = train_embedder.make_initial_network(pictures, SMALL, sample_size=8)

    def trained(path: Path, *parts: int) -> dict[str, torch.Tensor]:
        state = make_initial_state(pictures, copy.deepcopy(network), SMALL, "cpu")
        state.save(path)
        for steps in parts:
            last = load_state(path, "cpu").step + steps
            monkeypatch.setattr(
                train_embedder, "_count_from", lambda step, last=last: iter(range(step, last))
            )
            train(load_state(path, "cpu"), pictures, 3600, 0.0, 0, path)
            assert load_state(path, "cpu").step == last
        return load_state(path, "cpu").averaged_network.state_dict()

    whole, parts = trained(tmp_path / "whole.pt", 4), trained(tmp_path / "parts.pt", 3, 1)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=1e-6), name
    kept = tuple(
        f"trunk.{part}"
        for part in (
            "conv_stem",
            "bn1",
            *(f"blocks.{stage}." for stage in range(SMALL.frozen_stages)),
        )
    )
    for name, tensor in network.named_parameters():
        assert torch.equal(whole[name], tensor) == name.startswith(kept), name


def test_white_pictures_do_no_harm(tmp_path: Path) -> None:
    for number in range(8):
        save_image(tmp_path / f"{number}.png", Image.new("RGB", (60, 60), "white"))
    pictures = TrainingImages(tmp_path)
    state = make_initial_state(
        pictures, train_embedder.make_initial_network(pictures, SMALL, sample_size=4), SMALL, "cpu"
    )
    assert all(torch.isfinite(tensor).all() for tensor in state.network.state_dict().values())
