"""Which Pythons there are and which is taken: environments built in temporary folders, none of them started."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from python_folders import add_torch, conda, fake_python, kernel, put, venv

from compute_awareness.hardware.probe.pythons import choose, project
from compute_awareness.hardware.probe.pythons.choose import Choice, choose_python
from compute_awareness.hardware.probe.pythons.conda import listed_environments
from compute_awareness.hardware.probe.pythons.folders import describe, environment_of, pyvenv_cfg, torch_version
from compute_awareness.hardware.probe.pythons.kernels import kernel_argv, kernel_python
from compute_awareness.hardware.probe.pythons.listing import MOST_LISTED, Candidate, doubt, offered
from compute_awareness.hardware.probe.pythons.project import project_folders, vscode_python
from compute_awareness.hardware.probe.report import WorkspacePython

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are executable by their mode")


@pytest.fixture
def place(tmp_path):
    """A home with a project in it, an empty root, and the variables of a shell where nothing is active."""
    project = tmp_path / "home/project"
    (project / ".git").mkdir(parents=True)
    return Place(tmp_path, tmp_path / "home", project)


class Place:
    def __init__(self, root: Path, home: Path, project: Path):
        self.root, self.home, self.project = root / "root", home, project
        self.environ = {"HOME": str(home), "PATH": str(root / "nothing")}

    def chosen(self, cwd: Path | None = None) -> Choice:
        choice = choose_python(None, self.environ, cwd or self.project, root=self.root)
        assert choice is not None
        return choice

    def listed(self, chosen: Path | None = None, source: str = "x", cwd: Path | None = None) -> list[WorkspacePython]:
        candidate = Candidate(chosen, source) if chosen else None
        return offered(self.environ, cwd or self.project, self.root, candidate)

    def one(self, cwd: Path | None = None) -> WorkspacePython:
        (entry,) = self.listed(cwd=cwd)
        return entry


def test_nothing_at_all(place):
    assert place.listed() == []
    assert place.chosen().path == Path(sys.executable) and "no other was found" in place.chosen().source


def test_a_venv_tells_its_version_and_torch(place):
    python = venv(place.project / ".venv", "3.11.7", "2.13.0+cu130")
    entry = place.one()
    assert (entry.path, entry.kind, entry.version) == (str(python), "venv", "3.11.7")
    assert (entry.has_torch, entry.torch, entry.source) == (True, "2.13.0+cu130", ".venv in the working folder")
    assert place.chosen() == Choice(python, ".venv in the working folder")
    assert not (python.parent / "started").exists()


def test_uv_and_virtualenv_write_version_info(place):
    venv(place.project / "uv-made", cfg="version_info = 3.12.1\nuv = 0.9.1\n")
    venv(place.project / "virtualenv-made", cfg="version_info = 3.10.2.final.0\nvirtualenv = 20.1\n")
    assert [(e.kind, e.version) for e in place.listed()] == [("uv", "3.12.1"), ("venv", "3.10.2")]


def test_any_folder_with_pyvenv_cfg_and_the_parents_up_to_git(place):
    inner = place.project / "experiments/one"
    inner.mkdir(parents=True)
    outside = venv(place.home / ".venv")
    named = venv(place.project / "torch-env")
    near = venv(place.project / "experiments/env")
    assert place.chosen(inner) == Choice(near, f"env in {place.project / 'experiments'}")
    assert [e.path for e in place.listed(cwd=inner)] == [str(near), str(named)]
    assert str(outside) not in [e.path for e in place.listed(cwd=inner)]


def test_without_git_the_root_is_the_last_project_file(tmp_path):
    put(tmp_path / "a/pyproject.toml")
    put(tmp_path / "a/b/pyproject.toml")
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    found = project_folders(tmp_path / "a/b/c/d", {})
    assert found == [tmp_path / part for part in ("a/b/c/d", "a/b/c", "a/b", "a")]
    (tmp_path / "x/y").mkdir(parents=True)
    assert project_folders(tmp_path / "x/y", {}) == [tmp_path / "x/y"]
    # The home folder is no project for what lies in it, whatever files it has.
    put(tmp_path / "home/pyproject.toml")
    assert project_folders(tmp_path / "home/work", {"HOME": str(tmp_path / "home")}) == [tmp_path / "home/work"]
    assert project_folders(tmp_path / "home", {"HOME": str(tmp_path / "home")}) == [tmp_path / "home"]


def test_uv_follows_its_lock_and_its_variable(place):
    python = venv(place.project / ".venv", cfg="uv = 0.9\n")
    put(place.project / "uv.lock")
    assert place.chosen() == Choice(python, "uv environment (uv.lock) of the working folder")
    other = venv(place.project / "envs/gpu", cfg="uv = 0.9\n")
    place.environ["UV_PROJECT_ENVIRONMENT"] = "envs/gpu"
    assert place.chosen().path == other
    place.environ["UV_PROJECT_ENVIRONMENT"] = str(venv(place.home / "far", cfg="uv = 0.9\n").parent.parent)
    assert place.chosen().path == place.home / "far/bin/python"


def poetry_name(project: Path) -> str:
    digest = hashlib.sha256(os.path.realpath(project).encode()).digest()
    return f"my-proj-{base64.urlsafe_b64encode(digest).decode()[:8]}"


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, ".cache/pypoetry/virtualenvs"),
        ({}, "Library/Caches/pypoetry/virtualenvs"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/pypoetry/virtualenvs"),
        ({"POETRY_CACHE_DIR": "pc"}, "pc/virtualenvs"),
        ({"POETRY_VIRTUALENVS_PATH": "pv"}, "pv"),
        ({"LOCALAPPDATA": "local"}, "local/pypoetry/Cache/virtualenvs"),
    ],
)
def test_poetry_in_its_cache_newest_python_first(place, variables, cache):
    place.environ.update({name: str(place.home / value) for name, value in variables.items()})
    put(place.project / "pyproject.toml", '[project]\nname = "my-proj"\n')
    name = poetry_name(place.project)
    venv(place.home / cache / f"{name}-py3.9")
    newest = venv(place.home / cache / f"{name}-py3.12")
    venv(place.home / cache / "my-proj-AAAAAAAA-py3.13")
    assert place.chosen() == Choice(newest, "poetry environment of the working folder")
    assert len(place.listed()) == 2


def test_the_hash_is_poetrys(tmp_path):
    """The name is what generate_env_name of poetry 2.5.1 gives for a project my-proj in /no/such/project."""
    (tmp_path / ".cache/pypoetry/virtualenvs/my-proj-cxR4gu6d-py3.11").mkdir(parents=True)
    (found,) = project._poetry_cache(Path("/no/such/project"), {"HOME": str(tmp_path)})
    assert found.name == "my-proj-cxR4gu6d-py3.11"


def test_poetry_in_the_project_goes_before_its_cache(place):
    put(place.project / "poetry.lock")
    venv(place.home / f".cache/pypoetry/virtualenvs/{poetry_name(place.project)}-py3.12")
    inside = venv(place.project / ".venv")
    assert place.chosen() == Choice(inside, "poetry environment of the working folder")


def test_pipenv_by_the_project_file_it_writes(place):
    put(place.project / "Pipfile")
    python = venv(place.home / ".local/share/virtualenvs/project-mfShPLUD")
    put(place.home / ".local/share/virtualenvs/project-mfShPLUD/.project", str(place.project))
    venv(place.home / ".local/share/virtualenvs/other-AAAAAAAA")
    put(place.home / ".local/share/virtualenvs/other-AAAAAAAA/.project", "/somewhere/else")
    assert place.chosen() == Choice(python, "pipenv environment of the working folder")
    assert place.one().kind == "pipenv"


def test_pdm_writes_the_python_down(place):
    python = venv(place.home / "made-by-pdm")
    put(place.project / ".pdm-python", str(python) + "\n")
    assert place.chosen() == Choice(python, "PDM environment (.pdm-python) of the working folder")


def test_pixi_default_first(place):
    put(place.project / "pixi.toml")
    conda(place.project / ".pixi/envs/cpu")
    default = conda(place.project / ".pixi/envs/default", torch="2.13.0")
    assert place.chosen() == Choice(default, "pixi environment default of the working folder")
    assert [(e.kind, e.has_torch, e.version) for e in place.listed()] == [
        ("pixi", True, "3.12.4"),
        ("pixi", False, "3.12.4"),
    ]
    place.environ["PIXI_ENVIRONMENT_NAME"] = "cpu"
    assert "pixi environment cpu" in place.chosen().source


def test_environment_yml_names_a_conda_environment(place):
    put(place.project / "environment.yml", "# mine\nname: interp  # the one\nchannels:\n  - conda-forge\n")
    python = conda(place.home / "miniforge3/envs/interp", torch="2.9.1")
    conda(place.home / "miniforge3/envs/other")
    assert place.chosen() == Choice(python, "conda environment interp (environment.yml) of the working folder")
    # What lies in the folder is nearer than what a file there names.
    inside = venv(place.project / ".venv")
    assert place.chosen().path == inside


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"python.defaultInterpreterPath": "${workspaceFolder}/envs/x/bin/python"}', True),
        ('{"python.defaultInterpreterPath": "envs/x"}', True),
        ('{"python.defaultInterpreterPath": "${env:WHERE}/envs/x/bin/python",}', True),
        ('{"python.defaultInterpreterPath": "~/project/envs/x/bin/python"}', True),
        ('{"python.pythonPath": "${workspaceFolder:project}/envs/x/bin/python"}', True),
        ('{/* "python.defaultInterpreterPath": "envs/x", */ "a": "https://x.y"}', False),
        ('{// "python.defaultInterpreterPath": "envs/x",\n "a": 1}', False),
        ('{"python.defaultInterpreterPath": "python3"}', False),
        ('{"python.defaultInterpreterPath": "envs/gone/bin/python"}', False),
        ('{"python.defaultInterpreterPath": 3}', False),
        ('{"python.defaultInterpreterPath": "envs/\\u00zz"}', False),
        ("", False),
    ],
)
def test_vs_code_settings(place, text, found):
    python = venv(place.project / "envs/x")
    put(place.project / ".vscode/settings.json", text)
    place.environ["WHERE"] = str(place.project)
    if found:
        assert place.chosen() == Choice(python, "python.defaultInterpreterPath in .vscode of the working folder")
    else:
        assert place.listed() == []


def test_what_is_active_goes_first_but_condas_base_after_the_project(place):
    base = conda(place.home / "miniconda3", torch="2.9.0")
    (place.home / "miniconda3/condabin").mkdir()
    place.environ.update(CONDA_PREFIX=str(place.home / "miniconda3"), CONDA_DEFAULT_ENV="base")
    assert place.chosen() == Choice(base, "CONDA_PREFIX, conda's base")
    own = venv(place.project / ".venv")
    assert place.chosen().path == own
    del place.environ["CONDA_DEFAULT_ENV"]
    assert place.chosen().path == own
    named = conda(place.home / "miniconda3/envs/interp")
    place.environ.update(CONDA_PREFIX=str(named.parent.parent), CONDA_DEFAULT_ENV="interp")
    assert place.chosen() == Choice(named, "CONDA_PREFIX")
    active = venv(place.home / "active")
    place.environ["VIRTUAL_ENV"] = str(active.parent.parent)
    assert place.chosen() == Choice(active, "VIRTUAL_ENV")


def test_condas_other_environments_are_told_and_never_taken(place):
    listed = conda(place.home / "elsewhere/deep")
    put(place.home / ".conda/environments.txt", f"{place.home}/elsewhere/deep\n{place.home}/gone\n\nrelative\n")
    system = conda(place.root / "opt/conda", torch="2.13.0")
    (place.root / "opt/conda/condabin").mkdir()
    inside = conda(place.root / "opt/conda/envs/inside")
    assert [(e.path, e.source) for e in place.listed()] == [
        (str(listed), "conda environment deep"),
        (str(system), "conda environment base"),
        (str(inside), "conda environment inside"),
    ]
    assert place.chosen().path == Path(sys.executable)


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, "home/.local/share/jupyter"),
        ({}, "home/Library/Jupyter"),
        ({}, "root/usr/local/share/jupyter"),
        ({"JUPYTER_PATH": "jp"}, "jp"),
        ({"JUPYTER_DATA_DIR": "jd"}, "jd"),
        ({"XDG_DATA_HOME": "xdg"}, "xdg/jupyter"),
        ({"APPDATA": "roaming"}, "roaming/jupyter"),
        ({"PROGRAMDATA": "pd"}, "pd/jupyter"),
    ],
)
def test_kernels_are_told_and_never_taken(place, variables, share):
    top = place.home.parent
    place.environ.update({name: str(top / value) for name, value in variables.items()})
    python = venv(place.home / "hidden", torch="2.12.0")
    kernel(top / share, "torch", str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}")
    kernel(top / share, "julia", "/usr/bin/julia", "-i")
    kernel(top / share, "container", "docker", "run", "image", "python", "-m", "ipykernel_launcher")
    kernel(top / share, "gone", "/nowhere/bin/python", "-m", "ipykernel_launcher")
    entry = place.one()
    assert (entry.path, entry.source, entry.has_torch) == (str(python), "Jupyter kernel torch", True)
    assert place.chosen().path == Path(sys.executable)


def test_a_kernel_of_a_known_environment_is_named_with_it(place):
    python = venv(place.project / ".venv")
    kernel(place.project / ".venv/share/jupyter", "python3", "python", "-m", "ipykernel_launcher")
    kernel(place.home / ".local/share/jupyter", "mine", "env", "A=1", str(python), "-m", "ipykernel_launcher")
    assert place.one().also == ["Jupyter kernel mine", "Jupyter kernel python3"]


def test_python_version_by_pyenv(place):
    for release in ("3.11.2", "3.11.10", "3.12.1"):
        fake_python(place.home / f".pyenv/versions/{release}/bin/python")
    put(place.project / ".python-version", "3.11\n")
    assert place.chosen().source == "pyenv's 3.11.10 (.python-version)" and place.one().version == "3.11.10"
    made = venv(place.project / ".venv")
    assert place.chosen().path == made
    put(place.project / ".python-version", "../../etc\n")
    assert [e.path for e in place.listed()] == [str(made)]


def test_pyenvs_shims_stand_for_the_release_they_start(place):
    fake_python(place.home / ".pyenv/shims/python3")
    real = fake_python(place.home / ".pyenv/versions/3.12.1/bin/python")
    other = fake_python(place.home / ".pyenv/versions/3.11.2/bin/python")
    put(place.home / ".pyenv/version", "3.12.1\n")
    place.environ["PATH"] = str(place.home / ".pyenv/shims")
    assert place.chosen().path == real
    place.environ["PYENV_VERSION"] = "3.11.2"
    assert place.chosen().path == other


def test_a_windows_environment(place):
    python = fake_python(place.project / ".venv/Scripts/python.exe")
    put(place.project / ".venv/pyvenv.cfg", "home = C:\\Python311\nversion = 3.11.7\n")
    add_torch(place.project / ".venv/Lib/site-packages", "2.13.0+cpu")
    entry = place.one()
    assert (entry.path, entry.kind, entry.torch) == (str(python), "venv", "2.13.0+cpu")
    conda_python = fake_python(place.home / "miniconda3/envs/w/python.exe")
    put(place.home / "miniconda3/envs/w/conda-meta/python-3.12.1-0.json")
    assert environment_of(conda_python) == place.home / "miniconda3/envs/w"
    assert describe(conda_python, {}).version == "3.12.1"


def test_links_to_one_environment_are_one_entry(place):
    venv(place.home / "real")
    (place.project / ".venv").symlink_to(place.home / "real")
    (place.project / "venv").symlink_to(place.home / "real")
    place.environ.update(VIRTUAL_ENV=str(place.home / "real"), PATH=str(place.home / "real/bin"))
    assert place.one().source == "VIRTUAL_ENV"


def test_a_link_on_path_is_what_it_leads_to(place):
    python = conda(place.home / "mini", torch="2.13.0")
    (place.home / "bin").mkdir()
    (place.home / "bin/python3").symlink_to(python)
    place.environ["PATH"] = str(place.home / "bin")
    assert place.one().kind == "conda" and place.one().torch == "2.13.0"


def test_a_venv_sees_the_packages_of_the_system_only_if_it_says_so(place):
    fake_python(place.home / "base/bin/python3")
    add_torch(place.home / "base/lib/python3.11/site-packages")
    venv(place.project / ".venv", cfg="include-system-site-packages = false\n")
    put(place.project / ".venv/pyvenv.cfg", f"home = {place.home}/base/bin\nversion = 3.11.7\n")
    assert place.one().has_torch is False
    put(
        place.project / ".venv/pyvenv.cfg",
        f"home = {place.home}/base/bin\nversion = 3.11.7\ninclude-system-site-packages = true\n",
    )
    assert place.one().has_torch is True


def test_pythonpath_and_the_users_packages_count(place):
    fake_python(place.home / "usr/bin/python3")
    place.environ["PATH"] = str(place.home / "usr/bin")
    assert place.one().has_torch is None
    (place.home / "usr/lib/python3.11/site-packages").mkdir(parents=True)
    assert place.one().has_torch is False
    add_torch(place.home / ".local/lib/python3.11/site-packages", "2.6.0")
    assert place.one().torch == "2.6.0"
    add_torch(place.home / "modules", "2.8.0")
    place.environ["PYTHONPATH"] = str(place.home / "modules")
    assert place.one().torch == "2.8.0"


def test_folders_that_a_pth_file_adds_count(place):
    venv(place.project / ".venv")
    site = place.project / ".venv/lib/python3.11/site-packages"
    add_torch(place.home / "shared", "2.11.0")
    lines = [f"# {place.home}/shared", f"import sys; sys.path.append('{place.home}/shared')", "/nowhere", "\0", ""]
    put(site / "a.pth", "\n".join(lines))
    assert place.one().has_torch is False
    put(site / "b.pth", f"{place.home}/shared\n")
    assert place.one().torch == "2.11.0"


def test_what_an_uninstall_left_is_no_torch(tmp_path):
    put(tmp_path / "torch/lib/left.so")
    assert torch_version(tmp_path) is None
    put(tmp_path / "torch/version.py", "cuda = None\n")
    assert torch_version(tmp_path) == ""


def test_the_chosen_is_marked_and_stands_in_the_list_whatever_it_is(place):
    venv(place.project / ".venv")
    named = venv(place.home / "named")
    assert [(e.path, e.chosen) for e in place.listed(named, "--python")] == [
        (str(named), True),
        (str(place.project / ".venv/bin/python"), False),
    ]
    (entry,) = place.listed(place.project / ".venv/bin/python", "--python")
    assert entry.chosen and entry.source == "--python"


def test_the_list_is_bounded(place):
    for number in range(40):
        venv(place.project / f"env{number:02}")
    assert len(place.listed()) == MOST_LISTED
    named = venv(place.home / "named")
    assert len(place.listed(named)) == MOST_LISTED and place.listed(named)[0].chosen


def test_a_notebook_kernel_takes_its_own_python(place):
    venv(place.project / ".venv")
    own = choose_python(None, place.environ, place.project, prefer_own=True, root=place.root)
    assert own == Choice(Path(sys.executable), "the Python this runs in")
    named = choose_python(".venv", place.environ, place.project, prefer_own=True, root=place.root)
    assert named is not None and named.explicit


def test_as_a_script_on_another_machine_no_python_is_our_own(place, monkeypatch):
    place.environ["VIRTUAL_ENV"] = sys.prefix
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: None)
    other = venv(place.project / ".venv")
    assert place.chosen().path == other
    monkeypatch.setitem(choose.EMBEDDED, "gpus.json", "{}")
    assert place.chosen().source == "VIRTUAL_ENV"


def test_doubt(place):
    chosen = venv(place.project / ".venv")
    assert doubt(place.listed(chosen), with_torch=False) is None
    other = conda(place.home / "miniforge3/envs/gpu", torch="2.13.0")
    words = doubt(place.listed(chosen), with_torch=False)
    assert words == f"it has no torch, but {other} (conda environment gpu, torch 2.13.0) does"
    # What the child found counts more than the files; who named it does not doubt.
    assert doubt(place.listed(chosen), with_torch=True) is None
    assert doubt(place.listed(chosen, "--python"), with_torch=False) is None


def test_an_active_environment_that_uv_would_not_use_is_a_doubt(place):
    active = venv(place.home / "active", torch="2.9.0")
    venv(place.project / ".venv", torch="2.13.0", cfg="uv = 0.9\n")
    place.environ["VIRTUAL_ENV"] = str(place.home / "active")
    assert doubt(place.listed(active, "VIRTUAL_ENV"), with_torch=True) is None
    put(place.project / "uv.lock")
    words = doubt(place.listed(active, "VIRTUAL_ENV"), with_torch=True)
    assert words is not None and "`uv run` would start" in words and "torch 2.13.0" in words


def test_pipes_and_folders_in_place_of_files_do_not_hang(place):
    os.mkfifo(place.project / ".pdm-python")
    (place.project / ".venv").mkdir()
    os.mkfifo(place.project / ".venv/pyvenv.cfg")
    (place.project / ".python-version").mkdir()
    put(place.project / "environment.yml/x")
    os.mkfifo(put(place.project / ".vscode/x").parent / "settings.json")
    assert place.listed() == []


QUIET = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["argv", "env", "x"]), inner),
    max_leaves=8,
)
words = st.lists(st.sampled_from(["python", "python3", "/bin/python", "env", "", "\0", "C:\\python.exe", "docker"]))


@QUIET
@given(text=st.text() | json_values.map(json.dumps) | words.map(lambda argv: json.dumps({"argv": argv})))
def test_no_kernel_json_breaks_the_reader(tmp_path, text):
    assert all(isinstance(word, str) for word in kernel_argv(text))
    python = kernel_python(text, tmp_path)
    assert python is None or python.is_file()


def test_deeply_nested_json_is_no_kernel():
    assert kernel_argv("[" * 100_000) == []


@QUIET
@given(data=st.binary(max_size=200))
def test_no_pyvenv_cfg_breaks_the_reader(tmp_path, data):
    folder = tmp_path / "env"
    fake_python(folder / "bin/python")
    (folder / "pyvenv.cfg").write_bytes(b"version = 3.11.1\ninclude-system-site-packages = true\nhome = " + data)
    assert all(name == name.lower() for name in pyvenv_cfg(folder))
    facts = describe(folder / "bin/python", {})
    assert facts.folder == folder and facts.torch is None


@QUIET
@given(data=st.binary(max_size=200))
def test_no_environments_txt_breaks_the_reader(tmp_path, data):
    (tmp_path / "environments.txt").write_bytes(data)
    assert all(path.is_absolute() for path in listed_environments(tmp_path / "environments.txt"))


@QUIET
@given(text=st.text() | st.text().map(lambda value: json.dumps({"python.defaultInterpreterPath": value})))
def test_no_settings_json_breaks_the_reader(tmp_path, text):
    python = vscode_python(text, tmp_path, {"HOME": str(tmp_path)})
    assert python is None or python.is_file()
