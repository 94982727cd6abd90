"""Answers of the HTTP API as JSON: the documents of the command line, with ids of pictures."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from pipeline.report.document import make_document
from pipeline.review.choices import Outcome, Place
from pipeline.review.filters import GroupFilter
from pipeline.review.listing import ListedGroup, Listing, Neighbors
from pipeline.review.web.credentials import PictureIds

Document = dict[str, Any]


class JsonResponse(Response):
    """A document in ASCII, like those of the command line; a browser keeps none."""

    media_type = "application/json"

    def __init__(self, document: Document, status_code: int = 200) -> None:
        """Answer with a document."""
        super().__init__(document, status_code, {"Cache-Control": "no-store"})

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - JSON
        """Encode the document; bytes of a path that are no UTF-8 become \\udcXX."""
        return json.dumps(content).encode("ascii")


def load_page(
    listing: Listing, group_filter: GroupFilter, cursor: str | None, limit: int, ids: PictureIds
) -> Document:
    """Load a page of groups, with the count of what was reviewed.

    The first page, without a cursor, also has the count of its filter: among many groups, counting
    takes longer than all else.
    """
    page, progress = listing.page(group_filter, cursor, limit), listing.count_progress()
    count = listing.count(group_filter) if cursor is None else None
    return make_document(
        {
            "groups": [serialize_listed_group(group, ids) for group in page.groups],
            "next": page.next_cursor,
            "count": (
                {"groups": count.groups, "bytes_to_free": count.bytes_to_free} if count else None
            ),
            "progress": {"reviewed": progress.reviewed, "groups": progress.groups},
        }
    )


def serialize_single_group(group: ListedGroup, neighbors: Neighbors, ids: PictureIds) -> Document:
    """Serialize one group, with the ids of those before and after it."""
    document = serialize_listed_group(group, ids)
    return make_document({**document, "previous": neighbors.previous, "next": neighbors.next})


def serialize_listed_group(group: ListedGroup, ids: PictureIds) -> Document:
    """Serialize a group: what was chosen for it, and the `group` as `neardup groups` has it.

    The keeper and each member also have the id of their `picture`.
    """
    content = group.document
    pictures = [ids.encode(file.hash) for file in group.files]
    own = [content["keeper"], *content["members"]]
    keeper, *members = (
        {**file, "picture": picture} for file, picture in zip(own, pictures, strict=True)
    )
    return {
        "id": group.id,
        "bytes_to_free": group.bytes_to_free,
        "state": group.state,
        "author": group.author,
        "time": group.time.isoformat(timespec="seconds") if group.time else None,
        "group": {**content, "keeper": keeper, "members": members},
    }


def serialize_outcome(outcome: Outcome) -> Document:
    """Serialize what a choice did."""
    return make_document(
        {
            "choice": outcome.choice,
            "action": outcome.action,
            "groups": list(outcome.group_ids),
            "group_count": outcome.group_count,
            "decisions": list(outcome.decision_ids),
            "is_refreshed": outcome.is_refreshed,
        }
    )


def serialize_place(place: Place) -> Document:
    """Serialize where a person is: a group, and the filter as parameters of GET /groups."""
    return make_document({"group": place.group_id, "filter": place.filter.to_query()})
