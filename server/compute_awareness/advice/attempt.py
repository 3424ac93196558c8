"""One workload at one place, and what a change to it saves there: each change is estimated again."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..estimator import estimate
from ..memory.estimate import Estimate
from ..workload import AnyWorkload, parse_workload
from .answers import Change, Effect
from .place import Place, needed, verdict_at

HALF_DETAIL = (
    "activations and logits differ from float32 in about the third significant digit; norms still compute in float32"
)


def half(place: Place) -> str:
    """The 16-bit dtype that the place computes in natively."""
    return "bfloat16" if place.has_bfloat16 else "float16"


class Attempt:
    """Applies changes to one workload and writes down what they save at one place."""

    def __init__(self, workload: AnyWorkload, before: Estimate, place: Place) -> None:
        self.workload = workload
        self.before = before
        self.place = place
        self.now = needed(before, place)[0]

    def patched(self, patch: dict[str, Any]) -> Estimate:
        return estimate(parse_workload(self.workload.model_dump() | patch), self.place.compute_capability)

    def fits(self, after: Estimate) -> bool | None:
        if self.place.free_bytes is None:
            return None
        return verdict_at(after, self.place).status == "fits"

    def change(
        self,
        strategy: Any,
        title: str,
        patch: dict[str, Any],
        effect: Effect,
        *,
        detail: str,
        cost: str,
        code: str,
        slowdown: float = 1.0,
    ) -> Change:
        try:
            after = self.patched(patch)
        except InputError as error:  # the library refuses the combination, or it is not covered
            return self.no(strategy, f"{title}: {error}")
        size = needed(after, self.place)[0]
        if size >= self.now:
            return self.no(strategy, f"{title}: saves nothing here")
        return Change(
            strategy=strategy, title=title, applies=True, patch=patch,
            peak_before=self.now, peak_after=size, saving=self.now - size, host_bytes=after.host_bytes,
            fits=self.fits(after), effect=effect, effect_detail=detail, cost=cost, slowdown=slowdown, code=code,
        )  # fmt: skip

    def no(self, strategy: Any, why: str) -> Change:
        return Change(
            strategy=strategy, title=why, applies=False, peak_before=self.now, peak_after=self.now, saving=0,
            effect="equivalent",
        )  # fmt: skip

    def smaller_batch(
        self, batch_size: int, *, detail: str, code: str, stuck: str = "the batch is 1 already"
    ) -> Change:
        """The same inputs in more, smaller runs; `code` is the body of the loop over `batch`."""
        batch = self.largest("batch_size", batch_size)
        if batch is None:
            return self.no("smaller_batch", stuck)
        return self.change(
            "smaller_batch", f"batch {batch} instead of {batch_size}", {"batch_size": batch}, "equivalent",
            detail=detail,
            cost=f"{-(-batch_size // batch)} passes instead of one",
            code=f"for batch in torch.split(tokens, {batch}):\n    {code}",
        )  # fmt: skip

    def largest(self, field: str, most: int, **also: Any) -> int | None:
        """The largest value below `most` with which it fits, `also` changed with it; 1 where nothing is known of the
        place or nothing fits, half where it fits already."""
        if most <= 1:
            return None
        if self.fits(self.before):
            return most // 2
        if self.place.free_bytes is None or not self.fits(self.patched(also | {field: 1})):
            return 1
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.fits(self.patched(also | {field: middle})):
                low = middle
            else:
                high = middle
        return low
