"""Decisions outlive images, compaction, a killed process and a lost catalog."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary, builds, characters, datetimes, lists, sampled_from, text

from indexes import Store, check, repair
from indexes.catalog import schema
from indexes.decisions import (
    FORMAT_VERSION,
    HASH_BYTES,
    MAX_CONTENTS,
    PAIR_KINDS,
    DecidedContent,
    Decision,
    DecisionKind,
    encode_decision,
    parse_decision,
)
from indexes.upkeep.recovery import load_decisions
from tests.support.decisions import START, decide
from tests.support.faults import run_in_process
from tests.support.stores import make_batch, make_file, make_hash, make_unit_rows

DIFFERENT, SAME, KEEP, REJECT = DecisionKind
DECISIONS = [
    decide(DIFFERENT, 0, 1, 2),
    decide(SAME, 3, 4, minute=1, author="bob"),
    decide(REJECT, 5, minute=2),
]

Update = Callable[[Sequence[Decision]], Sequence[Decision]]


def put(*decisions: Decision) -> Update:
    return lambda before: [*before, *decisions]


def fill(store: Store) -> None:
    store.add(make_batch(list(range(8)), make_unit_rows(1, 8)))
    store.update_decisions(put(*DECISIONS))


# --- lines ---

hashes = binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
any_text = text(characters(exclude_categories=()), max_size=20)  # with lone surrogates
contents_of_pairs = lists(
    builds(DecidedContent, hashes, hashes, any_text),
    min_size=2,
    max_size=4,
    unique_by=(lambda content: content.hash, lambda content: content.pixel_hash),
)


@given(
    kind=sampled_from(DecisionKind),
    contents=contents_of_pairs,
    author=any_text,
    time=datetimes(min_value=START.replace(tzinfo=None)),
)
def test_decision_reads_back_from_its_line(
    kind: DecisionKind, contents: list[DecidedContent], author: str, time: datetime
) -> None:
    contents = contents if kind in PAIR_KINDS else contents[:1]
    decision = Decision(kind, tuple(contents), author, time.replace(tzinfo=START.tzinfo))
    line = encode_decision(decision)
    assert line.isascii()
    assert "\n" not in line
    assert parse_decision(line) == decision


def test_id_follows_from_all_but_names_and_order() -> None:
    decision = decide(DIFFERENT, 1, 2)
    renamed = tuple(replace(content, name="other") for content in decision.contents[::-1])
    assert replace(decision, contents=renamed).id == decision.id
    others = [
        decide(SAME, 1, 2),
        decide(DIFFERENT, 1, 3),
        decide(DIFFERENT, 1, 2, author="bob"),
        replace(decision, time=START + timedelta(microseconds=1)),
    ]
    assert len({decision.id, *(other.id for other in others)}) == 5


LINE = json.loads(encode_decision(DECISIONS[0]))
CONTENT = LINE["contents"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 1"),
        ({"version": True}, "version 1"),
        ({"kind": "perhaps"}, "'perhaps' is not a kind"),
        ({"kind": ["same"]}, "kind is not a text"),
        ({"kind": "keep"}, "3 contents are not what keep is about"),
        ({"contents": []}, "0 contents"),
        ({"contents": [CONTENT, CONTENT]}, "two of the contents are equal"),
        ({"contents": [CONTENT] * (MAX_CONTENTS + 1)}, "at most 1,000"),
        ({"contents": [7, 8]}, "a content is no JSON object"),
        ({"contents": [CONTENT | {"blake3": "0f"}]}, "64 digits"),
        ({"contents": [CONTENT | {"blake3": CONTENT["blake3"].replace("0", "G")}]}, "hexadecimal"),
        ({"contents": [CONTENT | {"pixel_hash": None}]}, "pixel_hash is not a text"),
        ({"author": 3}, "author is not a text"),
        ({"author": "a" * 201}, "at most 200"),
        ({"author": "eve"}, "the id does not belong"),
        ({"time": "yesterday"}, "is not a time"),
        ({"time": "2026-11-30T12:00:00+00:00"}, "with microseconds"),
        ({"time": "0001-01-01T00:00:00.000000+14:00"}, "is not a time"),
        ({"time": "1969-12-31T23:59:59.000000+00:00"}, "is not a time in UTC"),
        ({"id": "0" * 16}, "the id does not belong"),
    ],
)
def test_hostile_line_is_refused(change: dict[str, object], message: str) -> None:
    assert parse_decision(json.dumps(LINE | {"unknown": 1})) == DECISIONS[0]
    with pytest.raises(ValueError, match=message):
        parse_decision(json.dumps(LINE | change))


@pytest.mark.parametrize("line", ["", "{", "[" * 100_000, "null", "[]", "7" * (1 << 22 | 1)])
def test_line_that_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|nested|longer"):
        parse_decision(line)


# --- the store ---


def test_decisions_outlive_their_images_and_compaction(store: Store) -> None:
    fill(store)
    ids = store.catalog.decisions.find_images()
    assert set(ids) == {make_hash(number) for number in range(6)}
    with store.lock_for_ingest():
        store.remove_files(
            file.id
            for number in range(7)
            if (file := store.catalog.files.get_by_path(make_file(number).path))
        )
        assert store.compact(full=True).vectors_dropped == 1  # of image 6
    assert store.catalog.decisions.list() == DECISIONS
    # What a decision is about keeps its vector, so that copies of it are found later.
    assert store.catalog.decisions.find_images() == ids
    assert None not in store.catalog.vectors.find_of_images(ids.values()).values()
    assert not store.catalog.images.get_ids([make_hash(6)])
    store.update_decisions(lambda before: before[1:])
    with store.lock_for_ingest():
        assert store.compact(full=True).vectors_dropped == 3
    assert check(store.folder, read_all=True) == []


def test_failed_update_changes_nothing_and_equal_decisions_are_stored_once(store: Store) -> None:
    fill(store)

    def fail(before: Sequence[Decision]) -> Sequence[Decision]:
        raise ValueError(len(before))

    with pytest.raises(ValueError, match="3"):
        store.update_decisions(fail)
    assert store.update_decisions(put(DECISIONS[1])) == DECISIONS
    assert load_decisions(store.folder) == DECISIONS


def test_update_reports_the_decisions_by_time(store: Store) -> None:
    assert store.update_decisions(put(*DECISIONS[::-1])) == DECISIONS
    assert store.catalog.decisions.list() == DECISIONS


@pytest.mark.parametrize("damage", ["missing", "unreadable", "row"])
def test_repair_restores_decisions(store: Store, damage: str) -> None:
    fill(store)
    folder, catalog = store.folder, store.folder / "catalog.db"
    store.close()
    if damage == "missing":
        catalog.unlink()
    elif damage == "unreadable":
        catalog.write_bytes(b"\0" * 5000)
    else:  # the copy is lost as well, and the catalog can still be read
        (folder / "decisions.jsonl").unlink()
        with closing(sqlite3.connect(catalog)) as db, db:
            db.execute("UPDATE decisions SET record = '{' WHERE id = ?", (DECISIONS[0].id,))
    repair(folder)
    with Store(folder) as repaired:
        expected = DECISIONS[1:] if damage == "row" else DECISIONS
        assert repaired.catalog.decisions.list() == expected
    assert check(folder, read_all=True) == []


def test_damaged_line_of_the_copy_is_left_out(store: Store) -> None:
    fill(store)
    copy = store.folder / "decisions.jsonl"
    lines = copy.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    copy.write_bytes(lines[0] + lines[1].replace(b"bob", b"eve") + b"\xff\n" + lines[2][:-9])
    assert load_decisions(store.folder) == DECISIONS[:1]
    problems = [finding.problem for finding in check(store.folder)]
    assert problems == [f"{copy} lacks 2 decisions; the next ingest writes it again"]
    with store.lock_for_ingest():
        store.prepare()
    assert copy.read_bytes() == b"".join(lines)


def _decide_until_failpoint(folder: Path, failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    with Store(folder, write=True) as store:
        store.update_decisions(put(DECISIONS[0]))


@pytest.mark.parametrize(
    ("failpoint", "is_stored"),
    [("commit written", False), ("commit done", True), ("commit sealed", True)],
)
def test_killed_decision_is_stored_whole_or_not_at_all(
    store: Store, failpoint: str, is_stored: bool
) -> None:
    folder = store.folder
    store.close()
    assert run_in_process(_decide_until_failpoint, folder, failpoint) == -signal.SIGKILL
    with Store(folder, write=True) as again:
        assert again.catalog.decisions.list() == DECISIONS[:is_stored]
        with again.lock_for_ingest():
            again.prepare()
    assert load_decisions(folder) == DECISIONS[:is_stored]


def test_store_of_the_format_before_gets_the_tables(store: Store) -> None:
    store.add(make_batch([0], make_unit_rows(1, 1)))
    folder, version = store.folder, len(schema.SCHEMA_MIGRATIONS)
    store.close()
    (folder / "catalog.seal").unlink()
    with closing(sqlite3.connect(folder / "catalog.db")) as db, db:
        db.execute("DROP TABLE decided_contents")
        db.execute("DROP TABLE decisions")
        db.execute(f"PRAGMA user_version = {version - 1}")
    with Store(folder, write=True) as migrated:
        assert migrated.catalog.decisions.list() == []
        migrated.update_decisions(put(DECISIONS[0]))
        assert migrated.catalog.decisions.list() == DECISIONS[:1]
    assert check(folder, read_all=True) == []
    assert json.loads((folder / "decisions.jsonl").read_text())["version"] == FORMAT_VERSION
