"""Named moments at which the kill tests end a process."""

from __future__ import annotations

import os
import signal
from collections import Counter

FAILPOINTS = (
    "file created",  # the temporary file exists
    "file written",  # the temporary file has all of its bytes, perhaps only in memory
    "file synced",  # the bytes of the temporary file are on disk
    "file renamed",  # the file has its final name, perhaps only in memory
    "file durable",  # the name is on disk
    "commit begun",  # a transaction holds the write lock
    "commit written",  # all rows are written
    "commit done",  # the rows are visible; the seal still has the generation before
    "commit sealed",  # the seal has the new generation
    "join pairs found",  # pairs were found that are not committed
    "compaction committed",  # the new segment is visible, the old files are still there
    "compaction swept",  # the old files are removed
    "migration linked",  # the segments of the new space have their names, and no row
    "migration committed",  # the new space is the store's; the old files are still there
    "migration swept",  # the old files are removed
    "repair saved",  # the catalog has a backup
    "repair committed",  # damaged segments are out of the catalog, their files are still in place
    "repair linked",  # a damaged catalog and all segments have a second name in quarantine
    "repair invalidated",  # the seal matches no catalog, so the store counts as damaged
    "repair replaced",  # there is a new catalog; the segments are still in place
    "action intended",  # the journal says that a victim will be moved
    "action prepared",  # what will stand in the place of the victim lies in quarantine
    "action linked",  # without renameat2: the victim has both its names
    "action moved",  # the victim is in quarantine, not verified
    "action verified",  # it is what the plan names, and the keeper is still there
    "action done",  # the journal says so
    "action undo intended",  # the journal says that a victim will be moved back
    "action taken",  # it and what stood in its place have changed places again
    "action restored",  # it is back; what stood in its place lies in quarantine
    "action undone",  # the journal says so
    "action purge intended",  # the journal says that a victim will be deleted
    "action deleted",  # it is deleted
    "action purged",  # the journal says so
    "merge intended",  # the journal says that fields will be added to a sidecar
    "merge prepared",  # the new sidecar lies in quarantine
    "merge moved",  # it has the place of the sidecar; the one of before lies in quarantine
    "merge verified",  # all is as it has to be
    "merge done",  # the journal says so
    "merge undo intended",  # the journal says that the sidecar of before will be put back
    "merge taken",  # a sidecar that was new lies in quarantine; or the two have changed places
    "merge restored",  # all is as before
    "merge undone",  # the journal says so
    "merge purge intended",  # the journal says that the sidecar of before will be deleted
    "merge deleted",  # it is deleted
    "merge purged",  # the journal says so
)
_hit_counts: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """End the process here, as kill -9 does, if NEARDUP_FAILPOINT asks for it.

    NEARDUP_FAILPOINT="commit begun:3" ends it at the third call with "commit begun"; without a
    number it ends at the first.
    """
    assert name in FAILPOINTS, name
    fatal_name, _, fatal_count = os.environ.get("NEARDUP_FAILPOINT", "").partition(":")
    if fatal_name == name:
        _hit_counts[name] += 1
        if _hit_counts[name] == int(fatal_count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
