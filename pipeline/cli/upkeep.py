"""A store looked at, mended, brought to another model; and what this installation can do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_DAMAGED, EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import (
    MODEL_NAME_FORMS,
    POSITIVE_INT,
    allow_cost_up_to_limit_option,
    data_option,
    json_option,
    store_option,
    wait_option,
    work_options,
)
from pipeline.cli.session import (
    announce_paid_calls,
    choose_embedder,
    explain_model_errors,
    open_for_writing,
    run_ingest,
)


@click.command()
@click.option(
    "--failures",
    is_flag=True,
    help="List every file that has no picture, and what could not be seen, with the reason.",
)
@store_option
@json_option
def status(failures: bool, store: Path, as_json: bool) -> None:
    """Show what a store holds and how the last ingest ended.

    \b
    neardup status
    neardup status --failures                     which files could not be read, and why
    """
    from indexes.store import Store
    from pipeline.report.answers import format_failure
    from pipeline.report.status import format_status, serialize_status

    with Store(store) as opened:
        opened.verify()
        about = serialize_status(opened)
        failed = list(opened.catalog.files.list_failures()) if failures else []
        last = opened.catalog.runs.get_last()
    # What could not be seen is no file that the catalog knows.
    unseen = (
        [
            (one["path"], one["reason"], one["detail"])
            for one in last.coverage.get("unreadable_paths", [])
        ]
        if last and failures
        else []
    )
    failed = sorted([*failed, *unseen], key=lambda failure: os.fsencode(failure[0]))
    if as_json:
        listed = [
            {"path": path, "reason": reason, "detail": detail} for path, reason, detail in failed
        ]
        print_json(about | ({"failures": listed} if failures else {}))
    elif failures:
        print_lines(format_failure(path, reason, detail) for path, reason, detail in failed)
    else:
        print_lines(format_status(about))


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the models that --model knows by name.

    \b
    neardup models                                name, dimension, side of its pictures in pixels
    neardup models --json

    Those of open_clip are downloaded when they are first used; they are listed where the extra `clip` is installed. Beside these, any
    ONNX file with a card is a model: onnx:PATH.
    """
    from dataclasses import asdict

    from pipeline.embed.embedder import list_models as all_known
    from pipeline.report.answers import SCHEMA_VERSION

    known = all_known()
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "models": [asdict(model) for model in known.available],
            }
        )
    else:
        width = max(len(model.name) for model in known.available)
        print_lines([f"{'model':{width}}    dim  side"])
        print_lines(
            f"{model.name:{width}}  {model.dim:5}  {model.input_size:4}"
            for model in known.available
        )
    for missing in known.missing_extras:
        print_message(f"neardup: {missing}")


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
    help="Refuse a sample that may take more paid requests.",
)
@allow_cost_up_to_limit_option
@store_option
@json_option
def check(
    data: bool, sample: int, max_calls: int | None, allow_cost: bool, store: Path, as_json: bool
) -> None:
    """Look whether a store is what was written.

    \b
    neardup check                                 files, their times and sizes, ids: well under a second
    neardup check --data                          every byte, every vector, every pair
    neardup check --sample 100                    do photos still give the vectors that are stored?

    Nothing is changed. Exit code 4 when something is wrong; each line names a file or a part of the catalog.
    """
    from indexes.store import Store
    from indexes.store import check as findings
    from pipeline.embed.paid_calls import PaidCallBudget
    from pipeline.ingest import audit
    from pipeline.report.status import format_check, serialize_check

    found = findings(store, read_all=data)
    again = []
    if sample and not found:
        with Store(store) as opened, explain_model_errors(opened, None):
            embedder, images = choose_embedder(opened, None), audit.sample_images(opened, sample)
            budget = PaidCallBudget(embedder, max_calls, is_cost_accepted=allow_cost)
            estimate = budget.estimate(len(images), "photo")
            budget.require_consent_to_all(estimate, "name a smaller --sample")
            announce_paid_calls(estimate)
            again = list(audit.reembed(opened, embedder, images))
    if as_json:
        print_json(serialize_check(found, again))
    else:
        print_lines(format_check(found, again))
    if sample and len(again) < sample:
        why = (
            "the rest changed, is away, or is not there at all"
            if not found
            else f"mend the store first: `{format_command(store, 'repair')}`"
        )
        print_message(f"neardup: {len(again)} of {sample} photos were embedded again; {why}")
    if found or not all(audited.is_unchanged for audited in again):
        sys.exit(EXIT_DAMAGED)


@click.command()
@data_option
@click.option("--yes", is_flag=True, help="Do it; without, only what would be done is printed.")
@store_option
def repair(data: bool, yes: bool, store: Path) -> None:
    """Go on without what is damaged, and make it again from the photos.

    \b
    neardup repair                                what would be done
    neardup repair --data --yes

    The catalog is saved first. Damaged segments go to the store's quarantine folder, their photos are embedded again; a damaged catalog
    goes there with all segments, and everything is embedded again. No photo is touched, nothing is deleted.
    """
    from indexes.store import Store
    from indexes.store import check as findings
    from indexes.store import repair as set_aside
    from pipeline.report.answers import MAX_LISTED_ITEMS
    from pipeline.report.status import (
        format_check,
        format_coverage,
        format_repair,
        format_repair_plan,
    )

    if not yes:
        found = findings(store, read_all=data)
        print_lines(format_check(found, []))
        if found:
            intended = format_repair_plan(found, os.fspath(store / "catalog.db"))
            print_message(
                f"neardup: nothing was changed; `{format_command(store, 'repair', '--yes')}` {intended}"
            )
            sys.exit(EXIT_DAMAGED)
        return
    found, done = set_aside(store, read_all=data)
    print_lines(format_check(found, []))
    if not found:
        return
    if done:
        print_lines(format_repair(done))
    with Store(store, write=True) as opened:
        if not opened.catalog.roots.list():
            print_message(
                f"neardup: which folders it held could not be read any more; name them again: `{format_command(store, 'ingest', 'FOLDER')}`"
            )
            sys.exit(EXIT_SKIPPED)
        coverage, _ = run_ingest(
            opened,
            (),
            done.model if done else None,
            (),
            None,
            accept_missing=False,
            lock_timeout=0.0,
        )
        left = list(opened.catalog.files.find_of_images(opened.catalog.images.find_unembedded()))
        for known in left[:MAX_LISTED_ITEMS]:
            print_message(
                f"neardup: {ascii(known.path)} could not be embedded again; it comes back when `{format_command(store, 'ingest')}` finds it"
            )
        if len(left) > MAX_LISTED_ITEMS:
            print_message(f"neardup: {len(left) - MAX_LISTED_ITEMS:,} others could not either")
    print_message(format_coverage(coverage))
    if coverage.has_problems:
        sys.exit(EXIT_SKIPPED)


@click.command()
@click.option("--model", required=True, metavar="NAME", help=f"The new model: {MODEL_NAME_FORMS}.")
@click.option(
    "--leave-out",
    is_flag=True,
    help="Go on without photos that are away or cannot be read; an ingest embeds them when it can.",
)
@click.option("--restart", is_flag=True, help="Drop what was embedded for a new model before.")
@work_options
@wait_option
@store_option
@json_option
def migrate(
    model: str,
    leave_out: bool,
    restart: bool,
    store: Path,
    as_json: bool,
    lock_timeout: float,
    decoders: int | None,
    readers: int,
    threads: int | None,
    batch: int | None,
    max_calls: int | None,
    allow_cost: bool,
) -> None:
    """Embed all photos again with another model.

    \b
    neardup migrate --model onnx:sscd.onnx
    neardup migrate --model onnx:sscd.onnx --leave-out     although a drive is away
    neardup migrate --model neardup-0 --restart            stay with the store's model: drop what was begun

    The store answers with its old model until everything is embedded, and changes to the new one in a moment. Stop it with Ctrl-C at any
    moment; the same command goes on from there. Files, folders and runs stay as they are. Exit code 8: nothing was changed, because some
    photos are away or cannot be read.
    """
    from dataclasses import asdict

    from pipeline.cli.progress import StoppedBySignal, run_with_progress
    from pipeline.ingest.batch_writer import IngestOptions
    from pipeline.ingest.migrate import migrate_store
    from pipeline.report.answers import SCHEMA_VERSION, pluralize
    from pipeline.report.status import format_migration, format_pending_migration

    with open_for_writing(store) as opened:
        before, chosen = opened.space, opened.catalog.settings.get_saved_thresholds()
        if before is None:
            ingest = format_command(store, "ingest", "FOLDER", "--model", model)
            raise click.UsageError(
                f"{store} has no photos yet, so there is nothing to migrate: `{ingest}`"
            )
        embedder, begun = choose_embedder(None, model, threads), opened.get_pending_migration()
        options = IngestOptions(
            batch,
            decoders=decoders,
            readers=readers,
            lock_timeout_seconds=lock_timeout,
            max_paid_calls=max_calls,
            accept_paid_calls=allow_cost,
        )
        try:
            coverage = run_with_progress(
                migrate_store(opened, embedder, options, leave_out=leave_out, restart=restart),
                store,
            )
        except StoppedBySignal as stopped:
            answers = (
                "answers as before"
                if opened.space == before
                else f"has the model {embedder.name} now"
            )
            print_message(
                f"stopped; what was committed is kept, the same command goes on from there, and the store {answers}"
            )
            sys.exit(stopped.exit_code)
        images, waiting, still = (
            opened.catalog.files.get_counts().images,
            len(opened.catalog.images.find_unembedded()),
            format_pending_migration(opened),
        )
    dropped = begun if restart else None
    for note in coverage.warnings:
        print_message(f"neardup: {note}")
    if as_json:
        done = {
            "model": embedder.name,
            "migrated": before != embedder.space,
            "images": images,
            "embedded": coverage.embedded,
        }
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                **done,
                "waiting": waiting,
                "dropped": asdict(dropped) if dropped else None,
            }
        )
        sys.exit(EXIT_SKIPPED if waiting else 0)
    if dropped:
        print_message(
            f"the migration to {dropped.model} ({pluralize(dropped.done, 'picture')}) was dropped"
        )
    if still:
        print_message(f"{store} has the model {embedder.name}; {still}")
    elif before == embedder.space:
        print_message(
            f"{store} has the model {embedder.name} already{'' if dropped else '; nothing to do'}"
        )
    else:
        print_message(format_migration(embedder.name, images, coverage.embedded, waiting))
        if chosen:
            again = format_command(store, "calibrate", "--save")
            print_message(
                f"the threshold and agreement that were saved were for the other model and are forgotten; `{again}` finds new ones"
            )
    if waiting:
        sys.exit(EXIT_SKIPPED)


@click.command()
@wait_option
@store_option
@json_option
def compact(lock_timeout: float, store: Path, as_json: bool) -> None:
    """Merge all segments and drop the vectors of photos that are gone.

    \b
    neardup compact
    neardup compact --lock-timeout 600               after an ingest that is running

    An ingest does what is needed by itself; this goes further. Answers stay the same, and other commands may run meanwhile.
    """
    from dataclasses import asdict

    from pipeline.report.answers import SCHEMA_VERSION
    from pipeline.report.status import format_compaction

    with open_for_writing(store) as opened, opened.lock_for_ingest(lock_timeout):
        opened.prepare()
        done = opened.compact(full=True)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(done)})
    else:
        print_lines([format_compaction(done)])


@click.command()
@store_option
@json_option
def doctor(store: Path, as_json: bool) -> None:
    """Show what this installation can do.

    \b
    neardup doctor                                versions, formats, cores, GPU, where the store is

    Works without a store. Add it to a report of a bug.
    """
    from pipeline.report.doctor import format_doctor_report, inspect_installation

    about = inspect_installation(store)
    if as_json:
        print_json(about)
    else:
        print_lines(format_doctor_report(about))
