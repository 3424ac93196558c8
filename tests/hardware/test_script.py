"""The probe as one script: on every Python here, from standard input and in a notebook's namespace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compute_awareness.errors import InputError
from compute_awareness.hardware.reading import compute_in
from compute_awareness.hardware.script import BEGIN, END, probe_script


def pythons() -> dict[str, str]:
    """Every Python of 3.8 or newer that this machine has, by version; the running one too."""
    found = {"running": sys.executable}
    places = [*os.environ.get("PATH", "").split(os.pathsep), *Path.home().glob(".pyenv/versions/*/bin")]
    for minor in range(8, 16):
        for place in places:
            path = shutil.which(f"python3.{minor}", path=str(place))
            if path and works(path):
                found.setdefault(f"3.{minor}", path)
    return found


def works(path: str) -> bool:
    """A version manager's stand-in may be on PATH for a Python that is not there."""
    return subprocess.run([path, "-c", "pass"], capture_output=True, timeout=60).returncode == 0


PYTHONS = pythons()


def run(python: str, *args: str, folder: Path, text: str | None = None, **options) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.defpath, "HOME": str(folder), "SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    return subprocess.run(
        [python, *args], input=text, capture_output=True, text=True, env=environ, cwd=folder, timeout=120, **options
    )


@pytest.mark.parametrize("version", PYTHONS)
def test_from_standard_input(version, tmp_path):
    done = run(PYTHONS[version], "-W", "error", "-", folder=tmp_path, text=probe_script())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and done.stdout.startswith(BEGIN) and done.stdout.endswith(END + "\n")
    assert done.stdout.count("\n") == 1
    compute = compute_in(done.stdout)
    assert compute.host.ram_total_bytes > 0 and compute.environment.layers and compute.summary
    assert [p.reason for p in compute.problems if p.probe not in ("nvidia", "python")] == []
    assert list(tmp_path.iterdir()) == []


def test_it_is_small_plain_text_with_its_use_at_the_top():
    text = probe_script()
    # It stays the text a person can read, comments and all; a cell or ssh takes it in an instant.
    assert text.isascii() and len(text) < 340_000
    head = text[: text.index("PROBE_PYTHON = None")]
    for word in ("ssh", "notebook", "srun", "--compute", "writes no file"):
        assert word in head
    assert re.search(r"^def probe_host\(", text, re.MULTILINE), "a person can read it"


def test_a_file_of_the_user_is_not_taken_for_a_module(tmp_path):
    for name in ("json.py", "platform.py", "importlib.py", "dataclasses.py"):
        (tmp_path / name).write_text("raise RuntimeError('not meant')")
    done = run(sys.executable, "-", folder=tmp_path, text=probe_script())
    assert compute_in(done.stdout).host.cpus > 0 and "not meant" not in done.stdout + done.stderr


def test_the_python_named_in_it(tmp_path):
    done = run(sys.executable, "-", folder=tmp_path, text=probe_script(sys.executable))
    python = compute_in(done.stdout).python
    assert python is not None and python.path == sys.executable
    done = run(sys.executable, "-", folder=tmp_path, text=probe_script("/nowhere/\u00e4'\n"))
    assert done.returncode == 0 and done.stdout.isascii()
    with pytest.raises(InputError, match=r"the probe could not look: .*/nowhere/.*is not found"):
        compute_in(done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="descriptors are closed by a POSIX shell")
def test_with_standard_input_closed(tmp_path):
    (tmp_path / "probe.py").write_text(probe_script())
    done = subprocess.run(
        ["sh", "-c", f"exec '{sys.executable}' probe.py <&-"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.stderr == "" and compute_in(done.stdout).host.cpus > 0


NOTEBOOK = """
import asyncio, builtins, json, sys, types
kernel = types.ModuleType("IPython")
kernel.get_ipython = lambda: object()
sys.modules["IPython"] = kernel
if INSTALLED:
    import compute_awareness.hardware.compute
    import compute_awareness.hardware.probe.embedded as embedded
before = dict(sys.modules), list(sys.meta_path), list(sys.path), sys.dont_write_bytecode
cell = {"__name__": "__main__", "MODULES": 1, "In": [], "name": "kept"}

async def run_cell():
    exec(compile(open("cell.txt").read(), "<ipython-input-1>", "exec"), cell)

asyncio.run(run_cell())
after = dict(sys.modules), list(sys.meta_path), list(sys.path), sys.dont_write_bytecode
ours = lambda modules: {k: id(v) for k, v in modules.items() if k.startswith("compute_awareness")}
print(json.dumps({
    "modules": ours(before[0]) == ours(after[0]) and all(after[0].get(k) is v for k, v in before[0].items()),
    "finders": before[1:] == after[1:],
    "left": sorted(set(cell) - {"__name__", "__builtins__", "MODULES", "In", "name"}),
    "installed": bool(ours(after[0])),
    "embedded": len(embedded.EMBEDDED) if INSTALLED else 0,
}))
"""


@pytest.mark.parametrize("installed", [False, True])
def test_as_a_notebook_cell(installed, tmp_path):
    """In a kernel with its event loop running; also where compute-awareness itself is imported."""
    import json

    (tmp_path / "cell.txt").write_text(probe_script())
    paths = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2] / 'server')!r})\n"
        if installed
        else ""
    )
    done = run(sys.executable, "-c", f"{paths}INSTALLED = {installed}\n{NOTEBOOK}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout.splitlines()[-1])
    assert state == {"modules": True, "finders": True, "left": [], "installed": installed, "embedded": 0}
    python = compute_in(done.stdout).python
    assert python is not None and python.path == sys.executable and "runs in" in python.source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.txt"]


def test_an_environment_of_its_own_is_the_experiments(tmp_path):
    import venv

    folder = tmp_path / "env"
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    seen = compute_in(run(python, "-", folder=tmp_path, text=probe_script()).stdout).python
    assert seen is not None and Path(seen.path) == Path(python)


def test_an_old_python_is_told(tmp_path):
    found = [p for p in Path.home().glob(".pyenv/versions/3.[67].*/bin/python") if works(str(p))]
    if not found:
        pytest.skip("no Python 3.6 or 3.7 here")
    for path in found:
        with pytest.raises(InputError, match=r"needs Python 3\.8 or newer"):
            compute_in(run(str(path), "-", folder=tmp_path, text=probe_script()).stdout)
