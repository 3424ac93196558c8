"""The tool that explains an out-of-memory message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

pytestmark = pytest.mark.anyio

MESSAGE = (Path(__file__).parents[2] / "examples" / "oom.txt").read_text(encoding="utf-8")
RUN = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}


async def called(server: Any, mode: str, **arguments: Any) -> Any:
    async with Client(server, mode=mode) as client:
        return await client.call_tool("explain_oom", arguments)


async def test_it_names_the_tensor_and_a_cure(server: Any, mode: str) -> None:
    result = await called(server, mode, message=MESSAGE, workload=RUN)
    data = result.structured_content
    assert not result.is_error and json.loads(result.content[0].text) == data
    assert data["matches"][0]["product"] == "4 x 32 x 1024 x 1024 x 4 bytes"
    assert data["changes"][0]["fits"] is True and data["changes"][0]["code"]
    assert len(result.content[0].text) / 4 <= 600
    full = await called(server, mode, message=MESSAGE, workload=RUN, detail="full")
    assert full.structured_content["workload"]["batch_size"] == 4
    assert len(full.content[0].text) / 4 <= 2_000


async def test_the_card_it_ran_on_goes_with_the_next_step(server: Any, mode: str) -> None:
    asked = {"message": MESSAGE, "workload": RUN, "gpu": "RTX 4090", "detail": "full"}
    data = (await called(server, mode, **asked)).structured_content
    assert "on RTX 4090" in data["findings"][0]["cause"]
    assert data["next_steps"][0]["arguments"]["gpu"] == "RTX 4090"
    bad = await called(server, mode, message=MESSAGE, workload=RUN, gpu="RTX 4099")
    assert bad.is_error and "RTX 4090" in bad.content[0].text


async def test_a_message_alone_is_enough(server: Any, mode: str) -> None:
    data = (await called(server, mode, message=MESSAGE)).structured_content
    assert data["message"]["backend"] == "cuda" and data["findings"] and not data.get("matches")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"message": "all good"}, "no out-of-memory message"),
        ({"message": MESSAGE, "workload": {"task": "inferense"}}, "unknown task 'inferense'"),
        ({}, "message"),
    ],
)
async def test_bad_input_is_one_line(server: Any, mode: str, arguments: dict[str, Any], says: str) -> None:
    result = await called(server, mode, **arguments)
    assert result.is_error and says in result.content[0].text and "\n" not in result.content[0].text
