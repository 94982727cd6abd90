"""The API as a program uses it that knows the OpenAPI document and nothing else."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from indexes import Store
from pipeline.review.web.api import API_ROOT, Api
from pipeline.review.web.openapi import SCHEMAS, build_openapi
from tests.review.web.conftest import Library, make_library
from tests.support.cli import run_process
from tests.support.images import draw_textured_image, encode_jpeg
from tests.support.json_schema import find_faults
from tests.support.review import AUTHOR, RunningReview, serve_review

PATH_PARAMETER = re.compile(r"\{(\w+)\}")


class DescribedClient:
    """A client that makes its requests from the OpenAPI document, and checks each answer by it."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.document = client.get(f"{API_ROOT}/openapi.json").json()
        self.called = set[tuple[str, str]]()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,  # noqa: ANN401 - JSON or bytes
        status: int | None = None,
        **values: Any,
    ) -> Any:  # noqa: ANN401 - JSON or bytes
        operation = self.document["paths"][path][method]
        self.called.add((method, path))
        names = PATH_PARAMETER.findall(path)
        url = API_ROOT + PATH_PARAMETER.sub(lambda match: values[match[1]], path)
        query = {name: value for name, value in values.items() if name not in names}
        assert query.keys() <= {item["name"] for item in operation["parameters"]}
        sent: dict[str, Any] = {}
        if "requestBody" in operation:
            ((media_type, described),) = operation["requestBody"]["content"].items()
            sent["headers"] = {"Content-Type": media_type}
            if media_type == "application/json":
                sent["content"] = json.dumps(body).encode()
                if status is None:
                    assert find_faults(body, described["schema"], self.document) == []
            else:
                sent["content"] = body
        answer = self._client.request(method, url, params=query, **sent)
        responses = operation["responses"]
        (expected,) = responses.keys() - {"default"}
        response = responses[expected if status is None else "default"]
        assert answer.status_code == (status or int(expected)), answer.text
        ((media_type, described),) = response["content"].items()
        assert answer.headers["content-type"] == media_type
        if not media_type.endswith("json"):
            return answer.content
        document = answer.json()
        assert find_faults(document, described["schema"], self.document) == []
        return document


@pytest.fixture
def program(review: RunningReview) -> Iterator[DescribedClient]:
    with review.open_program() as client:
        yield DescribedClient(client)


@pytest.fixture
def changed(tmp_path: Path) -> Iterator[tuple[Library, RunningReview, DescribedClient]]:
    """A library of its own, for a test that changes it."""
    library = make_library(tmp_path)
    with serve_review(library.store) as running, running.open_program() as client:
        yield library, running, DescribedClient(client)


@pytest.mark.parametrize("is_read_only", [False, True])
def test_description_has_each_route_and_no_other(library: Library, is_read_only: bool) -> None:
    described = {
        (method.upper(), API_ROOT + path)
        for path, item in build_openapi(is_read_only=is_read_only)["paths"].items()
        for method in item.keys() - {"parameters"}
    }
    with serve_review(library.store, is_read_only=is_read_only, with_listing=False) as running:
        routes = {
            (method, route.path)
            for route in Api(running.service).list_routes()
            for method in (route.methods or set()) - {"HEAD"}
        }
    assert routes == described
    changing = {route for route in routes if route[0] != "GET"}
    assert (changing == {("POST", f"{API_ROOT}/query")}) == is_read_only


def test_schemas_are_used_and_known() -> None:
    text = json.dumps(build_openapi(is_read_only=False))
    used = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert used == set(SCHEMAS)


def test_each_upload_has_its_standing(program: DescribedClient, library: Library) -> None:
    photo = draw_textured_image(1, (900, 600))
    uploads = {
        (library.photos / "a.jpg").read_bytes(): "identical",
        encode_jpeg(photo.resize((300, 200)), 80): "worse than",
        encode_jpeg(draw_textured_image(1, (1800, 1200)), 95): "better than",
        encode_jpeg(draw_textured_image(7)): "new",
        encode_jpeg(draw_textured_image(3, (900, 600)), 97): "better than",
    }
    for content, standing in uploads.items():
        (answer,) = program.call("post", "/query", body=content, name="x.jpg")["answers"]
        assert (answer["file"], answer["standing"]) == ("x.jpg", standing)
        paths = [match["path"] for match in answer["matches"]]
        assert all(Path(path).exists() for path in paths)
        assert bool(paths) == (standing != "new")


def test_query_is_answered_as_on_the_command_line(
    program: DescribedClient, library: Library, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(encode_jpeg(draw_textured_image(2, (900, 600)).resize((600, 400))))
    code, out, _ = run_process(library.store, "query", copy, "--json")
    assert code == 0
    document = program.call("post", "/query", body=copy.read_bytes(), name="copy.jpg")
    expected = json.loads(out)
    expected["answers"][0]["file"] = "copy.jpg"
    assert document == expected


def test_groups_are_those_of_the_command_line_in_pages(
    program: DescribedClient, library: Library
) -> None:
    expected = json.loads(run_process(library.store, "groups", "--json")[1])["groups"]
    first = program.call("get", "/groups", limit=1)
    assert first["count"]["groups"] == first["progress"]["groups"] == len(expected) == 2
    second = program.call("get", "/groups", limit=1, cursor=first["next"])
    assert (second["next"], second["count"]) == (None, None)
    found = [item for page in (first, second) for item in page["groups"]]
    assert found[0]["bytes_to_free"] >= found[1]["bytes_to_free"]
    one = program.call("get", "/groups/{group_id}", group_id=found[0]["id"])
    assert (one["previous"], one["next"]) == (None, found[1]["id"])
    for item in found:
        for file in (item["group"]["keeper"], *item["group"]["members"]):
            assert re.fullmatch("[A-Za-z0-9_-]{64}", file.pop("picture"))
    by_path = sorted((item["group"] for item in found), key=lambda group: group["keeper"]["path"])
    assert by_path == expected
    assert len(program.call("get", "/groups", name="b copy")["groups"]) == 1
    assert program.call("get", "/groups", relations="derived", min_bytes=1)["count"]["groups"] == 1
    for wrong in ({"limit": 0}, {"limit": 10_000}, {"limit": "x"}, {"cursor": "x"}):
        program.call("get", "/groups", status=400, **wrong)
    program.call("get", "/groups", status=400, relations="nothing")
    program.call("get", "/groups/{group_id}", status=404, group_id="0" * 32)


def test_pair_is_explained_and_drawn(program: DescribedClient, library: Library) -> None:
    (group,) = program.call("get", "/groups", name="a crop")["groups"]
    keeper = group["group"]["keeper"]
    crop = next(item for item in group["group"]["members"] if "crop" in item["path"])
    pair = {"a": keeper["picture"], "b": crop["picture"]}
    document = program.call("get", "/pairs/{a}/{b}", **pair)
    assert document["files"] == [keeper["path"], crop["path"]]
    out = run_process(library.store, "explain", keeper["path"], crop["path"], "--json")[1]
    (expected,) = json.loads(out)["pairs"]
    (explained,) = document["pairs"]
    assert explained["relation"] == expected["relation"] == "derived"
    assert explained["verdict"] == expected["verdict"] == crop["verdict"]
    sizes = set()
    for view in ("sheet", "first", "second", "overlay", "difference", "tiles"):
        content = program.call("get", "/pairs/{a}/{b}/picture", view=view, **pair)
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "PNG"
            sizes.add(picture.size)
    assert len(sizes) == 3
    program.call("get", "/pairs/{a}/{b}/picture", status=400, view="../etc", **pair)
    program.call("get", "/pairs/{a}/{b}", status=404, a=pair["a"], b="A" * 64)
    program.call("get", "/pairs/{a}/{b}", status=400, a=pair["a"], b=pair["a"])


def test_status_is_that_of_the_command_line(program: DescribedClient, library: Library) -> None:
    expected = json.loads(run_process(library.store, "status", "--json")[1])
    document = program.call("get", "/status")
    assert document | {"bytes_on_disk": 0} == expected | {"bytes_on_disk": 0}


def test_choices_decide_and_are_taken_back(
    changed: tuple[Library, RunningReview, DescribedClient],
) -> None:
    library, _, program = changed
    first, second = program.call("get", "/groups")["groups"]
    skip = {"choice": "skip"}
    one = program.call("post", "/groups/{group_id}/choices", body=skip, group_id=first["id"])
    assert one["groups"] == [first["id"]]
    page = program.call("get", "/groups", undecided="1")
    assert [item["id"] for item in page["groups"]] == [second["id"]]
    assert page["progress"] == {"reviewed": 1, "groups": 2}
    chosen = program.call("get", "/groups/{group_id}", group_id=first["id"])
    assert (chosen["state"], chosen["author"]) == ("skipped", AUTHOR)
    new = {"choice": "accept", "filter": {"name": "b copy"}, "expected_count": 2}
    program.call("post", "/choices", body=new, status=409)
    accepted = program.call("post", "/choices", body=new | {"expected_count": 1})
    assert accepted["group_count"] == 1
    member = first["group"]["members"][0]["path"]
    keep = {"choice": "make keeper", "paths": [member]}
    kept = program.call("post", "/groups/{group_id}/choices", body=keep, group_id=first["id"])
    (group_id,) = kept["groups"]
    shown = program.call("get", "/groups/{group_id}", group_id=group_id)
    assert shown["group"]["keeper"]["path"] == member
    decisions = json.loads(run_process(library.store, "decide", "list", "--json")[1])["decisions"]
    assert [(item["kind"], item["author"]) for item in decisions] == [("keep", AUTHOR)]
    assert [item["id"] for item in decisions] == kept["decisions"]
    for _ in range(3):
        program.call("delete", "/choices/last")
    program.call("delete", "/choices/last", status=404)
    again = program.call("get", "/groups")
    assert again["groups"] == [first, second]
    assert program.call("get", "/decisions")["decisions"] == []


def test_place_and_choices_outlive_the_server(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    with serve_review(library.store) as running, running.open_program() as client:
        program = DescribedClient(client)
        assert program.call("get", "/place")["group"] is None
        (group,) = program.call("get", "/groups", name="b copy")["groups"]
        program.call(
            "post", "/groups/{group_id}/choices", body={"choice": "accept"}, group_id=group["id"]
        )
        place = {"group": group["id"], "filter": {"undecided": "1"}}
        program.call("put", "/place", body=place)
        program.call("put", "/place", body={"filter": {"min_bytes": "x"}}, status=400)
    with serve_review(library.store, with_listing=False) as running:
        with running.open_program() as client:
            program = DescribedClient(client)
            saved = program.call("get", "/place")
            assert {name: saved[name] for name in place} == place
            page = program.call("get", "/groups", **place["filter"])
            assert group["id"] not in {item["id"] for item in page["groups"]}
            assert page["progress"] == {"reviewed": 1, "groups": 2}


def test_decisions_are_entered_listed_and_forgotten(
    changed: tuple[Library, RunningReview, DescribedClient],
) -> None:
    library, _, program = changed
    paths = [str(library.photos / name) for name in ("a.jpg", "c.jpg")]
    new = {"kind": "different", "paths": paths}
    (entered,) = program.call("post", "/decisions", body=new)["decisions"]
    assert entered["author"] == AUTHOR
    assert [photo["paths"] for photo in entered["photos"]] == [[path] for path in paths]
    listed = program.call("get", "/decisions")
    assert listed == json.loads(run_process(library.store, "decide", "list", "--json")[1])
    program.call("post", "/decisions", body=new | {"kind": "same"}, status=409)
    outside = library.photos.parent / "outside.jpg"
    outside.write_bytes((library.photos / "a.jpg").read_bytes())
    for path in (str(outside), "/etc/passwd", "nothing", ""):
        program.call("post", "/decisions", body={"kind": "reject", "paths": [path]}, status=404)
    program.call("delete", "/decisions/{id}", id=entered["id"])
    program.call("delete", "/decisions/{id}", id=entered["id"], status=404)
    assert program.call("get", "/decisions")["decisions"] == []


def test_requests_are_answered_while_an_ingest_writes(
    changed: tuple[Library, RunningReview, DescribedClient],
) -> None:
    library, _, program = changed
    with Store(library.store, write=True) as ingest, ingest.lock_for_ingest():
        run_id = ingest.begin_run()
        with ingest.catalog.transaction():  # until its end no other process can commit
            assert program.call("get", "/groups")["count"]["groups"] == 2
            photo = (library.photos / "c.jpg").read_bytes()
            (answer,) = program.call("post", "/query", body=photo)["answers"]
            assert answer["standing"] == "identical"
        body = {"kind": "keep", "paths": [str(library.photos / "c.jpg")]}
        assert program.call("post", "/decisions", body=body)["decisions"]
        assert ingest.catalog.decisions.list()
        assert run_id


def test_plan_is_of_what_was_accepted(
    changed: tuple[Library, RunningReview, DescribedClient], tmp_path: Path
) -> None:
    library, _, program = changed
    (group,) = program.call("get", "/groups", name="b copy")["groups"]
    assert program.call("post", "/plans", body={})["victims"] == 0
    accept = {"choice": "accept"}
    program.call("post", "/groups/{group_id}/choices", body=accept, group_id=group["id"])
    made = program.call("post", "/plans", body={"relations": ["identical bytes"]})
    assert (made["victims"], made["passed_over"]) == (1, [])
    saved = program.call("get", "/plans/{id}", id=made["run"])
    assert saved["plan"] == made["plan"]
    code, out, err = run_process(library.store, "apply", made["file"], "--yes", "--json")
    assert code == 0, err
    assert [item["status"] for item in json.loads(out)["files"]] == ["done"]
    assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
    program.call("get", "/plans/{id}", id="20200101000000-00000000", status=404)
    program.call("post", "/plans", body={"relations": ["same picture"]}, status=409)
    program.call("post", "/plans", body={"action": "move", "destination": "x"}, status=400)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/decisions", b""),
        ("POST", "/decisions", b"[" * 100_000),
        ("POST", "/decisions", b"[]"),
        ("POST", "/decisions", b'{"kind": "reject", "paths": "/a"}'),
        ("POST", "/decisions", b'{"kind": "reject", "paths": [1]}'),
        ("POST", "/decisions", b'{"kind": "reject", "paths": []}'),
        ("POST", "/decisions", b'{"kind": "delete", "paths": ["/a"]}'),
        ("POST", "/decisions", b'{"kind": ["reject"], "paths": ["/a"]}'),
        ("POST", "/decisions", b'{"kind": "reject", "paths": ["/a"], "path": "/b"}'),
        ("POST", "/choices", b'{"choice": "reject", "expected_count": 1}'),
        ("POST", "/choices", b'{"choice": "accept", "expected_count": true}'),
        ("POST", "/choices", b'{"choice": "accept", "expected_count": 1, "filter": [1]}'),
        ("POST", "/plans", b'{"min_confidence": NaN}'),
        ("POST", "/plans", b'{"min_confidence": 2}'),
        ("POST", "/plans", b'{"action": "delete"}'),
        ("POST", "/plans", b'{"relations": ["similar"]}'),
    ],
)
def test_bodies_of_another_form_are_refused(
    review: RunningReview, method: str, path: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    with review.open_program() as client:
        refused = client.request(method, API_ROOT + path, content=body, headers=headers)
        assert refused.status_code == 400
        assert refused.json()["detail"]
        plain = client.request(method, API_ROOT + path, content=b"{}")
        assert plain.status_code == 415
        long = client.request(method, API_ROOT + path, content=b" " * (2 << 20), headers=headers)
        assert long.status_code == 413


def test_read_only_server_asks_and_changes_nothing(library: Library) -> None:
    photo = (library.photos / "a.jpg").read_bytes()
    with Store(library.store) as store:
        before = store.catalog.decisions.list()
    with serve_review(library.store, is_read_only=True) as running:
        with running.open_program() as client:
            program = DescribedClient(client)
            (answer,) = program.call("post", "/query", body=photo)["answers"]
            assert answer["standing"] == "identical"
            (group, _) = program.call("get", "/groups")["groups"]
            body = {"kind": "keep", "paths": [group["group"]["keeper"]["path"]]}
            for method, path in (
                ("POST", "/decisions"),
                ("POST", "/plans"),
                ("POST", "/choices"),
                ("POST", f"/groups/{group['id']}/choices"),
                ("DELETE", "/choices/last"),
                ("DELETE", "/decisions/0000"),
            ):
                refused = client.request(method, API_ROOT + path, json=body)
                assert refused.status_code in (404, 405)
    with Store(library.store) as store:
        assert store.catalog.decisions.list() == before
