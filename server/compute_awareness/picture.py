"""The memory plan as a picture: an SVG of what is alive at the peak, stacked, against the memory of the card.

Each part has a letter besides its colour, the one that the command line's bar and the app of the MCP server have for
it too, so that nobody has to tell thirteen colours apart. The colours are read on white and on black alike.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .units import gib

if TYPE_CHECKING:
    from .advice.answers import Verdict
    from .hardware.compute import Compute
    from .memory.estimate import Estimate

OVERHEAD = "overhead"
PARTS = {
    "weights": ("W", "#4789d4"), "buffers": ("B", "#2ba0b7"), "activation_cache": ("C", "#be892d"),
    "activations": ("A", "#23943f"), "logits": ("L", "#d240d2"), "gradients": ("G", "#d6534f"),
    "optimizer_state": ("O", "#7970de"), "kv_cache": ("K", "#938f22"), "sae_weights": ("S", "#218e78"),
    "sae_activations": ("F", "#659d25"), "activation_store": ("D", "#da619e"), "temporaries": ("T", "#909090"),
    OVERHEAD: ("+", "#6d7a8b"),
}  # fmt: skip
"""Letter and fill of each component, in the order in which an estimate names them. Black is read on every fill."""

_LEFT, _WIDTH, _TOP, _BAR, _ROW = 24, 712, 84, 44, 22
_LETTER_WIDTH = 14
_LINE = 104
_STYLE = """
 .page { fill: #ffffff }
 text { font: 14px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px; fill: #57606a }
 .title { font-size: 16px; font-weight: 600 } .letter { fill: #000; font-weight: 600; text-anchor: middle }
 .end { text-anchor: end } .room { fill: none; stroke: #57606a } .taken { fill: url(#taken); stroke: #57606a }
 .free { stroke: #cf222e; stroke-width: 2.5; stroke-dasharray: 6 3 } .hatch { stroke: #57606a }
 @media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } text { fill: #e6edf3 } .small { fill: #9198a1 } .letter { fill: #000 }
  .room, .taken, .hatch { stroke: #9198a1 } .free { stroke: #ff7b72 }
 }
"""


def parts_of(estimate: Estimate, needed: int) -> list[tuple[str, int]]:
    """(component, bytes at the peak) of what is on the device, in order, and `overhead`: what else makes up `needed`.

    The bytes add up to `needed`, which is what the process takes on the device; where the tensors alone are more, to
    those.
    """
    parts = [(c.name, c.bytes_at_peak) for c in estimate.components if c.where == "device" and c.bytes_at_peak > 0]
    rest = needed - sum(size for _, size in parts)
    return [*parts, (OVERHEAD, rest)] if rest > 0 else parts


def capacity(compute: Compute | None, verdict: Verdict) -> int | None:
    """Bytes that a process could have on the verdict's device if nothing else ran there; None = not known.

    What the driver keeps for itself is not among them. Of a card that was named and not looked at, all of that is free.
    """
    if compute is None:
        return verdict.free_bytes
    if verdict.device.endswith("CPU (RAM)"):
        return compute.host.ram_total_bytes
    for card in compute.accelerators:
        if verdict.device.endswith(card.name) and card.free_bytes == verdict.free_bytes and card.total_bytes:
            return card.total_bytes - (card.reserved_bytes or 0)
    return None


def memory_svg(
    estimate: Estimate,
    title: str,
    *,
    needed: int,
    where: str,
    free: int | None = None,
    room: int | None = None,
    words: str = "",
) -> str:
    """The picture, as the text of an SVG file.

    Args:
        estimate: what is alive at the peak.
        title: what is run, e.g. `activation_cache of gpt2, 1 x 1024 tokens`.
        needed: bytes that the run takes on the device.
        where: the device's name.
        free: bytes free there; None = not known, and no line is drawn.
        room: bytes there were if nothing else ran (`capacity`); None = not known.
        words: the verdict's sentence, beneath the picture and read out with it.
    """
    parts = parts_of(estimate, needed)
    whole = max(sum(size for _, size in parts), free or 0, room or 0, 1)
    scale = _WIDTH / whole

    def x(at: int) -> float:
        return round(_LEFT + at * scale, 1)

    caption = f"{gib(needed)} needed" + (f" of {gib(free)} free on {where}" if free is not None else f" on {where}")
    listed = [f"{name} {gib(size)}" for name, size in parts]
    lines = [
        f'<text class="title" x="{_LEFT}" y="28">{_said(title, 84)}</text>',
        f'<text x="{_LEFT}" y="50">{_said(caption, 96)}</text>',
    ]
    so_far = 0
    for name, size in parts:
        lines += _segment(name, x(so_far), x(so_far + size), f"{name}: {gib(size)}")
        so_far += size
    if room is not None:
        lines.append(f'<rect class="room" x="{_LEFT}" y="{_TOP}" width="{x(room) - _LEFT:.1f}" height="{_BAR}"/>')
        if free is not None and free < room:
            lines.append(
                f'<rect class="taken" x="{x(free)}" y="{_TOP}" width="{x(room) - x(free):.1f}" height="{_BAR}">'
                f"<title>in use already: {gib(room - free)}</title></rect>"
            )
            listed.append(f"in use already {gib(room - free)}")
    if free is not None:
        lines.append(f'<line class="free" x1="{x(free)}" x2="{x(free)}" y1="{_TOP - 8}" y2="{_TOP + _BAR + 8}"/>')
        end = " end" if x(free) > _LEFT + _WIDTH / 2 else ""
        lines.append(f'<text class="small{end}" x="{x(free)}" y="{_TOP - 12}">{gib(free)} free</text>')
    y = _TOP + _BAR + 34
    for name, size in parts:
        letter, fill = PARTS[name]
        lines += [
            f'<rect x="{_LEFT}" y="{y - 14}" width="18" height="18" fill="{fill}"/>',
            f'<text class="letter small" x="{_LEFT + 9}" y="{y}">{letter}</text>',
            f'<text x="{_LEFT + 30}" y="{y}">{name}</text>',
            f'<text class="end" x="{_LEFT + 330}" y="{y}">{gib(size)}</text>',
        ]
        y += _ROW
    if room is not None and free is not None and free < room:
        lines += [
            f'<rect class="taken" x="{_LEFT}" y="{y - 14}" width="18" height="18"/>',
            f'<text x="{_LEFT + 30}" y="{y}">in use already</text>',
            f'<text class="end" x="{_LEFT + 330}" y="{y}">{gib(room - free)}</text>',
        ]
        y += _ROW
    y = _paragraphs(lines, [*_beside(estimate), words], y + 6)
    described = f"{caption}. At the peak: {', '.join(listed)}. {words}".rstrip()
    return _document(title, described, lines, y)


def _segment(name: str, left: float, right: float, said: str) -> list[str]:
    """One part of the bar, with its letter where there is room for it."""
    letter, fill = PARTS[name]
    width = round(right - left, 1)
    drawn = [
        f'<rect class="part" x="{left}" y="{_TOP}" width="{width}" height="{_BAR}" fill="{fill}">'
        f"<title>{said}</title></rect>"
    ]
    if width >= _LETTER_WIDTH:
        drawn.append(f'<text class="letter" x="{round(left + width / 2, 1)}" y="{_TOP + 27}">{letter}</text>')
    return drawn


def _beside(estimate: Estimate) -> list[str]:
    """What is in RAM beside the device: no part of the bar."""
    held = [c for c in estimate.components if c.where == "host" and c.bytes > 0]
    return [f"In RAM beside it: {', '.join(f'{c.name} {gib(c.bytes)}' for c in held)}."] if held else []


def _paragraphs(lines: list[str], texts: Sequence[str], y: int) -> int:
    for paragraph in texts:
        for line in textwrap.wrap(_plain(paragraph), _LINE):
            lines.append(f'<text class="small" x="{_LEFT}" y="{y}">{escape(line)}</text>')
            y += 18
    return y


def _document(title: str, described: str, lines: list[str], bottom: int) -> str:
    width = _LEFT * 2 + _WIDTH
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" width="{width}" height="{bottom}" '
        'role="img" aria-labelledby="name what">',
        f'<title id="name">{_said(title, 200)}</title>',
        f'<desc id="what">{escape(_plain(described))}</desc>',
        f"<style>{_STYLE}</style>",
        '<defs><pattern id="taken" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="hatch" x1="0" x2="0" y1="0" y2="6"/></pattern></defs>',
        f'<rect class="page" width="{width}" height="{bottom}"/>',
    ]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


def _said(text: str, most: int) -> str:
    plain = _plain(text)
    return escape(plain if len(plain) <= most else plain[: most - 3] + "...")


def _plain(text: str) -> str:
    """Without control characters: a model's name comes from outside, and XML has no place for them at all."""
    return "".join(c if c.isprintable() else " " for c in text)
