"""From the package's answers to tool results: what the concise form leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic_core
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel

from .budget import within

if TYPE_CHECKING:
    # The core is imported by the first call, not by the start of the server.
    from ..advice.answers import Advice, Change, GpuChoice
    from ..asking.question import Question
    from ..hardware.compute import Cluster, Compute
    from ..memory.estimate import Estimate
    from ..oom.explain import OomReport
    from ..preflight import Preflight, Recommendation
    from ..script_reading.answer import ScriptReport
    from ..sweep.answers import Sweep

_HOOKS_KEPT = 4
_CHANGES_KEPT = 3
_GPUS_KEPT = 2
_PLATFORMS_KEPT = 3
_WORTH_A_PRICE_S = 600
_CHEAP = {"usd_low": 0, "usd_high": 0}
_CARDS_KEPT = 2
_UNMET_KEPT = 3
_PYTHONS_KEPT = 8
_POOLS_KEPT = 4
_LIMITS_KEPT = 4
_PATHS_KEPT = 1
_POINTS_KEPT = 8
_BENEATH = frozenset(("datasets", "huggingface-hub", "tokenizers", "safetensors", "numpy", "triton"))
_CARDS_LISTED = 3
_PAIRS_LISTED = 4
_MATCHES_KEPT = 2
_CALLS_KEPT = 12
_FINDINGS_KEPT = 5


def answer(result: BaseModel, detail: str) -> CallToolResult:
    """A tool result whose structure is a valid instance of `result`'s own class, `summary` first.

    `concise` leaves out whatever has its default value; `budget.py` keeps both forms within their limits. The text
    block is the same JSON in compact form: hosts show the model one of the two, never both.
    """
    data = result.model_dump(mode="json", exclude_defaults=detail == "concise")
    data = within({"summary": getattr(result, "summary", ""), **data}, type(result).__name__, detail)
    text = pydantic_core.to_json(data).decode()
    return CallToolResult(content=[TextContent(text=text)], structured_content=data)


def full_compute(compute: Compute) -> Compute:
    """All but the farthest of many Pythons and requirements: a report is read by a model, which pays by the word."""
    python = compute.python
    if python is not None:
        python = replace(python, unmet=python.unmet[:_PYTHONS_KEPT])
    kept = [entry for at, entry in enumerate(compute.interpreters) if at < _PYTHONS_KEPT or entry.chosen]
    clusters = [_fewer(cluster) for cluster in compute.clusters]
    return compute.model_copy(update={"python": python, "interpreters": kept, "clusters": clusters})


def _fewer(cluster: Cluster) -> Cluster:
    """A cluster's first pools and partitions and what is told of the user, with no list that grows with the site."""
    user = cluster.user
    if user is not None:
        user = replace(user, jobs=[], limits=user.limits[:_LIMITS_KEPT], qos=user.qos[:_LIMITS_KEPT])
    pools = [replace(pool, features=[]) for pool in cluster.pools[:_POOLS_KEPT]]
    named = {pool.partition for pool in pools}
    partitions = [
        replace(part, node_states={}, allow_accounts=[])
        for part in [part for part in cluster.partitions if part.name in named][:_POOLS_KEPT]
    ]
    return replace(cluster, pools=pools, partitions=partitions, totals=cluster.totals[:_POOLS_KEPT], user=user)


def concise_compute(compute: Compute) -> Compute:
    """Without the evidence of the layers and what any but the first implies, of each card what a verdict does not need,
    ulimits, the Pythons not chosen, and the libraries that others stand on.

    Processes, addresses and abilities are in the full answer; what would be free without other users' stays.
    """
    first = compute.environment.primary
    layers = [
        replace(layer, evidence=[], details={}, implies=layer.implies if layer.id == first else {})
        for layer in compute.environment.layers
    ]
    left_out: dict[str, Any] = {
        "processes": [], "processes_left_out": 0, "uuid": None, "pci": None, "supports": None, "persistence": None,
        "ecc": None, "mig_instance": None,
    }  # fmt: skip
    usable = compute.usable()
    ranked = [*usable, *(card for card in compute.accelerators if card not in usable)]
    cards = [replace(card, **left_out) for card in ranked[:_CARDS_LISTED]]
    summary = compute.summary
    if len(cards) < len(ranked):
        summary += f" Listed here: {len(cards)} of {len(ranked)} cards, those with most free memory first."
    links = [replace(link, pairs=[*link.pairs[:_PAIRS_LISTED], "..."][: len(link.pairs)]) for link in compute.links]
    environment = replace(compute.environment, layers=layers)
    host = replace(compute.host, disk_filesystem=None, disk_kind=None, disk_free_inodes=None)
    limits = compute.limits
    if limits is not None:
        limits = type(limits)(job=limits.job) if limits.job else None
    python = compute.python
    if python is not None:
        libraries = {name: version for name, version in python.libraries.items() if name not in _BENEATH}
        python = replace(python, libraries=libraries, unmet=python.unmet[:_UNMET_KEPT])
    update = {
        "environment": environment, "accelerators": cards, "links": links, "summary": summary, "host": host,
        "limits": limits, "python": python, "interpreters": [],
        "clusters": [_named_only(cluster) for cluster in compute.clusters],
    }  # fmt: skip
    return compute.model_copy(update=update)


def _named_only(cluster: Cluster) -> Cluster:
    """A cluster by its summary: the GPUs by partition are in the full answer, and a preflight names the way to one."""
    return replace(cluster, pools=[], totals=[], shared=[], partitions=[], user=None)


def concise_estimate(estimate: Estimate) -> Estimate:
    """Without components of zero bytes; hook families beyond the largest few become one row."""
    components = [component for component in estimate.components if component.bytes]
    families = sorted(estimate.hooks, key=lambda family: -family.bytes)
    kept, rest = families[:_HOOKS_KEPT], families[_HOOKS_KEPT:]
    if rest:
        count, size = sum(family.count for family in rest), sum(family.bytes for family in rest)
        kept.append(
            rest[0].model_copy(update={"hook": f"{len(rest)} other kinds of hook", "count": count, "bytes": size})
        )
    update = {
        "components": components,
        "hooks": kept,
        "work": [],
        "overheads": [term.model_copy(update={"source": ""}) for term in estimate.overheads],
        "workload": _said(estimate.workload),
    }
    return estimate.model_copy(update=update)


def concise_recommendation(result: Recommendation) -> Recommendation:
    """The figures, the best changes and all GPUs; the breakdown is `estimate_memory`'s."""
    advice = _shorter(result.advice, len(result.advice.gpus))
    if result.sweep is not None:
        # Its own figures come first: cards for the largest run, and changes only where some run needs them.
        fewer = {"gpus": advice.gpus[:_GPUS_KEPT], "platforms": []}
        advice = advice.model_copy(update=fewer if result.sweep.does_not_fit else fewer | {"changes": []})
    update = {
        "workload": _said(result.workload),
        "estimate": _headline(result.estimate),
        "advice": advice,
        "sweep": _together(result.sweep) if result.sweep else None,
    }
    return result.model_copy(update=update)


def _together(sweep: Sweep) -> Sweep:
    """The runs together, and of the single ones the first that do not plainly fit."""
    beside = sweep.side_by_side
    if beside is not None:
        beside = beside.model_copy(update={"groups": []})
    others = [point for point in sweep.points if point.status != "fits"]
    left_out = {"over": {}, "summary": "", "warnings": []}  # the largest run's own are in its estimate
    return sweep.model_copy(update={"points": others[:_POINTS_KEPT], "side_by_side": beside, **left_out})


def concise_preflight(result: Preflight) -> Preflight:
    """The figures, the verdict and the words; advice only where it does not plainly fit."""
    advice = _shorter(result.advice, _GPUS_KEPT).model_copy(update={"platforms": []})
    if result.verdict.status in ("fits", "tight"):
        # Where it barely fits, a change that gives air is worth its words; another card is not asked about.
        update = {"gpus": []} if result.verdict.status == "tight" else {"changes": [], "solutions": [], "gpus": []}
        advice = advice.model_copy(update=update)
    update = {
        "workload": _said(result.workload),
        "compute": _where(result.compute) if result.compute else None,
        "estimate": _headline(result.estimate),
        "advice": advice,
        "asking": _words(result.asking),
    }
    return result.model_copy(update=update)


def concise_oom(report: OomReport) -> OomReport:
    """The figures, the causes, the likeliest tensors, and code for the first change only."""
    from ..advice.answers import Advice

    changes = _shorter(Advice(changes=report.changes), 0).changes
    message = report.message.model_copy(update={"library_frame": None})
    return report.model_copy(
        update={"workload": None, "message": message, "matches": report.matches[:_MATCHES_KEPT], "changes": changes}
    )


def concise_script(report: ScriptReport) -> ScriptReport:
    """A line a call, the values only of what does not plainly fit, and the worst findings."""
    found = []
    for one in report.found[:_CALLS_KEPT]:
        left_out: dict[str, Any] = {"values": {}, "beside": [], "end_line": one.line}
        if one.status == "fits":
            left_out |= {"workload": None, "unknown": {}, "notes": []}
        found.append(one.model_copy(update=left_out))
    findings = report.findings[:_FINDINGS_KEPT]
    summary = report.summary
    if len(found) < len(report.found) or len(findings) < len(report.findings):
        summary += " (detail full: all calls and findings)"
    return report.model_copy(update={"found": found, "findings": findings, "summary": summary})


def _said(workload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in workload.items() if value is not None and value is not False}


def _headline(estimate: Estimate) -> Estimate:
    """What is alive at the peak and how sure that is; the workload and the sentence stand beside it already."""
    from ..runtime.duration import TIMED

    components = [
        c.model_copy(update={"detail": ""}) for c in estimate.components if c.bytes > estimate.peak.device // 100
    ]
    long = estimate.time if estimate.time is not None and estimate.time.high > 60 else None
    if long is not None:
        long = long.model_copy(update={"basis": ""})
    left_out = {
        "time": long,
        "assumptions": [said for said in estimate.assumptions if long is not None or TIMED not in said],
        "workload": {},
        "hooks": [],
        "overheads": [],
        "summary": "",
        "verified_on": "",
        "work": [],
        "flops": 0,
        "moved_bytes": 0,
        "loading_host_bytes": 0,
        "loading_device_bytes": 0,
    }
    return estimate.model_copy(update={**left_out, "components": components})


def _where(compute: Compute) -> Compute:
    """The place in few words: the cards with most free memory, RAM, what went wrong. `detect_compute` has the rest."""
    shorter = concise_compute(compute)
    ranked = shorter.usable() or shorter.accelerators
    update = {
        "host": replace(compute.host, hostname="", disk_path="", disk_free_bytes=None),
        "environment": replace(shorter.environment, layers=[]),
        "accelerators": ranked[:_CARDS_KEPT],
        "summary": compute.summary if len(compute.accelerators) > _CARDS_KEPT else "",
        "python": None,
        "limits": None,
        "settings": {},
        "links": [],
        "clusters": [],
    }
    return shorter.model_copy(update=update)


def _words(asking: Question) -> Question:
    """The text offers what the form fields offer, and says why itself; without a text the reason does."""
    update = {"fields": [], "message": "", "default": "", "by_trigger": []}
    return asking.model_copy(update=update | {"reason": "" if asking.text else asking.reason})


def _shorter(advice: Advice, gpus_kept: int) -> Advice:
    """The best changes, with code for the first of them; GPUs and platforms without what to look out for."""

    from ..advice.strategies import best

    def shorter(rank: int, change: Change) -> Change:
        said = change.effect_detail if change.effect != "equivalent" else ""
        return change.model_copy(update={"code": "" if rank else change.code, "effect_detail": said})

    # Where something makes it fit, what only saves is not worth its tokens.
    changes = [] if advice.solutions else best(advice.changes, _CHANGES_KEPT)
    update = {
        "changes": [shorter(rank, change) for rank, change in enumerate(changes)],
        "solutions": [shorter(rank, change) for rank, change in enumerate(advice.solutions[:_CHANGES_KEPT])],
        "gpus": [gpu.model_copy(update={"note": "", **_short_run(gpu)}) for gpu in advice.gpus[:gpus_kept]],
        "paths": advice.paths[:_PATHS_KEPT],
        "platforms": [
            p.model_copy(update={"gotchas": [], "how": "", **({} if p.usd_high >= 1 else _CHEAP)})
            for p in advice.platforms[:_PLATFORMS_KEPT]
        ],
    }
    return advice.model_copy(update=update)


def _short_run(gpu: GpuChoice) -> dict[str, None]:
    """Nothing for a run that may take long; else its time and cost are left out: nobody decides by them."""
    if gpu.seconds_high is not None and gpu.seconds_high > _WORTH_A_PRICE_S:
        return {}
    return dict.fromkeys(("seconds_low", "seconds_high", "usd_low", "usd_high"))
