"""The text that SLURM's programs print, 22.05 to 25.11, read without guessing.

Every function takes any text whatever: what it cannot read is None or left out, never an exception and never a
number that is not there. Text rather than `--json`: sinfo's JSON of 22.05 and of 24.11 have different shapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# squeue cuts columns as sinfo does, see columns(); Reason is free text and comes last.
JOB_COLUMNS = (
    ("JobID", 24), ("Partition", 160), ("State", 24), ("NumNodes", 12), ("tres-per-node", 200), ("tres-per-job", 200),
    ("tres-per-task", 200), ("tres-per-socket", 200), ("TimeLeft", 24), ("StartTime", 32), ("Reason", 80),
)  # fmt: skip
_NOTHING = ("", "(null)", "N/A", "n/a", "none", "NONE", "None")
_NUMBER = re.compile(r"[0-9]{1,15}")
_SCALE = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_UNTYPED = re.compile(r":\(null\)(?=:|$)")
_COUNT = re.compile(r"([0-9]{1,9})([KMG]?)")
_DURATION = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{2})")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")


@dataclass
class Gres:
    """One item of a GRES list, e.g. gpu:a100:4(S:0-1). `count` is None where no number is written."""

    name: str
    type: str | None
    count: int | None
    detail: str = ""


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
        item = _UNTYPED.sub("", raw[5:] if raw.startswith(("gres:", "gres/")) else raw)
        bare, _, detail = item.partition("(")
        name, *words = bare.replace("=", ":").split(":")
        name, rest = name.strip(), [word for word in words if word != "no_consume"]
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
