"""What verification is given: thumbs with their features, of stored images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from indexes.caches.thumbnails import Thumbnail
from indexes.records import Image
from pipeline.thumbnails import Thumbnails

if TYPE_CHECKING:
    from pipeline.verify.features import ImageFeatures

POISONED_VERIFIER = "poisoned its verifier"  # what ended the process that verified it; a file that ends its decoder is "poisoned"


class VerifyInput(NamedTuple):
    """A picture to be verified: the hash of its image, its thumb, its features, and the width and height that it has in full."""

    hash: bytes
    jpeg: bytes
    features: bytes
    size: tuple[int, int]


def build_verify_input(image: Image, thumbnail: Thumbnail) -> VerifyInput:
    """An image as it is verified, by its thumb."""
    return VerifyInput(image.hash, thumbnail.jpeg, thumbnail.features, (image.width, image.height))


def load_features(
    thumbnails: Thumbnails,
    image_ids: Iterable[int],
    extract: Callable[[Sequence[bytes]], Sequence[bytes | None]],
) -> tuple[dict[int, tuple[Image, Thumbnail]], dict[int, str]]:
    """Pictures of images, by id, all with features: where these are not kept, `look` gives those of thumbs, None of one that it
    cannot look at.
    The second dict says why the others have none.
    """
    from pipeline.verify.features import has_current_format  # loads OpenCV

    found, failed = thumbnails.load(image_ids)
    bare = {id_: one for id_, (_, one) in found.items() if not has_current_format(one.features)}
    looked = zip(bare.items(), extract([one.jpeg for one in bare.values()]), strict=True)
    made = {id_: Thumbnail(one.jpeg, its) for (id_, one), its in looked if its is not None}
    poisoned = dict.fromkeys(bare.keys() - made.keys(), POISONED_VERIFIER)
    thumbnails.save({found[id_][0].hash: one for id_, one in made.items()})
    return {
        id_: (image, made.get(id_, one))
        for id_, (image, one) in found.items()
        if id_ not in poisoned
    }, failed | poisoned


def features_from_stored_image(image: Image, thumbnail: Thumbnail) -> ImageFeatures:
    """What is to be known of an image to verify it, by its thumb with features."""
    from pipeline.verify.features import features_from_thumbnail

    return features_from_thumbnail(thumbnail.jpeg, thumbnail.features, (image.width, image.height))
