"""Bad input: one clear line, never a traceback, never a result."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS

from compute_awareness.mcp_server.tools import estimate_memory as module

pytestmark = pytest.mark.anyio

GOOD = {"task": "activation_cache", "model": "gpt2"}


@pytest.mark.parametrize(
    ("tool", "arguments", "parts"),
    [
        (
            "estimate_memory",
            GOOD | {"batchsize": 4},
            ["unknown argument 'batchsize'", "nearest: batch_size", "seq_len"],
        ),
        ("detect_compute", {"pyton": "python3"}, ["unknown argument 'pyton'", "nearest: python"]),
        ("estimate_memory", GOOD | {"gpu": "T4"}, ["unknown argument 'gpu'"]),
        ("estimate_memory", {"model": "gpt2"}, ["'task' is missing", "activation_cache"]),
        ("estimate_memory", {"task": "inferense", "model": "gpt2"}, ["unknown task 'inferense'", "nearest: inference"]),
        ("estimate_memory", {"task": "trainin", "model": "gpt2"}, ["unknown task 'trainin'", "sae_training"]),
        ("estimate_memory", {"task": ["inference"], "model": "gpt2"}, ["task"]),
        ("estimate_memory", {"task": "inference"}, ["'model' is missing"]),
        ("estimate_memory", GOOD | {"model": "gpt2-smal"}, ["gpt2-smal", "nearest", "gpt2"]),
        ("preflight_experiment", GOOD | {"model": "pythia-2.8c"}, ["pythia-2.8c", "nearest", "pythia-2.8b"]),
        ("estimate_memory", GOOD | {"batch_size": -1}, ["batch_size", "greater than or equal to 1", "-1"]),
        ("estimate_memory", GOOD | {"seq_len": 0}, ["seq_len", "greater than or equal to 1"]),
        ("estimate_memory", GOOD | {"batch_size": 10**12}, ["batch_size", "1000000", "1000000000000"]),
        ("estimate_memory", GOOD | {"batch_size": "many"}, ["batch_size", "many"]),
        ("estimate_memory", GOOD | {"dtype": "float8"}, ["dtype", "float8", "bfloat16"]),
        ("estimate_memory", GOOD | {"library": "nnsigt"}, ["library", "not accepted", "nearest: nnsight"]),
        ("estimate_memory", GOOD | {"d_sae": 4}, ["d_sae", "names_filter"]),
        ("estimate_memory", GOOD | {"names_filter": ["*hook_residpost"]}, ["names_filter", "hook_resid_post"]),
        ("estimate_memory", GOOD | {"layers": [99]}, ["layers", "99", "12"]),
        ("estimate_memory", GOOD | {"detail": "everything"}, ["detail", "concise, full"]),
        ("estimate_memory", GOOD | {"model": {"layers": 3}}, ["model", "layers", "n_layers"]),
        ("preflight_experiment", GOOD | {"gpu": "RTX 4091"}, ["RTX 4091", "4090"]),
        ("preflight_experiment", GOOD | {"gpu": 4090}, ["gpu", "string"]),
        ("preflight_experiment", GOOD | {"compute": {"gpus": 1}}, ["compute", "report"]),
        ("preflight_experiment", GOOD | {"python": "/no/such/python"}, ["/no/such/python"]),
        ("detect_compute", {"python": "/no/such/python"}, ["/no/such/python"]),
        ("recommend_compute", {"task": "sae_training", "d_in": 768}, ["d_sae", "expansion_factor"]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:60],
)
async def test_bad_input_is_one_line(
    server: Any, mode: str, tool: str, arguments: dict[str, Any], parts: list[str]
) -> None:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool(tool, arguments)
    text = result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert result.is_error and result.structured_content is None
    assert "\n" not in text and len(text) < 700, text
    assert not any(word in text for word in ("Traceback", "pydantic", "http", "Error executing"))
    assert [part for part in parts if part not in text] == [], text


async def test_a_crash_tells_the_client_nothing_and_the_log_everything(
    server: Any, mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(fields: dict[str, Any]) -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(module, "as_workload", crash)
    with caplog.at_level(logging.ERROR):
        async with Client(server, mode=mode) as client:
            result = await client.call_tool("estimate_memory", GOOD)
    text = result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert result.is_error and text == "Error executing tool estimate_memory"
    assert "a secret of the house" in caplog.text


@pytest.mark.parametrize("name", ["estimate_memroy", "", "x" * 500])
async def test_unknown_tool_is_a_protocol_error(server: Any, mode: str, name: str) -> None:
    async with Client(server, mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(name, {})
    assert caught.value.error.code == INVALID_PARAMS
    assert "unknown tool" in caught.value.error.message and "preflight_experiment" in caught.value.error.message
    assert len(caught.value.error.message) < 300


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("reduce_memroy", {}, "nearest: reduce_memory"),
        ("reduce_memory", {}, "'experiment' is missing"),
        ("reduce_memory", {"experiment": "  "}, "'experiment' is missing"),
        ("reduce_memory", {"experiment": "x", "gpus": "T4"}, "nearest: gpu"),
        ("when_to_ask_about_compute", {"model": "gpt2"}, "accepted: none"),
    ],
)
async def test_bad_prompt_requests_are_protocol_errors(
    server: Any, mode: str, name: str, arguments: dict[str, str], part: str
) -> None:
    async with Client(server, mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(name, arguments)
    assert caught.value.error.code == INVALID_PARAMS
    assert part in caught.value.error.message


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("compute://models/pythia-2.8c", "pythia-2.8b"),
        ("compute://models/zzzzzz", "compute://models"),
        ("compute://platforms/runpodd", "runpod"),
        ("compute://nothing", "compute://nothing"),
    ],
)
async def test_unknown_resources_are_protocol_errors(server: Any, mode: str, uri: str, part: str) -> None:
    async with Client(server, mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.error.code == INVALID_PARAMS
    assert part in caught.value.error.message
