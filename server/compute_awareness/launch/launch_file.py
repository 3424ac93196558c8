"""From a workload to a task file: the one function, and what is told about the file."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..hardware.compute import Compute
from ..units import duration
from ..workload import AnyWorkload
from .answers import Engine, LaunchFile
from .cluster import slurm_in_sight
from .engines import start_command, task_file
from .plan import Plan, deal_for, engine_named, plan_for
from .sweep_files import MOST_RUNS, skypilot_jobs, slurm_array


def launch_file(
    workload: AnyWorkload, engine: str, run: str, gpu: str | None = None, python: str | None = None,
    compute: Compute | None = None, look_here: bool = True,
) -> LaunchFile:  # fmt: skip
    """The task file that runs the shell command `run` for `workload` on `engine`.

    For slurm it asks for what a cluster in sight has: that of the report `compute`, else the one that this machine
    can ask, unless `look_here` is false. Other arguments and errors as in `plan.plan_for`.
    """
    known = engine_named(engine)
    clusters = slurm_in_sight(compute, look_here) if known == "slurm" else []
    plan = plan_for(workload, known, run, gpu, python, clusters)
    file_name, text = task_file(known, plan)
    deal = deal_for(known, plan.gpu.id, plan.count)
    usd = None if deal is None else tuple(round(deal.usd_per_hour * hours, 2) for hours in plan.hours)
    price = "" if deal is None else f"{deal.usd_per_hour:g} USD/h, {deal.platform.name} ({deal.offer.date})"
    card = f"{plan.count} x {plan.gpu.name}" if plan.count > 1 else plan.gpu.name
    cost = "" if usd is None or usd[1] == 0 else f", about {usd[0]:g} to {usd[1]:g} USD at {price}"
    return LaunchFile(
        engine=known,
        file_name=file_name,
        text=text,
        start=start_command(known, file_name),
        gpu=plan.gpu.name,
        count=plan.count,
        limit_seconds=plan.limit_s,
        disk_gib=plan.disk_gib,
        ram_gib=plan.ram_gib,
        usd=(usd[0], usd[1]) if usd else None,
        price=price,
        notes=list(plan.notes),
        summary=(
            f"{file_name} runs it on {card} with a limit of {duration(plan.limit_s)}{cost}. "
            f"Nothing was started: {start_command(known, file_name)}."
        ),
    )


def sweep_engine(name: str) -> Engine:
    """The engine of that name. Raises InputError for an unknown one, and one without arrays or job groups."""
    engine = engine_named(name)
    if engine not in ("slurm", "skypilot"):
        raise InputError(f"a sweep's task file is written for slurm or skypilot, not for {engine}")
    return engine


def sweep_launch_file(
    plan: Plan, engine: Engine, commands: Sequence[str], shares: Sequence[Sequence[int]],
    usd: tuple[float, float] | None, price: str,
) -> LaunchFile:  # fmt: skip
    """The task file that runs each of `commands` once.

    Args:
        engine: from `sweep_engine`.
        plan: of a machine on which each of the runs can take place.
        shares: indices of the commands for each machine that is used at once; SLURM is told their number only.
        usd, price: of all runs, as `LaunchFile` has them.
    Raises:
        InputError: more commands than one file may have.
    """
    if len(commands) > MOST_RUNS:
        raise InputError(f"the sweep has {len(commands):,} runs; a task file is written for at most {MOST_RUNS:,}")
    machines = len(shares)
    if engine == "slurm":
        file_name = f"{plan.name}-sweep.sbatch"
        text, start = slurm_array(plan, commands, machines), start_command("slurm", file_name)
    else:
        file_name = f"{plan.name}-sweep.sky.yaml"
        text = skypilot_jobs(plan, commands, shares)
        # A job group is a managed job; one task alone is a cluster of its own, which needs no controller.
        start = f"sky jobs launch {file_name}" if machines > 1 else start_command("skypilot", file_name)
    at_once = f", at most {machines} at a time" if machines > 1 else ", one at a time"
    cost = "" if usd is None else f", about {usd[0]:g} to {usd[1]:g} USD at {price}"
    return LaunchFile(
        engine=engine,
        file_name=file_name,
        text=text,
        start=start,
        gpu=plan.gpu.name,
        count=machines,
        limit_seconds=plan.limit_s,
        disk_gib=plan.disk_gib,
        ram_gib=plan.ram_gib,
        usd=usd,
        price=price,
        notes=list(plan.notes),
        summary=(
            f"{file_name} has {len(commands)} runs on {plan.gpu.name}{at_once}, each with a limit of "
            f"{duration(plan.limit_s)}{cost}. Nothing was started: {start}."
        ),
    )
