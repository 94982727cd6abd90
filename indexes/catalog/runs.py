"""The table of runs: each ingest or migration, with its outcome and coverage."""

from __future__ import annotations

import json

from indexes.catalog.database import Database
from indexes.coverage import Coverage, JoinReport, parse_coverage
from indexes.records import Run, RunOutcome

# A run's key: no run of another catalog has it, nor has a later run of an older copy of this one.
RUN_KEY = "id || ' ' || started"


class RunTable:
    """The runs of a store, in the order in which they began."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def begin(self, started: str) -> int:
        """Note that an ingest began, and return the id of its run.

        A run that was killed is RUNNING until the next one begins; then it is INTERRUPTED.
        """
        self._database.write(
            "UPDATE runs SET outcome = ? WHERE outcome = ?",
            RunOutcome.INTERRUPTED,
            RunOutcome.RUNNING,
        )
        cursor = self._database.write(
            "INSERT INTO runs (started, outcome, coverage) VALUES (?, ?, '{}')",
            started,
            RunOutcome.RUNNING,
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def get_newest_key(self) -> str | None:
        """Return the key of the newest run, whatever its outcome; None before the first run."""
        sql = f"SELECT {RUN_KEY} FROM runs ORDER BY id DESC LIMIT 1"
        for (run_key,) in self._database.fetch_rows(sql):
            key: str = run_key
            return key
        return None

    def has(self, run_key: str | None) -> bool:
        """Tell if there is a run for which `get_newest_key` returned `run_key`."""
        sql = f"SELECT 1 FROM runs WHERE {RUN_KEY} = ?"
        return bool(self._database.fetch_rows(sql, run_key))

    def end(self, run_id: int, ended: str, outcome: RunOutcome, coverage: Coverage) -> None:
        """Write how a run ended."""
        self._database.write(
            "UPDATE runs SET ended = ?, outcome = ?, coverage = ? WHERE id = ?",
            ended,
            outcome,
            json.dumps(coverage.to_dict()),
            run_id,
        )

    def get_last_join(self) -> JoinReport | None:
        """Return the join of the newest run that joined or migrated; None where it has none."""
        sql = (
            "SELECT coverage FROM runs"
            " WHERE outcome = ? OR json_extract(coverage, '$.join') IS NOT NULL"
            " ORDER BY id DESC LIMIT 1"
        )
        for (coverage,) in self._database.fetch_rows(sql, RunOutcome.MIGRATED):
            parsed = self._database.parse(coverage, parse_coverage)
            return parsed.join if parsed else None
        return None

    def get_last(self) -> Run | None:
        """Return the newest ingest. Raises StoreDamaged."""
        sql = (
            "SELECT started, ended, outcome, coverage FROM runs"
            " WHERE outcome != ? ORDER BY id DESC LIMIT 1"
        )
        for started, ended, outcome, coverage in self._database.fetch_rows(
            sql, RunOutcome.MIGRATED
        ):
            return Run(
                started,
                ended,
                self._database.parse(outcome, RunOutcome),
                self._database.parse(coverage, parse_coverage),
            )
        return None

    def is_fully_verified(self, version: int, *, with_crops: bool) -> bool:
        """Tell if the run before the present one verified every pair by `version` of `verify`.

        False after a run that is not complete, or that left pairs unverified or provisional. With
        `with_crops`, it must also have embedded the crops of all images.
        """
        sql = "SELECT outcome, coverage FROM runs WHERE outcome != ? ORDER BY id DESC LIMIT 1"
        for outcome, coverage in self._database.fetch_rows(sql, RunOutcome.RUNNING):
            return outcome == RunOutcome.COMPLETE and _covers_all_pairs(
                self._database.parse(coverage, parse_coverage), version, with_crops=with_crops
            )
        return False


def _covers_all_pairs(coverage: Coverage | None, version: int, *, with_crops: bool) -> bool:
    if not coverage or not coverage.verification or coverage.verification.version != version:
        return False
    if coverage.verification.unverified or coverage.verification.provisional:
        return False
    return not with_crops or bool(coverage.crops and not coverage.crops.missing)
