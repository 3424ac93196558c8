"""What several commands share: options, the report of another machine, printing a document."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .given import compute_from

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..hardware.compute import Compute

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
python_option = click.option(
    "--python", metavar="PATH", help="The experiment's Python, where it is not the active one."
)
host_option = click.option(
    "--host", metavar="HOST", help="Look at another machine by your own ssh: an alias of ~/.ssh/config, user@host. "
    "Nothing is installed there; no password is ever asked for."
)  # fmt: skip
gpu_option = click.option(
    "--gpu", metavar="NAME|none|unknown", help='The card the run will have: "RTX 4090", "A100-80GB", "2xH100"; '
    "none; or unknown, where another machine will run it."
)  # fmt: skip
compute_option = click.option(
    "--compute", metavar="REPORT.json", help="A report of `detect --json` from elsewhere, or what the script of "
    "`detect --script` printed there."
)  # fmt: skip
live_option = click.option(
    "--live-prices", "live", is_flag=True, help="Ask for prices online (extra `prices`, at most 20 s); each price says "
    "whether it is live or dated."
)  # fmt: skip
plot_option = click.option(
    "--plot",
    metavar="OUT.svg",
    help="Also draw the memory there, as SVG or (extra `plot`) PNG; an existing file is kept.",
)


def elsewhere(report: str | None, host: str | None, python: str | None = None) -> Compute | None:
    """The report of the file, or of the host; None where neither is given. Raises InputError."""
    from ..errors import InputError

    if report and host:
        raise InputError("--host looks at a machine and --compute is a report of one: give one of them")
    if report:
        return compute_from(report)
    if host is None:
        return None
    from ..hardware.detect import detect_at

    return detect_at(host, python)


def print_json(answer: BaseModel | dict[str, Any]) -> None:
    """One JSON document on standard output."""
    data = answer if isinstance(answer, dict) else answer.model_dump(mode="json")
    # ASCII on purpose: the document is the same whatever code page the console has.
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def say_plot(plot: str | None) -> None:
    """Where the picture was drawn, if one was."""
    if plot is not None:
        click.echo(f"Picture: {plot}")
