"""Task files as they are written where no cluster is in sight: the one that this machine may belong to is not asked."""

from __future__ import annotations

import pytest

from compute_awareness.launch import launch_file
from compute_awareness.sweep import sweep


@pytest.fixture(autouse=True)
def no_cluster_here(monkeypatch):
    for module in (launch_file, sweep):
        seen = module.slurm_in_sight
        monkeypatch.setattr(
            module, "slurm_in_sight", lambda compute, look_here=True, seen=seen: seen(compute) if compute else []
        )
