"""One workload at one place, and what a change to it saves there: each change is estimated again."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..memory.estimate import Estimate
from ..memory.sae.activation_store import smallest_buffer
from ..workload import TASKS, ActivationCache, AnyWorkload, Patching, SaeTraining, parse_workload
from .answers import Change, Effect
from .code import code_of
from .once import estimated
from .place import Place, needed, takes
from .search import Tried, largest_below
from .verdict import selection, verdict_at

HALF_DETAIL = (
    "activations and logits differ from float32 in about the third significant digit; norms still compute in float32"
)


def half(place: Place) -> str:
    """The 16-bit dtype that the place computes in natively."""
    return "bfloat16" if place.has_bfloat16 else "float16"


def faster(place: Place) -> str:
    """What 16 bits do to the time there."""
    if place.kind == "cpu":
        return "on a CPU without 16-bit arithmetic of its own several times slower, else none"
    return "none, usually faster"


def patched(workload: AnyWorkload, patch: dict[str, Any]) -> AnyWorkload:
    """The workload with the fields of `patch`; where that names another task, without the fields that it has not.

    Raises:
        InputError: the library refuses the combination.
    """
    fields = workload.model_dump()
    kind = TASKS.get(patch.get("task", workload.task))
    if kind is not None and "task" in patch:
        fields = {name: value for name, value in fields.items() if name in kind.model_fields}
    return parse_workload(fields | patch)


def code_at(before: AnyWorkload, after: AnyWorkload, takes: Estimate, place: Place, *, by_layer: bool) -> str:
    """The code of the changed workload there, `takes` the estimate of it. Where it is for some of the cards of a
    machine, it says how a process gets those: "cuda" and torchrun's ranks take the first ones, device_map="auto" every
    card that it sees."""
    code = code_of(before, after, by_layer=by_layer, device=place.torch_device)
    select = selection(takes, place)
    return f"# Start it with {select}\n{code}" if code and select else code


class Attempt:
    """Applies changes to one workload and writes down what they save at one place."""

    def __init__(self, workload: AnyWorkload, before: Estimate, place: Place) -> None:
        self.workload = workload
        self.before = before
        self.place = place
        self.now = needed(before, place)[0]

    def patched(self, patch: dict[str, Any]) -> Estimate:
        return estimated(patched(self.workload, patch), self.place.compute_capability)

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
        slowdown: float = 1.0,
        code: str | None = None,
        by_layer: bool = False,
        costless: bool = False,
    ) -> Change:
        """The change with what it saves. `code` None = what the patched workload is written otherwise; `by_layer`: it
        is run once for each layer."""
        try:
            changed = patched(self.workload, patch)
            enough = _batches_in_buffer(changed)
            if enough is not None:  # SAELens itself would stop: the estimate counts the smallest buffer that runs
                patch = patch | {"n_batches_in_buffer": enough}
                title += f", with n_batches_in_buffer {enough}, the smallest that SAELens takes"
                changed = patched(self.workload, patch)
            after = estimated(changed, self.place.compute_capability)
        except InputError as error:  # the library refuses the combination, or it is not covered
            return self.no(strategy, f"{title}: {error}")
        size = needed(after, self.place)[0]
        # The rest of what a card shows is a rule of thumb for some tasks: it alone is no saving.
        if size >= self.now or after.peak.tensors >= self.before.peak.tensors:
            return self.no(strategy, f"{title}: saves nothing here")
        if code is None:
            code = code_at(self.workload, changed, after, self.place, by_layer=by_layer)
        return Change(
            strategy=strategy, title=title, applies=True, patch=patch,
            peak_before=self.now, peak_after=size, saving=self.now - size, host_bytes=after.host_bytes,
            fits=self.fits(after), effect=effect, effect_detail=detail, cost=cost, slowdown=slowdown, code=code,
            costless=costless,
        )  # fmt: skip

    def no(self, strategy: Any, why: str) -> Change:
        return Change(
            strategy=strategy, title=why, applies=False, peak_before=self.now, peak_after=self.now, saving=0,
            effect="equivalent",
        )  # fmt: skip

    def only_read(self, workload: ActivationCache | Patching) -> Change | None:
        """The cache of what the experiment reads and no more; None where it does not say, or has that filter."""
        reads = workload.reads
        if reads is None or workload.names_filter == reads:
            return None
        shown = ", ".join(reads[:2]) + (f" and {len(reads) - 2} more" if len(reads) > 2 else "")
        return self.change(
            "selective_caching", f"cache only what is read: {shown} (names_filter)", {"names_filter": reads},
            "equivalent",
            detail="nothing that is read is left out, nothing else is kept",
            cost="none",
            costless=True,
        )  # fmt: skip

    def smaller_batch(self, batch_size: int, *, detail: str, stuck: str = "the batch is 1 already") -> Change:
        """The same inputs in more, smaller runs."""
        batch = self.largest("batch_size", batch_size)
        if batch is None:
            return self.no("smaller_batch", stuck)
        return self.change(
            "smaller_batch", f"batch {batch} instead of {batch_size}", {"batch_size": batch}, "equivalent",
            detail=detail,
            cost=f"{-(-batch_size // batch)} passes instead of one",
        )  # fmt: skip

    def largest(self, field: str, most: int, least: int = 1, **also: Any) -> int | None:
        """The largest value below `most` with which it fits, `also` changed with it; `least` where nothing is known of
        the place or nothing fits, half where it fits already."""
        if most <= least:
            return None
        if self.fits(self.before):
            return max(least, most // 2)
        free = self.place.free_bytes
        if free is None or not (at_least := self.tried(also | {field: least})).fits:
            return least
        at_most = Tried(False, None if also else takes(self.before, self.place)[2])
        return largest_below(lambda value: self.tried(also | {field: value}), free, least, at_least, most, at_most)

    def tried(self, patch: dict[str, Any]) -> Tried:
        """Whether it fits with the patch, which the library may refuse."""
        try:
            after = self.patched(patch)
        except InputError:
            return Tried(False, None)
        return Tried(bool(self.fits(after)), takes(after, self.place)[2])

    def fits_with(self, patch: dict[str, Any]) -> bool:
        return self.tried(patch).fits


def _batches_in_buffer(workload: AnyWorkload) -> int | None:
    """The n_batches_in_buffer that SAELens needs, where it is not given; None where it is."""
    if not isinstance(workload, SaeTraining) or workload.library != "sae_lens" or workload.model is None:
        return None
    enough = smallest_buffer(workload.train_batch_size_tokens, workload.context_size)
    return enough if workload.n_batches_in_buffer < enough else None
