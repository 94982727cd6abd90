"""Consent to the requests that cost money: how many a step takes, who agreed, and what to type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from pipeline.embed.embedder import Embedder
from pipeline.errors import PaidCallLimit

# Paid requests that a step makes without asking; more need --allow-cost or --max-calls.
MAX_UNCONFIRMED_CALLS = 1000


@dataclass(frozen=True, slots=True)
class PaidCallEstimate:
    """The most paid requests that a step takes to embed `image_count` images; `noun` names one."""

    calls: int
    image_count: int
    noun: str = "file"

    def describe(self) -> str:
        """Name the cost for a user: "up to 3 paid requests for 30 files"."""
        return f"up to {self.calls_text} for {self.images_text}"

    @property
    def calls_text(self) -> str:
        """The number of requests with its noun."""
        return f"{self.calls:,} paid request{'' if self.calls == 1 else 's'}"

    @property
    def images_text(self) -> str:
        """The number of images with their noun."""
        plural = "copies" if self.noun == "copy" else self.noun + "s"
        return f"{self.image_count:,} {self.noun if self.image_count == 1 else plural}"


class PaidCallBudget:
    """The paid requests that a user lets an embedder make, and how many of them were made.

    A user agrees by --allow-cost, by naming a limit with --max-calls, or silently where a step
    takes at most MAX_UNCONFIRMED_CALLS. With both options the limit holds. An embedder that runs
    on this machine makes no paid requests, so its budget never refuses.
    """

    def __init__(
        self, embedder: Embedder, max_calls: int | None = None, *, is_cost_accepted: bool = False
    ) -> None:
        """Allow `max_calls` requests (--max-calls; None for no limit); --allow-cost accepts any."""
        self._embedder = embedder
        self._max_calls = max_calls
        self._is_cost_accepted = is_cost_accepted
        self._calls_made = 0

    @property
    def is_paid(self) -> bool:
        """True if embedding an image with this embedder takes a paid request."""
        return self._embedder.count_paid_calls(1) > 0

    def estimate(
        self, image_count: int, noun: str = "file", *, batch_count: int = 1
    ) -> PaidCallEstimate:
        """Estimate the cost of embedding `batch_count` batches of `image_count` images each."""
        calls = self._embedder.count_paid_calls(image_count) * batch_count
        return PaidCallEstimate(calls, image_count * batch_count, noun)

    def require_consent(self, estimate: PaidCallEstimate, alternative: str) -> None:
        """Raise PaidCallLimit unless the user agreed to the requests of a step.

        A limit is consent: the step stops when it is reached. `alternative` completes "add
        --allow-cost to make them, or ...", such as "name a smaller --sample".
        """
        is_agreed = self._is_cost_accepted or self._max_calls is not None
        if not is_agreed and estimate.calls > MAX_UNCONFIRMED_CALLS:
            raise PaidCallLimit(
                f"{self._describe_cost(estimate)}; add --allow-cost to make them, or {alternative}"
            )

    def require_consent_to_all(self, estimate: PaidCallEstimate, alternative: str) -> None:
        """Raise PaidCallLimit unless the user agreed to a step that is useless if it stops early.

        Beside `require_consent`, this refuses a step that may take more than the limit.
        """
        if self._max_calls is not None and estimate.calls > self._max_calls:
            raise PaidCallLimit(
                f"{self._describe_cost(estimate)}, and --max-calls allows {self._max_calls:,},"
                f" so none was made; {alternative}, or raise the limit"
            )
        self.require_consent(estimate, alternative)

    def reserve(self, image_count: int) -> int:
        """Return how many of `image_count` images the limit pays for, and count their requests."""
        affordable = image_count
        while affordable and self._exceeds_limit(self._embedder.count_paid_calls(affordable)):
            affordable -= 1
        self._calls_made += self._embedder.count_paid_calls(affordable)
        return affordable

    def raise_limit_reached(self) -> NoReturn:
        """Raise PaidCallLimit for a step that `reserve` cut short."""
        if self._calls_made:
            made = PaidCallEstimate(self._calls_made, 0).calls_text
            verb = "was" if self._calls_made == 1 else "were"
            raise PaidCallLimit(
                f"{made} {verb} made, as many as --max-calls allows;"
                " run the same command again for the rest"
            )
        raise PaidCallLimit(
            f"{self._describe_cost(self.estimate(1, 'image'))},"
            f" and --max-calls allows {self._max_calls:,}, so none was made; raise the limit"
        )

    def _exceeds_limit(self, more_calls: int) -> bool:
        return self._max_calls is not None and self._calls_made + more_calls > self._max_calls

    def _describe_cost(self, estimate: PaidCallEstimate) -> str:
        verb = "takes" if estimate.image_count == 1 else "take"
        cost = f"{verb} up to {estimate.calls_text} to {self._embedder.name}"
        return f"{estimate.images_text} {cost}"
