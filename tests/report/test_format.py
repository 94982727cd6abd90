"""Sizes, counts and failures as a person reads them."""

from __future__ import annotations

import os

import pytest

from pipeline.report.format import format_bytes, format_failure, pluralize


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12 kB"),
        (3_400_000, "3.4 MB"),
        (7_250_000_000, "7.2 GB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_size_has_a_unit_that_fits(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_count_has_its_noun_in_singular_or_plural() -> None:
    assert [pluralize(count, "file") for count in (0, 1, 2000)] == [
        "0 files",
        "1 file",
        "2,000 files",
    ]
    assert pluralize(2, "copy", "copies") == "2 copies"


def test_failure_has_its_path_reason_and_detail_escaped() -> None:
    path = os.fsdecode(b"caf\xe9\n.jpg")
    assert format_failure(path, "damaged", "") == "caf\\xe9\\n.jpg: damaged"
    assert format_failure("é.jpg", "unreadable", "a\x1bb") == "é.jpg: unreadable (a\\x1bb)"
