"""A shared server over HTTP: who may call, within which limits, and that it never looks at its own machine."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import jwt
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp import Client, MCPError
from mcp.types import ElicitResult, InputRequiredResult
from served import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from compute_awareness.cli import run
from compute_awareness.errors import InputError
from compute_awareness.hardware import detect as detect_module
from compute_awareness.mcp_server.http.app import build_app
from compute_awareness.mcp_server.http.limits import Limits
from compute_awareness.mcp_server.http.options import HttpOptions, read_state_keys
from compute_awareness.mcp_server.http.tokens import new_token
from compute_awareness.preflight import preflight
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.anyio

SMALL = {"task": "inference", "model": "gpt2", "seq_len": 128}
LARGE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
PACKAGE_ROOT = str(Path(__file__).resolve().parents[2] / "server")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with served(build_app(HttpOptions())) as address:
        yield address


def post(site: str, body: Any = None, *, tool: str = "", arguments: Any = None, **headers: str) -> httpx2.Response:
    """One request as a client of 2025-11-25 sends it, to a server without sessions."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments or {}}}
    sent = body if isinstance(body, bytes) else json.dumps(body or call).encode()
    base = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(f"{site}/mcp", content=sent, headers=base | given, timeout=60)


def error_of(site: str, tool: str, **arguments: Any) -> str:
    """The one line with which a call is refused."""
    answer = post(site, tool=tool, arguments=arguments)
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert result["isError"], result
    return result["content"][0]["text"]


async def test_both_eras_are_answered(site: str, mode: str) -> None:
    async with Client(f"{site}/mcp", mode=mode) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool("estimate_memory", SMALL)
    assert "preflight_experiment" in tools and "detect_compute" not in tools
    assert not result.is_error and result.structured_content
    assert "GiB" in result.structured_content["summary"]


async def test_its_own_hardware_is_never_the_users(
    site: str, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def looked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the server looked at its own machine")

    monkeypatch.setattr(detect_module, "detect", looked)
    monkeypatch.setattr(detect_module, "detect_at", looked)
    async with Client(f"{site}/mcp", mode=mode) as client:
        unsaid = await client.call_tool("preflight_experiment", LARGE)
        named = await client.call_tool("preflight_experiment", LARGE | {"gpu": "RTX 4090"})
        await client.call_tool("recommend_compute", LARGE)
        with pytest.raises(MCPError, match="unknown tool 'detect_compute'"):
            await client.call_tool("detect_compute", {})
    assert unsaid.structured_content and named.structured_content
    assert unsaid.structured_content["verdict"]["status"] == "unknown"
    assert unsaid.structured_content["asking"]["decision"] == "ask"
    assert named.structured_content["verdict"]["status"] == "does_not_fit"


@pytest.mark.parametrize("tool", ["preflight_experiment", "estimate_memory", "recommend_compute", "explain_oom"])
def test_files_hosts_and_pythons_are_refused(site: str, tool: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gpt2"}')
    for path in (str(config), str(tmp_path), "./config.json", "~/x", "..", "C:\\x", "sub/config.json"):
        arguments: dict[str, Any] = SMALL | {"model": path}
        if tool == "explain_oom":
            arguments = {"message": "CUDA out of memory. Tried to allocate 2.25 GiB", "workload": arguments}
        assert "this server is shared and reads no files" in error_of(site, tool, **arguments), path
    if tool in ("preflight_experiment", "recommend_compute"):
        assert "host: this server is shared" in error_of(site, tool, **SMALL, host="gpu-box")
        assert "'none' needs the machine's RAM" in error_of(site, tool, **SMALL, gpu="none")
    if tool in ("preflight_experiment", "estimate_memory"):
        assert "python: this server is shared" in error_of(site, tool, **SMALL, python=sys.executable)
    if tool != "explain_oom":
        assert "a shared server has not" in error_of(site, tool, **SMALL, options={"method": "trace"})


def test_a_script_is_read_as_text_only(site: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "reads no files" in error_of(site, "preflight_script", path=__file__)
    script = "from transformers import AutoModelForCausalLM\nm = AutoModelForCausalLM.from_pretrained({!r})\n"
    for model, known in (("gpt2", True), (str(tmp_path), False)):
        answer = post(site, tool="preflight_script", arguments={"text": script.format(model), "gpu": "T4"}).json()
        assert not answer["result"]["isError"], answer
        assert ("gpt2" in json.dumps(answer["result"])) is known


def test_a_report_made_elsewhere_is_what_counts(site: str) -> None:
    here = detect_module.detect(None).plain()
    here["accelerators"] = []
    answer = post(site, tool="preflight_experiment", arguments=SMALL | {"compute": here, "gpu": "none"})
    result = answer.json()["result"]
    assert not result["isError"], result
    assert result["structuredContent"]["verdict"]["status"] in ("fits", "tight", "does_not_fit")


def test_an_operator_may_turn_looking_on() -> None:
    with served(build_app(HttpOptions(detect_here=True))) as site:
        result = post(site, tool="detect_compute").json()["result"]
        assert not result["isError"] and "where the server runs" in json.dumps(result)
        assert "host: this server is shared" in error_of(site, "detect_compute", host="box")


def test_the_same_figures_as_at_home(site: str) -> None:
    result = post(site, tool="preflight_experiment", arguments=LARGE | {"gpu": "H100", "detail": "full"}).json()
    ours = preflight(parse_workload(LARGE), gpu="H100")
    assert result["result"]["structuredContent"]["estimate"]["peak"] == ours.estimate.peak.model_dump()


def test_host_origin_size_and_path(site: str) -> None:
    assert httpx2.get(f"{site}/healthz").json()["ok"] is True
    assert post(site, tool="explain_oom", host="evil.example.org").status_code == 421
    assert post(site, tool="explain_oom", origin="https://evil.example.org").status_code == 403
    assert post(site, b"x" * (257 * 1024)).status_code == 413
    assert post(site, b"not json").status_code == 400
    assert httpx2.get(f"{site}/etc/passwd").status_code == 404


def test_allowed_hosts_and_origins() -> None:
    options = HttpOptions(allowed_hosts=["mcp.example.org"], allowed_origins=["https://app.example.org"])
    with served(build_app(options)) as site:
        assert post(site, tool="estimate_memory", arguments=SMALL, host="mcp.example.org").status_code == 200
        assert post(site, tool="estimate_memory", arguments=SMALL, host="mcp.example.org:8443").status_code == 200
        assert post(site, tool="estimate_memory", arguments=SMALL, origin="https://app.example.org").status_code == 200
        assert post(site, tool="estimate_memory", arguments=SMALL, host="mcp.example.org.evil").status_code == 421


def test_tokens_of_a_file(tmp_path: Path) -> None:
    anna, anna_line = new_token("anna")
    ben, ben_line = new_token("ben", datetime.date(2020, 1, 1))
    file = tmp_path / "tokens"
    file.write_text(f"# who may call\n{anna_line}\n{ben_line}\n")
    with served(build_app(HttpOptions(tokens=str(file)))) as site:

        def status(token: str | None) -> int:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            return post(site, tool="estimate_memory", arguments=SMALL, **headers).status_code

        assert status(anna) == 200
        refused = post(site, tool="estimate_memory", arguments=SMALL)
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer ")
        assert [status(token) for token in (ben, "ca_wrong", anna + "x", anna.upper())] == [401] * 4
        assert httpx2.get(f"{site}/healthz").status_code == 200
        assert httpx2.get(f"{site}/mcp").status_code == 401
        file.write_text(f"{anna_line} broken broken\n")
        assert status(anna) == 401, "a file that cannot be read lets nobody in"
        carl, carl_line = new_token("carl")
        file.write_text(carl_line + "\n")
        assert (status(anna), status(carl)) == (401, 200)


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "anna", "--expires", "2099-12-31"]) == 0
    shown = capsys.readouterr()
    secret = shown.err.split()[-1]
    assert secret.startswith("ca_") and secret not in shown.out
    (tmp_path / "t").write_text(shown.out)
    with served(build_app(HttpOptions(tokens=str(tmp_path / "t")))) as site:
        bearer = {"authorization": f"Bearer {secret}"}
        assert post(site, tool="estimate_memory", arguments=SMALL, **bearer).status_code == 200
    assert run(["token", "two words"]) == 2
    assert run(["token", "anna", "--expires", "tomorrow"]) == 2


class Issuer:
    """An OAuth issuer on this machine: metadata and keys; it signs what it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.keys = {"k1": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.fetched = 0
        self.openid = False
        routes = [
            Route("/.well-known/oauth-authorization-server", self._metadata),
            Route("/.well-known/openid-configuration", self._metadata),
            Route("/jwks", self._jwks),
        ]
        self.app = Starlette(routes=routes)

    async def _metadata(self, request: Request) -> JSONResponse:
        if self.openid and "oauth" in request.url.path:
            return JSONResponse({}, status_code=404)
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

    async def _jwks(self, _: Request) -> JSONResponse:
        self.fetched += 1
        public = [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return JSONResponse({"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0"}, *public]})

    def token(self, kid: str = "k1", algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        now = int(time.time())
        full = {"iss": self.url, "aud": "compute", "sub": "anna", "iat": now, "exp": now + 600} | claims
        full = {name: value for name, value in full.items() if value is not None}
        return jwt.encode(full, key or self.keys.get(kid), algorithm, headers={"kid": kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    with served(made.app) as made.url:
        yield made


def test_tokens_of_an_issuer(issuer: Issuer) -> None:
    options = HttpOptions(issuer=issuer.url, audience="compute", public_url="https://mcp.example.org/mcp")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with served(build_app(options)) as site:

        def status(token: str) -> int:
            bearer = {"authorization": f"Bearer {token}"}
            return post(site, tool="estimate_memory", arguments=SMALL, **bearer).status_code

        assert status(issuer.token()) == 200
        assert status(issuer.token(aud=["other", "compute"])) == 200
        past = int(time.time()) - 3600
        for bad in (
            issuer.token(aud="someone-else"),
            issuer.token(aud=None),
            issuer.token(iss="https://evil.example.org"),
            issuer.token(exp=past),
            issuer.token(exp=None),
            issuer.token(nbf=int(time.time()) + 3600),
            issuer.token(key=other),
            issuer.token(kid="unknown", key=other),
            issuer.token(kid="s", algorithm="HS256", key="secret" * 8),
            jwt.encode({"iss": issuer.url, "aud": "compute", "exp": past + 7200}, None, "none", headers={"kid": "k1"}),
            "not.a.jwt",
        ):
            assert status(bad) == 401, bad
        refused = post(site, tool="estimate_memory", arguments=SMALL)
        assert refused.status_code == 401
        assert (
            'resource_metadata="https://mcp.example.org/.well-known/oauth-protected-resource/mcp"'
            in (refused.headers["www-authenticate"])
        )
        metadata = httpx2.get(f"{site}/.well-known/oauth-protected-resource/mcp").json()
        assert metadata["resource"] == "https://mcp.example.org/mcp"
        assert [url.rstrip("/") for url in metadata["authorization_servers"]] == [issuer.url]
        assert issuer.fetched == 1, "names of keys that are nobody's are not looked up again and again"


def test_an_issuer_that_only_speaks_openid_and_one_that_is_away(issuer: Issuer) -> None:
    issuer.openid = True
    options = HttpOptions(issuer=issuer.url, audience="compute", public_url="https://mcp.example.org/mcp")
    with served(build_app(options)) as site:
        bearer = {"authorization": f"Bearer {issuer.token()}"}
        assert post(site, tool="estimate_memory", arguments=SMALL, **bearer).status_code == 200
    away = HttpOptions(issuer="http://127.0.0.1:9", audience="compute", public_url="https://mcp.example.org/mcp")
    with served(build_app(away)) as site:
        bearer = {"authorization": f"Bearer {issuer.token()}"}
        assert post(site, tool="estimate_memory", arguments=SMALL, **bearer).status_code == 401


async def test_a_form_may_come_back_to_another_worker() -> None:
    """Two servers with the same keys stand for two workers: the question travels with the client, sealed."""
    keys = ["k" * 64]

    async def first_and_second(first: HttpOptions, second: HttpOptions) -> Any:
        async def nobody(*_: Any) -> ElicitResult:
            raise AssertionError("the answer is given by hand below")

        with served(build_app(first)) as a, served(build_app(second)) as b:
            async with Client(f"{a}/mcp", elicitation_callback=nobody) as one:
                asked = await one.session.call_tool("preflight_experiment", LARGE, allow_input_required=True)
            assert isinstance(asked, InputRequiredResult) and asked.input_requests and asked.request_state
            answers = {key: ElicitResult(action="accept", content={"gpu": "H200"}) for key in asked.input_requests}
            async with Client(f"{b}/mcp", elicitation_callback=nobody) as two:
                return await two.session.call_tool(
                    "preflight_experiment", LARGE, allow_input_required=True,
                    input_responses=answers, request_state=asked.request_state,
                )  # fmt: skip

    result = await first_and_second(HttpOptions(state_keys=keys), HttpOptions(state_keys=["n" * 64, *keys]))
    assert result.structured_content["summary"].startswith("The user answered: GPU H200.")
    with pytest.raises(ExceptionGroup) as refused:  # as the client's task groups pass it on
        await first_and_second(HttpOptions(state_keys=keys), HttpOptions(state_keys=["other" * 10]))
    assert refused.group_contains(MCPError, match="Invalid or expired requestState")


async def _limited(app: Any, receive: Callable[[], Any], limits: Limits | None = None) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await (limits or Limits(app, 1, arrives_within_s=0.05))({"type": "http", "method": "POST"}, receive, send)
    return sent


async def test_more_than_the_limit_at_once_is_told_to_wait() -> None:
    inside, leave = anyio.Event(), anyio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        inside.set()
        await leave.wait()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    limits = Limits(slow, 1)
    async with anyio.create_task_group() as group:
        group.start_soon(_limited, slow, receive, limits)
        await inside.wait()
        refused = await _limited(slow, receive, limits)
        leave.set()
    assert refused[0]["status"] == 503 and (b"retry-after", b"1") in refused[0]["headers"]
    assert limits.running == 0


async def test_a_body_that_trickles_in_is_cut_off() -> None:
    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        raise AssertionError("the body never ends")

    async def trickle() -> Any:
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert (await _limited(reads, trickle))[0]["status"] == 408


def test_a_call_gets_no_more_time_than_the_operator_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from compute_awareness.mcp_server.tools import estimate_memory as tool

    leave = threading.Event()
    monkeypatch.setattr("compute_awareness.estimator.estimate", lambda *_, **__: leave.wait(60))
    assert tool
    with served(build_app(HttpOptions(call_limit_s=0.2))) as site:
        try:
            assert error_of(site, "estimate_memory", **SMALL) == (
                "this took longer than the 0.2 s that this server gives a call"
            )
        finally:
            leave.set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "say who may call"),
        ({"host": "0.0.0.0", "open_to_all": True}, "name the address that clients use"),
        ({"issuer": "https://i.example.org"}, "--issuer needs --audience"),
        ({"audience": "x"}, "--audience needs --issuer"),
        ({"issuer": "http://i.example.org", "audience": "x", "public_url": "https://m"}, "--issuer must be an https"),
        ({"sessions": True, "workers": 2}, "--workers 1"),
        ({"tokens": "/nowhere/tokens"}, "cannot be read"),
    ],
)
def test_an_oversight_is_refused_before_anything_listens(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        build_app(HttpOptions(**options))
    assert said in str(refused.value)


def test_state_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# first seals\n" + "a" * 64 + "\n" + "b" * 64 + "\n")
    assert read_state_keys(str(file)) == ["a" * 64, "b" * 64]
    file.write_text("short\n")
    with pytest.raises(InputError, match="at least 32"):
        read_state_keys(str(file))


def serve_command(port: int) -> list[str]:
    return [sys.executable, "-m", "compute_awareness", "serve", "--transport", "http", "--port", str(port)]


def until_healthy(site: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        try:
            httpx2.get(f"{site}/healthz").raise_for_status()
            return
        except httpx2.HTTPError:
            assert process.poll() is None
            time.sleep(0.1)
    raise AssertionError("the server is not healthy")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_worker_that_is_killed_in_a_call_costs_that_call_and_no_other(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": PACKAGE_ROOT, "COMPUTE_AWARENESS_PROFILE": ""}
    process = subprocess.Popen(
        [*serve_command(port), "--workers", "2"], env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    site = f"http://127.0.0.1:{port}"
    try:
        until_healthy(site, process)
        with socket.create_connection(("127.0.0.1", port), 60) as half:
            half.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\nContent-Type: application/json\r\n"
                b"Accept: application/json, text/event-stream\r\n\r\n{"
            )
            mine = worker_of(process.pid, half.getsockname()[1])
            mine.kill()
            with contextlib.suppress(ConnectionResetError):
                assert half.recv(1) == b"", "the call must not look answered"
        # The other worker answers, and one in the place of the killed.
        ends = time.monotonic() + 120
        while len(workers := living(process.pid)) < 2 or mine.pid in workers:
            assert time.monotonic() < ends, "no worker came in the place of the killed"
            time.sleep(0.1)
        until_healthy(site, process)
        for _ in range(10):
            answer = post(site, tool="estimate_memory", arguments=SMALL).json()["result"]
            assert answer["structuredContent"]["summary"]
    finally:
        process.terminate()
        process.wait(60)


def worker_of(pid: int, port: int) -> psutil.Process:
    """The worker of a server that has taken the connection from that port."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        for one in psutil.Process(pid).children(recursive=True):
            if any(c.raddr and c.raddr.port == port for c in connections_of(one)):
                return one
        time.sleep(0.05)
    raise AssertionError("no worker has taken the connection")


def connections_of(process: psutil.Process) -> list[Any]:
    """Its sockets; none of a process that has ended meanwhile."""
    try:
        return process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return []


def living(pid: int) -> set[int]:
    """The workers of a server: its children that run Python of ours and are no zombies."""
    found = set()
    for one in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(one.cmdline()):
                found.add(one.pid)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_and_stops(workers: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = serve_command(port)
    kept = tmp_path / "profile.toml"
    kept.write_text('format = 1\ndefault = "box"\n[machines.box]\ngpu = "H200"\nsaved = 2026-01-01\n')
    environment = os.environ | {"PYTHONPATH": PACKAGE_ROOT, "COMPUTE_AWARENESS_PROFILE": str(kept)}
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], env=environment, stderr=subprocess.PIPE, cwd=tmp_path
    )
    try:
        site = f"http://127.0.0.1:{port}"
        until_healthy(site, process)
        (tmp_path / "org" / "model").mkdir(parents=True)
        (tmp_path / "org" / "model" / "config.json").write_text("{}")
        # The operator's profile says H200; a caller who says nothing gets no verdict from that.
        answer = post(site, tool="preflight_experiment", arguments=LARGE).json()["result"]["structuredContent"]
        assert answer["verdict"]["status"] == "unknown" and "H200" not in json.dumps(answer.get("known", []))
    finally:
        process.send_signal(signal.SIGTERM if os.name == "posix" else signal.SIGABRT)
        _, error = process.communicate(timeout=60)
    assert b"Traceback" not in error, error.decode()


def test_spans_hold_nothing_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's spans, as any exporter gets them."""
    program = """
import anyio, json
from mcp import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
from compute_awareness.mcp_server.server import build_server
async def main():
    async with Client(build_server()) as client:
        await client.call_tool("estimate_memory", {"task": "inference", "model": "gpt2", "seq_len": 77})
        await client.call_tool("estimate_memory", {"task": "inference", "model": "s3cret/name", "seq_len": 77})
        await client.call_tool("explain_oom", {"message": "CUDA out of memory s3cret"})
        await client.get_prompt("when_to_ask_about_compute", {})
anyio.run(main)
print("[" + ",".join(span.to_json() for span in spans.get_finished_spans()) + "]")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": PACKAGE_ROOT, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    spans = json.loads(done.stdout)
    names = [span["name"] for span in spans]
    assert any("tools/call estimate_memory" in name for name in names), names
    assert any("prompts/get" in name for name in names)
    assert "s3cret" not in done.stdout and "77" not in [str(v) for s in spans for v in s["attributes"].values()]
    assert any(span["attributes"].get("error.type") == "tool_error" for span in spans)
