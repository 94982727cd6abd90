"""What verification is given: thumbs with their features, of stored images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from indexes import Image, Thumb
from pipeline.thumbnails import Pictures

if TYPE_CHECKING:
    from pipeline.verify.features import Sketch

POISONED = "poisoned its verifier"  # what ended the process that verified it; a file that ends its decoder is "poisoned"


class Drawing(NamedTuple):
    """A picture to be verified: the hash of its image, its thumb, its features, and the width and height that it has in full."""

    hash: bytes
    picture: bytes
    features: bytes
    size: tuple[int, int]


def drawing(image: Image, thumb: Thumb) -> Drawing:
    """An image as it is verified, by its thumb."""
    return Drawing(image.hash, thumb.picture, thumb.features, (image.width, image.height))


def sketched(
    pictures: Pictures, images: Iterable[int], look: Callable[[Sequence[bytes]], Sequence[bytes | None]]
) -> tuple[dict[int, tuple[Image, Thumb]], dict[int, str]]:
    """Pictures of images, by id, all with features: where these are not kept, `look` gives those of thumbs, None of one that it
    cannot look at.
    The second dict says why the others have none.
    """
    from pipeline.verify.features import are_features  # loads OpenCV

    found, failed = pictures.of(images)
    bare = {id_: one for id_, (_, one) in found.items() if not are_features(one.features)}
    looked = zip(bare.items(), look([one.picture for one in bare.values()]), strict=True)
    made = {id_: Thumb(one.picture, its) for (id_, one), its in looked if its is not None}
    poisoned = dict.fromkeys(bare.keys() - made.keys(), POISONED)
    pictures.keep({found[id_][0].hash: one for id_, one in made.items()})
    return {id_: (image, made.get(id_, one)) for id_, (image, one) in found.items() if id_ not in poisoned}, failed | poisoned


def sketch_of(image: Image, thumb: Thumb) -> Sketch:
    """What is to be known of an image to verify it, by its thumb with features."""
    from pipeline.verify.features import drawn

    return drawn(thumb.picture, thumb.features, (image.width, image.height))
