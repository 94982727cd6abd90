"""Stages from file to group: scan, decode, embed, join, verify, group.

The public names are those of __init__.pyi. Each is imported at its first use,
so `neardup --help` loads no numpy and no model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
