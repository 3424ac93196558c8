"""The calls that may follow a result: at most three, with all their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The core is imported by the first call, not by the start of the server.
    from ..advice.answers import Change, NextStep
    from ..oom.explain import OomReport
    from ..preflight import Preflight, Recommendation

_WAYS = 2


def given(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The arguments of a call that were given."""
    return {name: value for name, value in (fields | more).items() if value is not None}


def after_preflight(result: Preflight, arguments: dict[str, Any]) -> list[NextStep]:
    """Where it is not plain that it fits: the same with a change that makes it fit, and which card to get."""
    if result.verdict.status == "fits" or "compute" in arguments:
        return []  # a report is too long to be repeated
    from ..advice.answers import NextStep

    # The user's other cards go before what takes their place: they may only just do, and are there.
    split = [change for change in result.advice.changes if "n_devices" in change.patch]
    steps = _with_changes([*split[:1], *result.advice.solutions], arguments)
    elsewhere = {name: value for name, value in arguments.items() if name not in ("gpu", "python", "host")}
    return [*steps, NextStep(tool="recommend_compute", arguments=elsewhere, when="which GPU, where, what it costs")]


def after_recommendation(result: Recommendation, arguments: dict[str, Any]) -> list[NextStep]:
    """The preflight on the smallest card that fits."""
    if "compute" in arguments or result.sweep or not result.advice.gpus:
        return []
    from ..advice.answers import NextStep

    card = result.advice.gpus[0]
    gpu = card.gpu_id if card.count == 1 else f"{card.count}x {card.gpu_id}"
    return [
        NextStep(tool="preflight_experiment", arguments=arguments | {"gpu": gpu}, when=f"if it will be {card.name}")
    ]


def after_oom(result: OomReport, workload: dict[str, Any] | None, gpu: str | None) -> list[NextStep]:
    """The preflight with a change that cures it, on the card where it died if that is known."""
    return _with_changes(result.changes, given(workload or {}, gpu=gpu))


def _with_changes(changes: Sequence[Change], arguments: dict[str, Any]) -> list[NextStep]:
    from ..advice.answers import NextStep

    return [
        NextStep(tool="preflight_experiment", arguments=_patched(arguments, change.patch), when=change.title)
        for change in changes
        if change.applies and change.patch
    ][:_WAYS]


def _patched(arguments: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A field that came in `options` is changed there: a call must not say two things of it."""
    options = arguments.get("options")
    if not isinstance(options, dict):
        return arguments | patch
    return {**arguments, "options": {name: value for name, value in options.items() if name not in patch}} | patch
