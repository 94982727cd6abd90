"""Load FAISS at its first use, with limits on what it reads."""

from __future__ import annotations

from functools import cache
from typing import Any

from indexes.errors import StoreError

MIN_VERSION = (1, 15)  # older versions can crash on damaged files
MAX_DESERIALIZED_VECTOR_BYTES = 1 << 36
MAX_DESERIALIZED_LOOPS = 1 << 20


@cache
def load_faiss() -> Any:  # noqa: ANN401 - faiss has no types
    """Import faiss and limit what it deserializes. Raises StoreError if it is older than 1.15."""
    import faiss

    version = tuple(int(part) for part in faiss.__version__.split(".")[:2])
    if version < MIN_VERSION:
        raise StoreError(
            f"faiss {faiss.__version__} can crash on damaged files;"
            " run `pip install 'faiss-cpu>=1.15'`"
        )
    # Files are parsed only after their hash was verified. The limits are a second line of defence:
    # a file that gets past the hash can neither claim all memory nor loop forever.
    faiss.set_deserialization_vector_byte_limit(MAX_DESERIALIZED_VECTOR_BYTES)
    faiss.set_deserialization_loop_limit(MAX_DESERIALIZED_LOOPS)
    return faiss
