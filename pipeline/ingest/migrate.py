"""A store's photos embedded again by another model, beside the vectors that answer meanwhile, whose place the new ones take at the end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping

from indexes.paths import format_command
from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder
from pipeline.errors import IncompleteMigration
from pipeline.ingest.batch_writer import BatchWriter, Coverage, IngestOptions
from pipeline.ingest.ingest import Progress, find_pairs, verify_new_pairs
from pipeline.scan import SourceFile

IMAGES_PER_BLOCK = 10_000  # images that are looked at together


def migrate_store(
    store: Store,
    embedder: Embedder,
    options: IngestOptions | None = None,
    *,
    leave_out: bool = False,
    restart: bool = False,
) -> Generator[Progress]:
    """Bring a store to the space of another embedder. Safe to stop at any yield and to run again; nothing where it is there already.

    Everybody may read the store meanwhile, and is answered with the old vectors until all new ones, and their pairs, take their place in
    one commit. With `restart`, what was embedded for another model before is dropped first. With `leave_out`, pictures that no file shows
    now wait until an ingest embeds them; otherwise, and where no other is left, raises LeftBehind. Raises StoreLocked beside an ingest, and
    SpaceMismatch where a migration to a third space was begun. Close the iterator before the store when stopping early.
    """
    options, coverage, space = options or IngestOptions(), Coverage(), embedder.space
    with (
        store.lock_for_ingest(options.lock_timeout_seconds),
        DecoderPool(options.decoders, options.readers) as decoders,
    ):
        store.prepare()
        if restart:
            store.abort_migration()
        if store.space == space:
            store.bind(space, embedder.name)  # perhaps by another name
            yield from verify_new_pairs(
                store, embedder, decoders, options, coverage
            )  # where the migration was cut off after the switch
            return
        with store.begin_migration(space, embedder.name) as new:
            yield from _embed(store, new, embedder, decoders, options, coverage)
            images, left = (
                store.catalog.files.get_counts().images,
                _find_unembedded_images(store, new),
            )
            if left and (
                len(left) == images or not leave_out
            ):  # a store without any vector is of use to nobody
                path, ingest = (
                    next(store.catalog.files.find_of_images(left.values())).path,
                    format_command(store.folder, "ingest"),
                )
                waits = "; or say --leave-out: they wait until an ingest finds them"
                raise IncompleteMigration(
                    f"{len(left):,} of {images:,} pictures could not be embedded, as that of {ascii(path)}: their"
                    f" files are away, changed, or cannot be read; the store is as it was. Connect their drive, run `{ingest}`,"
                    f" and then this command again, which goes on{waits if len(left) < images else ''}"
                )
            yield from find_pairs(new, options, coverage)
            if coverage.join:
                new.end_run(new.begin_run(), "complete", {"join": coverage.as_dict()["join"]})
        store.commit_migration()
        # Not before: which images a file shows, only this one's files say. The other's are those that they were embedded by, where other
        # photos may have been found since.
        store.compact()
        yield from verify_new_pairs(
            store, embedder, decoders, options, coverage
        )  # pairs that the other model had not proposed
    yield Progress(1, 1, coverage)


def _embed(
    store: Store,
    new_store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    """Embed each picture that `new` lacks by the first of its files that shows it."""
    lacking, tried = _find_unembedded_images(store, new_store), set[str]()
    todo = _find_untried_files(store, lacking, tried)
    if not todo:
        return
    writer = BatchWriter(new_store, embedder, options, coverage)

    def claim_unembedded(
        hash_: bytes,
    ) -> bool:  # the content of a file that was changed is none of the store's
        return hash_ in lacking and writer.claim(hash_)

    decoders.start(len(todo))  # while the model loads
    done, total = 0, len(todo)
    yield Progress(done, total, coverage, paid_calls=writer.require_consent(total))
    while todo:
        with writer:
            for result in decoders.stream(
                todo, embedder.preprocess, claim_unembedded, writer.batch_size
            ):
                if not isinstance(result, AlreadyStored):
                    writer.add(result)
                done += 1
                yield Progress(
                    done, total, coverage, result if isinstance(result, Failure) else None
                )
        todo = _find_untried_files(store, _find_unembedded_images(store, new_store), tried)
        total += len(todo)


def _find_unembedded_images(store: Store, new_store: Store) -> dict[bytes, int]:
    """Contents that some file held when it was last looked at, and that `new` does not have, with the ids of their images."""
    lacking: dict[bytes, int] = {}
    live = store.catalog.images.list_in_use()
    for start in range(0, len(live), IMAGES_PER_BLOCK):
        some = {
            image.hash: id_
            for id_, image in store.catalog.images.get(live[start : start + IMAGES_PER_BLOCK])
        }
        had = new_store.find_complete_hashes(list(some))
        lacking |= {hash_: id_ for hash_, id_ in some.items() if hash_ not in had}
    return lacking


def _find_untried_files(
    store: Store, unembedded: Mapping[bytes, int], tried_paths: set[str]
) -> list[SourceFile]:
    """The first file of each image that is there, whatever its times say, and was not `tried` yet; in the order of their folders."""
    found: dict[int, SourceFile] = {}
    for known in store.catalog.files.find_of_images(unembedded.values()):
        if known.image_id is None or known.image_id in found or known.path in tried_paths:
            continue
        if os.path.isfile(known.path):  # noqa: PTH113 - never raises, whatever a dead mount answers
            found[known.image_id] = SourceFile(known.path, known.stat)
            tried_paths.add(known.path)
    return sorted(found.values(), key=lambda source: os.fsencode(source.path))
