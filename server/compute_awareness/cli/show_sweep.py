"""A sweep for a person: the runs by size, what shares a card, hours and cost, and the task file."""

from __future__ import annotations

import click

from ..sweep.answers import Sweep, SweepPoint
from ..units import duration, gib
from .show import bullets, heading, pairs, say, screen, table

_ROWS = 40
_STATUS = {"fits": "fits", "tight": "tight", "does_not_fit": "does not fit", "unknown": "unknown"}


def show_sweep(answer: Sweep, out: str | None) -> None:
    """Print the answer; the task file, where it was not written to `out`, comes last and alone is fit for a file."""
    to = screen()
    if answer.launch is not None and out is None:
        # The file alone on standard output, so that it can be piped; what was counted on the other.
        click.echo(answer.launch.text, nl=False)
        for line in (answer.summary, answer.launch.summary, *answer.notes, *answer.warnings):
            click.echo(line, err=True)
        return
    say(to, answer.summary, "bold")
    heading(to, "Runs")
    shown = sorted(answer.points, key=lambda point: -point.needed_bytes)[:_ROWS]
    first = len(answer.over)
    columns = (*answer.over, "needed", "at most", "", "time")
    table(to, columns, [_row(point) for point in shown], right=(first, first + 1))
    if len(shown) < answer.count:
        say(to, f"  and {answer.count - len(shown)} smaller ones (--json has all)")
    heading(to, "Together")
    pairs(to, _together(answer))
    bullets(to, answer.notes)
    bullets(to, answer.warnings, "!", "bold yellow")
    if answer.launch is not None:
        say(to, f"{out}: {answer.launch.summary}")


def _row(point: SweepPoint) -> tuple[str, ...]:
    low, high = (duration(hours * 3600) for hours in point.hours)
    time = low if low == high else f"{low} to {high}"
    return *map(str, point.values.values()), gib(point.needed_bytes), gib(point.high_bytes), _STATUS[point.status], time


def _together(answer: Sweep) -> list[tuple[str, str | None]]:
    def span(hours: tuple[float, float]) -> str:
        return f"{duration(hours[0] * 3600)} to {duration(hours[1] * 3600)}"

    beside = answer.side_by_side
    if answer.does_not_fit == answer.count:
        return [("one after the other", "no run fits")]
    rows: list[tuple[str, str | None]] = [("one after the other", f"{span(answer.gpu_hours)} (a wide range)")]
    if answer.cards > 1:
        rows.append((f"on {answer.cards} cards", span(answer.hours)))
    if beside is not None:
        rows += [
            ("side by side", f"any {beside.any} on one card, at most {beside.most}"),
            (
                "groups",
                f"{len(beside.groups)}, each holds on one card (no packing has fewer than {beside.groups_at_least})",
            ),
            ("the groups' time", f"{span(beside.hours)}: the low end only where no run slows another"),
        ]
    if answer.usd is not None:
        rows.append(("cost", f"{answer.usd[0]:g} to {answer.usd[1]:g} USD at {answer.price}"))
    return rows
