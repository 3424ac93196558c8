"""The question to the user, put by the client's form: both protocol eras, over stdio, HTTP and in memory."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters
from mcp.server.elicitation import render_elicitation_schema
from mcp.types import (
    CallToolResult,
    ElicitRequestFormParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)
from served import served

from compute_awareness import whereabouts
from compute_awareness.hardware.compute import Accelerator, Compute, Environment, EnvironmentLayer, Host
from compute_awareness.mcp_server.form import form_of
from compute_awareness.mcp_server.server import build_server
from compute_awareness.preflight import preflight
from compute_awareness.units import GIB

pytestmark = pytest.mark.anyio

PACKAGE_ROOT = str(Path(__file__).resolve().parents[2] / "server")
ENVIRONMENT = os.environ | {"PYTHONPATH": PACKAGE_ROOT, "PYTHONWARNINGS": "error", "PYTHONWARNDEFAULTENCODING": "1"}
ASKS = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024, "gpu": "unknown"}
TOO_BIG = ASKS | {"gpu": "RTX 4090"}
LONG = {"task": "sae_training", "model": "pythia-2.8b", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 40960,
        "training_tokens": 2_000_000_000, "gpu": "unknown"}  # fmt: skip


class User:
    """A person at the client: gives the answers in turn, and keeps the forms that were shown."""

    def __init__(self, *answers: ElicitResult | ErrorData | int) -> None:
        self.answers = list(answers)
        self.shown: list[ElicitRequestFormParams] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult | ErrorData:
        assert isinstance(params, ElicitRequestFormParams)
        self.shown.append(params)
        answer = self.answers[len(self.shown) - 1]
        if isinstance(answer, int):  # the option of that place
            return accept(choice=params.requested_schema["properties"]["choice"]["enum"][answer])
        return answer


def accept(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


DECLINE, CANCEL = ElicitResult(action="decline"), ElicitResult(action="cancel")


async def check(client: Client, arguments: dict[str, Any]) -> dict[str, Any]:
    """A preflight that succeeds: its structure."""
    result = await client.call_tool("preflight_experiment", arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The server over streamable HTTP on a free port of this machine, with sessions for those who need one."""
    with served(build_server().streamable_http_app()) as address:
        yield f"{address}/mcp"


@asynccontextmanager
async def over(transport: str, url: str, mode: str, user: User | None) -> AsyncIterator[Client]:
    if transport == "http":
        target: Any = url
    else:
        target = StdioServerParameters(command=sys.executable, args=["-m", "compute_awareness"], env=dict(ENVIRONMENT))
    async with Client(target, mode=mode, elicitation_callback=user) as client:
        era = "2026-07-28" if mode == "auto" else "2025-11-25"
        assert client.protocol_version == era
        yield client


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_the_user_is_asked_and_every_way_to_answer_is_taken(transport: str, url: str, mode: str) -> None:
    user = User(
        accept(gpu="H200", where="RunPod, Vast or Lambda"), DECLINE, CANCEL, accept(gpu="RTX 4091"), accept(),
        accept(gpu="Voodoo 3", memory_gb=80),
    )  # fmt: skip
    async with over(transport, url, mode, user) as client:
        accepted = await check(client, ASKS)
        declined = await check(client, ASKS)
        cancelled = await check(client, ASKS)
        unknown_card = await check(client, ASKS)
        left_empty = await check(client, ASKS)
        by_memory = await check(client, ASKS)
    assert len(user.shown) == 6, "each call asks exactly once"
    assert len({shown.model_dump_json() for shown in user.shown}) == 1, "the same arguments, the same question"
    form = user.shown[0].requested_schema
    assert list(form["properties"])[:3] == ["gpu", "memory_gb", "where"] and "required" not in form
    assert user.shown[0].message.startswith("This experiment (caching every activation of pythia-2.8b")
    default = "I write it with batch size 1, its sizes easy to change."
    assert user.shown[0].message.endswith(f"\n\nWithout an answer: {default}")
    assert "?" not in user.shown[0].message, "the questions are the form's fields"

    assert accepted["known"] == ["The user answered: GPU H200; RunPod, Vast or Lambda."]
    assert accepted["summary"].startswith("The user answered: GPU H200; RunPod, Vast or Lambda. Fits H200")
    assert accepted["verdict"]["status"] == "fits" and accepted["asking"]["decision"] == "tell"

    for answer, said in (
        (declined, "The user declined to answer."),
        (cancelled, "The user closed the question without an answer."),
        (left_empty, "The user answered: GPU not known."),
    ):
        assert (answer["asking"]["decision"], answer["asking"]["text"]) == ("tell", default)
        assert answer["known"] == [said] and answer["summary"].startswith(said)
        assert answer["summary"].endswith("Tell the user in one line (asking.text).")
        assert answer["verdict"]["status"] == "unknown"

    assert unknown_card["asking"]["decision"] == "ask"
    words = unknown_card["asking"]["text"]
    assert "unknown GPU 'RTX 4091'; nearest: RTX 4090" in words and "\n" not in words
    assert "memory in GB is enough" in words and unknown_card["verdict"]["status"] == "unknown"

    assert by_memory["known"] == [
        "The user answered: GPU Voodoo 3, which is not in the table: counted as a card with 80 GB."
    ]
    assert by_memory["verdict"]["device"] == "a card with 80 GB"


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_without_the_capability_the_assistant_gets_the_words(transport: str, url: str, mode: str) -> None:
    async with over(transport, url, mode, None) as client:
        answer = await check(client, ASKS)
    assert answer["asking"]["decision"] == "ask" and "known" not in answer
    assert "\n- What GPU do you have access to?" in answer["asking"]["text"]
    assert answer["summary"].endswith("Ask the user (asking.text).")


async def test_without_a_way_back_to_the_client_the_assistant_gets_the_words(mode: str) -> None:
    """A stateless HTTP server cannot put a request to a client of the handshake era; the newer era needs none."""
    user = User(accept(gpu="H200"))
    with served(build_server().streamable_http_app(stateless_http=True)) as address:
        async with over("http", f"{address}/mcp", mode, user) as client:
            answer = await check(client, ASKS)
    assert len(user.shown) == (1 if mode == "auto" else 0)
    assert answer["asking"]["decision"] == ("tell" if mode == "auto" else "ask")


async def test_a_card_that_is_too_small_gets_the_choice_and_the_choice_is_made(server: Any, mode: str) -> None:
    user = User(accept(choice=""), accept(choice="something else"), DECLINE)
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        left_open = await check(client, TOO_BIG)
        offered = user.shown[0].requested_schema["properties"]["choice"]["enum"]
        assert list(user.shown[0].requested_schema["properties"]) == ["choice"]
        assert offered[1].startswith("the cache moved to RAM") and offered[-1].startswith("a larger GPU")
        other = await check(client, TOO_BIG)
        declined = await check(client, TOO_BIG)
        user.answers += [accept(choice=choice) for choice in offered]
        chosen = [await check(client, TOO_BIG) for _ in offered]
    assert len(user.shown) == 3 + len(offered)
    # The first way keeps only some hooks, which is not the assistant's to decide: another is taken without an answer.
    for answer in (left_open, declined):
        assert answer["asking"]["decision"] == "tell" and answer["verdict"]["status"] == "fits"
        assert answer["asking"]["text"].startswith("I write it with the cache moved to RAM (57.9 GiB there). ")
        assert answer["workload"]["cache_device"] == "cpu" and "names_filter" not in answer["workload"]
    assert other["asking"]["decision"] == "ask" and "was not offered; one of: " in other["asking"]["text"]
    for way, answer in zip(offered, chosen, strict=True):
        assert answer["known"] == [f"The user answered: {way}."]
        assert answer["verdict"]["status"] == "fits" and answer["asking"]["decision"] != "ask"
    assert chosen[1]["workload"]["cache_device"] == "cpu" and chosen[1]["verdict"]["device"] == "RTX 4090"
    assert chosen[-1]["verdict"]["device"] == "A100 PCIe 80GB" and "cache_device" not in chosen[-1]["workload"]


async def test_an_equivalent_change_is_made_where_no_answer_comes(server: Any, mode: str) -> None:
    user = User(DECLINE)
    work = {"task": "training", "model": "pythia-1.4b", "batch_size": 16, "seq_len": 512, "gpu": "RTX 4090",
            "dtype": "bfloat16"}  # fmt: skip
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        answer = await check(client, work)
    default = "I write it by this change: batch 9 with gradients of 2 passes added up."
    assert user.shown[0].message.endswith(f"Without an answer: {default}")
    assert answer["verdict"]["status"] in ("fits", "tight") and answer["asking"]["decision"] == "tell"
    assert answer["asking"]["text"] == default


async def test_after_the_card_is_known_another_question_is_put_in_words(server: Any, mode: str) -> None:
    user = User(accept(gpu="RTX 4090"))
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        answer = await check(client, ASKS)
    assert len(user.shown) == 1
    assert answer["asking"]["decision"] == "ask" and "Which way do you want to go?" in answer["asking"]["text"]
    assert "What GPU" not in answer["asking"]["text"]


async def test_hours_and_money_are_asked_for_and_held_against_the_run(server: Any, mode: str) -> None:
    user = User(
        accept(gpu="H100 SXM", max_hours=1), accept(gpu="H100 SXM", max_usd=1),
        accept(gpu="a card with 80 GB", max_usd=5),
        accept(gpu="H100 SXM", max_hours=8760, max_usd=1_000_000), accept(gpu="H100", max_hours=-1),
    )  # fmt: skip
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        short, cheap, no_price, generous, negative = [await check(client, LONG) for _ in range(5)]
    assert list(user.shown[0].requested_schema["properties"])[3:5] == ["max_hours", "max_usd"]
    # More than was allowed: what to do then is another question, which the assistant gets in words.
    assert ", and you allow 60 min. May it take that much?" in short["asking"]["text"]
    assert short["asking"]["decision"] == "ask" and len(user.shown) == 5
    assert "USD per hour, more than the 1 USD allowed." in cheap["asking"]["text"]
    assert "5 USD cannot be held against it" in no_price["asking"]["text"]
    assert "allowed" not in generous["asking"]["text"] and "long_running" not in generous["asking"]["triggers"]
    assert (
        negative["asking"]["decision"] == "ask" and "max_hours: a number from 0 to 8760" in negative["asking"]["text"]
    )


@pytest.mark.parametrize(
    ("era", "answer"),
    [
        ("auto", ElicitResult(action="accept")),
        ("legacy", ElicitResult(action="accept")),
        # In the stateless era a client that fails to show the form never calls a second time.
        ("legacy", ErrorData(code=-32000, message="no window")),
    ],
)
async def test_a_client_that_fails_to_ask_leads_to_the_words(server: Any, era: str, answer: Any) -> None:
    user = User(answer)
    async with Client(server, mode=era, elicitation_callback=user) as client:
        result = await check(client, ASKS)
    assert len(user.shown) == 1
    assert result["asking"]["decision"] == "ask" and "\n- What GPU do you have" in result["asking"]["text"]
    assert result["known"] == ["The client's form gave no answer that can be read: ask in words."]


@pytest.mark.parametrize("arguments", [
    {"task": "inference", "model": "gpt2", "gpu": "unknown"}, ASKS | {"gpu": "H200"},
    {"task": "inference", "model": "gpt2-xl", "gpu": "none"},
], ids=["small", "fits", "named"])  # fmt: skip
async def test_nobody_is_asked_where_there_is_nothing_to_ask(server: Any, mode: str, arguments: Any) -> None:
    user = User()
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        answer = await check(client, arguments)
    assert user.shown == [] and answer["asking"]["decision"] != "ask"


async def test_bad_arguments_ask_nobody(server: Any, mode: str) -> None:
    user = User()
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        result = await client.call_tool("preflight_experiment", ASKS | {"batchsize": 4})
        no_model = await client.call_tool("preflight_experiment", ASKS | {"model": "pythia-2.8c"})
    assert user.shown == [] and result.is_error and no_model.is_error
    assert "nearest: batch_size" in result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    text = no_model.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert "nearest" in text and "Error executing" not in text


def card(free: float) -> Compute:
    """A machine with an RTX 4090 that has so many GiB free."""
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="medium", evidence=[])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=128 * GIB, ram_available_bytes=120 * GIB),
        environment=Environment(primary="local", layers=[layer], clear=True),
        accelerators=[
            Accelerator(
                index=0, kind="cuda", name="NVIDIA GeForce RTX 4090", total_bytes=24 * GIB,
                free_bytes=round(free * GIB),
            )
        ],
    )  # fmt: skip


async def test_what_is_free_may_change_while_the_user_thinks(
    server: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at the machine finds less: the question is still asked once, and the answer still belongs to it."""
    looks: list[float] = []

    def look(*_: object) -> Compute:
        looks.append(23 - 2 * len(looks))
        return card(looks[-1])

    monkeypatch.setattr(whereabouts, "_look", look)
    arguments = {name: value for name, value in ASKS.items() if name != "gpu"}
    user = User(DECLINE, 0)
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        declined = await check(client, arguments)
        assert looks == [23, 21], "one look to ask, one for the answer"
        assert "has 23.0 GiB free" in user.shown[0].message
        chosen = await check(client, arguments)
    assert len(user.shown) == 2
    assert declined["verdict"]["free_bytes"] == 21 * GIB and declined["asking"]["decision"] == "tell"
    assert "has 19.0 GiB free" in user.shown[1].message and chosen["verdict"]["free_bytes"] == 17 * GIB
    assert chosen["workload"]["names_filter"] and chosen["known"][0].startswith("The user answered: caching only")


async def round_of(client: Client, arguments: dict[str, Any], **more: Any) -> Any:
    """One round of the stateless era, as it is on the wire."""
    return await client.session.call_tool("preflight_experiment", arguments, allow_input_required=True, **more)


async def test_the_second_round_is_bound_to_the_arguments_of_the_first(server: Any) -> None:
    async with Client(server, elicitation_callback=User()) as client:
        first = await round_of(client, ASKS)
        again = await round_of(client, ASKS)
        assert isinstance(first, InputRequiredResult) and first.input_requests and first.request_state
        assert first.input_requests == again.input_requests, "the question is a function of the arguments"
        key = next(iter(first.input_requests))
        answers = {key: accept(gpu="H200")}
        done = await round_of(client, ASKS, input_responses=answers, request_state=first.request_state)
        assert isinstance(done, CallToolResult) and done.structured_content is not None
        assert done.structured_content["verdict"]["device"] == "H200 SXM"
        for arguments, state in ((ASKS | {"batch_size": 8}, first.request_state), (ASKS, "v1.forged")):
            with pytest.raises(MCPError, match="requestState"):
                await round_of(client, arguments, input_responses=answers, request_state=state)
        # An answer to a question that was not asked is none.
        unasked = await round_of(client, ASKS, input_responses=answers)
        assert isinstance(unasked, InputRequiredResult)


async def test_an_answer_is_kept_for_the_project_only_where_the_user_says_so(
    server: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPUTE_AWARENESS_PROFILE", str(tmp_path / "user.toml"))
    file = tmp_path / ".compute-awareness.toml"
    user = User(*[accept(gpu="H200", where="Colab", remember=remember) for remember in (True, False, True)])
    async with Client(server, mode=mode, elicitation_callback=user) as client:
        await check(client, ASKS)
        assert "remember" not in user.shown[0].requested_schema["properties"], "no project here"
        assert not file.exists()
        (tmp_path / "pyproject.toml").touch()
        await check(client, ASKS)
        offered = user.shown[1].requested_schema["properties"]["remember"]
        assert (offered["type"], offered["default"]) == ("boolean", False)
        assert not file.exists()
        answer = await check(client, ASKS)
        kept = tomllib.loads(file.read_text("utf-8"))
        assert kept["default"] == "colab" and kept["machines"]["colab"]["gpu"] == "H200"
        assert f"Kept for this project as the user agreed: machine 'colab', in {file}." in answer["known"]
        later = await check(client, ASKS)
    assert len(user.shown) == 3, "what was kept is not asked again"
    assert later["verdict"]["device"] == "H200 SXM" and "from the profile" in later["known"][0]


async def test_nothing_is_kept_for_a_caller_over_http(
    url: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's folder is not the project of whoever calls from elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPUTE_AWARENESS_PROFILE", str(tmp_path / "user.toml"))
    (tmp_path / "pyproject.toml").touch()
    user = User(accept(gpu="H200", remember=True))
    async with over("http", url, mode, user) as client:
        answer = await check(client, ASKS)
    assert "remember" not in user.shown[0].requested_schema["properties"]
    assert answer["verdict"]["status"] == "fits" and sorted(p.name for p in tmp_path.iterdir()) == ["pyproject.toml"]


@pytest.mark.parametrize("arguments", [ASKS, TOO_BIG, LONG], ids=["which_gpu", "choice", "long"])
def test_every_form_is_flat_and_valid(arguments: dict[str, Any]) -> None:
    from compute_awareness.mcp_server.arguments import as_workload

    gpu = arguments["gpu"]
    fields = {name: value for name, value in arguments.items() if name != "gpu"}
    question = preflight(as_workload(fields), gpu=gpu).asking
    for may_keep in (True, False):
        schema = render_elicitation_schema(form_of(question, may_keep=may_keep))
        asked = set(schema["properties"]) - {"remember"}
        assert all(field.get("title") for field in schema["properties"].values())
        assert ("remember" in schema["properties"]) == (may_keep and asked != {"choice"})
        assert {field["type"] for field in schema["properties"].values()} <= {"string", "number", "boolean"}
