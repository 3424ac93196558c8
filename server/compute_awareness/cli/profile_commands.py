"""`compute-awareness profile`: what the user agreed to have kept about their machines."""

from __future__ import annotations

import json
from typing import Any

import click

_project = click.option("--project", is_flag=True, help="Keep it for this project only, in .compute-awareness.toml.")


@click.group()
def profile() -> None:
    """Show or change what is kept about your machines. So that no assistant asks twice; no secrets, plain TOML."""


@profile.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def show(as_json: bool) -> int:
    """Show what is kept, and in which files."""
    from ..asking.profile_file import read_profile

    kept = read_profile()
    if as_json:
        click.echo(json.dumps(kept.model_dump(mode="json"), indent=2))
    else:
        from .show_profile import show_profile

        show_profile(kept)
    return 0


@profile.command(name="set")
@click.argument("name")
@click.option("--gpu", metavar="NAME|none", help='Its card: "RTX 4090", "2xH100"; none for a machine without one.')
@click.option("--where", metavar="TEXT", help='Where it is, e.g. "Colab" or "the lab\'s cluster".')
@click.option("--host", metavar="ALIAS", help="Its name for ssh.")
@click.option("--max-hours", type=float, metavar="NUMBER", help="The longest run there.")
@click.option("--usd-per-hour", type=float, metavar="NUMBER", help="What it costs.")
@click.option("--default", is_flag=True, help="Experiments run there unless told otherwise.")
@_project
def set_(name: str, project: bool, default: bool, **fields: Any) -> int:
    """Keep a machine by NAME, or change what is kept of it."""
    from ..advice.gpus import find_gpu
    from ..asking.profile_file import set_machine

    if fields["gpu"] is not None and fields["gpu"].strip().lower() != "none":
        find_gpu(fields["gpu"])  # a card that is not known helps nobody later
    path = set_machine(name, fields, "project" if project else "user", default=default)
    click.echo(f"{name} is kept in {path}")
    return 0


@profile.command()
@click.option("--max-usd", type=float, metavar="NUMBER", help="What one run may cost without a question.")
@click.option("--max-hours", type=float, metavar="NUMBER", help="How long one run may take without a question.")
@_project
def budget(max_usd: float | None, max_hours: float | None, project: bool) -> int:
    """Keep what a run may cost or take before it is worth a question."""
    from ..asking.profile_file import set_budget
    from ..errors import InputError

    if max_usd is None and max_hours is None:
        raise InputError("give --max-usd or --max-hours")
    path = set_budget(max_usd, max_hours, "project" if project else "user")
    click.echo(f"the budget is kept in {path}")
    return 0


@profile.command()
@click.argument("name", metavar="NAME|budget")
@_project
def forget(name: str, project: bool) -> int:
    """Forget a machine by NAME, or the budget."""
    from ..asking.profile_file import forget as forget_in

    path = forget_in(name, "project" if project else "user")
    click.echo(f"{name} is no longer in {path}")
    return 0
