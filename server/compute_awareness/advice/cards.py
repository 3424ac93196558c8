"""The cards of a machine that was seen: which of them a run on several may count on, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..hardware.compute import Accelerator, Compute
from ..memory.card import device
from ..units import GIB, gib

MUCH_BYTES = GIB
"""What other users must hold of a card before it counts as theirs: a desktop's screen takes less."""

_HIDDEN_BY = {"cuda": "CUDA_VISIBLE_DEVICES"}


@dataclass(frozen=True)
class Card:
    """A whole card that can work with others on one run."""

    index: int
    name: str
    free_bytes: int
    compute_capability: str | None
    other_generation: bool = False
    """It is before Ampere and the card that the estimate is for is not, or the other way round: attention may take
    another way there."""


@dataclass(frozen=True)
class Cards:
    """The whole cards of one machine, beside one of them. `free` and `shared`: those of its generation first, of
    these the one with the most room first."""

    kind: str
    free: tuple[Card, ...] = ()
    """Those that nobody else uses."""
    shared: tuple[Card, ...] = ()
    """Those on which other users hold a GiB or more: only counted on where the workload itself asks for so many."""
    left_out: tuple[tuple[str, int], ...] = ()
    """(why it cannot be joined with others, its number) of the rest."""
    slices: int = 0
    """MIG slices beside them."""
    others_visible: bool = False
    """A card of `left_out`, or a slice, that the run's process would see as well."""
    nccl: bool = True
    """False on Windows: torch's builds for it have no NCCL, over which DistributedDataParallel and FSDP work here."""
    can_select: bool = True
    """Whether the numbers here are those that the variable of `select` takes."""

    @property
    def count(self) -> int:
        """How many there are, slices among them, whatever they are good for."""
        return len(self.free) + len(self.shared) + len(self.left_out) + self.slices

    def of(self, count: int) -> tuple[Card, ...]:
        """The `count` cards that a run on so many is counted on, those that others use last; fewer if there are not
        so many."""
        return (*self.free, *self.shared)[:count]

    def roomiest(self, count: int) -> tuple[Card, ...]:
        """The `count` cards with the most room, whoever uses them besides; those of the generation first."""
        return tuple(sorted((*self.free, *self.shared), key=_most_room))[:count]

    def roomiest_of_any(self, count: int) -> tuple[Card, ...]:
        """The same, whatever their generation."""
        return tuple(sorted((*self.free, *self.shared), key=lambda card: _most_room(card)[1:]))[:count]

    def of_one_generation(self, count: int) -> list[tuple[Card, ...]]:
        """The same of those on one side of Ampere alone, and of those on the other: as many choices as have so many."""
        both = [tuple(card for card in self.roomiest(self.count) if card.other_generation == other) for other in (0, 1)]
        return [side[:count] for side in both if len(side) >= count]

    def not_counted(self, counted: Sequence[Card]) -> str:
        """Why the cards beside `counted` are not counted on: "card 1 is used by others"; empty if that is not why.

        A card with as much free memory as the smallest of `counted` is simply not needed.
        """
        least = min((card.free_bytes for card in counted), default=0)
        reasons: dict[str, list[int]] = {}
        for card in self.shared:
            if card not in counted:
                reasons.setdefault("{is} used by others", []).append(card.index)
        for card in self.free:
            if card not in counted and card.free_bytes < least:
                reasons.setdefault(f"{{has}} only {gib(card.free_bytes)} free", []).append(card.index)
        for why, index in self.left_out:
            reasons.setdefault(why, []).append(index)
        told = [f"{numbers(found)} {_verb(why, len(found))}" for why, found in reasons.items()]
        if self.slices:
            told.append("MIG slices cannot be joined")
        return ", ".join(told)

    def select(self, counted: Sequence[Card]) -> str:
        """The variables with which a process sees the counted cards only: "CUDA_VISIBLE_DEVICES=0,2"; empty where it
        sees no other anyway, or where the numbers here may not be those that the variable takes."""
        every = (*self.free, *self.shared)
        if (len(counted) == len(every) and not self.others_visible) or not self.can_select:
            return ""
        chosen = ",".join(str(index) for index in sorted(card.index for card in counted))
        if self.kind == "rocm":
            return f"HIP_VISIBLE_DEVICES={chosen}"
        # CUDA numbers different cards fastest first; the report, as the driver does, by their place on the bus.
        order = "CUDA_DEVICE_ORDER=PCI_BUS_ID " if len({card.name for card in every}) > 1 else ""
        return f"{order}CUDA_VISIBLE_DEVICES={chosen}"


def cards_of(compute: Compute, beside: Accelerator, usable: Callable[[Accelerator], bool]) -> Cards:
    """The cards of a machine that are of the same maker as `beside`; `usable` says which of them torch can use.

    A MIG slice, a vGPU, a chip that shares the RAM and a card of which the job has shares are never joined with others:
    NCCL takes no two slices of MIG, and of the others it is not known whether the memory is there.
    """
    cards = [card for card in compute.accelerators if card.kind == beside.kind]
    slices = [card for card in cards if card.mig_of is not None]
    cut = {card.mig_of for card in slices}
    job = compute.limits.job if compute.limits else None
    has_shares = bool(job and job.gpu_shares)
    free: list[Card] = []
    shared: list[Card] = []
    left_out: list[Accelerator] = []
    why: list[tuple[str, int]] = []
    for card in cards:
        if card.mig_of is not None or card.index in cut:
            continue
        if reason := _alone(card, has_shares, usable(card)):
            left_out.append(card)
            why.append((reason, card.index))
            continue
        other = _before_ampere(card) != _before_ampere(beside)
        one = Card(card.index, card.name, card.free_bytes or 0, card.compute_capability, other)
        (shared if held_by_others(card) >= MUCH_BYTES else free).append(one)
    return Cards(
        kind=beside.kind,
        free=tuple(sorted(free, key=_most_room)),
        shared=tuple(sorted(shared, key=_most_room)),
        left_out=tuple(why),
        slices=len(slices),
        others_visible=any(card.visible for card in (*left_out, *slices)),
        nccl=not compute.host.os.startswith("Windows"),
        # ROCR_VISIBLE_DEVICES numbers anew what HIP_VISIBLE_DEVICES takes.
        can_select=beside.kind == "cuda" or all(card.visible for card in cards),
    )


def _before_ampere(card: Accelerator) -> bool:
    return card.compute_capability is not None and float(card.compute_capability) < 8.0


def _most_room(card: Card) -> tuple[bool, int, int]:
    return card.other_generation, device.on_card(0, 0, card.compute_capability)[2] - card.free_bytes, card.index


def held_by_others(card: Accelerator) -> int:
    """Bytes that other users' processes hold on the card, as far as is told."""
    if card.free_bytes is not None and card.free_without_others_bytes is not None:
        return max(0, card.free_without_others_bytes - card.free_bytes)
    return sum(process.used_bytes or 0 for process in card.processes if process.own is False)


def numbers(indices: Iterable[int]) -> str:
    """ "card 1"; "cards 0 and 2"; "cards 0, 2 and 3"; "cards 0 to 7"; empty for none."""
    found = sorted(indices)
    if not found:
        return ""
    if len(found) == 1:
        return f"card {found[0]}"
    if len(found) > 3 and found[-1] - found[0] == len(found) - 1:
        return f"cards {found[0]} to {found[-1]}"
    return f"cards {', '.join(str(index) for index in found[:-1])} and {found[-1]}"


def names(cards: Sequence[Card]) -> str:
    """ "2 x NVIDIA H100 80GB HBM3"; of different cards each, the kind of the last one last."""
    alike: dict[str, int] = {}
    for card in cards:
        alike[card.name] = alike.get(card.name, 0) + 1
    ordered = sorted(alike, key=lambda name: name == cards[-1].name)
    return " and ".join(f"{alike[name]} x {name}" if alike[name] > 1 else name for name in ordered)


def _alone(card: Accelerator, has_shares: bool, torch_can_use: bool) -> str:
    """Why the card cannot be joined with others, {is} and {has} for the verb; empty if it can."""
    if not card.visible:
        by = f" by {_HIDDEN_BY[card.kind]}" if card.kind in _HIDDEN_BY else ""
        return f"{{is}} hidden{by}"
    if card.problem is not None or card.free_bytes is None:
        return "cannot be used"
    if not torch_can_use:
        return "{is} not for this build of torch"
    if has_shares:
        return "{is} given to the job in shares"
    if card.virtual == "vgpu":
        return "{is} a share of a card (vGPU)"
    return "{has} the machine's RAM" if card.unified else ""


def _verb(why: str, count: int) -> str:
    return why.replace("{is}", "is" if count == 1 else "are").replace("{has}", "has" if count == 1 else "have")
