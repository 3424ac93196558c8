"""Today's estimates against what was measured on a GPU: benchmarks/results/gpu_truth.json, no GPU needed.

The readings stay, the estimates go on: whatever is changed must still agree with the card.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from recorder import above

from compute_awareness.estimates import assemble
from compute_awareness.estimator import estimate
from compute_awareness.memory.card.allocator import Reserved, _Segments, simulate
from compute_awareness.memory.card.device import cublas_workspace
from compute_awareness.memory.tape import Tape
from compute_awareness.workload import parse_workload

ROOT = Path(__file__).parents[2]
MIB = 1024**2
RESULTS = ROOT / "benchmarks" / "results"
READINGS = json.loads((RESULTS / "gpu_truth.json").read_text(encoding="utf-8"))
ROWS = {row["id"]: row for row in READINGS["rows"]}
# Small models say nothing in percent: a segment of 20 MiB is a tenth of them.
LARGE = [name for name, row in ROWS.items() if row["measured"]["reserved"] > 400 * MIB]
RECORDED = {
    case["id"]: case for case in json.loads(gzip.decompress((RESULTS / "gpu_requests.json.gz").read_bytes()))["cases"]
}
PASSES = [name for name in RECORDED if name.split()[0] in ("inference", "activation_cache", "sae_inference")]
PASSES_MEASURED = [name for name in ROWS if name.split()[0] in ("inference", "activation_cache", "sae_inference")]
# Every request is in the card's order.
IN_ORDER = ("training transformer_lens", "attribution_patching")


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
    """Never low by more than 1 MiB (the workspace of cublasLt), or 2."""
    tensors = against(compared, name)["tensors"]
    assert -2.1 * MIB <= tensors["ours"] - tensors["truth"] <= 0.001 * tensors["truth"]


@pytest.mark.parametrize("name", LARGE)
def test_what_the_allocator_took(compared: Any, name: str) -> None:
    found = against(compared, name)
    in_order = any(kind in name for kind in IN_ORDER)
    assert abs(found["reserved"]["error_percent"]) <= (1 if in_order else 3)
    assert abs(found["device"]["error_percent"]) <= 2


def until_the_last_allocation(requests: list[int], workspace: int) -> list[int]:
    """Bytes of what the large pool was asked for, rounded as it rounds, and -bytes of what was let go; frees with
    nothing in between are sorted. Without cuBLAS's workspace, which is a layer's first product too early here, and
    without what goes when the call returns."""
    found = above([request if request < 0 else -(-request // 512) * 512 for request in requests], MIB)
    found.remove(workspace)
    while found[-1] < 0:
        found.pop()
    return found


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_asks_for_what_the_card_was_asked_for_in_its_order(
    compared: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor above 1 MiB, from the first to the last, and when it goes."""
    played: list[tuple[list[int], int]] = []

    def spy(tape: Tape, standing: Any, workspace: int, *_: Any) -> int:
        played.append((tape.requests((), workspace), workspace))
        return 0

    def spy_after_processing(_: Any, requests: list[int]) -> Reserved:
        played.append((requests, cublas_workspace(READINGS["about"]["compute_capability"])))
        return Reserved(0, 0, 0, 0)

    monkeypatch.setattr(assemble, "reserved_by", spy)
    monkeypatch.setattr(_Segments, "played", spy_after_processing)
    against(compared, name)
    (requests, workspace), case = played[-1], RECORDED[name]
    before = sum(request >= 0 for request in case["loading"])
    assert all(request >= 0 or ~request >= before for request in case["run"]), "a pass frees only what it made"
    real = [request if request >= 0 else request + before for request in case["run"]]
    ours, real = (until_the_last_allocation(each, workspace) for each in (requests, real))
    assert len(ours) > 50 and ours == real[: len(ours)]


@pytest.mark.parametrize("name", PASSES_MEASURED)
def test_what_the_allocator_took_after_what_the_benchmark_left_there(name: str) -> None:
    """`gpu_truth_child` made a product before it built the model, and left its workspace's segment free."""
    asked = estimate(parse_workload(ROWS[name]["workload"]), READINGS["about"]["compute_capability"]).requests
    if asked is None:
        assert "compatibility_mode" in name, "only what processing leaves is played otherwise"
        return
    workspace = cublas_workspace(READINGS["about"]["compute_capability"])
    requests = asked.events.requests([*asked.standing, asked.beside], workspace)
    played = simulate([workspace, ~0, *[request if request >= 0 else request - 1 for request in requests]])
    distance = abs(played.peak_reserved - ROWS[name]["measured"]["reserved"])
    # The workspace is taken at the first product, not before the first layer; an SAE is loaded before its model.
    apart = {
        "inference transformers llama-3.2-1b 4x1024 bfloat16": 28,
        "sae_inference jumprelu 24576 8x256 splice=True": 10,
    }
    assert distance <= apart.get(name, 6) * MIB


@pytest.mark.parametrize("name", [name for name in ROWS if "transformer_bridge" in name])
def test_what_a_bridge_takes_more_in_later_passes(name: str) -> None:
    """The segment that the logits need once patterns of the pass before lie in theirs, to the MiB."""
    measured = ROWS[name]["measured"]
    result = estimate(parse_workload(ROWS[name]["workload"]), READINGS["about"]["compute_capability"])
    assert abs(result.late_bytes - (measured["again_reserved"] - measured["reserved"])) <= 2 * MIB
    assert result.range.high >= measured["again_device"]


@pytest.mark.parametrize("name", ROWS)
def test_what_the_driver_shows_lies_within_the_range(compared: Any, name: str) -> None:
    assert against(compared, name)["in_range"]


def test_whatever_was_called_green_ran() -> None:
    edges = READINGS["edges"]
    assert len(edges) >= 20 and all(edge["green_ran"] for edge in edges)
    assert sum(edge["larger_failed"] for edge in edges) >= 0.7 * len(edges)
