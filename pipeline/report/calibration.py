"""What `calibrate` measured, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pipeline.calibrate.measurement import MIN_PRECISION, Calibration, Setting, Share
from pipeline.report.document import SCHEMA_VERSION
from pipeline.report.format import MAX_LISTED_ITEMS, escape_unprintable, pluralize


def serialize_calibration(
    calibration: Calibration, chosen_setting: Setting, is_saved: bool
) -> dict[str, Any]:
    """The answer of `calibrate`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "photos": calibration.images,
        "copies": len(calibration.kinds),
        "total_pairs": calibration.total_pairs,
        "date_separated_pairs": calibration.date_separated_pairs,
        "false_positives": [asdict(pair) for pair in calibration.false_positives],
        "settings": [_serialize_setting(one) for one in calibration.evaluate_grid()],
        "chosen": _serialize_setting(chosen_setting),
        "saved": is_saved,
    }


def _serialize_setting(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {
        "threshold": setting.threshold,
        "min_agreement": setting.min_agreement,
        "accepted_pairs": setting.accepted_pairs,
    }
    for name, share in (
        ("everyday", setting.everyday),
        ("hard", setting.hard),
        ("false_positives", setting.false_positives),
    ):
        about[name] = {
            "count": share.count,
            "total": share.total,
            "share": share.value,
            "low": share.bounds[0],
            "high": share.bounds[1],
        }
    return about | {
        "expected_precision": setting.expected_precision,
        "expected_precision_lower_bound_95": setting.precision_lower_bound_95,
    }


def format_calibration(
    calibration: Calibration, chosen_setting: Setting, is_saved: bool
) -> Iterable[str]:
    """What was measured, a line for each setting, and what to do with it."""
    if not calibration.kinds:
        yield "no photo could be copied: all are away, very small or without features; nothing was measured"
        return
    made = f"{pluralize(calibration.images, 'photo')}, {pluralize(len(calibration.kinds), 'copy', 'copies')} made"
    yield f"{made}; {pluralize(calibration.date_separated_pairs, 'pair')} of photos that were taken days apart"
    yield ""
    yield "threshold   agreement  everyday copies found   hard copies found       in the library  expected precision"
    every = calibration.evaluate_grid()
    for one in every if chosen_setting in every else [chosen_setting, *every]:
        yield (
            f"{one.threshold:>9.2f}  {one.min_agreement:>10.2f}  {_format_share(one.everyday):<22}  {_format_share(one.hard):<22}"
            f"  {one.accepted_pairs:>8,} pairs  {_format_precision(one)}{'   <' if one == chosen_setting else ''}"
        )
    yield ""
    if calibration.false_positives:
        yield f"{pluralize(len(calibration.false_positives), 'pair')} taken days apart pass for copies; wrong, unless the date of one was changed:"
        for pair in calibration.false_positives[:MAX_LISTED_ITEMS]:
            yield f"  {pair.score:.4f}  {100 * pair.agreeing_share:.0f} %  {escape_unprintable(pair.first)}  {escape_unprintable(pair.second)}"
    elif not calibration.date_separated_pairs:
        yield "no two photos say, in their EXIF, that they were taken days apart, so nothing can be said of how many are wrong"
    said = f"a threshold of {chosen_setting.threshold:g} and an agreement of {chosen_setting.min_agreement:g}"
    if chosen_setting.threshold > calibration.floor:
        yield f"it leaves out pictures within others that are less alike than that as a whole; a threshold of {calibration.floor:g} does not"
    if (
        chosen_setting.expected_precision is not None
        and chosen_setting.precision_lower_bound_95 is not None
        and chosen_setting.precision_lower_bound_95 < MIN_PRECISION
    ):
        few = f"too few pairs are known to be no copies to be sure that {MIN_PRECISION:.1%} of what it finds is right"
        yield (
            few
            if chosen_setting.expected_precision >= MIN_PRECISION
            else f"less than {MIN_PRECISION:.1%} of what it finds is to be expected to be right"
        )
    if is_saved:
        yield f"groups, dedupe and query go by {said} from now on"
    elif chosen_setting.expected_precision is None:
        yield "what share of it is right is not known, so nothing is chosen for you"
        named = f"--threshold {chosen_setting.threshold:g} --min-agreement {chosen_setting.min_agreement:g}"
        yield f"`neardup calibrate {named} --save` lets groups, dedupe and query go by {said}"
    else:
        yield f"`neardup calibrate --save` lets groups, dedupe and query go by {said}"


def _format_share(share: Share) -> str:
    low, high = share.bounds
    return f"{share.value:.3f} ({low:.3f} to {high:.3f})"


def _format_precision(setting: Setting) -> str:
    if setting.expected_precision is None or setting.precision_lower_bound_95 is None:
        return "unknown"
    return f"{setting.expected_precision:.4f}, at least {setting.precision_lower_bound_95:.4f}"
