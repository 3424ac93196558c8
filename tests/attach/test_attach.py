"""The server is added to the files of the real hosts, and nothing in them is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from compute_awareness.attach import change as changes
from compute_awareness.attach.change import apply, planned
from compute_awareness.attach.hosts import HOSTS, Scope, Surroundings, find_host
from compute_awareness.attach.launch import command_for
from compute_awareness.cli import run
from compute_awareness.errors import InputError

EVERYWHERE = [(host.id, scope) for host in HOSTS.values() for scope in host.places]


def at(home: Path, platform: str = "linux", **environ: str) -> Surroundings:
    return Surroundings(home, home / "project", environ, platform)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with a project in which the process stands."""
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "project" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.mark.parametrize(("host", "scope"), EVERYWHERE)
def test_in_and_out_again(home: Path, host: str, scope: Scope, capsys: pytest.CaptureFixture[str]) -> None:
    path = planned(find_host(host), scope, None).path
    assert run(["install", host, "--scope", scope]) == 0
    assert str(path) in capsys.readouterr().out
    text = path.read_text()
    held = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    for key in find_host(host).places[scope].section(Surroundings.here()):
        held = held[key]
    command, arguments = held["compute-awareness"]["command"], held["compute-awareness"]["args"]
    assert (command, arguments) == command_for(scope)
    assert run(["install", host, "--scope", scope]) == 0
    assert "has it already" in capsys.readouterr().out
    assert path.read_text() == text and not list(path.parent.glob("*.bak"))
    assert run(["uninstall", host, "--scope", scope]) == 0
    assert "compute-awareness" not in path.read_text()
    [kept] = path.parent.glob(f"{path.name}.*.bak")
    assert kept.read_text() == text
    assert run(["uninstall", host, "--scope", scope]) == 0
    assert "does not have it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "platform", "environ", "path"),
    [
        ("claude-desktop", "darwin", {}, "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", {}, ".config/Claude/claude_desktop_config.json"),
        ("vscode", "darwin", {}, "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", {}, "AppData/Roaming/Code/User/mcp.json"),
        ("zed", "darwin", {}, ".config/zed/settings.json"),
        ("zed", "win32", {}, "AppData/Roaming/Zed/settings.json"),
        ("cursor", "win32", {}, ".cursor/mcp.json"),
        ("codex", "darwin", {}, ".codex/config.toml"),
        ("gemini", "win32", {}, ".gemini/settings.json"),
        ("claude-code", "win32", {}, ".claude.json"),
    ],
)
def test_each_system_has_its_own_folder(
    tmp_path: Path, host: str, platform: str, environ: dict[str, str], path: str
) -> None:
    assert planned(find_host(host), "user", None, at(tmp_path, platform, **environ)).path == tmp_path / path


@pytest.mark.parametrize(
    ("host", "variable", "file"),
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("vscode", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
        ("zed", "XDG_CONFIG_HOME", "zed/settings.json"),
    ],
)
def test_variables_move_the_folder(tmp_path: Path, host: str, variable: str, file: str) -> None:
    there = tmp_path / "there"
    assert planned(find_host(host), "user", None, at(tmp_path, **{variable: str(there)})).path == there / file


def test_windows_roaming_folder(tmp_path: Path) -> None:
    found = planned(find_host("claude-desktop"), "user", None, at(tmp_path, "win32", APPDATA=str(tmp_path / "R")))
    assert found.path == tmp_path / "R" / "Claude" / "claude_desktop_config.json"


def test_the_readme_has_the_same_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- hosts:start -->\n")[1].split("<!-- hosts:end -->")[0].splitlines()[2:]
    home = Path("/home/someone")
    rows = [
        f"| `{host.id}` | {', '.join(host.places)} | "
        f"`~/{host.places['user'].file(at(home)).relative_to(home).as_posix()}` |"
        for host in HOSTS.values()
    ]
    assert shown == rows


def test_what_the_user_set_in_our_entry_stays(home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    entry = {"command": "old", "args": ["x"], "env": {"HF_HOME": "/data"}, "disabled": True}
    file.write_text(json.dumps({"mcpServers": {"compute-awareness": entry, "other": {"command": "o"}}}))
    apply(planned(find_host("cursor"), "user", {"command": "new", "args": []}))
    assert json.loads(file.read_text())["mcpServers"] == {
        "compute-awareness": {"command": "new", "args": [], "env": {"HF_HOME": "/data"}, "disabled": True},
        "other": {"command": "o"},
    }


def test_comments_of_toml_stay(home: Path) -> None:
    file = home / ".codex" / "config.toml"
    file.parent.mkdir()
    text = (
        '# mine\nmodel = "m" # best\n\n[mcp_servers.other]\ncommand = "o"\n\n[projects."/x"]\ntrust_level = "trusted"\n'
    )
    file.write_text(text)
    assert run(["install", "codex"]) == 0
    assert all(line in file.read_text().splitlines() for line in text.splitlines())
    assert tomllib.loads(file.read_text())["mcp_servers"]["other"] == {"command": "o"}
    assert run(["uninstall", "codex"]) == 0
    assert tomllib.loads(file.read_text()) == tomllib.loads(text)
    assert file.read_text().startswith("# mine\n")


def test_a_dry_run_changes_nothing_and_shows_no_neighbour(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    text = json.dumps({"mcpServers": {"other": {"env": {"TOKEN": "s3cret"}}}, "last": 1}, indent=2)
    file.write_text(text)
    assert run(["install", "cursor", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert '+    "compute-awareness": {' in shown and "s3cret" not in shown
    assert file.read_text() == text and [p.name for p in file.parent.iterdir()] == ["mcp.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"mcpServers": {', "found the end"),
        (b'{"mcpServers": []}', "mcpServers is not an object there"),
        (b'{"mcpServers": {"compute-awareness": 1}}', "mcpServers.compute-awareness is not an object there"),
        (b"[1]", "does not hold an object"),
        (b"\xff\xfe{}", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_understood_is_left(
    home: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_bytes(content)
    assert run(["install", "cursor"]) == 2
    error = capsys.readouterr().err
    assert "is left as it is" in error and said in error
    assert file.read_bytes() == content


def test_a_file_that_the_host_writes_meanwhile_is_left(home: Path) -> None:
    file = home / ".claude.json"
    file.write_text("{}\n")
    change = planned(find_host("claude-code"), "user", {"command": "c", "args": []})
    file.write_text('{"history": [1]}\n')
    with pytest.raises(InputError, match="changed by another program meanwhile"):
        apply(change)
    assert file.read_text() == '{"history": [1]}\n'


def test_a_link_stays_a_link_and_permissions_stay(home: Path) -> None:
    real = home / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o640)
    (home / ".cursor").mkdir()
    link = home / ".cursor" / "mcp.json"
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("this system makes no links for this user")
    assert run(["install", "cursor"]) == 0
    assert link.is_symlink() and "compute-awareness" in real.read_text()
    if os.name == "posix":
        assert real.stat().st_mode & 0o777 == 0o640


def test_a_failure_while_writing_leaves_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"a": 1}')

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        apply(planned(find_host("cursor"), "user", {"command": "c", "args": []}))
    assert file.read_text() == '{"a": 1}'
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]


def test_bad_names_get_the_nearest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["install", "curser"]) == 2
    assert "did you mean 'cursor'?" in capsys.readouterr().err
    assert run(["install", "zed", "--scope", "project"]) == 2
    assert "Zed has no scope 'project': accepted are user" in capsys.readouterr().err
    assert find_host("Claude Code").id == "claude-code"


def test_a_cached_copy_is_not_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cached = tmp_path / "uv" / "archive-v0" / "abc" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(cached))
    assert command_for("user")[1] == ["compute-awareness"]
    with pytest.raises(InputError, match="uv tool install"):
        command_for("user", "this")


def test_a_project_file_has_no_path_of_this_machine() -> None:
    assert command_for("project") == ("uvx", ["compute-awareness"])


def test_the_entry_starts_the_server() -> None:
    command, arguments = command_for("user", "this")
    shown = subprocess.run([command, *arguments, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip()


def test_an_unreadable_size_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_LARGEST", 10)
    (home / ".claude.json").write_text('{"a": "long enough"}')
    with pytest.raises(InputError, match="which no settings file is"):
        planned(find_host("claude-code"), "user", None)


@pytest.mark.skipif(shutil.which("claude") is None, reason="Claude Code is not installed")
@pytest.mark.parametrize("scope", ["user", "local"])
def test_claude_code_connects(home: Path, scope: str) -> None:
    assert run(["install", "claude-code", "--scope", scope, "--launch", "this"]) == 0
    shown = subprocess.run(
        ["claude", "mcp", "get", "compute-awareness"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Connected" in shown.stdout, shown.stdout + shown.stderr


@pytest.mark.skipif(shutil.which("codex") is None, reason="Codex is not installed")
def test_codex_reads_the_entry(home: Path) -> None:
    assert run(["install", "codex"]) == 0
    shown = subprocess.run(
        ["codex", "mcp", "get", "compute-awareness", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert json.loads(shown.stdout)["transport"]["command"] == command_for("user")[0], shown.stderr


@pytest.mark.skipif(shutil.which("gemini") is None, reason="Gemini CLI is not installed")
@pytest.mark.parametrize("scope", ["user", "project"])
def test_gemini_connects(home: Path, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that the user trusts; in any other it lists the server as disabled."""
    monkeypatch.setenv("GEMINI_CLI_TRUST_WORKSPACE", "true")
    assert run(["install", "gemini", "--scope", scope, "--launch", "this"]) == 0
    shown = subprocess.run(
        ["gemini", "mcp", "list"], stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
        timeout=120, check=False,
    )  # fmt: skip
    assert re.search(r"compute-awareness: .* Connected", shown.stderr + shown.stdout), shown.stderr + shown.stdout
