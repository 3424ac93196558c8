"""Hostile arguments over every tool: no crash, no traceback, no file or child that the caller did not name.

COMPUTE_AWARENESS_FUZZ_CALLS (default 300) is how many calls each way of serving gets, COMPUTE_AWARENESS_FUZZ_SEED
(default 1) where the generator starts.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import HONEST, Generator, nested
from jsonschema import Draft202012Validator
from talking import PACKAGE_ROOT, PATIENCE_S, Talk, environment

from compute_awareness.mcp_server.arguments import hidden_parameters
from compute_awareness.mcp_server.server import tools

CALLS = int(os.environ.get("COMPUTE_AWARENESS_FUZZ_CALLS", "300"))
SEED = int(os.environ.get("COMPUTE_AWARENESS_FUZZ_SEED", "1"))
HIDDEN = tuple(sorted(hidden_parameters()))
WATCHED = str(Path(__file__).with_name("watched.py"))
LONGEST_ERROR, LONGEST_ANSWER = 1_500, 16_000  # characters; a full answer is at most 8 kB, give or take
LONGEST_CHILD_S = 120.0
# What detection looks at, whoever asks: read only, and the same files each time.
DETECTION = ("/proc", "/sys", "/etc/rp_environment", "/etc/environment", "/run/systemd/container", "/dev/nvidia")
# filelock, around the hub's cache, asks of its own process and of the file system it locks on.
LIBRARIES = ("/proc/self/mountinfo", "/proc/self/stat", "/proc/stat", "/proc/sys/kernel/random/boot_id")
CRASHED = ("Traceback (most recent", "Error executing tool", "site-packages", 'File "/', "object at 0x")


class Watched:
    """The log of `watched.py`, read on from where it was left."""

    def __init__(self, log: Path) -> None:
        self._log, self._read = log, 0

    def news(self) -> list[list[Any]]:
        """What happened since."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.decode("utf-8", "replace").splitlines()]


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def check_answer(answer: dict[str, Any], call: Any) -> str:
    """What kind of answer it is; fails for one that shows a crash, floods, or is not one line where it refuses."""
    if "error" in answer:
        kind, said = f"error {answer['error']['code']}", answer["error"]["message"]
        assert answer["error"]["code"] == -32602, (said, short(call))
    else:
        result = answer["result"]
        kind, said = "refused" if result.get("isError") else "answered", result["content"][0]["text"]
    for sign in CRASHED:
        assert sign not in said, (said[:500], short(call))
    if kind == "answered":
        assert len(said) <= LONGEST_ANSWER, (len(said), short(call))
        assert answer["result"]["structuredContent"]["summary"], short(call)
    else:
        assert said and "\n" not in said and len(said) <= LONGEST_ERROR, (said[:500], len(said), short(call))
    return kind


def short(call: Any) -> str:
    return repr(call)[:1500]


def code_folders() -> list[str]:
    """Where the interpreter and what is installed lie."""
    found = {sys.prefix, sys.base_prefix, PACKAGE_ROOT, str(Path(PACKAGE_ROOT).parent / "prompts"), *sys.path}
    return [os.path.realpath(folder) for folder in found if folder]


def is_within(path: str, folders: list[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def named_by(call: Any, project: Path, home: Path) -> list[str]:
    """The files and folders that the texts of a call name, whether they are there or not."""
    found = []
    for text in texts(call):
        if 0 < len(text) < 1000 and "\0" not in text:
            path = str(home) + text[1:] if text.startswith("~/") else os.path.expanduser(text)
            found.append(os.path.realpath(os.path.join(project, path)))
    return found


def in_folder_itself(path: str, named: list[str]) -> bool:
    """A named file, or what is directly in a named folder: nothing is read from further below."""
    real = os.path.realpath(path)
    return real in named or os.path.dirname(real) in named


def check_events(events: list[list[Any]], call: Any, home: Path, detects: bool) -> None:
    """Fails for a file outside what is the server's own or what the caller named, and for a child without a limit."""
    project = home / "project"
    ours = [os.path.realpath(home / name) for name in ("tmp", ".cache")]
    code = code_folders()
    named = named_by(call, project, home) if detects else []
    arguments = list(texts(call))
    for kind, *what in events:
        if kind == "open":
            path, writes = what
            if path == os.devnull or is_within(path, ours):
                continue
            assert not writes, f"{path} was written for {short(call)}"
            if is_within(path, code) or path in LIBRARIES:
                continue
            # What tells a project's Python lies in the folder where the server was started.
            beside = os.path.dirname(os.path.realpath(path)) == os.path.realpath(project)
            assert detects, f"{path} was read by a shared server for {short(call)}"
            assert beside or path.startswith(DETECTION) or in_folder_itself(path, named), (path, short(call))
        elif kind == "child":
            program, argv, limit = what
            asks_prices = isinstance(call[1], dict) and bool(call[1].get("live_prices")) if call else False
            assert detects or (asks_prices and program == sys.executable and argv[1:3] == ["-P", "-c"]), (
                f"{argv} was started by a shared server for {short(call)}"
            )
            assert limit is not None and 0 < limit <= LONGEST_CHILD_S, (argv, limit, short(call))
            given = program == sys.executable or program in arguments or program.startswith(str(home / "bin"))
            assert given or is_within(program, named), (program, short(call))
            if os.path.basename(program) == "ssh":
                _check_ssh(argv, call)
        elif kind == "connect":
            raise AssertionError(f"{what} was connected to for {short(call)}")


def _check_ssh(argv: list[str], call: Any) -> None:
    """No argument of ours is an option by the caller: the host stands after `--`."""
    before = argv[: argv.index("--")]
    assert not any("proxycommand" in part.lower() for part in before), (argv, short(call))
    assert not argv[argv.index("--") + 1].startswith("-"), (argv, short(call))


def make_home(folder: Path) -> Path:
    """A home with secrets in it that nobody names, and an ssh that reaches nothing."""
    environment(folder)
    for secret in (".ssh/config", ".aws/credentials", ".netrc", "project/secret.env", ".bash_history"):
        (folder / secret).parent.mkdir(parents=True, exist_ok=True)
        (folder / secret).write_text("CANARY", encoding="utf-8")
    ssh = folder / "bin" / "ssh"
    ssh.write_text("#!/bin/sh\nexit 255\n", encoding="utf-8")
    ssh.chmod(0o755)
    return folder


def test_calls_are_made_from_the_published_schemas() -> None:
    """Every field of every tool, every value of an enum and every arm of an anyOf comes, and the schema allows each."""
    published = {tool.name: tool.parameters for tool in tools()}
    generator = Generator(published, HIDDEN, SEED)
    for name, schema in published.items():
        validator = Draft202012Validator(schema)
        made = [generator.allowed(schema) for _ in range(1_000)]
        for arguments in made:
            validator.validate(arguments)
        for field, inner in schema["properties"].items():
            values = [arguments[field] for arguments in made if field in arguments]
            assert values, (name, field)
            assert set(inner.get("enum", ())) <= {value for value in values if isinstance(value, str)}, (name, field)
            for arm in inner.get("anyOf", ()):
                assert any(Draft202012Validator(arm).is_valid(value) for value in values), (name, field, arm)
    with pytest.raises(ValueError, match="pattern"):
        generator.allowed({"type": "string", "pattern": "x"})


def test_hostile_arguments_on_standard_input_and_output(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    log = tmp_path / "log"
    talk = Talk(WATCHED, str(log), env=environment(home), cwd=home / "project")
    kinds: Counter[str] = Counter()
    try:
        talk.begin()
        listed = talk.ask("tools/list", {})["result"]["tools"]
        generator = Generator({tool["name"]: tool["inputSchema"] for tool in listed}, HIDDEN, SEED)
        watched = Watched(log)
        check_events(watched.news(), None, home, detects=True)
        for _ in range(CALLS):
            call = generator.call()
            kinds[check_answer(talk.call(*call), call)] += 1
            check_events(watched.news(), call, home, detects=True)
        assert talk.close() == 0
    finally:
        talk.close(0)
    assert kinds["answered"] > CALLS // 20 and kinds["refused"] > CALLS // 20, kinds
    assert b"Traceback" not in talk.said, bytes(talk.said[-3000:]).decode()
    assert not (home / "project" / "pwned").exists()
    print(f"{CALLS} calls from seed {SEED}: {dict(kinds)}")


def test_hostile_arguments_over_http(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, WATCHED, str(log), "serve", "--transport", "http", "--port", str(port)]
    kinds: Counter[str] = Counter()
    with (tmp_path / "stderr").open("wb") as stderr:
        server = subprocess.Popen(command, env=environment(home), cwd=home / "project", stderr=stderr)
        try:
            wait_for(port, server)
            tools = post(port, "tools/list", {})[1]["result"]["tools"]
            generator = Generator({tool["name"]: tool["inputSchema"] for tool in tools}, HIDDEN, SEED + 1)
            watched = Watched(log)
            watched.news()
            for _ in range(CALLS):
                call = generator.call()
                status, answer = post(port, "tools/call", {"name": call[0], "arguments": call[1]})
                kinds[check_answer(answer, call) if status == 200 else str(status)] += 1
                assert status in (200, 400, 413), (status, answer, short(call))
                check_events(watched.news(), call, home, detects=False)
            status, answer = post(port, "tools/call", {"name": "estimate_memory", "arguments": HONEST[0]})
            assert (status, check_answer(answer, HONEST[0])) == (200, "answered")
        finally:
            server.terminate()
            try:
                server.wait(60)
            finally:
                server.kill()
    said = (tmp_path / "stderr").read_bytes()
    assert b"Traceback" not in said, said[-3000:].decode()
    assert kinds["answered"] > CALLS // 20 and kinds["refused"] > CALLS // 20, kinds
    print(f"{CALLS} calls from seed {SEED + 1}: {dict(kinds)}")


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the server listens."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        assert server.poll() is None, "the server did not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


def post(port: int, method: str, params: Any) -> tuple[int, Any]:
    """Status and body; a body that was refused before it was read whole has closed the connection."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {
        "content-type": "application/json", "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/mcp", body, headers)
        response = connection.getresponse()
        said = response.read()
        return response.status, json.loads(said) if response.status == 200 else said.decode()
    except (BrokenPipeError, ConnectionResetError):
        assert len(body) > 256 * 1024
        return 413, None
    finally:
        connection.close()


LINES = {
    "not JSON": "this is no JSON",
    "empty": "",
    "cut off": '{"jsonrpc": "2.0", "id": 7, "method": "tools/ca',
    "a list": "[]",
    "a number": "1e999",
    "a lone surrogate": '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\\ud800","arguments":{}}}',
    "no method": '{"jsonrpc": "2.0", "id": 7}',
    "a method of another type": '{"jsonrpc": "2.0", "id": 7, "method": 5}',
    "an unknown method": '{"jsonrpc": "2.0", "id": 7, "method": "x/y"}',
    "an answer to nothing": '{"jsonrpc": "2.0", "id": "nobody", "result": {}}',
    "an unknown notification": '{"jsonrpc": "2.0", "method": "notifications/x", "params": {"a": 1}}',
    "a cancelled call that is not there": '{"jsonrpc":"2.0","method":"notifications/cancelled","params":'
    '{"requestId":99}}',
    "an id of thousands of digits": '{"jsonrpc": "2.0", "id": ' + "9" * 6000 + ', "method": "ping"}',
    "bytes": "\x00\x01\x7f\u0085\ufffe",
    "too deep": '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":' + "[" * 100_000 + "]" * 100_000 + "}",
    "10 MB": '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"' + "x" * 10_000_000 + '"}}',
    "10 MB of nothing": "x" * 10_000_000,
    "thousands of digits": '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":'
    '"estimate_memory","arguments":{"task":"inference","model":"gpt2","batch_size":' + "9" * 6000 + "}}}",
}  # fmt: skip


def test_a_line_that_is_no_request_ends_nothing(tmp_path: Path) -> None:
    talk = Talk(env=environment(make_home(tmp_path)), cwd=tmp_path)
    try:
        talk.begin()
        for name, line in LINES.items():
            talk.send(line)
            assert talk.ask("ping", {})["result"] == {}, name
        answer = talk.call("estimate_memory", HONEST[0])
        assert check_answer(answer, HONEST[0]) == "answered"
        assert talk.close() == 0
    finally:
        talk.close(0)
    assert b"Traceback" not in talk.said, bytes(talk.said[-3000:]).decode()
    assert len(talk.said) < 100_000, "what a client sends is not repeated on standard error"


@pytest.mark.parametrize("tool", ["estimate_memory", "preflight_experiment", "recommend_compute"])
@pytest.mark.parametrize("field", ["task", "model", "batch_size", "names_filter", "layers", "hook_name"])
def test_ten_megabytes_in_one_argument(tool: str, field: str, talking: Talk) -> None:
    for value in ("x" * 10_000_000, ["x" * 100] * 100_000, nested(100)):
        call = (tool, HONEST[1] | {"gpu": "H100", field: value})
        check_answer(talking.call(*call), call)


FOUND: list[tuple[str, dict[str, Any], str]] = [
    ("explain_oom", {"message": f"CUDA out of memory. Tried to allocate {'9' * 400} GiB"}, ""),
    ("explain_oom", {"message": "DefaultCPUAllocator: not enough memory: you tried to allocate "
      + "9" * 6000 + " bytes"}, "no out-of-memory message"),
    ("estimate_memory", HONEST[1] | {"batch_size": 10**6, "seq_len": 10**6}, "more than 256 TiB"),
    ("estimate_memory", {"task": "x" * 70_000}, "unknown task"),
    ("estimate_memory", HONEST[1] | {"names_filter": ["x"] * 100_000}, "at most 1000 entries"),
    ("estimate_memory", HONEST[7] | {"options": {"d_sae": ["x"] * 10_000}}, "given beside options"),
]  # fmt: skip
"""Calls that once crashed it, took minutes or were answered with what they sent; and what is said of them."""


@pytest.mark.parametrize("at", range(len(FOUND)))
def test_what_was_found_stays_mended(at: int, talking: Talk) -> None:
    tool, arguments, said = FOUND[at]
    answer = talking.call(tool, arguments)
    assert check_answer(answer, arguments) == ("refused" if said else "answered")
    assert said in answer["result"]["content"][0]["text"]


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    home = make_home(tmp_path_factory.mktemp("home"))
    talk = Talk(env=environment(home), cwd=home)
    talk.begin()
    yield talk
    assert talk.close() == 0
    assert b"Traceback" not in talk.said
    shutil.rmtree(home, ignore_errors=True)
