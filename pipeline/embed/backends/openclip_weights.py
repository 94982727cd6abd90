"""Weights of open_clip's image towers: which are named, where their file is, and what it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UnknownModel, UnusableModel

if TYPE_CHECKING:
    import torch

# Keys of open_clip's preprocessing configuration that are used. Not "size": as in open_clip, the
# size of the tower decides.
PREPROCESS_KEYS = {"mean", "std", "interpolation", "resize_mode", "fill_color"}


@dataclass(frozen=True)
class WeightsName:
    """The name of weights for an architecture: of a local file, or of a published `tag`.

    Published weights may be named with the `revision` of their hub.
    """

    arch: str
    path: Path | None = None
    tag: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, model: str) -> WeightsName:
        """Parse `ARCH/PRETRAINED`, `ARCH/PRETRAINED@REVISION` or `ARCH@WEIGHTS_FILE`.

        Raises UnknownModel for a name of another form.
        """
        head, slash, tail = model.partition("/")
        if "@" in head or (not slash and "@" in model):
            arch, _, path = model.partition("@")
            name = cls(arch, Path(path).absolute() if path else None)
        else:
            tag, _, revision = tail.partition("@")
            name = cls(head, None, tag, revision or None)
        if not name.arch or not (name.tag or name.path):
            raise UnknownModel(
                f"open_clip:{model} names no weights; use open_clip:ARCH/PRETRAINED or"
                " open_clip:ARCH@WEIGHTS_FILE"
            )
        return name

    def __str__(self) -> str:
        """Return the name as it is given to --model."""
        if self.path:
            return f"open_clip:{self.arch}@{self.path}"
        revision = f"@{self.revision}" if self.revision else ""
        return f"open_clip:{self.arch}/{self.tag}{revision}"


@dataclass(frozen=True)
class Weights:
    """A weights file, its revision if it was downloaded from a hub, and its preprocessing."""

    path: Path
    revision: str | None
    preprocess_config: dict[str, Any]

    def compute_sha256(self) -> str:
        """Compute the sha256 of the file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_weights(name: WeightsName) -> Weights:
    """Find the local weights file, or download it.

    Raises UnknownModel for a tag that open_clip does not have, and UnusableModel if there is no
    file or its preprocessing cannot be read.
    """
    import open_clip

    defaults = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    if name.path:
        if not name.path.is_file():
            raise UnusableModel(
                f"{name.path} does not exist; give the path of a .safetensors or .pt file after @"
            )
        config = _find_preprocess_config(name.arch, name.path)
        return Weights(name.path, None, defaults | config)
    tag_config = open_clip.get_pretrained_cfg(name.arch, name.tag)
    if not tag_config:
        known_tags = ", ".join(open_clip.list_pretrained_tags_by_model(name.arch)) or "none"
        raise UnknownModel(
            f"open_clip has no weights {name.tag!r} for {name.arch}; it has: {known_tags}"
        )
    path = _download_weights(name, tag_config)
    revision = path.parent.name if path.parent.parent.name == "snapshots" else None
    return Weights(path, revision, defaults | _select_preprocess_keys(tag_config))


def _download_weights(name: WeightsName, tag_config: dict[str, Any]) -> Path:
    import open_clip

    try:
        hub = tag_config.get("hf_hub")
        if not hub:
            return Path(open_clip.download_pretrained(tag_config))
        repository, _, file_name = hub.rpartition("/")
        return Path(
            open_clip.pretrained.download_pretrained_from_hf(
                repository, filename=file_name or None, revision=name.revision
            )
        )
    except Exception as error:
        raise UnusableModel(
            f"the weights of {name.arch}/{name.tag} cannot be downloaded ({error});"
            f" download them by other means and use open_clip:{name.arch}@FILE"
        ) from error


def _find_preprocess_config(arch: str, path: Path) -> dict[str, Any]:
    """Find the preprocessing of a local weights file; empty if nothing describes it.

    It is in open_clip_config.json beside the file. Without that, it is the preprocessing of the
    published weights of this architecture, if all have the same.
    """
    import open_clip

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
        _select_preprocess_keys(open_clip.get_pretrained_cfg(arch, tag))
        for tag in open_clip.list_pretrained_tags_by_model(arch)
    ]
    all_equal = bool(published) and all(config == published[0] for config in published)
    return published[0] if all_equal else {}


def _select_preprocess_keys(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in PREPROCESS_KEYS}


def load_tower_weights(path: Path) -> Mapping[str, torch.Tensor]:
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
