"""The rejections of a store: they stand in for the keeper of a rejected photo that is moved."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from indexes.decisions import DecisionKind
from indexes.paths import quote
from indexes.records import Image
from indexes.store import Store
from pipeline.actions.entries import Entry
from pipeline.actions.folders import Refused
from pipeline.actions.plan import Part
from pipeline.actions.rejected_copies import RejectedCopies
from pipeline.decided import find_kept_hashes, find_rejections, load_decisions
from pipeline.errors import PlanRefused
from pipeline.grouping.decisions import Decisions


class Rejections:
    """The rejected photos of a store, as they are when they are first asked for.

    Hold the lock of the store's writers meanwhile, so that no decision is forgotten in between.
    """

    def __init__(self, store: Store) -> None:
        """Use the catalog of `store`, which has to stay open."""
        self._store = store

    @cached_property
    def _ids_by_hash(self) -> dict[str, str]:
        """The id of the decision by the blake3, in hex, of each content that may go."""
        with self._store.catalog.snapshot():
            copies = RejectedCopies(self._store)
            ids = dict[str, str]()
            for items in find_rejections(self._store).values():
                image = items[0].image
                if self._kept.isdisjoint((image.hash, image.pixel_hash)):
                    with suppress(Refused):  # a better copy than each rejected photo
                        ids[image.hash.hex()] = copies.choose(items).decision.id
            return ids

    @cached_property
    def _decisions(self) -> Decisions:
        return load_decisions(self._store)

    @cached_property
    def _kept(self) -> frozenset[bytes]:
        return find_kept_hashes(self._store)

    def require_current(self, ingest_run: str) -> None:
        """Raise PlanRefused if photos were ingested since the run of a plan.

        One of them may be a copy that is not rejected and needs a file of the plan as its keeper.
        """
        if (self._store.catalog.runs.get_newest_key() or "") != ingest_run:
            raise PlanRefused(
                "photos were ingested since this plan of rejected photos was made, and one may be a"
                " copy that is not rejected; make a new plan with `neardup plan --rejected`"
            )

    def find_decision(self, photo: Part) -> str:
        """Find the id of the decision that rejects a photo of the library, or a copy of it.

        Raises Refused if there is none any more.
        """
        id_ = self._ids_by_hash.get(photo.blake3)
        if id_ is None:
            raise Refused(f"{quote(photo.path)} is not rejected by any decision now")
        return id_

    def require_standing(self, entry: Entry) -> None:
        """Raise Refused unless the decision still stands by which a victim was moved away.

        Its photo is in no file of the library now, so that its verdicts may be gone: of a copy, the
        decision has to be there, and no other to keep it or to tell it from the rejected photo.
        """
        photo = bytes.fromhex(entry.rejected or "")
        image = self._get_image(photo)
        hashes = {photo} | ({image.pixel_hash} if image else set())
        path = quote(entry.path)
        if not self._kept.isdisjoint(hashes):
            raise Refused(f"{path} was rejected, and decided to be kept since")
        rejections = [item for item in self._decisions.all if item.kind is DecisionKind.REJECT]
        for decision in rejections:
            (content,) = decision.contents
            if hashes & {content.hash, content.pixel_hash}:
                return
        for decision in rejections:
            if decision.id == entry.group:
                known = self._decisions.get_known_hash(decision.contents[0])
                on_pair = [self._decisions.find_on_pair(known, hash_) for hash_ in hashes]
                if not any(found and found.kind is DecisionKind.DIFFERENT for found in on_pair):
                    return
        raise Refused(f"{path} is not rejected any more; `neardup undo` moves it back")

    def _get_image(self, hash_: bytes) -> Image | None:
        ids = self._store.catalog.images.get_ids([hash_])
        return dict(self._store.catalog.images.get(ids.values())).get(ids.get(hash_, -1))
