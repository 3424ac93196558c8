"""Runs at the edge of a card: what an H100 did whose memory was capped, and what is said of it.

The readings are those of `benchmarks/gpu_truth.py` (`edges`): a size that was called green, and one a tenth larger.
No GPU is needed here.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compute_awareness.advice.place import Place, needed, takes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.estimator import estimate
from compute_awareness.memory.card.device import cublas_workspace
from compute_awareness.memory.estimate import Estimate
from compute_awareness.workload import parse_workload

ROOT = Path(__file__).parents[2]
MIB, GIB = 1024**2, 1024**3
READINGS = json.loads((ROOT / "benchmarks" / "results" / "gpu_truth.json").read_text(encoding="utf-8"))
HOPPER = "9.0"
WORKSPACE = cublas_workspace(HOPPER)
FORWARD = [edge for edge in READINGS["edges"] if not edge["id"].startswith(("training", "sae_training"))]
DIED = re.compile(r"Tried to allocate ([\d.]+) (MiB|GiB).* ([\d.]+) GiB is allocated by PyTorch")
UNIT = {"MiB": MIB, "GiB": GIB}


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Any]:
    """The modules of the benchmark."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def case_of(benchmarks: Any, name: str) -> tuple[str, dict[str, Any]]:
    """The field that grows, and the workload."""
    return next((field, case.workload) for field, case in benchmarks("gpu_truth_cases").EDGES if case.id == name)


def of_size(benchmarks: Any, name: str, size: int) -> Estimate:
    field, workload = case_of(benchmarks, name)
    return estimate(parse_workload(workload | {field: size}), HOPPER)


def allowed(benchmarks: Any, edge: dict[str, Any]) -> int:
    """Bytes that torch's allocator was given there."""
    return edge["card_gb"] * GIB - edge["green_measured"]["context"] - benchmarks("gpu_truth_child").GROWTH


@pytest.mark.parametrize("edge", FORWARD, ids=lambda edge: f"{edge['id']} on {edge['card_gb']} GB")
def test_the_simulated_allocator_dies_where_the_card_did(benchmarks: Any, edge: dict[str, Any]) -> None:
    """And at the same request, with as much allocated: the message has two decimals."""
    for size, measured in ((edge["green"], edge["green_measured"]), (edge["larger"], edge["larger_measured"])):
        requests = of_size(benchmarks, edge["id"], size).requests
        assert requests is not None
        played = requests.played(allowed(benchmarks, edge), WORKSPACE)
        if "oom" not in measured:
            assert played.failed is None
            continue
        found = DIED.search(measured["oom"])
        assert found is not None and played.failed is not None
        assert played.failed == pytest.approx(float(found[1]) * UNIT[found[2]], rel=0.005)
        assert played.allocated == pytest.approx(float(found[3]) * GIB, rel=0.005)


@pytest.mark.parametrize("edge", FORWARD, ids=lambda edge: f"{edge['id']} on {edge['card_gb']} GB")
def test_the_largest_green_size_runs_and_a_tenth_more_dies(benchmarks: Any, edge: dict[str, Any]) -> None:
    """With the memory that the card had: what was measured, or simulated where another size is green today."""
    green, larger = benchmarks("gpu_truth_doc").green_today(edge, HOPPER)
    ran = {edge["green"]: True, edge["larger"]: not edge["larger_failed"]}
    for size in (green, larger):
        requests = of_size(benchmarks, edge["id"], size).requests
        assert requests is not None
        ran.setdefault(size, requests.run_in(allowed(benchmarks, edge), WORKSPACE))
    assert ran[green] and not ran[larger]


@pytest.mark.parametrize(
    "edge",
    [edge for edge in READINGS["edges"] if edge not in FORWARD],
    ids=lambda edge: f"{edge['id']} on {edge['card_gb']} GB",
)
def test_a_green_training_is_hardly_larger_than_what_ran(benchmarks: Any, edge: dict[str, Any]) -> None:
    green, larger = benchmarks("gpu_truth_doc").green_today(edge, HOPPER)
    assert edge["green_ran"] and edge["larger_failed"]
    assert green <= 1.014 * edge["green"] and larger >= edge["larger"]


def at(estimate: Estimate, free: int) -> tuple[str, str]:
    verdict = verdict_at(estimate, Place("gpu", "the card", free, HOPPER))
    return verdict.status, verdict.why


def test_a_run_that_gets_by_with_less_than_it_would_reserve_is_green_and_says_why(benchmarks: Any) -> None:
    """On the card of 16 GB, 48 sequences ran with one retry, in 13.3 GiB; where there is room 15.4 are reserved."""
    large = of_size(benchmarks, "inference transformers pythia-1b 1x1024 bfloat16", 48)
    place = Place("gpu", "the card", 16 * GIB, HOPPER)
    assert takes(large, place)[0] > 16 * GIB
    assert needed(large, place)[2] == 16 * GIB
    status, why = at(large, 16 * GIB)
    assert status == "fits" and "gives back what it keeps idle" in why
    assert at(large, 24 * GIB)[0] == "fits" and "gives back" not in at(large, 24 * GIB)[1]
    assert at(large, 14 * GIB)[0] == "tight"


@pytest.mark.parametrize(
    ("run", "capability"),
    [
        ({"task": "inference", "model": "gpt2-medium", "batch_size": 2, "seq_len": 1000}, "8.6"),
        ({"task": "activation_cache", "model": "mistral-7b", "batch_size": 24, "seq_len": 100, "cache_device": "cpu",
          "names_filter": ["*hook_pattern", "*hook_z"]}, "7.5"),
        ({"task": "generation", "model": "pythia-1.4b", "batch_size": 32, "seq_len": 256, "new_tokens": 30,
          "dtype": "float32"}, "8.0"),
    ],
    ids=lambda given: given["model"] if isinstance(given, dict) else given,
)  # fmt: skip
def test_more_free_memory_never_makes_a_verdict_worse(run: dict[str, Any], capability: str) -> None:
    """With a little more the simulated allocator dies where it ran with less. Green is not said there: how much of a
    card the context leaves is known within some hundred MiB."""
    made = estimate(parse_workload({"library": "transformer_lens", "dtype": "bfloat16"} | run), capability)
    place = Place("gpu", "the card", None, capability)
    _, low, high = takes(made, place)
    step = (high - low) // 200
    said = [at_place(made, replace(place, free_bytes=free)) for free in range(low - step, high + step, step)]
    order = ["does_not_fit", "tight", "fits"]
    assert sorted(said, key=order.index) == said and set(said) == set(order)


def at_place(estimate: Estimate, place: Place) -> str:
    return verdict_at(estimate, place).status


def test_a_training_step_does_not_get_by_with_less() -> None:
    """Its second step finds the optimizer's state between what was free, and that was not played."""
    step = {"task": "training", "library": "transformers", "model": "gpt2", "batch_size": 6, "seq_len": 512}
    made = estimate(parse_workload(step | {"dtype": "float32"}), HOPPER)
    assert made.requests is None
    high = takes(made, Place("gpu", "the card", None, HOPPER))[2]
    assert [at(made, high)[0], at(made, high - 1)[0]] == ["fits", "tight"]


@pytest.mark.parametrize(("model", "attention"), [("olmo-1b", "eager"), ("llama-3.2-1b", "sdpa")])
def test_what_hundreds_of_passes_leave_idle_is_no_need(model: str, attention: str) -> None:
    """Without a key/value cache torch would come to reserve many times what is alive; some cards have that to spare."""
    run = {
        "task": "generation", "library": "transformers", "model": model, "dtype": "float32", "batch_size": 4,
        "seq_len": 512, "new_tokens": 512, "attention": attention, "kv_cache": False,
    }  # fmt: skip
    made = estimate(parse_workload(run), HOPPER)
    assert 1.9 * made.peak.tensors < made.peak.reserved <= 2 * made.peak.tensors + 64 * MIB
    assert "it is no need" in " ".join(made.assumptions)
    free = int(1.5 * made.peak.tensors) + GIB
    assert takes(made, Place("gpu", "the card", None, HOPPER))[2] > free
    assert at(made, free)[0] == "fits"
    assert at(made, made.peak.tensors + 600 * MIB)[0] != "fits"
