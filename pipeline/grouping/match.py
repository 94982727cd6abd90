"""The relation of two images, and a file that matches another: shared by groups and queries."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.decisions import Decision
from indexes.records import Image
from pipeline.grouping.exposures import ExposureDifference
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.verify.judgement import MIN_CLEAN_AGREEMENT
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS, SCENE_RELATIONS, Relation
from pipeline.verify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Match:
    """A file that matches a reference: the keeper of its group, or the file of a query.

    `relation` and `score`, a cosine, are those of the pair. The verdict, if there is one, has the
    reference as its first image. `voucher` is a copy of both, if only their copies relate the two.
    `made_from` is the member that it was made from; None if that is the reference, or not known.
    `decision` is that of a person on the two, or on the file or the reference and the voucher.
    `without_counterpart` are paths of the file and its parts for which the asset of the keeper has
    no counterpart, so that they would be lost with the file.
    """

    file: LibraryFile
    relation: Relation
    score: float
    verdict: Verdict | None = None
    voucher: LibraryFile | None = None
    made_from: LibraryFile | None = None
    decision: Decision | None = None
    without_counterpart: tuple[str, ...] = ()


def make_match_rank_key(match: Match) -> tuple[int, bool, float, str]:
    """Make a sort key: by relation, closest first, then files that are there, then by score.

    The highest score comes first; equal ones by their path.
    """
    closeness = REPORTED_RELATIONS.index(match.relation)
    return closeness, match.file.is_away, -match.score, match.file.path


def get_exact_relation(image: Image, keeper: Image) -> Relation | None:
    """Return the relation of two images if their hashes decide it, else None."""
    if image.hash == keeper.hash:
        return Relation.IDENTICAL_BYTES
    return Relation.IDENTICAL_PIXELS if image.pixel_hash == keeper.pixel_hash else None


def decide_relation(
    verdict: Verdict | None,
    score: float,
    similar_threshold: float,
    min_agreement: float = 0.0,
    *,
    exposure_difference: ExposureDifference | None = None,
) -> Relation:
    """Decide the relation of two images that differ in pixels.

    It is that of the verdict; in doubt by the judge: SIMILAR at any score. But a copy whose share
    of agreeing tiles is below `min_agreement` is SIMILAR. Without a verdict, or if pixels cannot
    decide (NOT_VERIFIABLE), it is SIMILAR if the score is >= `similar_threshold`, else UNRELATED.
    Of these, a copy, another shot or a similar image that is another exposure by its metadata is
    ANOTHER_SHOT; a mere hint of that counts for the first two, below MIN_CLEAN_AGREEMENT.
    """
    relation = _decide_by_pixels(verdict, score, similar_threshold, min_agreement)
    if exposure_difference is None:
        return relation
    if exposure_difference.is_certain:
        is_other = relation in COPY_RELATIONS | SCENE_RELATIONS | {Relation.SIMILAR}
    else:
        is_other = (
            verdict is not None
            and verdict.relation in COPY_RELATIONS | SCENE_RELATIONS
            and verdict.agreeing_share < MIN_CLEAN_AGREEMENT
        )
    return Relation.ANOTHER_SHOT if is_other else relation


def _decide_by_pixels(
    verdict: Verdict | None, score: float, similar_threshold: float, min_agreement: float
) -> Relation:
    if verdict is None or verdict.relation == Relation.NOT_VERIFIABLE:
        return Relation.SIMILAR if score >= similar_threshold else Relation.UNRELATED
    if verdict.relation in COPY_RELATIONS and verdict.agreeing_share < min_agreement:
        return Relation.SIMILAR
    return verdict.relation
