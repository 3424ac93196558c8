"""The assistants: which file each reads, for whom, and what an entry for a server looks like in it.

Sources: `claude mcp add`, `codex mcp add`, `gemini mcp add` (what they write, versions 2.1, 0.171, 0.61), and the
vendors' pages on MCP for the others (November 2026).
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError

NAME = "compute-awareness"
Scope = Literal["user", "project", "local"]
SCOPES: tuple[Scope, ...] = ("user", "project", "local")


@dataclass(frozen=True)
class Surroundings:
    """What the paths follow from: the home folder, the project, the variables, the system."""

    home: Path
    project: Path
    environ: Mapping[str, str]
    platform: str

    @staticmethod
    def here() -> Surroundings:
        return Surroundings(Path.home(), _project(Path.cwd()), os.environ, sys.platform)

    def app_folder(self, name: str) -> Path:
        """Where a desktop program of that name keeps its settings."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support" / name
        if self.platform == "win32":
            return Path(self.environ.get("APPDATA") or self.home / "AppData" / "Roaming") / name
        return Path(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config") / name


@dataclass(frozen=True)
class Place:
    """A file, and where in it the servers are listed."""

    file: Callable[[Surroundings], Path]
    section: Callable[[Surroundings], tuple[str, ...]]


@dataclass(frozen=True)
class Host:
    """An assistant. `extra` is what its entry holds beside command and arguments; `then` what is left to do."""

    id: str
    title: str
    places: dict[Scope, Place]
    extra: dict[str, Any]
    then: str
    format: Literal["json", "toml"] = "json"

    def entry(self, command: str, arguments: list[str]) -> dict[str, Any]:
        """The entry of a server that is started with `command arguments…`."""
        typed = {"type": "stdio"} if self.extra.get("type") else {}
        rest = {key: value for key, value in self.extra.items() if key != "type"}
        return typed | {"command": command, "args": arguments} | rest


def find_host(name: str) -> Host:
    """The host of that id or title, in any case.

    Raises:
        InputError: there is none; with the nearest.
    """
    wanted = name.strip().lower().replace(" ", "-").replace("_", "-")
    if wanted in HOSTS:
        return HOSTS[wanted]
    near = difflib.get_close_matches(wanted, HOSTS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown assistant {name!r}: accepted are {', '.join(HOSTS)}{hint}")


def place_in_settings(host: Host, scope: Scope) -> Place:
    """Where a host keeps the servers of a scope.

    Raises:
        InputError: it has no such scope.
    """
    if scope not in host.places:
        raise InputError(f"{host.title} has no scope {scope!r}: accepted are {', '.join(host.places)}")
    return host.places[scope]


def _project(cwd: Path) -> Path:
    """The folder of the repository that `cwd` is in, else `cwd`."""
    return next((folder for folder in (cwd, *cwd.parents) if (folder / ".git").exists()), cwd)


def _servers(*path: str) -> Callable[[Surroundings], tuple[str, ...]]:
    return lambda _: path


def _claude_file(at: Surroundings) -> Path:
    return Path(at.environ.get("CLAUDE_CONFIG_DIR") or at.home) / ".claude.json"


def _codex_file(at: Surroundings) -> Path:
    return Path(at.environ.get("CODEX_HOME") or at.home / ".codex") / "config.toml"


def _zed_file(at: Surroundings) -> Path:
    # Zed keeps its settings in ~/.config on macOS, too.
    folder = at.app_folder("Zed") if at.platform == "win32" else at.home / ".config" / "zed"
    if at.platform == "linux" and at.environ.get("XDG_CONFIG_HOME"):
        folder = Path(at.environ["XDG_CONFIG_HOME"]) / "zed"
    return folder / "settings.json"


_MCP_SERVERS = _servers("mcpServers")

_ALL = (
    Host(
        "claude-code",
        "Claude Code",
        {
            "user": Place(_claude_file, _MCP_SERVERS),
            "project": Place(lambda at: at.project / ".mcp.json", _MCP_SERVERS),
            "local": Place(_claude_file, lambda at: ("projects", at.project.as_posix(), "mcpServers")),
        },
        {"type": "stdio"},
        "Start a new session; `claude mcp get compute-awareness` shows whether it is connected. A project's servers "
        "wait for your approval once.",
    ),
    Host(
        "claude-desktop",
        "Claude Desktop",
        {"user": Place(lambda at: at.app_folder("Claude") / "claude_desktop_config.json", _MCP_SERVERS)},
        {},
        "Quit Claude Desktop wholly and start it again.",
    ),
    Host(
        "cursor",
        "Cursor",
        {
            "user": Place(lambda at: at.home / ".cursor" / "mcp.json", _MCP_SERVERS),
            "project": Place(lambda at: at.project / ".cursor" / "mcp.json", _MCP_SERVERS),
        },
        {},
        "Turn the server on in Cursor's settings, under MCP, where it is not on already.",
    ),
    Host(
        "vscode",
        "VS Code",
        {
            "user": Place(lambda at: at.app_folder("Code") / "User" / "mcp.json", _servers("servers")),
            "project": Place(lambda at: at.project / ".vscode" / "mcp.json", _servers("servers")),
        },
        {"type": "stdio"},
        "Run 'MCP: List Servers' from the command palette and start it.",
    ),
    Host(
        "codex",
        "Codex",
        {
            "user": Place(_codex_file, _servers("mcp_servers")),
            "project": Place(lambda at: at.project / ".codex" / "config.toml", _servers("mcp_servers")),
        },
        # Its own limits are 10 s for the start, which a first uvx can pass, and 60 s for a call, as here.
        {"startup_timeout_sec": 60, "tool_timeout_sec": 60},
        "Start a new session; `codex mcp get compute-awareness` shows the entry. A project's file counts where the "
        "project is trusted.",
        "toml",
    ),
    Host(
        "gemini",
        "Gemini CLI",
        {
            "user": Place(lambda at: at.home / ".gemini" / "settings.json", _MCP_SERVERS),
            "project": Place(lambda at: at.project / ".gemini" / "settings.json", _MCP_SERVERS),
        },
        {},
        "Start a new session in a trusted folder; `/mcp` lists the server.",
    ),
    Host(
        "zed",
        "Zed",
        {"user": Place(_zed_file, _servers("context_servers"))},
        {},
        "The agent panel's settings list the server; Zed takes up the change at once.",
    ),
)

HOSTS: dict[str, Host] = {host.id: host for host in _ALL}
"""By id, in the order in which help lists them."""
