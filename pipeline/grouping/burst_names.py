"""Names that cameras give to the frames of a burst."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePath

# A series, and the number of a frame in it. Programs append to these names, so they match starts.
BURST_NAME_PATTERNS = (
    # Nexus and Pixel: 00001IMG_00001_BURST20171111030039_COVER.jpg
    re.compile(r"(?P<frame>\d{5})IMG_\d{5}_(?P<series>BURST\d{13,})"),
    # Huawei: IMG_20231014_183246_BURST001_COVER.jpg
    re.compile(r"(?P<series>IMG_\d{8}_\d{6}_BURST)(?P<frame>\d{3})(?!\d)"),
    # Sony: DSC_0035_BURST20230709220904977_COVER.JPG
    re.compile(r"DSC_(?P<frame>\d{4})_(?P<series>BURST\d{17})"),
    # Samsung: 20231207_101605_031.jpg
    re.compile(r"(?P<series>\d{8}_\d{6}_)(?P<frame>\d{3})(?=[._])"),
)


def are_of_one_burst(first_paths: Iterable[str], second_paths: Iterable[str]) -> bool:
    """Tell if two images have the names of different frames of one burst."""
    first = dict(filter(None, map(_parse_burst_name, first_paths)))
    second = dict(filter(None, map(_parse_burst_name, second_paths)))
    return any(first[series] != second[series] for series in first.keys() & second.keys())


def has_burst_name(path: str) -> bool:
    """Tell if a file has the name of a frame of a burst."""
    return _parse_burst_name(path) is not None


@lru_cache(maxsize=100_000)
def _parse_burst_name(path: str) -> tuple[str, str] | None:
    """Return the series and the frame that the name of a file says, or None."""
    name = PurePath(path).name
    for pattern in BURST_NAME_PATTERNS:
        if match := pattern.match(name):
            return match["series"], match["frame"]
    return None
