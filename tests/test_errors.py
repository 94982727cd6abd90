"""The tree of errors that is drawn in the docstring of pipeline.errors."""

from __future__ import annotations

from pipeline import errors
from pipeline.errors import PipelineError


def test_drawn_tree_shows_every_error_with_its_exit_code() -> None:
    subclasses: list[type[PipelineError]] = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PipelineError) and value != PipelineError
    ]
    names = [f"{error.__name__} ({error.exit_code})" for error in subclasses]
    branches = [f"├── {name}" for name in names[:-1]] + [f"└── {names[-1]}"]
    tree = [f"{PipelineError.__name__} ({PipelineError.exit_code})", *branches]
    assert "\n\n" + "\n".join(tree) + "\n\n" in (errors.__doc__ or "")
    assert all(error.__bases__ == (PipelineError,) for error in subclasses)
