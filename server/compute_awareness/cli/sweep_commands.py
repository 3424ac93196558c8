"""`compute-awareness sweep`: a grid of runs."""

from __future__ import annotations

from typing import Any

import click

from .given import WorkloadCommand, fields_from, write_new
from .options import compute_option, elsewhere, host_option, json_option, live_option, print_json, python_option


@click.command(cls=WorkloadCommand)
@click.option(
    "--over", multiple=True, metavar="FIELD=VALUES", help="A field that varies: expansion_factor=8,16,32, "
    "hook_layer=0..11 (the block in hook_name), batch_size=1,2,4. Every combination is a run; a `sweep` object in "
    "the JSON says the same."
)  # fmt: skip
@click.option(
    "--gpu", metavar="NAME", help='The card of each run; "4xA100-80GB" = four at once, one run on each. The cheapest '
    "that holds every run where it is not given."
)  # fmt: skip
@compute_option
@host_option
@python_option
@click.option("--launch", metavar="slurm|skypilot", help="Also write a SLURM array or SkyPilot jobs; starts nothing.")
@click.option(
    "--run", metavar="COMMAND", help='With --launch: what each run is, e.g. "python train.py --layer {hook_layer}".'
)
@click.option("--out", metavar="FILE", help="Write the task file there; an existing file is kept.")
@live_option
@json_option
def sweep(
    source: str | None,
    over: tuple[str, ...],
    gpu: str | None,
    compute: str | None,
    host: str | None,
    python: str | None,
    launch: str | None,
    run: str | None,
    out: str | None,
    live: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Say what a grid of runs takes. Which fit, how many side by side, hours, cost, a task file."""
    from ..advice.live_prices import live_prices
    from ..errors import InputError
    from ..sweep.grid import SWEEP, axes_of_flags, axes_of_json, joined
    from ..sweep.sweep import sweep as sweep_over

    base = fields_from(source, flags)
    if not isinstance(base, dict):
        raise InputError(f"a workload is a JSON object with a 'task', not {type(base).__name__}")
    if out is not None and launch is None:
        raise InputError("--out is for the task file: give --launch slurm or --launch skypilot, and --run")
    axes = joined(axes_of_flags(over), axes_of_json(base.pop(SWEEP, {})))
    report = elsewhere(compute, host, python)
    with live_prices(live) as told:
        answer = sweep_over(
            base, axes, gpu=gpu, compute=report, python=None if host else python, launch=launch, run=run
        )
    answer.notes += [told] if told else []
    if answer.launch is not None and out is not None:
        write_new(out, answer.launch.text)
    if as_json:
        print_json(answer)
    else:
        from .show_sweep import show_sweep

        show_sweep(answer, out)
    return 1 if answer.does_not_fit == answer.count else 0
