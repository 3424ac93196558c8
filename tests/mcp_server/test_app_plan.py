"""The memory plan's page and its data, as clients with apps and without get them; the page itself is drawn in
test_memory_plan_app.py."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.types import ElicitResult

from compute_awareness.mcp_server.app import PLAN, TOOL_META, URI, page
from compute_awareness.picture import PARTS

pytestmark = pytest.mark.anyio

SHOWS = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})
TOOL = "preflight_experiment"
CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}


async def test_the_tool_names_a_page_that_can_be_read(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        with_page = {tool.name: tool.meta for tool in (await client.list_tools()).tools if "ui" in (tool.meta or {})}
        (content,) = (await client.read_resource(URI)).contents
        listed = next(item for item in (await client.list_resources()).resources if item.uri == URI)
    assert list(with_page) == [TOOL] and with_page[TOOL]["ui"] == TOOL_META["ui"] == {"resourceUri": URI}
    assert content.mime_type == listed.mime_type == APP_MIME_TYPE
    assert cast(Any, content).text == page() and content.meta == {"ui": {"prefersBorder": True}}


def test_the_page_stands_alone() -> None:
    html = page()
    assert len(html.encode()) < 40_000
    # The one address is the name of SVG's vocabulary, which nothing loads.
    assert set(re.findall(r"[a-z]+://[^\s\"'`<>]*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"<(link|img|iframe|object|embed|base)\b|@import|\bfetch\(|XMLHttp|WebSocket|import\(|eval\(", html
    )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", html), "names from outside are text"
    assert not re.search(r"url\((?!#)", html) and not re.search(r"<script[^>]+src", html)
    assert f"const PARTS = {json.dumps(PARTS)};" in html


@pytest.mark.parametrize("gpu", ["RTX 4090", "A100-80GB", "unknown", "none"])
@pytest.mark.parametrize("detail", ["concise", "full"])
async def test_a_client_without_apps_sees_no_difference(server: Any, mode: str, gpu: str, detail: str) -> None:
    arguments = CACHE | {"gpu": gpu, "detail": detail}
    async with Client(server, mode=mode) as plain, Client(server, mode=mode, extensions=[SHOWS]) as shows:
        before, after = await plain.call_tool(TOOL, arguments), await shows.call_tool(TOOL, arguments)
    assert PLAN not in (before.meta or {})
    # RAM in use moves from call to call where the run would be on this machine's CPU.
    if gpu != "none":
        assert before.content == after.content and before.structured_content == after.structured_content
    plan = (after.meta or {})[PLAN]
    verdict = cast(Any, after.structured_content)["verdict"]
    assert plan["status"] == verdict["status"] and plan["device"] == verdict["device"]
    assert {name for name, _ in plan["parts"]} <= set(PARTS)
    assert sum(size for _, size in plan["parts"]) == plan["needed"] == verdict["needed_bytes"]
    assert plan["free"] == verdict["free_bytes"] or gpu == "none"
    assert (plan["free"] is None) == (gpu == "unknown")
    assert plan["workload"]["batch_size"] == 4 and plan["workload"]["dtype"] == "float32"
    assert plan["why"] and len(plan["changes"]) <= 6
    assert plan["changes"] and all(change["patch"] for change in plan["changes"])
    if gpu == "RTX 4090":
        assert plan["status"] == "does_not_fit" and all(change["fits"] for change in plan["changes"])
    assert len(json.dumps(plan)) < 12_000


async def test_another_kind_of_page_is_not_this_one(server: Any) -> None:
    other = advertise(EXTENSION_ID, {"mimeTypes": ["text/html"]})
    async with Client(server, extensions=[other]) as client:
        assert PLAN not in ((await client.call_tool(TOOL, CACHE | {"gpu": "T4"})).meta or {})


async def test_the_pictures_own_calls_show_no_form(server: Any, mode: str) -> None:
    forms: list[Any] = []

    async def answer(_: Any, params: Any) -> ElicitResult:
        forms.append(params)
        return ElicitResult(action="accept", content={"gpu": "T4"})

    unclear = CACHE | {"model": "gpt2-xl", "gpu": "unknown"}
    async with Client(server, mode=mode, extensions=[SHOWS], elicitation_callback=answer) as client:
        quiet = await client.call_tool(TOOL, unclear | {"show_form": False})
        assert forms == [] and not quiet.is_error
        asking = cast(Any, quiet.structured_content)["asking"]
        assert asking["decision"] == "ask" and asking["text"], "the words are there all the same"
        asked = await client.call_tool(TOOL, unclear)
    assert len(forms) == 1
    # What the user answered is repeated by the picture's calls: the assistant's arguments do not have it.
    assert (quiet.meta or {})[PLAN]["answered"] == {}
    told = (asked.meta or {})[PLAN]
    assert told["answered"]["gpu"] and told["device"] != (quiet.meta or {})[PLAN]["device"]
    again = unclear | told["answered"] | {"show_form": False}
    async with Client(server, mode=mode, extensions=[SHOWS]) as client:
        repeated = ((await client.call_tool(TOOL, again)).meta or {})[PLAN]
    assert (repeated["device"], repeated["needed"]) == (told["device"], told["needed"])


async def test_show_form_is_checked_like_any_argument(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        refused = await client.call_tool(TOOL, CACHE | {"gpu": "T4", "show_form": "maybe"})
        other = await client.call_tool("estimate_memory", CACHE | {"show_form": False})
    assert refused.is_error and "show_form" in cast(Any, refused.content[0]).text
    assert other.is_error and "unknown argument 'show_form'" in cast(Any, other.content[0]).text
