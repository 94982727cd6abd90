"""Read and validate model cards, the JSON files that describe ONNX models; docs list the keys."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.decode.preprocess import Preprocess
from pipeline.errors import UnusableModel

LAYOUTS = ("NHWC", "NCHW")
FITS = ("squash", "shortest", "longest")
RESAMPLES = ("bicubic", "bilinear", "lanczos", "box", "hamming", "nearest")
MAX_DIM = 1 << 16
MAX_INPUT_SIDE_PX = 4096
SHA256_HEX_DIGITS = 64


@dataclass(frozen=True)
class ModelCard:
    """The content of a model card; `path` is the model file, beside the card.

    None stands for what the model itself decides: its sha256, its only input, its first output;
    and for inputs that are not scaled by mean and std.
    """

    name: str
    path: Path
    sha256: str | None
    dim: int
    preprocess: Preprocess
    input: str | None
    output: str | None
    layout: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    floor: float
    threshold: float


def read_card(path: Path) -> ModelCard:
    """Read the card at `path` and validate every key. Raises UnusableModel."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusableModel(
            f"{path} cannot be read: {error.strerror};"
            " a model needs a card beside it, see docs/models.md"
        ) from error
    except ValueError as error:
        raise UnusableModel(f"{path} is not valid JSON: {error}") from error
    try:
        card = _parse_card(content, path)
        _validate_card(card, content, path)
    except KeyError as error:
        raise UnusableModel(
            f"{path} lacks the key {error}; see docs/models.md for all keys"
        ) from error
    except (ValueError, TypeError) as error:
        raise UnusableModel(f"{path} is not a valid model card: {error}") from error
    return card


def _parse_card(content: Any, path: Path) -> ModelCard:  # noqa: ANN401 - any JSON value
    return ModelCard(
        name=_parse_text(content["name"]),
        path=path.with_name(_parse_text(content["file"])),
        sha256=_parse_sha256(content.get("sha256")),
        dim=_parse_positive_int(content["dim"], MAX_DIM),
        preprocess=_parse_preprocess(content["preprocess"]),
        input=_parse_optional_text(content.get("input")),
        output=_parse_optional_text(content.get("output")),
        layout=_parse_text(content.get("layout", "NHWC")),
        mean=_parse_channel_values(content.get("mean")),
        std=_parse_channel_values(content.get("std")),
        floor=_parse_cosine(content["floor"]),
        threshold=_parse_cosine(content["threshold"]),
    )


def _validate_card(card: ModelCard, content: dict[str, Any], path: Path) -> None:
    """Raise ValueError for unknown keys, and for keys that contradict each other."""
    if unknown_keys := set(content) - set(ModelCard.__dataclass_fields__) - {"file"}:
        raise ValueError(f"unknown keys {sorted(unknown_keys)}")
    if card.path.name != content["file"] or card.path.parent != path.parent:
        raise ValueError("file must be the name of a file beside the card")
    if card.layout not in LAYOUTS:
        raise ValueError("layout must be NHWC or NCHW")
    if (card.mean is None) != (card.std is None) or (card.std and min(card.std) <= 0):
        raise ValueError("mean and std must come together, and std must be above 0")
    if not card.floor <= card.threshold:
        raise ValueError("floor must not be above threshold")


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise TypeError(f"{value!r} is not a name")
    return value


def _parse_optional_text(value: object) -> str | None:
    return None if value is None else _parse_text(value)


def _parse_sha256(value: object) -> str | None:
    if value is None:
        return None
    digits = _parse_text(value).lower()
    if len(digits) != SHA256_HEX_DIGITS or set(digits) - set("0123456789abcdef"):
        raise ValueError("sha256 must be 64 hexadecimal digits")
    return digits


def _parse_positive_int(value: object, max_value: int) -> int:
    if type(value) is not int or not 1 <= value <= max_value:
        raise TypeError(f"{value!r} is not an integer from 1 to {max_value}")
    return value


def _parse_cosine(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1 <= value <= 1:
        raise TypeError(f"{value!r} is not a cosine")
    return float(value)


def _parse_channel_values(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 3 and all(map(_is_finite_number, value)):
        return tuple(float(number) for number in value)
    raise TypeError(f"{value!r} is not a list of three numbers")


def _is_finite_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _parse_preprocess(value: object) -> Preprocess:
    if not isinstance(value, dict) or set(value) - {"size", "fit", "resample", "fill"}:
        raise TypeError(f"preprocess {value!r} must be an object with size, fit, resample or fill")
    preprocess = Preprocess(
        _parse_positive_int(value["size"], MAX_INPUT_SIDE_PX),
        value.get("fit", "squash"),
        value.get("resample", "bicubic"),
        value.get("fill", 0),
    )
    if preprocess.fit not in FITS:
        raise ValueError(f"preprocess fit must be one of {FITS}")
    if preprocess.resample not in RESAMPLES:
        raise ValueError(f"preprocess resample must be one of {RESAMPLES}")
    if type(preprocess.fill) is not int or not 0 <= preprocess.fill <= 255:
        raise ValueError("preprocess fill must be an integer from 0 to 255")
    return preprocess
