"""Groups, answers and comparisons as JSON that scripts can rely on, and as text that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from indexes import Space, Store
from pipeline.decode.read import Failure
from pipeline.grouping.cluster import IDENTICAL_BYTES, IDENTICAL_PIXELS, RELATIONS, SIMILAR, Group, Match
from pipeline.grouping.keep_rules import CHANGED, GONE, Photo
from pipeline.ingest.batch_writer import Coverage
from pipeline.query.compare import Comparison
from pipeline.query.groups import Limits
from pipeline.query.matches import Answer
from pipeline.verify.verdict import DERIVED, FEWEST, SAME, SCENE, UNKNOWN, UNRELATED, Evidence

SHOWN = 10  # lines of one kind
SCHEMA_VERSION = 2  # raised only when a field changes or goes; fields may be added


def printable(path: str) -> str:
    """A path that cannot disturb a terminal or a list of lines: control characters and bytes that are no UTF-8 as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii") for character in path
    )


def size(count: float) -> str:
    """Bytes in a unit that fits: 0 B, 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, word: str, many: str | None = None) -> str:
    """A number with its noun: 1 file, 2,000 files."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {many or word + 's'}"


# --- JSON ---


def space_json(space: Space) -> dict[str, Any]:
    """A vector space, as `groups` and `compare` print it."""
    return {key: value for key, value in asdict(space).items() if key not in ("floor", "threshold")}


def coverage_json(store: Store, under: Sequence[str] = (), ingest: Coverage | None = None) -> dict[str, Any]:
    """What an answer is about: photos, distinct contents, those without features, and files without a picture by reason."""
    last = store.catalog.last_run()
    done: dict[str, Any] = asdict(store.catalog.counts(under)) | {"last_ingest": last.outcome if last else None}
    return done | ({"ingest": ingest.as_dict()} if ingest else {})


def groups_json(groups: Iterable[Group], space: Space | None, within: Limits | None, coverage: dict[str, Any]) -> dict[str, Any]:
    """The answer of `groups` and `dedupe`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "space": space_json(space) if space else None,
        "threshold": within.least if within else None,
        "floor": within.lowest if within else None,
        "strictness": within.strictness if within else None,
        "groups": [
            {
                "id": group.id,
                "keeper": _photo_json(group.keeper) | {"reason": group.reason},
                "members": [_photo_json(member.photo) | _match_json(member) for member in group.members],
                "related": [
                    {"path": one.photo.path, "to": one.to.path, "relation": one.relation, "score": round(one.score, 6)}
                    for one in group.related
                ],
            }
            for group in groups
        ],
        "coverage": coverage,
    }


def _match_json(match: Match) -> dict[str, Any]:
    """What a photo is to the keeper, or to the file that was asked about, which is the first picture of the evidence."""
    evidence = {"evidence": match.evidence.as_dict()} if match.evidence else {}
    return {"relation": match.relation, "score": round(match.score, 6)} | evidence


def _photo_json(photo: Photo) -> dict[str, Any]:
    image = photo.image
    about: dict[str, Any] = {"path": photo.path, "bytes": image.size, "width": image.width, "height": image.height}
    about |= {"metadata": list(image.metadata)} if image.metadata else {}
    about |= {"taken": f"{datetime.fromtimestamp(image.taken, UTC):%Y-%m-%dT%H:%M:%S}"} if image.taken is not None else {}
    about |= {"missing": True} if photo.missing or photo.since == GONE else {}
    about |= {"changed": True} if photo.since == CHANGED else {}
    return about | ({"notes": list(photo.image.notes)} if photo.image.notes else {})


def answers_json(answers: Sequence[Answer]) -> dict[str, Any]:
    """The answer of `query`."""
    return {"schema_version": SCHEMA_VERSION, "answers": [_answer_json(answer) for answer in answers]}


def _answer_json(answer: Answer) -> dict[str, Any]:
    """What the store has of one file; "error" where it could not be asked about."""
    matches = [
        {"path": match.photo.path} | _match_json(match) | {key: value for key, value in _photo_json(match.photo).items() if key != "path"}
        for match in answer.matches
    ]
    failed = {"error": {"reason": answer.failure.reason, "detail": answer.failure.detail}} if answer.failure else {}
    notes = {"notes": list(answer.notes)} if answer.notes else {}
    return {"file": answer.file, "in_library": answer.inside, "matches": matches, **notes, **failed}


def comparison_json(comparison: Comparison, space: Space, threshold: float) -> dict[str, Any]:
    """The answer of `compare`: the matrix, null where a file failed."""
    scores = [[None if score != score else round(score, 6) for score in row] for row in comparison.scores.tolist()]  # NaN is not itself
    return {
        "schema_version": SCHEMA_VERSION,
        "space": space_json(space),
        "threshold": threshold,
        "files": list(comparison.files),
        "errors": {file: {"reason": failure.reason, "detail": failure.detail} for file, failure in comparison.failures()},
        "scores": scores,
        "pairs": [
            {
                "a": comparison.files[one],
                "b": comparison.files[other],
                "relation": comparison.relation(one, other, threshold),
                "score": scores[one][other],
                **({"evidence": comparison.evidence[one, other].as_dict()} if (one, other) in comparison.evidence else {}),
            }
            for one, other in comparison.pairs()
        ],
    }


# --- text ---


def failure_text(path: str, reason: str, detail: str) -> str:
    """Why a file has no picture."""
    return f"{printable(path)}: {reason}{f' ({printable(detail)})' if detail else ''}"


def groups_text(groups: Sequence[Group]) -> Iterable[str]:
    """One block of lines for each group: the keeper, then its members with what they are to it; how much that is, and what is left."""
    for group in groups:
        yield f"keep  {_photo_text(group.keeper)}   {group.reason}"
        for member in group.members:
            yield f"      {_photo_text(member.photo)}   {match_text(member)}"
        yield ""
    members = [member for group in groups for member in group.members]
    if not groups:
        yield "no near-duplicates"
        return
    spare = size(sum(member.photo.image.size for member in members if member.photo.is_there))
    yield f"{counted(len(groups), 'group')}, {counted(len(members), 'near-duplicate')} beside the keepers, {spare}"
    if related := related_text(groups):
        yield related
    if any(member.relation == SIMILAR for member in members):
        yield "similar is no proof: pixels could not tell, so look before you delete"


def related_text(groups: Iterable[Group]) -> str | None:
    """How many photos are close to those of groups, and why they are in none of these; None where there are none."""
    related = Counter(one.relation for group in groups for one in group.related)
    listed = ", ".join(f"{related[relation]:,} {_AS_RELATED[relation]}" for relation in RELATIONS if related[relation])
    return f"close to these, but not grouped: {listed} (named in --json)" if listed else None


_AS_RELATED = {
    SAME: "a copy of a member, not of the keeper",
    DERIVED: "derived from a member, not from the keeper",
    SCENE: SCENE,
    SIMILAR: SIMILAR,
}


def match_text(match: Match) -> str:
    """What a photo is to the keeper, or to the file that was asked about."""
    if match.relation in (IDENTICAL_BYTES, IDENTICAL_PIXELS):
        return match.relation
    return ": ".join([f"{match.relation} {match.score:.3f}", *_changed(match.evidence)])


def _changed(evidence: Evidence | None) -> list[str]:
    """What was done to a copy, in a line, if anything was."""
    words = evidence.words() if evidence else []
    return [", ".join(words)] if words else []


def _photo_text(photo: Photo) -> str:
    image = photo.image
    marks = "".join(f", {mark}" for mark in photo.marks)
    return f"{printable(photo.path)}   {image.width} x {image.height}, {size(image.size)}{marks}"


def answer_text(answer: Answer) -> Iterable[str]:
    """A line for the file, then one for each match."""
    if answer.failure:
        return
    others = counted(len(answer.matches), "match", "matches") if answer.matches else "no other copy" if answer.inside else "no match"
    notes = f" ({', '.join(answer.notes)})" if answer.notes else ""
    yield f"{printable(answer.file)}{notes}: {'in the library, ' if answer.inside else 'not in the library, '}{others}"
    for match in answer.matches:
        yield f"  {match_text(match):<18}  {_photo_text(match.photo)}"


def comparison_text(comparison: Comparison, threshold: float) -> Iterable[str]:
    """The score of two files and what they are to each other; or the matrix of more, and those that are anything to each other."""
    if len(comparison.files) == 2:
        if not comparison.failures():
            yield f"{comparison.scores[0, 1]:.4f}  {_pair_text(comparison, 0, 1, threshold)}"
        return
    for number, file in enumerate(comparison.files, 1):
        yield f"{number:>3}  {printable(file)}"
    yield ""
    yield "     " + " ".join(f"{number:>6}" for number in range(1, len(comparison.files) + 1))
    for number, row in enumerate(comparison.scores.tolist(), 1):
        yield f"{number:>3}  " + " ".join("     -" if score != score else f"{score:6.3f}" for score in row)
    related = [pair for pair in comparison.pairs() if comparison.relation(*pair, threshold) not in (None, UNRELATED, UNKNOWN)]
    if related:
        yield ""
    for one, other in related:
        yield f"{one + 1:>3} {other + 1:>3}  {_pair_text(comparison, one, other, threshold)}"


def _pair_text(comparison: Comparison, one: int, other: int, threshold: float) -> str:
    """What the second of two files is to the first."""
    relation = comparison.relation(one, other, threshold)
    return ": ".join([f"{relation}", *(_changed(comparison.evidence[one, other]) if relation in (SAME, DERIVED) else [])])


def explained_text(comparison: Comparison, threshold: float) -> Iterable[str]:
    """What two files are to each other, and all that speaks for it."""
    first, second = comparison.images
    if isinstance(first, Failure) or isinstance(second, Failure):
        return
    for word, file, image in zip(("first", "second"), comparison.files, (first, second), strict=True):
        notes = "".join(f", {note}" for note in image.notes)
        yield f"{word:<11} {printable(file)}   {image.width} x {image.height}, {size(image.size)}{notes}"
    yield f"relation    {_pair_text(comparison, 0, 1, threshold)}"
    yield f"score       {comparison.scores[0, 1]:.4f}"
    evidence = comparison.evidence[0, 1]
    if not evidence.matrix:
        few = "too little stands out to say how one would lie on the other"
        yield f"keypoints   {few if evidence.relation == UNKNOWN else 'none agree on how one would lie on the other'}"
        return
    way = f"{evidence.keypoints} agree on how one lies on the other" if evidence.keypoints else "too few; laid on each other as a whole"
    yield f"keypoints   {way}"
    rest = max(0.0, 1 - evidence.agree - evidence.moved)
    yield (
        f"tiles       {evidence.tiles}: {100 * evidence.agree:.0f} % agree in place, {100 * evidence.moved:.0f} % where they may move,"
        f" {100 * rest:.0f} % differ"
    )
    if evidence.relation == UNKNOWN:
        text = "both are lines on an even ground, text or a drawing; at this size other words may look the same"
        yield f"so          {text if evidence.tiles >= FEWEST else 'too few tiles show enough to be sure'}"
    changes = evidence.changes
    if changes:
        yield f"shared      {100 * changes.covers[0]:.0f} % of the first, {100 * changes.covers[1]:.0f} % of the second"
        for left, top, right, bottom in changes.spoiled:
            yield f"differs     at {left:.2f} to {right:.2f} of the first's width, {top:.2f} to {bottom:.2f} of its height"
        if changes.derived:
            yield f"made of it  the {changes.derived} was made of the other, as far as pixels show"
