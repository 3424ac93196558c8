"""The tool that answers everything at once: does it fit, and should the user be asked."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from mcp.types import CallToolResult

from ..answers import answer, concise_preflight
from ..arguments import ComputeReport, Detail, Gpu, Python, as_compute_report, as_workload
from ..outlines import PreflightOutline


async def preflight_experiment(
    gpu: Gpu = None,
    compute: ComputeReport = None,
    python: Python = None,
    detail: Detail = "concise",
    **fields: Any,
) -> Annotated[CallToolResult, PreflightOutline]:
    """Check one experiment before its code is written or run: detects the compute, estimates the memory, says
    whether it fits, what would make it fit, and whether to ask the user, with the words (asking.decision: ask, tell
    or silent). Start here. Runs nothing of the experiment; estimate_memory compares settings without hardware."""
    from ...preflight import preflight

    workload, report = as_workload(fields), as_compute_report(compute)
    call = partial(preflight, workload, gpu=gpu, compute=report, python=python)
    result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    return answer(result if detail == "full" else concise_preflight(result), detail)
