"""Which card a name means, and which cards are large enough for a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, nearest
from ..units import gib
from .answers import GpuChoice
from .gpu_names import names_a_card, only_a_size, size_in, split_count, without_size, words
from .gpu_table import Gpu, all_gpus, card_of_size
from .platforms import Deal, cheapest

Needed = Callable[[Gpu], int] | int
Over = Callable[[Gpu, int], int | None]

# The largest share of a card's memory that one of several cards of a split model may take: the layers do not divide
# evenly, the embedding and unembedding lie whole on the first and the last card.
UNEVEN_SPLIT = 1.2
"""How much more than an even share the fullest of several cards holds; rough, layers do not divide evenly."""
_SPLIT_OVER = ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200", "b300")
_SAME_CLASS = 1.08


class GpuRequest(BaseModel):
    """What a user's `--gpu` means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: Gpu
    count: int = Field(ge=1)
    note: str = Field("", description="What was assumed, where the name leaves a choice")


@cache
def _spellings() -> tuple[tuple[frozenset[str], Gpu], ...]:
    """Every way to write every card, as sets of words."""
    return tuple(
        (spelling, gpu)
        for gpu in all_gpus()
        for spelling in {words(text) for text in (gpu.id, gpu.name, *gpu.aliases, *gpu.nvml_names)}
    )


# What `torch.device` and notebooks call it, with what to say instead.
_NO_CARD = {
    "cpu": "for a run without a GPU say none",
    "mps": "name the chip and its memory, e.g. M2 Max 64GB",
    **dict.fromkeys(("cuda", "gpu", "colab", "kaggle"), "name the card, e.g. T4; unknown, if that is not known"),
}


def find_gpu(name: str) -> GpuRequest:
    """The card and the number of cards that a user's words mean: "4090", "A100-80GB", "2xH100", "M2 Max 64GB".

    Where the words leave a choice ("A100", "RTX 3090 or 4090 24 GB"), the one with the least memory is taken and the
    note says so. "a card with 24 GB" is one of which no more is known.

    Raises:
        InputError: not a card of the table (the nearest names are listed), or a memory size it is not sold with.
    """
    if (instead := _NO_CARD.get(name.strip().lower().split(":")[0])) is not None:
        raise InputError(f"unknown GPU {name[:80]!r}; {instead}")
    count, rest = split_count(name)
    wanted = words(rest)
    if (size := only_a_size(wanted)) is not None:
        return GpuRequest(gpu=card_of_size(size), count=count, note=f"only the memory of {name[:40]!r} is known")
    found = _candidates(wanted) or _candidates(words(rest.removesuffix("s"))) or _alternatives(rest, wanted)
    if not found:
        raise InputError(_unknown(name, wanted))
    gpu = min(found, key=lambda g: g.usable_bytes)
    return GpuRequest(gpu=gpu, count=count, note=_ambiguity(rest, gpu, found))


def cards_named(text: str) -> list[Gpu]:
    """Every card of the table that a scheduler's or a driver's name may mean; empty where it names none."""
    return _candidates(words(text))


def _candidates(wanted: frozenset[str]) -> list[Gpu]:
    """Cards that `wanted` may mean: spelled so exactly, else those whose spelling adds the fewest words to it."""
    model, size = without_size(wanted), size_in(wanted)
    if not names_a_card(wanted):
        return []
    extra: dict[str, tuple[int, Gpu]] = {}
    for spelling, gpu in _spellings():
        if model <= spelling and (wanted <= spelling or size == gpu.sold_as_gb):
            more = len(without_size(spelling) - model)
            if gpu.id not in extra or more < extra[gpu.id][0]:
                extra[gpu.id] = (more, gpu)
    fewest = min((more for more, _ in extra.values()), default=0)
    return [gpu for more, gpu in extra.values() if more == fewest]


def _alternatives(text: str, wanted: frozenset[str]) -> list[Gpu]:
    """Cards of "RTX 3090 or 4090 24 GB", as a question offers them, each of that size; empty if one is unknown."""
    parts = [words(part) for part in text.split(" or ")]
    if len(parts) == 1:
        return []
    size = size_in(wanted)
    found = [_candidates(without_size(part) | ({f"{size}gb"} if size else set())) for part in parts]
    return [gpu for cards in found for gpu in cards] if all(found) else []


def _ambiguity(asked: str, gpu: Gpu, found: Sequence[Gpu]) -> str:
    if all(g.usable_bytes == gpu.usable_bytes for g in found):
        return ""
    names = ", ".join(g.name for g in found)
    return f"{asked[:40]!r} may be {names}; counted as {gpu.name}, the one with the least memory"


def _unknown(name: str, wanted: frozenset[str]) -> str:
    sizes = sorted({g.sold_as_gb for g in _candidates(without_size(wanted))})
    if sizes:
        return f"{name[:80]!r}: that card is in the table with {', '.join(f'{s:g}' for s in sizes)} GB only"
    labels = {label: g.name for g in all_gpus() for label in (" ".join(sorted(words(g.name))), g.name, g.id)}
    if (size := size_in(wanted)) is not None and not without_size(wanted):
        return f"unknown GPU {name[:80]!r}; give the card, or say 'a card with {size} GB'"
    close = list(dict.fromkeys(labels[hit] for hit in nearest(split_count(name)[1], labels)))
    hint = f"nearest: {', '.join(close)}" if close else "give a card, e.g. RTX 4090, A100-80GB, 2xH100, T4, M2 Max 64GB"
    return f"unknown GPU {name[:80]!r}; {hint}"


def _need(needed: Needed, gpu: Gpu) -> int:
    return needed if isinstance(needed, int) else needed(gpu)


def gpus_that_fit(needed: Needed) -> list[Gpu]:
    """The advised cards on which `needed` bytes (or what `needed(gpu)` says) fit alone, smallest first."""
    fitting = [g for g in all_gpus() if g.advised and _need(needed, g) <= g.usable_bytes]
    return sorted(fitting, key=lambda g: g.usable_bytes)


def smallest_that_fits(
    needed_device_bytes: Needed, limit: int = 5, *, count: int = 1, over: Over | None = None
) -> list[GpuChoice]:
    """The smallest cards that fit, one for each memory class, smallest first; at most `limit`.

    `needed_device_bytes` is bytes on the card, or a function of the card, since the context differs between cards.
    Of each class the cheapest known to be rented is named, and the others in its note. `count` is the number of cards
    that the workload itself asks for, each of which takes those bytes. Where no single card fits, the choices are
    several large cards: as `over` says, the bytes on the fullest of a number of cards (None = the library cannot split
    it); without `over` an even split by layers, which is rough, and the note says so. Empty if those do not fit either.
    """
    classes: list[list[Gpu]] = []
    for gpu in gpus_that_fit(needed_device_bytes):
        if classes and gpu.usable_bytes <= classes[-1][0].usable_bytes * _SAME_CLASS:
            classes[-1].append(gpu)
        else:
            classes.append([gpu])
    if classes:
        return [_of_class(members, needed_device_bytes, count) for members in classes[:limit]]
    return _split_over_several(needed_device_bytes, over)[:limit]


def _of_class(members: Sequence[Gpu], needed: Needed, count: int) -> GpuChoice:
    deals = {gpu.id: cheapest([gpu.id], count) for gpu in members}

    def price(gpu: Gpu) -> float:
        deal = deals[gpu.id]
        return deal.usd_per_hour if deal else float("inf")

    gpu = min(members, key=price)
    others = [g.name for g in members if g is not gpu]
    notes = [f"as large: {', '.join(others)}"] if others else []
    return _choice(gpu, count, _need(needed, gpu), deals[gpu.id], notes)


def _split_over_several(needed: Needed, over: Over | None) -> list[GpuChoice]:
    by_id = {gpu.id: gpu for gpu in all_gpus()}
    found: list[GpuChoice] = []
    for gpu_id in _SPLIT_OVER:
        gpu = by_id[gpu_id]
        for count in (2, 4, 8):
            share = int(_need(needed, gpu) / count * UNEVEN_SPLIT) if over is None else over(gpu, count)
            if share is not None and share <= gpu.usable_bytes:
                note = (
                    (
                        f"rough: HookedTransformer's n_devices={count} gives each card a share of the layers and that "
                        f"share's activations, counted as {gib(share)} on the fullest card; no estimate was made for "
                        "it, and its run can fail where blocks and activations meet on different cards"
                    )
                    if over is None
                    else f"layers split by device_map='auto' (n_devices {count}): {gib(share)} on the fullest at most"
                )
                found.append(_choice(gpu, count, share, cheapest([gpu.id], count), [note]))
                break
    return sorted(found, key=lambda c: c.count * c.usable_bytes)


def with_cost(choice: GpuChoice, seconds: tuple[float, float]) -> GpuChoice:
    """With how long the run takes on it, and the cheapest price of a place that lets it run so long.

    Several cards are no faster than one, and all are paid.
    """
    low, high = seconds
    deal = cheapest([choice.gpu_id], choice.count, seconds=max(high, 3600))
    price = deal.usd_per_hour if deal else None
    return choice.model_copy(
        update={
            "seconds_low": round(low, 1),
            "seconds_high": round(high, 1),
            "usd_per_hour": price,
            "price_platform": deal.platform.name if deal else None,
            "price_date": deal.offer.date if deal else None,
            "usd_low": None if price is None else round(price * low / 3600, 2),
            "usd_high": None if price is None else round(price * high / 3600, 2),
        }
    )


def _choice(gpu: Gpu, count: int, needed: int, deal: Deal | None, notes: list[str]) -> GpuChoice:
    if deal and deal.offer.note:
        notes = [*notes, f"price: {deal.offer.note}"]
    if gpu.torch_total_gib_seen is None:
        notes = [*notes, f"memory is {gpu.usable_basis}"]
    if gpu.notes:
        notes = [*notes, gpu.notes]
    return GpuChoice(
        gpu_id=gpu.id,
        name=gpu.name,
        count=count,
        usable_bytes=gpu.usable_bytes,
        headroom_bytes=gpu.usable_bytes - needed,
        usd_per_hour=deal.usd_per_hour if deal else None,
        price_platform=deal.platform.name if deal else None,
        price_date=deal.offer.date if deal else None,
        note="; ".join(notes),
    )
