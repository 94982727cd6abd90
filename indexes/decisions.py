"""Decisions of people about photos, and their form as a line of JSON: in the catalog, in the copy
beside it, and in an export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from blake3 import blake3

FORMAT_VERSION = 1  # of a line
HASH_BYTES = 32  # of a blake3
ID_DIGITS = 16
# Limits on lines from elsewhere.
MAX_AUTHOR_CHARS = 200
MAX_NAME_CHARS = 1000
MAX_CONTENTS = 1000
MAX_LINE_CHARS = 1 << 22
MIN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class DecisionKind(StrEnum):
    """A kind of decision. The values are stored, and printed unchanged."""

    DIFFERENT = "different"  # each two of the photos are no copies of each other
    SAME = "same"  # the photos are copies of each other
    KEEP = "keep"  # the photo is the keeper of its group
    REJECT = "reject"  # the photo was thrown away


PAIR_KINDS = (DecisionKind.DIFFERENT, DecisionKind.SAME)  # of two photos or more


@dataclass(frozen=True, slots=True)
class DecidedContent:
    """A content that a decision is about.

    `hash` is the blake3 of its bytes, `pixel_hash` that of its upright pixels, by which it is known
    once its metadata was edited. `name` is the name of the file when it was decided, for people.
    """

    hash: bytes
    pixel_hash: bytes
    name: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about one content, or about several.

    `time` is in UTC, with microseconds. The contents are in the order in which they were named.
    """

    kind: DecisionKind
    contents: tuple[DecidedContent, ...]
    author: str
    time: datetime

    @property
    def id(self) -> str:
        """Hexadecimal digits that follow from all but the names of the files."""
        hashes = sorted(content.hash + content.pixel_hash for content in self.contents)
        head = f"{self.kind}\n{_format_time(self.time)}\n{self.author}\n"
        data = head.encode("utf-8", "surrogatepass") + b"".join(hashes)
        return blake3(data).hexdigest()[:ID_DIGITS]

    @property
    def order(self) -> tuple[datetime, str]:
        """A sort key: the earlier decision first, whichever was stored first."""
        return self.time, self.id


def encode_decision(decision: Decision) -> str:
    """Encode a decision as a line of JSON in ASCII, without the line break."""
    return json.dumps(
        {
            "version": FORMAT_VERSION,
            "id": decision.id,
            "kind": decision.kind,
            "author": decision.author,
            "time": _format_time(decision.time),
            "contents": [
                {
                    "blake3": content.hash.hex(),
                    "pixel_hash": content.pixel_hash.hex(),
                    "name": content.name,
                }
                for content in decision.contents
            ],
        }
    )


def parse_decision(line: str) -> Decision:
    """Parse a line that encode_decision() made, here or elsewhere; unknown fields are passed over.

    Raises ValueError, which says what is wrong, for anything else: also if the id is not that of
    the rest, so that a damaged line is not taken.
    """
    if len(line) > MAX_LINE_CHARS:
        raise ValueError(f"longer than {MAX_LINE_CHARS:,} characters")
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError("no JSON") from error
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    if record.get("version") != FORMAT_VERSION or isinstance(record["version"], bool):
        raise ValueError(f"not of version {FORMAT_VERSION}; perhaps a newer neardup wrote it")
    kind = _get_text(record, "kind", MAX_NAME_CHARS)
    if kind not in set(DecisionKind):
        raise ValueError(f"{ascii(kind)} is not a kind of decision")
    contents = record.get("contents")
    if not isinstance(contents, list) or len(contents) > MAX_CONTENTS:
        raise ValueError(f"contents are not a list of at most {MAX_CONTENTS:,}")
    decision = Decision(
        DecisionKind(kind),
        tuple(map(_parse_content, contents)),
        _get_text(record, "author", MAX_AUTHOR_CHARS),
        _parse_time(_get_text(record, "time", MAX_NAME_CHARS)),
    )
    _check_contents(decision.kind, decision.contents)
    if record.get("id") != decision.id:
        raise ValueError("the id does not belong to the rest of the line")
    return decision


def _parse_content(record: object) -> DecidedContent:
    if not isinstance(record, dict):
        raise ValueError("a content is no JSON object")
    return DecidedContent(
        _get_hash(record, "blake3"),
        _get_hash(record, "pixel_hash"),
        _get_text(record, "name", MAX_NAME_CHARS),
    )


def _check_contents(kind: DecisionKind, contents: Sequence[DecidedContent]) -> None:
    """Raise ValueError for a number of contents that the kind does not have, or equal ones."""
    is_right = len(contents) >= 2 if kind in PAIR_KINDS else len(contents) == 1
    if not is_right:
        raise ValueError(f"{len(contents)} contents are not what {kind} is about")
    for hashes in ({item.hash for item in contents}, {item.pixel_hash for item in contents}):
        if len(hashes) < len(contents):
            raise ValueError("two of the contents are equal")


def _get_text(record: dict[str, Any], field: str, max_chars: int) -> str:
    value = record.get(field)
    if not isinstance(value, str) or len(value) > max_chars:
        raise ValueError(f"{field} is not a text of at most {max_chars:,} characters")
    return value


def _get_hash(record: dict[str, Any], field: str) -> bytes:
    text = _get_text(record, field, 2 * HASH_BYTES)
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise ValueError(f"{field} is not hexadecimal") from error
    if len(value) != HASH_BYTES or value.hex() != text:
        raise ValueError(f"{field} does not have {2 * HASH_BYTES} digits")
    return value


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        is_own_form = time.tzinfo is not None and _format_time(time) == text
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{ascii(text)} is not a time") from error
    if not is_own_form or time < MIN_TIME:
        raise ValueError(f"{ascii(text)} is not a time in UTC with microseconds")
    return time.astimezone(UTC)


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")
