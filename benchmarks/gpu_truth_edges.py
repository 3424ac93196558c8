"""At the edge of a card: the largest batch that we call `fits`, and one a tenth larger. Needs no torch itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpu_truth_cases import EDGES

from compute_awareness.advice.place import Place
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.estimator import estimate
from compute_awareness.workload import parse_workload

SIZES_GB = (8, 16, 24, 40)
_MOST = 1 << 22


def status(workload: dict[str, Any], free: int, capability: str | None) -> str:
    """preflight's verdict on a card of `capability` with `free` bytes."""
    result = estimate(parse_workload(workload), capability)
    return verdict_at(result, Place("gpu", "the card", free, capability)).status


def largest_that_fits(workload: dict[str, Any], field: str, free: int, capability: str | None) -> int:
    """The largest value of `field` whose verdict is `fits`; 0 where 1 does not fit. Memory must grow with it."""

    def fits(n: int) -> bool:
        return status(workload | {field: n}, free, capability) == "fits"

    low, high = 0, 1
    while high < _MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def a_tenth_more(green: int) -> int:
    """The least whole number that is a tenth larger."""
    return max(green + 1, -(-11 * green // 10))


def edges(
    run: Callable[[dict[str, Any], int], dict[str, Any]], total: int, capability: str | None
) -> Iterator[dict[str, Any]]:
    """For each size up to the card's own and each workload: did green run, and did a tenth more fail?

    Args:
        run: (workload, cap in bytes) -> what `gpu_truth_child` found.
        total: bytes of the card.
    """
    for gigabytes in (size for size in SIZES_GB if size * 1024**3 <= total):
        cap = gigabytes * 1024**3
        for field, case in EDGES:
            green = largest_that_fits(case.workload, field, cap, capability)
            if green == 0:
                continue
            larger = a_tenth_more(green)
            ran = {n: run(case.workload | {field: n}, cap) for n in (green, larger)}
            yield {
                "id": case.id, "card_gb": gigabytes, "field": field, "green": green, "larger": larger,
                "larger_verdict": status(case.workload | {field: larger}, cap, capability),
                "green_ran": "allocated" in ran[green] and ran[green].get("device", 0) <= cap,
                "larger_failed": "oom" in ran[larger],
                "green_measured": ran[green], "larger_measured": ran[larger],
            }  # fmt: skip
