"""The MCP server: a table of tools, prompts and resources."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcp.server import CacheHint, MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import RequestStateSecurity
from mcp.server.mcpserver.tools import Tool
from mcp.types import Icon

from .app import TOOL_META, apps
from .arguments import OWN_DEFAULT, hidden_parameters, workload_parameters
from .asking_user import AskingTool
from .completions import complete
from .draining import DrainingServer
from .hosting import Hosting, hosted
from .prompts import prompts
from .resources import add_resources
from .strict import Signature, StrictTool, known_names, make_tool
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
    lifespan: Any = None,
) -> MCPServer[Any]:
    """The server with everything registered, not yet serving.

    Args:
        options: how it is hosted for others; None = it is the user's own.
        state_keys: what seals the question that a client carries; None = a key of this process.
        auth, token_verifier: who may call over HTTP.
        lifespan: what is held while it serves, as the SDK takes it.
    """
    listed_tools: list[Tool] = [tool for tool in tools(options) if tool.name not in _left_out(options)]
    listed_prompts = prompts()
    server = DrainingServer(
        "compute-awareness",
        title="Compute Awareness",
        description="Will this interpretability experiment fit the compute at hand, and should the user be asked?",
        instructions=INSTRUCTIONS,
        version=version("compute-awareness"),
        icons=[_icon()],
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
        lifespan=lifespan,
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


def _icon() -> Icon:
    """Within the address itself, so that no host has to fetch it. Of few bytes: from 2026-07-28 on every result says
    who answered, and bears it."""
    drawn = Path(__file__).with_name("icon.svg").read_bytes().strip()
    address = f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"
    return Icon(src=address, mime_type="image/svg+xml", sizes=["any"])


def _left_out(options: Hosting | None) -> tuple[str, ...]:
    """A shared server does not offer to look at its own hardware as if it were the user's."""
    return () if options is None or options.detect_here else (detect_compute.__name__,)


def serve() -> None:
    """Serves on standard input and output until the client goes away and what it asked is answered."""
    from .reader_gone import end_with_reader, end_with_signals, ended_if_broken_off

    end_with_reader()
    end_with_signals()
    # Before the SDK sets up its own: rich would print a crash as hundreds of lines of boxes, in any code page.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    build_server(lifespan=ended_if_broken_off).run("stdio")


def tools(options: Hosting | None = None) -> list[StrictTool]:
    """The tools in the order in which they are listed; a fixed order keeps hosts' prompt caches warm.

    The preflight of the user's own server writes the profile where they tick so in its form; that of a shared server,
    whose folder is not the user's, offers no tick.
    """
    listed = [
        make_tool(Signature(detect_compute), title="Detect compute", opens_network=True, meta=_ALWAYS_LOADED),
        make_tool(_of_workload(estimate_memory), title="Estimate memory", opens_network=True),
        make_tool(_of_workload(recommend_compute), title="Recommend compute", opens_network=True),
        make_tool(
            Signature(preflight_experiment, partial(workload_parameters, all_options=True), _not_asked_for),
            title="Preflight an experiment",
            opens_network=True,
            meta=_ALWAYS_LOADED | TOOL_META,
            kind=AskingTool,
            may_write=options is None,
        ),
        make_tool(Signature(preflight_script), title="Preflight a script", opens_network=True),
        make_tool(Signature(explain_oom), title="Explain an out-of-memory error", opens_network=True),
    ]
    if options is not None and not options.detect_here:
        for tool in listed:
            tool.parameters = deepcopy(tool.parameters)  # what is read from the file is everybody's
            for field in tool.parameters["properties"].values():
                field["description"] = field["description"].replace(OWN_DEFAULT, "default: unknown")
    return listed


def _of_workload(fn: Callable[..., Any]) -> Signature:
    return Signature(fn, partial(workload_parameters, all_options=False), hidden_parameters)


def _not_asked_for() -> frozenset[str]:
    return hidden_parameters() | {"show_form"}
