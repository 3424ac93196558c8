"""A strip plot as SVG text: one row of dots per maker, errors in percent on an axis that spreads what is near zero."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

_LEFT, _WIDTH, _ROW, _TOP = 190, 560, 34, 46
_TICKS = (-100, -50, -20, -5, -1, 0, 1, 5, 20, 50, 100, 300)
_STYLE = """
 text { font: 13px system-ui, sans-serif; fill: #24292f } .small { font-size: 11px; fill: #57606a }
 .axis { stroke: #d0d7de; stroke-width: 1 } .zero { stroke: #57606a; stroke-width: 1.5 }
 .dot { fill: #0969da; fill-opacity: .35 } .median { stroke: #cf222e; stroke-width: 3 }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #8d96a0 } .axis { stroke: #3d444d } .zero { stroke: #8d96a0 }
  .dot { fill: #4493f8; fill-opacity: .45 } .median { stroke: #ff7b72 }
 }
"""


def _spread(percent: float) -> float:
    """Linear within one percent, logarithmic beyond."""
    return math.copysign(math.log10(1 + abs(percent)), percent)


_LOW, _HIGH = _spread(-100), _spread(400)


def _x(percent: float) -> float:
    share = (min(max(_spread(percent), _LOW), _HIGH) - _LOW) / (_HIGH - _LOW)
    return round(_LEFT + share * _WIDTH, 1)


def strips(errors: dict[str, Sequence[float]]) -> str:
    """The plot of `errors` in percent by maker. Errors beyond 400 % are drawn at the right edge."""
    shown = {name: values for name, values in errors.items() if values}
    bottom = _TOP + _ROW * len(shown)
    width, height = _LEFT + _WIDTH + 30, bottom + 50
    title = "Errors of estimated peak memory against the real libraries, one dot per workload"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">',
        f"<style>{_STYLE}</style>",
        f'<text x="10" y="20">{title}</text>',
    ]
    for tick in _TICKS:
        kind = "zero" if tick == 0 else "axis"
        lines.append(f'<line class="{kind}" x1="{_x(tick)}" x2="{_x(tick)}" y1="{_TOP - 8}" y2="{bottom}"/>')
        lines.append(f'<text class="small" x="{_x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick:+d}</text>')
    lines.append(
        f'<text class="small" x="{_LEFT}" y="{bottom + 36}">error in percent; left of 0: the run needs more than was '
        "said; red: median</text>"
    )
    for row, (name, values) in enumerate(shown.items()):
        y = _TOP + _ROW * row + _ROW // 2
        lines.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)} ({len(values)})</text>')
        for number, value in enumerate(sorted(values)):
            lines.append(f'<circle class="dot" cx="{_x(value)}" cy="{y + 4 * (number % 5 - 2)}" r="3"/>')
        median = _x(statistics.median(values))
        lines.append(f'<line class="median" x1="{median}" x2="{median}" y1="{y - 12}" y2="{y + 12}"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"
