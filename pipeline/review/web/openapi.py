"""The description of the HTTP API, as data; a test compares it with the routes and their answers.

Documents of the command line are described as far as the API adds to them or needs them: fields may
be added to any object, so none is closed.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from indexes.decisions import DecisionKind
from indexes.review import ReviewState
from pipeline.actions.plan import Action
from pipeline.query.standing import Standing
from pipeline.review.choices import BULK_CHOICES, Choice
from pipeline.review.listing import MAX_PAGE_GROUPS
from pipeline.review.web.bodies import MAX_PATHS
from pipeline.review.web.uploads import MAX_NAME_CHARS, MAX_UPLOAD_BYTES
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS, Relation

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def _name(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _word(words: Any) -> Schema:  # noqa: ANN401 - any iterable of texts
    return {"type": "string", "enum": [str(word) for word in words]}


def _null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _document(content: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return _object({"schema_version": {"type": "integer"}, **content}, optional)


_FILTER_FIELDS: Schema = {"type": "object", "additionalProperties": _TEXT}  # as of GET /groups
_REPORTED = _word(REPORTED_RELATIONS)
_DECISION_FIELDS = {
    "id": _TEXT,
    "kind": _word(DecisionKind),
    "author": _TEXT,
    "time": {"type": "string", "format": "date-time"},
}
_FILE_FIELDS = {"path": _TEXT, "bytes": _COUNT, "width": _COUNT, "height": _COUNT}
_MATCH_FIELDS = {"relation": _REPORTED, "score": _NUMBER}
_PICTURE_FIELD = {"picture": _TEXT}
_PAIR = _object(
    {"a": _TEXT, "b": _TEXT, "relation": _word(Relation), "score": _null(_NUMBER)},
    {"verdict": {"type": "object"}, "decision": _object(_DECISION_FIELDS)},
)
_LISTED_GROUP = {
    "id": _TEXT,
    "bytes_to_free": _COUNT,
    "state": _null(_word(ReviewState)),
    "author": _null(_TEXT),
    "time": _null({"type": "string", "format": "date-time"}),
    "group": _object(
        {
            "id": _TEXT,
            "keeper": _object({**_FILE_FIELDS, "reason": _TEXT, **_PICTURE_FIELD}),
            "members": _list(_object({**_FILE_FIELDS, **_MATCH_FIELDS, **_PICTURE_FIELD})),
            "related": _list(_object({"path": _TEXT, "member": _TEXT, **_MATCH_FIELDS})),
        }
    ),
}

SCHEMAS: dict[str, Schema] = {
    "Problem": _object({"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT}),
    "Query": _document(
        {
            "answers": _list(
                _object(
                    {
                        "file": _TEXT,
                        "in_library": {"type": "boolean"},
                        "standing": _word(Standing),
                        "same_bytes_at": _null(_TEXT),
                        "matches": _list(_object({**_FILE_FIELDS, **_MATCH_FIELDS})),
                    },
                    {"rejected": _object({"relation": _REPORTED, "decision": {"type": "object"}})},
                ),
                minItems=1,
                maxItems=1,
            ),
            "featureless": _COUNT,
        }
    ),
    "GroupPage": _document(
        {
            "groups": _list(_object(_LISTED_GROUP)),
            "next": _null(_TEXT),
            "count": _null(_object({"groups": _COUNT, "bytes_to_free": _COUNT})),
            "progress": _object({"reviewed": _COUNT, "groups": _COUNT}),
        }
    ),
    "Group": _document({**_LISTED_GROUP, "previous": _null(_TEXT), "next": _null(_TEXT)}),
    "Explanation": _document(
        {"files": _list(_TEXT), "threshold": _NUMBER, "pairs": _list(_PAIR, minItems=1)}
    ),
    "Status": _document({"store": _TEXT, "model": _null(_TEXT), "coverage": {"type": "object"}}),
    "Decisions": _document(
        {"decisions": _list(_object({**_DECISION_FIELDS, "photos": _list({"type": "object"})}))}
    ),
    "Outcome": _document(
        {
            "choice": _word(Choice),
            "action": _COUNT,
            "groups": _list(_TEXT),
            "group_count": _COUNT,
            "decisions": _list(_TEXT),
            "is_refreshed": {"type": "boolean"},
        }
    ),
    "Plan": _document(
        {"file": _TEXT, "run": _TEXT, "victims": _COUNT, "plan": {"type": "object"}},
        {"passed_over": _list(_object({"id": _TEXT, "keeper": _TEXT, "reason": _TEXT}))},
    ),
    "Place": _document({"group": _null(_TEXT), "filter": _FILTER_FIELDS}),
    "NewPlace": _object({}, {"group": _null(_TEXT), "filter": _FILTER_FIELDS}),
    "NewChoice": _object({"choice": _word(Choice)}, {"paths": _list(_TEXT, maxItems=MAX_PATHS)}),
    "NewChoices": _object(
        {"choice": _word(BULK_CHOICES), "expected_count": _COUNT},
        {"filter": _FILTER_FIELDS},
    ),
    "NewDecision": _object(
        {"kind": _word(DecisionKind), "paths": _list(_TEXT, minItems=1, maxItems=MAX_PATHS)}
    ),
    "NewPlan": _object(
        {},
        {
            "action": _word(Action),
            "destination": _null(_TEXT),
            "relations": _list(_word(sorted(COPY_RELATIONS))),
            "min_confidence": _null(_SHARE),
            "merge_metadata": {"type": "boolean"},
        },
    ),
}


def _parameter(name: str, description: str, schema: Schema = _TEXT) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_FILTER = [
    _parameter("relations", "a member has one of these relations; with commas between them"),
    _parameter("folder", "a file lies below this absolute path"),
    _parameter("min_bytes", "bytes to free, at least", _COUNT),
    _parameter("first_day", "the newest file was taken on this day or later (YYYY-MM-DD)"),
    _parameter("last_day", "the newest file was taken on this day or earlier"),
    _parameter("min_confidence", "the least probability of a copy among the members", _SHARE),
    _parameter("undecided", "1 for groups without a choice", _word("01")),
    _parameter("name", "a part of the name of a file"),
]
_IMAGE = {"type": "string", "format": "binary"}


def _operation(
    summary: str,
    answer: str,
    *,
    status: int = 200,
    parameters: list[Schema] | None = None,
    body: str | None = None,
) -> Schema:
    """Describe one operation; `answer` and `body` are names of schemas, or media types."""
    operation: Schema = {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {
            str(status): {"description": summary, "content": _content(answer)},
            "default": {
                "description": "what went wrong",
                "content": {"application/problem+json": {"schema": _name("Problem")}},
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _content(body)}
    return operation


def _content(name: str) -> Schema:
    if "/" in name:
        return {name: {"schema": {"type": "object"} if name.endswith("json") else _IMAGE}}
    return {"application/json": {"schema": _name(name)}}


# By path, then by method.
READING: dict[str, dict[str, Schema]] = {
    "/openapi.json": {"get": _operation("This description.", "application/json")},
    "/query": {
        "post": _operation(
            f"Ask what a photo, the body of up to {MAX_UPLOAD_BYTES:,} bytes, is to the library."
            " Nothing is kept of it.",
            "Query",
            parameters=[
                _parameter(
                    "name",
                    "the name of the file: its suffix tells raw formats",
                    {**_TEXT, "maxLength": MAX_NAME_CHARS},
                )
            ],
            body="application/octet-stream",
        )
    },
    "/groups": {
        "get": _operation(
            "A page of groups, most bytes to free first; the first page has a `count`.",
            "GroupPage",
            parameters=[
                *_FILTER,
                _parameter("cursor", "`next` of the page before"),
                _parameter(
                    "limit",
                    "groups on the page",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_GROUPS},
                ),
            ],
        )
    },
    "/groups/{group_id}": {
        "get": _operation("A group, and its neighbors under a filter.", "Group", parameters=_FILTER)
    },
    "/pairs/{a}/{b}": {
        "get": _operation(
            "Explain how two photos, by the ids of their pictures, are related.", "Explanation"
        )
    },
    "/pairs/{a}/{b}/picture": {
        "get": _operation(
            "What was compared of two photos, as a PNG.",
            "image/png",
            parameters=[
                _parameter(
                    "view",
                    "a part of it; tiles and overlay only of photos that are aligned",
                    _word(("sheet", "first", "second", "overlay", "difference", "tiles")),
                )
            ],
        )
    },
    "/status": {"get": _operation("What the store holds.", "Status")},
    "/decisions": {"get": _operation("All decisions, the earliest first.", "Decisions")},
    "/plans/{id}": {"get": _operation("A plan that was made, by the name of its run.", "Plan")},
}
CHANGING: dict[str, dict[str, Schema]] = {
    "/groups/{group_id}/choices": {
        "post": _operation("Make a choice for a group.", "Outcome", body="NewChoice")
    },
    "/choices": {
        "post": _operation(
            "Make a choice for all groups of a filter, if there are as many as expected.",
            "Outcome",
            body="NewChoices",
        )
    },
    "/place": {
        "get": _operation("Where the person was last, in any browser.", "Place"),
        "put": _operation("Remember where the person is.", "Place", body="NewPlace"),
    },
    "/choices/last": {"delete": _operation("Take back the last choice.", "Outcome")},
    "/decisions": {
        "post": _operation(
            "Enter a decision on files of the library.", "Decisions", status=201, body="NewDecision"
        )
    },
    "/decisions/{id}": {"delete": _operation("Forget a decision.", "Decisions")},
    "/plans": {"post": _operation("Plan what was accepted.", "Plan", status=201, body="NewPlan")},
}


def build_openapi(*, is_read_only: bool) -> Schema:
    """Build the OpenAPI document of the routes that there are."""
    paths: dict[str, dict[str, Schema]] = {path: dict(item) for path, item in READING.items()}
    if not is_read_only:
        for path, item in CHANGING.items():
            paths.setdefault(path, {}).update(item)
    for path, item in paths.items():
        if names := [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            item["parameters"] = [  # type: ignore[assignment]
                {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
            ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "neardup", "version": version("neardup")},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
