"""Groups, answers and comparisons as JSON that scripts can rely on, and as text that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from indexes.records import Space
from indexes.store import Store
from pipeline.decode.read import Failure
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.grouping.match import Match
from pipeline.ingest.batch_writer import Coverage
from pipeline.query.compare import Comparison
from pipeline.query.matches import Answer
from pipeline.query.thresholds import Thresholds
from pipeline.verify.relation import REPORTED_RELATIONS, Relation
from pipeline.verify.verdict import MIN_VALID_TILES, Verdict

MAX_LISTED_ITEMS = 10  # lines of one kind
SCHEMA_VERSION = 3  # raised only when a field changes or goes; fields may be added


def escape_unprintable(text: str) -> str:
    """A path that cannot disturb a terminal or a list of lines: control characters and bytes that are no UTF-8 as escapes."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def format_bytes(count: float) -> str:
    """Bytes in a unit that fits: 0 B, 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 file, 2,000 files."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


# --- JSON ---


def serialize_space(space: Space) -> dict[str, Any]:
    """A vector space, as `groups` and `compare` print it."""
    return {key: value for key, value in asdict(space).items() if key not in ("floor", "threshold")}


def serialize_coverage(
    store: Store, folders: Sequence[str] = (), ingest_coverage: Coverage | None = None
) -> dict[str, Any]:
    """What an answer is about: photos, distinct contents, those without features, and files without a picture by reason."""
    last = store.catalog.runs.get_last()
    done: dict[str, Any] = asdict(store.catalog.files.get_counts(folders)) | {
        "last_ingest": last.outcome if last else None
    }
    return done | ({"ingest": ingest_coverage.as_dict()} if ingest_coverage else {})


def serialize_groups(
    groups: Iterable[Group],
    space: Space | None,
    thresholds: Thresholds | None,
    coverage: dict[str, Any],
) -> dict[str, Any]:
    """The answer of `groups` and `dedupe`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "space": serialize_space(space) if space else None,
        "threshold": thresholds.similar if thresholds else None,
        "floor": thresholds.search if thresholds else None,
        "min_agreement": thresholds.min_agreement if thresholds else None,
        "groups": [
            {
                "id": group.id,
                "keeper": _serialize_file(group.keeper) | {"reason": group.reason},
                "members": [
                    _serialize_file(member.file) | _serialize_match(member)
                    for member in group.members
                ],
                "related": [
                    {
                        "path": one.file.path,
                        "member": one.member.path,
                        "relation": one.relation,
                        "score": round(one.score, 6),
                    }
                    for one in group.related
                ],
            }
            for group in groups
        ],
        "coverage": coverage,
    }


def _serialize_match(match: Match) -> dict[str, Any]:
    """What a photo is to the keeper, or to the file that was asked about, which is the first picture of the evidence."""
    evidence = {"verdict": match.verdict.as_dict()} if match.verdict else {}
    return {"relation": match.relation, "score": round(match.score, 6)} | evidence


def _serialize_file(file: LibraryFile) -> dict[str, Any]:
    image = file.image
    about: dict[str, Any] = {
        "path": file.path,
        "bytes": image.size,
        "width": image.width,
        "height": image.height,
    }
    about |= {"metadata": list(image.metadata)} if image.metadata else {}
    about |= (
        {"taken": f"{datetime.fromtimestamp(image.taken_at, UTC):%Y-%m-%dT%H:%M:%S}"}
        if image.taken_at is not None
        else {}
    )
    about |= {"missing": True} if file.is_missing or file.disk_status is DiskStatus.GONE else {}
    about |= {"changed": True} if file.disk_status is DiskStatus.CHANGED else {}
    return about | ({"flags": list(file.image.flags)} if file.image.flags else {})


def serialize_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """The answer of `query`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "answers": [_serialize_answer(answer) for answer in answers],
    }


def _serialize_answer(answer: Answer) -> dict[str, Any]:
    """What the store has of one file; "error" where it could not be asked about."""
    matches = [
        {"path": match.file.path}
        | _serialize_match(match)
        | {key: value for key, value in _serialize_file(match.file).items() if key != "path"}
        for match in answer.matches
    ]
    failed = (
        {"error": {"reason": answer.failure.reason, "detail": answer.failure.detail}}
        if answer.failure
        else {}
    )
    notes = {"flags": list(answer.flags)} if answer.flags else {}
    return {
        "file": answer.file,
        "in_library": answer.in_library,
        "matches": matches,
        **notes,
        **failed,
    }


def serialize_comparison(comparison: Comparison, space: Space, threshold: float) -> dict[str, Any]:
    """The answer of `compare`: the matrix, null where a file failed."""
    scores = [
        [None if score != score else round(score, 6) for score in row]
        for row in comparison.scores.tolist()
    ]  # NaN is not itself
    return {
        "schema_version": SCHEMA_VERSION,
        "space": serialize_space(space),
        "threshold": threshold,
        "files": list(comparison.files),
        "errors": {
            file: {"reason": failure.reason, "detail": failure.detail}
            for file, failure in comparison.list_failures()
        },
        "scores": scores,
        "pairs": [
            {
                "a": comparison.files[one],
                "b": comparison.files[other],
                "relation": comparison.get_relation(one, other, threshold),
                "score": scores[one][other],
                **(
                    {"verdict": comparison.verdicts[one, other].as_dict()}
                    if (one, other) in comparison.verdicts
                    else {}
                ),
            }
            for one, other in comparison.iter_pairs()
        ],
    }


# --- text ---


def format_failure(path: str, reason: str, detail: str) -> str:
    """Why a file has no picture."""
    return f"{escape_unprintable(path)}: {reason}{f' ({escape_unprintable(detail)})' if detail else ''}"


def format_groups(groups: Sequence[Group]) -> Iterable[str]:
    """One block of lines for each group: the keeper, then its members with what they are to it; how much that is, and what is left."""
    for group in groups:
        yield f"keep  {_format_file(group.keeper)}   {group.reason}"
        for member in group.members:
            yield f"      {_format_file(member.file)}   {format_match(member)}"
        yield ""
    members = [member for group in groups for member in group.members]
    if not groups:
        yield "no near-duplicates"
        return
    spare = format_bytes(
        sum(member.file.image.size for member in members if member.file.is_present)
    )
    yield f"{pluralize(len(groups), 'group')}, {pluralize(len(members), 'near-duplicate')} beside the keepers, {spare}"
    if related := format_related(groups):
        yield related
    if any(member.relation == Relation.SIMILAR for member in members):
        yield "similar is no proof: pixels could not tell, so look before you delete"


def format_related(groups: Iterable[Group]) -> str | None:
    """How many photos are close to those of groups, and why they are in none of these; None where there are none."""
    related = Counter(one.relation for group in groups for one in group.related)
    listed = ", ".join(
        f"{related[relation]:,} {_RELATED_LABELS[relation]}"
        for relation in REPORTED_RELATIONS
        if related[relation]
    )
    return f"close to these, but not grouped: {listed} (named in --json)" if listed else None


_RELATED_LABELS = {
    Relation.SAME_PICTURE: "a copy of a member, not of the keeper",
    Relation.DERIVED: "derived from a member, not from the keeper",
    Relation.SAME_SCENE: Relation.SAME_SCENE,
    Relation.SIMILAR: Relation.SIMILAR,
}


def format_match(match: Match) -> str:
    """What a photo is to the keeper, or to the file that was asked about."""
    if match.relation in (Relation.IDENTICAL_BYTES, Relation.IDENTICAL_PIXELS):
        return match.relation
    return ": ".join([f"{match.relation} {match.score:.3f}", *_describe_edits(match.verdict)])


def _describe_edits(verdict: Verdict | None) -> list[str]:
    """What was done to a copy, in a line, if anything was."""
    words = verdict.describe() if verdict else []
    return [", ".join(words)] if words else []


def _format_file(file: LibraryFile) -> str:
    image = file.image
    marks = "".join(f", {mark}" for mark in file.labels)
    return f"{escape_unprintable(file.path)}   {image.width} x {image.height}, {format_bytes(image.size)}{marks}"


def format_answer(answer: Answer) -> Iterable[str]:
    """A line for the file, then one for each match."""
    if answer.failure:
        return
    others = (
        pluralize(len(answer.matches), "match", "matches")
        if answer.matches
        else "no other copy"
        if answer.in_library
        else "no match"
    )
    notes = f" ({', '.join(answer.flags)})" if answer.flags else ""
    yield f"{escape_unprintable(answer.file)}{notes}: {'in the library, ' if answer.in_library else 'not in the library, '}{others}"
    for match in answer.matches:
        yield f"  {format_match(match):<18}  {_format_file(match.file)}"


def format_comparison(comparison: Comparison, threshold: float) -> Iterable[str]:
    """The score of two files and what they are to each other; or the matrix of more, and those that are anything to each other."""
    if len(comparison.files) == 2:
        if not comparison.list_failures():
            yield f"{comparison.scores[0, 1]:.4f}  {_format_pair(comparison, 0, 1, threshold)}"
        return
    for number, file in enumerate(comparison.files, 1):
        yield f"{number:>3}  {escape_unprintable(file)}"
    yield ""
    yield "     " + " ".join(f"{number:>6}" for number in range(1, len(comparison.files) + 1))
    for number, row in enumerate(comparison.scores.tolist(), 1):
        yield f"{number:>3}  " + " ".join(
            "     -" if score != score else f"{score:6.3f}" for score in row
        )
    related = [
        pair
        for pair in comparison.iter_pairs()
        if comparison.get_relation(*pair, threshold)
        not in (None, Relation.UNRELATED, Relation.NOT_VERIFIABLE)
    ]
    if related:
        yield ""
    for one, other in related:
        yield f"{one + 1:>3} {other + 1:>3}  {_format_pair(comparison, one, other, threshold)}"


def _format_pair(comparison: Comparison, first: int, second: int, threshold: float) -> str:
    """What the second of two files is to the first."""
    relation = comparison.get_relation(first, second, threshold)
    return ": ".join(
        [
            f"{relation}",
            *(
                _describe_edits(comparison.verdicts[first, second])
                if relation in (Relation.SAME_PICTURE, Relation.DERIVED)
                else []
            ),
        ]
    )


def format_explanation(comparison: Comparison, threshold: float) -> Iterable[str]:
    """What two files are to each other, and all that speaks for it."""
    first, second = comparison.images
    if isinstance(first, Failure) or isinstance(second, Failure):
        return
    for word, file, image in zip(
        ("first", "second"), comparison.files, (first, second), strict=True
    ):
        notes = "".join(f", {note}" for note in image.flags)
        yield f"{word:<11} {escape_unprintable(file)}   {image.width} x {image.height}, {format_bytes(image.size)}{notes}"
    yield f"relation    {_format_pair(comparison, 0, 1, threshold)}"
    yield f"score       {comparison.scores[0, 1]:.4f}"
    evidence = comparison.verdicts[0, 1]
    if not evidence.homography:
        few = "too little stands out to say how one would lie on the other"
        yield f"keypoints   {few if evidence.relation == Relation.NOT_VERIFIABLE else 'none agree on how one would lie on the other'}"
        return
    way = (
        f"{evidence.inliers} agree on how one lies on the other"
        if evidence.inliers
        else "too few; laid on each other as a whole"
    )
    yield f"keypoints   {way}"
    rest = max(0.0, 1 - evidence.agreeing_share - evidence.displaced_share)
    yield (
        f"tiles       {evidence.tiles}: {100 * evidence.agreeing_share:.0f} % agree in place, {100 * evidence.displaced_share:.0f} % where they may move,"
        f" {100 * rest:.0f} % differ"
    )
    if evidence.relation == Relation.NOT_VERIFIABLE:
        text = "both are lines on an even ground, text or a drawing; at this size other words may look the same"
        yield f"so          {text if evidence.tiles >= MIN_VALID_TILES else 'too few tiles show enough to be sure'}"
    changes = evidence.edits
    if changes:
        yield f"shared      {100 * changes.overlap[0]:.0f} % of the first, {100 * changes.overlap[1]:.0f} % of the second"
        for left, top, right, bottom in changes.changed_regions:
            yield f"differs     at {left:.2f} to {right:.2f} of the first's width, {top:.2f} to {bottom:.2f} of its height"
        if changes.derived_side:
            yield f"made of it  the {changes.derived_side} was made of the other, as far as pixels show"
