"""The tables within the script are cut to what the probe reads: with them it must find the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_machines import load, write_files
from sysfs_trees import amd_gpu, pci, pci_gpu

from compute_awareness.hardware import script
from compute_awareness.hardware.probe import embedded
from compute_awareness.hardware.probe.amd import probe_amd
from compute_awareness.hardware.probe.nvidia import probe_nvidia
from compute_awareness.hardware.probe.tpu import probe_tpu


@pytest.fixture
def as_script(monkeypatch):
    """Calling it makes the probe read the script's tables; the files' ones come back at the end."""

    def change() -> None:
        texts = script.embedded_tables()
        monkeypatch.setattr(embedded, "EMBEDDED", texts)
        embedded.table.cache_clear()

    yield change
    embedded.table.cache_clear()


@pytest.mark.parametrize(
    "name", ["server-a10-ecc", "dgx-spark-gb10", "desktop-rtx3080-12gb", "server-8x-v100-dgx1", "mig-a100-two-slices"]
)
def test_nvidia(name, with_driver, as_script, tmp_path):
    machine = load(name)
    write_files(machine, tmp_path)
    environ = with_driver(machine)
    before = probe_nvidia(environ, tmp_path)
    as_script()
    assert probe_nvidia(environ, tmp_path) == before


def test_amd_and_tpu(as_script, tmp_path: Path):
    amd_gpu(tmp_path, 1)
    amd_gpu(tmp_path, 2, 0x744C, 110000, revision="0xc8")
    pci_gpu(tmp_path, "0000:70:00.0", 0x75A3, None, 0)
    pci(tmp_path, "0000:00:04.0", "0x1ae0", "0x0063")
    before = probe_amd({}, tmp_path), probe_tpu({}, tmp_path)
    as_script()
    assert (probe_amd({}, tmp_path), probe_tpu({}, tmp_path)) == before
    assert before[0].cards[0].gpu_id == "mi300x" and before[1][0][0].total_bytes
