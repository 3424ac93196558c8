"""`compute-awareness launch-file`: the task file of one run; nothing is started."""

from __future__ import annotations

from typing import Any

import click

from .given import WorkloadCommand, workload_from, write_new
from .options import compute_option, elsewhere, host_option, json_option, live_option, print_json, python_option


@click.command(name="launch-file", cls=WorkloadCommand)
@click.option(
    "--for", "engine", metavar="skypilot|slurm|modal|colab|dstack", required=True, help="The engine that will start it."
)
@click.option("--run", metavar="COMMAND", required=True, help='What to run there, e.g. "python train_sae.py".')
@click.option("--gpu", metavar="NAME", help="The card; the smallest that fits where it is not given.")
@compute_option
@host_option
@click.option("--out", metavar="FILE", help="Write it there instead of printing it; an existing file is kept.")
@python_option
@live_option
@json_option
def launch_file(
    source: str | None,
    engine: str,
    run: str,
    gpu: str | None,
    compute: str | None,
    host: str | None,
    out: str | None,
    python: str | None,
    live: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Write a task file for an engine that starts runs. It starts nothing and spends nothing.

    For slurm it asks for the partition, card, account and time of the cluster in sight.
    """
    from ..advice.live_prices import live_prices
    from ..launch.launch_file import launch_file as file_for

    workload = workload_from(source, flags)
    report = elsewhere(compute, host, python)
    with live_prices(live) as told:
        answer = file_for(workload, engine, run, gpu, None if host else python, report)
    answer.notes += [told] if told else []
    if out is not None:
        write_new(out, answer.text)
    if as_json:
        print_json(answer)
    elif out is not None:
        click.echo(f"{out}: {answer.summary}")
    else:
        click.echo(answer.text, nl=False)
        click.echo(answer.summary, err=True)
        if told:
            click.echo(told, err=True)
    return 0
