"""Image towers of open_clip models, downloaded by open_clip or read from a local file.

Text towers are never built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.records import Space
from pipeline.decode.preprocess import Preprocess
from pipeline.errors import MissingExtra, UnknownModel, UnusableModel

if TYPE_CHECKING:
    import torch

# Copies have not been measured for these models: a cosine of .95 is the usual choice for CLIP.
FLOOR = 0.80
THRESHOLD = 0.95
# Keys of open_clip's preprocessing configuration that are used. Not "size": as in open_clip, the
# size of the tower decides.
PREPROCESS_KEYS = {"mean", "std", "interpolation", "resize_mode", "fill_color"}
FITS = ("shortest", "longest", "squash")
# open_clip's names of interpolations; "random" is for training.
RESAMPLE_BY_INTERPOLATION = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
DEFAULT_INPUT_SIDE_PX = 224  # of an architecture whose configuration names no size
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 256  # keeps a GPU busy; halved until a batch fits into its memory
MAX_ERROR_CHARS = 300  # of a message of torch


@dataclass(frozen=True)
class _Weights:
    """A weights file, its revision if it was downloaded from a hub, and its preprocessing."""

    path: Path
    revision: str | None
    preprocess_config: dict[str, Any]


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
        head, slash, tail = model.partition("/")
        self._weights_path: Path | None
        if "@" in head or (not slash and "@" in model):
            self._arch, _, path = model.partition("@")
            self._weights_path = Path(path).absolute() if path else None
            self._tag, self._revision = "", None
        else:
            self._arch, self._weights_path = head, None
            self._tag, _, revision = tail.partition("@")
            self._revision = revision or None
        if not self._arch or not (self._tag or self._weights_path):
            raise UnknownModel(
                f"open_clip:{model} names no weights; use open_clip:ARCH/PRETRAINED or"
                " open_clip:ARCH@WEIGHTS_FILE"
            )

    @property
    def name(self) -> str:
        """The name with the revision of the weights, so that the next run loads the same."""
        if self._weights_path:
            return f"open_clip:{self._arch}@{self._weights_path}"
        revision = self._tower.revision
        return f"open_clip:{self._arch}/{self._tag}" + (f"@{revision}" if revision else "")

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
        is_known = self._arch in open_clip.list_models()
        config = open_clip.get_model_config(self._arch) if is_known else None
        if config is None:
            raise UnknownModel(
                f"open_clip knows no architecture {self._arch!r}; list them with"
                " `python -c 'import open_clip; print(open_clip.list_models())'`"
            )
        weights = self._fetch_weights(open_clip)
        if self._threads:
            torch.set_num_threads(self._threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tag_config = open_clip.get_pretrained_cfg(self._arch, self._tag) if self._tag else {}
        default_quick_gelu = config.get("quick_gelu", False)
        quick_gelu = bool(tag_config.get("quick_gelu", default_quick_gelu))
        model = _build_model(self._arch, config, weights.path, quick_gelu=quick_gelu)
        preprocess = _parse_preprocess(self._arch, config, weights)
        mean, std = _parse_mean_and_std(weights, device)
        # A tag may change the activation, so one file may have two spaces.
        is_default = quick_gelu == default_quick_gelu
        name = self._arch if is_default else f"{self._arch} quick_gelu={quick_gelu}"
        return _Tower(
            name,
            _move_to_device(model, device),
            device,
            mean,
            std,
            preprocess,
            config["embed_dim"],
            _hash_file(weights.path),
            weights.revision,
        )

    def _fetch_weights(self, open_clip: Any) -> _Weights:  # noqa: ANN401 - a module without types
        """Find the local weights file, or download it."""
        defaults = {
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        }
        if self._weights_path:
            if not self._weights_path.is_file():
                raise UnusableModel(
                    f"{self._weights_path} does not exist;"
                    " give the path of a .safetensors or .pt file after @"
                )
            config = self._find_preprocess_config(open_clip, self._weights_path)
            return _Weights(self._weights_path, None, defaults | config)
        tag_config = open_clip.get_pretrained_cfg(self._arch, self._tag)
        if not tag_config:
            known_tags = ", ".join(open_clip.list_pretrained_tags_by_model(self._arch)) or "none"
            raise UnknownModel(
                f"open_clip has no weights {self._tag!r} for {self._arch}; it has: {known_tags}"
            )
        path = self._download_weights(open_clip, tag_config)
        revision = path.parent.name if path.parent.parent.name == "snapshots" else None
        return _Weights(path, revision, defaults | _select_preprocess_keys(tag_config))

    def _download_weights(
        self,
        open_clip: Any,  # noqa: ANN401 - a module without types
        tag_config: dict[str, Any],
    ) -> Path:
        try:
            hub = tag_config.get("hf_hub")
            if not hub:
                return Path(open_clip.download_pretrained(tag_config))
            repository, _, file_name = hub.rpartition("/")
            return Path(
                open_clip.pretrained.download_pretrained_from_hf(
                    repository, filename=file_name or None, revision=self._revision
                )
            )
        except Exception as error:
            raise UnusableModel(
                f"the weights of {self._arch}/{self._tag} cannot be downloaded ({error});"
                f" download them by other means and use open_clip:{self._arch}@FILE"
            ) from error

    def _find_preprocess_config(
        self,
        open_clip: Any,  # noqa: ANN401 - a module without types
        path: Path,
    ) -> dict[str, Any]:
        """Find the preprocessing of a local weights file; empty if nothing describes it.

        It is in open_clip_config.json beside the file. Without that, it is the preprocessing of
        the published weights of this architecture, if all have the same.
        """
        config_path = path.with_name("open_clip_config.json")
        if config_path.is_file():
            try:
                config = json.loads(config_path.read_text())["preprocess_cfg"]
                return {
                    key: value
                    for key, value in _select_preprocess_keys(config).items()
                    if value is not None
                }
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise UnusableModel(
                    f"{config_path} has no readable preprocess_cfg ({error!r});"
                    " repair it, or move it away"
                ) from error
        published = [
            _select_preprocess_keys(open_clip.get_pretrained_cfg(self._arch, tag))
            for tag in open_clip.list_pretrained_tags_by_model(self._arch)
        ]
        all_equal = bool(published) and all(config == published[0] for config in published)
        return published[0] if all_equal else {}


def _select_preprocess_keys(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in PREPROCESS_KEYS}


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
        model.load_state_dict(_load_tower_weights(path))
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


def _parse_preprocess(arch: str, config: dict[str, Any], weights: _Weights) -> Preprocess:
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
    weights: _Weights, device: torch.device
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


def _load_tower_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """Load the image tower's tensors from a checkpoint, without executing anything in it.

    Raises UnusableModel for a damaged file and for a pickle that holds more than tensors.
    """
    state = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not _is_state_dict(state):
        raise UnusableModel(f"{path} does not hold the weights of a model")
    tensors = {key.removeprefix("module."): value for key, value in state.items()}
    tower = {
        key.removeprefix("visual."): value
        for key, value in tensors.items()
        if key.startswith("visual.")
    }
    return tower or tensors


def _load_safetensors(path: Path) -> Any:  # noqa: ANN401 - checked by the caller
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnusableModel(f"{path} is not a valid safetensors file: {error}") from error


def _load_pickle(path: Path) -> Any:  # noqa: ANN401 - checked by the caller
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise almost any exception
        # The first sentence of the cause, not torch's own message: that suggests to trust the file.
        cause = str(error.__context__ or error).partition("\n")[0].partition(". ")[0]
        raise UnusableModel(
            f"{path} is damaged or holds more than tensors: {cause or type(error).__name__}"
        ) from error


def _is_state_dict(state: object) -> bool:
    import torch

    return isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )


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


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
