"""Comparisons of a few files, for `compare` and `explain`, as JSON and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from math import isnan
from typing import Any

from indexes.decisions import Decision
from indexes.metadata import FRAMES, PAGES
from indexes.paths import escape_unprintable
from indexes.records import FLAG_ANIMATED, FLAG_DAMAGED, FLAG_PAGES, Image, Space
from pipeline.decode.read import Failure
from pipeline.grouping.decisions import NO_DECISIONS, Decisions, format_decision
from pipeline.query.compare import Comparison
from pipeline.report.decisions import serialize_decision
from pipeline.report.differing_regions import find_differing_regions
from pipeline.report.document import make_document, serialize_failure, serialize_space
from pipeline.report.edit_phrases import describe_edits
from pipeline.report.format import MAX_LISTED_ITEMS, TOO_PLAIN, format_bytes, pluralize
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import PART_RELATIONS, UNREPORTED_RELATIONS, Relation, Side
from pipeline.verify.verdict import MIN_VALID_TILES, Verdict

# --- JSON ---


def serialize_comparison(
    comparison: Comparison,
    space: Space,
    threshold: float,
    min_score: float | None = None,
    decisions: Decisions = NO_DECISIONS,
) -> dict[str, Any]:
    """Serialize the answer of `compare` and `explain`; scores are null for a file that failed.

    Pairs below `min_score` are marked, all others count. `decisions` are those of the store.
    """
    scores = [
        [None if isnan(score) else round(score, 6) for score in row]
        for row in comparison.scores.tolist()
    ]
    pairs = []
    for first, second in comparison.iter_pairs():
        relation = comparison.get_relation(first, second, threshold)
        pair: dict[str, Any] = {
            "a": comparison.files[first],
            "b": comparison.files[second],
            "relation": relation,
            "score": scores[first][second],
        }
        if comparison.is_below(first, second, min_score):
            pair["below_threshold"] = True
        if relation in PART_RELATIONS:
            pair["part_side"] = comparison.find_part_side(first, second)
        if verdict := comparison.verdicts.get((first, second)):
            pair["verdict"] = verdict.to_dict()
        if difference := comparison.find_exposure_difference(first, second):
            pair["exposure_difference"] = asdict(difference)
        if decision := _find_decision(comparison, first, second, decisions):
            pair["decision"] = serialize_decision(decision)
        pairs.append(pair)
    return make_document(
        {
            "space": serialize_space(space),
            "min_score": min_score,
            "threshold": threshold,
            "files": list(comparison.files),
            "errors": {
                file: serialize_failure(failure) for file, failure in comparison.list_failures()
            },
            "scores": scores,
            "pairs": pairs,
        }
    )


def _find_decision(
    comparison: Comparison, first: int, second: int, decisions: Decisions
) -> Decision | None:
    left, right = comparison.images[first], comparison.images[second]
    if isinstance(left, Failure) or isinstance(right, Failure):
        return None
    return decisions.find_on_pair(decisions.get_known_hash(left), decisions.get_known_hash(right))


# --- text of `compare` ---


def format_comparison(
    comparison: Comparison, threshold: float, min_score: float | None = None
) -> Iterator[str]:
    """Yield the score and the relation of two files, or the score matrix of more and all pairs
    that are related, but for those below `min_score`.
    """
    unrelated = (None, *UNREPORTED_RELATIONS)  # a file that failed has no relation
    related_pairs = [
        pair
        for pair in comparison.iter_pairs()
        if comparison.get_relation(*pair, threshold) not in unrelated
    ]
    if len(comparison.files) == 2:
        if not comparison.list_failures():
            relation = _format_relation(comparison, 0, 1, threshold)
            is_left_out = related_pairs and comparison.is_below(0, 1, min_score)
            note = "; left out, below the threshold" if is_left_out else ""
            yield f"{comparison.scores[0, 1]:.4f}  {relation}{note}"
        return
    yield from _format_score_matrix(comparison)
    related_pairs = [pair for pair in related_pairs if not comparison.is_below(*pair, min_score)]
    if related_pairs:
        yield ""
    for first, second in related_pairs:
        relation = _format_relation(comparison, first, second, threshold)
        yield f"{first + 1:>3} {second + 1:>3}  {relation}"


def _format_score_matrix(comparison: Comparison) -> Iterator[str]:
    """Yield the numbered files, then a row of scores for each; - for a file that failed."""
    for number, (file, image) in enumerate(
        zip(comparison.files, comparison.images, strict=True), 1
    ):
        label = f" ({TOO_PLAIN})" if isinstance(image, Image) and image.is_featureless else ""
        yield f"{number:>3}  {escape_unprintable(file)}{label}"
    yield ""
    yield "     " + " ".join(f"{number:>6}" for number in range(1, len(comparison.files) + 1))
    for number, row in enumerate(comparison.scores.tolist(), 1):
        cells = ("     -" if isnan(score) else f"{score:6.3f}" for score in row)
        yield f"{number:>3}  " + " ".join(cells)


def _format_relation(comparison: Comparison, first: int, second: int, threshold: float) -> str:
    """Format the relation of two files, with the edits if the second is a copy of the first."""
    relation = comparison.get_relation(first, second, threshold)
    if relation in (Relation.SAME_PICTURE, Relation.DERIVED):
        verdict = comparison.verdicts[first, second]
        edits = ", ".join(describe_edits(verdict, "the first", "the second"))
        return f"{relation}: {edits}" if edits else str(relation)
    if relation in PART_RELATIONS:
        return f"{relation}: {_describe_part(comparison, first, second)}"
    if relation == Relation.NOT_VERIFIABLE and comparison.is_featureless(first, second):
        return f"{relation}: {TOO_PLAIN}"
    return str(relation)


def _describe_part(comparison: Comparison, first: int, second: int) -> str:
    """Describe which of two files is a frame or page of the other, or has some of them."""
    sides = {Side.FIRST: comparison.get_frames(first), Side.SECOND: comparison.get_frames(second)}
    part_side = comparison.find_part_side(first, second)
    assert part_side is not None  # files whose frames are not known are not related so
    part, whole = sides[part_side], sides[part_side.other]
    assert part is not None
    assert whole is not None
    all_of_it = f"the {whole.count:,} {whole.kind} of the {part_side.other}"
    if part.kind is None or part.count == 1:
        return f"the {part_side} is one of {all_of_it}"
    return f"the {part.count:,} {part.kind} of the {part_side} are among {all_of_it}"


# --- text of `explain` ---


def format_explanation(
    comparison: Comparison, threshold: float, decisions: Decisions = NO_DECISIONS
) -> Iterator[str]:
    """Yield how two files are related and what verification measured; nothing if one failed.

    `decisions` are those of the store.
    """
    first, second = comparison.images
    if isinstance(first, Failure) or isinstance(second, Failure):
        return
    yield _format_image_line("first", comparison.files[0], first)
    yield _format_image_line("second", comparison.files[1], second)
    if decision := _find_decision(comparison, 0, 1, decisions):
        yield f"decision    {format_decision(decision)} (decision {decision.id})"
    yield f"relation    {_format_relation(comparison, 0, 1, threshold)}"
    if reason := _explain_relation(comparison, threshold):
        yield f"reason      {reason}"
    yield f"score       {comparison.scores[0, 1]:.4f}"
    if difference := comparison.find_exposure_difference(0, 1):
        proof = "they are two exposures" if difference.is_certain else "perhaps two exposures"
        yield f"metadata    another {difference.field}: {proof}"
    if comparison.is_featureless(0, 1):  # pixels that agree or differ say nothing then
        return
    verdict = comparison.verdicts[0, 1]
    yield f"keypoints   {_describe_alignment(verdict)}"
    if not verdict.homography:
        return
    yield f"tiles       {_describe_tiles(verdict)}"
    if verdict.overlap:
        first_share, second_share = (f"{100 * share:.0f} %" for share in verdict.overlap)
        yield f"shared      {first_share} of the first, {second_share} of the second"
    if verdict.judgement:
        yield f"judged      {_describe_judgement(verdict, verdict.judgement)}"
    yield from _format_region_lines(comparison)
    if verdict.edits and (side := verdict.edits.derived_side):
        yield f"origin      the {side} was made from the {side.other}, as far as the pixels show"


def _explain_relation(comparison: Comparison, threshold: float) -> str | None:
    """Explain a relation that the lines below do not; None for the others."""
    verdict = comparison.verdicts[0, 1]
    if comparison.get_relation(0, 1, threshold) == Relation.OVERLAPS:
        return _explain_overlap(comparison)
    if verdict.relation == Relation.NOT_VERIFIABLE and verdict.homography:
        return _explain_not_verifiable(verdict)
    return None


def _explain_overlap(comparison: Comparison) -> str:
    if comparison.verdicts[0, 1].relation == Relation.OVERLAPS:
        return "each shows something that the other lacks"
    kinds = {frames.kind for position in (0, 1) if (frames := comparison.get_frames(position))}
    parts = PAGES if PAGES in kinds else FRAMES
    order = f"each has {parts} that the other lacks, or has them in another order"
    return f"{order}; what follows is about one of each"


def _format_image_line(side: str, file: str, image: Image) -> str:
    labels = [_describe_flag(flag, image) for flag in image.flags]
    if image.is_featureless:
        labels.append(TOO_PLAIN)
    size = f"{image.width} x {image.height}, {format_bytes(image.size)}"
    return f"{side:<11} {escape_unprintable(file)}   {', '.join([size, *labels])}"


def _describe_flag(flag: str, image: Image) -> str:
    if not image.metadata:
        return flag
    start, frames = image.metadata.damage_start, image.metadata.frames
    if flag == FLAG_DAMAGED and start is not None:
        return f"damaged from {start:.0%}".replace("%", " %") + " of its height on"
    if flag in (FLAG_ANIMATED, FLAG_PAGES) and frames and frames.kind:
        return f"{frames.count:,} {frames.kind}"
    return flag


def _describe_alignment(verdict: Verdict) -> str:
    if verdict.homography:
        if verdict.inliers:
            return f"{verdict.inliers} matches agree on how to align the images"
        return "too few matches; the images were aligned as a whole"
    if verdict.relation == Relation.NOT_VERIFIABLE:
        return "too few to align the images"
    return "too few matching keypoints to align the images"


def _describe_tiles(verdict: Verdict) -> str:
    differing_share = max(0.0, 1 - verdict.agreeing_share - verdict.displaced_share)
    return (
        f"{verdict.tiles}: {100 * verdict.agreeing_share:.0f} % agree in place,"
        f" {100 * verdict.displaced_share:.0f} % agree when displaced,"
        f" {100 * differing_share:.0f} % differ"
    )


def _describe_judgement(verdict: Verdict, judgement: Judgement) -> str:
    """Describe the probabilities, and what they mean for a pair that is in doubt."""
    probabilities = (
        f"copy {judgement.copy:.2f}, another shot {judgement.shot:.2f},"
        f" one template {judgement.template:.2f}"
    )
    if verdict.relation == Relation.SIMILAR:
        return f"{probabilities}: not certain enough to group the two"
    return probabilities


def _explain_not_verifiable(verdict: Verdict) -> str:
    if verdict.tiles < MIN_VALID_TILES:
        return "too few tiles have enough texture to decide"
    return (
        "both are text or drawings on an even background;"
        " at this size different words can look the same"
    )


def _format_region_lines(comparison: Comparison) -> Iterator[str]:
    """Yield a line for each place where the two differ, up to MAX_LISTED_ITEMS."""
    regions = find_differing_regions(comparison)
    for left, top, right, bottom in regions[:MAX_LISTED_ITEMS]:
        across = f"{left:.2f} to {right:.2f} of the first's width"
        yield f"differs     at {across}, {top:.2f} to {bottom:.2f} of its height"
    if len(regions) > MAX_LISTED_ITEMS:
        more = pluralize(len(regions) - MAX_LISTED_ITEMS, "more place")
        yield f"            and in {more}"
