"""What only shows around the commands: our own faults, a reader that goes away, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import EXAMPLES

from compute_awareness import estimator
from compute_awareness.cli import run

PYTHIA = str(EXAMPLES / "pythia_cache.json")


def test_our_own_fault_is_one_line_and_70(cli, monkeypatch):
    def broken(_workload, **_more):
        raise KeyError("d_modle")

    monkeypatch.setattr(estimator, "estimate", broken)
    ran = cli("estimate", PYTHIA)
    assert (ran.code, ran.out) == (70, "")
    assert ran.err.startswith("error: KeyError: 'd_modle'")
    assert ran.err.count("\n") == 1
    monkeypatch.setenv("COMPUTE_AWARENESS_DEBUG", "1")
    with pytest.raises(KeyError):
        run(["estimate", PYTHIA])


def test_an_error_is_one_harmless_line(cli):
    ran = cli("models", "gpt2\x1b[31m\nsmall")
    assert ran.code == 2
    assert "\x1b" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "compute_awareness", "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        said = ran.stderr.read()
    assert said == b""
    assert ran.returncode == 141


SMALL = ("--task", "inference", "--model", "gpt2", "--seq-len", "64")
LARGE = ("preflight", PYTHIA, "--gpu", "T4")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "JSON"])
def test_an_output_that_takes_nothing_is_told_from_a_verdict(form):
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "compute_awareness", "estimate", *SMALL, *form],
            stdout=full, stderr=subprocess.PIPE, timeout=120, check=False,
        )  # fmt: skip
    assert ran.returncode == 74
    assert ran.stderr == b"error: the output could not be written: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="the streams of a process are closed otherwise there")
@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize(("command", "code"), [(("estimate", *SMALL), 0), (LARGE, 1), ((*LARGE, "--json"), 1)])
def test_where_a_stream_is_closed_the_code_says_it(closed, command, code):
    program = (
        "import os, sys\n"
        f"for number in {closed}: os.close(number)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'compute_awareness', *sys.argv[1:]])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (code, b"")
    assert bool(ran.stdout) == (1 not in closed)


@pytest.mark.skipif(os.name != "posix", reason="resource limits are POSIX's")
@pytest.mark.parametrize("name", ["plan.svg", "plan.png"])
def test_no_half_of_a_file_is_left_on_a_full_disk(tmp_path, name):
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from compute_awareness.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "estimate", *SMALL, "--plot", str(tmp_path / name)],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, b"") and b"cannot be written: File too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_imports_only_what_it_needs():
    code = (
        "import sys; from compute_awareness.cli import run; code = run(sys.argv[1:]);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "estimate", PYTHIA, "--json"],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    for heavy in ("torch", "transformers", "mcp", "rich", "jinja2", "psutil", "huggingface_hub", "pynvml", "anyio"):
        assert f"'{heavy}'" not in ran.stderr
