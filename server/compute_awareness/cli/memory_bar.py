"""The memory bar: what is alive at the peak against what is free, one letter per component."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..memory.estimate import Estimate
from ..picture import OVERHEAD as REST
from ..picture import PARTS, parts_of
from ..units import gib
from .show import say, table, text

_STYLES = {
    "weights": "blue", "buffers": "cyan", "activation_cache": "yellow", "activations": "green", "logits": "magenta",
    "gradients": "red", "optimizer_state": "bright_blue", "kv_cache": "bright_yellow", "sae_weights": "bright_cyan",
    "sae_activations": "bright_green", "activation_store": "bright_magenta", "temporaries": "white",
}  # fmt: skip
SWATCHES = {name: (PARTS[name][0], f"black on {colour}") for name, colour in _STYLES.items()}
OVERHEAD = (PARTS[REST][0], "black on bright_black")
FREE = "."
LIMIT = "|"


def cells(parts: list[tuple[str, int]], free: int | None, width: int) -> str:
    """The bar as letters: `parts` are (letter, bytes) in order, `free` the bytes that are there (None = not known).

    `width` cells stand for the larger of what is needed and what is free. Where less is free than needed, the cell
    at the limit is `|`. Boundaries are rounded from running sums, so the parts never exceed the whole.
    """
    needed = sum(n for _, n in parts)
    whole = max(needed, free or 0)
    if whole <= 0 or width <= 0:
        return ""
    bar, so_far = "", 0
    for letter, n in parts:
        so_far += n
        bar += letter * (round(so_far / whole * width) - len(bar))
    bar = bar.ljust(width, FREE)
    if free is not None and needed > free:
        at = min(width - 1, round(free / whole * width))
        bar = bar[:at] + LIMIT + bar[at + 1 :]
    return bar


def show_memory(to: Console, estimate: Estimate, needed: int, free: int | None, where: str) -> None:
    """The bar, its caption and the component table.

    Args:
        needed: bytes on `where`; what the tensors leave of it is shown as overhead (CUDA context, allocator,
            and what loading takes beyond the run).
        free: bytes free there; None = not known.
    """
    parts = parts_of(estimate, needed)
    overhead = dict(parts).get(REST, 0)
    bar = cells([(PARTS[name][0], n) for name, n in parts], free, max(10, min(to.width, 100) - 6))
    styles = dict(SWATCHES.values()) | {OVERHEAD[0]: OVERHEAD[1], LIMIT: "bold white on red", FREE: "dim"}
    line = Text("  [")
    for letter in bar:
        line.append(letter, styles[letter])
    to.print(line.append("]"), soft_wrap=True)
    room = "" if free is None else f" of {gib(free)} free"
    limit = f"; {LIMIT} is where it runs out" if free is not None and needed > free else ""
    say(to, f"  {gib(needed)} needed{room} on {where}{limit}")
    to.print()
    rows = [
        (text(*SWATCHES[c.name]) if c.where == "device" else "", c.name + ("" if c.where == "device" else " (RAM)"),
         gib(c.bytes), gib(c.bytes_at_peak) if c.bytes_at_peak else "-", c.detail)
        for c in estimate.components
        if c.bytes > 0
    ]  # fmt: skip
    if overhead:
        what = "context, allocator, the process itself"
        if needed > estimate.range.high:  # more than the run may take anywhere: the verdict's worst moment is another
            what = "what only loading the weights takes; context, allocator"
        rows.append((text(*OVERHEAD), "overhead", "", gib(overhead), what))
    table(to, ("", "component", "largest", "at peak", "what"), rows, right=(2, 3))
