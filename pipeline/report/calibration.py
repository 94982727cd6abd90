"""What `calibrate` measured, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pipeline.calibrate.measurement import WANTED, Calibration, Setting, Share
from pipeline.report.answers import SCHEMA_VERSION, SHOWN, counted, printable


def calibration_json(found: Calibration, chosen: Setting, saved: bool) -> dict[str, Any]:
    """The answer of `calibrate`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "photos": found.photos,
        "copies": len(found.kinds),
        "pairs": found.pairs,
        "far_pairs": found.far,
        "far_pairs_taken_for_copies": [asdict(pair) for pair in found.wrong],
        "settings": [_setting_json(one) for one in found.settings()],
        "chosen": _setting_json(chosen),
        "saved": saved,
    }


def _setting_json(one: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"threshold": one.threshold, "strictness": one.strictness, "found": one.found}
    for name, share in (("everyday", one.everyday), ("hard", one.hard), ("wrong", one.wrong)):
        about[name] = {"some": share.some, "all": share.all, "share": share.value, "low": share.bounds[0], "high": share.bounds[1]}
    return about | {"expected_precision": one.expected, "expected_precision_at_least": one.at_least}


def calibration_text(found: Calibration, chosen: Setting, saved: bool) -> Iterable[str]:
    """What was measured, a line for each setting, and what to do with it."""
    if not found.kinds:
        yield "no photo could be copied: all are away, very small or without features; nothing was measured"
        return
    made = f"{counted(found.photos, 'photo')}, {counted(len(found.kinds), 'copy', 'copies')} made"
    yield f"{made}; {counted(found.far, 'pair')} of photos that were taken days apart"
    yield ""
    yield "threshold  strictness  everyday copies found   hard copies found       in the library  expected precision"
    every = found.settings()
    for one in every if chosen in every else [chosen, *every]:
        yield (
            f"{one.threshold:>9.2f}  {one.strictness:>10.2f}  {_share_text(one.everyday):<22}  {_share_text(one.hard):<22}"
            f"  {one.found:>8,} pairs  {_precision_text(one)}{'   <' if one == chosen else ''}"
        )
    yield ""
    if found.wrong:
        yield f"{counted(len(found.wrong), 'pair')} taken days apart pass for copies; wrong, unless the date of one was changed:"
        for pair in found.wrong[:SHOWN]:
            yield f"  {pair.score:.4f}  {100 * pair.agree:.0f} %  {printable(pair.first)}  {printable(pair.second)}"
    elif not found.far:
        yield "no two photos say, in their EXIF, that they were taken days apart, so nothing can be said of how many are wrong"
    said = f"a threshold of {chosen.threshold:g} and a strictness of {chosen.strictness:g}"
    if chosen.threshold > found.floor:
        yield f"it leaves out pictures within others that are less alike than that as a whole; a threshold of {found.floor:g} does not"
    if chosen.expected is not None and chosen.at_least is not None and chosen.at_least < WANTED:
        few = f"too few pairs are known to be no copies to be sure that {WANTED:.1%} of what it finds is right"
        yield few if chosen.expected >= WANTED else f"less than {WANTED:.1%} of what it finds is to be expected to be right"
    if saved:
        yield f"groups, dedupe and query go by {said} from now on"
    elif chosen.expected is None:
        yield "what share of it is right is not known, so nothing is chosen for you"
        named = f"--threshold {chosen.threshold:g} --strictness {chosen.strictness:g}"
        yield f"`neardup calibrate {named} --save` lets groups, dedupe and query go by {said}"
    else:
        yield f"`neardup calibrate --save` lets groups, dedupe and query go by {said}"


def _share_text(share: Share) -> str:
    low, high = share.bounds
    return f"{share.value:.3f} ({low:.3f} to {high:.3f})"


def _precision_text(one: Setting) -> str:
    if one.expected is None or one.at_least is None:
        return "unknown"
    return f"{one.expected:.4f}, at least {one.at_least:.4f}"
