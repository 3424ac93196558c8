"""docs/accuracy.md says what the package and the committed measurements say, and these can be measured again."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS: dict[str, Any] = json.loads((BENCHMARKS / "results" / "accuracy.json").read_text(encoding="utf-8"))
BY_ID = {row["id"]: row for row in RESULTS["rows"]}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of benchmarks/, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in [name for name, module in sys.modules.items() if _of_benchmarks(module)]:
        del sys.modules[name]


def _of_benchmarks(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).parent == BENCHMARKS


def test_the_document_is_what_the_script_writes(benchmark: Any) -> None:
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    doc = benchmark("accuracy_doc")
    assert doc.filled(text, RESULTS) == text, "run: python benchmarks/accuracy.py --doc"
    assert doc.plotted(RESULTS) == doc.PLOT.read_text(encoding="utf-8"), "run: python benchmarks/accuracy.py --doc"


def test_a_document_without_a_place_for_a_table_is_refused(benchmark: Any) -> None:
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="guide"):
        benchmark("accuracy_doc").filled(text.replace("<!-- guide:start -->", ""), RESULTS)


def test_every_case_was_measured(benchmark: Any) -> None:
    cases = benchmark("accuracy_cases")
    assert {case.id: case.workload for case in cases.CASES} == {name: row["workload"] for name, row in BY_ID.items()}
    assert len(BY_ID) == len(cases.CASES) >= 200
    assert set(cases.QUICK) <= set(BY_ID)
    assert RESULTS["summary"] == benchmark("accuracy_summary").summarize(RESULTS["rows"])


def test_the_package_still_says_what_was_compared(benchmark: Any) -> None:
    """Our figures and the rough ones are cheap: all are made anew. Only the truth is taken from the file."""
    figures = benchmark("accuracy_figures")
    for name, row in BY_ID.items():
        ours, by_rule = figures.our_figures(row["workload"]), figures.rough_figures(row["workload"])
        assert {kind: f["ours"] for kind, f in row["figures"].items()} == ours, name
        assert {kind: f["rough"] for kind, f in row["figures"].items()} == by_rule, name
        told = figures.cuda_figures(row["workload"])
        assert {kind: f.get("cuda", f["ours"]) for kind, f in row["figures"].items()} == told, name


def test_the_aims_are_met() -> None:
    """What allocates no single numbers to the byte; steps within 0.05 %, which is far inside what is promised."""
    for kind in ("cache", "filtered", "cache_peak", "tl_peak", "hf_peak", "bridge_peak", "generation_peak"):
        ours = RESULTS["summary"][kind]["ours"]
        assert (ours["worst_error_percent"], ours["below_truth"]) == (0, 0), kind
    for name, row in BY_ID.items():
        for figures in row["figures"].values():
            assert abs(figures["ours"] - figures["truth"]) <= 0.0005 * figures["truth"], name


def test_every_maker_answers_a_row_or_says_why_not(benchmark: Any) -> None:
    peers = RESULTS["peers"]["tools"]
    assert len(peers) + len(RESULTS["peers"]["left_out"]) == len(benchmark("accuracy_peers").PEERS)
    for name, tool in peers.items():
        refused = [row for rows in tool["not_answerable"].values() for row in rows]
        assert sorted([*tool["answers"], *refused]) == sorted(BY_ID), name
    makers = benchmark("accuracy_summary").makers(RESULTS)
    assert makers["ours"]["answered"] == makers["rough"]["answered"] == len(BY_ID)
    assert makers["ours"]["share_below"] <= 0.01


def test_the_plot_puts_errors_where_they_belong(benchmark: Any) -> None:
    plot = benchmark("accuracy_plot")
    places = [plot._x(percent) for percent in (-100, -20, -1, 0, 1, 20, 400)]
    assert places == sorted(set(places))
    assert plot._x(5000) == plot._x(400)
    drawn = plot.strips({"a & b": [-50.0, 0.0, 3.0], "silent": []})
    assert drawn.count('class="dot"') == 3
    assert "a &amp; b (3)" in drawn
    assert "silent" not in drawn


def test_measuring_again_gives_the_committed_rows(tmp_path: Path, benchmark: Any) -> None:
    out = tmp_path / "accuracy.json"
    command = [sys.executable, str(BENCHMARKS / "accuracy.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads(out.read_text(encoding="utf-8"))
    assert [row["id"] for row in again["rows"]] == [name for name in BY_ID if name in benchmark("accuracy_cases").QUICK]
    for row in again["rows"]:
        assert row == BY_ID[row["id"]]


def test_a_few_rows_do_not_replace_the_committed_ones(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = benchmark("accuracy")
    before = accuracy.RESULTS.read_bytes()
    monkeypatch.setattr(accuracy, "run", lambda cases: [BY_ID[case.id] for case in cases])
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--quick"])
    accuracy.main()
    assert len(json.loads(capsys.readouterr().out)["rows"]) == len(benchmark("accuracy_cases").QUICK)
    assert accuracy.RESULTS.read_bytes() == before


def test_the_rules_know_the_models_they_name(benchmark: Any) -> None:
    """Independent figures of the rules, worked out by hand: gpt2 at 512 tokens, an 8x SAE on 768."""
    rough = benchmark("rough")
    per_layer = 512 * 768 + 4 * 512 * 768 + 12 * 512 * 512 + 8 * 512 * 768
    assert sum(rough.cache_terms(12, 768, 12, 64, 1, 512, 4).values()) == 12 * per_layer * 4
    assert rough.sae_bytes(768, 6144, 4096) == 4 * (4 * 9_444_096 + 2 * 31_457_280)
    assert rough.model_bytes("gpt2", 1, 2) == 248_000_000
    assert rough.model_bytes("not in the table", 1000, 4) == 4000
