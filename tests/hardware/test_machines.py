"""Every machine of machines/ through the simulated driver and the real nvidia-ml-py: its report as described."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
from mcp.types import TextContent
from simulated_machines import load, machine_names, repeated, write_files

from compute_awareness.advice.cards import numbers
from compute_awareness.advice.place import seen_place
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.diagnose import diagnose
from compute_awareness.hardware.probe import examine as module
from compute_awareness.hardware.reading import as_compute
from compute_awareness.mcp_server.answers import answer, concise_compute
from compute_awareness.units import MIB

EXPECTED = {
    "cards", "usable", "problems", "links", "place", "summary", "findings", "driver_version", "driver_cuda_version",
    "together", "not_counted",
}  # fmt: skip
MEMINFO = "MemTotal: 65536000 kB\nMemAvailable: 49152000 kB\n"


def test_there_are_enough():
    assert len(machine_names()) >= 40


@pytest.mark.parametrize("name", machine_names())
def test_machine(name, with_driver, tmp_path, monkeypatch):
    machine = load(name)
    files = {"proc/meminfo": MEMINFO, **machine.get("files", {})}
    files = {path: text.replace("OWN", str(os.getuid())) for path, text in files.items()}
    write_files({"files": files}, tmp_path)
    if "limit_s" in machine:
        limited = functools.partial(module.probe_nvidia, nvml_limit_s=machine["limit_s"])
        monkeypatch.setattr(module, "probe_nvidia", limited)
    environ = with_driver(machine, **machine.get("environ", {}))
    compute = detect(environ=environ, root=tmp_path, cwd=tmp_path, with_python=False)

    expect = machine["expect"]
    assert set(expect) <= EXPECTED
    cards = repeated(expect["cards"])
    assert [card.name for card in compute.accelerators] == [card["name"] for card in cards]
    for found, wanted in zip(compute.accelerators, cards, strict=True):
        check(found, wanted)
    problems = [problem.reason for problem in compute.problems if problem.probe == "nvidia"]
    for words in expect.get("problems", []):
        assert words in " | ".join(problems)
    # What is not told to be a problem is none; a machine without cards has one to say so.
    assert len(problems) == len(expect.get("problems", [])), problems
    if "usable" in expect:
        assert len(compute.usable()) == expect["usable"]
    if "links" in expect:
        assert [link.__dict__ | {"kind": "cuda"} for link in compute.links] == [
            {"kind": "cuda", **link} for link in expect["links"]
        ]
    if "place" in expect:
        assert seen_place(compute).name == expect["place"]
    if "together" in expect:
        together = seen_place(compute).cards
        assert together is not None
        assert numbers(card.index for card in together.free) == expect["together"]
        assert together.not_counted(together.free) == expect["not_counted"]
    if "findings" in expect:
        kinds = {finding.id for finding in diagnose(compute)} - {"probe_nvidia", "card_unusable"}
        assert kinds == set(expect["findings"])
    for key in ("driver_version", "driver_cuda_version"):
        if key in expect:
            assert getattr(compute, key) == expect[key]
    assert expect.get("summary", "") in compute.summary
    # An assistant can afford to ask.
    for shorter, detail, limit in ((concise_compute(compute), "concise", 400), (compute, "full", 2000)):
        (content,) = answer(shorter, detail).content
        assert isinstance(content, TextContent) and len(content.text) / 4 <= limit
    # What another machine sends is the same report.
    assert as_compute(compute.model_dump(mode="json")) == compute


def check(found: Any, wanted: dict[str, Any]) -> None:
    """Each field that `wanted` names: `…_mib` in MiB, a problem by words of it, lists and parts by their own fields."""
    for key, value in wanted.items():
        if key.endswith("_mib"):
            told = getattr(found, key[:-4] + "_bytes")
            assert (told is None) == (value is None) and (value is None or told == value * MIB), (key, told, value)
        elif key == "problem" and value is not None:
            assert value in (found.problem or ""), found.problem
        elif isinstance(value, list):
            parts = getattr(found, key)
            assert len(parts) == len(value)
            for part, one in zip(parts, value, strict=True):
                check(part, one)
        elif isinstance(value, dict):
            check(getattr(found, key), value)
        else:
            assert getattr(found, key) == value, (key, getattr(found, key), value)
