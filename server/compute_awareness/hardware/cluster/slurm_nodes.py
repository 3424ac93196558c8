"""The nodes that `sinfo` prints, and which of their GPUs a job could have now.

Like slurm_text, from any text whatever: what cannot be read is None, never an exception and never a number that is
not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .slurm_text import Gres, columns, listed, number, parse_gres

MIB = 1024**2

# sinfo pads a column to its width and cuts what is longer, without a mark: widths are ample, and a column without
# a blank at its end counts as cut. Reason is free text (any bytes), so it comes last.
NODE_COLUMNS = (
    ("NodeList", 80), ("Partition", 80), ("StateComplete", 120), ("Gres", 256), ("GresUsed", 320), ("CPUsState", 40),
    ("Memory", 20), ("AllocMem", 20), ("Features", 320),
)  # fmt: skip

# Words of StateComplete under which a node takes jobs, and the node_state_string suffixes of StateLong.
_TAKES_JOBS = frozenset(("idle", "mixed", "mix", "allocated", "alloc", "completing", "comp", "cloud", "dynamic_norm"))
_SUFFIXES = {
    "*": "not_responding", "~": "powered_down", "#": "powering_up", "!": "power_down", "%": "powering_down",
    "$": "maintenance", "@": "reboot_requested", "^": "reboot_issued", "-": "planned",
}  # fmt: skip
# The first of these that a state has is the reason given.
_REASONS = (
    ("not_responding", "not responding"), ("down", "down"), ("fail", "failing"), ("failing", "failing"),
    ("drain", "drained"), ("drained", "drained"), ("draining", "drained"), ("drng", "drained"),
    ("maintenance", "maintenance"), ("maint", "maintenance"), ("reserved", "reserved"), ("resv", "reserved"),
    ("planned", "planned for a waiting job"), ("plnd", "planned for a waiting job"),
    ("powered_down", "powered down"), ("powering_down", "powering down"), ("power_down", "powering down"),
    ("powering_up", "starting"), ("reboot_requested", "rebooting"), ("reboot_issued", "rebooting"),
    ("reboot", "rebooting"), ("blocked", "blocked by another job"), ("future", "not set up yet"),
)  # fmt: skip


@dataclass
class NodeRow:
    """One node in one partition. None where the column was cut or not readable."""

    name: str
    partition: str
    default: bool
    state: str
    gres: list[Gres] | None
    used: list[Gres] | None
    idle_cpus: int | None
    ram_left_bytes: int | None
    features: list[str] | None


@dataclass
class CardUse:
    """GPUs of one type on one node."""

    type: str | None
    total: int
    free: int | None
    not_free: dict[str, int] = field(default_factory=dict)


def why_no_jobs(state: str) -> str | None:
    """Why a node in this state takes no new job; None where it takes them.

    Reads StateComplete (idle+drain+not_responding) and StateLong with its one-letter suffixes (down*). A word that
    is not known counts as taking none.
    """
    words = {word for word in state.lower().split("+") if word}
    for word in list(words):
        bare = word.rstrip("".join(_SUFFIXES))
        if bare != word:
            words.discard(word)
            words |= {bare, *(_SUFFIXES[mark] for mark in word[len(bare) :])}
    words.discard("")
    if not words:
        return "state not told"
    for word, reason in _REASONS:
        if word in words:
            return reason
    strange = sorted(words - _TAKES_JOBS)
    return strange[0] if strange else None


def parse_nodes(text: str) -> tuple[list[NodeRow], int]:
    """Lines of `sinfo -h -N -O` with NODE_COLUMNS and Reason, and how many lines could not be read."""
    widths = [width for _, width in NODE_COLUMNS]
    rows: list[NodeRow] = []
    unread = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        cells = columns(line, widths)
        # The CPU column's shape shows that the columns are where they should be.
        if cells is None or not cells[0] or not cells[1] or not re.fullmatch(r"[0-9]+(/[0-9]+){3}", cells[5] or ""):
            unread += 1
            continue
        name, partition, state, gres, used, cpus, memory, allocated, features = cells
        total_mib, used_mib = number(memory or ""), number(allocated or "")
        known = total_mib is not None and used_mib is not None
        rows.append(
            NodeRow(
                name=name or "",
                partition=(partition or "").rstrip("*"),
                default=(partition or "").endswith("*"),
                state=state or "",
                gres=None if gres is None else parse_gres(gres),
                used=None if used is None else parse_gres(used),
                idle_cpus=number((cpus or "").split("/")[1]),
                ram_left_bytes=max(0, (total_mib or 0) - (used_mib or 0)) * MIB if known else None,
                features=None if features is None else listed(features),
            )
        )
    return rows, unread


def gpus_of(row: NodeRow) -> list[CardUse] | None:
    """The GPUs of a node by type, with what is free. None where its GRES cannot be read.

    Free are those that no job holds, whole or in shards, on a node that takes jobs and has CPUs and RAM left.
    """
    if row.gres is None:
        return None
    totals: dict[str | None, int] = {}
    for item in row.gres:
        if item.name == "gpu":
            if item.count is None:
                return None
            totals[item.type] = totals.get(item.type, 0) + item.count
    out_of_service = why_no_jobs(row.state)
    cards = []
    for kind, total in totals.items():
        if total == 0:
            continue
        in_use, in_parts = _held(row, kind, totals)
        if in_use is not None and in_use > total:
            in_use = None
        card = CardUse(kind, total, None)
        if in_use:
            card.not_free["in use"] = in_use
        if out_of_service:
            card.free = 0
            if total - (in_use or 0):
                card.not_free[out_of_service] = total - (in_use or 0)
        elif in_use is not None and in_parts is not None and in_use + in_parts <= total:
            left = total - in_use - in_parts
            if in_parts:
                card.not_free["in use in parts"] = in_parts
            card.free = left
            if left and row.idle_cpus == 0:
                card.free, card.not_free["no CPU left beside them"] = 0, left
            elif left and row.ram_left_bytes == 0:
                card.free, card.not_free["no RAM left beside them"] = 0, left
        cards.append(card)
    return cards


def _held(row: NodeRow, kind: str | None, totals: dict[str | None, int]) -> tuple[int | None, int | None]:
    """Cards of a type that jobs hold whole, and cards of which jobs hold shards or MPS; None where not told."""
    if row.used is None:
        return None, None
    whole = 0
    parts: list[int | None] = []
    untyped = list(totals) == [None]
    for item in row.used:
        if item.name not in ("gpu", "shard", "mps") or item.count == 0:
            continue
        of_this = untyped or item.type == kind or (item.type is None and len(totals) == 1)
        if item.count is None or not (of_this or item.type in totals):
            return None, None  # how many, or of which type, is not said
        if of_this and item.name == "gpu":
            whole += item.count
        elif of_this:
            parts.append(_cards_with_parts(item))
    return whole, None if None in parts else sum(count or 0 for count in parts)


def _cards_with_parts(item: Gres) -> int | None:
    """On how many cards the used shards lie: (2/4,0/4) of 24.11, (IDX:0) of 22.05. None where not told."""
    detail = item.detail.split(")")[0]
    shares = _shares(detail)
    if shares is not None:
        return sum(used > 0 for used, _ in shares)
    if not detail.startswith("IDX:"):
        return None
    cards = 0
    for part in detail[4:].split(","):
        first, _, last = part.partition("-")
        low, high = number(first), number(last or first)
        if low is None or high is None or not low <= high < 1024:
            return None
        cards += high - low + 1
    return cards


def _shares(detail: str) -> list[tuple[int, int]] | None:
    pairs = [tuple(number(part) for part in pair.split("/")) for pair in detail.split(",")]
    if not all(len(pair) == 2 and None not in pair for pair in pairs):
        return None
    return [(used or 0, total or 0) for used, total in pairs]


def parts_of(row: NodeRow, name: str) -> dict[str | None, tuple[int, int | None]]:
    """Shards or MPS of a node by type: (total, used).

    Used is None where SLURM does not tell it: 22.05 prints the number of cards in place of the number of shards.
    """
    found: dict[str | None, tuple[int, int | None]] = {}
    for item in row.gres or []:
        if item.name == name and item.count is not None:
            found[item.type] = (found.get(item.type, (0, 0))[0] + item.count, None)
    for kind, (total, _) in found.items():
        used: int | None = None
        if row.used is not None:
            alike = [u for u in row.used if u.name == name and u.type in (kind, None)]
            counts = [_parts_used(item) for item in alike]
            used = None if None in counts else sum(count or 0 for count in counts)
        found[kind] = (total, used if used is None or used <= total else None)
    return found


def _parts_used(item: Gres) -> int | None:
    shares = _shares(item.detail.split(")")[0])
    if shares is not None:
        return sum(used for used, _ in shares)
    return 0 if item.count == 0 else None
