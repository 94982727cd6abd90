"""The outcome of a command for one file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of a file after a command, in the words of answers."""

    PLANNED = "planned"  # of a dry run
    DONE = "done"
    LEFT = "left alone"
    STUCK = "not moved back"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A file by the path of the plan, its status, why it has it, and where the file lies now."""

    path: str
    status: Status
    detail: str = ""
    target: str = ""
    size: int = 0

    @property
    def is_problem(self) -> bool:
        """True if the file was not acted on as asked."""
        return self.status in (Status.LEFT, Status.STUCK)
