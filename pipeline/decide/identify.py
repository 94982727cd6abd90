"""Identify the photos that a person decides on: by their path in the library, or by their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import PurePath

from indexes.decisions import MAX_NAME_CHARS, DecidedContent
from indexes.paths import format_command, quote
from indexes.records import CatalogFile, Image
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import format_reason
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.errors import UnknownPhoto
from pipeline.query.files import resolve_source
from pipeline.scan import SourceFile


def identify_contents(
    files: Sequence[str], store: Store, *, allow_unknown: bool
) -> list[DecidedContent]:
    """Identify the content of each file, in order.

    A file of the library is known by its path, as long as it is as it was ingested or away; any
    other is read, and decoded if the store does not have its bytes. A photo whose pixels the store
    does not have either is refused unless `allow_unknown`. Raises UnknownPhoto.
    """
    found = dict[int, Image]()
    to_read = dict[int, SourceFile]()
    for position, file in enumerate(files):
        source = resolve_source(file)
        path = source.source.path if isinstance(source, Failure) else source.path
        if known := _get_known(store, path, source):
            found[position] = known
        elif isinstance(source, Failure):
            raise _make_error(file, source)
        else:
            to_read[position] = source
    if to_read:
        found |= _read(files, to_read, store, allow_unknown=allow_unknown)
    return [
        DecidedContent(image.hash, image.pixel_hash, PurePath(file).name[:MAX_NAME_CHARS])
        for file, image in ((files[position], found[position]) for position in range(len(files)))
    ]


def _get_known(store: Store, path: str, source: SourceFile | Failure) -> Image | None:
    """Return the image that the catalog has for a path, if the file there did not change."""
    known = store.catalog.files.get_by_path(path)
    if known is None or known.image_id is None or not _is_as_ingested(known, source):
        return None
    ((_, image),) = store.catalog.images.get([known.image_id])
    return image


def _is_as_ingested(known: CatalogFile, source: SourceFile | Failure) -> bool:
    """Tell if nothing shows that a file changed; one that is away may be on a drive."""
    return isinstance(source, Failure) or source.is_unchanged_since(known.stat)


def _read(
    files: Sequence[str], sources: dict[int, SourceFile], store: Store, *, allow_unknown: bool
) -> dict[int, Image]:
    def is_new(image_hash: bytes) -> bool:
        return not store.catalog.images.get_ids([image_hash])

    images = dict[int, Image]()
    with (
        DecoderPool(1) as decoders,
        closing(decoders.stream(list(sources.values()), VERIFY_INPUT, is_new)) as results,
    ):
        for position, result in zip(sources, results, strict=True):
            if isinstance(result, Failure):
                raise _make_error(files[position], result)
            if isinstance(result, AlreadyStored):
                ids = store.catalog.images.get_ids([result.hash])
                ((_, images[position]),) = store.catalog.images.get(ids.values())
            else:
                images[position] = _check_known(files[position], result, store, allow_unknown)
    return images


def _check_known(file: str, decoded: Decoded, store: Store, allow_unknown: bool) -> Image:
    """Return the image of a file with new bytes; raises UnknownPhoto if its pixels are new, too."""
    image = decoded.image
    if not allow_unknown and not store.catalog.images.find_by_pixel_hash(image.pixel_hash):
        ingest = format_command(store.folder, "ingest", "FOLDER")
        raise UnknownPhoto(
            f"{quote(file)} is not in the store, so it is in no group; add its folder first:"
            f" `{ingest}`"
        )
    return image


def _make_error(file: str, failure: Failure) -> UnknownPhoto:
    detail = f" ({failure.detail})" if failure.detail else ""
    return UnknownPhoto(
        f"{quote(file)} is no photo to decide on: {format_reason(failure.reason)}{detail}"
    )
