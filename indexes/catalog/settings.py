"""The space that a store is bound to, and the thresholds that `calibrate --save` chose."""

from __future__ import annotations

from dataclasses import astuple

from indexes.catalog.database import Database
from indexes.records import (
    SavedThresholds,
    Space,
)


class SettingsTable:
    """The space that a store is bound to, and the thresholds that `calibrate --save` chose."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_space_and_model(self) -> tuple[Space, str] | None:
        """The space that the store is bound to and the model's name as it was given; None before the first ingest."""
        rows = self._database.fetch_rows(
            "SELECT backend, model, weights, preprocess, dim, floor, threshold, model_name FROM space"
        )
        return (Space(*rows[0][:7]), rows[0][7]) if rows else None

    def put_space(self, space: Space, model: str) -> None:
        """Bind the store to `space`, reached as the model `source`."""
        self._database.write(
            "INSERT OR REPLACE INTO space VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(space),
            model,
        )

    def get_saved_thresholds(self) -> SavedThresholds | None:
        """What was chosen to go by; None where nothing was."""
        rows = self._database.fetch_rows("SELECT threshold, min_agreement FROM saved_thresholds")
        return SavedThresholds(*rows[0]) if rows else None

    def put_saved_thresholds(self, thresholds: SavedThresholds | None) -> None:
        """Go by it from now on, or by none."""
        self._database.write("DELETE FROM saved_thresholds")
        if thresholds:
            self._database.write(
                "INSERT INTO saved_thresholds VALUES (1, ?, ?)",
                thresholds.threshold,
                thresholds.min_agreement,
            )
