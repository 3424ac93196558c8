"""The memory plan as an MCP App: a picture in the conversation, beside the text that every client gets.

The page is `memory_plan.html`. It loads nothing and speaks to its host alone (SEP-1865, revision 2026-01-26 of the
ext-apps specification). What it draws travels in the result's `_meta`, which hosts hand to the page and not to the
model; a client that did not say it shows apps gets none of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.server.apps import Apps, client_supports_apps
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult

from ...picture import PARTS, capacity, parts_of

if TYPE_CHECKING:
    from ...preflight import Preflight

URI = "ui://compute-awareness/memory-plan.html"
TOOL_META = {"ui": {"resourceUri": URI}}
PLAN = "compute-awareness/plan"
"""Key of the page's data in a result's `_meta`."""

_CHANGES = 6
_PLACE_OF_PARTS = "/* parts */ {}"


def apps() -> Apps:
    """The extension: the page, to be drawn by the tools whose `_meta` is `TOOL_META`."""
    extension = Apps()
    extension.add_html_resource(
        URI,
        page(),
        name="memory-plan",
        title="Memory plan",
        description="What is alive at the peak against the card's memory, with sliders and the changes that help",
        prefers_border=True,
    )
    return extension


def page() -> str:
    """The page, with the letters and colours that the command line's picture has too."""
    html = Path(__file__).with_name("memory_plan.html").read_text("utf-8")
    before, mark, after = html.partition(_PLACE_OF_PARTS)
    assert mark, "memory_plan.html has no place for the parts"
    return f"{before}{json.dumps(PARTS)}{after}"


def with_plan(
    answer: CallToolResult, result: Preflight, answered: dict[str, Any], context: Context[Any, Any] | None
) -> CallToolResult:
    """`answer` with what the page draws, for a client that shows it; as it is for any other.

    `answered` are the arguments that the user gave by a form: the page's own calls must say the same.
    """
    if context is None or not client_supports_apps(context):
        return answer
    return answer.model_copy(update={"meta": {**(answer.meta or {}), PLAN: plan_of(result) | {"answered": answered}}})


def plan_of(result: Preflight) -> dict[str, Any]:
    """What the page draws. Sizes are bytes; null = not known."""
    verdict, advice = result.verdict, result.advice
    changes = advice.solutions or [change for change in advice.changes if change.applies and change.patch]
    return {
        "workload": result.workload,
        "parts": parts_of(result.estimate, verdict.needed_bytes),
        "in_ram": [(c.name, c.bytes) for c in result.estimate.components if c.where == "host" and c.bytes],
        "needed": verdict.needed_bytes,
        "free": verdict.free_bytes,
        "room": capacity(result.compute, verdict),
        "device": verdict.device,
        "status": verdict.status,
        "why": verdict.why,
        "precision": result.estimate.precision,
        "changes": [
            change.model_dump(mode="json", include={"title", "patch", "peak_after", "fits", "effect", "effect_detail"})
            for change in changes[:_CHANGES]
        ],
    }
