"""The work of requests, without HTTP: each method runs in a thread of its own."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from indexes.decisions import DecisionKind
from indexes.paths import PLANS_NAME, format_command
from indexes.store import Store
from pipeline.actions.plan import Plan
from pipeline.actions.plan_file import name_run, read_plan, write_plan
from pipeline.actions.plan_options import PlanOptions
from pipeline.decide.decide import decide, forget
from pipeline.decided import load_decisions
from pipeline.embed.embedder import DEFAULT_MODEL, Embedder, load_embedder
from pipeline.embed.model_errors import explain_model_errors
from pipeline.embed.paid_calls import MAX_UNCONFIRMED_CALLS
from pipeline.errors import PaidCallLimit, UnknownPhoto
from pipeline.query.compare import Comparison
from pipeline.query.freshness import refresh_answer
from pipeline.query.matches import MatchOptions, match_files
from pipeline.query.stored_pair import compare_stored
from pipeline.report.actions import serialize_plan_answer
from pipeline.report.comparison import serialize_comparison
from pipeline.report.decisions import find_decided_paths, serialize_decisions
from pipeline.report.format import format_failure
from pipeline.report.matches import serialize_answers
from pipeline.report.status import report_status, serialize_status
from pipeline.review.choices import Reviewer
from pipeline.review.listing import Listing
from pipeline.review.planning import ReviewPlan, plan_accepted
from pipeline.review.web.credentials import Credentials, PictureIds
from pipeline.review.web.pictures import Picture, make_large_picture, make_thumbnail
from pipeline.review.web.problems import Problem
from pipeline.review.web.stores import SharedDecoders, StorePool, Threads

Document = dict[str, Any]
PLAN_ID_PATTERN = re.compile("[0-9]{14}-[0-9a-f]{8}")  # the name of the run of a plan


class Service:
    """A store that is served: its groups, questions about uploads, decisions, plans.

    With `is_read_only` there is no `reviewer`, and nothing of the store is changed but caches.
    """

    def __init__(
        self, folder: Path, credentials: Credentials, author: str, *, is_read_only: bool
    ) -> None:
        """Open the listing, and what was reviewed unless `is_read_only`; close() them."""
        self.folder, self.credentials, self.author = folder, credentials, author
        self.is_read_only = is_read_only
        self.listing = Listing(folder)
        try:
            self.reviewer = None if is_read_only else Reviewer(folder, self.listing, author)
        except BaseException:
            self.listing.close()
            raise
        self.stores, self.threads = StorePool(folder), Threads()
        self.decoders = SharedDecoders()
        self.listing_failure: str | None = None  # why the last try to list the groups failed
        self.picture_ids = PictureIds(credentials.api_token)
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._paid_calls = 0

    def close(self) -> None:
        """End what runs, and close everything."""
        self.decoders.close()  # first, so that no thread waits for a file
        self.threads.close()
        self.stores.close_idle()
        self.listing.close()
        if self.reviewer:
            self.reviewer.close()

    # --- questions ---

    def query(self, path: Path, name: str) -> Document:
        """Answer what an uploaded file is to the library, in the schema of `neardup query`.

        Raises Problem for a file that is no photo, and the errors of a query.
        """
        with self.stores.use() as store, self.decoders.use() as decoders:
            embedder = self._get_embedder(store)
            with explain_model_errors(store, None):
                (answer,) = match_files([str(path)], store, embedder, decoders, MatchOptions())
            featureless = store.catalog.files.get_counts().featureless
        if failure := answer.failure:
            detail = format_failure(name or "the file", failure.reason, failure.detail)
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        return serialize_answers([refresh_answer(replace(answer, file=name))], featureless)

    def _get_embedder(self, store: Store) -> Embedder:
        """Return the model of the store, loaded once; a migration changes it."""
        name = store.model or DEFAULT_MODEL
        with self._lock:
            if self._embedder is None or self._embedder.name != name:
                self._embedder = load_embedder(name)
            self._paid_calls += self._embedder.count_paid_calls(1)
            if self._paid_calls > MAX_UNCONFIRMED_CALLS:
                raise PaidCallLimit(
                    f"{MAX_UNCONFIRMED_CALLS:,} paid requests to {name} were made since the server"
                    " started; start it again to make more"
                )
            return self._embedder

    def compare(self, first: bytes, second: bytes) -> Comparison:
        """Compare two images, by the blake3 of their bytes. Raises UnknownPhoto."""
        with self.stores.use() as store, self.decoders.use() as decoders:
            return compare_stored(store, [first, second], decoders)

    def explain(self, first: bytes, second: bytes) -> Document:
        """Explain how two images are related, in the schema of `neardup explain`."""
        comparison = self.compare(first, second)
        with self.stores.use() as store:
            space = store.space
            if space is None:
                raise UnknownPhoto("the store holds no photos")
            decisions = load_decisions(store)
        return serialize_comparison(comparison, space, space.threshold, None, decisions)

    def make_picture(self, image_hash: bytes, side_px: int | None = None) -> Picture:
        """Make a picture of an image from a file, or a thumbnail without `side_px`.

        Raises Problem where no file gives it.
        """
        with self.stores.use() as store, self.decoders.use() as decoders:
            if side_px is None:
                return make_thumbnail(store, image_hash, decoders)
            return make_large_picture(store, image_hash, side_px, decoders)

    def report_status(self) -> Document:
        """Report the store in the schema of `neardup status`."""
        with self.stores.use() as store:
            return serialize_status(report_status(store))

    # --- decisions ---

    def list_decisions(self) -> Document:
        """List all decisions in the schema of `neardup decide list`."""
        with self.stores.use() as store, store.catalog.snapshot():
            decisions = store.catalog.decisions.list()
            return serialize_decisions(decisions, find_decided_paths(store, decisions))

    def decide(self, kind: DecisionKind, paths: list[str]) -> Document:
        """Enter a decision on files of the library; no other file is read.

        Raises UnknownPhoto and DecisionRefused.
        """
        with Store(self.folder, write=True) as store:
            for path in paths:
                known = store.catalog.files.get_by_path(path)
                if known is None or known.image_id is None:
                    ingest = format_command(self.folder, "ingest", "FOLDER")
                    raise UnknownPhoto(f"no photo of the library has this path; see `{ingest}`")
            merged = decide(store, kind, paths, self.author)
            decisions = [*merged.new, *merged.known]
            with store.catalog.snapshot():
                return serialize_decisions(decisions, find_decided_paths(store, decisions))

    def forget(self, decision_id: str) -> Document:
        """Forget a decision. Raises UnknownDecision."""
        with Store(self.folder, write=True) as store:
            forgotten = forget(store, [decision_id])
            with store.catalog.snapshot():
                return serialize_decisions(forgotten, find_decided_paths(store, forgotten))

    # --- plans ---

    def make_plan(self, options: PlanOptions) -> tuple[Document, str]:
        """Plan what was accepted and save the plan; returns it, as `neardup plan`, and its id.

        The document also has the groups that are `passed_over`. Raises PlanRefused.
        """
        assert self.reviewer is not None  # there is no route to it otherwise
        made: ReviewPlan = plan_accepted(self.reviewer, options)
        plan_id = name_run(made.plan)
        path = self._get_plan_path(plan_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            if not path.exists():
                write_plan(made.plan, path)
        document = serialize_plan_answer(made.plan, str(path))
        document["passed_over"] = [
            {"id": item.group_id, "keeper": item.keeper, "reason": item.reason}
            for item in made.passed_over
        ]
        return document, plan_id

    def get_plan(self, plan_id: str) -> Document:
        """Return a plan in the schema of `neardup plan`. Raises Problem for an id without one."""
        return serialize_plan_answer(self.read_plan(plan_id), str(self._get_plan_path(plan_id)))

    def read_plan(self, plan_id: str) -> Plan:
        """Read a plan that make_plan() saved. Raises Problem for an id without one."""
        path = self._get_plan_path(plan_id)
        if not path.is_file():
            raise Problem(HTTPStatus.NOT_FOUND, "there is no plan with this id")
        return read_plan(path)

    def _get_plan_path(self, plan_id: str) -> Path:
        """Return the file of a plan. Raises Problem for an id that is not the name of a run."""
        if not PLAN_ID_PATTERN.fullmatch(plan_id):
            raise Problem(HTTPStatus.NOT_FOUND, "there is no plan with this id")
        return self.folder / PLANS_NAME / f"{plan_id}.json"
