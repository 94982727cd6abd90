"""The command line as tests run it."""

from __future__ import annotations

from collections.abc import Callable

# (*words, stdin=None) -> (exit code, stdout, stderr); see the fixture `run`
Run = Callable[..., tuple[int, str, str]]
