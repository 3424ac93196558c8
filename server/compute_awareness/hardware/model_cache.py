"""What is already in the model cache of the machine that looks."""

from __future__ import annotations

from pathlib import Path

from .compute import Compute

_WEIGHTS = ("*/*.safetensors", "*/*.bin")


def in_cache(repo: str, compute: Compute) -> bool:
    """Whether weights of the Hugging Face repository `repo` lie in the cache that `compute` reports (huggingface_hub's
    layout, models--OWNER--NAME/snapshots/REVISION/).

    False for a report of another machine, whose disk is not in reach. A download that was broken off may pass for one
    that is there.
    """
    if compute.elsewhere() is not None or not compute.host.disk_path:
        return False
    snapshots = Path(compute.host.disk_path) / f"models--{repo.replace('/', '--')}" / "snapshots"
    try:
        return any(next(snapshots.glob(pattern), None) is not None for pattern in _WEIGHTS)
    except OSError:
        return False
