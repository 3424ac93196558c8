"""AMD's GPUs from trees of /sys built as amdgpu and KFD write them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sysfs_trees import amd_gpu, mi300x_box, pci_gpu, write

from compute_awareness.advice.place import seen_place
from compute_awareness.hardware.compute import Interpreter, TorchBuild
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.diagnose import diagnose
from compute_awareness.hardware.probe.amd import gfx_name, probe_amd
from compute_awareness.hardware.probe.report import Accelerator
from compute_awareness.hardware.probe.visible_amd import visible_amd
from compute_awareness.hardware.reading import as_compute
from compute_awareness.units import GIB, MIB


def test_a_box_of_eight(tmp_path):
    mi300x_box(tmp_path)
    report = probe_amd({}, tmp_path)
    assert len(report.cards) == 8 and report.problems == []
    card = report.cards[7]
    assert (card.kind, card.name, card.gpu_id, card.arch) == ("rocm", "AMD Instinct MI300X", "mi300x", "gfx942")
    assert (card.total_bytes, card.used_bytes, card.free_bytes) == (192 * GIB, 300 * MIB, 192 * GIB - 300 * MIB)
    assert (card.pci, card.uuid, card.visible) == ("0000:19:00.0", "GPU-8f00000000000009", True)
    assert card.supports is not None and card.supports.fp8 and card.supports.flash_attention
    assert [(link.link, link.pairs, link.kind) for link in report.links] == [("xgmi", ["all"], "rocm")]
    assert all(card.problem is None for card in report.cards)


def test_the_run_is_counted_for_the_card(tmp_path):
    mi300x_box(tmp_path, 1)
    write(tmp_path / "proc/meminfo", "MemTotal: 1000000000 kB\nMemAvailable: 900000000 kB")
    compute = detect(environ={"PATH": os.defpath}, root=tmp_path, cwd=tmp_path, with_python=False)
    place = seen_place(compute)
    assert (place.kind, place.name, place.free_bytes) == ("gpu", "AMD Instinct MI300X", 192 * GIB - 300 * MIB)
    assert place.gpu is not None and place.gpu.id == "mi300x" and place.has_bfloat16
    assert not any(p.probe == "nvidia" for p in compute.problems)  # no NVIDIA driver is nothing missing here
    assert "AMD Instinct MI300X with 192 GiB of 192 GiB free" in compute.summary
    assert as_compute(compute.model_dump(mode="json")) == compute

    def with_torch(version: str, cuda: str | None, available: bool) -> list[str]:
        torch = TorchBuild(version=version, cuda_build=cuda, cuda_available=available)
        python = Interpreter(path="/env/bin/python", source="PATH", torch=torch)
        return [finding.id for finding in diagnose(compute.model_copy(update={"python": python}))]

    assert with_torch("2.13.0+rocm7.0", None, True) == []
    assert with_torch("2.13.0+cpu", None, False) == ["torch_without_rocm"]
    assert "torch_without_rocm" in with_torch("2.13.0+cu130", "13.0", False)


def test_hidden_cards_are_found(tmp_path):
    mi300x_box(tmp_path, 2)
    write(tmp_path / "proc/meminfo", "MemTotal: 1000000000 kB\nMemAvailable: 900000000 kB")
    environ = {"PATH": os.defpath, "ROCR_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "1"}
    compute = detect(environ=environ, root=tmp_path, cwd=tmp_path, with_python=False)
    found = {finding.id: finding.message for finding in diagnose(compute)}
    assert "ROCR_VISIBLE_DEVICES=1 with CUDA_VISIBLE_DEVICES=1 hides all 2 AMD cards" in found["hidden_amd_gpus"]
    assert "numbers from 0 again" in found["probe_amd"] and compute.usable() == []


def test_cards_of_one_chip_are_told_apart_by_revision(tmp_path):
    amd_gpu(tmp_path, 1, 0x744C, 110000, 24 * GIB, revision="0xc8")
    write(tmp_path / "usr/share/libdrm/amdgpu.ids", "# names\n1.0.0\n744C,\tCC,\tAMD Radeon RX 7900 XT")
    (xtx,) = probe_amd({}, tmp_path).cards
    assert (xtx.name, xtx.gpu_id, xtx.arch) == ("AMD Radeon RX 7900 XTX", "rx7900xtx", "gfx1100")
    amd_gpu(tmp_path, 2, 0x744C, 110000, 20 * GIB, revision="0xcc")
    _, xt = probe_amd({}, tmp_path).cards
    assert (xt.name, xt.gpu_id, xt.problem) == ("AMD Radeon RX 7900 XT", None, None)
    amd_gpu(tmp_path, 3, 0x7460, 110001, 16 * GIB)
    assert probe_amd({}, tmp_path).cards[2].name == "AMD GPU 0x7460"
    amd_gpu(tmp_path, 4, 0x738C, 90008, 32 * GIB, product="AMD Instinct MI100 HBM\n")
    assert probe_amd({}, tmp_path).cards[3].name == "AMD Instinct MI100 HBM"


def test_a_card_that_no_wheel_knows(tmp_path):
    amd_gpu(tmp_path, 1, 0x73FF, 100302, 8 * GIB)
    write(tmp_path / "proc/meminfo", "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB")
    compute = detect(environ={"PATH": os.defpath}, root=tmp_path, cwd=tmp_path, with_python=False)
    torch = TorchBuild(version="2.13.0+rocm7.0", cuda_available=True)
    compute.python = Interpreter(path="/p", source="PATH", torch=torch)
    (finding,) = diagnose(compute)
    assert (finding.id, finding.severity) == ("rocm_without_card", "warning") and "gfx1032" in finding.message


def test_graphics_in_a_processor(tmp_path):
    write(tmp_path / "proc/meminfo", f"MemTotal: {128 * 1048576} kB\nMemAvailable: {60 * 1048576} kB")
    # Strix Halo: a fixed share of 512 MiB, the rest of what it may have comes from the RAM.
    amd_gpu(tmp_path, 1, 0x1586, 110501, 512 * MIB, bank=96 * GIB, gtt=96 * GIB, cpu_cores=32)
    compute = detect(environ={"PATH": os.defpath}, root=tmp_path, cwd=tmp_path, with_python=False)
    (card,) = compute.usable()
    assert (card.unified, card.total_bytes, card.free_bytes) == (True, 96 * GIB, 60 * GIB)
    # The small graphics of a desktop processor is no GPU for torch.
    for path in (tmp_path / "sys/class/kfd/kfd/topology/nodes/1").glob("properties"):
        path.write_text(path.read_text().replace("110501", "100306"))
    compute = detect(environ={"PATH": os.defpath}, root=tmp_path, cwd=tmp_path, with_python=False)
    assert compute.usable() == [] and "no code" in (compute.accelerators[0].problem or "")
    assert seen_place(compute).kind == "cpu"


def test_a_container_without_the_devices(tmp_path):
    mi300x_box(tmp_path, 2)
    (tmp_path / "dev/dri/renderD130").unlink()
    first, second = probe_amd({}, tmp_path).cards
    assert first.problem is None and "renderD130 is not here" in (second.problem or "")
    (tmp_path / "dev/kfd").unlink()
    assert all("--device /dev/kfd" in (card.problem or "") for card in probe_amd({}, tmp_path).cards)


def test_a_user_who_may_not(tmp_path, monkeypatch):
    mi300x_box(tmp_path, 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "groups render and video" in (probe_amd({}, tmp_path).cards[0].problem or "")


def test_a_node_that_the_container_may_not_read(tmp_path):
    mi300x_box(tmp_path, 2)
    (tmp_path / "sys/class/kfd/kfd/topology/nodes/3/properties").write_text("")
    assert [card.pci for card in probe_amd({}, tmp_path).cards] == ["0000:12:00.0"]


def test_without_the_compute_part_of_the_driver(tmp_path):
    pci_gpu(tmp_path, "0000:03:00.0", 0x744C, 24 * GIB, 0, "0xc8")
    (card,) = probe_amd({}, tmp_path).cards
    assert "without its compute part" in (card.problem or "") and card.arch == "gfx1100"
    pci_gpu(tmp_path, "0000:04:00.0", 0x74A1, None, 0, driver="vfio-pci")
    pci_gpu(tmp_path, "0000:05:00.0", 0x1234, None, 0, driver="")
    _, other = probe_amd({}, tmp_path).cards
    assert (other.name, other.total_bytes) == ("AMD Instinct MI300X", None) and "vfio-pci" in (other.problem or "")


def test_processes(tmp_path):
    mi300x_box(tmp_path, 2)
    write(tmp_path / "sys/class/kfd/kfd/proc/4711/vram_50002", str(9 * GIB))
    write(tmp_path / "sys/class/kfd/kfd/proc/4711/vram_50003", "0")
    write(tmp_path / "proc/4711/status", "Name:\tpython\nUid:\t999983\t0\t0\t0")
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    first, second = probe_amd({}, tmp_path).cards
    (process,) = first.processes
    assert (process.pid, process.used_bytes, process.name, process.own) == (4711, 9 * GIB, "python", False)
    assert second.processes == []


def test_figures_that_contradict_each_other_are_not_told(tmp_path):
    amd_gpu(tmp_path, 1, vram=16 * GIB, used=17 * GIB)
    (card,) = probe_amd({}, tmp_path).cards
    assert (card.total_bytes, card.used_bytes, card.free_bytes) == (16 * GIB, None, None)


def cards(count: int) -> list[Accelerator]:
    return [Accelerator(index=i, kind="rocm", name="A", uuid=f"GPU-{i:x}aaa000000000000") for i in range(count)]


@pytest.mark.parametrize(
    ("environ", "order"),
    [
        ({}, [0, 1, 2, 3]),
        ({"ROCR_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-3AAA,GPU-1aaa"}, [3, 1]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-zzz,1"}, []),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, [3]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "3"}, [1]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, [3]),
        ({"ROCR_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "2"}, []),
        ({"HIP_VISIBLE_DEVICES": "0,-1,1"}, [0]),
        ({"HIP_VISIBLE_DEVICES": "0,9,1"}, [0]),
        ({"HIP_VISIBLE_DEVICES": "1,1"}, []),
    ],
)
def test_visible(environ, order):
    assert visible_amd(cards(4), environ).order == order


def test_two_variables_that_leave_nothing_are_explained():
    doubts = visible_amd(cards(4), {"ROCR_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "2"}).doubts
    assert "numbers from 0 again" in doubts[-1] and "unset one" in doubts[-1]


def test_what_slurm_sets_shows_no_card(tmp_path):
    report = probe_amd({"ROCR_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "0"}, tmp_path)
    assert report.cards == [] and report.problems == []


def test_gfx_names():
    names = [gfx_name(version) for version in (90402, 90010, 110501, 120001, 100306, 90008)]
    assert names == ["gfx942", "gfx90a", "gfx1151", "gfx1201", "gfx1036", "gfx908"]


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(["properties", "gpu_id", "mem_info_vram_total", "mem_info_vram_used"]))
def test_any_file_is_survived_without_made_up_numbers(tmp_path_factory, content, name):
    root = tmp_path_factory.mktemp("sys")
    mi300x_box(root, 1)
    folder = (
        "sys/class/kfd/kfd/topology/nodes/2" if name in ("properties", "gpu_id") else "sys/bus/pci/devices/0000:12:00.0"
    )
    (root / folder / name).write_bytes(content)
    for card in probe_amd({}, root).cards:
        for size in (card.total_bytes, card.used_bytes):
            told = content.decode("utf-8", "replace").strip()
            assert size in (None, 0, 192 * GIB, 300 * MIB) or str(size) == told.lstrip("0") or hex(size) in told.lower()
        if card.free_bytes is not None:
            assert 0 <= card.free_bytes <= (card.total_bytes or 0)
