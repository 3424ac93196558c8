"""Parts of clusters made up for the tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from compute_awareness.hardware.cluster.report import GpuPool

# The same examples in every run, however slow the machine.
fuzzed = settings(
    derandomize=True, deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)


def pool(kind, *features, partition="gpu", resource="gpu", total=4, free: int | None = 2, **more) -> GpuPool:
    """A pool of one node with these GPUs and node features."""
    in_use = {"in use": total - free} if free is not None and total > free else {}
    return GpuPool(
        partition, kind, resource, 1, total, free, in_use, most_on_a_node=total, most_free_on_a_node=free,
        features=list(features), **more,
    )  # fmt: skip
