"""Write the page of groups for a browser, and its folder of thumbnails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from indexes.caches.thumbnails import ThumbnailCache
from indexes.durable.files import sync_folder
from indexes.store import Store
from pipeline.decode.formats import mark_jpeg
from pipeline.decode.pool import DecoderPool
from pipeline.errors import OutputNotWritable
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.name_rules import PAGE_MARKER_NAME, PAGE_THUMBNAIL_NAME_PATTERN
from pipeline.report.gallery_page import (
    GENERATOR_TAG,
    PageImages,
    get_thumbnail_name,
    render_page,
)
from pipeline.report.groups import sum_reclaimable_bytes
from pipeline.report.output import make_output_error, require_writable_folder
from pipeline.thumbnails import Thumbnails

IMAGES_PER_BATCH = 200  # images whose thumbnails are loaded together
MAX_HEAD_BYTES = 1000  # from the start of a page, among which its generator tag is found
MAX_STEM_CHARACTERS = 100  # of the page's name in that of its temporary folder


def write_gallery(
    groups: Sequence[Group], store: Store, page: Path, warnings: Sequence[str] = ()
) -> None:
    """Write a page of groups, with `warnings` above them, and its folder of thumbnails beside it.

    Both are built in a temporary folder and replace an older page of the same name; nothing else
    is written. Raises OutputNotWritable, also for the reasons of require_writable_page().
    """
    ordered = sorted(groups, key=lambda group: (-sum_reclaimable_bytes(group), group.keeper.path))
    files = [file for group in ordered for file in group.files]
    write_page(files, store, page, lambda images: render_page(ordered, images, warnings))


def write_page(
    files: Sequence[LibraryFile],
    store: Store,
    page: Path,
    render: Callable[[PageImages], Iterator[str]],
) -> None:
    """Write a page of files that `render` renders, and its folder of thumbnails, as above."""
    folder = _get_thumbnail_folder(page)
    try:
        require_writable_page(page)
        prefix = f".{page.stem[:MAX_STEM_CHARACTERS]}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=page.parent) as temporary:
            new = Path(temporary)
            (new / "pictures").mkdir()
            (new / "pictures" / PAGE_MARKER_NAME).touch()
            written_hashes = _write_thumbnails(files, store, new / "pictures")
            images = PageImages(folder.name, written_hashes)
            text = "".join(render(images))
            (new / "page").write_text(text, encoding="utf-8", errors="backslashreplace")
            _require_own_folder(folder, page)  # it may have been filled in the meantime
            if folder.exists():
                folder.rename(new / "before")
            (new / "pictures").rename(folder)
            (new / "page").replace(page)
        sync_folder(page.parent)
    except OSError as error:
        raise make_output_error(page, error, "choose a file in a folder that exists") from error


def require_writable_page(page: Path) -> None:
    """Raise OutputNotWritable if a page cannot be written, or would replace anything but a page.

    The same holds for its folder of thumbnails.
    """
    require_writable_folder(page, "choose a file in a folder that exists and is writable")
    try:
        if os.path.lexists(page) and not _is_page(page):
            raise OutputNotWritable(
                f"{page} already exists and is not a page of neardup; choose another file"
            )
        _require_own_folder(_get_thumbnail_folder(page), page)
    except OSError as error:
        raise make_output_error(page, error, "choose another file") from error


def _get_thumbnail_folder(page: Path) -> Path:
    return page.with_name(f"{page.stem}-pictures")


def _is_page(page: Path) -> bool:
    """Return whether a file is a page that neardup wrote."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as opened:
        return GENERATOR_TAG.encode() in opened.read(MAX_HEAD_BYTES)


def _require_own_folder(folder: Path, page: Path) -> None:
    """Raise OutputNotWritable if a folder exists and is not the thumbnail folder of a page."""
    if os.path.lexists(folder) and not _is_thumbnail_folder(folder):
        raise OutputNotWritable(
            f"{folder} holds files that neardup did not write;"
            f" choose another file name than {page.name}"
        )


def _is_thumbnail_folder(folder: Path) -> bool:
    """Return whether a folder has the marker of a page and holds only thumbnails beside it."""
    if folder.is_symlink() or not folder.is_dir() or not (folder / PAGE_MARKER_NAME).is_file():
        return False
    with os.scandir(folder) as entries:
        return all(
            (entry.name == PAGE_MARKER_NAME or PAGE_THUMBNAIL_NAME_PATTERN.fullmatch(entry.name))
            and entry.is_file(follow_symlinks=False)
            for entry in entries
        )


def _write_thumbnails(files: Sequence[LibraryFile], store: Store, folder: Path) -> set[bytes]:
    """Write a thumbnail of each image, named by its hash; return the hashes of those written.

    Images that cannot be read now and have no stored thumbnail are left out.
    """
    wanted = dict.fromkeys(file.image.hash for file in files)
    id_by_hash = store.catalog.images.get_ids(list(wanted))
    ids = [id_by_hash[hash_] for hash_ in wanted if hash_ in id_by_hash]
    written = set[bytes]()
    with DecoderPool() as decoders, ThumbnailCache(store.folder, write=False) as cache:
        thumbnails = Thumbnails(store, cache, decoders)
        for start in range(0, len(ids), IMAGES_PER_BATCH):
            loaded, _ = thumbnails.load(set(ids[start : start + IMAGES_PER_BATCH]))
            for image, thumbnail in loaded.values():
                (folder / get_thumbnail_name(image.hash)).write_bytes(mark_jpeg(thumbnail.jpeg))
                written.add(image.hash)
    return written
