"""The tool that says which compute to get, or what to change."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult

from ..answers import answer, concise_recommendation
from ..arguments import ComputeReport, Detail, Gpu, Host, as_compute_report, as_workload
from ..hosting import place_of
from ..looking import in_thread, look_elsewhere
from ..next_steps import after_recommendation, given
from ..outlines import RecommendationOutline


async def recommend_compute(
    gpu: Gpu = None, compute: ComputeReport = None, host: Host = None, detail: Detail = "concise", **fields: Any
) -> Annotated[CallToolResult, RecommendationOutline]:
    """Recommend the smallest GPUs that run one experiment, places that rent them (with dated prices), and changes
    that need less memory, each re-estimated and with code. For "which GPU do I need?" and "how do I make it
    smaller?"; not for whether it fits here (preflight_experiment). Rents and changes nothing."""
    from ...preflight import recommend

    workload = as_workload(fields)
    report = await look_elsewhere(host, as_compute_report(compute))
    place = place_of(gpu, report is not None)
    result = await in_thread(partial(recommend, workload, gpu=place, compute=report), "estimating")
    result.next_steps = after_recommendation(result, given(fields, compute=compute, host=host))
    return answer(result if detail == "full" else concise_recommendation(result), detail)
