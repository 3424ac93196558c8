"""Whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..memory.card import device
from ..memory.estimate import Estimate
from ..units import gib
from .answers import Verdict
from .cards import Card, Cards, names, numbers
from .gpus import UNEVEN_SPLIT
from .place import Place, loads_most, needed, takes
from .several import cards_help, processes, splits, why_not


def judge(needed: int, low: int, high: int, free: int | None, device: str) -> Verdict:
    """Hold an estimate against free memory. All figures are bytes.

    `needed` is the figure expected, `low` and `high` the range it may lie in (low <= needed <= high). `free` is what
    the process can still take on `device`; None where that is not known. `fits` is only said where `high` fits too:
    green means it runs.
    """
    low, high = min(low, needed), max(high, needed)
    need = f"about {gib(needed)} ({gib(low)} to {gib(high)})"
    if free is None:
        return Verdict(
            status="unknown", device=device, free_bytes=None, needed_bytes=needed, headroom_bytes=None,
            why=f"It needs {need}; how much is free on {device} is not known.",
        )  # fmt: skip
    has = f"{device} has {gib(free)}"
    if high <= free:
        status, why = "fits", f"It needs {need} and {has}: room even at the high end."
    elif low > free:
        status, why = "does_not_fit", f"It needs {need} but {has}: {gib(low - free)} short even at the low end."
    elif needed <= free:
        status, why = "tight", f"It needs {need} and {has}: it should fit, but may be {gib(high - free)} short."
    else:
        status, why = "tight", f"It needs {need} but {has}: it may run out of memory, and fits only near the low end."
    return Verdict(
        status=status, device=device, free_bytes=free, needed_bytes=needed, headroom_bytes=free - needed, why=why
    )


def _judged(need: tuple[int, int, int], estimate: Estimate, place: Place, device: str) -> Verdict:
    """`judge` where `need` is what is needed at the place; `device` in words."""
    verdict = judge(*need, place.free_bytes, device)
    expected, _, high = takes(estimate, place)
    if verdict.status == "fits" and place.free_bytes is not None and high > place.free_bytes:
        verdict.why = (
            f"It fits in the {gib(place.free_bytes)} that {device} has, and may use all of it: with more room it takes "
            f"{gib(expected)} (up to {gib(high)}); with less, torch gives back what it keeps idle before it fails, and "
            "played so it runs."
        )
    return verdict


def verdict_at(estimate: Estimate, place: Place) -> Verdict:
    """Whether the estimate fits the place. Green only where loading the weights fits the RAM as well."""
    expected, low, high = needed(estimate, place)
    filled, cards = estimate.workload, estimate.workload.get("n_devices", 1)
    if cards > 1 and place.cards is not None:
        return _on_seen(estimate, place, place.cards, cards)
    if place.count > 1 and cards > place.count:
        why = f"It is to run on {cards} cards (n_devices), and {place.name} are {place.count}."
        return _too_few(expected, place, why)
    too_large = cards == 1 and place.free_bytes is not None and high > place.free_bytes
    if too_large and place.cards is None and place.count > 1 and splits(filled) == "rough":
        verdict = _over_several(expected, low, high, place)
        _look_at_loading(verdict, estimate, place)
        return verdict
    one_of = place.count > 1 and place.cards is None
    verdict = _judged((expected, low, high), estimate, place, f"one of {place.name}" if one_of else place.name)
    verdict.device = place.name
    if too_large:
        verdict.why += _with_more(filled, expected, place)
    verdict.why += of_its_card(verdict, estimate, place)
    _look_at_loading(verdict, estimate, place)
    return verdict


def of_one(verdict: Verdict) -> bool:
    """Whether what is free is that of one card, of several that were named: the run as given uses no more."""
    return f"one of {verdict.device}" in verdict.why


_LOADING = " Its worst moment is while the weights are loaded, not the run itself."


def while_loading(verdict: Verdict) -> bool:
    """Whether what it needs is for loading the weights, and the run itself takes less."""
    return _LOADING in verdict.why


def _look_at_loading(verdict: Verdict, estimate: Estimate, place: Place) -> None:
    """Say where loading is the worst moment, and take green back where the RAM does not hold it."""
    filled = estimate.workload
    if place.kind in ("gpu", "cpu") and loads_most(estimate, place):
        verdict.why += _LOADING
    if verdict.status == "fits" and place.kind != "cpu" and place.host_free_bytes is not None:
        beside = estimate.host_bytes
        if filled.get("offload") == "cpu" or filled.get("max_memory"):  # what was loaded is what waits there
            beside = max(0, beside - estimate.loading_host_bytes)
        count = processes(filled)
        ram = count * device.cpu_process_bytes(estimate.loading_host_bytes + beside)
        if ram > place.host_free_bytes:
            verdict.status = "tight"
            verdict.why += (
                f" But loading takes about {gib(ram)} of RAM at its worst moment"
                f"{f' in {count} processes' if count > 1 else ''} (rough) and "
                f"{gib(place.host_free_bytes)} is free: it may die while loading."
            )


def _on_seen(estimate: Estimate, place: Place, cards: Cards, count: int) -> Verdict:
    """A workload that asks for several cards (`n_devices`), on those of a machine that was seen: it must fit the one
    with the least to spare."""
    counted = _counted_on(estimate, place, cards, count)
    which = numbers(card.index for card in counted)
    left_out = cards.not_counted(counted)
    if len(counted) < count:
        has = f"only {which} can be counted on" if counted else "none can be joined with others"
        if cards.count == 1:
            has, left_out = f"{place.name} is the only one", ""
        why = f"It is to run on {count} cards (n_devices), and {has}{f': {left_out}' if left_out else ''}."
        return _too_few(needed(estimate, place)[0], place, why)

    def spare(card: Card) -> int:
        return card.free_bytes - takes(estimate, _at(card, place))[2]

    counted = tuple(sorted(counted, key=spare, reverse=True))
    worst = counted[-1]
    alike = len({card.free_bytes for card in counted}) == 1
    on = f"each of {which}" if alike else f"card {worst.index} (least to spare of {which})"
    on_it = _at(worst, place)
    verdict = _judged(needed(estimate, on_it), estimate, on_it, on)
    verdict.device = f"{place.machine}'s {names(counted)}" if place.machine else names(counted)
    shared = [card.index for card in counted if card in cards.shared]
    older = _of_another_kind(counted, place)
    if shared:
        verdict.why += f" Others use {numbers(shared)} and may take more."
    if older:
        verdict.why += f" {numbers(older).capitalize()} may take more for attention: one side is before Ampere."
    if verdict.status == "fits" and older:
        verdict.status = "tight"
    if left_out:
        verdict.why += f" {left_out[0].upper()}{left_out[1:]}."
    verdict.why += of_its_card(verdict, estimate, place)
    _look_at_loading(verdict, estimate, place)
    return verdict


def _at(card: Card, place: Place) -> Place:
    """One of the cards of the place."""
    return replace(place, compute_capability=card.compute_capability, free_bytes=card.free_bytes)


def _counted_on(estimate: Estimate, place: Place, cards: Cards, count: int) -> tuple[Card, ...]:
    """The `count` cards that a workload of so many is counted on: those that others use last, unless it fits better
    on the roomiest ones, theirs among them, of any generation or of one."""

    def fit(chosen: tuple[Card, ...]) -> list[bool]:
        needs = [needed(estimate, _at(card, place)) for card in chosen]
        rooms = [card.free_bytes for card in chosen]
        may, will = (all(need[n] <= room for need, room in zip(needs, rooms, strict=True)) for n in (1, 2))
        return [may, will and not _of_another_kind(chosen, place)]

    choices = (cards.of(count), cards.roomiest(count), cards.roomiest_of_any(count), *cards.of_one_generation(count))
    return max(choices, key=fit)


def _of_another_kind(chosen: Sequence[Card], place: Place) -> list[int]:
    """Numbers of the cards on which attention may take more than was estimated for the place's. All of them newer:
    none, as what is estimated for a card before Ampere is no less than what newer ones take."""
    other = [card.index for card in chosen if card.other_generation]
    newer = place.compute_capability is not None and float(place.compute_capability) < 8.0
    return [] if newer and len(other) == len(chosen) else other


def _too_few(expected: int, place: Place, why: str) -> Verdict:
    return Verdict(
        status="does_not_fit", device=place.name, free_bytes=place.free_bytes, needed_bytes=expected,
        headroom_bytes=None, why=why,
    )  # fmt: skip


def _with_more(filled: dict[str, Any], expected: int, place: Place) -> str:
    """What more than one card would do for a run that is too large for one, as a sentence with a space before it;
    empty where there are no more."""
    split, cards = splits(filled), place.cards
    if cards is None:
        if place.count == 1:
            return ""
        if split == "estimated":
            return (
                f" As given it uses one card; n_devices {place.count} (device_map='auto') splits the layers over them."
            )
        return f" {why_not(filled)}"
    which = numbers(card.index for card in cards.free)
    left_out = cards.not_counted(cards.free)
    if place.count == 1:
        return ""
    left_out = f"; {left_out}" if left_out else ""
    if split == "none":
        counted = f" {which.capitalize()} can be counted on{left_out}." if cards_help(filled) else ""
        return f" {why_not(filled)}{counted}"
    enough = [
        count for count in range(2, place.count + 1) if expected // count <= cards.of(count)[-1].free_bytes
    ]  # no split leaves less on the fullest than an even one
    if not enough:
        return f" More cards are not enough: split over {which} it is {gib(expected // place.count)} each{left_out}."
    on = numbers(card.index for card in cards.of(enough[-1]))
    if split == "estimated":
        return (
            f" As given it uses one card; n_devices {enough[-1]} (device_map='auto') splits the layers over "
            f"{on}{left_out}."
        )
    share = gib(int(expected / enough[-1] * UNEVEN_SPLIT))
    return (
        f" As given it uses one card; of a split by layers over {on} no estimate is made, the fullest would hold "
        f"roughly {share}{left_out}."
    )


def of_its_card(verdict: Verdict, estimate: Estimate, place: Place) -> str:
    """How the run gets the cards that it fits, or why only one card was counted on where it does not; as a sentence
    with a space before it, empty where there is no choice of cards."""
    cards, count = place.cards, estimate.workload.get("n_devices", 1)
    if cards is None:
        return ""
    if verdict.status != "does_not_fit" and (select := selection(estimate, place)):
        return f" {'Start' if count > 1 else f'Counted on is card {place.index}: start'} it with {select}."
    left_out = cards.not_counted(cards.free)
    if verdict.status == "fits" or count > 1 or place.count > 1 or cards.count == 1 or not left_out:
        return ""
    return f" No second card can be counted on: {left_out}." if cards_help(estimate.workload) else ""


def selection(estimate: Estimate, place: Place) -> str:
    """The variables with which a run gets the cards that it is counted on: "CUDA_VISIBLE_DEVICES=1"; empty where it
    gets them anyway, or where any other card would do as well."""
    cards, count = place.cards, estimate.workload.get("n_devices", 1)
    if cards is None or (count == 1 and place.index is None):
        return ""
    if count > 1:
        return cards.select(_counted_on(estimate, place, cards, count))
    every = (*cards.free, *cards.shared)
    small = any(card.free_bytes < needed(estimate, _at(card, place))[2] for card in every if card.index != place.index)
    mine = [card for card in every if card.index == place.index]
    return cards.select(mine) if mine and (small or cards.others_visible) else ""


def _over_several(expected: int, low: int, high: int, place: Place) -> Verdict:
    """Several cards: never green, since no estimate is made of how the layers fall on them."""
    assert place.free_bytes is not None
    share = int(expected / place.count * UNEVEN_SPLIT)
    free = place.free_bytes
    if share <= free:
        status, why = (
            "tight",
            (
                f"It needs {gib(expected)}, more than one card's {gib(free)}; split by layers over {place.count} cards "
                f"the fullest holds roughly {gib(share)}. No estimate is made of the split."
            ),
        )
    else:
        status, why = (
            "does_not_fit",
            (
                f"It needs {gib(expected)}: even split over {place.count} cards the fullest would hold roughly "
                f"{gib(share)} of {gib(free)}."
            ),
        )
    return Verdict(
        status=status, device=place.name, free_bytes=free * place.count, needed_bytes=expected,
        headroom_bytes=free * place.count - expected, why=why,
    )  # fmt: skip
