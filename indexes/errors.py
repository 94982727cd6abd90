"""Errors of a store.

StoreError (1)
├── StoreMissing (10)           there is no store in the folder
├── StoreLocked (11)            another neardup is writing
├── DiskFull (12)               the disk is full or a quota is reached
├── StoreVersionMismatch (4)    made by another version of neardup, or no neardup store at all
├── StoreDamaged (4)            bytes on disk are not what was written
├── SpaceMismatch (2)           the store holds vectors of another model
├── InvalidThreshold (2)        a threshold below the floor of the store, or above 1
└── InvalidVector (1)           vectors that cosine cannot compare

The number is the exit code of a command that ends with the error.
"""


class StoreError(Exception):
    """The base of all store errors; the message says what, where, and what to do next."""

    exit_code = 1


class StoreMissing(StoreError):
    """There is no store in the folder."""

    exit_code = 10


class StoreLocked(StoreError):
    """Another process holds the lock that this operation needs."""

    exit_code = 11


class DiskFull(StoreError):
    """The disk is full or a quota is reached; all that was committed stays."""

    exit_code = 12


class StoreVersionMismatch(StoreError):
    """The format of the store is not one that this neardup reads."""

    exit_code = 4


class StoreDamaged(StoreError):
    """Bytes on disk are not what was written."""

    exit_code = 4


class SpaceMismatch(StoreError):
    """Vectors of one space were offered to a store of another."""

    exit_code = 2


class InvalidThreshold(StoreError):
    """A threshold below the floor of the store, or above 1."""

    exit_code = 2


class InvalidVector(StoreError):
    """Rows that are not finite unit vectors of the store's dimension."""
