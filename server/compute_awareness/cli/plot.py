"""The picture of `--plot`: an answer as an SVG or a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..memory.estimate import Estimate
from ..picture import capacity, memory_svg
from .given import is_svg, write_new
from .show_estimate import workload_line
from .show_preflight import STATUS

if TYPE_CHECKING:
    from ..preflight import Preflight


def estimate_svg(answer: Estimate) -> str:
    """Of an estimate, which knows no card."""
    return memory_svg(
        answer, workload_line(answer.workload), needed=answer.peak.device, where="the device", words=answer.summary
    )


def preflight_svg(answer: Preflight) -> str:
    """Of a preflight: against the card it was held to."""
    verdict = answer.verdict
    return memory_svg(
        answer.estimate,
        workload_line(answer.estimate.workload),
        needed=verdict.needed_bytes,
        where=verdict.device,
        free=verdict.free_bytes,
        room=capacity(answer.compute, verdict),
        words=f"{STATUS[verdict.status][0]}. {verdict.why}",
    )


def write_picture(path: str, svg: str) -> None:
    """The picture as a new file, of the kind that its name says. Raises InputError as `write_new` does."""
    if is_svg(path):
        write_new(path, svg, "--plot")
        return
    from ..picture_png import png_of

    write_new(path, png_of(svg), "--plot")
