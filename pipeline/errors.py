"""Errors between a file and its group, beside the store's own.

PipelineError (1)
├── RootNotFound (2)
├── OverlappingFolders (2)
├── UnknownModel (2)
├── MissingExtra (1)
├── MissingKey (1)
├── UnusableModel (1)
├── DecoderStartFailed (1)
├── VerifierCrashed (1)
├── InvalidEmbedding (1)
├── OutputNotWritable (2)
├── InvalidKeepRule (2)
├── ServiceUnavailable (6)
├── PaidCallLimit (7)
├── IncompleteMigration (8)
├── PlanRefused (14)
├── RunNotFound (2)
├── ActionRecordDamaged (4)
├── UnknownPhoto (2)
├── DecisionRefused (2)
├── UnknownDecision (2)
├── InvalidDecisionLine (2)
├── UnknownGroup (2)
├── InvalidFilter (2)
├── ChoiceRefused (2)
├── ReviewFailed (1)
└── AddressUnavailable (2)

The number is the exit code of a command that meets the error. A problem with one file is no error:
it is a Failure, and the command goes on.
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
    """A folder that was named does not exist."""

    exit_code = 2


class OverlappingFolders(PipelineError):
    """Two folders that were to be compared have files in common."""

    exit_code = 2


class UnknownModel(PipelineError):
    """The name of a model has no known form."""

    exit_code = 2


class MissingExtra(PipelineError):
    """A model needs packages that are not installed."""


class MissingKey(PipelineError):
    """A service needs a key that is not in the environment."""


class UnusableModel(PipelineError):
    """The weights of a model are missing, unsafe to read, or not those of the store."""


class DecoderStartFailed(PipelineError):
    """A worker process that decodes files did not start; no file is counted as failed for it."""


class VerifierCrashed(PipelineError):
    """A worker process that verifies pairs did not start, or crashed at its start."""


class InvalidEmbedding(PipelineError):
    """A model returned rows that cosine cannot compare."""


class OutputNotWritable(PipelineError):
    """The result cannot be written where the command was to write it."""

    exit_code = 2


class InvalidKeepRule(PipelineError):
    """A keep rule does not exist or has a wrong argument."""

    exit_code = 2


class ServiceUnavailable(PipelineError):
    """A service did not answer, or refused.

    `rows` are the embeddings that it returned before, by their position in the request.
    """

    exit_code = 6

    def __init__(self, message: str, rows: Mapping[int, NDArray[np.float32]] | None = None) -> None:
        """Keep the rows, because they are paid for."""
        super().__init__(message)
        self.rows = rows or {}


class PaidCallLimit(PipelineError):
    """A command would make more paid requests than allowed."""

    exit_code = 7


class IncompleteMigration(PipelineError):
    """Another model could not embed some images, and the user did not accept their loss."""

    exit_code = 8


class PlanRefused(PipelineError):
    """A plan cannot be made as asked, or is not one that can be applied here."""

    exit_code = 14


class RunNotFound(PipelineError):
    """No plan was applied under the name of a run that was given."""

    exit_code = 2


class ActionRecordDamaged(PipelineError):
    """A journal of file actions, or the list of protected folders, is not what was written."""

    exit_code = 4


class UnknownPhoto(PipelineError):
    """A photo to decide on cannot be read, or is not in the store."""

    exit_code = 2


class DecisionRefused(PipelineError):
    """A decision contradicts another one, or the pixels of its photos."""

    exit_code = 2


class UnknownDecision(PipelineError):
    """There is no decision with this id, or there are several."""

    exit_code = 2


class InvalidDecisionLine(PipelineError):
    """A line of an import is not one of an export."""

    exit_code = 2


class UnknownGroup(PipelineError):
    """An id is not that of a listed group."""

    exit_code = 2


class InvalidFilter(PipelineError):
    """A filter, cursor or limit of a page of groups has a form that none has."""

    exit_code = 2


class ChoiceRefused(PipelineError):
    """A choice does not fit its group, or is not for the groups that were shown."""

    exit_code = 2


class ReviewFailed(PipelineError):
    """The listing of groups could not be built."""


class AddressUnavailable(PipelineError):
    """A server cannot listen where it was to listen: a port is in use, or a socket."""

    exit_code = 2
