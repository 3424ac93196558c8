"""The profile: what is kept, that nothing is lost, and what is refused."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.asking.profile import age
from compute_awareness.asking.profile_file import (
    FORMAT,
    PROJECT_FILE,
    VARIABLE,
    forget,
    project_file,
    read_profile,
    set_budget,
    set_machine,
)
from compute_awareness.errors import InputError

TODAY = datetime.date(2026, 11, 26)


@pytest.fixture
def here(tmp_path):
    """(environ, cwd) of a user with a project and no profile yet."""
    (tmp_path / "project/.git").mkdir(parents=True)
    return {"environ": {VARIABLE: str(tmp_path / "profile.toml")}, "cwd": tmp_path / "project"}


def test_a_machine_is_kept_and_found_again(here):
    path = set_machine("gpu-box", {"gpu": "RTX 4090", "host": "gpu-box"}, default=True, today=TODAY, **here)
    profile = read_profile(**here)
    assert profile.files == [str(path)]
    assert profile.problems == []
    name, machine = profile.default_machine() or ("", None)
    assert machine is not None
    assert (name, machine.gpu, machine.host, machine.saved) == ("gpu-box", "RTX 4090", "gpu-box", TODAY)
    assert profile.machine("GPU-Box") == (name, machine)


def test_fields_not_given_stay_and_comments_too(here):
    path = set_machine("box", {"gpu": "RTX 4090", "max_hours": 12.0}, today=TODAY, **here)
    path.write_text(path.read_text() + "# mine: do not use at night\n", encoding="utf-8")
    set_machine("BOX", {"gpu": "2xRTX 4090"}, today=TODAY, **here)
    box = read_profile(**here).machines["box"]
    assert (box.gpu, box.max_hours) == ("2xRTX 4090", 12.0)
    assert "# mine: do not use at night" in path.read_text()


def test_the_projects_answers_go_before_the_users(here):
    set_machine("box", {"gpu": "RTX 3060"}, default=True, today=TODAY, **here)
    set_machine("home", {"gpu": "T4"}, today=TODAY, **here)
    set_budget(5, 3, today=TODAY, **here)
    set_machine("box", {"gpu": "A100-80GB"}, "project", today=TODAY, **here)
    set_budget(50, None, "project", today=TODAY, **here)
    profile = read_profile(**here)
    assert profile.machines["box"].gpu == "A100-80GB"
    assert set(profile.machines) == {"box", "home"}
    assert profile.budget is not None and profile.budget.max_usd == 50
    assert profile.files[0] == str(here["cwd"] / PROJECT_FILE)


def test_the_project_is_found_from_a_folder_below(here):
    below = here["cwd"] / "src/deep"
    below.mkdir(parents=True)
    assert project_file(below) == here["cwd"] / PROJECT_FILE


def test_forgetting(here):
    set_machine("box", {"gpu": "T4"}, default=True, today=TODAY, **here)
    set_budget(5, None, today=TODAY, **here)
    forget("Box", **here)
    forget("budget", **here)
    profile = read_profile(**here)
    assert (profile.machines, profile.default, profile.budget) == ({}, None, None)
    with pytest.raises(InputError, match="holds no budget"):
        forget("budget", **here)
    set_machine("gpu-box", {}, today=TODAY, **here)
    with pytest.raises(InputError, match="no machine 'gpu-bx' in the profile; nearest: gpu-box"):
        forget("gpu-bx", **here)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("machines = [", "not valid TOML"),
        (f"format = {FORMAT + 1}\n[machines.box]\ngpu = 'T4'\n", "upgrade compute-awareness"),
        ("[machines.box]\ngpu = 7\nsaved = 2026-01-01\n", "machines.box.gpu"),
        ("[machines.box]\ngpy = 'T4'\nsaved = 2026-01-01\n", "machines.box.gpy"),
        ("\x00\xff", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_left_as_it_is(here, text, says):
    path = Path(here["environ"][VARIABLE])
    path.write_text(text, encoding="latin-1")
    before = path.read_bytes()
    profile = read_profile(**here)
    assert profile.machines == {}
    assert says in profile.problems[0]
    with pytest.raises(InputError):
        set_machine("other", {"gpu": "T4"}, today=TODAY, **here)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["profile.toml", "project"]


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("-box", {}, "machine name"),
        ("none", {}, "machine name"),
        ("a b", {}, "machine name"),
        ("box", {"gpu": "x" * 100}, "at most 80"),
        ("box", {"max_hours": -1}, "greater than 0"),
        ("box", {"where": "hf_abcdefghijklmnop"}, "looks like a secret"),
        ("box", {"gpu": "a\x1b[2J"}, "control character"),
    ],
)
def test_what_is_refused(here, name, fields, says):
    with pytest.raises(InputError, match=says):
        set_machine(name, fields, today=TODAY, **here)
    assert not Path(here["environ"][VARIABLE]).exists()


def test_an_empty_variable_switches_it_off(here):
    environ = {VARIABLE: ""}
    set_machine("box", {"gpu": "T4"}, "project", today=TODAY, **here)
    assert read_profile(environ, here["cwd"]).machines == {}
    with pytest.raises(InputError, match="switches the profile off"):
        set_machine("box", {"gpu": "T4"}, environ=environ, cwd=here["cwd"])


def test_processes_that_write_at_once_lose_nothing(here):
    code = (
        "import sys, pathlib\n"
        "from compute_awareness.asking.profile_file import set_machine, VARIABLE\n"
        "for i in range(5):\n"
        "    set_machine(f'{sys.argv[1]}-{i}', {'gpu': 'T4'}, environ={VARIABLE: sys.argv[2]}, cwd=pathlib.Path('.'))\n"
    )
    file = here["environ"][VARIABLE]
    writers = [subprocess.Popen([sys.executable, "-c", code, f"writer{n}", file]) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(read_profile(**here).machines) == 20


def test_a_writer_that_is_killed_leaves_a_whole_file(here):
    code = (
        "import sys, pathlib, itertools\n"
        "from compute_awareness.asking.profile_file import set_machine, VARIABLE\n"
        "for i in itertools.count():\n"
        "    set_machine(f'box-{i % 9}', {'gpu': 'T4'}, environ={VARIABLE: sys.argv[1]}, cwd=pathlib.Path('.'))\n"
        "    print(i, flush=True)\n"
    )
    set_machine("mine", {"gpu": "A100"}, today=TODAY, **here)
    for written in range(1, 5):
        with subprocess.Popen(
            [sys.executable, "-c", code, here["environ"][VARIABLE]], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(written):
                writer.stdout.readline()
            writer.kill()
        assert read_profile(**here).machines["mine"].gpu == "A100"
        set_machine("next", {"gpu": f"{written}xT4"}, today=TODAY, **here)  # no lock of a dead writer is in the way
        assert read_profile(**here).machines["next"].gpu == f"{written}xT4"


def test_a_disk_that_fills_up_leaves_the_old_file(here, monkeypatch):
    path = set_machine("box", {"gpu": "T4"}, today=TODAY, **here)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        set_machine("box", {"gpu": "A100"}, today=TODAY, **here)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["profile.toml", "project"]


def test_age_in_words():
    assert age(TODAY, TODAY) == "said today"
    assert age(TODAY - datetime.timedelta(1), TODAY) == "said yesterday"
    assert age(TODAY - datetime.timedelta(40), TODAY) == "said 40 days ago"
    assert age(TODAY - datetime.timedelta(200), TODAY) == "said 6 months ago, on 2026-05-10"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_file_makes_reading_fail(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("any") / "profile.toml"
    path.write_bytes(raw)
    profile = read_profile({VARIABLE: str(path)}, path.parent)
    json.dumps(profile.model_dump(mode="json"))
    if not profile.problems:
        tomllib.loads(raw.decode())
