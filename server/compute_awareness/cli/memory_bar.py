"""The memory bar: what is alive at the peak against what is free, one letter per component."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..memory.estimate import Estimate
from ..units import gib
from .show import say, table, text

SWATCHES = {
    "weights": ("W", "black on blue"), "buffers": ("B", "black on cyan"),
    "activation_cache": ("C", "black on yellow"), "activations": ("A", "black on green"),
    "logits": ("L", "black on magenta"), "gradients": ("G", "black on red"),
    "optimizer_state": ("O", "black on bright_blue"), "kv_cache": ("K", "black on bright_yellow"),
    "sae_weights": ("S", "black on bright_cyan"), "sae_activations": ("F", "black on bright_green"),
    "activation_store": ("D", "black on bright_magenta"), "temporaries": ("T", "black on white"),
}  # fmt: skip
OVERHEAD = ("+", "black on bright_black")
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
        needed: bytes on `where`; what the tensors leave of it is shown as overhead (CUDA context, allocator).
        free: bytes free there; None = not known.
    """
    device = [c for c in estimate.components if c.where == "device"]
    parts = [(SWATCHES[c.name][0], c.bytes_at_peak) for c in device if c.bytes_at_peak > 0]
    overhead = max(0, needed - sum(n for _, n in parts))
    bar = cells([*parts, (OVERHEAD[0], overhead)], free, max(10, min(to.width, 100) - 6))
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
        rows.append((text(*OVERHEAD), "overhead", "", gib(overhead), "context, allocator, the process itself"))
    table(to, ("", "component", "largest", "at peak", "what"), rows, right=(2, 3))
