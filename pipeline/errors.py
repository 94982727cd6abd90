"""What can go wrong on the way from file to group, beside the store's own errors.

PipelineError (1)
├── BadRoot (2)            a folder that was asked for is not there
├── UnknownModel (2)       a model's name that means nothing here
├── MissingExtra (1)       a model that needs packages which are not installed
├── BadModel (1)           weights that are missing, unsafe, or not what they were
└── BadOutput (1)          a model that returned something cosine cannot compare

The number is the exit code of the command that met the error. Trouble with one photo is no error: it is a Failure, and the rest goes on.
"""


class PipelineError(Exception):
    """Base of all pipeline errors; its message says what, where, and what to do next."""

    exit_code = 1


class BadRoot(PipelineError):
    """A folder that was asked for is not there."""

    exit_code = 2


class UnknownModel(PipelineError):
    """A model's name that means nothing here."""

    exit_code = 2


class MissingExtra(PipelineError):
    """A model that needs packages which are not installed."""


class BadModel(PipelineError):
    """Weights that are missing, unsafe to read, or not what they were."""


class BadOutput(PipelineError):
    """A model returned rows that cosine cannot compare."""
