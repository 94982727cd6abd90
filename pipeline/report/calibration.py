"""The answer of `calibrate`, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from indexes.paths import escape_unprintable
from pipeline.calibrate.measurement import (
    MIN_PRECISION,
    AcceptedPair,
    Calibration,
    Setting,
    Share,
)
from pipeline.report.document import SCHEMA_VERSION
from pipeline.report.format import MAX_LISTED_ITEMS, TOO_PLAIN, pluralize

HEADER = (
    "threshold   agreement  everyday copies found   hard copies found     "
    "  in the library  expected precision"
)


def serialize_calibration(
    calibration: Calibration, chosen_setting: Setting, is_saved: bool
) -> dict[str, Any]:
    """Convert a calibration to the JSON answer of `calibrate`."""
    library = calibration.library
    return {
        "schema_version": SCHEMA_VERSION,
        "photos": calibration.image_count,
        "copies": len(calibration.copies),
        "total_pairs": library.total_pairs,
        "date_separated_pairs": library.date_separated_pairs,
        "false_positives": [asdict(pair) for pair in library.false_positives],
        "settings": [_serialize_setting(setting) for setting in calibration.evaluate_grid()],
        "chosen": _serialize_setting(chosen_setting),
        "saved": is_saved,
    }


def _serialize_setting(setting: Setting) -> dict[str, Any]:
    return {
        "threshold": setting.threshold,
        "min_agreement": setting.min_agreement,
        "accepted_pairs": setting.accepted_pairs,
        "everyday": _serialize_share(setting.everyday),
        "hard": _serialize_share(setting.hard),
        "false_positives": _serialize_share(setting.false_positives),
        "expected_precision": setting.expected_precision,
        "expected_precision_lower_bound_95": setting.precision_lower_bound_95,
    }


def _serialize_share(share: Share) -> dict[str, Any]:
    low, high = share.bounds
    return {
        "count": share.count,
        "total": share.total,
        "share": share.value,
        "low": low,
        "high": high,
    }


def format_calibration(
    calibration: Calibration, chosen_setting: Setting, is_saved: bool
) -> Iterable[str]:
    """Format a calibration: a line for each setting, the false positives, and what to do next."""
    if not calibration.copies:
        yield (
            f"no image could be copied: all are missing, very small or {TOO_PLAIN};"
            " nothing was measured"
        )
        return
    library = calibration.library
    copies = pluralize(len(calibration.copies), "copy", "copies")
    yield (
        f"{pluralize(calibration.image_count, 'image')}, {copies} made;"
        f" {pluralize(library.date_separated_pairs, 'pair')} of images that were taken days apart"
    )
    yield ""
    yield HEADER
    settings = calibration.evaluate_grid()
    if chosen_setting not in settings:
        settings.insert(0, chosen_setting)
    for setting in settings:
        yield _format_setting(setting) + ("   <" if setting == chosen_setting else "")
    yield ""
    if library.false_positives:
        yield from _format_false_positives(library.false_positives)
    elif not library.date_separated_pairs:
        yield (
            "no two images have EXIF dates that are days apart,"
            " so the share of wrong pairs is unknown"
        )
    yield from _format_warnings(calibration, chosen_setting)
    yield _format_next_step(chosen_setting, is_saved)


def _format_setting(setting: Setting) -> str:
    return (
        f"{setting.threshold:>9.2f}  {setting.min_agreement:>10.2f}"
        f"  {_format_share(setting.everyday):<22}  {_format_share(setting.hard):<22}"
        f"  {setting.accepted_pairs:>8,} pairs  {_format_precision(setting)}"
    )


def _format_share(share: Share) -> str:
    low, high = share.bounds
    return f"{share.value:.3f} ({low:.3f} to {high:.3f})"


def _format_precision(setting: Setting) -> str:
    if setting.expected_precision is None or setting.precision_lower_bound_95 is None:
        return "unknown"
    return f"{setting.expected_precision:.4f}, at least {setting.precision_lower_bound_95:.4f}"


def _format_false_positives(pairs: tuple[AcceptedPair, ...]) -> Iterator[str]:
    yield (
        f"{pluralize(len(pairs), 'pair')} taken days apart accepted as copies;"
        " wrong, unless one of the dates is wrong:"
    )
    for pair in pairs[:MAX_LISTED_ITEMS]:
        first, second = escape_unprintable(pair.first), escape_unprintable(pair.second)
        yield f"  {pair.score:.4f}  {100 * pair.agreeing_share:.0f} %  {first}  {second}"


def _format_warnings(calibration: Calibration, setting: Setting) -> Iterator[str]:
    """Explain the limits of the chosen setting."""
    if setting.threshold > calibration.floor:
        yield (
            "this threshold leaves out images within images whose whole images are less similar;"
            f" a threshold of {calibration.floor:g} includes them"
        )
    if setting.expected_precision is None or setting.precision_lower_bound_95 is None:
        return
    if setting.expected_precision < MIN_PRECISION:
        yield f"less than {MIN_PRECISION:.1%} of the accepted pairs are expected to be copies"
    elif setting.precision_lower_bound_95 < MIN_PRECISION:
        yield (
            "too few pairs were taken days apart to be sure that"
            f" {MIN_PRECISION:.1%} of the accepted pairs are copies"
        )


def _format_next_step(setting: Setting, is_saved: bool) -> str:
    """Name the saved setting, or the command that saves the chosen one."""
    values = f"a threshold of {setting.threshold:g} and an agreement of {setting.min_agreement:g}"
    if is_saved:
        return f"saved: groups, dedupe and query now use {values}"
    if setting.expected_precision is None:
        options = f"--threshold {setting.threshold:g} --min-agreement {setting.min_agreement:g}"
        return (
            "the precision is unknown, so no setting is chosen for you; to use"
            f" {values} in groups, dedupe and query, run `neardup calibrate {options} --save`"
        )
    return f"to use {values} in groups, dedupe and query, run `neardup calibrate --save`"
