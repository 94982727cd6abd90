"""What can go wrong on the way from file to group, beside the store's own errors.

PipelineError (1)
├── RootNotFound (2)            a folder that was asked for is not there
├── UnknownModel (2)       a model's name that means nothing here
├── MissingExtra (1)       a model that needs packages which are not installed
├── MissingKey (1)         a service that needs a key which is not in the environment
├── UnusableModel (1)           weights that are missing, unsafe, or not what they were
├── DecoderStartFailed (1)         processes that decode photos and do not start
├── VerifierCrashed (1)        processes that verify pairs and do not start or end early
├── InvalidKeepRule (2)            a rule that no photo can be kept by
├── OutputNotWritable (2)     what was asked for cannot be written where it was asked for
├── InvalidEmbedding (1)          a model that returned something cosine cannot compare
├── ServiceUnavailable (6)         a service that did not answer, or refused
├── PaidCallLimit (7)       more paid requests than were allowed
└── IncompleteMigration (8)         photos that another model would leave without a vector

The number is the exit code of the command that met the error. Trouble with one photo is no error: it is a Failure, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PipelineError(Exception):
    """Base of all pipeline errors; its message says what, where, and what to do next."""

    exit_code = 1


class RootNotFound(PipelineError):
    """A folder that was asked for is not there."""

    exit_code = 2


class UnknownModel(PipelineError):
    """A model's name that means nothing here."""

    exit_code = 2


class MissingExtra(PipelineError):
    """A model that needs packages which are not installed."""


class MissingKey(PipelineError):
    """A service that needs a key which is not in the environment."""


class UnusableModel(PipelineError):
    """Weights that are missing, unsafe to read, or not what they were."""


class DecoderStartFailed(PipelineError):
    """A process that decodes photos did not start, so nothing can be said of any photo."""


class VerifierCrashed(PipelineError):
    """A process that verifies pairs did not start, or ended early."""


class InvalidEmbedding(PipelineError):
    """A model returned rows that cosine cannot compare."""


class OutputNotWritable(PipelineError):
    """What was asked for cannot be written where it was asked for."""

    exit_code = 2


class InvalidKeepRule(PipelineError):
    """A rule that no photo can be kept by."""

    exit_code = 2


class ServiceUnavailable(PipelineError):
    """A service did not answer, or refused; `rows` are those that came, by their number in what was asked."""

    exit_code = 6

    def __init__(self, message: str, rows: Mapping[int, NDArray[np.float32]] | None = None) -> None:
        """Keep the rows: they are paid for."""
        super().__init__(message)
        self.rows = rows or {}


class PaidCallLimit(PipelineError):
    """A command would make more paid requests than were allowed."""

    exit_code = 7


class IncompleteMigration(PipelineError):
    """Some photos could not be embedded by another model, and nobody agreed to go on without them."""

    exit_code = 8
