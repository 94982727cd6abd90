"""Train an embedder that knows copies: EfficientNet-Lite0 learns from pictures without labels to tell their copies from other pictures.

    python scripts/train_embedder.py start PICTURES            # the network and its first head: minutes
    python scripts/train_embedder.py train PICTURES --hours 2  # goes on from the last checkpoint
    python scripts/train_embedder.py export PICTURES           # into the package; minutes, for the last head

Changed views of a picture (augment.py) must be nearer to the picture itself than to any other (InfoNCE), and far from the nearest stranger
(the entropy term): the recipe of SSCD (Pizzi et al. 2022, equations 1 to 4). What differs, because it runs on two CPU cores: the strangers
are not a huge batch but the rows of all pictures, kept by an average of the network (He et al. 2020); batch normalisation is folded into
the convolutions, and the first of these, half of the cost, stay as they are; the head begins as the projection that tells pictures apart
best by what their copies have in common (LDA), not at random, and ends as the mean of what it became and of what LDA then finds.

Seeded: the views of a step depend on the seed and the number of the step alone. A checkpoint holds all that is needed to go on.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

from scripts.augment import apply_edits, apply_light_edits, pick_frame
from scripts.export_embedder import MODEL_FOLDER, FeatureExtractor, export, write_card

COPIES_PER_IMAGE = 4  # views of a picture that a discriminant is fitted on
FINAL_SHRINKAGE, FINAL_VARIANCE_POWER = (
    0.5,
    -0.15,
)  # of the last one; what is fitted more closely is less true of other pictures
EVAL_BATCH_SIZE = 64  # views that are looked at together, where nothing is learnt
FINER_CHANNELS = 512  # channels made of the finer grid
HELD_OUT_COUNT = 512  # pictures that are never trained on, to see how it goes
CHECKPOINT_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "train"


@dataclass(frozen=True)
class Recipe:
    """All that a training depends on beside its pictures."""

    dim: int = 256
    size: int = (
        144  # pixels of a side; what comes of it does better at somewhat more (Touvron et al. 2019)
    )
    batch_size: int = 12  # pictures
    copies_per_image: int = 4  # changed views of each
    frozen_stages: int = 3  # stages that are not trained, beside the stem
    shared_frames: int = 5  # frames that the pictures of a batch share
    framed_share: float = 0.45  # of the changed views
    temperature: float = 0.05
    entropy_weight: float = 10.0
    learning_rate: float = 2e-4
    head_learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup_steps: int = (
        1000  # steps; by then nearly all rows of the bank are the learning network's own
    )
    ema_decay: float = 0.999  # of the weights, from step to step
    min_twin_score: float = 0.9  # pictures that are this near to begin with are no strangers
    seed: int = 0


class Network(nn.Module):
    """uint8 pictures (n, size, size, 3) -> raw rows (n, dim): convolutions, generalised-mean pooling of two grids, one linear layer.

    The last grid has a cell for 32 pixels, so a quarter of a collage is two cells wide; the finer one has a cell for 16.
    """

    trunk: Any  # timm's network, whose parts are called one by one

    def __init__(self, dim: int) -> None:
        """With the published weights; the finer grid's and the head's are random."""
        super().__init__()
        self.trunk = fold_batch_norms(FeatureExtractor().net)
        self.finer = nn.Conv2d(112, FINER_CHANNELS, 1)
        self.head = nn.Linear(1280 + FINER_CHANNELS, dim)

    def extract_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features, (n, 1280 + FINER), each grid's of length 1."""
        grid = self.trunk.bn1(
            self.trunk.conv_stem((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        )
        for number, stage in enumerate(self.trunk.blocks):
            grid = stage(grid)
            if number == 4:
                finer = nn.functional.relu(self.finer(grid))
        return torch.cat([gem_pool(self.trunk.bn2(self.trunk.conv_head(grid))), gem_pool(finer)], 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raw rows; embed() brings them to length 1."""
        rows: torch.Tensor = self.head(self.extract_features(pixels))
        return rows


def gem_pool(grid: torch.Tensor) -> torch.Tensor:
    """Generalised means of length 1, (n, channels); Radenovic et al. 2018, equation 3."""
    return nn.functional.normalize(
        grid.float().clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1.0 / 3.0)
    )


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """The network with each batch normalisation, as it stands, in the convolution before it."""
    net.eval()
    before: tuple[nn.Module, str, nn.Conv2d] | None = None
    for name, module in list(net.named_modules()):
        parent, _, child = name.rpartition(".")
        home = net.get_submodule(parent)
        if isinstance(module, nn.Conv2d):
            before = home, child, module
        elif isinstance(module, nn.BatchNorm2d) and before:
            setattr(before[0], before[1], fuse_conv_bn_eval(before[2], module))
            setattr(home, child, getattr(module, "act", nn.Identity()))
    net.classifier = nn.Identity()
    return net.to(memory_format=torch.channels_last)


class TrainingImages:
    """All pictures of a folder in memory, shuffled, in the same way each time."""

    def __init__(self, folder: Path) -> None:
        """Decode them; a minute for 14,000 small ones."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        random.Random(0).shuffle(paths)  # what is held out is of all kinds
        self._sizes: list[tuple[int, int]] = []
        self._bytes: list[bytes] = []
        for path in paths:
            with Image.open(path) as opened:
                small = opened.convert("RGB")
            small.thumbnail((480, 480))
            self._sizes.append(small.size)
            self._bytes.append(small.tobytes())

    def __len__(self) -> int:
        """How many."""
        return len(self._sizes)

    def __getitem__(self, number: int) -> Image.Image:
        """One of them."""
        return Image.frombytes("RGB", self._sizes[number], self._bytes[number])


def preprocess(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """As the pipeline shows it to an embedder."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))


def preprocess_training_images(images: TrainingImages, recipe: Recipe) -> NDArray[np.uint8]:
    """All pictures that are trained on as they are, (n, size, size, 3)."""
    return np.stack(
        [preprocess(images[number], recipe.size) for number in range(len(images) - HELD_OUT_COUNT)]
    )


class TrainingBatches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """By the number of a step: changed views of the pictures of its batch; which picture each shows, and which other is below it, or -1."""

    def __init__(self, images: TrainingImages, recipe: Recipe) -> None:
        """Nothing is drawn yet."""
        self._images, self._recipe = images, recipe

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same for the same step."""
        recipe, count = self._recipe, len(self._images) - HELD_OUT_COUNT
        epoch, place = divmod(step * recipe.batch_size, count)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
        shown = np.repeat(
            np.resize(np.roll(order, -place), recipe.batch_size), recipe.copies_per_image
        ).tolist()
        rng = random.Random(f"{recipe.seed} {step}")
        # Some views of a batch get the same frame, and the same picture below them: what they share must not count.
        frames = [(pick_frame(rng), rng.randrange(count)) for _ in range(recipe.shared_frames)]
        views, below = [], []
        for number in shown:
            inside, other = rng.choice(frames)
            into = inside if rng.random() < recipe.framed_share else None
            views.append(
                preprocess(
                    apply_edits(self._images[number], self._images[other], rng, into), recipe.size
                )
            )
            below.append(other if into and into.kind in ("over", "collage") else -1)
        return torch.from_numpy(np.stack(views)), torch.tensor(shown), torch.tensor(below)


def encode(
    model: Callable[[torch.Tensor], torch.Tensor],
    pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """What a model that is on a device makes of views, brought back from there."""
    batches = (
        torch.from_numpy(np.stack(list(pixels[at : at + EVAL_BATCH_SIZE])))
        for at in range(0, len(pixels), EVAL_BATCH_SIZE)
    )
    with torch.no_grad():
        return torch.cat([model(batch.to(device)).float().cpu() for batch in batches])


def fit_discriminant(
    features: NDArray[np.float64],
    copies_per_image: int,
    dim: int,
    shrinkage: float = 0.1,
    variance_power: float = -0.25,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (dim, d) and bias of the projection that keeps what differs between pictures and drops what differs between their copies.

    `features` (pictures x copies, d), the copies of a picture in sequence. Fisher's linear discriminant, the scatter within copies eased
    by `ease` of its mean; each direction is scaled by its variance to the `power`.
    """
    mean = features.mean(axis=0)
    grouped = features.reshape(-1, copies_per_image, features.shape[1])
    within_rows = (grouped - grouped.mean(axis=1, keepdims=True)).reshape(features.shape)
    within = within_rows.T @ within_rows / len(features)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    scales, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(scales) @ axes.T
    total = whiten @ np.cov((features - mean).T) @ whiten
    variance, directions = np.linalg.eigh(total)
    kept = np.argsort(-variance)[:dim]
    weight = (directions[:, kept] * variance[kept] ** variance_power).T @ whiten
    return torch.from_numpy(weight).float(), torch.from_numpy(-weight @ mean).float()


def make_initial_network(
    images: TrainingImages, recipe: Recipe, sample_size: int = 3000
) -> Network:
    """The network with the head that LDA finds."""
    network = Network(recipe.dim).eval()
    weight, bias = fit_discriminant(
        _extract_copy_features(network, images, recipe.size, sample_size, 0.2, recipe.seed),
        COPIES_PER_IMAGE,
        recipe.dim,
    )
    network.head.load_state_dict({"weight": weight, "bias": bias})
    return network


def average_heads(
    network: Network, images: TrainingImages, size: int, sample_size: int = 9000
) -> Network:
    """The network with the mean of two heads, the trained one and that which LDA now finds, turned onto it (Procrustes).

    They err differently: the trained one knows its pictures better than others, the other has four numbers for each that it is fitted on.
    """
    found = _extract_copy_features(network, images, size, sample_size, 0.35, 11)
    weight, bias = fit_discriminant(
        found, COPIES_PER_IMAGE, network.head.out_features, FINAL_SHRINKAGE, FINAL_VARIANCE_POWER
    )
    features = torch.from_numpy(found).float()
    with torch.no_grad():
        lda, trained = features @ weight.T + bias, network.head(features)
        left, _, right = torch.linalg.svd(
            nn.functional.normalize(lda).T @ nn.functional.normalize(trained)
        )
        turn = (left @ right).T / lda.norm(dim=1).mean()
        length = trained.norm(dim=1).mean()
        mean = {
            "weight": network.head.weight / length + turn @ weight,
            "bias": network.head.bias / length + turn @ bias,
        }
    network.head.load_state_dict(mean)
    return network


def _extract_copy_features(
    network: Network,
    images: TrainingImages,
    size: int,
    sample_size: int,
    framed_share: float,
    seed: int,
) -> NDArray[np.float64]:
    """Of some pictures, COPIES views of each in sequence, the first hardly changed: what the network makes of them before its head."""
    rng, count = random.Random(seed), len(images) - HELD_OUT_COUNT
    chosen = rng.sample(range(count), min(sample_size, count))

    def views_of(number: int) -> Iterator[NDArray[np.uint8]]:
        yield preprocess(apply_light_edits(images[number], rng), size)
        for _ in range(COPIES_PER_IMAGE - 1):
            inside = pick_frame(rng) if rng.random() < framed_share else None
            yield preprocess(
                apply_edits(images[number], images[rng.randrange(count)], rng, inside), size
            )

    parts = (
        chosen[start : start + EVAL_BATCH_SIZE] for start in range(0, len(chosen), EVAL_BATCH_SIZE)
    )  # all views at once would take gigabytes
    found = [
        encode(network.extract_features, [view for number in part for view in views_of(number)])
        for part in parts
    ]
    return torch.cat(found).numpy().astype(np.float64)


def load_from_onnx(path: Path) -> Network:
    """The network that was exported to a file, as exact as its 16-bit weights."""
    tensors = {
        tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
    }
    network = Network(len(tensors["head.bias"]))
    network.load_state_dict(
        {name: torch.from_numpy(tensors[name].astype(np.float32)) for name in network.state_dict()}
    )
    return network.eval()


def average_networks(networks: Sequence[Network]) -> Network:
    """A network whose weights are the mean of others', stages of one training (Izmailov et al. 2018): it is better than each."""
    mean = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    mean.load_state_dict(
        {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    )
    return mean.eval()


def find_twins(bank: torch.Tensor, min_score: float) -> list[torch.Tensor]:
    """For each row, the others at or above a cosine."""
    found = []
    for row, scores in enumerate(torch.cat([part @ bank.T for part in torch.split(bank, 1024)])):
        near = (scores >= min_score).nonzero().flatten()
        found.append(near[near != row])
    return found


def compute_loss(
    rows: torch.Tensor,
    image_indices: torch.Tensor,
    background_indices: torch.Tensor,
    bank: torch.Tensor,
    twins: list[torch.Tensor],
    recipe: Recipe,
) -> torch.Tensor:
    """InfoNCE of each view against its picture in the bank, and the entropy term; strangers are all others there, and the other views."""
    rows = nn.functional.normalize(rows)
    scores = rows @ torch.cat([bank, rows]).T
    known = torch.cat(
        [torch.arange(len(bank), device=bank.device), image_indices]
    )  # which picture each column shows
    none = torch.cat(
        [torch.full((len(bank),), -1, device=bank.device), background_indices]
    )  # and which is below it
    kin = (
        (image_indices[:, None] == known)
        | (background_indices[:, None] == known)
        | (image_indices[:, None] == none)
        | ((background_indices[:, None] == none) & (background_indices[:, None] >= 0))
    )
    for row, number in enumerate(image_indices.tolist()):
        if len(twins[number]):
            kin[row] |= torch.isin(known, twins[number])
    own = scores.gather(1, image_indices[:, None])
    strangers = scores.masked_fill(kin, -math.inf)
    likeness = -nn.functional.log_softmax(torch.cat([own, strangers], 1) / recipe.temperature, 1)[
        :, 0
    ].mean()
    apart = -(2 - 2 * strangers.max(1).values).clamp(min=1e-4).sqrt().log().mean()
    return likeness + recipe.entropy_weight * apart


@dataclass
class TrainingState:
    """Where a training stands."""

    recipe: Recipe
    network: Network
    averaged_network: Network
    optimizer: torch.optim.Optimizer
    bank: torch.Tensor
    twins: list[torch.Tensor]
    step: int = 0

    def save(self, path: Path) -> None:
        """All or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {
            "recipe": vars(self.recipe),
            "network": self.network.state_dict(),
            "averaged": self.averaged_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "bank": self.bank,
            "twins": self.twins,
            "step": self.step,
        }
        torch.save(held, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; the finer grid and the head learn faster than what was learnt before."""
    for name, tensor in network.trunk.named_parameters():
        tensor.requires_grad_(
            not name.startswith(
                ("conv_stem", *(f"blocks.{stage}." for stage in range(recipe.frozen_stages)))
            )
        )
    learning = [tensor for tensor in network.trunk.parameters() if tensor.requires_grad]
    new = [*network.finer.parameters(), *network.head.parameters()]
    parts = [
        {"params": learning, "lr": recipe.learning_rate},
        {"params": new, "lr": recipe.head_learning_rate},
    ]
    for part in parts:
        part["full"] = part["lr"]
    return torch.optim.AdamW(parts, weight_decay=recipe.weight_decay)


def load_state(path: Path, device: str) -> TrainingState:
    """A saved state."""
    held: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    recipe = Recipe(**held["recipe"])
    network, averaged = Network(recipe.dim).to(device), Network(recipe.dim).to(device)
    network.load_state_dict(held["network"])
    averaged.load_state_dict(held["averaged"])
    optimizer = make_optimizer(network, recipe)
    optimizer.load_state_dict(held["optimizer"])
    return TrainingState(
        recipe, network, averaged, optimizer, held["bank"], held["twins"], held["step"]
    )


def make_initial_state(
    images: TrainingImages, network: Network, recipe: Recipe, device: str
) -> TrainingState:
    """A state at step 0: the bank is what the network says of all pictures."""
    network = network.to(device)
    bank = nn.functional.normalize(
        encode(network, preprocess_training_images(images, recipe), device)
    )
    return TrainingState(
        recipe,
        network,
        copy.deepcopy(network),
        make_optimizer(network, recipe),
        bank.to(device),
        find_twins(bank.to(device), recipe.min_twin_score),
    )


def evaluate(network: Network, images: TrainingImages, recipe: Recipe) -> str:
    """How well a network knows copies of pictures that it was not trained on: micro average precision, and the share ranked first."""
    rng = random.Random(1)
    held = range(len(images) - HELD_OUT_COUNT, len(images))
    views = [preprocess(images[number], recipe.size) for number in held]
    for number in held:
        views.append(
            preprocess(
                apply_edits(
                    images[number],
                    images[rng.randrange(HELD_OUT_COUNT)],
                    rng,
                    pick_frame(rng) if rng.random() < recipe.framed_share else None,
                ),
                recipe.size,
            )
        )
    rows = nn.functional.normalize(encode(network, views, network.head.weight.device)).numpy()
    scores = rows[HELD_OUT_COUNT:] @ rows[:HELD_OUT_COUNT].T
    order = np.argsort(-scores.ravel(), kind="stable")
    right = np.eye(HELD_OUT_COUNT, dtype=bool).ravel()[order]
    precision = np.cumsum(right) / np.arange(1, right.size + 1)
    first = float((scores.argmax(1) == np.arange(HELD_OUT_COUNT)).mean())
    stranger = float(np.quantile(scores[~np.eye(HELD_OUT_COUNT, dtype=bool)], 0.999))
    return f"uAP {precision[right].mean():.4f}, first {first:.4f}, one stranger in 1,000 above {stranger:.3f}"


def train(
    state: TrainingState,
    images: TrainingImages,
    seconds: float,
    cooldown_share: float,
    workers: int,
    path: Path,
) -> None:
    """Train for so long. The rate falls to nothing over the last `settle` share of it; what comes of it is saved beside the checkpoint."""
    recipe, device = state.recipe, state.bank.device
    began, told, losses = time.monotonic(), time.monotonic(), list[float]()
    steps = DataLoader(
        TrainingBatches(images, recipe),
        batch_size=None,
        sampler=_count_from(state.step),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    falling = False
    originals = preprocess_training_images(images, recipe)
    for views, shown, below in steps:
        spent = (time.monotonic() - began) / seconds
        if spent >= 1:
            break
        if spent >= 1 - cooldown_share and not falling:
            falling = True
            state.save(path)
        share = min(1.0, (state.step + 1) / recipe.warmup_steps) * min(
            1.0, (1 - spent) / cooldown_share if cooldown_share else 1.0
        )
        for part in state.optimizer.param_groups:
            part["lr"] = part["full"] * share
        chosen = shown[:: recipe.copies_per_image]
        state.bank[chosen.to(device)] = nn.functional.normalize(
            encode(state.averaged_network, originals[chosen.numpy()], device).to(device)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            rows = state.network(views.to(device, non_blocking=True))
        loss = compute_loss(
            rows.float(), shown.to(device), below.to(device), state.bank, state.twins, recipe
        )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types there
        nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
        state.optimizer.step()
        with torch.no_grad():
            for mean, now in zip(
                state.averaged_network.parameters(), state.network.parameters(), strict=True
            ):
                mean.lerp_(now, 1 - recipe.ema_decay)
        state.step += 1
        losses.append(loss.item())
        if time.monotonic() - told > 300:
            told = time.monotonic()
            rate = len(losses) * recipe.copies_per_image * recipe.batch_size / (told - began)
            print(
                f"step {state.step}, loss {np.mean(losses[-300:]):.3f}, {rate:.0f} views/s, {evaluate(state.averaged_network, images, recipe)}",
                flush=True,
            )
            if not falling:
                state.save(path)
    print(
        f"step {state.step}, loss {np.mean(losses[-300:]):.3f}, {evaluate(state.averaged_network, images, recipe)}",
        flush=True,
    )
    state.save(get_cooldown_path(path) if cooldown_share else path)


def get_cooldown_path(checkpoint: Path) -> Path:
    """Where that is kept which became of a checkpoint when the rate had fallen."""
    return checkpoint.with_name(f"{checkpoint.stem}-settled.pt")


def _count_from(step: int) -> Iterator[int]:
    while True:
        yield step
        step += 1


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["start", "train", "export"])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_FOLDER / "neardup-1.pt")
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        default=[],
        help="of exported networks; export: their mean, with the checkpoint's",
    )
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument(
        "--settle",
        type=float,
        default=0.2,
        help="share of the time over which the rate falls; 0: never",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default="neardup-1")
    parser.add_argument(
        "--size", type=int, default=160, help="of the exported network's pictures, in pixels"
    )
    parser.add_argument("--floor", type=float, default=0.35)
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument(
        "--out", type=Path, default=MODEL_FOLDER, help="a folder; the package by default"
    )
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    pictures = TrainingImages(given.pictures)
    if given.what == "export":
        last = [
            path
            for path in (get_cooldown_path(given.checkpoint), given.checkpoint)
            if path.exists()
        ][:1]
        stages = [load_from_onnx(path) for path in given.weights] + [
            load_state(path, "cpu").averaged_network for path in last
        ]
        if not stages:
            parser.error(f"there is nothing to export: no {given.checkpoint}, and no --weights")
        network = average_heads(average_networks(stages), pictures, given.size)
        path = given.out / f"{given.name}.onnx"
        export(network, given.size, path)
        write_card(path, network.head.out_features, given.size, given.floor, given.threshold)
    elif given.what == "start":
        recipe = Recipe()
        network = (
            average_networks([load_from_onnx(path) for path in given.weights])
            if given.weights
            else make_initial_network(pictures, recipe)
        )
        state = make_initial_state(pictures, network, recipe, device)
        print(f"{len(pictures)} pictures, {evaluate(state.network, pictures, recipe)}")
        state.save(given.checkpoint)
    else:
        train(
            load_state(given.checkpoint, device),
            pictures,
            given.hours * 3600,
            given.settle,
            given.workers,
            given.checkpoint,
        )


if __name__ == "__main__":
    main()
