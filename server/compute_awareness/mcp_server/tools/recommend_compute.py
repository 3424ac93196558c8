"""The tool that says which compute to get, or what to change."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from mcp.types import CallToolResult

from ..answers import answer, concise_recommendation
from ..arguments import ComputeReport, Detail, Gpu, as_compute_report, as_workload
from ..outlines import RecommendationOutline


async def recommend_compute(
    gpu: Gpu = None, compute: ComputeReport = None, detail: Detail = "concise", **fields: Any
) -> Annotated[CallToolResult, RecommendationOutline]:
    """Recommend the smallest GPUs that run one experiment, places that rent them (with dated prices), and changes
    that need less memory, each re-estimated and with code. For "which GPU do I need?" and "how do I make it
    smaller?"; whether it fits here is preflight_experiment. Rents and changes nothing."""
    from ...preflight import recommend

    workload, report = as_workload(fields), as_compute_report(compute)
    call = partial(recommend, workload, gpu=gpu, compute=report)
    result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    return answer(result if detail == "full" else concise_recommendation(result), detail)
