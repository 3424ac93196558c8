"""A grid of runs: what each takes, how many share a card, hours and money for all of them, the file that runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

from ..advice.gpu_table import Gpu, all_gpus
from ..advice.gpus import find_gpu
from ..advice.place import Place, named_place, needed, seen_place
from ..advice.platforms import Deal, cheapest
from ..advice.verdict import verdict_at
from ..errors import InputError
from ..estimator import estimate
from ..hardware.compute import Compute
from ..launch.answers import Engine, LaunchFile
from ..launch.cluster import Way, slurm_in_sight
from ..launch.launch_file import sweep_engine, sweep_launch_file
from ..launch.plan import can_name, deal_for, machine_for, run_cost, way_for
from ..memory.estimate import Estimate
from ..runtime.duration import estimate_time
from ..units import duration, gib
from .answers import SideBySide, Sweep, SweepPoint
from .commands import commands_of
from .grid import MOST_POINTS, Point, points_of, spelled_point
from .packing import any_of, first_fit_decreasing, groups_at_least, longest_first, most_of

MOST_TRACED = 50  # a trace takes seconds
_WARNINGS_KEPT = 5


def sweep(
    base: Mapping[str, Any],
    over: Mapping[str, Sequence[Any]],
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    python: str | None = None,
    launch: str | None = None,
    run: str | None = None,
    most: int = MOST_POINTS,
    look_here: bool = True,
) -> Sweep:
    """What a grid of runs takes, each on one card.

    Args:
        base: the fields that all runs share, as a workload's JSON has them.
        over: field -> its values; `hook_layer` is the block number within `hook_name`.
        gpu: the card ("A100-80GB"); "4xA100-80GB" = four of them at once, one run on each; "none" = the CPU of
            `compute`; None = its card, else the cheapest for these runs of the cards of the table that hold each.
        compute: a report of the machine that will run it; nothing is looked at here but, for `launch` "slurm", the
            cluster that this machine can ask. With `launch` only the report's cluster counts.
        python: the experiment's interpreter, should the estimates need a trace.
        launch: "slurm" or "skypilot", for the task file that runs them; `run` is then the command, with {field}s.
        most: the most points that are estimated; each takes some milliseconds.
    Raises:
        InputError: as of `points_of` and `commands_of`; an unknown card; no card that holds the largest run.
    """
    points = points_of(base, over, most)
    engine = None if launch is None else sweep_engine(launch)
    if (launch is None) != (run is None):
        raise InputError(
            "launch and run go together: the engine (launch_for, --launch), and the command with the {fields} of the "
            "grid (run, --run)"
        )
    commands = [] if run is None else commands_of(run, [point.values for point in points])
    if engine is not None and (gpu or "").strip().lower() == "none":
        raise InputError('gpu "none": a task file is for a card; name one, or leave gpu out')
    place, cards, notes = _place(gpu, None if engine else compute)
    results = _estimates(points, place.compute_capability if place else None, python)
    way = None
    if engine == "slurm":
        named = place.gpu.id if place and place.gpu else None
        running = [one for one in results if place is None or verdict_at(one, place).status != "does_not_fit"]
        way, more = way_for(running, engine, named, slurm_in_sight(compute, look_here))
        notes += more
    if place is None and way is not None:
        place = named_place(find_gpu(way.card.id))
    if place is None:
        card = _cheapest_card(results, engine)
        place = named_place(find_gpu(card.id))
        notes.append(f"{card.name} is the cheapest for these runs of the cards that hold each of them")
    told = [_point(point, result, place) for point, result in zip(points, results, strict=True)]
    runnable = [at for at, point in enumerate(told) if point.status != "does_not_fit"]
    low, high = ([told[at].hours[end] for at in runnable] for end in (0, 1))
    gpu_hours = (fsum(low), fsum(high))
    shares = longest_first(high, max(1, min(cards, len(runnable))))
    spread = _spread(shares, low, high)
    deal = _deal(place, engine)
    usd = None if deal is None or not runnable else _usd(deal, gpu_hours)
    price = "" if deal is None else f"{deal.usd_per_hour:g} USD/h, {deal.platform.name} ({deal.offer.date})"
    if deal is not None and deal.gpus > 1:
        notes.append(f"the price is of a machine with {deal.gpus} cards, which is paid in full")
    answer = Sweep(
        over={name: list(values) for name, values in over.items()},
        count=len(told),
        fits=sum(point.status == "fits" for point in told),
        does_not_fit=len(told) - len(runnable),
        device=place.name,
        cards=cards,
        free_bytes=place.free_bytes,
        smallest=min(told, key=lambda point: point.needed_bytes),
        largest=max(told, key=lambda point: point.needed_bytes),
        points=told,
        side_by_side=_side_by_side(told, place.free_bytes),
        gpu_hours=gpu_hours,
        hours=spread,
        usd=usd,
        price=price,
        warnings=_warnings(results),
        notes=notes,
        summary="",
    )
    answer.summary = _summary(answer)
    if engine is not None:
        left_out = _left_out(told)
        answer.launch = _file(
            points, results, runnable, shares, commands, engine, place, [*notes, *left_out], usd, price, way
        )
    return answer


def _warnings(results: Sequence[Estimate]) -> list[str]:
    """Each warning once, with the number of runs that have it; those of the most runs first."""
    counted = Counter(warning for result in results for warning in result.warnings)
    told = [
        warning if count == len(results) else f"{count} of {len(results)} runs: {warning}"
        for warning, count in counted.most_common(_WARNINGS_KEPT)
    ]
    if len(counted) > _WARNINGS_KEPT:
        told.append(f"{len(counted) - _WARNINGS_KEPT} more warnings; estimate one run to see its own")
    return told


def _place(gpu: str | None, compute: Compute | None) -> tuple[Place | None, int, list[str]]:
    """(where each run is held against, cards at once, notes); no place where nothing was said of it."""
    choice = (gpu or "").strip().lower()
    if gpu is not None and choice not in ("none", "unknown"):
        request = find_gpu(gpu)
        one = request.model_copy(update={"count": 1})
        return named_place(one), request.count, [request.note] if request.note else []
    if choice == "none" and compute is None:
        raise InputError('gpu "none" needs the report of the machine (compute), whose RAM is then counted')
    if compute is None or choice == "unknown":
        return None, 1, []
    place = seen_place(compute, use_gpu=choice != "none")
    if place.kind == "cpu" and choice != "none":
        # A laptop or a login node: nobody runs a grid on its CPU who does not say so.
        return None, 1, [f"{compute.elsewhere() or 'this machine'} has no GPU that can be used"]
    return place, 1, []


def _estimates(points: Sequence[Point], capability: str | None, python: str | None) -> list[Estimate]:
    results: list[Estimate] = []
    for point in points:
        try:
            result = estimate(point.workload, capability, python=python)
        except InputError as error:
            raise InputError(f"at {spelled_point(point.values)}: {error}") from None
        if result.method == "trace" and len(points) > MOST_TRACED:
            raise InputError(
                f"these runs are traced, which takes seconds for each: at most {MOST_TRACED} points, not {len(points)}"
            )
        results.append(result)
    return results


def _cheapest_card(results: Sequence[Estimate], engine: Engine | None) -> Gpu:
    def on(card: Gpu) -> int:
        return max(
            needed(result, Place("gpu", card.name, None, card.compute_capability, card))[2] for result in results
        )

    needs = {}  # cards alike in generation and memory differ in nothing that is counted
    fitting: list[Gpu] = []
    for card in all_gpus():
        if card.advised and card.vendor != "apple" and (engine is None or can_name(engine, card)):
            kind = card.compute_capability, card.usable_bytes
            need = needs.get(kind) or needs.setdefault(kind, on(card))
            if need <= card.usable_bytes:
                fitting.append(card)
    if not fitting:
        most = max(result.peak.device for result in results)
        raise InputError(
            f"no single card {'of the table' if engine is None else f'that {engine} can name'} holds the largest run "
            f"({gib(most)}); name one with gpu to see which runs fit it"
        )
    return min(fitting, key=lambda card: (run_cost(engine, card, results), card.usable_bytes))


def _point(point: Point, result: Estimate, place: Place) -> SweepPoint:
    expected, _, high = needed(result, place)
    time = estimate_time(result.work, place.gpu, place.kind, place.cpus)
    return SweepPoint(
        values=point.values,
        needed_bytes=expected,
        high_bytes=high,
        status=verdict_at(result, place).status,
        hours=(time.low / 3600, time.high / 3600),
    )


def _side_by_side(points: Sequence[SweepPoint], free: int | None) -> SideBySide | None:
    """Of the runs that fit; each process has its own context and its own reserved memory, so the upper ends add up."""
    fitting = [at for at, point in enumerate(points) if point.status == "fits"]
    if free is None or not fitting:
        return None
    sizes = [points[at].high_bytes for at in fitting]
    groups = [[fitting[at] for at in group] for group in first_fit_decreasing(sizes, free)]
    return SideBySide(
        any=any_of(sizes, free),
        most=most_of(sizes, free),
        groups=groups,
        groups_at_least=groups_at_least(sizes, free),
        hours=(
            fsum(max(points[at].hours[0] for at in group) for group in groups),
            fsum(points[at].hours[1] for at in fitting),
        ),
    )


def _spread(shares: Sequence[Sequence[int]], low: Sequence[float], high: Sequence[float]) -> tuple[float, float]:
    def longest(hours: Sequence[float]) -> float:
        return max((fsum(hours[at] for at in share) for share in shares), default=0.0)

    return longest(low), longest(high)


def _deal(place: Place, engine: Engine | None) -> Deal | None:
    """Of one card that would be rented, as often as there are to be several; none for one that is there."""
    if place.gpu is None or not place.named:
        return None
    return cheapest([place.gpu.id], 1, paid=True) if engine is None else deal_for(engine, place.gpu.id, 1)


def _usd(deal: Deal, hours: tuple[float, float]) -> tuple[float, float]:
    return round(deal.usd_per_hour * hours[0], 2), round(deal.usd_per_hour * hours[1], 2)


def _file(
    points: Sequence[Point], results: Sequence[Estimate], runnable: Sequence[int], shares: Sequence[Sequence[int]],
    commands: Sequence[str], engine: Engine, place: Place, notes: Sequence[str], usd: tuple[float, float] | None,
    price: str, way: Way | None,
) -> LaunchFile:  # fmt: skip
    if not runnable:
        raise InputError(f"none of the runs fits {place.name}: there is nothing to launch")
    if place.gpu is None or place.kind != "gpu" or (way is None and not can_name(engine, place.gpu)):
        raise InputError(f"{engine} is not known to offer {place.name}: name another card with gpu")
    runs = [(points[at].workload, results[at]) for at in runnable]
    plan = machine_for(runs, engine, "", place.gpu, 1, notes, way)
    return sweep_launch_file(plan, engine, [commands[at] for at in runnable], shares, usd, price)


def _left_out(points: Sequence[SweepPoint]) -> list[str]:
    names = [spelled_point(point.values) for point in points if point.status == "does_not_fit"]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"left out, as they do not fit: {'; '.join(names[:5])}{more}"] if names else []


def _summary(answer: Sweep) -> str:
    least, most = answer.smallest, answer.largest
    fits = f"{answer.fits} of {answer.count} runs fit {answer.device}"
    tight = answer.count - answer.fits - answer.does_not_fit
    if tight:
        fits += f", {tight} only just or not surely"
    sizes = (
        f"The smallest needs {gib(least.needed_bytes)} ({spelled_point(least.values)}), the largest "
        f"{gib(most.needed_bytes)} ({spelled_point(most.values)})."
    )
    words = [f"{fits}.", sizes]
    beside = answer.side_by_side
    if beside is not None:
        most_text = f", {beside.most} of the smallest" if beside.most > beside.any else ""
        words.append(
            f"Side by side on one card: any {beside.any}{most_text}; they share its arithmetic, so time is gained "
            "only where a run leaves the card idle."
        )
    low, high = answer.gpu_hours
    if high:
        words.append(f"GPU time: {_span(low, high)}.")
        if answer.cards > 1:
            words.append(f"On {answer.cards} cards: {_span(*answer.hours)}.")
    if answer.usd is not None:
        usd = f"About {answer.usd[0]:g} to {answer.usd[1]:g} USD" if answer.usd[1] else "Less than a cent"
        words.append(f"{usd} at {answer.price}.")
    return " ".join(words)


def _span(low: float, high: float) -> str:
    first, last = duration(low * 3600), duration(high * 3600)
    return first if first == last else f"{first} to {last}"
