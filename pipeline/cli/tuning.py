"""How strict a library is to be with its photos: calibrate."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.console import show, show_json, tell
from pipeline.cli.options import COUNT, Real, json_option, pay_option, store_option
from pipeline.cli.session import agree_to_ask, embedder_of, opened_to_write, own_model


@click.command()
@click.option("--sample", type=COUNT, default=50, show_default=True, metavar="N", help="Photos to make copies of.")
@click.option("--threshold", type=Real(-1, 1), metavar="COSINE", help="Measure this one.")
@click.option("--strictness", type=Real(0, 1), metavar="SHARE", help="Measure this one: the least share of a copy's tiles that agree.")
@click.option("--save", is_flag=True, help="Let groups, dedupe and query go by what was named, or by the best, from now on.")
@click.option("--reset", is_flag=True, help="Forget what was saved: go by what the model brings. Nothing is measured.")
@store_option
@json_option
@pay_option
def calibrate(
    sample: int, threshold: float | None, strictness: float | None, save: bool, reset: bool, store: Path, as_json: bool, yes: bool
) -> None:
    """Measure on your own photos what is found, and what is wrong.

    \b
    neardup calibrate
    neardup calibrate --save                             go by the best from now on
    neardup calibrate --threshold 0.5 --strictness 0.9 --save
    neardup calibrate --reset                            as it was before the first --save

    Copies of a sample are made in 40 ways and looked for: what share is found. Photos that were taken days apart, by their EXIF, are no
    copies: how many of all such pairs pass for some. The copies are temporary files; no photo is changed, and none leaves your machine,
    unless the store's model is a paid one.
    """
    if reset:
        if save or threshold is not None or strictness is not None:
            raise click.UsageError("--reset measures and saves nothing: leave out --save, --threshold and --strictness")
        _forget(store, as_json)
        return
    from indexes import Choice, Store
    from pipeline.calibrate.calibrate import EDITS, fitting
    from pipeline.calibrate.calibrate import calibrate as measured
    from pipeline.report.answers import counted
    from pipeline.report.calibration import calibration_json, calibration_text

    with opened_to_write(store) if save else Store(store) as opened, own_model(opened, None):
        if threshold is not None:
            opened.check_score(threshold)  # before a minute of work
        images, embedder = fitting(opened, sample), embedder_of(opened, None)
        agree_to_ask(embedder, len(EDITS), yes, len(images))
        if images:
            copies = counted(len(images) * len(EDITS), "copy", "copies")
            tell(f"making {copies} of {counted(len(images), 'photo')}; this takes a minute or two")
        found = measured(opened, embedder, images)
        asked = threshold is not None or strictness is not None
        chosen = found.at(found.floor if threshold is None else threshold, strictness or 0.0) if asked else found.best()
        save = save and (asked or chosen.expected is not None)  # nothing that was not measured is chosen
        if save:
            opened.choose(Choice(chosen.threshold, chosen.strictness))
    if as_json:
        show_json(calibration_json(found, chosen, save))
    else:
        show(calibration_text(found, chosen, save))


def _forget(store: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from pipeline.report.answers import SCHEMA_VERSION

    with opened_to_write(store) as opened:
        before = opened.catalog.choice()
        opened.choose(None)
    if as_json:
        show_json({"schema_version": SCHEMA_VERSION, "forgotten": asdict(before) if before else None})
    elif before:
        show([f"a threshold of {before.threshold:g} and a strictness of {before.strictness:g} are forgotten"])
    else:
        show(["nothing was saved"])
