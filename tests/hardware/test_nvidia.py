"""NVIDIA cards through the real nvidia-ml-py and a driver library that plays each situation."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe import nvidia
from compute_awareness.hardware.probe.nvidia import NO_DRIVER, gpu_id, pci_nvidia_cards, probe_nvidia
from compute_awareness.units import MIB


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def reasons(report) -> str:
    return " | ".join(problem.reason for problem in report.problems)


def test_two_cards(with_stub):
    report = probe_nvidia(with_stub(STUB_CARDS="at"))
    first, second = report.cards
    assert (report.driver_version, report.driver_cuda_version) == ("550.54.15", "12.4")
    assert (first.name, first.compute_capability, first.index) == ("NVIDIA A100-SXM4-80GB", "8.0", 0)
    assert first.total_bytes == 81920 * MIB
    assert first.reserved_bytes == 582 * MIB
    assert first.used_bytes == 1018 * MIB
    assert first.free_bytes == (81920 - 582 - 1018) * MIB
    assert [(p.pid, p.used_bytes) for p in first.processes] == [(4242, 1000 * MIB), (4243, None)]
    assert (second.name, second.compute_capability, second.total_bytes) == ("Tesla T4", "7.5", 15360 * MIB)
    assert first.uuid != second.uuid
    assert first.visible and second.visible
    assert report.problems == []


def test_old_driver_falls_back_to_the_first_memory_call(with_stub):
    (card,) = probe_nvidia(with_stub(STUB_CARDS="o")).cards
    assert (card.total_bytes, card.reserved_bytes) == (81920 * MIB, None)
    assert card.used_bytes == (582 + 1018) * MIB
    assert card.free_bytes == (81920 - 582 - 1018) * MIB


def test_mig_slices_follow_their_card(with_stub):
    report = probe_nvidia(with_stub(STUB_CARDS="m"))
    parent, large, small = report.cards
    assert parent.mig_of is None and "MIG" in (parent.problem or "")
    assert (large.mig_of, small.mig_of) == (0, 0)
    assert (large.total_bytes, small.total_bytes) == (40192 * MIB, 9728 * MIB)
    assert large.name.endswith("3g.40gb")
    # CUDA shows one slice and no more, the first where nothing else is said.
    assert (large.visible, small.visible) == (True, False)


def test_a_mig_slice_by_uuid(with_stub):
    environ = with_stub(STUB_CARDS="m", CUDA_VISIBLE_DEVICES="MIG-01000000-aaaa-bbbb-cccc-000000000000")
    _, large, small = probe_nvidia(environ).cards
    assert (large.visible, small.visible) == (False, True)


def test_a_lost_card_keeps_the_others(with_stub):
    report = probe_nvidia(with_stub(STUB_CARDS="ala"))
    assert [card.index for card in report.cards] == [0, 1, 2]
    assert [card.problem is None for card in report.cards] == [True, False, True]
    assert "GPU is lost" in (report.cards[1].problem or "")
    assert report.cards[1].free_bytes is None


@pytest.mark.parametrize(
    ("code", "words"),
    [("18", "restart"), ("9", "not loaded"), ("4", "no permission"), ("999", "Unknown Error")],
)
def test_drivers_in_trouble_say_what_to_do(with_stub, code, words):
    report = probe_nvidia(with_stub(STUB_CARDS="a", STUB_INIT=code))
    assert report.cards == []
    assert words in reasons(report)


def test_memory_that_is_not_told_is_the_ram_on_gb10(with_stub, tmp_path):
    (card,) = probe_nvidia(with_stub(STUB_CARDS="g")).cards
    assert (card.total_bytes, card.free_bytes, card.unified, card.problem) == (None, None, True, None)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 125000000 kB\nMemAvailable: 90000000 kB\n")
    compute = detect(environ=with_stub(STUB_CARDS="g"), root=tmp_path, cwd=tmp_path, with_python=False)
    (card,) = compute.usable()
    assert (card.total_bytes, card.free_bytes) == (125000000 * 1024, 90000000 * 1024)
    assert "shared with the system" in compute.summary


def test_a_hanging_call_costs_its_limit_and_not_the_other_cards(with_stub):
    started = time.monotonic()
    report = probe_nvidia(with_stub(STUB_CARDS="aha"), nvml_limit_s=3.0)
    assert time.monotonic() - started < 10
    assert report.cards[0].free_bytes == (81920 - 582 - 1018) * MIB
    assert [card.problem is None for card in report.cards] == [True, False, False]
    assert "did not answer within 3 s at card 1 of 3" in reasons(report)


def test_a_hanging_start_of_the_driver(with_stub):
    started = time.monotonic()
    report = probe_nvidia(with_stub(STUB_INIT_HANG="1"), nvml_limit_s=1.0)
    assert time.monotonic() - started < 10
    assert report.cards == [] and "did not answer within 1 s" in reasons(report)


def test_a_crash_in_the_driver_is_survived(with_stub):
    report = probe_nvidia(with_stub(STUB_CARDS="ac"))
    assert report.cards[0].free_bytes == (81920 - 582 - 1018) * MIB
    assert report.cards[1].problem is not None
    assert "crashed" in reasons(report)


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


def test_nvidia_smi_where_the_library_cannot_load(tmp_path):
    line = "0, NVIDIA L4, GPU-12345678-1111-2222-3333-444444444444, 23034, 400, 1, 22633, 8.9, 580.95.05"
    program(
        tmp_path,
        "nvidia-smi",
        f"#!/bin/sh\necho '{line}'\necho '1, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A], [N/A], 12.1, 580.95.05'\n",
    )
    report = probe_nvidia({"PATH": f"{tmp_path}:{os.defpath}"}, root=tmp_path)
    first, second = report.cards
    assert (first.name, first.total_bytes, first.free_bytes) == ("NVIDIA L4", 23034 * MIB, 22633 * MIB)
    assert (second.uuid, second.total_bytes, second.unified) == (None, None, True)
    assert report.driver_version == "580.95.05"


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


def test_nvidia_smi_that_fails_says_why(tmp_path):
    program(
        tmp_path, "nvidia-smi", "#!/bin/sh\necho 'has failed because it could not talk to the driver' >&2\nexit 9\n"
    )
    report = probe_nvidia({"PATH": f"{tmp_path}:{os.defpath}"}, root=tmp_path)
    assert "could not talk to the driver" in reasons(report)


TABLE = [
    {"id": "rtx3080-10gb", "nvml_names": ["NVIDIA GeForce RTX 3080"], "nvml_total_mib": 10240},
    {"id": "rtx3080-12gb", "nvml_names": ["NVIDIA GeForce RTX 3080"], "nvml_total_mib": 12288},
    {"id": "t4", "nvml_names": ["Tesla T4"], "nvml_total_mib": 15360},
]


def test_one_name_in_two_sizes_is_told_apart_by_memory(monkeypatch, with_stub):
    monkeypatch.setattr(nvidia, "_gpu_table", lambda: TABLE)
    assert gpu_id("nvidia geforce rtx 3080", 10018 * MIB) == "rtx3080-10gb"
    assert gpu_id("NVIDIA GeForce RTX 3080", None) is None
    assert gpu_id("Tesla T4", None) == "t4"
    assert gpu_id("Some other card", 1) is None
    assert [card.gpu_id for card in probe_nvidia(with_stub(STUB_CARDS="3t")).cards] == ["rtx3080-12gb", "t4"]


def test_the_whole_report_stands_beside_a_driver_in_trouble(with_stub, tmp_path):
    compute = detect(environ=with_stub(STUB_INIT="18"), cwd=tmp_path, with_python=False)
    assert compute.host.ram_total_bytes > 0 and compute.environment.layers
    assert any("restart" in problem.reason for problem in compute.problems)
    assert "no GPU found" in compute.summary
