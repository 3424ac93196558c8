"""`compute-awareness install` and `uninstall`: the line that attaches the server to an assistant."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from ..attach.hosts import HOSTS, SCOPES, Scope

if TYPE_CHECKING:
    from ..attach.change import Change
    from ..attach.launch import How

_ids = ", ".join(HOSTS)
_scope = click.option(
    "--scope", type=click.Choice(SCOPES), default="user", show_default=True,
    help="For you everywhere; for everyone in this project (its file is shared); for you in this project.",
)  # fmt: skip
_dry_run = click.option("--dry-run", is_flag=True, help="Show the lines that would change, and change nothing.")


@click.command(help=f"Attach the server to ASSISTANT: {_ids}.")
@click.argument("assistant")
@_scope
@click.option(
    "--launch", type=click.Choice(["this", "uvx"]),
    help="Start the program that runs now, by its path, or by uvx. Default: uvx in a project's file, else this one.",
)  # fmt: skip
@_dry_run
def install(assistant: str, scope: Scope, launch: str | None, dry_run: bool) -> int:
    from ..attach.change import planned
    from ..attach.hosts import find_host
    from ..attach.launch import command_for

    host = find_host(assistant)
    change = planned(host, scope, host.entry(*command_for(scope, cast("How | None", launch))))
    if not change.changes:
        click.echo(f"{change.path} has it already.")
        return 0
    return _do(change, dry_run, f"Added to {host.title}: {change.path}", host.then)


@click.command(help=f"Take the server out of ASSISTANT: {_ids}.")
@click.argument("assistant")
@_scope
@_dry_run
def uninstall(assistant: str, scope: Scope, dry_run: bool) -> int:
    from ..attach.change import planned
    from ..attach.hosts import find_host

    host = find_host(assistant)
    change = planned(host, scope, None)
    if not change.changes:
        click.echo(f"{change.path} does not have it.")
        return 0
    return _do(change, dry_run, f"Taken out of {host.title}: {change.path}", "")


def _do(change: Change, dry_run: bool, done: str, then: str) -> int:
    from ..attach.change import apply

    if dry_run:
        click.echo(change.diff())
        return 0
    written = apply(change)
    click.echo(done)
    if written.copy:
        click.echo(f"The file as it was: {written.copy}")
    if then:
        click.echo(then)
    return 0
