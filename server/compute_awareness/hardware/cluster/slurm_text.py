"""The text that SLURM's programs print, 22.05 to 25.11, read without guessing.

Every function takes any text whatever: what it cannot read is None or left out, never an exception and never a
number that is not there. Text rather than `--json`: sinfo's JSON of 22.05 and of 24.11 have different shapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MIB = 1024**2

# sinfo pads a column to its width and cuts what is longer, without a mark: widths are ample, and a column without
# a blank at its end counts as cut. Reason is free text (any bytes), so it comes last.
NODE_COLUMNS = (
    ("NodeList", 80), ("Partition", 80), ("StateComplete", 120), ("Gres", 256), ("GresUsed", 320), ("CPUsState", 40),
    ("Memory", 20), ("AllocMem", 20), ("Features", 320),
)  # fmt: skip
JOB_COLUMNS = (
    ("JobID", 24), ("Partition", 160), ("State", 24), ("NumNodes", 12), ("tres-per-node", 200), ("tres-per-job", 200),
    ("tres-per-task", 200), ("tres-per-socket", 200), ("TimeLeft", 24), ("StartTime", 32), ("Reason", 80),
)  # fmt: skip
_NOTHING = ("", "(null)", "N/A", "n/a", "none", "NONE", "None")
_NUMBER = re.compile(r"[0-9]{1,15}")
_SCALE = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_COUNT = re.compile(r"([0-9]{1,9})([KMG]?)")
_DURATION = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{2})")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")

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
class Gres:
    """One item of a GRES list, e.g. gpu:a100:4(S:0-1). `count` is None where no number is written."""

    name: str
    type: str | None
    count: int | None
    detail: str = ""


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
class JobRow:
    """One line of the user's own queue."""

    id: str
    partition: str
    state: str
    gpus: int | None
    time_left_s: int | None
    start: str | None
    reason: str | None


@dataclass
class CardUse:
    """GPUs of one type on one node."""

    type: str | None
    total: int
    free: int | None
    not_free: dict[str, int] = field(default_factory=dict)


def number(text: str) -> int | None:
    """A whole number of at most 15 digits, else None."""
    return int(text) if _NUMBER.fullmatch(text) else None


def seconds(text: str) -> int | None:
    """SLURM's printed durations: 2-00:00:00, 4:00:00, 30:00. None for UNLIMITED, NONE, INVALID and all else."""
    found = _DURATION.fullmatch(text)
    if not found:
        return None
    days, hours, minutes, secs = (int(part or 0) for part in found.groups())
    if secs > 59 or (found[2] and minutes > 59) or (found[1] and hours > 23):
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60 + secs


def moment(text: str) -> str | None:
    """A time as SLURM prints it (2026-11-23T02:29:29, the cluster's local time), else None."""
    return text if _MOMENT.fullmatch(text) else None


def listed(text: str | None) -> list[str]:
    """A comma list; nothing for (null), N/A and none."""
    return [part for part in (text or "").split(",") if part not in _NOTHING]


def columns(line: str, widths: list[int]) -> list[str | None] | None:
    """The columns of a padded line; None in place of one that fills its width, for it may have been cut.

    None for the whole where the line is too short to have them all, so that nothing is read out of place.
    """
    if len(line) < sum(widths):
        return None
    cells: list[str | None] = []
    start = 0
    for width in widths:
        cell = line[start : start + width]
        start += width
        cells.append(cell.strip() if cell.endswith(" ") else None)
    return cells


def parse_gres(text: str) -> list[Gres]:
    """gpu:a100:4(S:0-1),shard:rtx_a6000:2(2/4,0/4) and GresUsed's gpu:a100:3(IDX:0-2).

    The grammar is name[:type][:no_consume]:number[K|M|G] (slurm.conf(5), Gres), with what each program adds in
    parentheses; an untyped one in use may read gpu:(null):2. Also read: the requests of squeue, gres:gpu:a100:3 (22.05)
    and gres/gpu:a100=3.
    """
    items: list[Gres] = []
    for raw in _top_level(text):
        item = (raw[5:] if raw.startswith(("gres:", "gres/")) else raw).replace(":(null)", "")
        bare, _, detail = item.partition("(")
        words = [word for word in bare.replace("=", ":").split(":") if word != "no_consume"]
        name, rest = words[0].strip(), words[1:]
        if name in _NOTHING:
            continue
        counted = _COUNT.fullmatch(rest[-1]) if rest else None
        count = int(counted[1]) * _SCALE[counted[2]] if counted else None
        kind = ":".join(rest[:-1] if counted else rest)
        items.append(Gres(name, kind or None, count, detail))
    return items


def _top_level(text: str) -> list[str]:
    """Split at commas that are not inside parentheses."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part for part in (*parts, text[start:]) if part]


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


def parse_pairs(text: str) -> list[dict[str, str]]:
    """Lines of `scontrol -o show ...`: Key=Value words, one object a line."""
    objects = []
    for line in text.splitlines():
        pairs = [word.partition("=") for word in line.split() if "=" in word]
        if pairs:
            objects.append({key: value for key, _, value in pairs})
    return objects


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`: lines of Key = Value."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_jobs(text: str) -> list[JobRow]:
    """Lines of `squeue -h -O` with JOB_COLUMNS; lines that cannot be read are left out."""
    widths = [width for _, width in JOB_COLUMNS[:-1]]
    jobs = []
    for line in text.splitlines():
        cells = columns(line, widths)
        if cells is None or not cells[0] or not cells[1] or not cells[2]:
            continue
        nodes, per_node, per_job, per_task, per_socket = cells[3:8]
        reason = line[sum(widths) :].strip()
        jobs.append(
            JobRow(
                id=cells[0],
                partition=cells[1],
                state=cells[2],
                gpus=_gpus_asked(number(nodes or ""), per_node, per_job, (per_task, per_socket)),
                time_left_s=seconds(cells[8] or ""),
                start=moment(cells[9] or ""),
                reason=None if reason in _NOTHING else reason,
            )
        )
    return jobs


def _gpus_asked(
    nodes: int | None, per_node: str | None, per_job: str | None, others: tuple[str | None, ...]
) -> int | None:
    if None in (nodes, per_node, per_job, *others):
        return None
    if any(item.name == "gpu" for text in others for item in parse_gres(text or "")):
        return None  # per task or socket: how many of these there are is not in the queue's columns
    whole = [item.count for item in parse_gres(per_job or "") if item.name == "gpu"]
    each = [item.count for item in parse_gres(per_node or "") if item.name == "gpu"]
    if None in whole or None in each:
        return None
    if whole:
        return sum(count or 0 for count in whole)
    return (nodes or 0) * sum(count or 0 for count in each)


def waiting_by_partition(text: str) -> dict[str, int]:
    """Lines of `squeue -h -t PENDING -o %P`; a job that may go to several partitions counts in each."""
    waiting: dict[str, int] = {}
    for line in text.splitlines():
        for name in line.strip().split(","):
            if name:
                waiting[name] = waiting.get(name, 0) + 1
    return waiting


def gpus_in_tres(text: str) -> int | None:
    """The number of gres/gpu in a TRES list (cpu=8,gres/gpu=4), whatever type; None where it is not there."""
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key.strip() == "gres/gpu":
            return number(value.strip())
    return None


def parse_test_only(text: str) -> tuple[str | None, str | None]:
    """What `sbatch --test-only` says: (expected start, None), or (None, why it cannot run)."""
    found = re.search(r"\bto start at ([^\s]{1,40})", text)
    if found and moment(found[1]):
        return found[1], None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    failures = [line.split("failure:", 1)[1].strip() for line in lines if "failure:" in line]
    said = failures or [line for line in lines if "error" in line.lower()] or lines
    return None, said[0][:200] if said else "sbatch gave no answer"
