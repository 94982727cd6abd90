"""Answers of `query`, and the files and matches that they share with groups, as JSON and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from indexes.paths import escape_unprintable
from pipeline.grouping.assets import AssetPart
from pipeline.grouping.decisions import format_decision
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.grouping.match import Match
from pipeline.query.matches import Answer
from pipeline.report.decisions import format_rejection, serialize_decision
from pipeline.report.document import make_document, serialize_failure
from pipeline.report.edit_phrases import describe_edits
from pipeline.report.format import TOO_PLAIN, format_bytes, pluralize
from pipeline.verify.relation import EXACT_RELATIONS, PART_RELATIONS, Relation

# The references of matches, and what binds a member to others of its group, in words.
KEEPER, QUERIED_PHOTO = "the keeper", "the queried photo"
VOUCHER_WORDS = "in doubt by itself, but copies of it are in the group, such as"
DECIDED_VOUCHER_WORDS = "through"
PARENT_WORDS = "likely made from"

# How the answer of a query begins, by the relation of the closest file, there and away.
PLACE_WORDS = {
    Relation.IDENTICAL_BYTES: ("the same bytes", "are", "were"),
    Relation.IDENTICAL_PIXELS: ("the same pixels", "are", "were"),
    Relation.SAME_PICTURE: ("the same picture", "is", "was"),
    Relation.DERIVED: ("another version of it", "is", "was"),
}

# --- JSON ---


def serialize_answers(answers: Sequence[Answer], featureless: int) -> dict[str, Any]:
    """Serialize the answer of `query`; `featureless` images of the library were not compared."""
    serialized = [_serialize_answer(answer) for answer in answers]
    return make_document({"answers": serialized, "featureless": featureless})


def _serialize_answer(answer: Answer) -> dict[str, Any]:
    """Serialize the matches of one file, or its error if it could not be read."""
    document: dict[str, Any] = {
        "file": answer.file,
        "in_library": answer.in_library,
        "standing": answer.standing,
        "same_bytes_at": _find_same_bytes(answer),
        "matches": [_serialize_answer_match(match) for match in answer.matches],
    }
    if answer.rejection:
        document["rejected"] = {
            "relation": answer.rejection.relation,
            "decision": serialize_decision(answer.rejection.decision),
        }
    if answer.flags:
        document["flags"] = list(answer.flags)
    if answer.is_featureless:
        document["featureless"] = True
    if answer.failure:
        document["error"] = serialize_failure(answer.failure)
    return document


def _find_same_bytes(answer: Answer) -> str | None:
    """Return the path of another file of the library with the same bytes; one that is there."""
    same = (match for match in answer.identical if match.relation == Relation.IDENTICAL_BYTES)
    return next((match.file.path for match in same), None)


def _serialize_answer_match(match: Match) -> dict[str, Any]:
    """Serialize a match of a query: its path, how it is related, then the rest of the file."""
    file = serialize_file(match.file)
    return {"path": file.pop("path")} | serialize_match(match, QUERIED_PHOTO) | file


def serialize_match(match: Match, reference: str = KEEPER) -> dict[str, Any]:
    """Serialize how a file is related to its keeper or to the file of a query: the `reference`.

    The reference is the first image of the verdict.
    """
    document: dict[str, Any] = {"relation": match.relation, "score": round(match.score, 6)}
    if phrases := describe_match_edits(match, reference):
        document["edits_in_words"] = phrases
    if match.verdict:
        document["verdict"] = match.verdict.to_dict()
    if match.voucher:
        document["voucher"] = match.voucher.path
    if match.decision:
        document["decision"] = serialize_decision(match.decision)
    if match.made_from:
        document["made_from"] = match.made_from.path
    if match.without_counterpart:
        document["without_counterpart"] = list(match.without_counterpart)
    return document


def serialize_file(file: LibraryFile) -> dict[str, Any]:
    """Serialize a file of the library with its image; fields that say nothing are left out."""
    image = file.image
    document: dict[str, Any] = {
        "path": file.path,
        "bytes": image.size,
        "width": image.width,
        "height": image.height,
    }
    if image.metadata_kinds:
        document["metadata"] = list(image.metadata_kinds)
    if image.taken_at is not None:
        taken = datetime.fromtimestamp(image.taken_at, UTC)
        document["taken"] = f"{taken:%Y-%m-%dT%H:%M:%S}"
    if file.is_away:
        document["missing"] = True
    if file.disk_status is DiskStatus.CHANGED:
        document["changed"] = True
    if image.flags:
        document["flags"] = list(image.flags)
    if file.frame_count > 1:
        document["frames"] = file.frame_count
    if file.parts:
        document["parts"] = [_serialize_part(part) for part in file.parts]
    return document


def _serialize_part(part: AssetPart) -> dict[str, Any]:
    document: dict[str, Any] = {"path": part.path, "role": part.role, "bytes": part.stat.size}
    if part.is_missing:
        document["missing"] = True
    if part.is_shared:
        document["shared"] = True
    return document


# --- text ---


def format_answer(answer: Answer) -> Iterable[str]:
    """Yield a line for the file of a query, then a line for each match; nothing if it failed."""
    if answer.failure:
        return
    labels = (*answer.flags, *([TOO_PLAIN] if answer.is_featureless else []))
    flags = f" ({', '.join(labels)})" if labels else ""
    yield (
        f"{escape_unprintable(answer.file)}{flags}: {_format_place(answer)},"
        f" {_format_match_count(answer)}"
    )
    if rejection := answer.rejection:
        yield f"  {format_rejection(rejection.relation, rejection.decision)}"
    for match in answer.matches:
        yield f"  {format_match(match, QUERIED_PHOTO):<18}  {format_file(match.file)}"


def _format_place(answer: Answer) -> str:
    """Format whether the library has the file itself, or what is identical to it, and where."""
    if answer.in_library:
        return "in the library"
    closest = next(iter((*answer.identical, *answer.matches)), None)
    if closest is None or closest.relation not in PLACE_WORDS:
        return "not in the library"
    what, is_there, was_there = PLACE_WORDS[closest.relation]
    verb = is_there if closest.file.is_present else was_there
    state = f" ({', '.join(labels)})" if (labels := closest.file.state_labels) else ""
    return f"{what} {verb} in the library at {escape_unprintable(closest.file.path)}{state}"


def _format_match_count(answer: Answer) -> str:
    if answer.matches:
        return pluralize(len(answer.matches), "match", "matches")
    return "no other copy" if answer.in_library else "no match"


def format_featureless_count(count: int) -> str:
    """Count the images that are not compared with others."""
    photos = pluralize(count, "photo", "photos")
    return f"{photos} {TOO_PLAIN}: only exact copies are found"


def format_match(match: Match, reference: str = KEEPER) -> str:
    """Format how a file is related to its keeper or to the file of a query: the `reference`."""
    words = [", ".join(describe_match_edits(match, reference))]
    if match.voucher:
        words.append(f"{get_voucher_words(match)} {format_name(match.voucher)}")
    if match.decision:
        words.append(format_decision(match.decision))
    if match.made_from:
        words.append(f"{PARENT_WORDS} {format_name(match.made_from)}")
    words += list(describe_without_counterpart(match.without_counterpart))
    described = "; ".join(filter(None, words))
    relation = format_relation(match)
    return f"{relation}: {described}" if described else relation


def get_voucher_words(match: Match) -> str:
    """Return the words before the name of a voucher: of a copy, or of what a decision joins."""
    return DECIDED_VOUCHER_WORDS if match.decision else VOUCHER_WORDS


def describe_without_counterpart(paths: Sequence[str]) -> Iterable[str]:
    """Yield in words that a member is not to be given up, for the parts that the keeper lacks."""
    if paths:
        names = ", ".join(map(_format_name, paths))
        have_no_copies = "has no copy" if len(paths) == 1 else "have no copies"
        yield f"not to be given up: {names} {have_no_copies} beside the keeper"


def format_relation(match: Match) -> str:
    """Format the relation of a match, with the score where that does not follow from it."""
    if match.relation in EXACT_RELATIONS:
        return match.relation
    return f"{match.relation} {match.score:.3f}"


def describe_match_edits(match: Match, reference: str) -> list[str]:
    """Describe how a file was edited, relative to the `reference`, in a few words an edit.

    Empty where a verdict says nothing of that: for exact copies, and for files with other frames or
    pages, whose verdict is on the frames that stand for them.
    """
    if match.relation in EXACT_RELATIONS | PART_RELATIONS | {Relation.OVERLAPS}:
        return []
    return describe_edits(match.verdict, reference)


def format_name(file: LibraryFile) -> str:
    """Format the name of a file without its folder."""
    return _format_name(file.path)


def _format_name(path: str) -> str:
    return escape_unprintable(PurePath(path).name)


def format_file(file: LibraryFile) -> str:
    """Format a file of the library: path, size in pixels and bytes, labels."""
    image = file.image
    labels = "".join(f", {label}" for label in file.labels)
    size = f"{image.width} x {image.height}, {format_bytes(image.size)}"
    return f"{escape_unprintable(file.path)}   {size}{labels}{format_parts(file)}"


def format_parts(file: LibraryFile) -> str:
    """Format the names of the other files of an asset: ` + IMG_1.CR3, IMG_1.xmp`; else nothing."""
    names = ", ".join(_format_name(part.path) for part in file.parts)
    return f" + {names}" if names else ""
