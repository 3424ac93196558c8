"""The MCP server: a table of tools, prompts and resources."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

from mcp.server import CacheHint, MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import RequestStateSecurity
from mcp.server.mcpserver.tools import Tool

from .app import TOOL_META, apps
from .arguments import OWN_DEFAULT, hidden_parameters, workload_parameters
from .asking_user import AskingTool
from .completions import complete
from .hosting import Hosting, hosted
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
recommend_compute: which GPU to get, how to need less, a grid of runs. preflight_script: a script that exists already, \
before it is run. explain_oom: after a run died of out-of-memory.

Then follow asking.decision:
- ask: put asking.text to the user in one message, before writing the code, and wait for the answer. Call again \
with gpu set to the answer ("RTX 4090", "2xH100", "none").
- tell: say asking.text in one line and go on.
- silent: go on; do not mention compute.
Where the client shows forms, the tool has asked by itself: known says what the user answered; do not ask that again.

Do not ask what GPU the user has when one was detected, when the run is small enough for any laptop, or when the \
user already said it: pass gpu instead. Where the detected card does not suffice, offer the choice (the change with \
its saving, or a larger GPU) rather than asking about hardware. If this server does not run where the experiment \
will run, pass host (its ssh alias), the compute report of that machine, or gpu="unknown".

Before a cache say in reads which hooks the code reads afterwards: the filter that keeps just these is then offered.

A change marked equivalent gives the same values: apply it without asking (a names_filter only if it keeps every \
hook that is read). Others change the result: name what they change and let the user choose. Quote \
memory in GiB as given. verdict unknown means unknown: do not call it a fit.
"""

# The lists and what the resources hold are fixed for the life of the process; an hour spares the repeated question.
_STATIC = CacheHint(ttl_ms=3_600_000, scope="public")
_FORM_WAITS_S = 24 * 3600.0
_ALWAYS_LOADED = {"anthropic/alwaysLoad": True}


def build_server(
    options: Hosting | None = None,
    *,
    state_keys: list[str] | None = None,
    auth: AuthSettings | None = None,
    token_verifier: TokenVerifier | None = None,
) -> MCPServer[Any]:
    """The server with everything registered, not yet serving.

    Args:
        options: how it is hosted for others; None = it is the user's own.
        state_keys: what seals the question that a client carries; None = a key of this process.
        auth, token_verifier: who may call over HTTP.
    """
    listed_tools = [tool for tool in tools(options) if tool.name not in _left_out(options)]
    listed_prompts = prompts()
    server: MCPServer[Any] = MCPServer(
        "compute-awareness",
        title="Compute Awareness",
        description="Will this interpretability experiment fit the compute at hand, and should the user be asked?",
        instructions=INSTRUCTIONS,
        version=version("compute-awareness"),
        tools=listed_tools,
        extensions=[apps()],
        log_level="WARNING",
        cache_hints={
            "tools/list": _STATIC,
            "prompts/list": _STATIC,
            "resources/list": _STATIC,
            "resources/templates/list": _STATIC,
            "resources/read": _STATIC,
            "server/discover": _STATIC,
        },
        subscriptions=False,
        # A form waits for a person, who may be at lunch; the SDK's ten minutes are for machines.
        request_state_security=(
            RequestStateSecurity(keys=state_keys, ttl=_FORM_WAITS_S)
            if state_keys
            else RequestStateSecurity.ephemeral(ttl=_FORM_WAITS_S)
        ),
        auth=auth,
        token_verifier=token_verifier,
        middleware=[
            hosted(options),
            known_names([tool.name for tool in listed_tools], [prompt.name for prompt in listed_prompts]),
        ],
    )
    for prompt in listed_prompts:
        server.add_prompt(prompt)
    add_resources(server)
    server.completion()(complete)
    return server


def _left_out(options: Hosting | None) -> tuple[str, ...]:
    """A shared server does not offer to look at its own hardware as if it were the user's."""
    return () if options is None or options.detect_here else (detect_compute.__name__,)


def serve() -> None:
    """Serves on standard input and output until the client goes away."""
    from .reader_gone import end_with_reader

    end_with_reader()
    # Before the SDK sets up its own: rich would print a crash as hundreds of lines of boxes, in any code page.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    build_server().run("stdio")


def tools(options: Hosting | None = None) -> list[Tool]:
    """The tools in the order in which they are listed; a fixed order keeps hosts' prompt caches warm.

    The preflight of the user's own server writes the profile where they tick so in its form; that of a shared server,
    whose folder is not the user's, offers no tick.
    """
    hidden = hidden_parameters()
    brief: dict[str, Any] = {"extra_parameters": workload_parameters(all_options=False), "hidden": hidden}
    asking = hidden | {"show_form"}
    whole: dict[str, Any] = {"extra_parameters": workload_parameters(all_options=True), "hidden": asking}
    listed = [
        make_tool(detect_compute, title="Detect compute", opens_network=True, meta=_ALWAYS_LOADED),
        make_tool(estimate_memory, title="Estimate memory", opens_network=True, **brief),
        make_tool(recommend_compute, title="Recommend compute", opens_network=True, **brief),
        make_tool(
            preflight_experiment,
            title="Preflight an experiment",
            opens_network=True,
            meta=_ALWAYS_LOADED | TOOL_META,
            kind=AskingTool,
            may_write=options is None,
            **whole,
        ),
        make_tool(preflight_script, title="Preflight a script", opens_network=True),
        make_tool(explain_oom, title="Explain an out-of-memory error", opens_network=True),
    ]
    if options is not None and not options.detect_here:
        for tool in listed:
            for field in tool.parameters["properties"].values():
                field["description"] = field["description"].replace(OWN_DEFAULT, "default: unknown")
    return listed
