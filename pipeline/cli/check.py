"""neardup check: check a store for damage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_DAMAGED, print_json, print_lines, print_warning
from pipeline.cli.options import (
    allow_cost_up_to_limit_option,
    data_option,
    json_option,
    store_option,
)
from pipeline.cli.session import announce_paid_calls, choose_embedder
from pipeline.cli.values import POSITIVE_INT

if TYPE_CHECKING:
    from pipeline.ingest.audit import AuditResult


@click.command()
@data_option
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Embed N photos again and compare their vectors.",
)
@click.option(
    "--max-calls",
    type=POSITIVE_INT,
    metavar="N",
    help="Refuse a sample that may take more than N paid requests.",
)
@allow_cost_up_to_limit_option
@store_option
@json_option
def check(
    data: bool, sample: int, max_calls: int | None, allow_cost: bool, store: Path, as_json: bool
) -> None:
    """Check a store for damage.

    \b
    neardup check                                 files, their times and sizes, ids: under a second
    neardup check --data                          every byte, every vector, every pair
    neardup check --sample 100                    do photos still give the vectors that are stored?

    Nothing is changed. Exit code 4 if something is wrong; each line names a file or a part of the
    catalog.
    """
    from indexes import check as find_damage
    from pipeline.report.maintenance import format_check, serialize_check

    findings = find_damage(store, read_all=data)
    audits: list[AuditResult] = []
    if sample and not findings:
        audits = _reembed_sample(store, sample, max_calls, allow_cost)
    if as_json:
        print_json(serialize_check(findings, audits))
    else:
        print_lines(format_check(findings, audits))
    if len(audits) < sample:
        reason = "the others have changed, are away, or do not exist"
        if findings:
            reason = f"repair the store first: `{format_command(store, 'repair')}`"
        print_warning(f"{len(audits)} of {sample} images were embedded again; {reason}")
    if findings or not all(audit.is_unchanged for audit in audits):
        sys.exit(EXIT_DAMAGED)


def _reembed_sample(
    store: Path, sample: int, max_calls: int | None, allow_cost: bool
) -> list[AuditResult]:
    """Embed a sample of images again by the store's own model; raises PaidCallLimit."""
    from indexes.store import Store
    from pipeline.embed.model_errors import explain_model_errors
    from pipeline.embed.paid_calls import PaidCallBudget
    from pipeline.ingest import audit

    with Store(store) as opened, explain_model_errors(opened, None):
        embedder = choose_embedder(opened, None)
        images = audit.sample_images(opened, sample)
        budget = PaidCallBudget(embedder, max_calls, is_cost_accepted=allow_cost)
        estimate = budget.estimate(len(images), "image")
        budget.require_consent_to_all(estimate, "name a smaller --sample")
        announce_paid_calls(estimate)
        return list(audit.reembed(opened, embedder, images))
