"""Another machine, looked at over the user's own OpenSSH: the probe script on standard input, its report back.

The system's `ssh` does the work, so aliases, keys, agents, ProxyJump and shared connections are what the user has
configured. It is started without a shell and without a terminal, and it can ask for nothing: no password, no
passphrase, no unknown host key. On the other side nothing is installed and no file is written.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import InputError
from .compute import Compute
from .probe.child import Finished, run_child
from .probe.examine import summarise
from .reading import compute_in
from .script import BEGIN, probe_script

CONNECT_LIMIT_S = 10.0
TOTAL_LIMIT_S = 55.0
"""Below the 60 s that MCP clients commonly wait for an answer."""
CONFIG_VARIABLE = "COMPUTE_AWARENESS_SSH_CONFIG"
"""Names a file for `ssh -F` in place of ~/.ssh/config."""

_NO_PYTHON = "<<compute-awareness: no python>>"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+/=-]*"
_HOST = re.compile(rf"(?:(?P<user>{_USER})@)?(?P<name>{_NAME})(?::(?P<port>\d+))?")
_BRACKETED = re.compile(rf"(?:(?P<user>{_USER})@)?\[(?P<name>[^\[\]]+)\](?::(?P<port>\d+))?")
_SCOPED = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_LONGEST_HOST = 255
# A path that means the same in every shell without quotes.
_BARE_PATH = re.compile(r"~?[A-Za-z0-9_./+-]+")
_PYTHONS = (
    "python3 python python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 "
    "/usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python"
)


class Target(NamedTuple):
    """Where ssh goes: `destination` as it takes it, and the port where one was given."""

    destination: str
    port: int | None


def parse_host(host: str) -> Target:
    """An alias of the ssh configuration, `user@host`, `host:port`, or an IPv6 address (in brackets with a port).

    Raises:
        InputError: anything else; above all what ssh or a shell could read as more than a name.
    """
    text = host.strip(" ")
    accepted = "accepted: an alias of your ssh configuration, user@host, host:port, or an IPv6 address"
    if not text:
        raise InputError(f"host is empty; {accepted}")
    shown = "".join(c if c.isprintable() else "?" for c in text[:60])
    if len(text) > _LONGEST_HOST:
        raise InputError(f"host {shown!r}... is {len(text)} characters long; {accepted}")
    if text.startswith("-"):
        raise InputError(f"host {shown!r} begins with '-', which ssh would take for an option; {accepted}")
    user, at, rest = text.rpartition("@")
    if _SCOPED.fullmatch(rest) and rest.count(":") > 1:
        if _is_ipv6(rest) and (not at or re.fullmatch(_USER, user)):
            return Target(text, None)
        raise InputError(f"host {shown!r} is not an IPv6 address; {accepted}")
    match = _BRACKETED.fullmatch(text)
    if match is not None and not _is_ipv6(match["name"]):
        match = None
    match = match or _HOST.fullmatch(text)
    if match is None:
        raise InputError(f"host {shown!r} has characters that no host name has; {accepted}")
    port = int(match["port"]) if match["port"] and len(match["port"]) <= 5 else None
    if match["port"] and (port is None or not 1 <= port <= 65535):
        raise InputError(f"host {shown!r}: port {match['port'][:20]} is not between 1 and 65535")
    return Target(f"{match['user']}@{match['name']}" if match["user"] else match["name"], port)


def detect_on(
    host: str,
    python: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    limit_s: float = TOTAL_LIMIT_S,
    stop: threading.Event | None = None,
) -> Compute:
    """What compute there is on `host`, looked at from there. `seen_from` is the host as given, whatever it says.

    Args:
        host: as `parse_host` takes it.
        python: the experiment's Python on that host; None = found there by the usual signs.
        environ: the variables ssh is started with; None = this process's own.
        limit_s: seconds for everything together; connecting may take `CONNECT_LIMIT_S` of them.
        stop: once set by another thread, ssh is ended at once.
    Raises:
        InputError: a bad host or Python; no ssh here; it cannot be reached or logged in to without a question; it has
            no Python, does not answer in time, or answers something else than a report.
    """
    target = parse_host(host)
    if python is not None and (not python.strip() or len(python) > 4096 or not python.isprintable()):
        raise InputError("the path to Python is empty or not a path; give that on the host, e.g. ~/venv/bin/python")
    variables = _variables(os.environ if environ is None else environ)
    script = probe_script(python).encode()
    deadline = time.monotonic() + limit_s
    began = ""
    name = host.strip()
    for command in _commands(python):
        left = deadline - time.monotonic()
        if left <= 0:
            raise InputError(f"{name} did not answer within {limit_s:g} s")
        try:
            done = run_child(_ssh(target, command, variables), variables, left, stdin=script, stop=stop)
        except OSError as error:
            raise InputError(f"ssh cannot be started: {error.strerror or error}") from None
        if stop is not None and stop.is_set():
            raise InputError(f"looking at {name} was stopped")
        if BEGIN in done.out:
            return _read(done.out, name)
        _complain(done, name, limit_s)
        began = began or "".join(c if c.isprintable() else " " for c in " ".join(done.out[:200].split()))[:60]
    said = f"it began with {began!r}" if began else "it printed nothing"
    raise InputError(f"{name} was reached, but its answer holds no report ({said}); {_BY_HAND}")


_BY_HAND = "the script of `compute-awareness detect --script` can be run there by hand"


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would let ssh, or the ssh of a jump host, open a window to ask for a password."""
    asking = ("DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE")
    return {name: value for name, value in environ.items() if name not in asking} | {"SSH_ASKPASS_REQUIRE": "never"}


def _ssh(target: Target, command: str, environ: Mapping[str, str]) -> list[str]:
    program = shutil.which("ssh", path=environ.get("PATH", os.defpath))
    if program is None:
        raise InputError("no `ssh` program on PATH: install OpenSSH's client (apt-get install openssh-client)")
    # What the user configured stands (keys, jumps, host key checks). These only keep it from asking, from opening
    # what a look does not need, and from leaving a shared connection behind; one that is there already is used.
    options = [
        "BatchMode=yes", f"ConnectTimeout={CONNECT_LIMIT_S:g}", "ConnectionAttempts=1", "ServerAliveInterval=5",
        "ServerAliveCountMax=3", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none",
        "ControlMaster=no", "UpdateHostKeys=no", "LogLevel=ERROR",
    ]  # fmt: skip
    config = environ.get(CONFIG_VARIABLE)
    return [
        program, *(("-F", config) if config else ()), "-T", "-x", "-a",
        *(part for option in options for part in ("-o", option)),
        *(("-p", str(target.port)) if target.port else ()), "--", target.destination, command,
    ]  # fmt: skip


def _commands(python: str | None) -> list[str]:
    """What to ask the other side's shell for, the next one where the one before brought nothing.

    First a login shell, since clusters and conda set PATH there; its start-up files cannot read the script, which
    waits on descriptor 3. Then one without them, where they end in something else (`exec zsh`). Then what needs no
    POSIX shell, for Windows. The words are the same to sh, fish, csh: no line end, `!` or single quote inside.
    """
    named = f" {python.strip()}" if python and _BARE_PATH.fullmatch(python.strip()) else ""
    find = (
        f"for p in {_PYTHONS}{named}; do "
        'if command -v "$p" >/dev/null 2>&1 && '
        '"$p" -c "import sys; sys.exit(sys.version_info < (3, 8))" </dev/null >/dev/null 2>&1; '
        'then exec "$p" -B - <&3; fi; done; '
        f'echo "{_NO_PYTHON}"'
    )
    login = "command -v bash >/dev/null 2>&1 && exec bash -lc"
    return [
        f"exec sh -c '{login} \"$0\" 3<&0 </dev/null; exec sh -c \"$0\" 3<&0 </dev/null' '{find}'",
        f"exec sh -c 'exec sh -c \"$0\" 3<&0 </dev/null' '{find}'",
        "python3 -B -",
        "python -B -",
    ]


def _read(out: str, name: str) -> Compute:
    try:
        # The host as the user knows it; never a word of the other side's own.
        compute = compute_in(out, name)
    except InputError as error:
        raise InputError(f"{name} answered with something else than a report: {error}") from None
    words = summarise(compute.host, compute.environment, compute.accelerators, compute.python)
    compute.summary = f"{name}, {words}"
    return compute


def _complain(done: Finished, name: str, limit_s: float) -> None:
    """Raises InputError for an answer that no other command would better."""
    if done.flooded:
        raise InputError(f"{name} printed more than a report can be (over 1 MiB), and was left")
    said = _last_line(done.err)
    if done.timed_out:
        raise InputError(f"{name} did not answer within {limit_s:g} s" + (f" ({said})" if said else ""))
    if _NO_PYTHON in done.out:
        raise InputError(
            f"{name} has no Python 3.8 or newer that its shell finds (python3, python, /opt/conda/bin/python ...); "
            f"name one on that host with python (--python); {_BY_HAND}"
        )
    if done.code == 255:
        raise InputError(_why(done.err, name, said))


_REASONS = (
    (
        "host identification has changed",
        "shows another key than the one in your known_hosts: it was set up anew, or somebody is in between; "
        "connect once by hand and see",
    ),
    (
        "host key verification failed",
        "is not in your known_hosts, and nobody can be asked here: connect once by hand, compare the key, accept it",
    ),
    (
        "permission denied",
        "does not let you in without a question: load the key into ssh-agent, or open a shared connection by hand "
        "(ControlMaster)",
    ),
    ("could not resolve hostname", "is neither an alias of your ssh configuration nor a name that is known here"),
    ("connection refused", "takes no ssh connection there (refused)"),
    ("timed out", f"cannot be reached: no answer within {CONNECT_LIMIT_S:g} s"),
    ("connection closed", "closed the connection"),
    ("connection reset", "closed the connection"),
)


def _why(err: str, name: str, said: str) -> str:
    """ssh's own failure in words, with its last line."""
    low = err.lower()
    for sign, words in _REASONS:
        if sign in low:
            return f"{name} {words} (ssh: {said})"
    return f"{name}: ssh ended without an answer" + (f" (ssh: {said})" if said else "")


def _last_line(err: str) -> str:
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in err.splitlines()]
    return next((line[:200] for line in reversed(lines) if line), "")


def _is_ipv6(text: str) -> bool:
    try:
        return _SCOPED.fullmatch(text) is not None and ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
