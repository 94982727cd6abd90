"""Train an embedder to match copies: EfficientNet-Lite0, on images without labels.

    python -m scripts.train_embedder start PHOTOS            # the first head: minutes
    python -m scripts.train_embedder train PHOTOS --hours 2  # continues the last checkpoint
    python -m scripts.train_embedder export PHOTOS           # the last head: minutes

Augmented views of an image (augment.py) must be nearer to the image itself than to any other
(InfoNCE), and far from the nearest stranger (the entropy term): the recipe of SSCD (Pizzi et al.
2022, equations 1 to 4). It differs in this, because it runs on two CPU cores:

- The strangers are not a huge batch but a memory bank of the rows of all images, computed by a
  moving average of the network (He et al. 2020).
- Batch normalization is folded into the convolutions, and the first of these, half of the cost, are
  frozen.
- The head starts as the projection that separates images best by what their copies have in common
  (LDA), not at random. It ends as the mean of the trained head and a new LDA.

Seeded: the views of a step depend on nothing but the seed and the number of the step. A checkpoint
holds all that is needed to continue. `export` writes into the package.
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

# Views of an image that a discriminant is fitted on.
COPIES_PER_IMAGE = 4

# Of the last discriminant; one that is fitted more closely generalises worse.
FINAL_SHRINKAGE = 0.5
FINAL_VARIANCE_POWER = -0.15

# Views of a batch without gradients.
EVAL_BATCH_SIZE = 64

# Channels that the finer grid is projected to.
FINER_CHANNELS = 512

# Rows of the bank that are compared with all others at once.
BANK_BLOCK_ROWS = 1024

# Images that are never trained on, for validation.
HELD_OUT_COUNT = 512

# How often training prints its progress and saves a checkpoint.
REPORT_SECONDS = 300

# The loss of a report is the mean of this many steps.
REPORTED_STEPS = 300

# Gradients are clipped to this norm.
MAX_GRADIENT_NORM = 5.0

CHECKPOINT_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "train"


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training."""

    dim: int = 256
    # Pixels a side; the trained network is better at somewhat more (Touvron et al. 2019).
    size: int = 144
    batch_size: int = 12  # images
    copies_per_image: int = 4  # augmented views of each
    frozen_stages: int = 3  # stages that are not trained, beside the stem
    shared_frames: int = 5  # frames that the images of a batch share
    framed_share: float = 0.45  # of the augmented views
    temperature: float = 0.05
    entropy_weight: float = 10.0
    learning_rate: float = 2e-4
    head_learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup_steps: int = 1000  # by then the network in training has made nearly all of the bank
    ema_decay: float = 0.999  # of the weights, from step to step
    min_twin_score: float = 0.9  # images with at least this score at the start are no strangers
    seed: int = 0


class Network(nn.Module):
    """A network from uint8 pixels (n, size, size, 3) to raw rows (n, dim).

    Convolutions, generalised-mean pooling of two grids, one linear layer. The last grid has a cell
    for every 32 pixels, so a quarter of a collage is two cells wide; the finer one, for every 16.
    """

    trunk: Any  # timm's network; its parts are called one by one

    def __init__(self, dim: int) -> None:
        """Load the published weights; those of the finer grid and the head are random."""
        super().__init__()
        self.trunk = fold_batch_norms(FeatureExtractor().net)
        self.finer = nn.Conv2d(112, FINER_CHANNELS, 1)
        self.head = nn.Linear(1280 + FINER_CHANNELS, dim)

    def extract_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute pooled features (n, 1280 + FINER_CHANNELS), of unit length for each grid."""
        grid = self.trunk.bn1(
            self.trunk.conv_stem((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        )
        for number, stage in enumerate(self.trunk.blocks):
            grid = stage(grid)
            if number == 4:
                finer = nn.functional.relu(self.finer(grid))
        return torch.cat([gem_pool(self.trunk.bn2(self.trunk.conv_head(grid))), gem_pool(finer)], 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute raw rows (n, dim); embed() scales them to unit length."""
        rows: torch.Tensor = self.head(self.extract_features(pixels))
        return rows


def gem_pool(grid: torch.Tensor) -> torch.Tensor:
    """Pool a grid by generalised means of unit length: (n, channels).

    Radenovic et al. 2018, equation 3.
    """
    return nn.functional.normalize(
        grid.float().clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1.0 / 3.0)
    )


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """Fold each batch normalization into the convolution before it, in place."""
    net.eval()
    last_convolution: tuple[nn.Module, str, nn.Conv2d] | None = None
    for name, module in list(net.named_modules()):
        parent, _, child = name.rpartition(".")
        owner = net.get_submodule(parent)
        if isinstance(module, nn.Conv2d):
            last_convolution = owner, child, module
        elif isinstance(module, nn.BatchNorm2d) and last_convolution:
            convolution_owner, attribute, convolution = last_convolution
            setattr(convolution_owner, attribute, fuse_conv_bn_eval(convolution, module))
            setattr(owner, child, getattr(module, "act", nn.Identity()))
    net.classifier = nn.Identity()
    return net.to(memory_format=torch.channels_last)


class TrainingImages:
    """All images of a folder in memory, shuffled, in the same order each time."""

    def __init__(self, folder: Path) -> None:
        """Decode the images; a minute for 14,000 small ones."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        random.Random(0).shuffle(paths)  # images of all kinds are held out
        self._sizes: list[tuple[int, int]] = []
        self._bytes: list[bytes] = []
        for path in paths:
            with Image.open(path) as opened:
                small = opened.convert("RGB")
            small.thumbnail((480, 480))
            self._sizes.append(small.size)
            self._bytes.append(small.tobytes())

    def __len__(self) -> int:
        """Count the images."""
        return len(self._sizes)

    def __getitem__(self, number: int) -> Image.Image:
        """Get an image by its number."""
        return Image.frombytes("RGB", self._sizes[number], self._bytes[number])


def preprocess(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize an image as the pipeline does for an embedder: (size, size, 3)."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))


def preprocess_training_images(images: TrainingImages, recipe: Recipe) -> NDArray[np.uint8]:
    """Resize all images that are trained on, without edits: (n, size, size, 3)."""
    return np.stack(
        [preprocess(images[number], recipe.size) for number in range(len(images) - HELD_OUT_COUNT)]
    )


class TrainingBatches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The batches of a training by the number of the step.

    A batch is augmented views (n, size, size, 3), the image of each (n), and the image in its
    background (n), -1 if there is none.
    """

    def __init__(self, images: TrainingImages, recipe: Recipe) -> None:
        """Keep the images; a batch is made when it is asked for."""
        self._images, self._recipe = images, recipe

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Make the batch of a step, the same one each time."""
        recipe, count = self._recipe, len(self._images) - HELD_OUT_COUNT
        epoch, offset = divmod(step * recipe.batch_size, count)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
        batch = np.resize(np.roll(order, -offset), recipe.batch_size)
        image_indices = np.repeat(batch, recipe.copies_per_image).tolist()
        rng = random.Random(f"{recipe.seed} {step}")
        # Several views of a batch share a frame and the image in the background, so that the
        # network cannot match them by those.
        frames = [(pick_frame(rng), rng.randrange(count)) for _ in range(recipe.shared_frames)]
        views, background_indices = [], []
        for number in image_indices:
            drawn_frame, background = rng.choice(frames)
            frame = drawn_frame if rng.random() < recipe.framed_share else None
            edited = apply_edits(self._images[number], self._images[background], rng, frame)
            views.append(preprocess(edited, recipe.size))
            has_background = frame is not None and frame.kind in ("over", "collage")
            background_indices.append(background if has_background else -1)
        return (
            torch.from_numpy(np.stack(views)),
            torch.tensor(image_indices),
            torch.tensor(background_indices),
        )


def encode(
    model: Callable[[torch.Tensor], torch.Tensor],
    pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Compute the rows of a model on a device for views; return them on the CPU."""
    batches = (
        torch.from_numpy(np.stack(list(pixels[start : start + EVAL_BATCH_SIZE])))
        for start in range(0, len(pixels), EVAL_BATCH_SIZE)
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
    """Fit Fisher's linear discriminant: return its weight (dim, d) and bias (dim).

    It keeps what differs between images and drops what differs between copies of an image.
    `features` is (images x copies, d), the copies of an image in sequence. The scatter within
    images is regularised by `shrinkage` of its mean variance; each direction is scaled by its
    variance to the power of `variance_power`.
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
    largest = np.argsort(-variance)[:dim]
    weight = (directions[:, largest] * variance[largest] ** variance_power).T @ whiten
    return torch.from_numpy(weight).float(), torch.from_numpy(-weight @ mean).float()


def make_initial_network(
    images: TrainingImages, recipe: Recipe, sample_size: int = 3000
) -> Network:
    """Make a network whose head is fitted by LDA."""
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
    """Replace the head by the mean of itself and a new LDA, rotated onto it (Procrustes).

    Their errors differ: the trained head is better on the images it was trained on than on others;
    LDA has four views of each image that it is fitted on.
    """
    samples = _extract_copy_features(network, images, size, sample_size, 0.35, 11)
    weight, bias = fit_discriminant(
        samples, COPIES_PER_IMAGE, network.head.out_features, FINAL_SHRINKAGE, FINAL_VARIANCE_POWER
    )
    features = torch.from_numpy(samples).float()
    with torch.no_grad():
        lda, trained = features @ weight.T + bias, network.head(features)
        left, _, right = torch.linalg.svd(
            nn.functional.normalize(lda).T @ nn.functional.normalize(trained)
        )
        rotation = (left @ right).T / lda.norm(dim=1).mean()
        length = trained.norm(dim=1).mean()
        mean = {
            "weight": network.head.weight / length + rotation @ weight,
            "bias": network.head.bias / length + rotation @ bias,
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
    """Extract features of COPIES_PER_IMAGE views of each sampled image, in sequence.

    The first view of an image has light edits.
    """
    rng, count = random.Random(seed), len(images) - HELD_OUT_COUNT
    chosen = rng.sample(range(count), min(sample_size, count))

    def make_views(number: int) -> Iterator[NDArray[np.uint8]]:
        yield preprocess(apply_light_edits(images[number], rng), size)
        for _ in range(COPIES_PER_IMAGE - 1):
            frame = pick_frame(rng) if rng.random() < framed_share else None
            background = images[rng.randrange(count)]
            yield preprocess(apply_edits(images[number], background, rng, frame), size)

    features = []
    for start in range(0, len(chosen), EVAL_BATCH_SIZE):  # all views at once take gigabytes
        batch = chosen[start : start + EVAL_BATCH_SIZE]
        views = [view for number in batch for view in make_views(number)]
        features.append(encode(network.extract_features, views))
    return torch.cat(features).numpy().astype(np.float64)


def load_from_onnx(path: Path) -> Network:
    """Load an exported network, as exact as its 16-bit weights."""
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
    """Average the weights of networks that are stages of one training.

    The mean is better than each of them (Izmailov et al. 2018).
    """
    mean = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    mean.load_state_dict(
        {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    )
    return mean.eval()


def find_twins(bank: torch.Tensor, min_score: float) -> list[torch.Tensor]:
    """Find for each row of the bank the other rows with a cosine >= `min_score`."""
    twins = []
    blocks = [block @ bank.T for block in torch.split(bank, BANK_BLOCK_ROWS)]
    for row, scores in enumerate(torch.cat(blocks)):
        near = (scores >= min_score).nonzero().flatten()
        twins.append(near[near != row])
    return twins


def compute_loss(
    rows: torch.Tensor,
    image_indices: torch.Tensor,
    background_indices: torch.Tensor,
    bank: torch.Tensor,
    twins: list[torch.Tensor],
    recipe: Recipe,
) -> torch.Tensor:
    """Compute InfoNCE of each view against its image in the bank, plus the entropy term.

    `rows` (n, dim) are views of `image_indices` (n), with `background_indices` (n) in their
    backgrounds, -1 for none. Strangers are all other images in the bank and all other views, less
    twins and whatever shares an image or a background.
    """
    rows = nn.functional.normalize(rows)
    scores = rows @ torch.cat([bank, rows]).T
    # The image and the background of each column of `scores`.
    bank_indices = torch.arange(len(bank), device=bank.device)
    column_images = torch.cat([bank_indices, image_indices])
    column_backgrounds = torch.cat([torch.full_like(bank_indices, -1), background_indices])
    images, backgrounds = image_indices[:, None], background_indices[:, None]
    is_related = (
        (images == column_images)
        | (backgrounds == column_images)
        | (images == column_backgrounds)
        | ((backgrounds == column_backgrounds) & (backgrounds >= 0))
    )
    for row, number in enumerate(image_indices.tolist()):
        if len(twins[number]):
            is_related[row] |= torch.isin(column_images, twins[number])
    own_scores = scores.gather(1, images)
    stranger_scores = scores.masked_fill(is_related, -math.inf)
    logits = torch.cat([own_scores, stranger_scores], 1) / recipe.temperature
    info_nce = -nn.functional.log_softmax(logits, 1)[:, 0].mean()
    nearest = stranger_scores.max(1).values
    entropy = -(2 - 2 * nearest).clamp(min=1e-4).sqrt().log().mean()
    return info_nce + recipe.entropy_weight * entropy


@dataclass
class TrainingState:
    """The state of a training: networks, optimizer, bank, twins and the number of steps done."""

    recipe: Recipe
    network: Network
    averaged_network: Network
    optimizer: torch.optim.Optimizer
    bank: torch.Tensor
    twins: list[torch.Tensor]
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the state to a file, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "recipe": vars(self.recipe),
            "network": self.network.state_dict(),
            "averaged": self.averaged_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "bank": self.bank,
            "twins": self.twins,
            "step": self.step,
        }
        torch.save(values, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Make AdamW; the finer grid and the head learn faster than the pretrained layers."""
    frozen = ("conv_stem", *(f"blocks.{stage}." for stage in range(recipe.frozen_stages)))
    for name, tensor in network.trunk.named_parameters():
        tensor.requires_grad_(not name.startswith(frozen))
    pretrained = [tensor for tensor in network.trunk.parameters() if tensor.requires_grad]
    new = [*network.finer.parameters(), *network.head.parameters()]
    groups = [
        {"params": pretrained, "lr": recipe.learning_rate},
        {"params": new, "lr": recipe.head_learning_rate},
    ]
    for group in groups:
        group["full"] = group["lr"]  # the rate at its peak
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def load_state(path: Path, device: str) -> TrainingState:
    """Load a saved state."""
    values: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    recipe = Recipe(**values["recipe"])
    network, averaged = Network(recipe.dim).to(device), Network(recipe.dim).to(device)
    network.load_state_dict(values["network"])
    averaged.load_state_dict(values["averaged"])
    optimizer = make_optimizer(network, recipe)
    optimizer.load_state_dict(values["optimizer"])
    return TrainingState(
        recipe, network, averaged, optimizer, values["bank"], values["twins"], values["step"]
    )


def make_initial_state(
    images: TrainingImages, network: Network, recipe: Recipe, device: str
) -> TrainingState:
    """Make the state of step 0: the bank holds the rows of all images by the network."""
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
    """Measure a network on copies of the held-out images; return a line of text.

    It states micro average precision, the share of copies whose original ranks first, and the score
    that one in 1,000 strangers exceeds.
    """
    rng = random.Random(1)
    held_out = range(len(images) - HELD_OUT_COUNT, len(images))
    views = [preprocess(images[number], recipe.size) for number in held_out]
    for number in held_out:
        background = images[rng.randrange(HELD_OUT_COUNT)]
        frame = pick_frame(rng) if rng.random() < recipe.framed_share else None
        views.append(preprocess(apply_edits(images[number], background, rng, frame), recipe.size))
    rows = nn.functional.normalize(encode(network, views, network.head.weight.device)).numpy()
    scores = rows[HELD_OUT_COUNT:] @ rows[:HELD_OUT_COUNT].T
    order = np.argsort(-scores.ravel(), kind="stable")
    is_correct = np.eye(HELD_OUT_COUNT, dtype=bool).ravel()[order]
    precision = np.cumsum(is_correct) / np.arange(1, is_correct.size + 1)
    first = float((scores.argmax(1) == np.arange(HELD_OUT_COUNT)).mean())
    stranger = float(np.quantile(scores[~np.eye(HELD_OUT_COUNT, dtype=bool)], 0.999))
    return (
        f"uAP {precision[is_correct].mean():.4f}, first {first:.4f},"
        f" one stranger in 1,000 above {stranger:.3f}"
    )


def train(
    state: TrainingState,
    images: TrainingImages,
    seconds: float,
    cooldown_share: float,
    workers: int,
    path: Path,
) -> None:
    """Train for `seconds` and save the state to `path`.

    Over the last `cooldown_share` of the time the learning rate falls to zero; the result of that
    is saved beside `path`, which keeps the state before it.
    """
    recipe = state.recipe
    losses: list[float] = []
    started = reported = time.monotonic()
    batches = DataLoader(
        TrainingBatches(images, recipe),
        batch_size=None,
        sampler=_count_from(state.step),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    is_cooling_down = False
    originals = preprocess_training_images(images, recipe)
    for batch in batches:
        spent = (time.monotonic() - started) / seconds
        if spent >= 1:
            break
        if spent >= 1 - cooldown_share and not is_cooling_down:
            is_cooling_down = True
            state.save(path)
        warmup = min(1.0, (state.step + 1) / recipe.warmup_steps)
        cooldown = min(1.0, (1 - spent) / cooldown_share) if cooldown_share else 1.0
        for group in state.optimizer.param_groups:
            group["lr"] = group["full"] * (warmup * cooldown)
        losses.append(train_step(state, batch, originals))
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            view_count = len(losses) * recipe.copies_per_image * recipe.batch_size
            report(state, images, losses, f", {view_count / (reported - started):.0f} views/s")
            if not is_cooling_down:
                state.save(path)
    report(state, images, losses)
    state.save(get_cooldown_path(path) if cooldown_share else path)


def train_step(
    state: TrainingState,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    originals: NDArray[np.uint8],
) -> float:
    """Update the bank, the network and its moving average by a batch; return the loss."""
    recipe, device = state.recipe, state.bank.device
    views, image_indices, background_indices = batch
    chosen = image_indices[:: recipe.copies_per_image]
    state.bank[chosen.to(device)] = nn.functional.normalize(
        encode(state.averaged_network, originals[chosen.numpy()], device).to(device)
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        rows = state.network(views.to(device, non_blocking=True))
    loss = compute_loss(
        rows.float(),
        image_indices.to(device),
        background_indices.to(device),
        state.bank,
        state.twins,
        recipe,
    )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # torch has no types there
    nn.utils.clip_grad_norm_(state.network.parameters(), MAX_GRADIENT_NORM)
    state.optimizer.step()
    with torch.no_grad():
        for average, tensor in zip(
            state.averaged_network.parameters(), state.network.parameters(), strict=True
        ):
            average.lerp_(tensor, 1 - recipe.ema_decay)
    state.step += 1
    return loss.item()


def report(
    state: TrainingState, images: TrainingImages, losses: Sequence[float], speed: str = ""
) -> None:
    """Print the step, the mean of the last losses, the speed, and an evaluation."""
    print(
        f"step {state.step}, loss {np.mean(losses[-REPORTED_STEPS:]):.3f}{speed},"
        f" {evaluate(state.averaged_network, images, state.recipe)}",
        flush=True,
    )


def get_cooldown_path(checkpoint: Path) -> Path:
    """Get the path of the result of a cooldown."""
    return checkpoint.with_name(f"{checkpoint.stem}-settled.pt")


def _count_from(step: int) -> Iterator[int]:
    while True:
        yield step
        step += 1


def main() -> None:
    """Run the requested command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["start", "train", "export"])
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_FOLDER / "neardup-1.pt")
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        default=[],
        help="exported networks to average; with `export`, also with the checkpoint",
    )
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument(
        "--settle",
        type=float,
        default=0.2,
        help="share of the time over which the learning rate falls; 0: never",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default="neardup-1")
    parser.add_argument(
        "--size", type=int, default=160, help="input of the exported network, in pixels a side"
    )
    parser.add_argument("--floor", type=float, default=0.35)
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument(
        "--out", type=Path, default=MODEL_FOLDER, help="folder to write to (default: the package)"
    )
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    images = TrainingImages(options.photos)
    if options.command == "export":
        stages = [load_from_onnx(path) for path in options.weights]
        for path in (get_cooldown_path(options.checkpoint), options.checkpoint):
            if path.exists():
                stages.append(load_state(path, "cpu").averaged_network)
                break
        if not stages:
            parser.error(f"nothing to export: there is no {options.checkpoint}; name --weights")
        network = average_heads(average_networks(stages), images, options.size)
        path = options.out / f"{options.name}.onnx"
        export(network, options.size, path)
        write_card(path, network.head.out_features, options.size, options.floor, options.threshold)
    elif options.command == "start":
        recipe = Recipe()
        if options.weights:
            network = average_networks([load_from_onnx(path) for path in options.weights])
        else:
            network = make_initial_network(images, recipe)
        state = make_initial_state(images, network, recipe, device)
        print(f"{len(images)} images, {evaluate(state.network, images, recipe)}")
        state.save(options.checkpoint)
    else:
        train(
            load_state(options.checkpoint, device),
            images,
            options.hours * 3600,
            options.settle,
            options.workers,
            options.checkpoint,
        )


if __name__ == "__main__":
    main()
