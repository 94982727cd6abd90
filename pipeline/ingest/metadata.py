"""Read the metadata of images that an older neardup stored without it, or with less of it."""

from __future__ import annotations

from collections.abc import Iterator

from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image
from pipeline.decode.decode import Decoded
from pipeline.ingest.progress import IngestContext, Progress, Stage

IMAGES_PER_COMMIT = 500


def read_missing_metadata(context: IngestContext) -> Iterator[Progress]:
    """Read the metadata that the catalog lacks from the files of its images; embed nothing.

    An image whose files are away keeps what it has until they are back. One whose pixels are read
    in another way now, as a damaged one, is embedded and verified again by the rest of the run.
    """
    store = context.store
    outdated = store.catalog.metadata.find_outdated()
    if not outdated:
        return
    from pipeline.thumbnails import read_images  # loads Pillow

    # As at the first ingest: digests of frames are of the pixels that the embedder gets.
    preprocess = context.embedder.preprocess
    for start in range(0, len(outdated), IMAGES_PER_COMMIT):
        yield Progress(Stage.METADATA, start, len(outdated), context.coverage)
        images = dict(store.catalog.images.get(outdated[start : start + IMAGES_PER_COMMIT]))
        read: dict[int, Image] = {
            id_: result.image
            # Any file is tried: this run does not know yet which are missing.
            for id_, result in read_images(
                store, context.decoders, images, preprocess, is_candidate=lambda file: True
            )
            if isinstance(result, Decoded)
        }
        changed = [image.hash for id_, image in read.items() if not image.is_read_as(images[id_])]
        with ThumbnailCache(store.folder, write=True) as cache:
            cache.discard(changed)
        store.update_metadata(read)
        context.coverage.metadata_read += len(read)
