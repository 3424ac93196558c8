"""The table of tools in the README: `python -m compute_awareness.mcp_server.table README.md` writes it there."""

from __future__ import annotations

import sys
from pathlib import Path

START, END = "<!-- tools:start -->", "<!-- tools:end -->"


def tool_table() -> str:
    """A Markdown table of the tools: name and first sentence of the description."""
    from .server import tools

    rows = [f"| `{tool.name}` | {first_sentence(tool.description)} |" for tool in tools()]
    return "\n".join(["| tool | what it does |", "|---|---|", *rows])


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return text.split(". ", 1)[0].rstrip(".") + "."


def write_table(path: Path) -> None:
    """Puts the table between the two marks of a Markdown file. Raises ValueError where a mark is missing."""
    before, mark, rest = path.read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path.name} lacks {START} or {END}")
    path.write_text(f"{before}{START}\n{tool_table()}\n{END}{after}", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        write_table(Path(sys.argv[1]))
    else:
        print(tool_table())
