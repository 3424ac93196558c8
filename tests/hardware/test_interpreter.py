"""The experiment's Python: which one, what is in it, and programs that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from compute_awareness.errors import InputError
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe import interpreter
from compute_awareness.hardware.probe.child import Finished, run_child
from compute_awareness.hardware.probe.interpreter import probe_python
from compute_awareness.hardware.probe.pythons import choose
from compute_awareness.hardware.probe.pythons.choose import Choice, choose_python
from compute_awareness.hardware.probe.report import Interpreter

PLAIN = {"PATH": os.defpath}


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def real_python(folder: Path, site: str | None = None) -> Path:
    """A Python in `folder` without site-packages, with `site` on its path."""
    first = f'PYTHONPATH="{site}" ' if site else ""
    return program(folder / "bin/python", f'#!/bin/sh\n{first}exec "{sys.executable}" -S "$@"\n')


def test_this_python_tells_its_libraries_and_torch():
    import torch

    found = probe_python(Choice(Path(sys.executable), "--python", explicit=True), os.environ)
    assert found.problem is None
    assert found.version == "{}.{}.{}".format(*sys.version_info[:3])
    assert found.libraries["transformer-lens"] == metadata.version("transformer-lens")
    assert found.libraries["sae-lens"] == metadata.version("sae-lens")
    assert found.libraries["transformers"] == metadata.version("transformers")
    assert found.torch is not None
    assert found.torch.version == torch.__version__
    assert found.torch.cuda_build == torch.version.cuda
    assert found.torch.cuda_available == torch.cuda.is_available()
    assert found.torch.mps_available == torch.backends.mps.is_available()


def torch_package(folder: Path, init: str) -> Path:
    package = folder / "torch"
    package.mkdir(parents=True)
    (package / "version.py").write_text(
        "from typing import Optional\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n"
    )
    (package / "__init__.py").write_text(init)
    return folder


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("import time\ntime.sleep(600)\n", "was not done after"),
        ("import os\nos.abort()\n", "ended the process"),
        (
            "raise OSError('libcudart.so.13: cannot open\\nshared object')\n",
            "failed: OSError: libcudart.so.13: cannot open shared",
        ),
        ("import sys\nsys.exit(3)\n", "failed: SystemExit: 3"),
    ],
)
def test_a_torch_that_does_not_import_keeps_what_is_on_disk(tmp_path, init, words):
    site = torch_package(tmp_path / "site", init)
    info = site / "transformer_lens-3.9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformer-lens\nVersion: 3.9.0\n")
    python = real_python(tmp_path / "env", str(site))
    started = time.monotonic()
    found = probe_python(Choice(python, "--python", explicit=True), PLAIN, answer_limit_s=4.0, import_limit_s=1.0)
    assert time.monotonic() - started < 15
    assert found.torch is not None
    assert (found.torch.version, found.torch.cuda_build) == ("2.13.0+cu130", "13.0")
    assert found.libraries == {"transformer-lens": "3.9.0"}
    assert words in (found.problem or "")


def test_a_chatty_torch_does_not_confuse(tmp_path):
    site = torch_package(tmp_path / "site", "print('<<end>> {\"version\": 1}')\n__version__ = '1'\n")
    found = probe_python(Choice(real_python(tmp_path / "env", str(site)), "x"), PLAIN)
    assert found.torch is not None and found.torch.version == "2.13.0+cu130"
    assert "failed: " in (found.problem or "")


def test_no_torch(tmp_path):
    found = probe_python(Choice(real_python(tmp_path), "x"), PLAIN)
    assert (found.torch, found.libraries, found.problem) == (None, {}, None)


def test_the_working_folder_and_start_up_files_stay_out(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "start.py").write_text("raise SystemExit('started')\n")
    monkeypatch.chdir(tmp_path)
    environ = {**PLAIN, "PYTHONSTARTUP": str(tmp_path / "start.py"), "PYTHONINSPECT": "1", "PYTHONHOME": "/nowhere"}
    found = probe_python(Choice(real_python(tmp_path / "env"), "x"), environ)
    assert found.problem is None and found.version


FAKES = {
    "garbage": "#!/bin/sh\necho what do you want\n",
    "fails": "#!/bin/sh\nexit 1\n",
    "silent": "#!/bin/sh\n",
    "no_interpreter": "#!/nowhere/at/all\n",
    "no_format": "\x00\x01 not a program",
    "flood": "#!/bin/sh\nhead -c 100000000 /dev/zero\n",
    "only_the_name": "#!/bin/sh\necho Python 3.11.0\n",
    "name_then_flood": '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.11.0 && exit\nhead -c 100000000 /dev/zero\n',
}


@pytest.mark.parametrize("kind", FAKES)
def test_what_is_not_a_python_is_said_in_one_line(tmp_path, kind):
    path = program(tmp_path / kind, FAKES[kind])
    started = time.monotonic()
    with pytest.raises(InputError, match="is not a Python") as caught:
        detect(str(path), environ=PLAIN, cwd=tmp_path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_a_hanging_python_is_a_problem_of_the_report(tmp_path):
    path = program(tmp_path / "hangs", "#!/bin/sh\nsleep 600\n")
    found = probe_python(Choice(path, "--python", explicit=True), PLAIN, answer_limit_s=0.5)
    assert "did not answer --version within 0.5 s" in (found.problem or "")
    path = program(tmp_path / "later", '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.11.0 && exit\nsleep 600\n')
    found = probe_python(Choice(path, "--python", explicit=True), PLAIN, answer_limit_s=3.0, import_limit_s=0.2)
    assert "did not tell what is installed" in (found.problem or "") and found.version == "3.11.0"


def test_an_old_python_is_not_asked(tmp_path):
    path = program(tmp_path / "old", "#!/bin/sh\necho Python 2.7.18 >&2\n")
    found = probe_python(Choice(path, "--python", explicit=True), PLAIN)
    assert found.version == "2.7.18" and "too old" in (found.problem or "")


def test_a_program_that_is_no_python_never_sees_the_script(tmp_path):
    path = program(tmp_path / "spy", f'#!/bin/sh\necho "$#:$1" >> {tmp_path}/seen\n')
    with pytest.raises(InputError):
        detect(str(path), environ=PLAIN, cwd=tmp_path)
    assert (tmp_path / "seen").read_text() == "1:--version\n"


@pytest.mark.parametrize(
    "given", ["", "  ", "no/such/python", "/dev/null", "no-such-command-xyz", "x" * 5000, "a\0b", "empty"]
)
def test_paths_that_name_nothing(tmp_path, given):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        choose_python(given, PLAIN, tmp_path)
    assert "\n" not in str(caught.value)


def test_not_executable(tmp_path):
    (tmp_path / "python").write_text("")
    with pytest.raises(InputError, match="not executable"):
        choose_python("python", PLAIN, tmp_path)


def test_a_folder_or_a_command_stand_for_their_python(tmp_path):
    python = real_python(tmp_path / "env")
    assert choose_python("env", PLAIN, tmp_path) == Choice(python, "--python", True)
    command = program(tmp_path / "bin/mypython", "#!/bin/sh\n")
    assert choose_python("mypython", {"PATH": str(tmp_path / "bin")}, tmp_path) == Choice(command, "--python", True)


def test_order_of_the_search(tmp_path):
    named = {name: real_python(tmp_path / name) for name in ("virtual", "conda", ".venv", "venv")}
    on_path = program(tmp_path / "path/python3", "#!/bin/sh\n")
    environ = {
        "VIRTUAL_ENV": str(tmp_path / "virtual"),
        "CONDA_PREFIX": str(tmp_path / "conda"),
        "PATH": f"relative:{tmp_path / 'path'}",
    }
    assert choose_python(None, environ, tmp_path) == Choice(named["virtual"], "VIRTUAL_ENV")
    environ["VIRTUAL_ENV"] = str(tmp_path / "gone")
    assert choose_python(None, environ, tmp_path) == Choice(named["conda"], "CONDA_PREFIX")
    del environ["CONDA_PREFIX"]
    assert choose_python(None, environ, tmp_path) == Choice(named[".venv"], ".venv in the working folder")
    assert choose_python(None, environ, tmp_path / "path") == Choice(on_path, "python3 on PATH")


def test_our_own_environment_comes_last_unless_it_has_torch(tmp_path, monkeypatch):
    own = {"VIRTUAL_ENV": sys.prefix, "PATH": str(tmp_path)}
    with_torch = choose_python(None, own, tmp_path)
    assert with_torch is not None and with_torch.source == "VIRTUAL_ENV, where this program is installed too"
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: None)
    alone = choose_python(None, own, tmp_path)
    assert alone is not None and "own environment, as no other Python was found" in alone.source
    nothing = choose_python(None, {"PATH": str(tmp_path)}, tmp_path)
    assert nothing is not None and nothing.path == Path(sys.executable) and "no other was found" in nothing.source
    other = program(tmp_path / "python3", "#!/bin/sh\n")
    assert choose_python(None, own, tmp_path) == Choice(other, "python3 on PATH")


def test_the_servers_own_folder_is_kept_off_the_childs_path(tmp_path):
    ours = Path(interpreter.__file__).parents[3]
    env = interpreter.child_environment({"PYTHONPATH": f"{ours}{os.pathsep}{tmp_path}"})
    assert env["PYTHONPATH"] == str(tmp_path)
    assert "PYTHONPATH" not in interpreter.child_environment({"PYTHONPATH": str(ours)})


def test_a_flood_is_cut_and_killed(tmp_path):
    path = program(tmp_path / "flood", "#!/bin/sh\nexec cat /dev/zero\n")
    started = time.monotonic()
    done = run_child([str(path)], PLAIN, 20.0, cap=1000)
    assert (len(done.out), done.flooded, done.code) == (1000, True, None)
    assert time.monotonic() - started < 5


def test_a_program_that_leaves_a_child_behind_does_not_hold_us_up(tmp_path):
    path = program(tmp_path / "parent", "#!/bin/sh\nsleep 8 &\necho done\n")
    started = time.monotonic()
    done = run_child([str(path)], PLAIN, 20.0)
    assert (done.out, done.code) == ("done\n", 0)
    assert time.monotonic() - started < 4


def test_a_hung_probe_does_not_hold_up_the_end_of_the_program():
    code = (
        "import threading, os\n"
        "from pathlib import Path\n"
        "from compute_awareness.hardware.probe import examine as module\n"
        "probes = {'stuck': (lambda: threading.Event().wait(60), 0.3), 'quick': (lambda: 5, 5.0)}\n"
        "found, problems = module._side_by_side(probes)\n"
        "print(found, problems[0].reason)\n"
    )
    server = str(Path(interpreter.__file__).parents[3])
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": server},
        timeout=60,
    )
    assert "{'quick': 5} did not end within 0.3 s" in done.stdout, done.stderr
    assert time.monotonic() - started < 20


class Surroundings:
    """A home, a folder of temporary files and a working folder in which nothing may be left."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch):
        self.top = top
        for name in ("home", "temp", "work"):
            (top / name).mkdir()
        monkeypatch.chdir(top / "work")
        monkeypatch.setattr(tempfile, "tempdir", str(top / "temp"))
        self.environ = {**PLAIN, "HOME": str(top / "home"), "TMPDIR": str(top / "temp")}

    def left(self) -> list[str]:
        return sorted(str(path) for name in ("home", "temp", "work") for path in (self.top / name).rglob("*"))


@pytest.fixture
def around(tmp_path, monkeypatch) -> Surroundings:
    return Surroundings(tmp_path, monkeypatch)


def alive(pid_file: Path) -> bool:
    """Whether the process still runs (a zombie that its parent did not collect is dead)."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid_file.read_text()}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def ends(pid_file: Path, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid_file) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid_file)


def test_the_real_torch_writes_nothing(around, tmp_path):
    """Read-only is seen by what is there afterwards, in every place a library may write to unasked."""
    site = Path(metadata.distribution("torch").locate_file("torch"))
    before = sorted((str(p), p.stat().st_mtime_ns) for p in site.parent.glob("*"))
    found = probe_python(Choice(Path(sys.executable), "--python", explicit=True), around.environ)
    assert found.torch is not None and found.problem is None
    assert around.left() == []
    assert sorted((str(p), p.stat().st_mtime_ns) for p in site.parent.glob("*")) == before


def test_start_up_code_that_prints_and_writes_leaves_nothing(around, tmp_path, capfd):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys, tempfile\n"
        "print('<<0 installed>>{}<<end>>'); sys.stderr.write('noise'); os.write(1, b'\\xff\\x00' * 1000)\n"
        "open('here', 'w').write('x'); tempfile.mkstemp()\n"
        "for name in ('XDG_CACHE_HOME', 'TORCH_HOME', 'TRITON_CACHE_DIR', 'MPLCONFIGDIR'):\n"
        "    os.makedirs(os.path.join(os.environ.get(name) or os.path.expanduser('~'), name))\n"
    )
    command = f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n'
    python = program(tmp_path / "env/bin/python", command)
    found = probe_python(Choice(python, "x"), around.environ)
    assert found.problem is None and found.version == "{}.{}.{}".format(*sys.version_info[:3])
    assert around.left() == []
    assert capfd.readouterr() == ("", "")


def test_a_torch_that_floods_keeps_what_was_told_before(around, tmp_path):
    site = torch_package(tmp_path / "site", "import os\nwhile True: os.write(1, b'x' * 65536)\n")
    found = probe_python(Choice(real_python(tmp_path / "env", str(site)), "x"), around.environ)
    assert found.torch is not None and found.torch.version == "2.13.0+cu130"
    assert "importing torch printed without end" in (found.problem or "")
    assert around.left() == []


@pytest.mark.parametrize("after", ["raise ImportError('no')", "time.sleep(600)"])
def test_what_torch_forks_ends_with_it(around, tmp_path, after):
    pid = tmp_path / "pid"
    site = torch_package(
        tmp_path / "site",
        "import os, time\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        try: open('more%d' % time.time_ns(), 'w').write('x')\n"
        "        except OSError: pass\n"
        f"open({str(pid)!r}, 'w').write(str(child))\n"
        f"{after}\n",
    )
    choice = Choice(real_python(tmp_path / "env", str(site)), "x")
    found = probe_python(choice, around.environ, answer_limit_s=4.0, import_limit_s=1.0)
    assert "importing torch" in (found.problem or "")
    assert ends(pid)
    assert around.left() == []


def test_an_import_cannot_fill_the_disk(around, tmp_path):
    said = tmp_path / "said"
    site = torch_package(
        tmp_path / "site",
        "try:\n"
        "    with open('large', 'wb') as file:\n"
        "        for _ in range(64): file.write(b'x' * (1 << 20))\n"
        "except OSError as error:\n"
        f"    open({str(said)!r}, 'w').write(type(error).__name__)\n"
        "raise ImportError('done')\n",
    )
    probe_python(Choice(real_python(tmp_path / "env", str(site)), "x"), around.environ)
    assert said.read_text() == "OSError"
    assert around.left() == []


def test_a_torch_that_lies_about_its_types_is_unknown_not_a_failure(tmp_path):
    site = torch_package(
        tmp_path / "site",
        "from types import SimpleNamespace as N\n"
        "__version__ = '2.13.0'\n"
        "version = N(cuda=13.0)\n"
        "backends = N()\n"
        "cuda = N(is_available=lambda: 1, get_arch_list=lambda: ['sm_80', 7], memory_allocated=lambda: -5,\n"
        "         memory_reserved=lambda: True)\n",
    )
    found = probe_python(Choice(real_python(tmp_path / "env", str(site)), "x"), PLAIN)
    assert found.problem is None and found.torch is not None
    assert (found.torch.cuda_build, found.torch.cuda_available) == (None, True)
    assert (found.torch.allocated_bytes, found.torch.arch_list) == (None, ["sm_80"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["version", "cuda", "hip", "error", "arch_list", "unmet"]), inner)
    ),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from(["version", "cuda", "arch_list", "allocated", "error", "unmet"]), VALUES)


@given(first=VALUES, second=OBJECTS | st.none(), libraries=VALUES)
def test_whatever_the_child_says_makes_a_report(first, second, libraries):
    report = Interpreter(path="p", source="s", libraries=interpreter._texts(libraries))
    report.unmet = interpreter._unmet(second)
    interpreter._add_torch(report, first, second, Finished("", "", 0), 1.0)
    assert TypeAdapter(Interpreter).validate_json(json.dumps(asdict(report)), strict=True) == report
    assert report.torch is None or (report.torch.allocated_bytes or 0) >= 0


def test_the_users_packages_are_still_seen(around, tmp_path):
    home = Path(around.environ["HOME"])
    minor = "python{}.{}".format(*sys.version_info[:2])
    info = home / ".local/lib" / minor / "site-packages/nnsight-0.8.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nnsight\nVersion: 0.8.1\n")
    base = Path(sys.base_prefix) / "bin" / minor
    found = probe_python(Choice(base, "x"), around.environ)
    assert found.libraries["nnsight"] == "0.8.1"


def test_a_program_that_ends_early_leaves_neither_child_nor_folder(tmp_path):
    code = (
        "import sys, threading, time\n"
        "from compute_awareness.hardware.probe.child import Finished, run_child, scratch_folder\n"
        "def probe():\n"
        "    with scratch_folder() as folder:\n"
        f"        run_child(['/bin/sh', '-c', 'echo $$ > {tmp_path}/pid; sleep 600'], {{}}, 600, cwd=folder)\n"
        "threading.Thread(target=probe, daemon=True).start()\n"
        f"while not __import__('os').path.exists('{tmp_path}/pid'): time.sleep(0.01)\n"
        "time.sleep(0.1)\n"
    )
    (tmp_path / "temp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "temp"), "PYTHONPATH": str(Path(interpreter.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ends(tmp_path / "pid")
    assert list((tmp_path / "temp").iterdir()) == []
