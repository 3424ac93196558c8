"""More cards than one: a model split over them, or a batch divided among them, on those that the place has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..workload import ActivationCache, AnyWorkload, Inference, Training
from .answers import Change
from .attempt import Attempt
from .cards import numbers
from .several import splits

_SAME_GRADIENT = "the same gradient up to rounding, where the loss is averaged over equal numbers of tokens"
_MOST_TRIED = 16


def several_cards(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    """What is to be had of the place's cards: all that were named; of a machine that was seen the fewest that do.

    Of a machine only cards are counted on that nobody else uses, those with the most free memory first: the fewest on
    which the change fits, each of them; where it fits on none, the number that comes nearest to it.
    """
    place = attempt.place
    if place.count < 2 or getattr(workload, "n_devices", place.count) > 1:
        return
    if isinstance(workload, Training):
        if place.cards is not None and not place.cards.nccl:
            return
        yield from _best(attempt, lambda count: _divided(attempt, workload, count))
        if workload.library == "transformers":
            yield from _best(attempt, lambda count: _shared_out(attempt, workload, count))
    elif isinstance(workload, Inference | ActivationCache) and splits(workload.model_dump()) == "estimated":
        yield from _best(attempt, lambda count: _split(attempt, count))


def _best(attempt: Attempt, on: Callable[[int], Change | None]) -> Iterator[Change]:
    """The change with the best number of cards. Those that the library refuses are not told apart by number."""
    place = attempt.place
    if place.cards is None:
        counts = [place.count]
    else:
        counts = [count for count in range(2, place.count + 1) if count <= _MOST_TRIED or count == place.count]
    found: list[tuple[int, Change]] = []
    for count in counts:
        change = on(count)
        if change is None:
            continue
        if change.fits:
            yield change
            return
        least = place.free_bytes if place.cards is None else place.cards.of(count)[-1].free_bytes
        found.append(((least or 0) - change.peak_after, change))
    if found:
        yield max(found, key=lambda one: (one[1].applies, one[0]))[1]


def _divided(attempt: Attempt, workload: Training, count: int) -> Change | None:
    if workload.batch_size % count:
        return None
    batch = workload.batch_size // count
    return attempt.change(
        "several_gpus", f"batch {batch} on each of {_on(attempt, count, 'DistributedDataParallel')}",
        {"n_devices": count, "batch_size": batch, "gradient_as_bucket_view": True}, "equivalent",
        detail=_SAME_GRADIENT,
        cost=f"none: {count} cards work at once, and exchange their gradients in every step",
    )  # fmt: skip


def _shared_out(attempt: Attempt, workload: Training, count: int) -> Change | None:
    if workload.batch_size % count:
        return None
    batch = workload.batch_size // count
    return attempt.change(
        "several_gpus", f"batch {batch} and a share of the model on each of {_on(attempt, count, 'fully_shard')}",
        {"n_devices": count, "batch_size": batch, "parallel": "fsdp"}, "equivalent",
        detail=_SAME_GRADIENT,
        cost=f"{count} cards work at once; parameters cross between them twice in every step, gradients once",
        slowdown=1.2,
    )  # fmt: skip


def _split(attempt: Attempt, count: int) -> Change:
    return attempt.change(
        "several_gpus", f"layers split over {_on(attempt, count, 'device_map')}", {"n_devices": count}, "equivalent",
        detail="the same arithmetic, each layer on the card that holds it",
        cost="the cards work one after another; activations cross between them once per card",
        slowdown=1.1,
    )  # fmt: skip


def _on(attempt: Attempt, count: int, by: str) -> str:
    """ "2 cards (device_map)"; of a machine that was seen their numbers, and why the others are not counted on."""
    cards = attempt.place.cards
    if cards is None:
        return f"{count} cards ({by})"
    counted = cards.of(count)
    why = cards.not_counted(counted)
    return f"{numbers(card.index for card in counted)} ({by}{f'; {why}' if why else ''})"
