"""Unit vectors in FAISS segments, with one SQLite catalog as the commit point.

The public names are those of __init__.pyi. Each is imported at its first use, so a decoding worker
loads no database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
