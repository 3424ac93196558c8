"""What a run needs of the machine that is started for it: card, disk, RAM, time, and what to install."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..advice.gpu_table import Gpu, all_gpus
from ..advice.gpus import find_gpu, gpus_that_fit
from ..advice.place import Place, named_place, needed
from ..advice.platforms import Deal, cheapest, platform
from ..advice.several import processes
from ..advice.verdict import verdict_at
from ..errors import InputError, nearest
from ..estimator import estimate
from ..hardware.cluster.report import Cluster
from ..memory.estimate import Estimate
from ..runtime.duration import estimate_time
from ..units import GIB, duration, gib
from ..versions import COVERED, check
from ..workload import AnyWorkload
from .answers import ENGINES, Engine
from .cluster import Way, shortest_way, told

_SETUP_S = 1800  # installing torch and downloading a model, taken generously
_SLACK = 1.5  # the upper end of the time range was held against runs on an H100 only
_ENVIRONMENT_BYTES = 25 * GIB  # torch with CUDA takes some 7 GB installed; system, caches and outputs beside it
_LONGEST_RUN_CHARS = 8000


# Platforms of our price table that the launchers rent from: skypilot 0.14.1 sky/clouds/, dstack 0.22.5 core/backends/.
_REACHED: dict[str, tuple[str, ...]] = {
    "skypilot": ("runpod", "vast", "lambda", "gcp", "nebius", "paperspace"),
    "dstack": ("runpod", "vast", "lambda", "gcp", "nebius"),
}


@dataclass(frozen=True)
class Plan:
    """One run on one kind of machine."""

    name: str
    run: str
    """The user's command, as a shell understands it."""
    gpu: Gpu
    count: int
    limit_s: int
    """The run is ended after this: whole hours, above the upper end of the time range."""
    disk_gib: int
    ram_gib: int
    cpus: int
    packages: tuple[str, ...]
    """Installed where the project names no requirements of its own."""
    needed_bytes: int
    hours: tuple[float, float]
    """Range of the run's duration, of a sweep's longest run; held against runs on an H100 only."""
    notes: tuple[str, ...]
    way: Way | None = None
    """On a SLURM cluster in sight: what to ask it for."""


def plan_for(
    workload: AnyWorkload, engine: str, run: str, gpu: str | None = None, python: str | None = None,
    clusters: Sequence[Cluster] = (),
) -> Plan:  # fmt: skip
    """The plan for `workload`, started by the shell command `run`.

    Args:
        gpu: the card ("A100-80GB", "2xH100"); None = the smallest that fits and that the engine can name.
        python: the experiment's interpreter, should the estimate need a trace.
        clusters: for slurm, the clusters in sight, whose cards then go before the table's.
    Raises:
        InputError: unknown engine or card, an empty or unprintable command, a card it does not fit, no card that fits.
    """
    known = engine_named(engine)
    command = checked_command(run)
    result = estimate(workload, python=python)
    way, notes = way_for([result], known, gpu, clusters)
    if way is not None:
        return machine_for([(workload, result)], known, command, way.card, way.path.gpus, notes, way)
    card, count, more = _card(workload, known, result, gpu)
    return machine_for([(workload, result)], known, command, card, count, [*notes, *more])


def way_for(
    results: Sequence[Estimate], engine: Engine, gpu: str | None, clusters: Sequence[Cluster]
) -> tuple[Way | None, list[str]]:
    """(the shortest way on a cluster in sight to a card that holds each of the runs, notes); no way elsewhere.

    `gpu` None = any card. Raises InputError for an unknown one.
    """
    if engine != "slurm" or not clusters or not results:
        return None, []
    request = None if gpu is None else find_gpu(gpu)

    def bytes_on(card: Gpu) -> int:
        place = Place("gpu", card.name, None, card.compute_capability, card)
        return max(needed(result, place)[2] for result in results)

    def seconds_on(card: Gpu) -> int:
        return _limit_s(max(_hours(result, card)[1] for result in results))

    cards = max(cards_of(result) for result in results)
    wanted, count = (request.gpu, max(request.count, cards)) if request else (None, cards)
    way, left_out = shortest_way(clusters, bytes_on, seconds_on, _ram_gib(results) * GIB, wanted, count)
    name = clusters[0].name or "SLURM"
    if way is None:
        return None, [f"no partition of cluster {name} takes it as it is ({told(left_out)}): look before you submit"]
    return way, [f"partition {way.path.partition} of cluster {way.cluster}: {way.path.why}", *way.path.cautions]


def machine_for(
    runs: Sequence[tuple[AnyWorkload, Estimate]], engine: Engine, command: str, card: Gpu, count: int,
    notes: Sequence[str], way: Way | None = None,
) -> Plan:  # fmt: skip
    """The plan of a machine with `count` such cards on which each of these runs can take place."""
    results = [result for _, result in runs]
    place = Place("gpu", card.name, card.usable_bytes, card.compute_capability, card, count, named=True)
    hours = max((_hours(result, card) for result in results), key=lambda spread: spread[1])
    limit_s = _limit_s(hours[1])
    # Models that differ are all downloaded; what the runs have in RAM follows one another.
    downloads = {str(result.workload.get("model")): result.download_bytes or _weights(result) for result in results}
    disk = 2 * sum(downloads.values()) + max(result.host_bytes for result in results) + _ENVIRONMENT_BYTES
    return Plan(
        name=_name(results[0].workload),
        run=command,
        gpu=card,
        count=count,
        limit_s=limit_s,
        disk_gib=_rounded(disk / GIB, 50),
        ram_gib=_ram_gib(results),
        cpus=8 * count,
        packages=tuple(dict.fromkeys(name for workload, result in runs for name in _packages(workload, result))),
        needed_bytes=max(needed(result, place)[2] for result in results),
        hours=hours,
        notes=(*notes, *_limits(engine, limit_s), *_processes(results, command)),
        way=way,
    )


def _ram_gib(results: Sequence[Estimate]) -> int:
    """GiB of RAM for whichever of the runs takes most, loading its weights included."""
    most = max(processes(result.workload) * max(result.loading_host_bytes, result.host_bytes) for result in results)
    return _rounded((1.25 * most + 8 * GIB) / GIB, 16)


def cards_of(result: Estimate) -> int:
    """Cards that the estimate's workload asks for."""
    return result.workload.get("n_devices") or 1


def _processes(results: Sequence[Estimate], command: str) -> list[str]:
    """What to say where a run needs a process on each card and the command starts one. It is left as it is."""
    count = max(processes(result.workload) for result in results)
    if count == 1 or any(starter in command for starter in _STARTERS):
        return []
    script = re.match(r"python[\d.]*\s+([^\s-]\S*\.py.*)", command, re.DOTALL)
    shown = f"`torchrun --nproc_per_node={count} {script[1] if script else 'script.py'}`"
    return [
        f"the command starts one process, and {count} cards need one each (DistributedDataParallel, fully_shard): run "
        f"it as {shown}; the file has it as given"
    ]


_STARTERS = ("torchrun", "torch.distributed", "accelerate launch", "deepspeed", "mpirun", "srun")


def engine_named(engine: str) -> Engine:
    """The engine of that name. Raises InputError for another."""
    for known in ENGINES:
        if engine.strip().lower() == known:
            return known
    close = nearest(engine, ENGINES, 1)
    hint = f"; nearest: {close[0]}" if close else ""
    raise InputError(f"unknown engine {engine[:40]!r}; accepted: {', '.join(ENGINES)}{hint}")


def names_of(gpu_id: str) -> dict[str, Any]:
    """What the launchers call a card; empty where none is known to offer it."""
    return _launchers().get(gpu_id, {})


@cache
def _launchers() -> dict[str, dict[str, Any]]:
    path = Path(__file__).parents[1] / "facts" / "launchers.json"
    return json.loads(path.read_text(encoding="utf-8"))["cards"]


def can_name(engine: Engine, card: Gpu) -> bool:
    """Whether the engine has a name for that card."""
    if engine in ("modal", "colab"):
        return any(offer.gpu_id == card.id for offer in platform(engine).offers)
    return engine in names_of(card.id)


def _card(workload: AnyWorkload, engine: Engine, result: Estimate, gpu: str | None) -> tuple[Gpu, int, list[str]]:
    def on(card: Gpu) -> int:
        return needed(result, Place("gpu", card.name, None, card.compute_capability, card))[2]

    fitting = [card for card in gpus_that_fit(on) if can_name(engine, card)]
    cards = cards_of(result)
    if cards > 1 and engine == "colab":
        raise InputError(f"colab has one card a runtime, and the workload asks for {cards} (n_devices)")
    if gpu is None:
        if not fitting:
            need = gib(needed(result, Place("gpu", "", None))[2])
            raise InputError(
                f"no single card that {engine} can name holds this workload ({need}); make it smaller "
                "(`compute-awareness recommend` lists changes), or name several cards with gpu, e.g. 2xH100"
            )
        chosen = min(fitting, key=lambda card: (run_cost(engine, card, [result]), card.usable_bytes))
        cheap = run_cost(engine, chosen, [result]) < float("inf")
        return chosen, cards, [f"{'the cheapest for this run' if cheap else 'the smallest'} of the cards that fit"]
    request = find_gpu(gpu)
    verdict = verdict_at(result, named_place(request))
    if verdict.status == "does_not_fit":
        smallest = f"; the smallest that fits: {fitting[0].name}" if fitting else ""
        raise InputError(f"gpu {gpu[:40]!r}: {verdict.why}{smallest}")
    if not can_name(engine, request.gpu):
        raise InputError(
            f"gpu {gpu[:40]!r}: {engine} is not known to offer {request.gpu.name}; it names: "
            + ", ".join(card.name for card in all_gpus() if can_name(engine, card))
        )
    notes = [verdict.why] if verdict.status != "fits" else []
    if cards > request.count:
        notes.append(f"{cards} of them, as the workload asks (n_devices)")
    return request.gpu, max(request.count, cards), notes + ([request.note] if request.note else [])


def deal_for(engine: Engine, gpu_id: str, count: int) -> Deal | None:
    """The engine's own price where it sells GPUs itself, the cheapest known elsewhere; none on a cluster."""
    if engine == "slurm":
        return None
    if engine in ("modal", "colab"):
        place = platform(engine)
        paid = [offer for offer in place.offers if offer.gpu_id == gpu_id and offer.usd_per_gpu_hour > 0]
        offer = min(paid, key=lambda offer: offer.usd_per_gpu_hour, default=None)
        return offer and Deal(place, offer, count, offer.usd_per_gpu_hour * count)
    return cheapest([gpu_id], count, _REACHED[engine])


def _hours(result: Estimate, card: Gpu) -> tuple[float, float]:
    time = estimate_time(result.work, card, "gpu", None)
    return time.low / 3600, time.high / 3600


def _limit_s(high_hours: float) -> int:
    """Whole hours, at least one: the upper end of the range with slack for what it does not know, and the setup."""
    return max(3600, -(-int(high_hours * 3600 * _SLACK + _SETUP_S) // 3600) * 3600)


def run_cost(engine: Engine | None, card: Gpu, results: Sequence[Estimate]) -> float:
    """USD of the runs one after the other, each at its longest; infinite where no price is known or the engine ends
    one before. Without an engine, at the cheapest price known."""
    deal = cheapest([card.id], 1, paid=True) if engine is None else deal_for(engine, card.id, 1)
    hours = [_hours(result, card)[1] for result in results]
    longest = platform(engine).session_limit_hours if engine in ("modal", "colab") else None
    if deal is None or (longest is not None and _limit_s(max(hours)) > longest * 3600):
        return float("inf")
    return deal.usd_per_hour * sum(hours)


def _limits(engine: Engine, limit_s: int) -> list[str]:
    if engine not in ("modal", "colab"):
        return []
    longest = platform(engine).session_limit_hours
    if longest is None or limit_s <= longest * 3600:
        return []
    return [
        f"the limit of {duration(limit_s)} is more than {platform(engine).name} allows ({longest:g} h): write "
        "checkpoints and go on from the last, or use another engine"
    ]


def checked_command(run: str) -> str:
    """The command without blanks around it. Raises InputError for one that is empty, too long or not printable."""
    text = run.strip()
    if not text:
        raise InputError('run is empty; give the command that starts the experiment, e.g. "python train_sae.py"')
    if len(text) > _LONGEST_RUN_CHARS:
        raise InputError(f"run is longer than {_LONGEST_RUN_CHARS} characters; put it into a script and name that")
    bad = next((char for char in text if not char.isprintable() and char not in "\n\t"), None)
    if bad is not None:
        raise InputError(f"run holds a control character ({bad!r}); give one shell command")
    return text.replace("\t", "    ")


def _weights(result: Estimate) -> int:
    return sum(c.bytes for c in result.components if c.name in ("weights", "sae_weights"))


def _packages(workload: AnyWorkload, result: Estimate) -> tuple[str, ...]:
    covered = COVERED[workload.library]
    wanted = workload.library_version
    if wanted is None:
        wanted = re.sub(r"^\D*", "", check(workload.library, None)[0])
    release = re.match(r"\d+\.\d+", wanted)
    pinned = f"{covered.distribution}=={release[0]}.*" if release else covered.distribution
    also = ["transformers"] if result.workload.get("quantization") else []
    if str(result.workload.get("quantization", "")).startswith("bitsandbytes") or "8bit" in str(
        result.workload.get("optimizer", "")
    ):
        also.append("bitsandbytes")
    if result.workload.get("trainable") == "lora":
        also.append("peft")
    return tuple(dict.fromkeys([pinned, *also]))


def _name(filled: dict[str, Any]) -> str:
    model = filled.get("model")
    text = f"{filled['task']}-{model if isinstance(model, str) else 'model'}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


def _rounded(value: float, step: int) -> int:
    return -(-int(value + 0.999) // step) * step
