"""How strict a library is to be with its photos: calibrate."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.console import print_json, print_lines, print_message
from pipeline.cli.options import (
    POSITIVE_INT,
    NonNanRange,
    allow_cost_option,
    json_option,
    store_option,
)
from pipeline.cli.session import (
    announce_paid_calls,
    choose_embedder,
    explain_model_errors,
    open_for_writing,
)


@click.command()
@click.option(
    "--sample",
    type=POSITIVE_INT,
    default=50,
    show_default=True,
    metavar="N",
    help="Photos to make copies of.",
)
@click.option("--threshold", type=NonNanRange(-1, 1), metavar="COSINE", help="Measure this one.")
@click.option(
    "--min-agreement",
    type=NonNanRange(0, 1),
    metavar="SHARE",
    help="Measure this one: the least share of a copy's tiles that agree.",
)
@click.option(
    "--save",
    is_flag=True,
    help="Let groups, dedupe and query go by what was named, or by the best, from now on.",
)
@click.option(
    "--reset",
    is_flag=True,
    help="Forget what was saved: go by what the model brings. Nothing is measured.",
)
@store_option
@json_option
@allow_cost_option
def calibrate(
    sample: int,
    threshold: float | None,
    min_agreement: float | None,
    save: bool,
    reset: bool,
    store: Path,
    as_json: bool,
    allow_cost: bool,
) -> None:
    """Measure on your own photos what is found, and what is wrong.

    \b
    neardup calibrate
    neardup calibrate --save                             go by the best from now on
    neardup calibrate --threshold 0.5 --min-agreement 0.9 --save
    neardup calibrate --reset                            as it was before the first --save

    Copies of a sample are made in 40 ways and looked for: what share is found. Photos that were taken days apart, by their EXIF, are no
    copies: how many of all such pairs pass for some. The copies are temporary files; no photo is changed, and none leaves your machine,
    unless the store's model is a paid one.
    """
    if reset:
        if save or threshold is not None or min_agreement is not None:
            raise click.UsageError(
                "--reset measures and saves nothing: leave out --save, --threshold and --min-agreement"
            )
        _reset_thresholds(store, as_json)
        return
    from indexes.records import SavedThresholds
    from indexes.store import Store
    from pipeline.calibrate.calibrate import EDITS, sample_copyable_images
    from pipeline.calibrate.calibrate import calibrate as measured
    from pipeline.embed.paid_calls import PaidCallBudget
    from pipeline.report.answers import pluralize
    from pipeline.report.calibration import format_calibration, serialize_calibration

    with (
        open_for_writing(store) if save else Store(store) as opened,
        explain_model_errors(opened, None),
    ):
        if threshold is not None:
            opened.check_threshold(threshold)  # before a minute of work
        images, embedder = sample_copyable_images(opened, sample), choose_embedder(opened, None)
        budget = PaidCallBudget(embedder, is_cost_accepted=allow_cost)
        estimate = budget.estimate(len(EDITS), "copy", batch_count=len(images))
        budget.require_consent(estimate, "name a smaller --sample")
        announce_paid_calls(estimate)
        if images:
            copies = pluralize(len(images) * len(EDITS), "copy", "copies")
            print_message(
                f"making {copies} of {pluralize(len(images), 'photo')}; this takes a minute or two"
            )
        found = measured(opened, embedder, images)
        asked = threshold is not None or min_agreement is not None
        chosen = (
            found.evaluate(found.floor if threshold is None else threshold, min_agreement or 0.0)
            if asked
            else found.choose_best()
        )
        save = save and (
            asked or chosen.expected_precision is not None
        )  # nothing that was not measured is chosen
        if save:
            opened.save_thresholds(SavedThresholds(chosen.threshold, chosen.min_agreement))
    if as_json:
        print_json(serialize_calibration(found, chosen, save))
    else:
        print_lines(format_calibration(found, chosen, save))


def _reset_thresholds(store: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from pipeline.report.answers import SCHEMA_VERSION

    with open_for_writing(store) as opened:
        before = opened.catalog.settings.get_saved_thresholds()
        opened.save_thresholds(None)
    if as_json:
        print_json(
            {"schema_version": SCHEMA_VERSION, "forgotten": asdict(before) if before else None}
        )
    elif before:
        print_lines(
            [
                f"a threshold of {before.threshold:g} and an agreement of {before.min_agreement:g} are forgotten"
            ]
        )
    else:
        print_lines(["nothing was saved"])
