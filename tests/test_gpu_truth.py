"""benchmarks/gpu_truth.py without a GPU: two tiny cases run on the CPU, and its arithmetic on made-up readings."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MIB = 1024**2
CACHE = {"task": "activation_cache", "model": "gpt2", "seq_len": 64}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of benchmarks/, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in [n for n, m in sys.modules.items() if Path(getattr(m, "__file__", None) or "/").parent == BENCHMARKS]:
        del sys.modules[name]


def test_two_small_cases_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "readings.json"
    command = [sys.executable, str(BENCHMARKS / "gpu_truth.py"), "--device", "cpu", "--out", str(out)]
    for only in ("activation_cache", "training transformers"):
        done = subprocess.run(
            [*command, "--only", only], capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(out.read_text(encoding="utf-8"))
    assert len(document["rows"]) == 2
    assert document["about"]["card"] == "cpu"
    assert "torch" in document["about"]["versions"]
    for row in document["rows"]:
        assert abs(row["compared"]["tensors"]["error_percent"]) < 0.1, row
        assert "error_percent" not in row["compared"]["device"]
    fitted = subprocess.run([*command, "--fit"], capture_output=True, text=True, encoding="utf-8", check=False)
    assert fitted.returncode == 2
    assert "three are the least" in fitted.stderr


def reading(allocated: int, reserved: int, device: int | None, workspace: int = 8_519_680) -> dict[str, Any]:
    return {
        "allocated": allocated, "requested": allocated, "reserved": reserved, "device": device,
        "cublas_workspace": workspace,
    }  # fmt: skip


def test_what_was_measured_is_held_against_the_three_peaks(benchmark: Any) -> None:
    fit = benchmark("gpu_truth_fit")
    ours = fit.compared(CACHE, reading(10**9, 10**9, 10**9), "8.0")
    same = reading(ours["tensors"]["ours"], ours["reserved"]["ours"], ours["device"]["ours"])
    again = fit.compared(CACHE, same, "8.0")
    assert [again[level]["error_percent"] for level in fit.LEVELS] == [0, 0, 0]
    assert again["in_range"]
    beyond = fit.compared(CACHE, same | {"device": again["range"][1] + 1}, "8.0")
    assert not beyond["in_range"]
    assert beyond["device"]["error_percent"] < 0


def made_up(rows: int, context: int, waste: float, fit: Any) -> list[dict[str, Any]]:
    """Readings of a card whose context is `context` MiB and whose allocator keeps `waste` of the tensors more."""
    made = []
    for n in range(rows):
        workload = CACHE | {"batch_size": 1 + n}
        ours = fit.compared(workload, reading(10**9, 10**9, 10**9), "8.0")
        reserved = ours["reserved"]["ours"] + int(waste * ours["tensors"]["ours"])
        measured = reading(ours["tensors"]["ours"], reserved, reserved + context * MIB)
        made.append({"id": f"case {n:02}", "measured": measured, "compared": fit.compared(workload, measured, "8.0")})
    return made


def test_the_fit_finds_the_constants_that_the_readings_were_made_with(benchmark: Any) -> None:
    fit = benchmark("gpu_truth_fit")
    rows = made_up(12, 444, 0.03, fit)
    found = fit.fit(rows[::-1], "8.0")
    assert found["constants"]["context_mib"] == {"typical": 444, "low": 444, "high": 444}
    assert found["constants"]["cublas_workspace_bytes"] == {"ours": 8_519_680, "measured": 8_519_680}
    assert found["constants"]["margin"]["typical"] == pytest.approx(0.03, abs=1e-4)
    assert (found["fitted_on"], found["held_out"]) == (8, 4)
    assert abs(found["device_error_percent"]["after"]["median"]) < 0.01
    assert abs(found["device_error_percent"]["before"]["median"]) > 0.5
    assert found["tensors_error_percent"]["median"] == 0


def test_the_held_out_third_is_not_what_was_fitted_on(benchmark: Any) -> None:
    fit = benchmark("gpu_truth_fit")
    train, held_out = fit.split([{"id": str(n)} for n in range(9)])
    assert (len(train), len(held_out)) == (6, 3)
    assert not {row["id"] for row in train} & {row["id"] for row in held_out}


def test_the_largest_green_batch_is_green_and_the_next_is_not(benchmark: Any) -> None:
    edges = benchmark("gpu_truth_edges")
    for gigabytes in (8, 24):
        free = gigabytes * 1024**3
        green = edges.largest_that_fits(CACHE, "batch_size", free, "8.0")
        assert edges.status(CACHE | {"batch_size": green}, free, "8.0") == "fits"
        assert edges.status(CACHE | {"batch_size": green + 1}, free, "8.0") != "fits"
    assert edges.largest_that_fits(CACHE, "batch_size", 100 * MIB, "8.0") == 0


def test_the_edges_say_whether_green_ran_and_more_failed(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up card on which everything up to 20 sequences runs."""
    edges = benchmark("gpu_truth_edges")
    monkeypatch.setattr(edges, "EDGES", (("batch_size", benchmark("accuracy_cases").Case("a cache", CACHE)),))

    def run(workload: dict[str, Any], cap: int) -> dict[str, Any]:
        return {"allocated": 1} if workload["batch_size"] <= 20 else {"oom": "CUDA out of memory"}

    rows = list(edges.edges(run, 17 * 1024**3, "8.0"))
    assert [row["card_gb"] for row in rows] == [8, 16]
    for row in rows:
        assert row["larger"] >= 1.1 * row["green"]
        assert (row["green_ran"], row["larger_failed"]) == (row["green"] <= 20, row["larger"] > 20)


def test_every_task_is_run_and_every_case_can_be_estimated(benchmark: Any) -> None:
    cases = benchmark("gpu_truth_cases")
    every = [*cases.SMALL, *cases.LARGE]
    assert len({case.id for case in every}) == len(every) >= 60
    tasks = {case.workload["task"] for case in cases.LARGE}
    assert (
        tasks == {case.workload["task"] for case in cases.SMALL} == set(benchmark("compute_awareness.workload").TASKS)
    )
    for case in every:
        assert benchmark("gpu_truth_fit").compared(case.workload, reading(10**9, 10**9, None), "9.0")["device"]["ours"]
