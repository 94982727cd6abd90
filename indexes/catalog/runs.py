"""Runs of ingest, with their outcome and coverage."""

from __future__ import annotations

import json
from typing import Any

from indexes.catalog.database import Database
from indexes.records import (
    Run,
)


class RunTable:
    """Runs of ingest, with their outcome and coverage."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def begin(self, started: str) -> int:
        """Note that an ingest began; returns its number. A run that was cut off stays marked as running until the next one begins."""
        self._database.write("UPDATE runs SET outcome = 'interrupted' WHERE outcome = 'running'")
        done = self._database.write(
            "INSERT INTO runs (started, outcome, coverage) VALUES (?, 'running', '{}')", started
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def get_newest_key(self) -> str:
        """What names the newest run, whatever became of it; "" before the first."""
        return next(
            (
                name
                for (name,) in self._database.fetch_rows(
                    "SELECT id || ' ' || started FROM runs ORDER BY id DESC LIMIT 1"
                )
            ),
            "",
        )

    def has(self, run_key: str) -> bool:
        """Whether there was a run that newest_run() named so."""
        return bool(
            self._database.fetch_rows("SELECT 1 FROM runs WHERE id || ' ' || started = ?", run_key)
        )

    def end(self, run_id: int, ended: str, outcome: str, coverage: dict[str, Any]) -> None:
        """Note how a run ended and what it saw."""
        self._database.write(
            "UPDATE runs SET ended = ?, outcome = ?, coverage = ? WHERE id = ?",
            ended,
            outcome,
            json.dumps(coverage),
            run_id,
        )

    def get_last_join(self) -> dict[str, Any] | None:
        """How the newest ingest that joined anything, or the migration after it, did so; None where nothing was joined since."""
        sql = "SELECT coverage FROM runs WHERE outcome = 'migrated' OR json_extract(coverage, '$.join') IS NOT NULL ORDER BY id DESC LIMIT 1"
        for (coverage,) in self._database.fetch_rows(sql):
            found: dict[str, Any] | None = self._database.parse_json(coverage).get("join")
            return found
        return None

    def get_last(self) -> Run | None:
        """The newest ingest."""
        sql = "SELECT started, ended, outcome, coverage FROM runs WHERE outcome != 'migrated' ORDER BY id DESC LIMIT 1"
        for started, ended, outcome, coverage in self._database.fetch_rows(sql):
            return Run(started, ended, outcome, self._database.parse_json(coverage))
        return None

    def is_fully_verified(self, version: int, *, with_crops: bool) -> bool:
        """Whether the run before had looked at every pair, by this version of the judge; with `parts`, also at pictures within others."""
        for outcome, coverage in self._database.fetch_rows(
            "SELECT outcome, coverage FROM runs WHERE outcome != 'running' ORDER BY id DESC LIMIT 1"
        ):
            seen = json.loads(coverage) if outcome == "complete" else {}
            told, compared = seen.get("verification"), seen.get("crops")
            verified = (
                told
                and told["version"] == version
                and not told["unverified"]
                and not told.get("provisional")
            )
            return bool(verified and (not with_crops or (compared and not compared["missing"])))
        return False
