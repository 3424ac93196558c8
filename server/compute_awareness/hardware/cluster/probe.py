"""One call for whatever schedulers this machine can ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..probe.child import run_child
from .kubectl import read_kubernetes
from .ray_status import read_ray
from .report import Cluster
from .slurm import read_slurm

PROBE_LIMIT_S = 10.0


def probe_cluster(
    environ: Mapping[str, str], limit_s: float = PROBE_LIMIT_S, run: Callable[..., Any] = run_child
) -> list[Cluster]:
    """SLURM, Kubernetes and Ray, each where it is configured and given at most `limit_s` seconds; nothing is changed.

    Empty where there is no scheduler. What could not be read is a problem of its cluster. Cards have no memory yet:
    `cards.name_cards` adds it from the GPU table. Standard library only, so this also runs on another machine.
    """
    found: list[Cluster] = []
    for read in (read_slurm, read_kubernetes, read_ray):
        found += read(environ, limit_s, run)
    return found
