"""A store looked at, mended, brought to another model; and what this installation can do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from indexes.paths import command
from pipeline.cli.console import DAMAGED, SKIPPED, show, show_json, tell
from pipeline.cli.options import COUNT, FORMS, data_option, json_option, store_option, wait_option, work_options, yes_option
from pipeline.cli.session import embedder_of, ingested, opened_to_write, own_model


@click.command()
@click.option("--failures", is_flag=True, help="List every file that has no picture, and what could not be seen, with the reason.")
@store_option
@json_option
def status(failures: bool, store: Path, as_json: bool) -> None:
    """Show what a store holds and how the last ingest ended.

    \b
    neardup status
    neardup status --failures                     which files could not be read, and why
    """
    from indexes import Store
    from pipeline.report.answers import failure_text
    from pipeline.report.status import status_json, status_text

    with Store(store) as opened:
        opened.verify()
        about = status_json(opened)
        failed = list(opened.catalog.failures()) if failures else []
        last = opened.catalog.last_run()
    # What could not be seen is no file that the catalog knows.
    unseen = [(one["path"], one["reason"], one["detail"]) for one in last.coverage.get("unseen", [])] if last and failures else []
    failed = sorted([*failed, *unseen], key=lambda failure: os.fsencode(failure[0]))
    if as_json:
        listed = [{"path": path, "reason": reason, "detail": detail} for path, reason, detail in failed]
        show_json(about | ({"failures": listed} if failures else {}))
    elif failures:
        show(failure_text(path, reason, detail) for path, reason, detail in failed)
    else:
        show(status_text(about))


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

    from pipeline.embed.embedder import models as all_known
    from pipeline.report.answers import SCHEMA_VERSION

    known = all_known()
    if as_json:
        show_json({"schema_version": SCHEMA_VERSION, "models": [asdict(model) for model in known.found]})
    else:
        width = max(len(model.name) for model in known.found)
        show([f"{'model':{width}}    dim  side"])
        show(f"{model.name:{width}}  {model.dim:5}  {model.size:4}" for model in known.found)
    for missing in known.missing:
        tell(f"neardup: {missing}")


@click.command()
@data_option
@click.option("--sample", type=click.IntRange(min=0), default=0, metavar="N", help="Embed N photos again and compare their vectors.")
@click.option("--max-calls", type=COUNT, metavar="N", help="Refuse a sample that may take more paid requests.")
@yes_option
@store_option
@json_option
def check(data: bool, sample: int, max_calls: int | None, yes: bool, store: Path, as_json: bool) -> None:
    """Look whether a store is what was written.

    \b
    neardup check                                 files, their times and sizes, ids: well under a second
    neardup check --data                          every byte, every vector, every pair
    neardup check --sample 100                    do photos still give the vectors that are stored?

    Nothing is changed. Exit code 4 when something is wrong; each line names a file or a part of the catalog.
    """
    from indexes import Store
    from indexes import check as findings
    from pipeline.ingest import audit
    from pipeline.report.answers import counted
    from pipeline.report.status import check_json, check_text

    found = findings(store, data=data)
    again = []
    if sample and not found:
        with Store(store) as opened, own_model(opened, None):
            embedder, images = embedder_of(opened, None), audit.sample(opened, sample)
            if calls := audit.agreed(embedder, len(images), max_calls, yes):
                tell(f"up to {counted(calls, 'paid request')} for {counted(len(images), 'photo')}")
            again = list(audit.reembed(opened, embedder, images))
    if as_json:
        show_json(check_json(found, again))
    else:
        show(check_text(found, again))
    if sample and len(again) < sample:
        why = "the rest changed, is away, or is not there at all" if not found else f"mend the store first: `{command(store, 'repair')}`"
        tell(f"neardup: {len(again)} of {sample} photos were embedded again; {why}")
    if found or not all(audited.same for audited in again):
        sys.exit(DAMAGED)


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
    from indexes import Store
    from indexes import check as findings
    from indexes import repair as set_aside
    from pipeline.report.answers import SHOWN
    from pipeline.report.status import check_text, coverage_text, intended_text, repair_text

    if not yes:
        found = findings(store, data=data)
        show(check_text(found, []))
        if found:
            intended = intended_text(found, os.fspath(store / "catalog.db"))
            tell(f"neardup: nothing was changed; `{command(store, 'repair', '--yes')}` {intended}")
            sys.exit(DAMAGED)
        return
    found, done = set_aside(store, data=data)
    show(check_text(found, []))
    if not found:
        return
    if done:
        show(repair_text(done))
    with Store(store, write=True) as opened:
        if not opened.catalog.roots():
            tell(f"neardup: which folders it held could not be read any more; name them again: `{command(store, 'ingest', 'FOLDER')}`")
            sys.exit(SKIPPED)
        coverage, _ = ingested(opened, (), done.model if done else None, (), None, accept_missing=False, wait_lock=0.0)
        left = list(opened.catalog.files_of(opened.catalog.unembedded()))
        for known in left[:SHOWN]:
            tell(f"neardup: {ascii(known.path)} could not be embedded again; it comes back when `{command(store, 'ingest')}` finds it")
        if len(left) > SHOWN:
            tell(f"neardup: {len(left) - SHOWN:,} others could not either")
    tell(coverage_text(coverage))
    if coverage.troubled:
        sys.exit(SKIPPED)


@click.command()
@click.option("--model", required=True, metavar="NAME", help=f"The new model: {FORMS}.")
@click.option("--leave-out", is_flag=True, help="Go on without photos that are away or cannot be read; an ingest embeds them when it can.")
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
    wait_lock: float,
    decoders: int | None,
    readers: int,
    threads: int | None,
    batch: int | None,
    max_calls: int | None,
    yes: bool,
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

    from pipeline.cli.progress import Stopped, watch
    from pipeline.ingest.batch_writer import IngestOptions
    from pipeline.ingest.migrate import migrate_store
    from pipeline.report.answers import SCHEMA_VERSION, counted
    from pipeline.report.status import migration_text, waiting_text

    with opened_to_write(store) as opened:
        before, chosen = opened.space, opened.catalog.choice()
        if before is None:
            ingest = command(store, "ingest", "FOLDER", "--model", model)
            raise click.UsageError(f"{store} has no photos yet, so there is nothing to migrate: `{ingest}`")
        embedder, begun = embedder_of(None, model, threads), opened.migration()
        options = IngestOptions(batch, decoders=decoders, readers=readers, wait_lock=wait_lock, max_calls=max_calls, yes=yes)
        try:
            coverage = watch(migrate_store(opened, embedder, options, leave_out=leave_out, restart=restart), store)
        except Stopped as stopped:
            answers = "answers as before" if opened.space == before else f"has the model {embedder.name} now"
            tell(f"stopped; what was committed is kept, the same command goes on from there, and the store {answers}")
            sys.exit(stopped.exit_code)
        images, waiting, still = opened.catalog.counts().images, len(opened.catalog.unembedded()), waiting_text(opened)
    dropped = begun if restart else None
    for note in coverage.notes:
        tell(f"neardup: {note}")
    if as_json:
        done = {"model": embedder.name, "migrated": before != embedder.space, "images": images, "embedded": coverage.embedded}
        show_json({"schema_version": SCHEMA_VERSION, **done, "waiting": waiting, "dropped": asdict(dropped) if dropped else None})
        sys.exit(SKIPPED if waiting else 0)
    if dropped:
        tell(f"the migration to {dropped.model} ({counted(dropped.done, 'picture')}) was dropped")
    if still:
        tell(f"{store} has the model {embedder.name}; {still}")
    elif before == embedder.space:
        tell(f"{store} has the model {embedder.name} already{'' if dropped else '; nothing to do'}")
    else:
        tell(migration_text(embedder.name, images, coverage.embedded, waiting))
        if chosen:
            again = command(store, "calibrate", "--save")
            tell(f"the threshold and strictness that were saved were for the other model and are forgotten; `{again}` finds new ones")
    if waiting:
        sys.exit(SKIPPED)


@click.command()
@wait_option
@store_option
@json_option
def compact(wait_lock: float, store: Path, as_json: bool) -> None:
    """Merge all segments and drop the vectors of photos that are gone.

    \b
    neardup compact
    neardup compact --wait-lock 600               after an ingest that is running

    An ingest does what is needed by itself; this goes further. Answers stay the same, and other commands may run meanwhile.
    """
    from dataclasses import asdict

    from pipeline.report.answers import SCHEMA_VERSION
    from pipeline.report.status import compaction_text

    with opened_to_write(store) as opened, opened.exclusive(wait_lock):
        opened.prepare()
        done = opened.compact(full=True)
    if as_json:
        show_json({"schema_version": SCHEMA_VERSION, **asdict(done)})
    else:
        show([compaction_text(done)])


@click.command()
@store_option
@json_option
def doctor(store: Path, as_json: bool) -> None:
    """Show what this installation can do.

    \b
    neardup doctor                                versions, formats, cores, GPU, where the store is

    Works without a store. Add it to a report of a bug.
    """
    from pipeline.report.doctor import doctor_text, examine

    about = examine(store)
    if as_json:
        show_json(about)
    else:
        show(doctor_text(about))
