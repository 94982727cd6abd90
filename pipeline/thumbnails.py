"""The small pictures of a store's images: from its thumbs or, where one is not there yet, from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from indexes import Image, Store, Thumb, Thumbs
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.decode.preprocess import SIGHT, View
from pipeline.decode.read import Failure
from pipeline.scan import SourceFile
from pipeline.verify.features import Sketch, are_features, drawn, thumb

POISONED = "poisoned its verifier"  # what ended the process that verified it; a file that ends its decoder is "poisoned"


class Pictures:
    """Pictures of a store's images, by id. What is made here is kept among the thumbs, where those can be written."""

    def __init__(self, store: Store, thumbs: Thumbs, decoders: Decoders) -> None:
        """Nothing is read yet."""
        self._store, self._thumbs, self._decoders = store, thumbs, decoders

    def of(self, images: Iterable[int]) -> tuple[dict[int, tuple[Image, Thumb]], dict[int, str]]:
        """Those of some images, with features where these are kept; and for images that have none and whose files cannot be read, why."""
        about = dict(self._store.catalog.images(images))
        kept = self._thumbs.get(image.hash for image in about.values())
        missing = {id_: image for id_, image in about.items() if image.hash not in kept}
        made, failed = dict[bytes, Thumb](), dict[int, str]()
        for id_, result in read_images(self._store, self._decoders, missing, SIGHT):
            if isinstance(result, Decoded):
                made[about[id_].hash] = Thumb(thumb(result.view), b"")
            else:
                failed[id_] = result
        self._thumbs.put(made)
        kept |= made
        return {id_: (image, kept[image.hash]) for id_, image in about.items() if image.hash in kept}, failed

    def sketched(
        self, images: Iterable[int], look: Callable[[Sequence[bytes]], Sequence[bytes | None]]
    ) -> tuple[dict[int, tuple[Image, Thumb]], dict[int, str]]:
        """The same, all with features: where these are not kept, `look` gives those of pictures, None of one that it cannot look at."""
        found, failed = self.of(images)
        bare = {id_: one for id_, (_, one) in found.items() if not are_features(one.features)}
        looked = zip(bare.items(), look([one.picture for one in bare.values()]), strict=True)
        made = {id_: Thumb(one.picture, its) for (id_, one), its in looked if its is not None}
        poisoned = dict.fromkeys(bare.keys() - made.keys(), POISONED)
        self._thumbs.put({found[id_][0].hash: one for id_, one in made.items()})
        return {id_: (image, made.get(id_, one)) for id_, (image, one) in found.items() if id_ not in poisoned}, failed | poisoned


def sketch_of(image: Image, thumb: Thumb) -> Sketch:
    """What is to be known of an image to verify it, by its thumb with features."""
    return drawn(thumb.picture, thumb.features, (image.width, image.height))


def read_images(store: Store, decoders: Decoders, about: Mapping[int, Image], view: View) -> Iterator[tuple[int, Decoded | str]]:
    """The pictures of images, by id, from the first file of each that still has it; or why none has, "away" or a failure's reason. To be
    read to its end: closed before, it ends the decoders.
    """
    there: dict[int, list[SourceFile]] = {}
    for known in store.catalog.files_of(about):
        if known.image is not None and not known.missing:
            there.setdefault(known.image, []).append(SourceFile(known.path, known.stat))
    yield from ((id_, "away") for id_ in about if id_ not in there)
    while there:
        first, there = {id_: sources[0] for id_, sources in there.items()}, {id_: sources[1:] for id_, sources in there.items()}
        for id_, result in zip(first, decoders.stream(first.values(), view), strict=True):
            if isinstance(result, Decoded) and result.image.hash == about[id_].hash:
                there[id_] = []
                yield id_, result
            elif not there[id_]:
                yield id_, result.reason if isinstance(result, Failure) else "changed"
        there = {id_: sources for id_, sources in there.items() if sources}
