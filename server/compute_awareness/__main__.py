"""`compute-awareness` and `python -m compute_awareness`: the MCP server, or with arguments the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code. Serves where there are no arguments, as hosts start it; else hands over to the command line."""
    if len(sys.argv) > 1:
        from .cli import main as command_line

        return command_line()
    if sys.stdin is None or sys.stdout is None:
        print("error: MCP is served on standard input and output, and one of them is closed", file=sys.stderr)
        return 2
    if sys.stdin.isatty():
        print("Serving MCP on stdin and stdout. For the command line: compute-awareness --help", file=sys.stderr)
    import gc

    # The SDK's import makes some 10^5 long-lived objects; collecting among them costs up to a third of the start.
    gc.disable()
    from .mcp_server.server import serve

    gc.freeze()
    gc.enable()
    try:
        serve()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
