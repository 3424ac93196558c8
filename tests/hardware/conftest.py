"""A simulated libnvidia-ml.so.1, compiled here and driven through the real nvidia-ml-py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from simulated_machines import write_driver

SOURCE = Path(__file__).with_name("simulated_nvml.c")


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory) -> Path:
    """The folder to put into LD_LIBRARY_PATH; what the library plays is told by the file of SIMULATED_NVML."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "these tests compile a stand-in for NVIDIA's library: install gcc (apt-get install gcc)"
    folder = tmp_path_factory.mktemp("nvml")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(folder / "libnvidia-ml.so.1")]
    done = subprocess.run([*command, str(SOURCE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def with_driver(driver_folder, tmp_path_factory):
    """Variables of a machine with that driver: `with_driver({"cards": […]}, CUDA_…="…")`."""

    def make(machine: dict[str, Any], **variables: str) -> dict[str, str]:
        told = write_driver(machine, tmp_path_factory.mktemp("machine"))
        return {
            "PATH": os.defpath,
            "LD_LIBRARY_PATH": str(driver_folder),
            "SIMULATED_NVML": str(told),
            **variables,
        }

    return make
