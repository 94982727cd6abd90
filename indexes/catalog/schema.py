"""The tables of a store, as migrations that run in order.

`user_version` of a store counts the migrations that it has had. Their SQL never changes, for the
text of a table's definition is part of the format; a change is a new migration.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any


def _create_tables(db: sqlite3.Connection) -> None:
    """Create the tables of format 1."""
    db.execute(
        "CREATE TABLE space (one INTEGER PRIMARY KEY CHECK (one = 1), backend TEXT NOT NULL,"
        " model TEXT NOT NULL, weights TEXT NOT NULL,"
        " preprocess TEXT NOT NULL, dim INTEGER NOT NULL, floor REAL NOT NULL,"
        " threshold REAL NOT NULL, source TEXT NOT NULL) STRICT"
    )
    db.execute(
        "CREATE TABLE roots (path BLOB PRIMARY KEY, excludes TEXT NOT NULL,"
        " hidden INTEGER NOT NULL) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE segments (id INTEGER PRIMARY KEY, blake3 TEXT NOT NULL UNIQUE,"
        " rows INTEGER NOT NULL, size INTEGER NOT NULL) STRICT"
    )
    # AUTOINCREMENT: an id that was once in a segment is never given to another image.
    db.execute(
        "CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE,"
        " pixels BLOB NOT NULL,"
        " width INTEGER NOT NULL, height INTEGER NOT NULL, format TEXT NOT NULL,"
        " size INTEGER NOT NULL, featureless INTEGER NOT NULL,"
        " segment INTEGER REFERENCES segments (id)) STRICT"
    )
    db.execute("CREATE INDEX images_by_pixels ON images (pixels)")
    db.execute(
        "CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE,"
        " size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,"
        " missing INTEGER NOT NULL DEFAULT 0, image INTEGER REFERENCES images (id)) STRICT"
    )
    db.execute("CREATE INDEX files_by_image ON files (image)")
    db.execute(
        "CREATE TABLE failures (file INTEGER PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE,"
        " reason TEXT NOT NULL, detail TEXT) STRICT"
    )
    db.execute(
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT,"
        " outcome TEXT NOT NULL,"
        " coverage TEXT NOT NULL) STRICT"
    )


def _add_vectors_and_edges(db: sqlite3.Connection) -> None:
    """Give vectors ids of their own; add the generation, the edges and the join's watermark."""
    db.execute(
        "CREATE TABLE generation (one INTEGER PRIMARY KEY CHECK (one = 1),"
        " number INTEGER NOT NULL) STRICT"
    )
    db.execute("INSERT INTO generation VALUES (1, 0)")
    # Images with the same pixels, and images that the model cannot tell apart, share one vector.
    db.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY AUTOINCREMENT, code INTEGER) STRICT")
    db.execute("CREATE INDEX vectors_by_code ON vectors (code)")
    db.execute("INSERT INTO vectors (id) SELECT id FROM images WHERE segment IS NOT NULL")
    db.execute("ALTER TABLE images ADD COLUMN vector INTEGER REFERENCES vectors (id)")
    db.execute(
        "UPDATE images SET vector = (SELECT min(other.id) FROM images AS other"
        " WHERE other.pixels = images.pixels"
        " AND other.segment IS NOT NULL) WHERE segment IS NOT NULL"
    )
    db.execute("CREATE INDEX images_by_vector ON images (vector)")
    for column in ("first", "last", "rewrites", "mtime_ns", "ctime_ns", "inode"):
        db.execute(f"ALTER TABLE segments ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    db.execute(
        "UPDATE segments SET first = (SELECT min(id) FROM images WHERE segment = segments.id),"
        " last = (SELECT max(id) FROM images WHERE segment = segments.id)"
    )
    db.execute("ALTER TABLE images DROP COLUMN segment")
    # The key begins with the newer vector, so the edges that a night adds are adjacent at the end.
    # To find edges by the older vector, which is rare, SQLite scans the table.
    db.execute(
        "CREATE TABLE edges (left INTEGER NOT NULL, right INTEGER NOT NULL, score REAL NOT NULL,"
        " PRIMARY KEY (right, left),"
        " CHECK (left < right)) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE frontier (one INTEGER PRIMARY KEY CHECK (one = 1), floor REAL NOT NULL,"
        " through INTEGER NOT NULL,"
        " until INTEGER NOT NULL, earlier INTEGER NOT NULL, recall REAL NOT NULL) STRICT"
    )


def _add_flags(db: sqlite3.Connection) -> None:
    """Add the flags of images, as words with spaces between them."""
    db.execute("ALTER TABLE images ADD COLUMN notes TEXT NOT NULL DEFAULT ''")


def _add_verdicts(db: sqlite3.Connection) -> None:
    """Add the verdicts on image pairs."""
    db.execute(
        "CREATE TABLE evidence (first INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,"
        " second INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,"
        " version INTEGER NOT NULL, relation TEXT NOT NULL,"
        " told TEXT NOT NULL, PRIMARY KEY (first, second)) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX evidence_by_second ON evidence (second)")


def _add_metadata(db: sqlite3.Connection) -> None:
    """Add the metadata of images, as words with spaces between them, and the time of the shot.

    The time is in seconds since 1970, by the camera's clock.
    """
    db.execute("ALTER TABLE images ADD COLUMN metadata TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE images ADD COLUMN taken INTEGER")


def _add_saved_thresholds(db: sqlite3.Connection) -> None:
    """Add the least cosine, and the least share of tiles that agree, that `calibrate` saves."""
    db.execute(
        "CREATE TABLE choice (one INTEGER PRIMARY KEY CHECK (one = 1), threshold REAL NOT NULL,"
        " strictness REAL NOT NULL) STRICT"
    )


def _rename_to_glossary_words(db: sqlite3.Connection) -> None:
    """Rename tables, columns and JSON keys to the words of docs/glossary.md. No value changes."""
    for table, old, new in (
        ("images", "pixels", "pixel_hash"),
        ("images", "notes", "flags"),
        ("images", "taken", "taken_at"),
        ("vectors", "code", "digest"),
        ("roots", "hidden", "include_hidden"),
        ("space", "source", "model_name"),
        ("choice", "strictness", "min_agreement"),
        ("frontier", "through", "done"),
        ("frontier", "until", "block_end"),
        ("frontier", "earlier", "block_done"),
        ("evidence", "told", "record"),
    ):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for index in ("images_by_pixels", "vectors_by_code", "evidence_by_second"):
        db.execute(f"DROP INDEX {index}")
    for old, new in (
        ("choice", "saved_thresholds"),
        ("frontier", "join_watermark"),
        ("evidence", "verdicts"),
    ):
        db.execute(f"ALTER TABLE {old} RENAME TO {new}")
    db.execute("CREATE INDEX images_by_pixel_hash ON images (pixel_hash)")
    db.execute("CREATE INDEX vectors_by_digest ON vectors (digest)")
    db.execute("CREATE INDEX verdicts_by_second ON verdicts (second)")
    # A verdict was provisional when its version was negative.
    db.execute("ALTER TABLE verdicts ADD COLUMN provisional INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE verdicts SET provisional = 1, version = -version WHERE version < 0")
    db.create_function("rename_verdict_keys", 1, _rename_verdict_keys, deterministic=True)
    db.execute("UPDATE verdicts SET record = rename_verdict_keys(record)")
    db.create_function("rename_coverage_keys", 1, _rename_coverage_keys, deterministic=True)
    db.execute("UPDATE runs SET coverage = rename_coverage_keys(coverage)")


def _add_image_metadata(db: sqlite3.Connection) -> None:
    """Add what the files of images say of themselves, as JSON; see indexes.metadata."""
    db.execute(
        "CREATE TABLE metadata (image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,"
        " version INTEGER NOT NULL, record TEXT NOT NULL) STRICT"
    )


def _add_decisions(db: sqlite3.Connection) -> None:
    """Add the decisions of people, as JSON, see indexes.decisions; and the hashes in them."""
    db.execute(
        "CREATE TABLE decisions (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE decided_contents (decision TEXT NOT NULL REFERENCES decisions (id)"
        " ON DELETE CASCADE, hash BLOB NOT NULL, pixel_hash BLOB NOT NULL,"
        " PRIMARY KEY (decision, hash)) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX decided_contents_by_hash ON decided_contents (hash)")


_VERDICT_KEYS = {
    "keypoints": "inliers",
    "agree": "agreeing_share",
    "moved": "displaced_share",
    "matrix": "homography",
    "changes": "edits",
}
_EDIT_KEYS = {
    "turned": "quarter_turn_deg",
    "rotated": "rotation_deg",
    "stretched": "anisotropic",
    "covers": "overlap",
    "inside": "embedded_side",
    "plain": "plain_background",
    "grey": "grayscale_side",
    "toned": "recolored",
    "spoiled": "changed_regions",
    "derived": "derived_side",
    "enlarged": "upscaled_side",
}
_SIDE_KEYS = ("embedded_side", "grayscale_side", "derived_side", "upscaled_side")
_COVERAGE_KEYS = {
    "noted": "flagged",
    "notes": "warnings",
    "unseen": "unreadable_paths",
    "parts": "crops",
}
_VERIFICATION_KEYS = {"found": "relations", "unseen": "unverified", "unsure": "provisional"}
_JOIN_KEYS = {"way": "method", "why": "reason"}


def _rename_keys(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in record.items()}


def _rename_verdict_keys(text: str) -> str:
    record = _rename_keys(json.loads(text), _VERDICT_KEYS)
    if record.get("edits"):
        edits = _rename_keys(record["edits"], _EDIT_KEYS)
        record["edits"] = edits | {key: edits.get(key) or None for key in _SIDE_KEYS}
    return json.dumps(record, separators=(",", ":"))


def _rename_coverage_keys(text: str) -> str:
    coverage = _rename_keys(json.loads(text), _COVERAGE_KEYS)
    if coverage.get("verification"):
        coverage["verification"] = _rename_keys(coverage["verification"], _VERIFICATION_KEYS)
    if coverage.get("crops"):
        coverage["crops"] = _rename_keys(coverage["crops"], {"lacking": "missing"})
    if coverage.get("join"):
        join = _rename_keys(coverage["join"], _JOIN_KEYS)
        join["method"] = {"buckets": "ivf"}.get(join["method"], join["method"])
        if join.get("recall"):
            join["recall"] = _rename_keys(join["recall"], {"at_least": "lower_bound_95"})
        coverage["join"] = join
    return json.dumps(coverage)


def build_expected_schema() -> set[tuple[str, str, str]]:
    """Return (type, name, SQL) of all tables and indexes of the newest format."""
    with closing(sqlite3.connect(":memory:")) as db:
        for migration in SCHEMA_MIGRATIONS:
            migration(db)
        return set(db.execute(SCHEMA_QUERY))


SCHEMA_QUERY = "SELECT type, name, ifnull(sql, '') FROM sqlite_master"
# In the order in which they run. Append only.
SCHEMA_MIGRATIONS = (
    _create_tables,
    _add_vectors_and_edges,
    _add_flags,
    _add_verdicts,
    _add_metadata,
    _add_saved_thresholds,
    _rename_to_glossary_words,
    _add_image_metadata,
    _add_decisions,
)
