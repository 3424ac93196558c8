"""The cheapest changes that together make a workload fit, and the largest value of a field that does.

A search over the real estimator: every combination that is offered was estimated as a whole and fits. Nothing is
offered where the place is not known, or where it fits as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import InputError
from ..memory.estimate import Estimate
from ..workload import AnyWorkload
from .answers import Change, Effect
from .attempt import code_at, patched
from .changes_further import further
from .once import estimated
from .place import Place, needed, takes
from .search import Tried, largest_up_to
from .strategies import changes
from .verdict import verdict_at

MOST_CHANGES = 3
"""Changes in one combination: more than that is another experiment, however it is called."""

_TRIED = 60  # combinations looked into; each costs some ten estimates
_LARGEST = 1 << 20
_RANK: dict[Effect, int] = {effect: rank for rank, effect in enumerate(get_args(Effect))}
# Fields for which "the largest that fits" is a question; in the order in which they are told.
SIZES = (
    "batch_size", "seq_len", "train_batch_size_tokens", "store_batch_size_prompts", "n_batches_in_buffer", "d_sae",
    "new_tokens", "lora_rank", "context_size", "gradient_accumulation",
)  # fmt: skip


@dataclass(frozen=True)
class _State:
    """A workload with some changes made to it."""

    workload: AnyWorkload
    estimate: Estimate
    made: tuple[Change, ...] = ()

    @property
    def cost(self) -> tuple[int, float, int, bool]:
        """How much it changes the science, then the time, then the code, then whether anything is lost at all."""
        return worst_effect(self.made), slowdown(self.made), len(self.made), not _costless(self.made)


def combinations(workload: AnyWorkload, before: Estimate, place: Place, limit: int = 3) -> list[Change]:
    """The cheapest changes, alone or up to three together, with which the workload fits the place; the best first.

    Ranked by what they do to the result, then by what they cost in time, then by their number; of equals first what
    costs nothing at all, then what saves most. `peak_before` and
    `peak_after` are bytes of the place's memory. Of two combinations one of which holds the other only the smaller
    is kept. Empty where the place is not known, where it fits already, and where nothing tried is enough.
    """
    if place.free_bytes is None or verdict_at(before, place).status == "fits":
        return []
    found: list[_State] = []
    waiting = [_State(workload, before)]
    seen: set[frozenset[str]] = set()
    tried = 0
    while waiting and tried < _TRIED:
        state = waiting.pop(0)
        if any(_holds(state, other) for other in found):
            continue
        tried += 1
        for change in _moves(state, place):
            made = (*state.made, change)
            key = frozenset(_named(one) for one in made)
            if key in seen or len(key) < len(made):
                continue
            seen.add(key)
            after = _patched(state.workload, change.patch, place)
            if after is None:
                continue
            following = _State(*after, made)
            if verdict_at(following.estimate, place).status == "fits":
                found.append(following)
            elif len(made) < MOST_CHANGES:
                waiting.append(following)
        waiting.sort(key=lambda waits: (len(waits.made), waits.cost))
        if len([one for one in found if worst_effect(one.made) == 0]) >= limit:
            break  # nothing that is left keeps the result better
    kept: list[_State] = []
    for state in sorted(found, key=lambda one: (one.cost, -_saved(one, before, place))):
        if not any(_holds(state, other) for other in kept):
            kept.append(state)
    whole = _needed(before, place)
    return [_as_change(_sought_anew(state, workload, before, place), workload, whole, place) for state in kept[:limit]]


def largest_that_fits(workload: AnyWorkload, place: Place, field: str) -> int | None:
    """The largest value of a numeric field with which the workload fits the place, all else as it is.

    None where even 1 does not fit, where the place is not known, or where the field makes no difference up to a
    million.

    Raises:
        InputError: the workload has no such field, or it is no size.
    """
    if field not in SIZES or getattr(workload, field, None) is None:
        known = [name for name in SIZES if getattr(workload, name, None) is not None]
        raise InputError(f"{field[:40]!r} is no size of this workload; accepted: {', '.join(known)}")
    if place.free_bytes is None:
        return None

    def tried(value: int) -> Tried:
        after = _patched(workload, {field: value}, place)
        if after is None:
            return Tried(False, None)
        return Tried(verdict_at(after[1], place).status == "fits", takes(after[1], place)[2])

    return largest_up_to(tried, place.free_bytes, _LARGEST)


def largest_sizes(
    workload: AnyWorkload,
    place: Place,
    fields: Iterable[str] = ("batch_size", "seq_len", "train_batch_size_tokens", "d_sae"),
) -> dict[str, int]:
    """`largest_that_fits` for those of `fields` that the workload has and for which there is an answer."""
    answers = {
        name: largest_that_fits(workload, place, name)
        for name in fields
        if name in SIZES and getattr(workload, name, None) is not None
    }
    return {name: value for name, value in answers.items() if value is not None}


def worst_effect(made: Iterable[Change]) -> int:
    """0 where all of them keep the result, 1 where numbers differ, 2 where it is another experiment."""
    return max((_RANK[change.effect] for change in made), default=0)


def slowdown(made: Iterable[Change]) -> float:
    """How many times longer it takes with all of them: the product of theirs."""
    factor = 1.0
    for change in made:
        factor *= change.slowdown
    return factor


def _costs(made: Iterable[Change]) -> str:
    """What they cost together: "none, usually faster" beside "2 passes instead of one" is "usually faster"."""
    costs = list(dict.fromkeys(change.cost for change in made if change.cost not in ("", "none")))
    if len(costs) > 1:
        costs = [cost.removeprefix("none, ") for cost in costs]
    return "; ".join(costs) or "none"


def _costless(made: Iterable[Change]) -> bool:
    return all(change.costless for change in made)


def _moves(state: _State, place: Place) -> list[Change]:
    """What can be changed from here: the usual changes and the further ones that save something."""
    tried = [*changes(state.workload, state.estimate, place), *further(state.workload, state.estimate, place)]
    done = {field for change in state.made for field in change.patch}
    return [change for change in tried if change.applies and change.patch and not done & set(change.patch)]


def _sought_anew(state: _State, workload: AnyWorkload, before: Estimate, place: Place) -> _State:
    """The same changes with those of a size last: beside the others a larger batch may do than was found before."""
    made = [change for change in state.made if not _is_size(change)]
    sizes = [change for change in state.made if _is_size(change)]
    if not sizes or len(state.made) == 1:
        return state
    current = _State(workload, before)
    for change in made:
        after = _patched(current.workload, change.patch, place)
        if after is None:
            return state
        current = _State(*after, (*current.made, change))
    for wanted in sizes:
        change = next((c for c in _moves(current, place) if _named(c) == _named(wanted)), None)
        after = None if change is None else _patched(current.workload, change.patch, place)
        if change is None or after is None:
            return state
        current = _State(*after, (*current.made, change))
    return current if verdict_at(current.estimate, place).status == "fits" else state


def _is_size(change: Change) -> bool:
    return bool(set(SIZES) & set(change.patch))


def _patched(workload: AnyWorkload, patch: dict[str, Any], place: Place) -> tuple[AnyWorkload, Estimate] | None:
    """The workload with the patch, and its estimate; None where the library refuses it or it is not covered."""
    try:
        after = patched(workload, patch)
        return after, estimated(after, place.compute_capability)
    except InputError:
        return None


def _holds(state: _State, other: _State) -> bool:
    """Whether `state` makes every change of `other`, and more."""
    return state is not other and {_named(c) for c in state.made} >= {_named(c) for c in other.made}


def _named(change: Change) -> str:
    """What a change is, whatever size it was given."""
    settings = [name if name in SIZES else f"{name}={value}" for name, value in sorted(change.patch.items())]
    return f"{change.strategy}: {', '.join(settings)}"


def _needed(result: Estimate, place: Place) -> int:
    return needed(result, place)[0]


def _saved(state: _State, before: Estimate, place: Place) -> int:
    return _needed(before, place) - _needed(state.estimate, place)


def _as_change(state: _State, workload: AnyWorkload, whole: int, place: Place) -> Change:
    """One change that stands for all that were made; a single one as it is."""
    made, after = state.made, _needed(state.estimate, place)
    if len(made) == 1:
        return made[0].model_copy(
            update={"peak_before": whole, "peak_after": after, "saving": whole - after, "fits": True}
        )
    worst = max(made, key=lambda change: _RANK[change.effect])
    patch: dict[str, Any] = {}
    for change in made:
        patch |= change.patch
    return Change(
        strategy="combination",
        title="; ".join(change.title for change in made),
        applies=True,
        patch=patch,
        peak_before=whole,
        peak_after=after,
        saving=whole - after,
        host_bytes=state.estimate.host_bytes,
        fits=True,
        effect=worst.effect,
        effect_detail="; ".join(dict.fromkeys(change.effect_detail for change in made if change.effect_detail)),
        cost=_costs(made),
        slowdown=slowdown(made),
        costless=_costless(made),
        code=code_at(
            workload,
            state.workload,
            state.estimate,
            place,
            by_layer=any(change.strategy == "layer_by_layer" for change in made),
        ),
    )
