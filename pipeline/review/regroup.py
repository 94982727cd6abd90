"""Form the groups of a few images of the listing again, after a decision on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from indexes.caches.groups import GroupCache
from indexes.store import Store
from pipeline.grouping.cluster import Group
from pipeline.query.components import Component, find_decided_partners, group_components
from pipeline.review.build import GROUP_OPTIONS, read_state
from pipeline.review.rows import make_group_row, parse_components


def load_components(
    cache: GroupCache, build: int, store: Store, pixel_hashes: Iterable[bytes]
) -> list[Component]:
    """Load the components of images, and of those that decisions connect with these."""
    known = dict[bytes, Component]()
    waiting = set(pixel_hashes)
    while waiting:
        found = list(parse_components(cache.find_components(build, waiting)))
        for component in found:
            known |= dict.fromkeys(component.images, component)
        # An image without an edge is alone; it may have several files.
        known |= {image: Component((image,)) for image in waiting - known.keys()}
        new = {image for component in found for image in component.images} | waiting
        waiting = find_decided_partners(store, new) - known.keys()
    return list({component.images: component for component in known.values()}.values())


def regroup(
    cache: GroupCache,
    build: int,
    store: Store,
    pixel_hashes: Collection[bytes],
    change: Callable[[], None] | None = None,
) -> tuple[list[Group], set[bytes]]:
    """Form the groups of images again, after `change`, and replace those of the cache.

    `change` is one commit to the store, or none. If it is the only one since the build was made,
    the build is of the state after it. Returns the groups that hold any of the images, and all
    images whose groups were formed.
    """
    before = read_state(store)
    components = load_components(cache, build, store, pixel_hashes)
    if change:
        # Components from before too: what is taken back may have connected more.
        images = {image for component in components for image in component.images}
        change()
        components = load_components(cache, build, store, images)
    after = read_state(store)
    images = {image for component in components for image in component.images}
    groups = group_components(store, components, GROUP_OPTIONS)
    is_next = change is not None and after.follows(before)
    cache.replace_groups(
        build,
        images,
        list(map(make_group_row, groups)),
        (str(before), str(after)) if is_next else None,
    )
    found = [
        group
        for group in groups
        if any(file.image.pixel_hash in pixel_hashes for file in group.files)
    ]
    return found, images
