"""Write a plan to a file that is never changed, and read it with distrust."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexes.durable.files import DISK_FULL_ERRNOS, sync_folder
from indexes.errors import DiskFull
from indexes.paths import quote
from indexes.records import FileStat
from pipeline.actions.checked_json import CHECKSUM_KEY, add_checksum, parse_checked
from pipeline.actions.plan import (
    Action,
    FieldSource,
    Keeper,
    LeftFile,
    Merge,
    Part,
    Plan,
    PlannedGroup,
    Victim,
)
from pipeline.decode.metadata.fields import FieldName
from pipeline.errors import OutputNotWritable, PlanRefused
from pipeline.verify.relation import Relation

PLAN_SCHEMA_VERSION = 1  # of plan files; raised when a field changes its meaning
MAX_PLAN_BYTES = 1 << 30
_RUN_DIGEST_CHARACTERS = 8  # of a plan's checksum in the name of its run


def serialize_plan(plan: Plan) -> dict[str, Any]:
    """Serialize a plan as its file has it, with the checksum.

    A group without a merge has no field for one, as before there were any.
    """
    document = asdict(plan)
    for group in document["groups"]:
        if group["merge"] is None:
            del group["merge"]
    return add_checksum({"schema_version": PLAN_SCHEMA_VERSION, **document})


def name_run(plan: Plan) -> str:
    """Return the name of the run that applies a plan; it depends on the plan's content alone.

    So a plan that is applied again continues its run.
    """
    moment = "".join(character for character in plan.created if character.isdigit())[:14]
    return f"{moment}-{serialize_plan(plan)[CHECKSUM_KEY][:_RUN_DIGEST_CHARACTERS]}"


def require_new_file(path: Path) -> None:
    """Raise OutputNotWritable if a file is there: a plan never replaces anything."""
    if os.path.lexists(path):
        raise OutputNotWritable(
            f"{quote(str(path))} exists, and a plan is never changed; name another --output"
        )


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan to a new file that only its owner can read. Raises OutputNotWritable, DiskFull.

    A file that is there already is never replaced.
    """
    text = json.dumps(serialize_plan(plan), indent=1) + "\n"
    require_new_file(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:  # also if a file came there in this moment
        raise OutputNotWritable(f"{quote(str(path))}: {error.strerror}; name another") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(f"no room for {quote(str(path))}: {error.strerror}") from error
        raise OutputNotWritable(f"{quote(str(path))}: {error.strerror}") from error


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises PlanRefused if it is none, was edited, or is of another version."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PLAN_BYTES)
    except OSError as error:
        raise PlanRefused(f"{quote(str(path))} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(content)
        version = document["schema_version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanRefused(f"{quote(str(path))} is not a plan of neardup") from error
    if version != PLAN_SCHEMA_VERSION:
        raise PlanRefused(f"{quote(str(path))} is a plan of another version; make a new one")
    try:
        return parse_plan(parse_checked(content))
    except (ValueError, TypeError, KeyError) as error:
        raise PlanRefused(
            f"{quote(str(path))} was edited or damaged since it was written ({error}); a plan is"
            " never changed: make a new one with `neardup plan`"
        ) from error


def parse_plan(document: dict[str, Any]) -> Plan:
    """Make a plan of its JSON. Raises ValueError, TypeError or KeyError if it has another form."""
    return Plan(
        created=str(document["created"]),
        store_id=str(document["store_id"]),
        ingest_run=str(document["ingest_run"]),
        action=Action(document["action"]),
        destination=document["destination"],
        relations=tuple(map(Relation, document["relations"])),
        min_confidence=document["min_confidence"],
        roots=tuple(map(str, document["roots"])),
        protected=tuple(map(str, document["protected"])),
        library_files=int(document["library_files"]),
        bytes_to_free=int(document["bytes_to_free"]),
        groups=tuple(map(_parse_group, document["groups"])),
        left=tuple(LeftFile(**left) for left in document["left"]),
        warnings=tuple(map(str, document["warnings"])),
        rejected=document.get("rejected", False) is True,
    )


def parse_part(part: dict[str, Any]) -> Part:
    """Make a part of its JSON. Raises ValueError, TypeError or KeyError if it has another form."""
    return Part(str(part["path"]), FileStat(**part["stat"]), str(part["blake3"]))


def _parse_group(group: dict[str, Any]) -> PlannedGroup:
    return PlannedGroup(
        str(group["id"]),
        None if group["keeper"] is None else _parse_keeper(group["keeper"]),
        tuple(map(_parse_victim, group["victims"])),
        _parse_merge(group["merge"]) if "merge" in group else None,
    )


def _parse_merge(merge: dict[str, Any]) -> Merge:
    before = merge["before"]
    return Merge(
        str(merge["sidecar"]),
        None if before is None else parse_part(before),
        tuple(map(_parse_source, merge["fields"])),
        tuple(map(_parse_source, merge["passed_over"])),
    )


def _parse_source(source: dict[str, Any]) -> FieldSource:
    return FieldSource(FieldName(source["name"]), str(source["value"]), str(source["path"]))


def _parse_keeper(keeper: dict[str, Any]) -> Keeper:
    return Keeper(tuple(map(parse_part, keeper["parts"])), str(keeper["reason"]))


def _parse_victim(victim: dict[str, Any]) -> Victim:
    return Victim(
        tuple(map(parse_part, victim["parts"])),
        Relation(victim["relation"]),
        victim["confidence"],
        str(victim["reason"]),
        str(victim["decided_by"]),
        tuple(map(str, victim.get("shared_with", ()))),
    )
