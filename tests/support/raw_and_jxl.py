"""Write raw photos and JPEG XL files for tests."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import encode_jpeg, save_image

Tags = dict[int, tuple[str, list[int] | bytes]]


def encode_dng(
    sensor: NDArray[np.uint16],
    preview: bytes | None,
    preview_size: tuple[int, int],
    orientation: int = 1,
) -> bytes:
    """Write the smallest DNG that LibRaw reads: an RGGB sensor and an optional JPEG preview."""
    height, width = sensor.shape
    pixels = sensor.astype("<u2").tobytes()
    matrix = [
        value
        for row in np.round(np.linalg.inv(XYZ) * 10_000).astype(int).tolist()
        for number in row
        for value in (number, 10_000)
    ]
    raw: Tags = {
        254: ("I", [0]),
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16]),
        259: ("H", [1]),
        262: ("H", [32803]),
        273: ("I", [8]),
        277: ("H", [1]),
        278: ("I", [height]),
        279: ("I", [len(pixels)]),
        33421: ("H", [2, 2]),
        33422: ("B", bytes([0, 1, 1, 2])),
    }
    camera: Tags = {
        271: ("s", b"Test\0"),
        272: ("s", b"Camera\0"),
        274: ("H", [orientation]),
        50706: ("B", bytes([1, 4, 0, 0])),
        50708: ("s", b"Test Camera\0"),
        50721: ("r", matrix),
        50728: ("R", [1, 1] * 3),
        50778: ("H", [21]),
    }
    if preview is None:
        return _tiff(pixels, [raw | camera])
    first: Tags = {
        254: ("I", [1]),
        256: ("I", [preview_size[0]]),
        257: ("I", [preview_size[1]]),
        258: ("H", [8, 8, 8]),
        259: ("H", [7]),
        262: ("H", [6]),
        273: ("I", [8 + len(pixels)]),
        277: ("H", [3]),
        278: ("I", [preview_size[1]]),
        279: ("I", [len(preview)]),
    }
    return _tiff(pixels + preview, [first | camera, raw])


def save_dng(
    path: Path, scene: Image.Image, preview: Image.Image | None = None, orientation: int = 1
) -> Path:
    """Save a raw photo of a scene, perhaps with a JPEG preview."""
    jpeg, size = (encode_jpeg(preview), preview.size) if preview else (None, (0, 0))
    path.write_bytes(encode_dng(render_mosaic(scene), jpeg, size, orientation))
    return path


XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of sRGB, which becomes the color space of the camera


def _tiff(body: bytes, directories: list[Tags]) -> bytes:
    """Write a TIFF with the first directory, and the others as its children."""
    out = b"II*\0" + bytes(4) + body
    children: list[int] = []
    for tags in reversed(directories):
        if tags is directories[0] and children:
            tags = tags | {330: ("I", children)}
        at = len(out)
        values_start, entries = at + 2 + 12 * len(tags) + 4, b""
        values = b""
        for tag, (kind, value) in sorted(tags.items()):
            code, count = {
                "s": (2, len(value)),
                "B": (1, len(value)),
                "R": (5, len(value) // 2),
                "r": (10, len(value) // 2),
            }.get(kind, ({"H": 3, "I": 4}.get(kind, 0), len(value)))
            packed = (
                value
                if isinstance(value, bytes)
                else struct.pack("<" + {"R": "I", "r": "i"}.get(kind, kind) * len(value), *value)
            )
            if len(packed) > 4:
                values, packed = values + packed, struct.pack("<I", values_start + len(values))
            entries += struct.pack("<HHI", tag, code, count) + packed.ljust(4, b"\0")
        out += struct.pack("<H", len(tags)) + entries + bytes(4) + values
        children.append(at)
    return out[:4] + struct.pack("<I", children[-1]) + out[8:]


def render_mosaic(scene: Image.Image) -> NDArray[np.uint16]:
    """Render an image as the samples of an RGGB sensor, linear in light."""
    linear = (np.asarray(scene) / 255.0) ** 2.2 * 65535
    samples = linear[..., 1].copy()
    samples[::2, ::2], samples[1::2, 1::2] = linear[::2, ::2, 0], linear[1::2, 1::2, 2]
    return samples.astype(np.uint16)


def save_jxl(path: Path, scene: Image.Image, **options: Any) -> Path:
    import pillow_jxl  # noqa: F401 - lets Pillow write it

    return save_image(path, scene, **options)
