"""The tool that answers everything at once: does it fit, and should the user be asked."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import AcceptedElicitation, ElicitationResult, Resolve
from mcp.types import CallToolResult
from pydantic import BaseModel

from ...errors import InputError
from ..answers import answer, concise_preflight
from ..app import with_plan
from ..arguments import ComputeReport, Gpu, Host, PlanDetail, Python, ShowForm, as_compute_report, as_workload
from ..asking_user import Unasked, ask_user, filled_in, look_and_check, seen_by_server, this_round
from ..form import REMEMBER
from ..hosting import gpu_of_call
from ..looking import in_thread, look_elsewhere, this_call
from ..next_steps import after_preflight, given
from ..outlines import PreflightOutline
from ..pictures import picture_of

if TYPE_CHECKING:
    from ...preflight import Preflight


async def preflight_experiment(
    asked: Annotated[ElicitationResult[BaseModel], Resolve(ask_user)],
    gpu: Gpu = None,
    compute: ComputeReport = None,
    host: Host = None,
    python: Python = None,
    detail: PlanDetail = "concise",
    show_form: ShowForm = True,
    **fields: Any,
) -> Annotated[CallToolResult, PreflightOutline]:
    """Check one experiment before its code is written or run: detects the compute, estimates the memory, says
    whether it fits, what would make it fit, and whether to ask the user, with the words (asking.decision: ask, tell
    or silent). Start here. Where the client shows forms it asks the user itself; an answer that they tick to remember
    goes to the profile. Runs nothing. After a run died: explain_oom; comparing settings: estimate_memory."""
    form: Any = asked.data if isinstance(asked, AcceptedElicitation) else None
    answered: dict[str, Any] = {}
    if isinstance(form, Unasked):
        result = form.result
    else:
        result, answered = await _with_answer(asked.action, form, gpu, compute, host, python, fields)
    arguments = given(fields, gpu=gpu, compute=compute, host=host, python=python)
    result.next_steps = after_preflight(result, arguments)
    if detail == "full":
        said = answer(result, "full")
    else:
        said = answer(concise_preflight(result), "concise")
    if detail == "picture":
        said.content.append(await in_thread(partial(picture_of, result), "drawing"))
    return with_plan(said, result, answered, this_call())


async def _with_answer(
    how: Any, form: BaseModel | None, gpu: str | None, compute: Any, host: str | None, python: str | None, fields: Any
) -> tuple[Preflight, dict[str, Any]]:
    """The preflight again with what the user did with the form, and the arguments that say the same."""
    from ...answered import not_usable, preflight_answered
    from ...asking.answer import keep, settle

    question = this_round().question
    assert question is not None, "an answer came without a question"
    values = {} if form is None else filled_in(form)
    remember = values.pop(REMEMBER, False) is True
    try:
        settled = settle(question, how, values)
    except InputError as error:
        return not_usable(await look_and_check(gpu, compute, host, python, fields), error), {}
    report = await look_elsewhere(host, as_compute_report(compute), python)
    check = partial(
        preflight_answered, as_workload(fields), question, settled,
        gpu=gpu_of_call(gpu, report is not None), compute=report, python=None if host else python,
    )  # fmt: skip
    result = seen_by_server(await in_thread(check, "checking"), report)
    if remember:
        result.known.append(await in_thread(partial(keep, settled), "keeping the answer"))
    return result, given(settled.patch, gpu=settled.gpu)
