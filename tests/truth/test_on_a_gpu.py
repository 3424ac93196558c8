"""Today's estimates against what was measured on a GPU: benchmarks/results/gpu_truth.json, no GPU needed.

The readings stay, the estimates go on: whatever is changed must still agree with the card.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MIB = 1024**2
READINGS = json.loads((ROOT / "benchmarks" / "results" / "gpu_truth.json").read_text(encoding="utf-8"))
ROWS = {row["id"]: row for row in READINGS["rows"]}
# Small models say nothing in percent: a segment of 20 MiB is a tenth of them.
LARGE = [name for name, row in ROWS.items() if row["measured"]["reserved"] > 400 * MIB]
# No sequence of allocations is played for these, or one whose order is not the card's: `reserved` is a rule of thumb.
BY_RULE = ("generation", "patching", "training transformer_lens")


@pytest.fixture(scope="module")
def compared() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("gpu_truth_fit").compared
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def against(compared: Any, name: str) -> dict[str, Any]:
    row = ROWS[name]
    return compared(row["workload"], row["measured"], READINGS["about"]["compute_capability"])


def test_there_are_readings_of_every_task() -> None:
    assert len(ROWS) >= 70 and all("requested" in row["measured"] for row in ROWS.values())
    tasks = {row["workload"]["task"] for row in ROWS.values()}
    assert tasks == {
        "activation_cache", "inference", "generation", "training", "patching", "sae_training", "sae_inference"
    }  # fmt: skip
    assert {"card", "driver", "cuda", "compute_capability", "versions"} <= READINGS["about"].keys()


@pytest.mark.parametrize("name", ROWS)
def test_what_was_asked_of_the_allocator(compared: Any, name: str) -> None:
    """Never low by more than 1 MiB (the workspace of cublasLt), but for sums that TransformerLens' training stages."""
    tensors = against(compared, name)["tensors"]
    lowest = 64 * MIB if name.startswith("training transformer_lens pythia-410m") else 2.1 * MIB
    assert -lowest <= tensors["ours"] - tensors["truth"] <= 0.001 * tensors["truth"]


@pytest.mark.parametrize("name", LARGE)
def test_what_the_allocator_took(compared: Any, name: str) -> None:
    error = against(compared, name)["reserved"]["error_percent"]
    by_rule = any(kind in name for kind in BY_RULE)
    spliced_or_bridge = "splice" in name or "transformer_bridge" in name
    assert abs(error) <= (10 if by_rule else 7.5 if spliced_or_bridge else 2.5)


@pytest.mark.parametrize("name", ROWS)
def test_what_the_driver_shows_lies_within_the_range(compared: Any, name: str) -> None:
    assert against(compared, name)["in_range"]


def test_whatever_was_called_green_ran() -> None:
    edges = READINGS["edges"]
    assert len(edges) >= 20 and all(edge["green_ran"] for edge in edges)
    assert sum(edge["larger_failed"] for edge in edges) >= 0.7 * len(edges)
