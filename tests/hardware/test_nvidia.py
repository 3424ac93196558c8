"""NVIDIA cards through the real nvidia-ml-py and a driver library that plays each situation."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_machines import load

from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe.gpu_table import gpu_id
from compute_awareness.hardware.probe.nvidia import NO_DRIVER, probe_nvidia
from compute_awareness.hardware.probe.nvidia_cards import NvidiaReport
from compute_awareness.hardware.probe.nvidia_files import cards_in_proc, jetson, pci_nvidia_cards
from compute_awareness.hardware.probe.processes import name_processes
from compute_awareness.hardware.probe.report import Accelerator, GpuProcess
from compute_awareness.units import MIB


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def reasons(report) -> str:
    return " | ".join(problem.reason for problem in report.problems)


def test_the_fields_of_a_card(with_driver):
    card = {
        "name": "NVIDIA A100-SXM4-80GB",
        "capability": "8.0",
        "memory_mib": {"total": 81920, "reserved": 582, "used": 1018},
        "processes": [{"pid": 4243}, {"pid": 4242, "used_mib": 1000}],
    }
    (found,) = probe_nvidia(with_driver({"cards": [card]})).cards
    assert (found.name, found.compute_capability, found.index) == ("NVIDIA A100-SXM4-80GB", "8.0", 0)
    assert (found.total_bytes, found.reserved_bytes) == (81920 * MIB, 582 * MIB)
    assert (found.used_bytes, found.free_bytes) == (1018 * MIB, (81920 - 582 - 1018) * MIB)
    assert [(p.pid, p.used_bytes) for p in found.processes] == [(4242, 1000 * MIB), (4243, None)]


def test_a_hanging_call_costs_its_limit(with_driver):
    started = time.monotonic()
    report = probe_nvidia(with_driver(load("trouble-hung-card")), nvml_limit_s=3.0)
    assert time.monotonic() - started < 10
    assert [card.problem is None for card in report.cards] == [True, False, False]


def test_no_driver(tmp_path):
    report = probe_nvidia({"PATH": str(tmp_path)}, root=tmp_path)
    assert report.cards == []
    assert reasons(report) == NO_DRIVER


def test_a_card_without_a_driver(tmp_path):
    for name, vendor, kind in (
        ("01", "0x10de", "0x030000"),
        ("02", "0x10de", "0x040300"),
        ("03", "0x8086", "0x030000"),
    ):
        folder = tmp_path / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")
    assert pci_nvidia_cards(tmp_path) == 1
    report = probe_nvidia({"PATH": ""}, root=tmp_path)
    assert "1 NVIDIA card is in the machine" in reasons(report) and "install the driver" in reasons(report)


def test_a_hanging_nvidia_smi_is_stopped_with_its_children(tmp_path):
    program(tmp_path, "nvidia-smi", f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    started = time.monotonic()
    report = probe_nvidia({"PATH": f"{tmp_path}:{os.defpath}"}, root=tmp_path, smi_limit_s=3.0)
    assert time.monotonic() - started < 10
    assert "nvidia-smi did not answer within 3 s" in reasons(report)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            "driver/nvidia/version",
            "driver/nvidia/gpus/0/information",
            "device-tree/compatible",
            "device-tree/model",
            "7/status",
        ]
    ),
)
def test_any_file_of_the_driver_is_survived(tmp_path_factory, content, name):
    root = tmp_path_factory.mktemp("root")
    for path, text in (("driver/nvidia/gpus/0/information", b"Model: X\n"), (name, content)):
        (root / "proc" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "proc" / path).write_bytes(text)
    report = NvidiaReport()
    cards_in_proc(report, root)
    assert report.cards[0].problem is not None
    board = jetson(root)
    known = [*report.cards, *([board] if board else [])]
    name_processes([Accelerator(index=0, kind="cuda", name="X", processes=[GpuProcess(pid=7)])], root)
    assert all(card.total_bytes is None and card.free_bytes is None for card in known)


def test_nvidia_smi_that_fails_says_why(tmp_path):
    program(
        tmp_path, "nvidia-smi", "#!/bin/sh\necho 'has failed because it could not talk to the driver' >&2\nexit 9\n"
    )
    report = probe_nvidia({"PATH": f"{tmp_path}:{os.defpath}"}, root=tmp_path)
    assert "could not talk to the driver" in reasons(report)


def test_one_name_in_two_sizes_is_told_apart_by_memory():
    assert gpu_id("nvidia geforce rtx 3080", 10018 * MIB) == "rtx3080-10gb"
    assert gpu_id("NVIDIA GeForce RTX 3080", None) is None
    assert gpu_id("Tesla T4", None) == "t4"
    assert gpu_id("Some other card", 1) is None
    assert gpu_id("NVIDIA GeForce RTX 3080", 12288 * MIB) == "rtx3080-12gb"


def test_the_whole_report_stands_beside_a_driver_in_trouble(with_driver, tmp_path):
    compute = detect(environ=with_driver(load("trouble-version-mismatch")), cwd=tmp_path, with_python=False)
    assert compute.host.ram_total_bytes > 0 and compute.environment.layers
    assert any("restart" in problem.reason for problem in compute.problems)
    assert "no GPU found" in compute.summary
