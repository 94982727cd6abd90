"""Secrets of the server: who may ask, and ids of pictures that say nothing of them."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path

from blake3 import blake3

from indexes.paths import REVIEW_TOKEN_NAME

SECRET_BYTES = 32
TOKEN_CHARS = 43  # of SECRET_BYTES in base64url without padding
HASH_BYTES = 32  # of a blake3
SEAL_BYTES = 16  # of a picture id, by which a forged one is noticed
PRIVATE_MODE = 0o600


def _make_token() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


@dataclass(frozen=True)
class Credentials:
    """The secrets of one run of the server, and the token of programs, which outlives it.

    `link_token` is in the link that is printed. A browser that shows it gets `session` as a cookie,
    and `csrf` in its pages, which it has to send with all that changes something.
    """

    api_token: str
    link_token: str = field(default_factory=_make_token)
    session: str = field(default_factory=_make_token)
    csrf: str = field(default_factory=_make_token)

    @property
    def cookie_name(self) -> str:
        """The name of the cookie; another server on another port of this machine has another."""
        return f"neardup-{blake3(self.session.encode()).hexdigest()[:8]}"

    def is_link_token(self, text: str) -> bool:
        """Tell if a text is the token of the link."""
        return _are_equal(text, self.link_token)

    def is_session(self, text: str) -> bool:
        """Tell if a text is the value of the cookie."""
        return _are_equal(text, self.session)

    def is_csrf(self, text: str) -> bool:
        """Tell if a text is what pages send with all that changes something."""
        return _are_equal(text, self.csrf)

    def is_api_token(self, text: str) -> bool:
        """Tell if a text is the token of programs."""
        return _are_equal(text, self.api_token)


def _are_equal(text: str, secret: str) -> bool:
    """Compare in a time that does not depend on where the texts differ."""
    return compare_digest(text.encode("utf-8", "surrogatepass"), secret.encode())


def load_api_token(folder: Path) -> tuple[str, Path | None]:
    """Load the token of programs from the file in a store's folder, which is made if need be.

    A file that others may read, or that holds no token, is replaced. Returns the token with the
    path of its file; without, where the folder is not writable: then the token is of no use.
    """
    path = folder / REVIEW_TOKEN_NAME
    with suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="ascii") as file:
            token = file.read(TOKEN_CHARS + 1).strip()
            is_private = not os.fstat(descriptor).st_mode & 0o077
        if is_private and len(token) == TOKEN_CHARS:
            return token, path
    token = _make_token()
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, PRIVATE_MODE), "w", encoding="ascii") as file:
            file.write(token + "\n")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return token, None
    return token, path


class PictureIds:
    """Ids of pictures: the hashes of their images, encrypted by a key of the store.

    An id says nothing of its image, and only one that was handed out names any. An image has one
    id, as long as the key stays, so a browser can keep its picture. The form is that of synthetic
    initialization vectors (RFC 5297), with keyed blake3: a seal over the hash, and the hash masked
    by what follows from the seal.
    """

    def __init__(self, secret: str) -> None:
        """Derive the keys from a secret of the store."""
        self._seal_key, self._mask_key = (
            blake3(secret.encode(), derive_key_context=f"neardup review picture ids {use}").digest()
            for use in ("seal", "mask")
        )

    def encode(self, image_hash: bytes) -> str:
        """Return the id of an image, given the blake3 of its bytes: 64 characters of a URL."""
        seal = self._seal(image_hash)
        return base64.urlsafe_b64encode(seal + self._mask(image_hash, seal)).decode()

    def decode(self, picture_id: str) -> bytes | None:
        """Return the hash of an image; None for an id that encode() did not make."""
        try:
            data = base64.b64decode(picture_id.encode("ascii"), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(data) != SEAL_BYTES + HASH_BYTES:
            return None
        seal = data[:SEAL_BYTES]
        image_hash = self._mask(data[SEAL_BYTES:], seal)
        return image_hash if compare_digest(seal, self._seal(image_hash)) else None

    def _seal(self, image_hash: bytes) -> bytes:
        return blake3(image_hash, key=self._seal_key).digest(SEAL_BYTES)

    def _mask(self, data: bytes, seal: bytes) -> bytes:
        mask = blake3(seal, key=self._mask_key).digest(len(data))
        return bytes(left ^ right for left, right in zip(data, mask, strict=True))
