"""The whole report: each probe fails alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compute_awareness.errors import InputError
from compute_awareness.hardware.compute import Compute
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe import apple
from compute_awareness.hardware.probe import examine as module
from compute_awareness.units import GIB, MIB


def test_real_machine():
    compute = detect(sys.executable)
    assert Compute.model_validate_json(compute.model_dump_json()) == compute
    assert compute.python is not None and compute.python.torch is not None
    (chosen,) = [entry for entry in compute.interpreters if entry.chosen]
    assert (chosen.path, chosen.torch) == (sys.executable, compute.python.torch.version)
    assert compute.host.disk_free_bytes and compute.host.ram_total_bytes > 0
    assert compute.summary.endswith(".") and "\n" not in compute.summary


@pytest.mark.parametrize("name", ["probe_nvidia", "probe_apple", "probe_host", "_disk", "probe_environment", "_python"])
def test_each_probe_fails_alone(monkeypatch, tmp_path, name):
    def broken(*_, **__):
        raise RuntimeError("broken\nprobe")

    monkeypatch.setattr(module, name, broken)
    compute = detect(environ={"PATH": os.defpath}, cwd=tmp_path)
    (problem,) = [p for p in compute.problems if "broken" in p.reason]
    assert problem.probe == name.removeprefix("probe_").removeprefix("_")
    assert problem.reason == "could not be read (RuntimeError: broken probe)"
    assert compute.summary


def test_a_probe_that_hangs_is_left_behind(monkeypatch, tmp_path):
    import threading

    release = threading.Event()
    monkeypatch.setattr(module, "_FILE_LIMIT_S", 0.3)
    monkeypatch.setattr(module, "free_disk", lambda folder: release.wait(30))
    compute = detect(environ={"PATH": os.defpath}, cwd=tmp_path, with_python=False)
    release.set()
    assert [p.reason for p in compute.problems if p.probe == "disk"] == ["did not end within 0.3 s and was left behind"]
    assert compute.host.disk_free_bytes is None


def test_bad_python_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not found"):
        detect("nowhere/python", environ={"PATH": os.defpath}, cwd=tmp_path)


def test_metal_working_set():
    assert apple.metal_working_set(48 * GIB) == 36 * GIB
    assert apple.metal_working_set(128 * GIB) == 96 * GIB
    assert apple.metal_working_set(24 * GIB) == 16 * GIB
    assert apple.metal_working_set(64 * GIB, 57344) == 57344 * MIB
    assert apple.metal_working_set(64 * GIB, 999999) == 64 * GIB


def test_apple_gpu():
    sysctl = {"hw.memsize": str(64 * GIB), "machdep.cpu.brand_string": "Apple M2 Max", "iogpu.wired_limit_mb": "0"}
    card = apple.apple_gpu("arm64", sysctl)
    assert card is not None and (card.kind, card.gpu_id, card.total_bytes) == ("mps", "apple-m2-max", 48 * GIB)
    assert apple.apple_gpu("x86_64", {"hw.memsize": "1"}) is None
    assert apple.apple_gpu("x86_64", {**sysctl, "hw.optional.arm64": "1"}) == card
    unread = apple.apple_gpu("arm64", {})
    assert unread is not None and unread.total_bytes is None and unread.problem


def test_a_mac_has_what_both_metal_and_the_ram_allow(monkeypatch, tmp_path):
    sysctl = {"hw.memsize": str(64 * GIB), "machdep.cpu.brand_string": "Apple M2 Max"}
    (tmp_path / "proc").mkdir()
    for available, free in ((60, 48), (20, 20)):
        (tmp_path / "proc/meminfo").write_text(f"MemTotal: {64 * 1048576} kB\nMemAvailable: {available * 1048576} kB\n")
        monkeypatch.setattr(module, "probe_apple", lambda environ: [apple.apple_gpu("arm64", sysctl)])
        (card,) = detect(environ={"PATH": os.defpath}, cwd=tmp_path, root=tmp_path, with_python=False).usable()
        assert (card.total_bytes, card.free_bytes) == (48 * GIB, free * GIB)


def test_neither_torch_nor_psutil_nor_mcp_is_imported():
    code = (
        "import sys; from compute_awareness.hardware.detect import detect; detect(with_python=False); "
        "print(sorted({'torch', 'mcp', 'pynvml', 'psutil', 'rich', 'huggingface_hub'} & set(sys.modules)))"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("[]" if sys.platform == "linux" else "['psutil']")


def test_the_document_is_what_pydantic_would_write(tmp_path):
    found = detect(environ={"PATH": os.defpath, "SLURM_JOB_ID": "4", "SLURM_MEM_PER_NODE": "1000"}, cwd=tmp_path)
    assert found.plain() == found.model_dump(mode="json")
    assert Compute.model_validate(found.plain()) == found
