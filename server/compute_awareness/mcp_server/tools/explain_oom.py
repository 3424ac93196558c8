"""The tool that explains an out-of-memory message."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult
from pydantic import WithJsonSchema

from ..answers import answer, concise_oom
from ..arguments import CardItRanOn, Detail, as_workload
from ..looking import in_thread
from ..next_steps import after_oom
from ..outlines import OomOutline

Message = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "description": "The error with its traceback, e.g. 'CUDA out of memory. Tried to allocate 2.25 GiB ...'",
        }
    ),
]
RunWorkload = Annotated[
    dict[str, Any] | None,
    WithJsonSchema(
        {
            "type": "object",
            "description": "What was run, in the fields of estimate_memory: {task, model, batch_size, ...}; without it "
            "no tensor is matched and no change computed",
        }
    ),
]


async def explain_oom(
    message: Message, workload: RunWorkload = None, gpu: CardItRanOn = None, detail: Detail = "concise"
) -> Annotated[CallToolResult, OomOutline]:
    """Explain an out-of-memory error (CUDA, HIP, MPS, CPU): what held the memory, which tensor of the workload was
    asked for, in which phase and line, and the changes that cure it, re-estimated. Use it when a run died; before a
    run use preflight_experiment. Looks at no hardware."""
    from ...oom.explain import explain_oom as explain

    parsed = None if workload is None else as_workload(workload)
    result = await in_thread(partial(explain, message, parsed, gpu=gpu), "explaining")
    result.next_steps = after_oom(result, workload, gpu)
    return answer(result if detail == "full" else concise_oom(result), detail)
