"""Intel's GPUs and Google's TPUs from trees of /sys and /dev."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sysfs_trees import pci

from compute_awareness.advice.place import seen_place
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.diagnose import diagnose
from compute_awareness.hardware.probe.intel import probe_intel, read_discovery, visible_intel
from compute_awareness.hardware.probe.tpu import probe_tpu
from compute_awareness.units import GIB


def report(root: Path, **environ: str):
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text("MemTotal: 65536000 kB\nMemAvailable: 49152000 kB\n")
    return detect(environ={"PATH": os.defpath, **environ}, root=root, cwd=root, with_python=False)


def test_an_arc_card_beside_the_processors_graphics(tmp_path):
    pci(tmp_path, "0000:00:02.0", "0x8086", "0x4680", "i915")
    pci(tmp_path, "0000:03:00.0", "0x8086", "0xe20b", "xe")
    pci(tmp_path, "0000:04:00.0", "0x8086", "0x56a0", "i915")
    pci(tmp_path, "0000:05:00.0", "0x8086", "0x56a1")
    first, second = probe_intel({"PATH": ""}, tmp_path)
    assert (first.kind, first.name, first.gpu_id, first.total_bytes) == ("xpu", "Intel Arc B580", "arc-b580", None)
    assert second.name == "Intel GPU 0x56a0"
    compute = report(tmp_path)
    assert compute.usable() == [] and seen_place(compute).kind == "cpu"
    assert "2 x Intel Arc B580, for which nothing is estimated" in compute.summary
    found = {finding.id: finding for finding in diagnose(compute)}
    assert found["card_not_covered"].severity == "info" and "not covered" in found["card_not_covered"].message


def test_xpu_smi_tells_the_memory(tmp_path):
    pci(tmp_path, "0000:03:00.0", "0x8086", "0xe20b", "xe")
    pci(tmp_path, "0000:04:00.0", "0x8086", "0xe20b", "xe")
    told = {
        "device_name": "Intel(R) Arc(TM) B580 Graphics",
        "memory_physical_size_byte": str(12 * GIB),
        "memory_free_size_byte": str(11 * GIB),
        "pci_bdf_address": "0000:04:00.0",
    }
    smi = tmp_path / "xpu-smi"
    smi.write_text(f"#!/bin/sh\n[ \"$3\" = 1 ] && printf %s '{json.dumps(told)}'\nexit 0\n")
    smi.chmod(0o755)
    first, second = probe_intel({"PATH": f"{tmp_path}:{os.defpath}"}, tmp_path)
    assert (first.total_bytes, first.free_bytes) == (None, None)
    assert (second.total_bytes, second.used_bytes, second.free_bytes) == (12 * GIB, GIB, 11 * GIB)
    assert second.name == "Intel(R) Arc(TM) B580 Graphics"


def test_affinity_mask():
    assert visible_intel(3, None) == visible_intel(3, "") == [0, 1, 2]
    assert visible_intel(3, "1,0.1") == [0, 1]
    assert visible_intel(2, "7,x") == []


@settings(deadline=None)
@given(
    st.text(max_size=200)
    | st.dictionaries(
        st.sampled_from(["memory_physical_size_byte", "memory_free_size_byte", "device_name", "pci_bdf_address"]),
        st.none() | st.integers() | st.text(max_size=9) | st.floats() | st.lists(st.integers(), max_size=2),
    ).map(json.dumps)
)
def test_any_answer_of_xpu_smi_is_survived(text):
    told = read_discovery(text)
    if told:
        assert str(told["total"]) in text
        assert told["free"] is None or (told["free"] <= told["total"] and str(told["free"]) in text)


@pytest.mark.parametrize(
    ("device", "name", "size"),
    [("0x005e", "TPU v4", 32), ("0x0063", "TPU v5e", 16), ("0x0062", "TPU v5p", 95), ("0x006f", "TPU v6e", 32)],
)
def test_tpu_chips_on_the_bus(tmp_path, device, name, size):
    for slot in range(4):
        pci(tmp_path, f"0000:00:0{slot + 4}.0", "0x1ae0", device, kind="0x088000")
    pci(tmp_path, "0000:00:09.0", "0x1ae0", "0x0042", kind="0x020000")  # Google's network card
    chips, problems = probe_tpu({}, tmp_path)
    assert [(chip.name, chip.total_bytes, chip.free_bytes) for chip in chips] == [(name, size * GIB, None)] * 4
    assert problems == [] and chips[0].gpu_id == name.lower().replace(" ", "-")
    compute = report(tmp_path, TPU_VISIBLE_CHIPS="0,1")
    assert [card.visible for card in compute.accelerators] == [True, True, False, False]
    assert f"2 x {name}, for which nothing is estimated" in compute.summary and seen_place(compute).kind == "cpu"
    assert all("torch_xla" in (card.problem or "") for card in compute.accelerators)


def test_tpu_in_a_container_without_a_bus(tmp_path):
    for name in ("accel0", "accel1", "accel/accel0", "null"):
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    chips, _ = probe_tpu({"TPU_ACCELERATOR_TYPE": "v2-8"}, tmp_path)
    assert [(chip.name, chip.gpu_id) for chip in chips] == [("TPU v2", None)] * 2
    # Without the variable such a file may be of another maker.
    assert probe_tpu({}, tmp_path) == ([], [])


def test_tpu_by_vfio(tmp_path):
    for name in ("0", "1", "vfio"):
        (tmp_path / "dev/vfio").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev/vfio" / name).write_text("")
    chips, _ = probe_tpu({"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, tmp_path)
    assert [(chip.name, chip.total_bytes) for chip in chips] == [("TPU v5e", 16 * GIB)] * 2


def test_a_variable_alone_is_no_tpu(tmp_path):
    chips, (problem,) = probe_tpu({"TPU_ACCELERATOR_TYPE": "v4-8"}, tmp_path)
    assert chips == [] and "no TPU is here" in problem.reason
