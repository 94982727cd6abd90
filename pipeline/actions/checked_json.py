"""JSON documents that carry the hash of their own content, so that an edit or damage shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

CHECKSUM_KEY = "checksum"


def compute_checksum(document: Mapping[str, Any]) -> str:
    """Compute the blake3, in hex, of the canonical form of a document without its checksum.

    The canonical form is JSON in ASCII with sorted keys and without spaces.
    """
    body = {key: value for key, value in document.items() if key != CHECKSUM_KEY}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return blake3(canonical.encode("ascii")).hexdigest()


def add_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its checksum as the last field."""
    return {**document, CHECKSUM_KEY: compute_checksum(document)}


def parse_checked(text: str | bytes) -> dict[str, Any]:
    """Parse a document and compare its checksum; raises ValueError if it was changed."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get(CHECKSUM_KEY) != compute_checksum(document):
        raise ValueError("the checksum does not match the content")
    return document
