"""Image towers of open_clip models, downloaded by open_clip or read from a local file.

Text towers are never built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.records import Space
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.openclip_weights import (
    Weights,
    WeightsName,
    fetch_weights,
    load_tower_weights,
)
from pipeline.errors import MissingExtra, UnknownModel, UnusableModel

if TYPE_CHECKING:
    import torch

# Copies have not been measured for these models: a cosine of .95 is the usual choice for CLIP.
FLOOR = 0.80
THRESHOLD = 0.95
FITS = ("shortest", "longest", "squash")
# open_clip's names of interpolations; "random" is for training.
RESAMPLE_BY_INTERPOLATION = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
DEFAULT_INPUT_SIDE_PX = 224  # of an architecture whose configuration names no size
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 256  # keeps a GPU busy; halved until a batch fits into its memory
MAX_ERROR_CHARS = 300  # of a message of torch


@dataclass(frozen=True)
class _Tower:
    """A loaded image tower; mean and std are (1, 3, 1, 1), on its device."""

    name: str
    model: torch.nn.Module
    device: torch.device
    mean: torch.Tensor
    std: torch.Tensor
    preprocess: Preprocess
    dim: int
    weights_sha256: str
    revision: str | None


class OpenClipEmbedder:
    """An open_clip image tower, loaded by its first use.

    Named `ARCH/PRETRAINED`, `ARCH/PRETRAINED@REVISION` or `ARCH@WEIGHTS_FILE`.
    """

    def __init__(self, model: str, threads: int | None = None) -> None:
        """Parse the model name. Raises UnknownModel unless it has one of the three forms."""
        self._threads = threads
        self._max_batch_size: int | None = None  # known once a batch exceeded the GPU's memory
        self._weights_name = WeightsName.parse(model)

    @property
    def name(self) -> str:
        """The name with the revision of the weights, so that the next run loads the same."""
        if self._weights_name.path:
            return str(self._weights_name)
        return str(replace(self._weights_name, revision=self._tower.revision))

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that the model was trained with."""
        return self._tower.preprocess

    @property
    def batch_size(self) -> int:
        """More on a GPU than on the CPU, but no more than fits into the GPU's memory."""
        on_gpu = self._tower.device.type == "cuda"
        return self._max_batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE)

    @cached_property
    def space(self) -> Space:
        """The vector space, identified by the sha256 of the weights file wherever it is."""
        tower = self._tower
        mean, std = (
            ",".join(f"{value:.6g}" for value in tensor.flatten().tolist())
            for tensor in (tower.mean, tower.std)
        )
        return Space(
            "open_clip",
            tower.name,
            tower.weights_sha256,
            f"{tower.preprocess} mean {mean} std {std}",
            tower.dim,
            FLOOR,
            THRESHOLD,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """Return 0: the model runs locally."""
        return 0

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute a raw row for each image (height, width, 3), in order: (n, dim).

        float32 on the CPU, mixed precision on a GPU. A batch that does not fit into the GPU's
        memory is halved. Raises UnusableModel if a single image does not fit.
        """
        import torch

        max_batch_size = self._max_batch_size or len(inputs)
        if len(inputs) > max_batch_size:
            starts = range(0, len(inputs), max_batch_size)
            return np.concatenate(
                [self.encode(inputs[start : start + max_batch_size]) for start in starts]
            )
        try:
            return self._encode_batch(np.stack(inputs))
        except torch.cuda.OutOfMemoryError as error:
            if len(inputs) == 1:
                raise UnusableModel(
                    f"the GPU has too little memory for one image with {self.name}:"
                    f" {_summarize_error(error)}; close other programs that use the GPU"
                ) from error
        torch.cuda.empty_cache()
        self._max_batch_size = len(inputs) // 2
        return self.encode(inputs)

    def _encode_batch(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        tower = self._tower
        on_gpu = tower.device.type == "cuda"
        with torch.inference_mode():
            pixels = torch.from_numpy(inputs)
            if on_gpu:
                pixels = pixels.pin_memory().to(tower.device, non_blocking=True)
            pixels = pixels.permute(0, 3, 1, 2).float().div_(255.0)
            with torch.autocast("cuda", dtype=torch.float16, enabled=on_gpu):
                rows = tower.model((pixels - tower.mean) / tower.std)
        array: NDArray[np.float32] = rows.float().cpu().numpy()
        return array

    @cached_property
    def _tower(self) -> _Tower:
        try:
            import open_clip
            import torch
        except ImportError as error:
            raise _make_missing_extra(error) from error
        # Looked up only if it is listed: for the name of a hub or folder, open_clip looks there.
        arch, tag = self._weights_name.arch, self._weights_name.tag
        config = open_clip.get_model_config(arch) if arch in open_clip.list_models() else None
        if config is None:
            raise UnknownModel(
                f"open_clip knows no architecture {arch!r}; list them with"
                " `python -c 'import open_clip; print(open_clip.list_models())'`"
            )
        weights = fetch_weights(self._weights_name)
        if self._threads:
            torch.set_num_threads(self._threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tag_config = open_clip.get_pretrained_cfg(arch, tag) if tag else {}
        default_quick_gelu = config.get("quick_gelu", False)
        quick_gelu = bool(tag_config.get("quick_gelu", default_quick_gelu))
        model = _build_model(arch, config, weights.path, quick_gelu=quick_gelu)
        preprocess = _parse_preprocess(arch, config, weights)
        mean, std = _parse_mean_and_std(weights, device)
        # A tag may change the activation, so one file may have two spaces.
        is_default = quick_gelu == default_quick_gelu
        name = arch if is_default else f"{arch} quick_gelu={quick_gelu}"
        return _Tower(
            name,
            _move_to_device(model, device),
            device,
            mean,
            std,
            preprocess,
            config["embed_dim"],
            weights.compute_sha256(),
            weights.revision,
        )


def _build_model(
    arch: str, config: dict[str, Any], path: Path, *, quick_gelu: bool
) -> torch.nn.Module:
    """Build the image tower of `arch` with the weights at `path`. Raises UnusableModel."""
    from open_clip.model import _build_vision_tower

    # CoCa's text decoder needs tokens beside the row; the image tower alone returns no tokens.
    own_config = {"timm_model_pretrained": False, "output_tokens": False}
    try:
        model: torch.nn.Module = _build_vision_tower(
            config["embed_dim"], {**config["vision_cfg"], **own_config}, quick_gelu
        )
        model.load_state_dict(load_tower_weights(path))
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UnusableModel(f"{path} does not fit {arch}: {_summarize_error(error)}") from error
    return model


def _move_to_device(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Prepare a model for inference on `device`."""
    import torch

    model = model.eval().to(device)
    # Faster for overlapping convolutions, but not for the patch embedding of a transformer.
    has_overlapping_convolutions = any(
        isinstance(module, torch.nn.Conv2d) and module.kernel_size != module.stride
        for module in model.modules()
    )
    if device.type == "cuda" and has_overlapping_convolutions:
        model = model.to(memory_format=torch.channels_last)
    return model


def _parse_preprocess(arch: str, config: dict[str, Any], weights: Weights) -> Preprocess:
    """Convert open_clip's preprocessing to ours. Raises UnusableModel for what is unsupported."""
    size = config["vision_cfg"].get("image_size", DEFAULT_INPUT_SIDE_PX)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise UnusableModel(f"{arch} takes {size} pixels; only square inputs are supported")
    fit = weights.preprocess_config["resize_mode"]
    resample = RESAMPLE_BY_INTERPOLATION.get(weights.preprocess_config["interpolation"])
    fill = weights.preprocess_config.get("fill_color", 0)
    if fit not in FITS or not resample or not isinstance(fill, int):
        raise UnusableModel(
            f"{weights.path} needs preprocessing that is not supported: {weights.preprocess_config}"
        )
    return Preprocess(sides.pop(), fit, resample, fill)


def _parse_mean_and_std(
    weights: Weights, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and std as tensors (1, 3, 1, 1) on `device`. Raises UnusableModel."""
    import torch

    try:
        mean, std = (
            torch.tensor(weights.preprocess_config[key], device=device).expand(3)
            for key in ("mean", "std")
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnusableModel(f"{weights.path} has no usable mean and std: {error}") from error
    return mean.reshape(1, 3, 1, 1), std.reshape(1, 3, 1, 1)


def _summarize_error(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_ERROR_CHARS]


def _make_missing_extra(error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"open_clip models need packages that are not installed ({error.name});"
        " run `pip install 'neardup[clip]'`"
    )


def list_pretrained() -> Iterator[tuple[str, int, int]]:
    """Yield the name, the dimension and the input side in px of each model to download.

    Raises MissingExtra if open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise _make_missing_extra(error) from error
    for arch, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(arch)
        if config is None:
            continue
        size = config["vision_cfg"].get("image_size", DEFAULT_INPUT_SIDE_PX)
        if isinstance(size, int):
            yield f"open_clip:{arch}/{tag}", config["embed_dim"], size
