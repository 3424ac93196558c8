"""SLURM, 22.05 and later: partitions, GPUs by type with what is free, and what this user may do. Read only.

Asked are `sinfo`, `scontrol show config`, `scontrol show partition`, `squeue` and, where accounting is on,
`sacctmgr show`. None of them changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..probe.child import run_child
from .access import access_to, limits_of
from .asker import SLURM_FOLDERS, Asker, find_program
from .report import Cluster, ClusterUser, GpuPool, GpuTotal, OwnJob, Partition, SharedGpus
from .slurm_nodes import (
    NODE_COLUMNS,
    CardUse,
    NodeRow,
    gpus_of,
    parse_nodes,
    parts_of,
    why_no_jobs,
)
from .slurm_text import (
    JOB_COLUMNS,
    listed,
    number,
    parse_config,
    parse_jobs,
    parse_pairs,
    seconds,
    waiting_by_partition,
)

# A user's own settings for these programs would change their columns, their times or the cluster they ask.
_SETTINGS = ("SINFO_", "SQUEUE_", "SBATCH_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_BITSTR_LEN")
_JOBS_SHOWN = 100
# What sinfo says where the package is installed and no slurm.conf or DNS record names a controller.
_NO_CLUSTER = "Could not establish a configuration source"


def read_slurm(environ: Mapping[str, str], limit_s: float, run: Callable[..., Any] = run_child) -> list[Cluster]:
    """The SLURM cluster that this machine belongs to; an empty list where `sinfo` is not installed or has no cluster.

    All programs together have `limit_s` seconds. A controller that does not answer is a cluster with a problem.
    """
    sinfo = find_program("sinfo", environ, SLURM_FOLDERS)
    if sinfo is None:
        return []
    asker = Asker(clean(environ), limit_s, run)
    folder = os.path.dirname(sinfo)
    shape = ",".join(f"{name}:{width}" for name, width in (*NODE_COLUMNS, ("Reason", 60)))
    nodes = asker.ask([sinfo, "--local", "-h", "-N", "-O", shape])
    if nodes is None:
        if any(_NO_CLUSTER in problem for problem in asker.problems):
            return []
        summary = "SLURM is installed but its controller does not answer"
        return [Cluster("slurm", None, problems=asker.problems, summary=summary)]

    def ask(program: str, *args: str) -> str:
        path = os.path.join(folder, program)
        return asker.ask([path, *args]) or ""

    rows, unread = parse_nodes(nodes)
    # sinfo's own order changes from call to call: the default partition first, then by name.
    rows = sorted(rows, key=lambda row: (not row.default, row.partition, row.name))
    if unread:
        asker.problems.append(f"sinfo: {unread} lines could not be read; their nodes are not counted")
    if any(gpus_of(row) is None for row in rows):
        names = sorted({row.name for row in rows if gpus_of(row) is None})
        asker.problems.append(
            f"sinfo: the GRES of {len(names)} nodes could not be read ({', '.join(names[:3])}…); their GPUs "
            "are not counted"
        )
    config = parse_config(ask("scontrol", "show", "config"))
    described = parse_pairs(ask("scontrol", "-o", "show", "partition"))
    cluster = Cluster("slurm", config.get("ClusterName") or None, config.get("SLURM_VERSION") or None)
    cluster.problems = asker.problems
    cluster.pools = pools(rows)
    cluster.totals = totals(rows)
    cluster.shared = shared(rows)
    cluster.user = _user(config, described, ask, asker)
    waiting = asker.ask([os.path.join(folder, "squeue"), "--local", "-h", "-t", "PENDING", "-o", "%P"])
    counts = None if waiting is None else waiting_by_partition(waiting)
    cluster.partitions = partitions(rows, described, cluster.user, counts)
    cluster.summary = _summary(cluster)
    return [cluster]


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables without the settings that change what SLURM's programs print."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_SETTINGS)}
    kept["LC_ALL"] = "C"
    return kept


def pools(rows: Sequence[NodeRow]) -> list[GpuPool]:
    """GPUs by (partition, type, features of their nodes): nodes with other features may have other cards."""
    grouped: dict[tuple[str, str | None, tuple[str, ...]], list[tuple[NodeRow, CardUse]]] = {}
    for row in rows:
        for card in gpus_of(row) or []:
            key = (row.partition, card.type, tuple(sorted(row.features or [])))
            grouped.setdefault(key, []).append((row, card))
    found = []
    for (partition, kind, features), members in grouped.items():
        cards = [card for _, card in members]
        best = max(members, key=lambda pair: (pair[1].free or 0, pair[0].idle_cpus or 0))
        has_free = bool(best[1].free)
        found.append(
            GpuPool(
                partition=partition,
                type=kind,
                resource="gpu",
                nodes=len(members),
                total=sum(card.total for card in cards),
                free=added(card.free for card in cards),
                not_free=_merged(card.not_free for card in cards),
                most_on_a_node=max(card.total for card in cards),
                most_free_on_a_node=None if None in [c.free for c in cards] else max(c.free or 0 for c in cards),
                free_cpus=best[0].idle_cpus if has_free else None,
                free_ram_bytes=best[0].ram_left_bytes if has_free else None,
                features=list(features),
            )
        )
    return found


def totals(rows: Sequence[NodeRow]) -> list[GpuTotal]:
    """GPUs by type, every node once however many partitions it is in."""
    once = {row.name: row for row in rows}
    by_type: dict[str | None, list[CardUse]] = {}
    for row in once.values():
        for card in gpus_of(row) or []:
            by_type.setdefault(card.type, []).append(card)
    return [
        GpuTotal(
            type=kind,
            nodes=len(cards),
            total=sum(card.total for card in cards),
            free=added(card.free for card in cards),
            not_free=_merged(card.not_free for card in cards),
        )
        for kind, cards in by_type.items()
    ]


def shared(rows: Sequence[NodeRow]) -> list[SharedGpus]:
    """Shards and MPS by (partition, type)."""
    found: dict[tuple[str, str, str | None], SharedGpus] = {}
    for row in rows:
        for kind in ("shard", "mps"):
            for card, (total, used) in parts_of(row, kind).items():
                if total == 0:
                    continue
                known = found.get((row.partition, kind, card))
                if known is None:
                    one = SharedGpus(row.partition, kind, card, 1, total, used)  # type: ignore[arg-type]
                    found[row.partition, kind, card] = one
                else:
                    known.nodes += 1
                    known.total += total
                    known.used = added((known.used, used))
    return list(found.values())


def partitions(
    rows: Sequence[NodeRow],
    described: Sequence[Mapping[str, str]],
    user: ClusterUser | None,
    waiting: Mapping[str, int] | None,
) -> list[Partition]:
    """Every partition that sinfo or scontrol names, with limits from `scontrol show partition`."""
    by_name = {one["PartitionName"]: one for one in described if one.get("PartitionName")}
    names = list(dict.fromkeys([*by_name, *(row.partition for row in rows)]))
    found = []
    for name in names:
        about = by_name.get(name, {})
        members = [row for row in rows if row.partition == name]
        states: dict[str, int] = {}
        for row in members:
            word = why_no_jobs(row.state) or row.state.split("+")[0].lower()
            states[word] = states.get(word, 0) + 1
        longest = about.get("MaxTime", "")
        part = Partition(
            name=name,
            default=about.get("Default") == "YES" or any(row.default for row in members),
            state=about.get("State"),
            nodes=number(about.get("TotalNodes", "")),
            node_states=states,
            max_time_s=seconds(longest),
            unlimited_time=longest in ("UNLIMITED", "INFINITE"),
            default_time_s=seconds(about.get("DefaultTime", "")),
            max_nodes=number(about.get("MaxNodes", "")),
            allow_accounts=[] if about.get("AllowAccounts") == "ALL" else listed(about.get("AllowAccounts")),
            qos=next(iter(listed(about.get("QoS"))), None),
            pending_jobs=None if waiting is None else waiting.get(name, 0),
        )
        part.access, part.access_why, part.account = access_to(about, user, _uid(), _groups())
        found.append(part)
    return found


def _user(
    config: Mapping[str, str], described: Sequence[Mapping[str, str]], ask: Callable[..., str], asker: Asker
) -> ClusterUser:
    user = ClusterUser(_user_name(asker.environ))
    enforce = config.get("AccountingStorageEnforce")
    user.enforced = None if enforce is None else "associations" in enforce
    shape = ",".join(f"{name}:{width}" for name, width in JOB_COLUMNS)
    before = len(asker.problems)
    queue = ask("squeue", "--local", "-h", "--me", "-O", shape)
    if len(asker.problems) == before:
        jobs = parse_jobs(queue)
        user.running = sum(job.state == "RUNNING" for job in jobs)
        user.pending = sum(job.state == "PENDING" for job in jobs)
        user.jobs = [
            OwnJob(job.id, job.partition, job.state, job.gpus, job.time_left_s, job.start, job.reason)
            for job in jobs[:_JOBS_SHOWN]
        ]
    # Without slurmdbd there are no accounts to ask for, and sacctmgr only says so.
    if config.get("AccountingStorageType") == "accounting_storage/slurmdbd" and user.name:
        imposed = [name for about in described for name in listed(about.get("QoS"))]
        limits_of(user, config.get("ClusterName", ""), imposed, ask)
    return user


def _user_name(environ: Mapping[str, str]) -> str | None:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return environ.get("USER") or None


def _uid() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


def _groups() -> list[str] | None:
    try:
        import grp
    except ImportError:
        return None
    names = []
    for gid in {*os.getgroups(), os.getgid()}:
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            return None  # a group without a name here may be the one that is allowed
    return names


def added(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    numbers = list(counts)
    return None if None in numbers else sum(count or 0 for count in numbers)


def _merged(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for part in parts:
        for reason, count in part.items():
            whole[reason] = whole.get(reason, 0) + count
    return whole


def _summary(cluster: Cluster) -> str:
    kinds = [
        f"{total.type or 'untyped GPU'} {'?' if total.free is None else total.free} of {total.total} free"
        for total in cluster.totals
    ]
    name = f"SLURM {cluster.version or ''}".strip() + (f" {cluster.name}" if cluster.name else "")
    return f"{name}: {', '.join(kinds) or 'no GPU'}; {len(cluster.partitions)} partitions"
