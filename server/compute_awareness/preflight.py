"""The whole flow: what is to be run, what it takes, what there is, does it fit, what would help, ask or not."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .advice import gpus, platforms
from .advice.answers import Advice, NextStep, Verdict
from .advice.attempt import Attempt
from .advice.changes_cards import several_cards
from .advice.cluster_paths import cluster_paths
from .advice.cost import run_cost
from .advice.once import each_estimate_once
from .advice.place import UNKNOWN, Place, loads_most, needed, seen_places
from .advice.several import processes, splits, with_cards
from .advice.solver import combinations, largest_sizes
from .advice.strategies import changes
from .advice.verdict import of_its_card, of_one, verdict_at, while_loading
from .asking.decision import decide
from .asking.known import price_told
from .asking.profile_file import read_profile
from .asking.question import Question
from .errors import InputError
from .estimator import estimate
from .hardware.compute import Compute
from .hardware.model_cache import in_cache
from .launch.answers import LaunchFile
from .memory.estimate import Estimate
from .memory.weights import hf_params, tl_params
from .models.hf_config import Uncovered
from .models.resolve import resolve
from .models.spec import ModelSpec
from .runtime.duration import estimate_time
from .sweep.answers import Sweep
from .units import gib
from .versions import COVERED, check, parse
from .whereabouts import place_of, where
from .workload import DTYPE_BYTES, AnyWorkload, parse_workload

TO_DO = {"ask": " Ask the user (asking.text).", "tell": " Tell the user in one line (asking.text).", "silent": ""}
"""How a summary ends, by the decision."""


class Preflight(BaseModel):
    """The answer to: will it fit, and should I ask?"""

    model_config = ConfigDict(extra="forbid")
    workload: dict[str, Any] = Field(description="The workload with every default filled in")
    compute: Compute | None = Field(
        description="What was seen; null where the caller named the card and nothing was looked at"
    )
    estimate: Estimate
    verdict: Verdict
    advice: Advice
    asking: Question
    known: list[str] = Field(
        default_factory=list, description="What came from the compute profile, how old it is, and contradictions"
    )
    next_steps: list[NextStep] = Field(default_factory=list, description="Calls that may follow, from the MCP server")
    summary: str


class Recommendation(BaseModel):
    """What to run it on, and what would make it smaller."""

    # Built when it is first made: a preflight does not wait for the shape of a sweep.
    model_config = ConfigDict(extra="forbid", defer_build=True)
    workload: dict[str, Any]
    estimate: Estimate
    advice: Advice
    next_steps: list[NextStep] = Field(default_factory=list, description="Calls that may follow, from the MCP server")
    sweep: Sweep | None = Field(
        default=None, description="All runs of a grid, where one was given; the rest is then of the largest"
    )
    prices: str = Field(default="", description="Whether live prices could be had, where they were asked for")
    launch: LaunchFile | None = Field(
        default=None, description="The task file of one run, where one was asked for; a sweep's is in `sweep`"
    )
    summary: str


@each_estimate_once()
def preflight(
    workload: AnyWorkload,
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    python: str | None = None,
    hours_allowed: float | None = None,
    usd_allowed: float | None = None,
) -> Preflight:
    """Run the whole flow once.

    Args:
        workload: what is to be run.
        gpu: the card it will run on ("RTX 4090", "2xH100"), a machine of the profile, "none", "unknown" (not the
            machine in sight), or None to take what is detected.
        compute: a report made elsewhere; None = look at this machine where that matters.
        python: the experiment's interpreter; None = found by the usual signs.
        hours_allowed: the longest run that needs no word, hours; None = as the profile or the policy says.
        usd_allowed: the same for money, USD.
    Raises:
        InputError: a bad workload, GPU name or interpreter.
    """
    profile = read_profile()
    asked_for = gpu
    place, compute, gpu, known = where(gpu, compute, python, profile)
    no_gpu = place.kind == "cpu" and gpu is not None
    # No GPU seen does not mean that none will be used: what would help is then counted for a card not known yet.
    wanted = UNKNOWN if place.kind == "cpu" and gpu is None else place
    workload, version_note = _with_installed_version(workload, compute)
    result = estimate(workload, place.compute_capability, python=python)
    verdict = verdict_at(result, place)
    if verdict.status != "fits" and place.cards is not None and compute is not None and result.method != "trace":
        place, result, verdict = _best_card(workload, compute, (place, result, verdict))
        wanted = place
    result.warnings += version_note
    advice = _advise(workload, result, wanted, compute)
    time = result.time = estimate_time(result.work, wanted.gpu, wanted.kind, wanted.cpus)
    spec = _spec(workload)
    # The other cards that are there for it are worth a word, too, where they only just do.
    split = [change for change in advice.changes if "n_devices" in change.patch]
    asking = decide(
        workload,
        result,
        compute,
        verdict,
        [*split, *advice.solutions] if advice.solutions else advice.changes,
        gpu_named=gpu is not None and place.kind != "unknown",
        where_unknown=place.kind == "unknown",
        params=_params(spec, result),
        n_layers=None if spec is None else spec.n_layers,
        gpus=advice.gpus,
        hours_high=time.high / 3600,
        hours_on=time.on,
        hours_allowed=hours_allowed if hours_allowed is not None or not profile.budget else profile.budget.max_hours,
        cost=run_cost(
            result, time.high / 3600, place, compute, price_told(asked_for, gpu, profile), advice.platforms, no_gpu
        ),
        usd_allowed=usd_allowed if usd_allowed is not None or not profile.budget else profile.budget.max_usd,
        to_download=_to_download(spec, result, compute),
        paths=advice.paths,
    )
    return Preflight(
        workload=result.workload,
        compute=compute,
        estimate=result,
        verdict=verdict,
        advice=advice,
        asking=asking,
        known=known,
        summary=_summary(result, verdict, asking, place),
    )


def _best_card(
    workload: AnyWorkload, compute: Compute, first: tuple[Place, Estimate, Verdict]
) -> tuple[Place, Estimate, Verdict]:
    """The card of a machine with different ones that the run does best on: that with the most free memory may be of a
    kind on which it takes more. Where it fits on none, one on which some changes make it fit."""
    found = [first]
    for place in seen_places(compute)[1:]:
        result = estimate(workload, place.compute_capability)
        found.append((place, result, verdict_at(result, place)))
    order = ("fits", "tight", "does_not_fit")

    def rank(one: tuple[Place, Estimate, Verdict]) -> tuple[int, bool]:
        place, result, verdict = one
        helpless = len(found) > 1 and verdict.status != "fits" and not combinations(workload, result, place, limit=1)
        return order.index(verdict.status), helpless

    return min(found, key=rank)


def _spec(workload: AnyWorkload) -> ModelSpec | None:
    """The language model; None where there is none, or none that a closed form covers as it is named."""
    try:
        return None if workload.model is None else resolve(workload.model)
    except Uncovered:
        return None


def _to_download(spec: ModelSpec | None, result: Estimate, compute: Compute | None) -> int | None:
    """Bytes of published weights that are not in the model cache in sight; None where there are none, or not known."""
    repo = spec.hf_id if spec is not None else None
    return None if repo is None or compute is None or in_cache(repo, compute) else result.download_bytes


def _params(spec: ModelSpec | None, result: Estimate) -> int | None:
    """Parameters as Hugging Face counts them; of other models by their weights; None without a language model."""
    if spec is not None:
        return hf_params(spec) if spec.has_hf_model else tl_params(spec)
    held = sum(component.bytes for component in result.components if component.name == "weights")
    return held // DTYPE_BYTES[result.workload["dtype"]] if held else None


@each_estimate_once()
def recommend(workload: AnyWorkload, *, gpu: str | None = None, compute: Compute | None = None) -> Recommendation:
    """Which GPUs and platforms, and what each strategy saves; nothing is detected.

    Args and errors as in `preflight`.
    """
    if compute is None and gpu is None:
        place = UNKNOWN
    else:
        place, compute = place_of(gpu, compute, None)
    result = estimate(workload, place.compute_capability)
    advice = _advise(workload, result, place, compute)
    fitting = advice.gpus[0] if advice.gpus else None
    summary = result.summary
    if fitting:
        many = f"{fitting.count} x " if fitting.count > 1 else ""
        price = (
            f", from ${fitting.usd_per_hour:.2f}/h ({fitting.price_platform}, {fitting.price_date})"
            if fitting.usd_per_hour
            else ""
        )
        summary += f" Smallest GPU that fits: {many}{fitting.name}{price}."
    else:
        summary += " No GPU of the table fits it, alone or eight together."
    helps = [change for change in advice.changes if change.applies]
    if advice.solutions:
        cheapest = advice.solutions[0]
        summary += f" It fits with: {cheapest.title} ({gib(cheapest.peak_before)} -> {gib(cheapest.peak_after)})."
        return Recommendation(workload=result.workload, estimate=result, advice=advice, summary=summary)
    if helps:
        free = next((change for change in helps if change.costless), None)
        first = free or max(helps, key=lambda change: change.saving)
        how = "At no cost" if free else "Largest saving"
        summary += f" {how}: {first.title} ({gib(first.peak_before)} -> {gib(first.peak_after)})."
    return Recommendation(workload=result.workload, estimate=result, advice=advice, summary=summary)


def _with_installed_version(workload: AnyWorkload, compute: Compute | None) -> tuple[AnyWorkload, list[str]]:
    """The workload with the library version of the experiment's Python, where none was given.

    An installed version that the figures do not hold for is a warning, not an error: nobody asked for it by name.
    """
    python = compute.python if compute else None
    if workload.library_version is not None or python is None:
        return workload, []
    installed = python.libraries.get(COVERED[workload.library].distribution)
    if installed is None:
        return workload, []
    try:
        parse(installed)
        check(workload.library, installed)
    except InputError as error:
        verified, _ = check(workload.library, None)
        return workload, [f"the experiment's Python: {error}; the figures are those of {verified}"]
    return parse_workload(workload.model_dump() | {"library_version": installed}), []


def _advise(workload: AnyWorkload, result: Estimate, place: Place, compute: Compute | None) -> Advice:
    def on(card: gpus.Gpu) -> int:
        kind = "mps" if card.vendor == "apple" else "gpu"
        return needed(result, Place(kind, card.name, None, card.compute_capability, card))[2]

    def over(card: gpus.Gpu, count: int) -> int | None:
        split = with_cards(workload, count, card.compute_capability)
        return None if split is None else needed(split, Place("gpu", card.name, None, card.compute_capability, card))[2]

    asked = result.workload.get("n_devices", 1)
    choices = gpus.smallest_that_fits(
        on, count=asked, over=None if asked == 1 and splits(result.workload) == "rough" else over
    )
    fitting = [card.id for card in gpus.gpus_that_fit(on)]
    count = asked
    if not fitting and choices:
        fitting, count = [choices[0].gpu_id], choices[0].count
    cards = {card.id: card for card in gpus.all_gpus()}

    def seconds(gpu_id: str) -> tuple[float, float]:
        time = estimate_time(result.work, cards[gpu_id], "gpu", None)
        return time.low, time.high

    needs = platforms.Needs(result.workload["dtype"], result.download_bytes or 0)
    choices = [gpus.with_cost(choice, seconds(choice.gpu_id)) for choice in choices]
    rent = platforms.where_to_rent(fitting, seconds, count=count, needs=needs) if fitting else []
    time = estimate_time(result.work, cards[fitting[0]] if fitting else None, "gpu", None)
    # A trace takes seconds, and a change is tried many times.
    known = workload.model is None or _spec(workload) is not None
    tried = changes(workload, result, place) if known and result.method != "trace" else []
    solutions = combinations(workload, result, place) if tried else []
    fits = verdict_at(result, place).status == "fits"
    largest = {} if not tried or fits else largest_sizes(workload, place)
    if tried and not fits and not any("n_devices" in one.patch for one in solutions):
        split = several_cards(Attempt(workload, result, place), workload)
        tried += [one for one in split if one.applies and one.peak_after <= (place.free_bytes or 0)]  # only just
    on_any = needed(result, Place("gpu", "", None))[2]
    ram = processes(result.workload) * max(result.host_bytes, result.loading_host_bytes)
    paths = cluster_paths(compute, on_any, time.high / 3600, ram, asked)
    return Advice(changes=tried, solutions=solutions, largest=largest, gpus=choices, platforms=rent, paths=paths)


def _summary(result: Estimate, verdict: Verdict, asking: Question, place: Place) -> str:
    words = {
        "fits": f"Fits {verdict.device}",
        "tight": f"Tight on {verdict.device}",
        "does_not_fit": f"Does not fit {verdict.device}",
        "unknown": "Cannot say whether it fits",
    }
    on_one = " on each" if of_one(verdict) else ""
    if result.workload.get("n_devices", 1) > 1 and verdict.headroom_bytes is not None:
        on_one = " on the fullest"
    free = f" ({gib(verdict.free_bytes)} free{on_one})" if verdict.free_bytes is not None else ""
    need = _where_it_differs(result, verdict, place) + result.summary
    if result.stops:  # what is told to the user has the reason already
        need += " As given it does not run" + ("." if asking.decision == "tell" else f": {result.stops}.")
    return f"{words[verdict.status]}{free}: {need}{of_its_card(verdict, result, place)}{TO_DO[asking.decision]}"


def _where_it_differs(result: Estimate, verdict: Verdict, place: Place) -> str:
    """What the verdict counts, before the estimate's own sentence, where that names another figure: without it a
    reader is told that 135 GiB do not fit 158."""
    takes = gib(verdict.needed_bytes)
    if place.kind == "cpu":
        what = "loading its weights takes" if while_loading(verdict) else "it takes"
        return f"{what} about {takes} of RAM there. On a GPU, "
    if takes == gib(result.peak.device):
        return ""
    if place.kind == "mps":
        return f"it takes about {takes} there. With CUDA, "
    if loads_most(result, place):
        return f"loading its weights takes about {takes}; after that, "
    return f"it gets by with {takes}; with more room, " if verdict.needed_bytes < result.peak.device else ""
