"""The shortest ways to a GPU that fits on the clusters that were seen."""

from __future__ import annotations

from ..hardware.cluster.shortest import GpuPath, shortest_paths
from ..hardware.compute import Compute
from ..units import GIB
from .answers import ClusterPath

_LONGEST_HOURS = 24 * 365
_SHORTEST_HOURS = 1.0


def cluster_paths(
    compute: Compute | None, needed_bytes: int, hours: float, ram_bytes: int, gpus: int = 1, limit: int = 3
) -> list[ClusterPath]:
    """What to ask a SLURM cluster of the report for, the shortest way first; nothing is submitted.

    `needed_bytes` is the upper end on each of `gpus` cards, `ram_bytes` what the run takes beside them. A job
    is given half as much time again as `hours`, at least one hour.
    """
    if compute is None or needed_bytes <= 0:
        return []
    asked = min(max(hours * 1.5, _SHORTEST_HOURS), _LONGEST_HOURS)
    found: list[ClusterPath] = []
    for cluster in compute.clusters:
        if cluster.scheduler == "slurm":
            ways = shortest_paths(cluster, needed_bytes, asked, gpus, ram_bytes + 8 * GIB).paths
            found += [_told(way, cluster.name) for way in ways]
    return found[:limit]


def _told(way: GpuPath, cluster: str | None) -> ClusterPath:
    return ClusterPath(
        cluster=cluster or "SLURM",
        partition=way.partition,
        gpu=way.type,
        free_now=way.free_now,
        interactive=way.interactive,
        batch=way.batch,
        why=way.why,
        cautions=way.cautions,
    )
