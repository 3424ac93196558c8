"""benchmarks/detect_truth.py without a GPU: on machines with the simulated driver, and its arithmetic."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_machines import cards_of, load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIB = 1024**2


@pytest.fixture
def truth(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("detect_truth")
    sys.modules.pop("detect_truth")


def smi_csv(machine: dict[str, Any], **wrong: str) -> str:
    """What `nvidia-smi --query-gpu` prints of `machine`; `wrong` replaces a cell of the first card."""

    def on(value: Any) -> str:
        return "[N/A]" if value is None else "Enabled" if value else "Disabled"

    lines = []
    for index, card in enumerate(cards_of(machine)):
        sizes = card["memory_mib"]
        free = sizes["total"] - sizes["reserved"] - sizes["used"]
        cells = {
            "index": index, "name": card["name"], "uuid": card["uuid"], "pci": card["pci"],
            "driver": machine.get("driver", {}).get("version", "550.54.15"), "total": sizes["total"],
            "reserved": sizes["reserved"], "used": sizes["used"] + 100, "free": free - 100,
            "capability": card["capability"], "ecc": on(card.get("ecc")), "persistence": on(card.get("persistence")),
            "mode": {3: "Exclusive_Process"}.get(card.get("compute_mode", 0), "Default"),
        }  # fmt: skip
        if index == 0:
            assert set(wrong) <= set(cells)
            cells |= wrong
        lines.append(", ".join(map(str, cells.values())))
    return "\n".join(lines)


def run(environ: dict[str, str], folder: Path, csv: str | None) -> tuple[int, dict[str, Any], str]:
    folder.mkdir(exist_ok=True)
    if csv is not None:
        smi = folder / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(csv)}\n")
        smi.chmod(0o755)
    out = folder / "truth.json"
    environ = {**environ, "PATH": f"{folder}:{os.defpath}", "PYTHONPATH": str(BENCHMARKS.parent / "server")}
    command = [sys.executable, str(BENCHMARKS / "detect_truth.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text()), done.stderr


def test_a_machine_on_which_all_agree(with_driver, tmp_path):
    machine = load("server-4x-a6000-pairs")
    code, document, said = run(with_driver(machine), tmp_path, smi_csv(machine))
    assert code == 0, said
    told = {(row["card"], row["field"]): row for row in document["rows"]}
    assert told[(3, "total_bytes")]["agree"] and told[(0, "ecc")]["agree"] and told[(None, "cards")]["agree"]
    assert told[(0, "free_bytes")]["detected"] != told[(0, "free_bytes")]["nvidia_smi"]  # moved by 100 MiB
    assert len(document["report"]["accelerators"]) == len(document["nvidia_smi"]) == 4
    assert sum(row["agree"] is True for row in document["rows"]) >= 4 * 11


def test_a_difference_is_found(with_driver, tmp_path):
    machine = load("server-a10-ecc")
    code, document, said = run(with_driver(machine), tmp_path, smi_csv(machine, total="24564", ecc="Disabled"))
    assert code == 1
    wrong = {row["field"] for row in document["rows"] if row["agree"] is False}
    assert wrong == {"total_bytes", "ecc"} and "total_bytes is" in said


def test_a_machine_without_a_card(tmp_path):
    code, document, _ = run({}, tmp_path, None)
    assert code == 2 and document["report"]["accelerators"] == []


def test_torch_is_held_against_the_same_card(truth):
    def card(index: int, name: str, **more: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "index": index, "kind": "cuda", "name": name, "uuid": f"GPU-{index}", "pci": None, "mig_of": None,
            "visible": True, "problem": None, "unified": False, "total_bytes": 1000 * MIB, "reserved_bytes": 10 * MIB,
            "used_bytes": 0, "free_bytes": 990 * MIB, "compute_capability": "8.0", "ecc": None, "persistence": None,
            "compute_mode": None,
        }  # fmt: skip
        return base | more

    report = {"driver_version": "1", "accelerators": [card(0, "A"), card(1, "B"), card(2, "C", visible=False)]}
    # torch numbers the fastest first: matched by UUID, not by order.
    told = [
        {"name": "B", "total_memory": 990 * MIB, "capability": "8.0", "uuid": "1"},
        {"name": "A", "total_memory": 989 * MIB, "capability": "8.0", "uuid": "0"},
    ]
    rows = truth.compare(report, [], {"version": "2", "cuda": "13.0", "cards": told})
    by_torch = {(row["card"], row["field"]): row["agree"] for row in rows if row["torch"] is not None}
    assert by_torch == {
        (None, "visible"): True,
        (0, "name"): True,
        (0, "compute_capability"): True,
        (0, "total_bytes less reserved_bytes"): False,
        (1, "name"): True,
        (1, "compute_capability"): True,
        (1, "total_bytes less reserved_bytes"): True,
    }
