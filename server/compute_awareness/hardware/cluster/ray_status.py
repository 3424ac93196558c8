"""A Ray cluster through `ray status -v`: GPUs and what is in use of them, by accelerator type. Ray is not imported.

Read as Ray 2.60.0 prints it (ray/autoscaler/_private/util.py, format_info_string); each node has its own part with
lines of used/total, from which the GPUs of each accelerator type follow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..probe.child import run_child
from .asker import Asker, find_program
from .report import Cluster, GpuPool, GpuTotal

_AMOUNT = r"([0-9]{1,9}(?:\.[0-9]{1,30})?)"
_USE = re.compile(rf"\s*{_AMOUNT}/{_AMOUNT} (\S+)(?: \({_AMOUNT} used of {_AMOUNT} reserved in placement groups\))?")
_NODE = re.compile(r"Node: (\S{1,200})(?: .*)?")


@dataclass
class NodeUse:
    """GPUs of one Ray node. `used` may be a fraction: a task may ask for a part of a card.

    What placement groups reserve counts as used whether or not a task runs in them; Ray prints it beside.
    """

    name: str
    type: str | None = None
    used: float = 0.0
    total: float = 0.0
    mixed: bool = False


def read_ray(environ: Mapping[str, str], limit_s: float, run: Callable[..., Any] = run_child) -> list[Cluster]:
    """The cluster of RAY_ADDRESS, or the one started on this machine; an empty list where there is neither.

    A machine's own cluster is known by the file that `ray start` leaves: without it nothing is asked, since the
    `ray` command takes seconds to say no.
    """
    address = environ.get("RAY_ADDRESS") or None
    if address is None:
        address = _local_address(environ)
        if address is None:
            return []
    cluster = Cluster("ray", address)
    ray = find_program("ray", environ)
    if ray is None:
        cluster.problems.append("a Ray cluster is configured but the `ray` command is not on the PATH")
        cluster.summary = f"Ray {address}: not asked"
        return [cluster]
    if "://" in address:
        cluster.problems.append(
            f"RAY_ADDRESS is {address[:80]}: `ray status` needs the address of the head node (host:port), not that "
            "of Ray Client or of the dashboard"
        )
        cluster.summary = f"Ray {address[:80]}: not asked"
        return [cluster]
    asker = Asker({**environ, "RAY_ADDRESS": address, "PYTHONWARNINGS": "ignore"}, limit_s, run)
    cluster.problems = asker.problems
    text = asker.ask([ray, "status", "-v"])
    if text is None:
        cluster.summary = f"Ray {address}: no answer"
        return [cluster]
    nodes, whole = parse_status(text)
    cluster.pools = pools(nodes)
    listed = sum(node.total for node in nodes)
    if whole is None and not nodes:
        asker.problems.append("ray: its answer has no resources that could be read")
    elif whole is not None and whole[1] != listed:
        # An old Ray, or one without the parts of the nodes: the whole is known, the types are not.
        cluster.pools = pools([NodeUse("all nodes", None, whole[0], whole[1])])
        asker.problems.append("ray: which types its GPUs are was not told")
    cluster.totals = [GpuTotal(p.type, p.nodes, p.total, p.free, p.not_free) for p in cluster.pools]
    kinds = [f"{t.type or 'GPU'} {'?' if t.free is None else t.free} of {t.total} free" for t in cluster.totals]
    cluster.summary = f"Ray {address}: {', '.join(kinds) or 'no GPU'}"
    return [cluster]


def _local_address(environ: Mapping[str, str]) -> str | None:
    """Address of the cluster that `ray start` made on this machine (ray/_private/utils.py, read_ray_address)."""
    folder = os.path.join(environ.get("RAY_TMPDIR") or "/tmp", "ray")
    try:
        with open(os.path.join(folder, "ray_current_cluster"), encoding="utf-8", errors="replace") as file:
            text = file.read(200).strip()
    except OSError:
        return None
    return text if re.fullmatch(r"[^\s]{1,200}", text) else None


def parse_status(text: str) -> tuple[list[NodeUse], tuple[float, float] | None]:
    """`ray status -v`: GPUs by node, and (used, total) of the whole cluster (None where that is not printed)."""
    nodes: list[NodeUse] = []
    whole: tuple[float, float] | None = None
    for line in text.splitlines():
        if line.startswith("Node: "):
            named = _NODE.fullmatch(line.rstrip())
            nodes.append(NodeUse(named[1] if named else ""))
            continue
        found = _USE.fullmatch(line.rstrip())
        if not found:
            continue
        used, total, resource = float(found[1]), float(found[2]), found[3]
        if found[4]:
            used += max(0.0, float(found[5]) - float(found[4]))
        if resource == "GPU":
            if nodes:
                nodes[-1].used, nodes[-1].total = used, total
            else:
                whole = (used, total)
        elif resource.startswith("accelerator_type:") and nodes and resource != "accelerator_type:":
            nodes[-1].mixed = nodes[-1].mixed or nodes[-1].type is not None
            nodes[-1].type = resource.split(":", 1)[1]
    return [node for node in nodes if node.total > 0], whole


def pools(nodes: list[NodeUse]) -> list[GpuPool]:
    """GPUs by accelerator type. Free are whole cards only: a card used in part is in use."""
    grouped: dict[str | None, list[NodeUse]] = {}
    for node in nodes:
        grouped.setdefault(None if node.mixed else node.type, []).append(node)
    found = []
    for kind, members in grouped.items():
        total = sum(int(node.total) for node in members)
        left = [int(node.total) - _up(node.used) for node in members]
        sound = all(count >= 0 for count in left)
        free = sum(left) if sound else None
        found.append(
            GpuPool(
                partition=None,
                type=kind,
                resource="GPU",
                nodes=len(members),
                total=total,
                free=free,
                not_free={"in use": total - free} if free is not None and total > free else {},
                most_on_a_node=max(int(node.total) for node in members),
                most_free_on_a_node=max(left) if sound else None,
            )
        )
    return found


def _up(number: float) -> int:
    return int(number) + (number > int(number))
