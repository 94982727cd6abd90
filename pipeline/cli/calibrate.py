"""neardup calibrate: measure what thresholds find and save them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.console import print_json, print_lines, print_message
from pipeline.cli.options import allow_cost_option, json_option, pass_options, store_option
from pipeline.cli.session import announce_paid_calls, choose_embedder, open_for_writing
from pipeline.cli.values import COSINE, POSITIVE_INT, SHARE

if TYPE_CHECKING:
    from pipeline.calibrate.measurement import Calibration, Setting
    from pipeline.embed.embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class CalibrateArguments:
    """The setting to measure and whether to save it, as given on the command line."""

    sample: int
    threshold: float | None
    min_agreement: float | None
    save: bool
    reset: bool
    allow_cost: bool

    @property
    def names_setting(self) -> bool:
        """True if a threshold or an agreement was named."""
        return self.threshold is not None or self.min_agreement is not None


_OPTIONS = (
    click.option(
        "--sample",
        type=POSITIVE_INT,
        default=50,
        show_default=True,
        metavar="N",
        help="Photos to make copies of.",
    ),
    click.option("--threshold", type=COSINE, metavar="COSINE", help="Measure this threshold."),
    click.option(
        "--min-agreement",
        type=SHARE,
        metavar="SHARE",
        help="Measure this agreement: the lowest share of tiles that agree in a copy.",
    ),
    click.option(
        "--save",
        is_flag=True,
        help="Save these thresholds (or the best found) as the store's default.",
    ),
    click.option(
        "--reset",
        is_flag=True,
        help="Forget saved thresholds and use those of the model again; measures nothing.",
    ),
    allow_cost_option,
)


@click.command()
@pass_options("arguments", CalibrateArguments, _OPTIONS)
@store_option
@json_option
def calibrate(arguments: CalibrateArguments, store: Path, as_json: bool) -> None:
    """Measure on your own photos which copies are found and how many pairs are wrong.

    \b
    neardup calibrate
    neardup calibrate --save                             save the best thresholds found
    neardup calibrate --threshold 0.5 --min-agreement 0.9 --save
    neardup calibrate --reset                            as it was before the first --save

    Makes copies of a sample in 40 ways and measures what share of them is found. Photos that were
    taken days apart, by their EXIF dates, are not copies: counts how many such pairs are accepted
    as copies. The copies are temporary files; no photo is changed, and none leaves your machine
    unless the store's model is a paid one.
    """
    if arguments.reset:
        if arguments.save or arguments.names_setting:
            raise click.UsageError(
                "--reset measures and saves nothing:"
                " leave out --save, --threshold and --min-agreement"
            )
        _reset_thresholds(store, as_json)
        return
    from pipeline.report.calibration import format_calibration, serialize_calibration

    calibration, setting, is_saved = _measure(store, arguments)
    if as_json:
        print_json(serialize_calibration(calibration, setting, is_saved))
    else:
        print_lines(format_calibration(calibration, setting, is_saved))


def _measure(store: Path, arguments: CalibrateArguments) -> tuple[Calibration, Setting, bool]:
    """Calibrate a store; return what was measured, the setting chosen, and whether it was saved."""
    from indexes.records import SavedThresholds
    from indexes.store import Store
    from pipeline.calibrate.calibrate import calibrate, sample_copyable_images
    from pipeline.embed.model_errors import explain_model_errors

    with (
        open_for_writing(store) if arguments.save else Store(store) as opened,
        explain_model_errors(opened, None),
    ):
        if arguments.threshold is not None:
            opened.search.check_threshold(arguments.threshold)  # before a minute of work
        images = sample_copyable_images(opened, arguments.sample)
        embedder = choose_embedder(opened, None)
        _announce(embedder, images, arguments.allow_cost)
        calibration = calibrate(opened, embedder, images)
        setting = _choose_setting(calibration, arguments)
        # A best setting whose precision could not be measured is not saved.
        is_measured = arguments.names_setting or setting.expected_precision is not None
        is_saved = arguments.save and is_measured
        if is_saved:
            opened.save_thresholds(SavedThresholds(setting.threshold, setting.min_agreement))
    return calibration, setting, is_saved


def _announce(embedder: Embedder, images: Sequence[int], allow_cost: bool) -> None:
    """Print how many copies will be made and what they cost; raises PaidCallLimit."""
    from pipeline.calibrate.synthetic_copies import EDITS
    from pipeline.embed.paid_calls import PaidCallBudget
    from pipeline.report.format import pluralize

    budget = PaidCallBudget(embedder, is_cost_accepted=allow_cost)
    estimate = budget.estimate(len(EDITS), "copy", batch_count=len(images))
    budget.require_consent(estimate, "name a smaller --sample")
    announce_paid_calls(estimate)
    if images:
        copies = pluralize(len(images) * len(EDITS), "copy", "copies")
        subject = pluralize(len(images), "image")
        print_message(f"making {copies} of {subject}; this takes a minute or two")


def _choose_setting(calibration: Calibration, arguments: CalibrateArguments) -> Setting:
    """Evaluate the setting that was named, else choose the best of the grid."""
    if not arguments.names_setting:
        return calibration.choose_best()
    threshold = calibration.floor if arguments.threshold is None else arguments.threshold
    return calibration.evaluate(threshold, arguments.min_agreement or 0.0)


def _reset_thresholds(store: Path, as_json: bool) -> None:
    """Forget the saved thresholds of a store and print them."""
    from dataclasses import asdict

    from pipeline.report.document import make_document

    with open_for_writing(store) as opened:
        saved = opened.catalog.settings.get_saved_thresholds()
        opened.save_thresholds(None)
    if as_json:
        print_json(make_document({"forgotten": asdict(saved) if saved else None}))
    elif saved:
        agreement = f"agreement of {saved.min_agreement:g}"
        print_lines([f"forgot the saved threshold of {saved.threshold:g} and {agreement}"])
    else:
        print_lines(["no thresholds were saved"])
