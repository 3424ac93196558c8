"""The tool that says what a workload will take."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult

from ..answers import answer, concise_estimate
from ..arguments import Detail, Python, as_workload
from ..hosting import check_looking
from ..kept import depends_on_no_file
from ..looking import in_thread, may_be_kept
from ..outlines import EstimateOutline


async def estimate_memory(
    python: Python = None, detail: Detail = "concise", **fields: Any
) -> Annotated[CallToolResult, EstimateOutline]:
    """Estimate the memory of one experiment in bytes, by component (weights, activation cache, optimizer state...),
    with peak, range and how exact it is. For comparing settings when the hardware does not matter; to learn whether
    it fits use preflight_experiment, for which GPU to get recommend_compute. Looks at no hardware; fetches a model's
    config where it has to."""
    from ...estimator import estimate

    check_looking(None, python)
    workload = as_workload(fields)
    result = await in_thread(partial(estimate, workload, python=python), "estimating")
    # A trace is of what is installed in the experiment's Python at that time.
    if python is None and result.method == "closed_form" and depends_on_no_file(workload):
        may_be_kept()
    return answer(result if detail == "full" else concise_estimate(result), detail)
