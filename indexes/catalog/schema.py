"""The tables of a store, as steps that are run in order; each store knows how many it has seen."""

from __future__ import annotations

import sqlite3
from contextlib import closing


def _first_schema(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE space (one INTEGER PRIMARY KEY CHECK (one = 1), backend TEXT NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,"
        " preprocess TEXT NOT NULL, dim INTEGER NOT NULL, floor REAL NOT NULL, threshold REAL NOT NULL, source TEXT NOT NULL) STRICT"
    )
    db.execute("CREATE TABLE roots (path BLOB PRIMARY KEY, excludes TEXT NOT NULL, hidden INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    db.execute(
        "CREATE TABLE segments (id INTEGER PRIMARY KEY, blake3 TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, size INTEGER NOT NULL) STRICT"
    )
    # AUTOINCREMENT: an id that was once in a segment never comes to mean another image.
    db.execute(
        "CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, pixels BLOB NOT NULL,"
        " width INTEGER NOT NULL, height INTEGER NOT NULL, format TEXT NOT NULL, size INTEGER NOT NULL, featureless INTEGER NOT NULL,"
        " segment INTEGER REFERENCES segments (id)) STRICT"
    )
    db.execute("CREATE INDEX images_by_pixels ON images (pixels)")
    db.execute(
        "CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,"
        " missing INTEGER NOT NULL DEFAULT 0, image INTEGER REFERENCES images (id)) STRICT"
    )
    db.execute("CREATE INDEX files_by_image ON files (image)")
    db.execute(
        "CREATE TABLE failures (file INTEGER PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE, reason TEXT NOT NULL, detail TEXT) STRICT"
    )
    db.execute(
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, outcome TEXT NOT NULL,"
        " coverage TEXT NOT NULL) STRICT"
    )


def _vectors_and_edges(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE generation (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT")
    db.execute("INSERT INTO generation VALUES (1, 0)")
    # Photos with the same pixels, and pictures that the model cannot tell apart, share one vector.
    db.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY AUTOINCREMENT, code INTEGER) STRICT")
    db.execute("CREATE INDEX vectors_by_code ON vectors (code)")
    db.execute("INSERT INTO vectors (id) SELECT id FROM images WHERE segment IS NOT NULL")
    db.execute("ALTER TABLE images ADD COLUMN vector INTEGER REFERENCES vectors (id)")
    db.execute(
        "UPDATE images SET vector = (SELECT min(other.id) FROM images AS other WHERE other.pixels = images.pixels"
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
    db.execute(
        # The newer of the two first: what a night adds stands together at the end. Whatever goes by the older scans, and is rare.
        "CREATE TABLE edges (left INTEGER NOT NULL, right INTEGER NOT NULL, score REAL NOT NULL, PRIMARY KEY (right, left),"
        " CHECK (left < right)) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE frontier (one INTEGER PRIMARY KEY CHECK (one = 1), floor REAL NOT NULL, through INTEGER NOT NULL,"
        " until INTEGER NOT NULL, earlier INTEGER NOT NULL, recall REAL NOT NULL) STRICT"
    )


def _notes(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE images ADD COLUMN notes TEXT NOT NULL DEFAULT ''")  # words with spaces between


def _evidence(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE evidence (first INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,"
        " second INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, version INTEGER NOT NULL, relation TEXT NOT NULL,"
        " told TEXT NOT NULL, PRIMARY KEY (first, second)) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX evidence_by_second ON evidence (second)")


def _metadata(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE images ADD COLUMN metadata TEXT NOT NULL DEFAULT ''")  # words with spaces between
    db.execute("ALTER TABLE images ADD COLUMN taken INTEGER")  # seconds since 1970, by the camera's clock


def _choice(db: sqlite3.Connection) -> None:
    # What answers go by unless more is said: the least cosine, and the least share of tiles that agree.
    db.execute("CREATE TABLE choice (one INTEGER PRIMARY KEY CHECK (one = 1), threshold REAL NOT NULL, strictness REAL NOT NULL) STRICT")


def expected() -> set[tuple[str, str, str]]:
    """(kind, name, definition) of all that a store of today's format has."""
    with closing(sqlite3.connect(":memory:")) as db:
        for migration in MIGRATIONS:
            migration(db)
        return set(db.execute(LISTED))


LISTED = "SELECT type, name, ifnull(sql, '') FROM sqlite_master"
# Run in order; user_version counts those done. Append only.
MIGRATIONS = (_first_schema, _vectors_and_edges, _notes, _evidence, _metadata, _choice)
