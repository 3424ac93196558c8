"""The whole flow again, with what the user answered to its question."""

from __future__ import annotations

from .asking.answer import Settled, over_the_limit
from .asking.question import Question
from .errors import InputError
from .hardware.compute import Compute
from .preflight import TO_DO, Preflight, preflight
from .workload import AnyWorkload, parse_workload


def preflight_answered(
    workload: AnyWorkload,
    question: Question,
    settled: Settled,
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    python: str | None = None,
) -> Preflight:
    """`preflight` with the answer to `question`, which is not asked again: where no answer settles it, its default is
    told and gone on with. Another question may follow, such as which way to go on the card that was answered.

    Args:
        workload, gpu, compute, python: as `preflight` had them when it asked.
        settled: what the answer means (`asking.answer.settle`).
    Raises:
        InputError: as `preflight`.
    """
    patched = parse_workload(workload.model_dump() | settled.patch) if settled.patch else workload
    chosen = gpu if settled.gpu is None else settled.gpu
    result = preflight(
        patched,
        gpu=chosen,
        compute=compute,
        python=python,
        hours_allowed=settled.max_hours,
        usd_allowed=settled.max_usd,
    )
    asking, time = result.asking, result.estimate.time
    decision, text, fields = asking.decision, asking.text, asking.fields
    same = {field.name for field in fields} & {field.name for field in question.fields}
    if decision == "ask" and (same or settled.by_default):
        decision, text, fields = "tell", "" if settled.by_default else result.verdict.why, []
    if settled.by_default:
        text = f"{question.default} {text}".strip()
    if decision != "ask":
        limit = over_the_limit(settled, time.high / 3600, time.on) if time else ""
        text = f"{text} {limit}".strip()
        decision = "tell" if text else decision
    reason = f"{settled.said} {asking.reason}".strip()
    kept = (
        {"message": asking.message, "default": asking.default} if decision == "ask" else {"message": "", "default": ""}
    )
    result.asking = asking.model_copy(
        update={"decision": decision, "text": text, "fields": fields, "reason": reason, **kept}
    )
    result.known = [settled.said, *result.known]
    body = result.summary.removesuffix(TO_DO[asking.decision])
    result.summary = f"{settled.said} {body}{TO_DO[decision]}"
    return result


def not_usable(result: Preflight, error: InputError) -> Preflight:
    """`result`, which asks, with the question put once more in words: the answer given in a form was no use."""
    text, reason = f"I cannot use that answer: {error}.", "The user answered, but not usably."
    if any(field.name == "gpu" for field in result.asking.fields):
        text += " Which is it? Of a card that is not listed its memory in GB is enough."
        reason += ' Call again with gpu set to a name that is known, or to its size: "a card with 24 GB".'
    result.asking = result.asking.model_copy(update={"text": text, "fields": [], "reason": reason})
    result.known = [f"The user's answer could not be used: {error}", *result.known]
    return result
