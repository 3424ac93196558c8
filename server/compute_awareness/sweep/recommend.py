"""A recommendation for one run or a grid of them, with the task file where one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..advice.gpus import find_gpu
from ..advice.live_prices import live_prices
from ..errors import InputError
from ..hardware.compute import Compute
from ..launch.launch_file import launch_file
from ..preflight import Recommendation, recommend
from ..workload import AnyWorkload
from .grid import MOST_POINTS, points_of
from .sweep import sweep


def recommend_sweep(
    base: Mapping[str, Any],
    over: Mapping[str, Sequence[Any]],
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    launch: str | None = None,
    run: str | None = None,
    most: int = MOST_POINTS,
    look_here: bool = True,
) -> Recommendation:
    """The sweep, and what is recommended for its largest run. Arguments and errors as in `sweep.sweep`."""
    answer = sweep(base, over, gpu=gpu, compute=compute, launch=launch, run=run, most=most, look_here=look_here)
    (largest,) = points_of(base, {name: [value] for name, value in answer.largest.values.items()})
    result = recommend(largest.workload, gpu=_one(gpu), compute=compute)
    result.sweep = answer
    file = f" {answer.launch.summary}" if answer.launch else ""
    result.summary = f"{answer.summary}{file} Of the largest run: {result.summary}"
    return result


def recommend_run(
    workload: AnyWorkload,
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    launch: str | None = None,
    run: str | None = None,
    look_here: bool = True,
) -> Recommendation:
    """What is recommended for one run; with `launch`, the task file that starts the command `run` there, too.

    Raises:
        InputError: as of `preflight.recommend` and `launch_file`; one of `launch` and `run` without the other.
    """
    if (launch is None) != (run is None):
        raise InputError("launch and run go together: launch_for is the engine, run the experiment's own command")
    result = recommend(workload, gpu=gpu, compute=compute)
    if launch is not None and run is not None:
        card = None if _says_no_card(gpu) else gpu
        result.launch = launch_file(workload, launch, run, card, compute=compute, look_here=look_here)
        result.summary = f"{result.launch.summary} {result.summary}"
    return result


def with_prices(live: bool, call: Callable[[], Recommendation]) -> Recommendation:
    """What `call` recommends, at live prices where `live` asks for them and they can be had."""
    with live_prices(live) as told:
        result = call()
    result.prices = told
    return result


def _says_no_card(gpu: str | None) -> bool:
    return (gpu or "").strip().lower() in ("none", "unknown")


def _one(gpu: str | None) -> str | None:
    return gpu if gpu is None or _says_no_card(gpu) else find_gpu(gpu).gpu.id
