"""Bodies of requests that change something: JSON objects, checked field by field."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from pipeline.actions.plan import Action
from pipeline.actions.plan_options import PlanOptions
from pipeline.review.web.problems import Problem
from pipeline.review.web.uploads import receive_json_body
from pipeline.verify.relation import COPY_RELATIONS, Relation

JSON_MEDIA_TYPE = "application/json"
MAX_PATHS = 1000  # of one decision or choice
MAX_PATH_CHARS = 4096


class Body:
    """The fields of a JSON object; each getter raises Problem (400) for a value of another type."""

    def __init__(self, fields: dict[str, Any]) -> None:
        """Read from `fields`."""
        self._fields = fields

    def require_only(self, names: Collection[str]) -> None:
        """Raise Problem for a field that is not one of `names`: a typo would say nothing."""
        if unknown := sorted(self._fields.keys() - set(names)):
            raise _make_problem(f"{ascii(unknown[0])} is no field; use {', '.join(sorted(names))}")

    def get_text(self, name: str) -> str | None:
        """Return a text; None if it is left out or null."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise _make_problem(f"{name} is a text")
        return value

    def get_word(self, name: str, words: Collection[str]) -> str:
        """Return one of `words`; the field is required."""
        value = self.get_text(name)
        if value is None or value not in words:
            raise _make_problem(f"{name} is one of: {', '.join(words)}")
        return value

    def get_paths(self, name: str = "paths") -> list[str]:
        """Return a list of paths; empty if it is left out."""
        value = self._fields.get(name)
        paths: list[Any] = [] if value is None else value
        if (
            not isinstance(paths, list)
            or len(paths) > MAX_PATHS
            or not all(isinstance(path, str) and len(path) <= MAX_PATH_CHARS for path in paths)
        ):
            raise _make_problem(f"{name} is a list of up to {MAX_PATHS:,} paths")
        return paths

    def get_relations(self) -> frozenset[Relation]:
        """Return the relations of copies that are listed; identical bytes if it is left out."""
        words = self.get_paths("relations")
        if not words:
            return frozenset({Relation.IDENTICAL_BYTES})
        known = {str(relation): relation for relation in COPY_RELATIONS}
        if any(word not in known for word in words):
            raise _make_problem(f"relations are some of: {', '.join(sorted(known))}")
        return frozenset(known[word] for word in words)

    def get_share(self, name: str) -> float | None:
        """Return a number from 0 to 1; None if it is left out or null."""
        value = self._fields.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            raise _make_problem(f"{name} is a number from 0 to 1")
        return value

    def get_count(self, name: str) -> int:
        """Return a whole number >= 0; the field is required."""
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _make_problem(f"{name} is a whole number")
        return value

    def get_flag(self, name: str) -> bool:
        """Return true or false; false if it is left out."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise _make_problem(f"{name} is true or false")
        return value

    def get_fields(self, name: str) -> dict[str, str]:
        """Return an object of texts; empty if it is left out."""
        value = self._fields.get(name)
        fields: Any = {} if value is None else value
        if not isinstance(fields, dict) or not all(
            isinstance(item, str) for item in fields.values()
        ):
            raise _make_problem(f"{name} is an object of texts")
        return fields


async def read_body(request: Request, names: Collection[str]) -> Body:
    """Read the JSON object in the body of a request, with some of the fields `names`.

    Raises Problem for anything else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send a body of type {JSON_MEDIA_TYPE}")
    try:
        fields = json.loads(await receive_json_body(request))
    except (ValueError, RecursionError) as error:
        raise _make_problem("the body is no JSON") from error
    if not isinstance(fields, dict):
        raise _make_problem("the body is no JSON object")
    body = Body(fields)
    body.require_only(names)
    return body


def parse_plan_options(body: Body) -> PlanOptions:
    """Parse the options of a plan; those of `neardup plan`, with the same defaults.

    Raises PlanRefused for options that no plan can follow.
    """
    action = body.get_text("action") or Action.QUARANTINE
    if action not in set(Action):
        raise _make_problem(f"action is one of: {', '.join(Action)}")
    destination = body.get_text("destination")
    if destination is not None and not destination.startswith("/"):
        raise _make_problem("destination is an absolute path")
    if destination is not None and "\0" in destination:
        raise _make_problem("destination has a NUL")
    options = PlanOptions(
        Action(action),
        None if destination is None else os.path.realpath(destination),
        body.get_relations(),
        body.get_share("min_confidence"),
        merge_metadata=body.get_flag("merge_metadata"),
    )
    options.require_sound()
    return options


PLAN_FIELDS = ("action", "destination", "relations", "min_confidence", "merge_metadata")


def _make_problem(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)
