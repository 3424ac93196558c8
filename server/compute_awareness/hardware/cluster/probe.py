"""One call for whatever schedulers this machine can ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..probe.child import run_child
from .asker import SLURM_FOLDERS, find_program
from .report import Cluster

PROBE_LIMIT_S = 10.0


def probe_cluster(
    environ: Mapping[str, str], limit_s: float = PROBE_LIMIT_S, run: Callable[..., Any] = run_child
) -> list[Cluster]:
    """SLURM, Kubernetes and Ray, each where it is configured and given at most `limit_s` seconds; nothing is changed.

    Empty where there is no scheduler. What could not be read is a problem of its cluster. Cards have no memory yet:
    `cards.name_cards` adds it from the GPU table. Standard library only, so this also runs on another machine.
    A reader is imported only where there is something for it to read: most machines have one scheduler, or none.
    """
    found: list[Cluster] = []
    if find_program("sinfo", environ, SLURM_FOLDERS):
        from .slurm import read_slurm

        found += read_slurm(environ, limit_s, run)
    if find_program("kubectl", environ):
        from .kubectl import read_kubernetes

        found += read_kubernetes(environ, limit_s, run)
    if _may_have_ray(environ):
        from .ray_status import read_ray

        found += read_ray(environ, limit_s, run)
    return found


def _may_have_ray(environ: Mapping[str, str]) -> bool:
    """A cluster that is configured is told of even where its program is not at hand, so the program is not all."""
    folder = os.path.join(environ.get("RAY_TMPDIR") or "/tmp", "ray")
    return bool(environ.get("RAY_ADDRESS")) or os.path.isdir(folder) or find_program("ray", environ) is not None
