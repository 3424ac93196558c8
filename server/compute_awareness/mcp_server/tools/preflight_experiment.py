"""The tool that answers everything at once: does it fit, and should the user be asked."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult

from ..answers import answer, concise_preflight
from ..arguments import ComputeReport, Detail, Gpu, Host, Python, as_compute_report, as_workload
from ..looking import in_thread, look_elsewhere, seen_here
from ..outlines import PreflightOutline


async def preflight_experiment(
    gpu: Gpu = None,
    compute: ComputeReport = None,
    host: Host = None,
    python: Python = None,
    detail: Detail = "concise",
    **fields: Any,
) -> Annotated[CallToolResult, PreflightOutline]:
    """Check one experiment before its code is written or run: detects the compute, estimates the memory, says
    whether it fits, what would make it fit, and whether to ask the user, with the words (asking.decision: ask, tell
    or silent). Start here. Runs nothing; estimate_memory compares settings without hardware."""
    from ...preflight import preflight

    workload = as_workload(fields)
    report = await look_elsewhere(host, as_compute_report(compute), python)
    local = None if host else python
    result = await in_thread(partial(preflight, workload, gpu=gpu, compute=report, python=local))
    if report is None and result.compute is not None:
        result.compute = seen_here(result.compute)
    return answer(result if detail == "full" else concise_preflight(result), detail)
