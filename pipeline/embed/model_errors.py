"""Explain why the model that a store was made with cannot be used any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexes.errors import SpaceMismatch
from indexes.paths import format_command
from indexes.records import Space
from indexes.store import Store
from pipeline.embed.embedder import load_embedder
from pipeline.errors import UnusableModel


@contextmanager
def explain_model_errors(store: Store, model: str | None) -> Iterator[None]:
    """Say in errors about the store's own model that its file changed or was moved.

    Errors pass unchanged if a person named another `model`, or if the store changed meanwhile.
    """
    bound_space, name = store.space, store.model
    try:
        yield
    except (SpaceMismatch, UnusableModel) as error:
        if model is not None or bound_space is None or name is None or store.space != bound_space:
            raise
        file = _get_model_file(name)
        if isinstance(error, SpaceMismatch):
            raise SpaceMismatch(_format_model_change(store, bound_space, name, file)) from error
        if file is None or file.exists():
            raise
        moved_name = name.removesuffix(str(file)) + str(Path("NEW") / file.name)
        raise UnusableModel(
            f"{error}. If its folder was moved: --model {moved_name} is accepted if the weights are"
            " the same, and `ingest` remembers it"
        ) from error


def _get_model_file(model: str) -> Path | None:
    """Get the file in the name of a model; None if it names none."""
    backend, _, rest = model.partition(":")
    if backend == "onnx":
        path = rest
    elif backend == "open_clip":
        path = rest.partition("@")[2]
    else:
        return None
    return Path(path) if path else None


def _format_model_change(store: Store, bound_space: Space, name: str, file: Path | None) -> str:
    space = load_embedder(name).space
    migrate = format_command(store.folder, "migrate", "--model", name)
    advice = f"put it back, or `{migrate}` embeds the images again with the model as it is now"
    if file and space.weights != bound_space.weights:
        weights = f"sha256 {bound_space.weights[:12]}..."
        return (
            f"{file} is no longer the file that {store.folder} was made with ({weights}); {advice}"
        )
    return (
        f"{name} is no longer what {store.folder} was made with: that was {bound_space},"
        f" and it is {space}; {advice}"
    )
