"""The tool that says what compute there is."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio.to_thread
from mcp.types import CallToolResult

from ..answers import answer, concise_compute, full_compute
from ..arguments import Detail, Python
from ..outlines import ComputeOutline


async def detect_compute(
    python: Python = None, detail: Detail = "concise"
) -> Annotated[CallToolResult, ComputeOutline]:
    """Report what compute this machine has: GPUs with free memory, RAM and CPU limits of the container, the
    environment (local, SSH, Colab, Modal, SLURM...), and torch and interpretability libraries in the experiment's
    Python. Use it to learn what is here, or to bring a report of another machine to preflight_experiment; to learn
    whether one experiment fits, call preflight_experiment alone. Reads NVML, environment variables and limits, and
    starts the experiment's Python once; writes nothing."""
    from ...hardware.detect import detect

    found = await anyio.to_thread.run_sync(partial(detect, python=python), abandon_on_cancel=True)
    return answer(full_compute(found) if detail == "full" else concise_compute(found), detail)
