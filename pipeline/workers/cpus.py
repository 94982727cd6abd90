"""The processor cores that this process may use."""

from __future__ import annotations

import os
import sys


def count_usable_cores() -> int:
    """Count the cores that this process may run on; a container or taskset can allow fewer."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
