"""Image towers of open_clip models, from its own downloads or from a local file. Text towers are never built."""

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

# No copy set has been measured for these models: a cosine of .95 is the usual choice for CLIP towers.
FLOOR, THRESHOLD = 0.80, 0.95
PREPROCESS_KEYS = {
    "mean",
    "std",
    "interpolation",
    "resize_mode",
    "fill_color",
}  # not "size": as in open_clip, the tower's own counts
RESAMPLE_BY_INTERPOLATION = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    "random": "bicubic",
}  # open_clip's words; random is for training


@dataclass(frozen=True)
class _Tower:
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
    """An open_clip image tower: `ARCH/PRETRAINED`, `ARCH/PRETRAINED@REVISION` or `ARCH@WEIGHTS_FILE`. Loaded by its first use."""

    def __init__(self, model: str, threads: int | None = None) -> None:
        """Note which model; raises UnknownModel when `model` has none of the three forms."""
        self._threads = threads
        self._max_batch_size: int | None = None  # pictures that the GPU's memory was found to hold
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
                f"open_clip:{model} names no weights; use open_clip:ARCH/PRETRAINED or open_clip:ARCH@WEIGHTS_FILE"
            )

    @property
    def name(self) -> str:
        """The model's name with the revision that its weights came from, so that the next run takes the same."""
        if self._weights_path:
            return f"open_clip:{self._arch}@{self._weights_path}"
        revision = self._tower.revision
        return f"open_clip:{self._arch}/{self._tag}" + (f"@{revision}" if revision else "")

    @property
    def preprocess(self) -> Preprocess:
        """The model's own preprocessing."""
        return self._tower.preprocess

    @property
    def batch_size(self) -> int:
        """More where there is a GPU to be kept busy, but no more than its memory was found to hold."""
        return self._max_batch_size or (256 if self._tower.device.type == "cuda" else 32)

    @cached_property
    def space(self) -> Space:
        """The space that the sha256 of the weights file stands for, wherever the file lies."""
        tower = self._tower
        mean, std = (
            ",".join(f"{number:.6g}" for number in numbers.flatten().tolist())
            for numbers in (tower.mean, tower.std)
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
        """None: it runs here."""
        return 0

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture, in order; float32 on the CPU, mixed precision on a GPU, in halves where its memory is too small."""
        import torch

        most = self._max_batch_size or len(inputs)
        if len(inputs) > most:
            return np.concatenate(
                [self.encode(inputs[start : start + most]) for start in range(0, len(inputs), most)]
            )
        try:
            return self._encode_batch(np.stack(inputs))
        except torch.cuda.OutOfMemoryError as error:
            if len(inputs) == 1:
                raise UnusableModel(
                    f"the GPU has no memory for one picture of {self.name}: {_summarize_error(error)}; free some"
                ) from error
        torch.cuda.empty_cache()
        self._max_batch_size = len(inputs) // 2
        return self.encode(inputs)

    def _encode_batch(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        tower = self._tower
        with torch.inference_mode():
            pixels = torch.from_numpy(inputs)
            if tower.device.type == "cuda":
                pixels = pixels.pin_memory().to(tower.device, non_blocking=True)
            pixels = pixels.permute(0, 3, 1, 2).float().div_(255.0)
            with torch.autocast("cuda", dtype=torch.float16, enabled=tower.device.type == "cuda"):
                rows = tower.model((pixels - tower.mean) / tower.std)
        done: NDArray[np.float32] = rows.float().cpu().numpy()
        return done

    @cached_property
    def _tower(self) -> _Tower:
        try:
            import open_clip
            import torch
            from open_clip.model import _build_vision_tower
        except ImportError as error:
            raise _make_missing_extra(error) from error
        # Asked only for names on its list: a hub's or a folder's name would make it look there.
        config = (
            open_clip.get_model_config(self._arch)
            if self._arch in open_clip.list_models()
            else None
        )
        if config is None:
            raise UnknownModel(
                f"open_clip knows no architecture {self._arch!r}; `python -c 'import open_clip; print(open_clip.list_models())'`"
            )
        path, revision, preprocess = self._fetch_weights(open_clip)
        if self._threads:
            torch.set_num_threads(self._threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tag = open_clip.get_pretrained_cfg(self._arch, self._tag) if self._tag else {}
        quick_gelu = bool(tag.get("quick_gelu", config.get("quick_gelu", False)))
        try:
            alone = {
                "timm_model_pretrained": False,
                "output_tokens": False,
            }  # CoCa's decoder wants tokens beside the row
            model = _build_vision_tower(
                config["embed_dim"], {**config["vision_cfg"], **alone}, quick_gelu
            )
            model.load_state_dict(_load_tower_weights(path))
        except (RuntimeError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise UnusableModel(
                f"{path} does not fit {self._arch}: {_summarize_error(error)}"
            ) from error
        size = config["vision_cfg"].get("image_size", 224)
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise UnusableModel(
                f"{self._arch} takes {size} pixels; only square inputs are supported"
            )
        fit, resample, fill = (
            preprocess["resize_mode"],
            RESAMPLE_BY_INTERPOLATION.get(preprocess["interpolation"]),
            preprocess.get("fill_color", 0),
        )
        try:
            mean, std = (
                torch.tensor(preprocess[key], device=device).expand(3).reshape(1, 3, 1, 1)
                for key in ("mean", "std")
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise UnusableModel(f"{path} has no usable mean and std: {error}") from error
        if (
            fit not in ("shortest", "longest", "squash")
            or not resample
            or not isinstance(fill, int)
        ):
            raise UnusableModel(f"{path} wants pictures prepared in an unknown way: {preprocess}")
        view = Preprocess(sides.pop(), fit, resample, fill)
        # A tag may change the activation, so that a file has other rows under it than alone.
        called = (
            self._arch
            if quick_gelu == config.get("quick_gelu", False)
            else f"{self._arch} quick_gelu={quick_gelu}"
        )
        model = model.eval().to(device)
        if device.type == "cuda" and any(
            isinstance(module, torch.nn.Conv2d) and module.kernel_size != module.stride
            for module in model.modules()
        ):
            model = model.to(
                memory_format=torch.channels_last
            )  # convolutions that overlap, not the patches of a transformer
        return _Tower(
            called, model, device, mean, std, view, config["embed_dim"], _hash_file(path), revision
        )

    def _fetch_weights(self, open_clip: Any) -> tuple[Path, str | None, dict[str, Any]]:  # noqa: ANN401 - a module without types
        """The weights file, its revision if it was downloaded, and how its model wants pictures prepared."""
        defaults = {
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        }
        if self._weights_path:
            if not self._weights_path.is_file():
                raise UnusableModel(
                    f"{self._weights_path} is not there; give the path of a .safetensors or .pt file after @"
                )
            return (
                self._weights_path,
                None,
                defaults | self._read_preprocess_config(open_clip, self._weights_path),
            )
        tag = open_clip.get_pretrained_cfg(self._arch, self._tag)
        if not tag:
            known = ", ".join(open_clip.list_pretrained_tags_by_model(self._arch)) or "none"
            raise UnknownModel(
                f"open_clip has no weights {self._tag!r} for {self._arch}; it has: {known}"
            )
        try:
            if hub := tag.get("hf_hub"):
                repository, _, file = hub.rpartition("/")
                path = Path(
                    open_clip.pretrained.download_pretrained_from_hf(
                        repository, filename=file or None, revision=self._revision
                    )
                )
            else:
                path = Path(open_clip.download_pretrained(tag))
        except Exception as error:
            raise UnusableModel(
                f"the weights of {self._arch}/{self._tag} cannot be downloaded ({error}); use open_clip:{self._arch}@FILE"
            ) from error
        revision = path.parent.name if path.parent.parent.name == "snapshots" else None
        return (
            path,
            revision,
            defaults | {key: value for key, value in tag.items() if key in PREPROCESS_KEYS},
        )

    def _read_preprocess_config(self, open_clip: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401 - as above
        """From open_clip_config.json beside the weights; else what all published weights of this architecture agree on; else nothing."""
        beside = path.with_name("open_clip_config.json")
        if beside.is_file():
            try:
                given = json.loads(beside.read_text())["preprocess_cfg"]
                return {
                    key: value
                    for key, value in given.items()
                    if key in PREPROCESS_KEYS and value is not None
                }
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise UnusableModel(
                    f"{beside} holds no preprocess_cfg ({error!r}); mend it, or move it away"
                ) from error
        tags = [
            open_clip.get_pretrained_cfg(self._arch, tag)
            for tag in open_clip.list_pretrained_tags_by_model(self._arch)
        ]
        agreed = [
            {key: value for key, value in tag.items() if key in PREPROCESS_KEYS} for tag in tags
        ]
        return agreed[0] if agreed and all(other == agreed[0] for other in agreed) else {}


def _load_tower_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """The image tower's tensors in a checkpoint; nothing in it is executed. Raises BadModel for a pickle that holds more than tensors."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UnusableModel(f"{path} is no sound safetensors file: {error}") from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # on damaged files: whatever a pickle machine can trip over
            # The first sentence of what torch met, not its message: that advises to trust the file.
            why = str(error.__context__ or error).partition("\n")[0].partition(". ")[0]
            raise UnusableModel(
                f"{path} is refused, it is damaged or holds more than tensors: {why or type(error).__name__}"
            ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise UnusableModel(f"{path} holds no model's weights")
    named = {key.removeprefix("module."): value for key, value in state.items()}
    return {
        key.removeprefix("visual."): value
        for key, value in named.items()
        if key.startswith("visual.")
    } or named


def _summarize_error(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _make_missing_extra(error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"open_clip models need packages that are not installed ({error.name}); run `pip install 'neardup[clip]'`"
    )


def list_pretrained() -> Iterator[tuple[str, int, int]]:
    """Every model that open_clip can download: its name, the numbers in a vector, and the side of its pictures in pixels.

    Raises MissingExtra where open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise _make_missing_extra(error) from error
    for arch, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(arch)
        size = config["vision_cfg"].get("image_size", 224) if config else None
        if config and isinstance(size, int):
            yield f"open_clip:{arch}/{tag}", config["embed_dim"], size


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
