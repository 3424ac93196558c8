"""The tool that says which compute to get, or what to change."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult

from ..answers import answer, concise_recommendation
from ..arguments import (
    CardToFit,
    ComputeReport,
    Detail,
    Host,
    LaunchFor,
    LivePrices,
    Run,
    Sweep,
    as_compute_report,
    as_workload,
    given_fields,
)
from ..hosting import checked_if_hosted, gpu_of_call, may_look_here
from ..looking import in_thread, look_elsewhere
from ..next_steps import after_recommendation, given
from ..outlines import RecommendationOutline

MOST_POINTS = 2000  # some milliseconds each: a host may give up on a call after a minute


async def recommend_compute(
    gpu: CardToFit = None,
    compute: ComputeReport = None,
    host: Host = None,
    sweep: Sweep = None,
    launch_for: LaunchFor = None,
    run: Run = None,
    live_prices: LivePrices = False,
    detail: Detail = "concise",
    **fields: Any,
) -> Annotated[CallToolResult, RecommendationOutline]:
    """Recommend the smallest GPUs that run one experiment, places that rent them (with dated prices), and changes
    that need less memory, each re-estimated and with code. Of a grid of runs (sweep): how many share a card, cost.
    For "which GPU?" and "how do I make it smaller?"; does it fit here: preflight_experiment. Rents nothing, looks at
    no machine but host."""
    from ...sweep.grid import axes_of_json
    from ...sweep.recommend import recommend_run, recommend_sweep, with_prices

    asked: dict[str, Any] = {"launch": launch_for, "run": run, "look_here": may_look_here()}
    over = None if sweep is None else axes_of_json(sweep)
    grid = None if over is None else (checked_if_hosted(given_fields(fields), over), over)
    workload = as_workload(fields) if grid is None else None
    asked["compute"] = report = await look_elsewhere(host, as_compute_report(compute))
    asked["gpu"] = gpu_of_call(gpu, report is not None)
    if grid is not None:
        call = partial(recommend_sweep, *grid, most=MOST_POINTS, **asked)
    else:
        call = partial(recommend_run, workload, **asked)
    result = await in_thread(partial(with_prices, live_prices, call), "estimating")
    result.next_steps = after_recommendation(result, given(fields, compute=compute, host=host))
    return answer(result if detail == "full" else concise_recommendation(result), detail)
