"""Which NVIDIA cards an experiment will see: CUDA_VISIBLE_DEVICES, which NVML does not apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .report import Accelerator

_VARIABLE = "CUDA_VISIBLE_DEVICES"


class Visible(NamedTuple):
    """Indices into the card list, in the order CUDA will number them, and what is doubtful about it."""

    order: list[int]
    doubts: list[str]


def leading_int(text: str) -> int:
    """The integer `text` starts with, as CUDA's parser reads it (`1gpu2` is 1); -1 where there is none."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    length = next((i for i, c in enumerate(digits) if not ("0" <= c <= "9")), len(digits))
    if length == 0:
        return -1
    value = int(digits[: min(length, 18)])
    return -value if text.startswith("-") else value


def visible_cards(cards: Sequence[Accelerator], environ: Mapping[str, str]) -> Visible:
    """Apply CUDA_VISIBLE_DEVICES to `cards` (NVML's order, MIG slices after their parent).

    Rules as in torch 2.13 `torch/cuda/__init__.py` (`_parse_visible_devices`, `_transform_uuid_to_ordinals`):
    unset means all, empty means none, the first invalid entry ends the list, a repeated entry empties it,
    UUIDs may be shortened while they stay unique. A process sees one MIG slice at most.
    """
    whole = [i for i, card in enumerate(cards) if card.mig_of is None]
    value = environ.get(_VARIABLE)
    if value is None:
        return Visible(_one_slice(cards, whole), [])
    wanted = value.strip()
    if wanted.startswith(("GPU-", "MIG-")):
        return _by_uuid(cards, wanted, environ)
    chosen: list[int] = []
    for entry in wanted.split(",") if wanted else []:
        number = leading_int(entry.strip())
        if number in chosen:
            return Visible([], [f"{_VARIABLE} names card {number} twice: CUDA then shows no card at all"])
        if number < 0:
            break
        chosen.append(number)
    doubts = []
    kept: list[int] = []
    for number in chosen:
        if number >= len(whole):
            doubts.append(
                f"{_VARIABLE} names card {number}, but there are {len(whole)}: CUDA ignores that entry and all after it"
            )
            break
        kept.append(number)
    mixed = len({cards[i].name for i in whole}) > 1
    if mixed and 0 < len(kept) < len(whole) and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        doubts.append(
            f"{_VARIABLE} gives numbers on a machine with different cards: CUDA numbers them fastest first, the "
            "driver by PCI bus, so another card than the one shown may be meant. Set CUDA_DEVICE_ORDER=PCI_BUS_ID "
            "or name the card by its GPU-… UUID"
        )
    return Visible(_one_slice(cards, [whole[i] for i in kept]), doubts)


def _by_uuid(cards: Sequence[Accelerator], wanted: str, environ: Mapping[str, str]) -> Visible:
    prefix = wanted[:4]
    entries: list[str] = []
    for raw in wanted.split(","):
        entry = raw.strip()
        if entry in entries:
            return Visible([], [f"{_VARIABLE} names a card twice: CUDA then shows no card at all"])
        if not entry.startswith(prefix):
            break
        entries.append(entry)
    picked: list[int] = []
    for entry in entries:
        hits = [i for i, card in enumerate(cards) if _named(card, entry, cards)]
        if len(hits) != 1:
            what = "no card here" if not hits else f"{len(hits)} cards"
            doubt = f"{_VARIABLE} names a UUID that matches {what}: CUDA ignores that entry and all after it"
            return Visible(_one_slice(cards, picked), [doubt])
        if hits[0] in picked:
            return Visible([], [f"{_VARIABLE} names a card twice: CUDA then shows no card at all"])
        picked.append(hits[0])
    if prefix == "MIG-" and len(picked) > 1:
        doubt = f"{_VARIABLE} names {len(picked)} MIG slices: a process sees the first only"
        return Visible(picked[:1], [doubt])
    return Visible(_one_slice(cards, picked), [])


def _named(card: Accelerator, entry: str, cards: Sequence[Accelerator]) -> bool:
    if not card.uuid:
        return False
    is_slice = card.mig_of is not None
    if is_slice != entry.startswith("MIG-"):
        return False
    if card.uuid.startswith(entry):
        return True
    # The form of drivers before R470: MIG-GPU-<uuid of the card>/<gpu instance>/<compute instance>. Where the
    # instance numbers are not known, it can only mean a slice where the card has a single one.
    if is_slice and entry.startswith("MIG-GPU-"):
        parent = next((c for c in cards if c.mig_of is None and c.index == card.mig_of), None)
        uuid, _, instance = entry[len("MIG-") :].partition("/")
        alone = sum(c.mig_of == card.mig_of for c in cards) == 1
        meant = alone if card.mig_instance is None else card.mig_instance == instance
        return meant and parent is not None and parent.uuid == uuid
    return False


def _one_slice(cards: Sequence[Accelerator], allowed: Sequence[int]) -> list[int]:
    """`allowed`, with the first slice of the first MIG card added: CUDA enumerates one slice and no more."""
    order = list(allowed)
    if any(cards[i].mig_of is not None for i in order):
        return order
    for position in allowed:
        first = next((i for i, card in enumerate(cards) if card.mig_of == cards[position].index), None)
        if first is not None:
            return [*order, first]
    return order
