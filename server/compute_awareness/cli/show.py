"""What every human rendering shares: the screen, safe text, plain tables. The one home of rich's set-up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process with 1, which here means "does not fit"."""
        raise


def screen() -> Console:
    """Standard output. Colours only on a terminal and never with NO_COLOR; 80 columns where there is no terminal."""
    return _Screen(markup=False, emoji=False, highlight=False)


def text(value: object, style: str = "") -> Text:
    """Text as it stands: no markup is read from it, and control characters (a hostile file name) are blanked."""
    return Text("".join(c if c.isprintable() or c == "\n" else " " for c in str(value)), style=style)


def say(to: Console, value: object, style: str = "") -> None:
    """One paragraph: wrapped for a person's terminal, one long line for a pipe."""
    to.print(text(value, style), soft_wrap=not to.is_terminal)


def put(to: Console, what: RenderableType) -> None:
    """Print a table or a frame; for a pipe without the blanks that fill it up to its width."""
    if to.is_terminal:
        to.print(what)
        return
    with to.capture() as captured:
        to.print(what)
    to.print(text("\n".join(line.rstrip() for line in captured.get().splitlines())), soft_wrap=True)


def heading(to: Console, title: str) -> None:
    to.print()
    to.print(text(title, "bold"))


def bullets(to: Console, lines: Iterable[str], mark: str = "-", style: str = "") -> None:
    """A list; on a terminal the wrapped lines hang under the first word."""
    for line in lines:
        if to.is_terminal:
            row = Table.grid(padding=(0, 1))
            row.add_row(text(mark, style), text(line))
            to.print(row)
        else:
            to.print(text(f"{mark} {line}"), soft_wrap=True)


def code(to: Console, source: str) -> None:
    """Code to copy: indented, never wrapped."""
    for line in source.rstrip().splitlines():
        to.print(text("    " + line, "cyan"), soft_wrap=True)


def table(to: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """A table without rules, so that it is the same in every code page.

    Args:
        columns: the headings; all empty = no heading line.
        right: indices of the columns of figures, set to the right and never broken.
    """
    numbers = set(right)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns), header_style="bold")
    for i, name in enumerate(columns):
        last = i == len(columns) - 1
        grid.add_column(
            text(name), justify="right" if i in numbers else "left", no_wrap=i in numbers,
            overflow="fold", ratio=None, min_width=None if not last else min(12, to.width),
        )  # fmt: skip
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else text("" if cell is None else cell) for cell in row))
    put(to, Padding(grid, (0, 0, 0, 2)))


def pairs(to: Console, rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is empty or None is left out."""
    table(to, ("", ""), [(text(name, "bold"), value) for name, value in rows if value not in (None, "")])
