"""The tool that says what a workload will take."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from mcp.types import CallToolResult

from ...errors import NotCovered
from ..answers import answer, concise_estimate
from ..arguments import Detail, Python, as_workload
from ..hosting import check_looking, hosting
from ..kept import depends_on_no_file
from ..looking import in_thread, may_be_kept
from ..outlines import EstimateOutline

if TYPE_CHECKING:
    from ...workload import AnyWorkload

_PATTERNS = 64
"""That many are matched against the hooks of every block within the time."""


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
    result = None
    if python is None and _is_quick(workload):
        with suppress(NotCovered):
            result = estimate(workload, may_trace=False)
    if result is None:
        result = await in_thread(partial(estimate, workload, python=python), "estimating")
    # A trace is of what is installed in the experiment's Python at that time.
    if python is None and result.method == "closed_form" and depends_on_no_file(workload):
        may_be_kept()
    return answer(result if detail == "full" else concise_estimate(result), detail)


def _is_quick(workload: AnyWorkload) -> bool:
    """Whether its closed form surely takes no longer than a few hundredths of a second, and mostly a thousandth: then
    a thread's turn would take as long as the estimate, and several times as long on a busy machine.

    Of the catalogue's models all do; numbers may describe ten thousand blocks. A shared server has a time limit, which
    holds in a thread only.
    """
    patterns = getattr(workload, "names_filter", None) or ()
    return (
        hosting() is None
        and workload.estimated_by != "trace"
        and not isinstance(workload.model, dict)
        and depends_on_no_file(workload)
        and len(patterns) <= _PATTERNS
    )
