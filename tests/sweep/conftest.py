"""Sweeps as they are where no cluster is in sight: the one that this machine may belong to is not asked."""

from __future__ import annotations

import pytest

from compute_awareness.sweep import sweep


@pytest.fixture(autouse=True)
def no_cluster_here(monkeypatch):
    seen = sweep.slurm_in_sight
    monkeypatch.setattr(sweep, "slurm_in_sight", lambda compute, look=True: seen(compute, look) if compute else [])
