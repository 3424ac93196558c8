"""Another machine over a real sshd on loopback: what works, and every way in which it does not."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_sshd import REQUIRED, Lab, free_port, missing

from compute_awareness.errors import InputError
from compute_awareness.hardware import remote
from compute_awareness.hardware.remote import detect_on

LONG = 60.0  # seconds; far more than any of this takes


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    why = missing()
    if why is not None:
        assert os.environ.get(REQUIRED) != "1", why
        pytest.skip(why)
    made = Lab(tmp_path_factory.mktemp("sshd"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def client(lab: Lab) -> dict[str, str]:
    """The variables of a user whose ssh configuration is the laboratory's."""
    return {**os.environ, remote.CONFIG_VARIABLE: str(lab.config)}


def home(folder: Path) -> str:
    """A line that gives the session a home folder, where a login shell finds its start-up files."""
    folder.mkdir(exist_ok=True)
    return f'SetEnv "HOME={folder}" "PATH={os.environ["PATH"]}"'


def files(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(host: str, client: dict[str, str], **options) -> str:
    begin = time.monotonic()
    with pytest.raises(InputError) as caught:
        detect_on(host, environ=client, **options)
    assert time.monotonic() - begin < LONG
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500 and "Traceback" not in message
    return message


def test_a_host_is_seen_from_there_and_nothing_stays_behind(lab, client, tmp_path):
    there = tmp_path / "home"
    lab.start("box", home(there))
    (there / "json.py").write_text("raise RuntimeError('a file of the user')")
    (there / ".bash_profile").write_text('echo "Welcome to box"; cd "$HOME"; read -r swallowed')
    before = files(there)
    compute = detect_on("box", environ=client)
    assert compute.seen_from == "box" and compute.elsewhere() == "box"
    assert compute.summary.startswith("box, ")
    assert compute.host.ram_total_bytes > 0 and compute.host.hostname == socket.gethostname()
    assert any(layer.id == "ssh_session" for layer in compute.environment.layers)
    assert compute.python is not None and compute.python.version
    assert "own" not in compute.python.source and "installed too" not in compute.python.source
    assert files(there) == before


def test_the_python_named_is_the_one_on_that_host(lab, client):
    lab.start("named")
    compute = detect_on("named", sys.executable, environ=client)
    assert compute.python is not None and compute.python.path == sys.executable
    message = refused("named", client, python="/nowhere/it's $(touch x)/python")
    assert "named answered" in message and "is not found" in message and "$(touch x)" in message


def test_through_a_jump_host(lab, client):
    lab.start("gate", "AllowTcpForwarding yes")
    lab.start("behind", client=("ProxyJump gate",))
    assert detect_on("behind", environ=client).seen_from == "behind"


def test_user_and_port_in_the_host(lab, client):
    port = lab.start("ported")
    import getpass

    with lab.config.open("a") as file:
        lines = ["IdentitiesOnly yes", f"IdentityFile {lab.key('user')}", f"UserKnownHostsFile {lab.known_hosts}"]
        file.write("\n    ".join(["Host 127.0.0.1", *lines]) + "\n")
    host = f"{getpass.getuser()}@127.0.0.1:{port}"
    assert detect_on(host, environ=client).seen_from == host


def test_options_of_the_user_that_would_start_more(lab, client):
    """A RemoteCommand, a LocalCommand, forwards and a shared connection are for sessions, not for a look."""
    # A socket's path is at most 108 bytes long, which a test's own folder may not be.
    with tempfile.TemporaryDirectory() as folder:
        _busy(lab, client, Path(folder))


def _busy(lab, client, folder: Path) -> None:
    lines = (
        "RemoteCommand tmux", "RequestTTY force", "PermitLocalCommand yes", f"LocalCommand touch {folder}/touched",
        f"LocalForward {free_port()} 127.0.0.1:1", "ControlMaster auto", f"ControlPath {folder}/mux-%C",
        "ControlPersist 60",
    )  # fmt: skip
    lab.start("busy", client=lines)
    assert detect_on("busy", environ=client).seen_from == "busy"
    assert list(folder.iterdir()) == []


def test_a_banner_and_a_greeting_are_no_answer(lab, client, tmp_path):
    banner = lab.folder / "banner"
    banner.write_text("<<compute-awareness report>> AUTHORISED USE ONLY\n")
    lab.start("greets", f"Banner {banner}", home(tmp_path / "home"))
    (tmp_path / "home" / ".bash_profile").write_text("echo '<<compute-awareness report>> hello'")
    assert detect_on("greets", environ=client).seen_from == "greets"


def test_a_profile_that_becomes_another_shell(lab, client, tmp_path):
    lab.start("other", home(tmp_path / "home"))
    (tmp_path / "home" / ".bash_profile").write_text("exec cat")
    assert detect_on("other", environ=client).seen_from == "other"


def test_the_wrong_key(lab, client):
    lab.start("closed", client=(f"IdentityFile {lab.key('stranger')}",))
    text = lab.config.read_text()
    alone = lab.folder / "config_stranger"
    block = text[text.index("Host closed") :].replace(f"    IdentityFile {lab.key('user')}\n", "")
    alone.write_text(block)
    message = refused("closed", {**client, remote.CONFIG_VARIABLE: str(alone)})
    assert "does not let you in without a question" in message and "Permission denied" in message


def test_an_unknown_host_key_and_a_changed_one(lab, client):
    lab.start("unknown", known=False)
    before = lab.known_hosts.read_bytes()
    assert "connect once by hand" in (message := refused("unknown", client)) and "not in your known_hosts" in message
    port = lab.start("changed", known=False)
    lab.know(port, "stranger")
    assert "another key than the one in your known_hosts" in refused("changed", client)
    assert lab.known_hosts.read_bytes().startswith(before)


def test_a_host_that_asks_is_never_answered(lab, client, tmp_path):
    """Neither the host nor a jump host, whose ssh is another process, may open a window or a terminal to ask."""
    asked = tmp_path / "asked"
    helper = tmp_path / "askpass"
    helper.write_text(f"#!/bin/sh\ntouch {asked}\necho secret\n")
    helper.chmod(0o755)
    ask = ("AuthenticationMethods password", "PasswordAuthentication yes")
    lab.start("asks", *ask)
    lab.start("last", client=("ProxyJump asks",))
    window = {**client, "DISPLAY": ":0", "SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force"}
    for host in ("asks", "last"):
        assert "Permission denied" in refused(host, window) or host == "last"
    assert not asked.exists()


def test_no_such_host_and_nobody_there(lab, client):
    lab.add("nobody", free_port())
    assert "refused" in refused("nobody", client)
    assert "neither an alias" in refused("no-such-host.invalid", client)


@contextlib.contextmanager
def raw_server(lab: Lab, alias: str, answer: bytes | None) -> Iterator[None]:
    """A port that answers `answer` and closes, or with None takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    if answer is None:
                        held.append(connection)
                    else:
                        with connection:
                            connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        lab.add(alias, server.getsockname()[1])
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in held:
            connection.close()


def test_a_host_that_hangs_before_it_greets(lab, client, monkeypatch):
    monkeypatch.setattr(remote, "CONNECT_LIMIT_S", 1.0)
    with raw_server(lab, "silent", None):
        assert "cannot be reached" in refused("silent", client)


def test_a_host_that_closes(lab, client):
    with raw_server(lab, "shuts", b""):
        assert "closed the connection" in refused("shuts", client)
    with raw_server(lab, "web", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100):
        assert "web" in refused("web", client)


def test_a_host_without_python(lab, client, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "sh").symlink_to("/bin/sh")
    # The folders that the shells of this machine set must not bring one back.
    list_ = remote._PYTHONS
    lab.start("bare", f'ForceCommand PATH={empty}; eval "$SSH_ORIGINAL_COMMAND"', home(tmp_path / "home"))
    (tmp_path / "home" / ".bash_profile").write_text(f"PATH={empty}")
    try:
        remote._PYTHONS = "python3 python"
        message = refused("bare", client)
    finally:
        remote._PYTHONS = list_
    assert "has no Python 3.8 or newer" in message and "detect --script" in message


@pytest.mark.parametrize(
    "command",
    ["echo no shell here", "true", "exit 127", "printf '\\033[2J\\000\\377 garbage'", "cat /bin/sh | head -c 100000"],
)
def test_a_host_that_runs_something_else(lab, client, command):
    alias = f"forced{abs(hash(command))}"
    lab.start(alias, f"ForceCommand {command}")
    assert "its answer holds no report" in refused(alias, client)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("{}", "is missing"),
        ("[1]", "is a JSON object"),
        ("{", "not valid JSON"),
        ('{"error": "cannot\\u001b look"}', "could not look: cannot look"),
        ('{"format": 99}', "format 99"),
    ],
)
def test_a_hostile_report(lab, client, report, words):
    alias = f"lies{abs(hash(report))}"
    text = lab.folder / f"{alias}.txt"
    text.write_text(f"<<compute-awareness report>>{report}<<end of report>>")
    lab.start(alias, f"ForceCommand cat {text}")
    message = refused(alias, client)
    assert "something else than a report" in message and words in message


@pytest.mark.parametrize("where", ["", " >&2"])
def test_a_flood_is_cut(lab, client, where):
    alias = "flood" + ("2" if where else "1")
    lab.start(alias, f"ForceCommand head -c 1000000000 /dev/zero{where}")
    assert "printed more than a report can be" in refused(alias, client)


def test_a_host_that_never_ends(lab, client):
    lab.start("slow", "ForceCommand sleep 600")
    begin = time.monotonic()
    assert "did not answer within 2 s" in refused("slow", client, limit_s=2.0)
    assert time.monotonic() - begin < 20


def ssh_children(alias: str) -> list[str]:
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if f"-- {alias} " in line]


def test_a_look_that_is_no_longer_wanted_ends_its_ssh(lab, client):
    lab.start("endless", "ForceCommand sleep 600")
    stop = threading.Event()
    failures: list[str] = []

    def work() -> None:
        try:
            detect_on("endless", environ=client, stop=stop)
        except InputError as error:
            failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 20
    while not ssh_children("endless") and time.monotonic() < end:
        time.sleep(0.05)
    assert ssh_children("endless")
    stop.set()
    thread.join(20)
    assert failures == ["looking at endless was stopped"] and ssh_children("endless") == []
