from __future__ import annotations

import json
from collections import Counter

import pytest

from indexes.coverage import (
    CompactionReport,
    Coverage,
    CropReport,
    JoinReport,
    RecallReport,
    UnreadablePath,
    VerificationReport,
    parse_coverage,
)

FULL = Coverage(
    seen=9,
    new=5,
    missing=1,
    flagged=Counter(damaged=1, animated=2),
    failed=Counter({"truncated": 2, "unreadable folder": 1}),
    absent_roots=["/away"],
    unreadable_paths=[UnreadablePath("/photos/closed", "unreadable folder", "Permission denied")],
    warnings=["a warning"],
    join=JoinReport("ivf", "many vectors", 0.35, 12, RecallReport(100, 99, 0.96)),
    verification=VerificationReport(9, 12, Counter(unrelated=12), Counter(away=1), Counter()),
    crops=CropReport(4, 1),
    compaction=CompactionReport(9, 1, 0, 4096),
)


@pytest.mark.parametrize("coverage", [FULL, Coverage()])
def test_coverage_is_the_same_after_its_json(coverage: Coverage) -> None:
    text = json.dumps(coverage.to_dict())
    parsed = parse_coverage(text)
    assert parsed == coverage
    assert json.dumps(parsed.to_dict()) == text


def test_coverage_of_a_run_that_has_not_ended_is_none() -> None:
    assert parse_coverage("{}") is None


def test_coverage_of_a_former_version_gets_defaults() -> None:
    text = '{"seen": 3, "former": 1, "verification": {"version": 2, "pairs": 1}}'
    assert parse_coverage(text) == Coverage(seen=3, verification=VerificationReport(2, 1))


@pytest.mark.parametrize("text", ["", "[1]", '{"join": {"pairs": 1}}', '{"crops": 1}'])
def test_text_that_is_no_coverage_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_coverage(text)
