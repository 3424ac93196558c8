"""The MCP server: a table of tools, prompts and resources."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

from mcp.server import CacheHint, MCPServer
from mcp.server.mcpserver.tools import Tool

from ..errors import InputError
from .arguments import hidden_parameters, workload_parameters
from .completions import complete
from .prompts import prompts
from .resources import add_resources
from .strict import known_names, make_tool
from .tools.detect_compute import detect_compute
from .tools.estimate_memory import estimate_memory
from .tools.explain_oom import explain_oom
from .tools.preflight_experiment import preflight_experiment
from .tools.preflight_script import preflight_script
from .tools.recommend_compute import recommend_compute

INSTRUCTIONS = """\
Call preflight_experiment before writing or running code that loads a language model, caches activations \
(run_with_cache), trains an SAE, or otherwise may not fit the compute at hand. It detects the compute, computes the \
memory from what TransformerLens, transformers and SAELens really allocate, and says whether to ask the user.

Which tool: preflight_experiment first, with the task, the model and the sizes you are about to write. \
detect_compute: what this machine has. estimate_memory: bytes of a setting, no hardware involved. \
recommend_compute: which GPU to get, or how to need less. preflight_script: a script that exists already, before it \
is run. explain_oom: after a run died of out-of-memory.

Then follow asking.decision:
- ask: put asking.text to the user in one message, before writing the code, and wait for the answer. Call again \
with gpu set to the answer ("RTX 4090", "2xH100", "none").
- tell: say asking.text in one line and go on.
- silent: go on; do not mention compute.

Do not ask what GPU the user has when one was detected, when the run is small enough for any laptop, or when the \
user already said it: pass gpu instead. Where the detected card does not suffice, offer the choice (the change with \
its saving, or a larger GPU) rather than asking about hardware. If this server does not run where the experiment \
will run, pass host (its ssh alias), the compute report of that machine, or gpu="unknown".

A change marked equivalent gives the same values: apply it without asking (a names_filter only if it keeps every \
hook that the experiment reads). Others change the result: name what they change and let the user choose. Quote \
memory in GiB as given. verdict unknown means unknown: do not call it a fit.
"""

# The lists are fixed for the life of the process; an hour spares a client the repeated question.
_STATIC = CacheHint(ttl_ms=3_600_000, scope="public")
_ALWAYS_LOADED = {"anthropic/alwaysLoad": True}


def build_server() -> MCPServer[Any]:
    """The server with everything registered, not yet serving."""
    listed_tools = tools()
    listed_prompts = prompts()
    server: MCPServer[Any] = MCPServer(
        "compute-awareness",
        title="Compute Awareness",
        description="Will this interpretability experiment fit the compute at hand, and should the user be asked?",
        instructions=INSTRUCTIONS,
        version=version("compute-awareness"),
        tools=listed_tools,
        log_level="WARNING",
        cache_hints={
            "tools/list": _STATIC,
            "prompts/list": _STATIC,
            "resources/list": _STATIC,
            "resources/templates/list": _STATIC,
            "server/discover": _STATIC,
        },
        subscriptions=False,
        middleware=[known_names([tool.name for tool in listed_tools], [prompt.name for prompt in listed_prompts])],
    )
    for prompt in listed_prompts:
        server.add_prompt(prompt)
    add_resources(server)
    server.completion()(complete)
    return server


def serve(transport: str = "stdio") -> None:
    """Serves until the client goes away. Raises InputError for a transport that is not there."""
    if transport != "stdio":
        raise InputError(f"transport {transport!r} is not there in this version; accepted: stdio")
    # Before the SDK sets up its own: rich would print a crash as hundreds of lines of boxes, in any code page.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    build_server().run("stdio")


def tools() -> list[Tool]:
    """The tools in the order in which they are listed; a fixed order keeps hosts' prompt caches warm."""
    hidden = hidden_parameters()
    brief: dict[str, Any] = {"extra_parameters": workload_parameters(all_options=False), "hidden": hidden}
    whole: dict[str, Any] = {"extra_parameters": workload_parameters(all_options=True), "hidden": hidden}
    return [
        make_tool(detect_compute, title="Detect compute", opens_network=True, meta=_ALWAYS_LOADED),
        make_tool(estimate_memory, title="Estimate memory", opens_network=True, **brief),
        make_tool(recommend_compute, title="Recommend compute", opens_network=True, **brief),
        make_tool(
            preflight_experiment, title="Preflight an experiment", opens_network=True, meta=_ALWAYS_LOADED, **whole
        ),
        make_tool(preflight_script, title="Preflight a script", opens_network=True),
        make_tool(explain_oom, title="Explain an out-of-memory error", opens_network=True),
    ]
