"""Embed a store with another model, in a second store that replaces the vectors at the end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from indexes.caches.thumbnails import ThumbnailCache
from indexes.coverage import Coverage
from indexes.paths import format_command, quote
from indexes.records import RunOutcome
from indexes.store import Batch, Store
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.errors import IncompleteMigration
from pipeline.ingest.batch_writer import BatchWriter
from pipeline.ingest.coverage import IngestOptions
from pipeline.ingest.pairs import find_pairs, verify_new_pairs
from pipeline.ingest.progress import IngestContext, Progress, Stage
from pipeline.scan import SourceFile

# Images looked up in both catalogs at a time.
LOOKUP_BLOCK_IMAGES = 10_000
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of all of an image


def migrate_store(
    store: Store,
    embedder: Embedder,
    options: IngestOptions | None = None,
    *,
    leave_out: bool = False,
    restart: bool = False,
) -> Generator[Progress]:
    """Bring a store to the space of another embedder; embeds nothing if it has that space.

    Readers get answers from the old vectors until all new vectors, with their pairs, replace them
    in one commit. `restart` first drops a migration that did not finish. With `leave_out`, images
    whose files cannot be read wait until an ingest embeds them; without it, and always if no image
    can be embedded, they raise IncompleteMigration.

    Safe to stop at any yield and to run again. To stop early, close the iterator before the store.
    Raises StoreLocked beside an ingest, and SpaceMismatch if a migration to a third space is
    pending.
    """
    options, coverage, space = options or IngestOptions(), Coverage(), embedder.space
    with (
        store.lock_for_ingest(options.lock_timeout_seconds),
        DecoderPool(options.decoders, options.readers) as decoders,
    ):
        context = IngestContext(store, embedder, decoders, options, coverage)
        store.prepare()
        if restart:
            store.abort_migration()
        if store.space == space:
            store.bind(space, embedder.name)  # the model may have another name now
            # A migration may have stopped between its commit and its verification.
            yield from verify_new_pairs(context)
            return
        with store.begin_migration(space, embedder.name) as new_store:
            yield from _embed(context, new_store)
            _require_complete(store, new_store, leave_out=leave_out)
            _embed_decided(store, new_store, embedder)
            yield from find_pairs(replace(context, store=new_store))
            if coverage.join:
                joined = Coverage(join=coverage.join)
                new_store.end_run(new_store.begin_run(), RunOutcome.COMPLETE, joined)
        store.commit_migration()
        # Not earlier: only this store's catalog knows which image a file holds. The new store has
        # the files that its images were embedded from, which may hold other images since.
        store.compact()
        yield from verify_new_pairs(context)  # pairs that the old model had not proposed
    yield Progress(Stage.READING, 1, 1, coverage)


def _require_complete(store: Store, new_store: Store, *, leave_out: bool) -> None:
    """Raise IncompleteMigration if images are missing in the new store that may not be.

    `leave_out` allows that, unless no image at all was embedded: such a store is useless.
    """
    unembedded = _find_unembedded_images(store, new_store)
    image_count = store.catalog.files.get_counts().images
    is_empty = len(unembedded) == image_count
    if not unembedded or (leave_out and not is_empty):
        return
    example = next(store.catalog.files.find_of_images(unembedded.values())).path
    ingest = format_command(store.folder, "ingest")
    alternative = "" if is_empty else ", or add --leave-out to go on until an ingest finds them"
    raise IncompleteMigration(
        f"{len(unembedded):,} of {image_count:,} images could not be embedded, for example"
        f" {quote(example)}: their files are away, changed or unreadable. The store is unchanged."
        f" Connect the drive, run `{ingest}`, then run this command again to continue{alternative}"
    )


def _embed(context: IngestContext, new_store: Store) -> Iterator[Progress]:
    """Embed each image that `new_store` lacks from the first file that still holds it."""
    store, embedder, coverage = context.store, context.embedder, context.coverage
    unembedded = _find_unembedded_images(store, new_store)
    tried_paths = set[str]()
    files = _find_untried_files(store, unembedded, tried_paths)
    if not files:
        return
    writer = BatchWriter(new_store, embedder, context.options, coverage)

    def claim_unembedded(hash_: bytes) -> bool:
        # A file that was changed holds content that the store does not have.
        return hash_ in unembedded and writer.claim(hash_)

    context.decoders.start(len(files))  # while the model loads
    done, total = 0, len(files)
    paid_calls = writer.require_consent(total)
    yield Progress(Stage.READING, done, total, coverage, paid_calls=paid_calls)
    while files:
        results = context.decoders.stream(
            files, embedder.preprocess, claim_unembedded, writer.batch_size
        )
        with writer, closing(results):
            for result in results:
                if not isinstance(result, AlreadyStored):
                    writer.add(result)
                done += 1
                failure = result if isinstance(result, Failure) else None
                yield Progress(Stage.READING, done, total, coverage, failure)
        # The next file of each image whose file was changed or unreadable.
        files = _find_untried_files(store, _find_unembedded_images(store, new_store), tried_paths)
        total += len(files)


def _embed_decided(store: Store, new_store: Store, embedder: Embedder) -> None:
    """Embed the decided images that no file holds any more, by their thumbnails.

    A rejected photo that comes back re-encoded is found by its vector. Paid models are not asked.
    """
    if embedder.count_paid_calls(1):
        return
    images = dict(store.catalog.images.get(store.catalog.decisions.find_without_file()))
    complete = new_store.find_complete_hashes([image.hash for image in images.values()])
    wanted = {image.hash: image for image in images.values() if image.hash not in complete}
    if not wanted:
        return
    from pipeline.embed.crops import crop_image
    from pipeline.thumbnails import decode_thumbnail

    with ThumbnailCache(store.folder, write=False) as cache:
        thumbnails = cache.get(wanted)
    inputs = {
        hash_: crop_image(decode_thumbnail(thumbnail.jpeg), [WHOLE], embedder.preprocess)[0][0]
        for hash_, thumbnail in thumbnails.items()
    }
    vectors = embed_all(embedder, inputs.values())
    embedded = [wanted[hash_] for hash_ in inputs]
    new_store.add(Batch(list(zip(embedded, vectors, strict=True)), []))


def _find_unembedded_images(store: Store, new_store: Store) -> dict[bytes, int]:
    """Return the images of files in `store` that `new_store` lacks: hash to id."""
    unembedded: dict[bytes, int] = {}
    image_ids = store.catalog.images.list_in_use()
    for start in range(0, len(image_ids), LOOKUP_BLOCK_IMAGES):
        block = image_ids[start : start + LOOKUP_BLOCK_IMAGES]
        ids = {image.hash: id_ for id_, image in store.catalog.images.get(block)}
        complete = new_store.find_complete_hashes(list(ids))
        unembedded |= {hash_: id_ for hash_, id_ in ids.items() if hash_ not in complete}
    return unembedded


def _find_untried_files(
    store: Store, unembedded: Mapping[bytes, int], tried_paths: set[str]
) -> list[SourceFile]:
    """Return the first existing, untried file of each image, in path order.

    Its times may have changed; only its content counts. Adds the paths to `tried_paths`.
    """
    files: dict[int, SourceFile] = {}
    for known in store.catalog.files.find_of_images(unembedded.values()):
        if known.image_id is None or known.image_id in files or known.path in tried_paths:
            continue
        if os.path.isfile(known.path):  # noqa: PTH113 - never raises, not even for a dead mount
            files[known.image_id] = SourceFile(known.path, known.stat)
            tried_paths.add(known.path)
    return sorted(files.values(), key=lambda source: os.fsencode(source.path))
