"""`compute-awareness estimate` and `recommend`: what a workload takes, what makes it smaller, which GPUs hold it."""

from __future__ import annotations

from typing import Any

import click

from .given import WorkloadCommand, workload_from
from .options import (
    compute_option,
    elsewhere,
    gpu_option,
    host_option,
    json_option,
    live_option,
    plot_option,
    print_json,
    python_option,
    say_plot,
)
from .plot import picture_path, write_picture


@click.command(cls=WorkloadCommand)
@python_option
@plot_option
@json_option
def estimate(source: str | None, python: str | None, plot: str | None, as_json: bool, **flags: Any) -> int:
    """Say what a workload takes. Bytes by component, the peak, the range; looks at no machine."""
    from ..estimator import estimate as estimate_workload

    plot = picture_path(plot)
    answer = estimate_workload(workload_from(source, flags), python=python)
    if plot is not None:
        from ..picture_of import estimate_svg

        write_picture(plot, estimate_svg(answer))
    if as_json:
        print_json(answer)
    else:
        from .show_estimate import show_estimate

        show_estimate(answer)
        say_plot(plot)
    return 0


@click.command(cls=WorkloadCommand)
@gpu_option
@compute_option
@host_option
@live_option
@json_option
def recommend(
    source: str | None, gpu: str | None, compute: str | None, host: str | None, live: bool, as_json: bool, **flags: Any
) -> int:
    """Say what to change or where to run. Changes with their savings, GPUs and platforms that fit."""
    from ..advice.live_prices import live_prices
    from ..preflight import recommend as recommend_for

    workload = workload_from(source, flags)
    report = elsewhere(compute, host)
    with live_prices(live) as told:
        answer = recommend_for(workload, gpu=gpu, compute=report)
    answer.prices = told
    if as_json:
        print_json(answer)
    else:
        from .show_preflight import show_recommendation

        show_recommendation(answer)
    return 0
