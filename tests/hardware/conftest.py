"""A stand-in libnvidia-ml.so.1, compiled here and driven through the real nvidia-ml-py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stub_nvml.c")


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory) -> Path:
    """The folder to put into LD_LIBRARY_PATH; what the library plays is chosen by STUB_* variables."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "these tests compile a stand-in for NVIDIA's library: install gcc (apt-get install gcc)"
    folder = tmp_path_factory.mktemp("nvml")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def with_stub(stub_folder):
    """Variables of a machine whose NVIDIA driver is the stub: `with_stub(STUB_CARDS="…", CUDA_…="…")`."""

    def make(**variables: str) -> dict[str, str]:
        return {"PATH": os.defpath, "LD_LIBRARY_PATH": str(stub_folder), **variables}

    return make
