"""Asking the user in the middle of a call, in both protocol eras, through the SDK's `Resolve` and `Elicit`.

Until 2025-11-25 the form is a request of the server's, answered while the call waits. From 2026-07-28 on the form is
the call's result, and the client calls once more with the answer: the question must be the same then, whatever the
machine has free by that time. So the question that was asked travels with the client, in the `requestState` that the
SDK seals for exactly these arguments, and the second round takes it from there and looks at nothing.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.mcpserver import Context, Elicit
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import InputRequiredResult
from pydantic import BaseModel, ValidationError

from .arguments import ComputeReport, Gpu, Host, Python, ShowForm, as_compute_report, as_workload
from .form import can_ask, form_of, is_stateless, message_of
from .hosting import gpu_of_call
from .looking import in_thread, look_elsewhere, seen_here
from .strict import StrictTool

if TYPE_CHECKING:
    from ..asking.question import Question
    from ..preflight import Preflight

_QUESTION = "question"


@dataclass
class Round:
    """One call: the question that is asked in it or was asked in the round before, and the preflight that asks it."""

    question: Question | None = None
    unreadable: bool = False
    """The client's answer was none that the protocol allows: the assistant asks in words."""


@dataclass
class Unasked:
    """Nothing was asked of the user by a form: the answer is this."""

    result: Preflight


_ROUND: ContextVar[Round] = ContextVar("round")


def this_round() -> Round:
    """The call at hand."""
    return _ROUND.get()


class AskingTool(StrictTool):
    """A tool with a resolver that asks the user."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """As the SDK's; an answer that cannot be read, or a client that fails to ask, leads to the words instead."""
        here = Round(_carried(context))
        token = _ROUND.set(here)
        try:
            try:
                result = await super().run(arguments, context, convert_result=convert_result)
            except (ToolError, MCPError) as error:
                if here.question is None or not _from_the_form(error):
                    raise
                here.unreadable = True
                result = await super().run(arguments, context, convert_result=convert_result)
        finally:
            _ROUND.reset(token)
        if isinstance(result, InputRequiredResult) and here.question is not None:
            state = json.loads(result.request_state or "{}")
            state[_QUESTION] = here.question.model_dump(mode="json")
            result.request_state = json.dumps(state, separators=(",", ":"))
        return result


async def ask_user(
    ctx: Context,
    gpu: Gpu = None,
    compute: ComputeReport = None,
    host: Host = None,
    python: Python = None,
    show_form: ShowForm = True,
    **fields: Any,
) -> Any:
    """The resolver: the form where the user is to be asked and can be, else the preflight as it stands (`Unasked`)."""
    here = this_round()
    if here.question is None or here.unreadable:
        result = await look_and_check(gpu, compute, host, python, fields)
        if here.unreadable:
            result.known = ["The client's form gave no answer that can be read: ask in words.", *result.known]
            return Unasked(result)
        if result.asking.decision != "ask" or not show_form or not can_ask(ctx):
            return Unasked(result)
        here.question = result.asking
    return Elicit(message_of(here.question), form_of(here.question, may_keep=may_keep(ctx)))


async def look_and_check(gpu: str | None, compute: Any, host: str | None, python: str | None, fields: Any) -> Preflight:
    """The preflight of a call's arguments. Raises InputError."""
    from ..preflight import preflight

    workload = as_workload(fields)
    report = await look_elsewhere(host, as_compute_report(compute), python)
    local = None if host else python
    place = gpu_of_call(gpu, report is not None)
    result = await in_thread(partial(preflight, workload, gpu=place, compute=report, python=local), "checking")
    return seen_by_server(result, report)


def seen_by_server(result: Preflight, report: Any) -> Preflight:
    """Says whose machine was seen, where no report of another was given."""
    if report is None and result.compute is not None:
        result.compute = seen_here(result.compute)
    return result


def may_keep(ctx: Context[Any, Any]) -> bool:
    """Whether an answer may be offered to be kept: the caller is on this machine, in a project, with a profile."""
    from ..asking.profile_file import can_keep_for_project

    remote = ctx.request_context.request is not None  # over HTTP the project is the caller's, not the server's folder
    return not remote and can_keep_for_project()


def _from_the_form(error: Exception) -> bool:
    """Whether the SDK says this of the answer to a form, or the client of showing it."""
    return isinstance(error, MCPError) or str(error.__cause__).startswith("Resolver ")


def _carried(context: Context[Any, Any]) -> Question | None:
    """The question of the round before, as the client brought it back; None in a first round."""
    if not context.request_state or not is_stateless(context):
        return None
    from ..asking.question import Question

    try:
        return Question.model_validate(json.loads(context.request_state)[_QUESTION])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


def filled_in(form: BaseModel) -> dict[str, Any]:
    """The fields that the user filled in."""
    return {name: value for name, value in form.model_dump().items() if value not in (None, "")}
