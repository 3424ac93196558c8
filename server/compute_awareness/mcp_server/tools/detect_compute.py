"""The tool that says what compute there is."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult

from ..answers import answer, concise_compute, full_compute
from ..arguments import Detail, Host, Python
from ..looking import look
from ..outlines import ComputeOutline


async def detect_compute(
    host: Host = None, python: Python = None, detail: Detail = "concise"
) -> Annotated[CallToolResult, ComputeOutline]:
    """Report what compute this machine has, or another one over ssh (host): GPUs with free memory, RAM and CPU limits
    of the container, the environment (local, SSH, Colab, Modal, SLURM...), and torch and interpretability libraries
    in the experiment's Python. "This machine" is where the server runs (see seen_from), perhaps not where
    experiments do. To learn whether one experiment fits, call preflight_experiment alone. Writes nothing; starts the
    experiment's Python once."""
    found = await look(host, python)
    return answer(full_compute(found) if detail == "full" else concise_compute(found), detail)
