"""The space that a store is bound to, and the thresholds that `calibrate --save` saved."""

from __future__ import annotations

from dataclasses import astuple

from indexes.catalog.database import Database
from indexes.records import SavedThresholds, Space


class SettingsTable:
    """The settings of a store: two tables of at most one row."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_space_and_model(self) -> tuple[Space, str] | None:
        """Return the space of the store and the name of its model; None before the first ingest.

        The name is the one that the model was asked for by.
        """
        rows = self._database.fetch_rows(
            "SELECT backend, model, weights, preprocess, dim, floor, threshold, model_name"
            " FROM space"
        )
        for *space, model_name in rows:
            return Space(*space), model_name
        return None

    def put_space(self, space: Space, model: str) -> None:
        """Bind the store to `space`, whose model was asked for by the name `model`."""
        self._database.write(
            "INSERT OR REPLACE INTO space VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(space),
            model,
        )

    def get_saved_thresholds(self) -> SavedThresholds | None:
        """Return the saved thresholds; None where none were saved."""
        rows = self._database.fetch_rows("SELECT threshold, min_agreement FROM saved_thresholds")
        return SavedThresholds(*rows[0]) if rows else None

    def put_saved_thresholds(self, thresholds: SavedThresholds | None) -> None:
        """Save thresholds in the place of earlier ones; None deletes those."""
        self._database.write("DELETE FROM saved_thresholds")
        if thresholds:
            self._database.write(
                "INSERT INTO saved_thresholds VALUES (1, ?, ?)",
                thresholds.threshold,
                thresholds.min_agreement,
            )
