"""The tests.

Each worker of pytest-xdist gets a core of its own, and so do the processes that its tests start.
What sizes itself by the cores that it may use, such as BLAS, a model and a pool of decoders, would
otherwise start as many threads and processes as there are cores in every worker, and most of their
time would pass in starting and waiting for each other. This comes before NumPy is imported, which
starts the threads of BLAS.
"""

from __future__ import annotations

import os
import sys


def keep_to_one_core() -> None:
    """Move this process, if it is a worker of pytest-xdist, to one of the cores that it may use."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        number = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


keep_to_one_core()
