"""What a client sees before it calls anything: the lists, their cost, and their snapshots."""

from __future__ import annotations

import base64
import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

import compute_awareness.mcp_server
from compute_awareness.hardware.compute import Compute
from compute_awareness.mcp_server.hosting import Hosting
from compute_awareness.mcp_server.server import INSTRUCTIONS, build_server
from compute_awareness.memory.estimate import Estimate
from compute_awareness.oom.explain import OomReport
from compute_awareness.preflight import Preflight, Recommendation
from compute_awareness.script_reading.answer import ScriptReport
from compute_awareness.workload import TASKS, field_names

pytestmark = pytest.mark.anyio

SNAPSHOTS = Path(__file__).resolve().parents[1] / "snapshots"
TOOLS = [
    "detect_compute",
    "estimate_memory",
    "recommend_compute",
    "preflight_experiment",
    "preflight_script",
    "explain_oom",
]
PROMPTS = [
    "after_out_of_memory", "before_full_cache", "before_large_model", "before_long_run", "before_sae_training",
    "compute_preflight", "phrase_compute_question", "reduce_memory", "when_environment_unclear",
    "when_to_ask_about_compute",
]  # fmt: skip
WORKLOAD_TOOLS = TOOLS[1:4]
LAUNCHING = ("sweep", "launch_for", "run", "live_prices")


def dumped(item: Any) -> dict[str, Any]:
    return item.model_dump(mode="json", by_alias=True, exclude_none=True)


def tokens(value: Any) -> float:
    """Tokens by the usual rule of thumb: a quarter of the bytes."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) / 4


async def listed_tools(server: Any, mode: str) -> list[dict[str, Any]]:
    async with Client(server, mode=mode) as client:
        return [dumped(tool) for tool in (await client.list_tools()).tools]


async def test_tools_come_in_a_fixed_order(server: Any, mode: str) -> None:
    assert [tool["name"] for tool in await listed_tools(server, mode)] == TOOLS


async def test_definitions_stay_within_their_budget(server: Any, mode: str) -> None:
    tools = await listed_tools(server, mode)
    cost = {tool["name"]: tokens(tool) for tool in tools}
    assert tokens(tools) <= 4_000, cost
    assert max(cost.values()) <= 900, cost
    assert cost["detect_compute"] <= 300, cost


async def test_schemas_are_strict_and_plain(server: Any, mode: str) -> None:
    for tool in await listed_tools(server, mode):
        schema = tool["inputSchema"]
        assert schema["type"] == "object" and schema["additionalProperties"] is False
        assert not {"anyOf", "oneOf", "allOf", "$ref", "$defs"} & set(schema)
        for name, field in schema["properties"].items():
            assert field.get("description"), f"{tool['name']}.{name} has no description"
            assert "title" not in field and "default" not in field
            assert not isinstance(field.get("type"), list), f"{tool['name']}.{name}: say anyOf, which more hosts read"
        assert "summary" in tool["outputSchema"]["properties"]


async def test_output_schemas_name_the_main_fields_of_the_models(server: Any) -> None:
    models = [Compute, Estimate, Recommendation, Preflight, ScriptReport, OomReport]
    for tool, model in zip(await listed_tools(server, "auto"), models, strict=True):
        named = set(tool["outputSchema"]["properties"])
        required = {name for name, field in model.model_fields.items() if field.is_required()}
        assert required | {"summary"} <= named <= set(model.model_fields), tool["name"]


async def test_every_tool_is_annotated(server: Any, mode: str) -> None:
    for tool in await listed_tools(server, mode):
        # An answer that the user ticks to be remembered is written: this tool may not say that it only reads.
        writes = {"readOnlyHint": False, "destructiveHint": False} if tool["name"] == "preflight_experiment" else {}
        assert tool["title"] and tool["annotations"] == {"readOnlyHint": True, "openWorldHint": True} | writes
        # Everything that takes a model may fetch its config from Hugging Face; detect_compute may go to a host by ssh.
        assert tool["annotations"]["openWorldHint"] is True
        always = tool.get("_meta", {}).get("anthropic/alwaysLoad")
        assert always is (True if tool["name"] in ("detect_compute", "preflight_experiment") else None)


async def test_a_shared_server_keeps_no_answer_and_says_so() -> None:
    tools = await listed_tools(build_server(Hosting()), "auto")
    assert len(tools) == len(TOOLS) - 1
    assert all(tool["annotations"] == {"readOnlyHint": True, "openWorldHint": True} for tool in tools)
    defaults = [tool["inputSchema"]["properties"].get("gpu", {}).get("description", "") for tool in tools]
    assert sum("default: unknown" in said for said in defaults) == 2 and not any("this machine" in d for d in defaults)


async def test_arguments_are_the_fields_of_the_workload(server: Any, mode: str) -> None:
    for tool in await listed_tools(server, mode):
        if tool["name"] not in WORKLOAD_TOOLS:
            continue
        properties = tool["inputSchema"]["properties"]
        assert tool["inputSchema"]["required"] == ["task"]
        assert properties["task"]["enum"] == list(TASKS)
        # Every field is either listed or among the options, which the resource of its task describes.
        said = properties["options"]["description"]
        if tool["name"] == "preflight_experiment":
            often = said.removeprefix("Further fields, e.g. ").split(";")[0].split(", ")
            assert set(often) <= set(field_names()) - set(properties) and "compute://tasks/{task}" in said
        else:
            assert "preflight_experiment" in said
        extra = {"estimate_memory": {"python"}, "recommend_compute": {"gpu", "compute", "host", *LAUNCHING}}
        expected = extra.get(tool["name"], {"gpu", "compute", "host", "python"}) | {"detail", "options"}
        assert set(properties) - set(field_names()) == expected
        # A field of several tasks accepts what any of them accepts; one of some tasks says whose it is.
        assert {"transformer_lens", "transformer_bridge", "transformers", "nnsight", "sae_lens"} <= set(
            properties["library"]["enum"]
        )
        assert properties["architecture"]["description"].startswith("SAE: ")
        assert properties["names_filter"]["description"].startswith("cache, patching: ")
        assert properties["batch_size"]["description"].startswith("not SAE training: ")


async def test_every_field_is_described_with_its_limits(server: Any, mode: str) -> None:
    """A number says its range and an example, an enumeration its values, anything else an example or its default."""
    for tool in await listed_tools(server, mode):
        for name, field in tool["inputSchema"]["properties"].items():
            said = field["description"]
            if field.get("type") in ("integer", "number"):
                assert re.search(r"\d\S* to \d\S*, e\.g\. \d", said), f"{tool['name']}.{name}: {said}"
            elif name not in ("compute", "workload", "options", "architecture"):
                assert "enum" in field or "e.g. " in said or "default" in said, f"{tool['name']}.{name}: {said}"
    async with Client(server, mode=mode) as client:
        for task, kind in TASKS.items():
            text = (await client.read_resource(f"compute://tasks/{task}")).contents[0].text
            described = json.loads(text)["properties"]
            assert set(described) == set(kind.model_fields)
            assert all(field.get("description") or name in ("task", "library") for name, field in described.items())


async def test_every_tool_says_when_and_which_other_instead(server: Any, mode: str) -> None:
    for tool in await listed_tools(server, mode):
        others = [name for name in TOOLS if name != tool["name"] and name in tool["description"]]
        assert others, f"{tool['name']} names no other tool"
        assert 150 <= len(tool["description"]) <= 600


async def test_fields_may_come_by_their_name_or_in_options(server: Any, mode: str) -> None:
    flat = {"task": "activation_cache", "model": "gpt2", "seq_len": 64, "stop_at_layer": 3}
    nested = {"task": "activation_cache", "model": "gpt2", "options": {"stop_at_layer": 3, "seq_len": 64}}
    async with Client(server, mode=mode) as client:
        first, second = [await client.call_tool("estimate_memory", arguments) for arguments in (flat, nested)]
        both = await client.call_tool("estimate_memory", flat | {"options": {"stop_at_layer": 4}})
    assert not first.is_error and first.structured_content == second.structured_content
    assert both.is_error and "stop_at_layer: 3 given beside options, which has 4" in both.content[0].text


async def test_the_server_introduces_itself(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        info = client.server_info
        assert info is not None and (info.name, info.version) == ("compute-awareness", version("compute-awareness"))
        (icon,) = info.icons or []
        assert icon.mime_type == "image/svg+xml" and len(icon.src) < 500, "it travels with every result"
        assert base64.b64decode(icon.src.removeprefix("data:image/svg+xml;base64,")).startswith(b"<svg xmlns=")
        assert client.instructions == INSTRUCTIONS
        capabilities = client.server_capabilities
        assert capabilities.tools and capabilities.prompts and capabilities.resources and capabilities.completions
    assert len(INSTRUCTIONS) <= 2_000
    first = INSTRUCTIONS.split(". ")[0]
    assert first.startswith("Call preflight_experiment before") and "SAE" in first


async def test_what_is_fixed_may_be_kept_for_an_hour(server: Any) -> None:
    async with Client(server) as client:
        kept = [
            await client.list_tools(), await client.list_prompts(), await client.list_resources(),
            await client.list_resource_templates(), await client.read_resource("compute://models/gpt2"),
        ]  # fmt: skip
    assert [(result.ttl_ms, result.cache_scope) for result in kept] == [(3_600_000, "public")] * 5


async def test_no_deprecated_feature_is_used(server: Any, mode: str) -> None:
    """Roots, sampling and logging are deprecated since 2026-07-28, subscriptions have nothing to tell here."""
    async with Client(server, mode=mode) as client:
        capabilities = dumped(client.server_capabilities)
    assert capabilities == {
        "tools": {"listChanged": False}, "prompts": {"listChanged": False}, "completions": {},
        "resources": {"listChanged": False, "subscribe": False},
        # What a server adds to the protocol is declared since 2026-07-28.
        **({"extensions": {"io.modelcontextprotocol/ui": {}}} if mode == "auto" else {}),
    }  # fmt: skip
    face = Path(compute_awareness.mcp_server.__file__).parent
    deprecated = re.compile(r"\b(ListRoots|Sample|create_message|list_roots|ctx\.(log|info|debug|warning|error)|"
                            r"send_log_message)\b")  # fmt: skip
    sources = sorted(face.rglob("*.py"))
    assert len(sources) > 15
    assert [path.name for path in sources if deprecated.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("which", ["tools", "prompts", "resources"])
async def test_surface_snapshot(server: Any, which: str) -> None:
    async with Client(server) as client:
        if which == "tools":
            found: Any = [dumped(tool) for tool in (await client.list_tools()).tools]
        elif which == "prompts":
            found = [dumped(prompt) for prompt in (await client.list_prompts()).prompts]
        else:
            found = {
                "resources": [dumped(item) for item in (await client.list_resources()).resources],
                "templates": [dumped(item) for item in (await client.list_resource_templates()).resource_templates],
            }
    path = SNAPSHOTS / f"{which}.json"
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    assert path.is_file() and path.read_text(encoding="utf-8") == text, (
        f"the {which} differ from tests/snapshots/{which}.json; if that is meant, "
        "run the tests once with UPDATE_SNAPSHOTS=1 and commit the file"
    )
