"""The mapped segments of a store, kept in step with its catalog."""

from __future__ import annotations

from pathlib import Path

from indexes.catalog.catalog import Catalog
from indexes.vectors.rows import VectorRows
from indexes.vectors.segments import Segment


class MappedSegments:
    """The segments that the newest commit names; each is mapped once."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        """Map the segments in `folder` that `catalog` names, at the first call that needs them."""
        self._folder, self._catalog = folder, catalog
        self._by_name: dict[str, Segment] = {}

    def refresh(self) -> list[Segment]:
        """Map new segments, release those that are gone, and list all in the order of their ids.

        Raises StoreDamaged, naming the file.
        """
        with self._catalog.snapshot():  # a migration replaces both at once
            bound = self._catalog.settings.get_space_and_model()
            rows = self._catalog.vectors.list_segments()
        if bound:
            space, _ = bound
            mapped = self._by_name
            self._by_name = {
                row.blake3: mapped.get(row.blake3) or Segment(self._folder, row, space.dim)
                for row in rows
            }
        return list(self._by_name.values())

    def get_rows(self) -> VectorRows:
        """Refresh, and get the vectors of all segments as rows."""
        return VectorRows(self.refresh())

    def close(self) -> None:
        """Release all segments."""
        self._by_name = {}
