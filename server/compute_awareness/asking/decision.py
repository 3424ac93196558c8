"""Whether to ask the user, and in which words: the trigger table (`prompts/triggers.toml`) evaluated on one case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..advice.answers import Change, ClusterPath, GpuChoice, Verdict
from ..advice.cost import Cost
from ..hardware.compute import Compute
from ..memory.estimate import Estimate
from ..workload import AnyWorkload
from .facts import A_TRIGGER_FIRED, facts_of
from .question import Question, TriggerDecision
from .situation import Situation, kind_of_place
from .table import MAX_FIELDS, Ask, Table, Trigger, policy_table
from .words import write


class Outcome(NamedTuple):
    """What came of one trigger whose condition holds. `ask` is None where it is not asked about."""

    trigger: Trigger
    ask: Ask | None
    entry: TriggerDecision


def decide(
    workload: AnyWorkload,
    estimate: Estimate,
    compute: Compute | None,
    verdict: Verdict,
    changes: Sequence[Change],
    *,
    gpu_named: bool = False,
    where_unknown: bool = False,
    params: int | None = None,
    n_layers: int | None = None,
    hours_high: float | None = None,
    hours_on: str = "",
    hours_allowed: float | None = None,
    cost: Cost | None = None,
    usd_allowed: float | None = None,
    to_download: int | None = None,
    gpus: Sequence[GpuChoice] = (),
    paths: Sequence[ClusterPath] = (),
) -> Question:
    """Ask, tell or stay silent; never raises for valid arguments.

    `compute` is the report of the machine in sight, None if it is not the one. `gpu_named`: the caller named the
    card, or said that there is none. `where_unknown`: the caller said that the machine in sight is not the one.
    `params` is the language model's parameter count as Hugging Face counts it, None without a language model;
    `n_layers` its blocks, with which `stop_at_layer` is judged. `hours_high` is the upper end of the duration on
    `hours_on`: the device in question, or a typical data-centre card where none is known. `hours_allowed` and
    `usd_allowed`: what the user said a run may take without a question. `cost`: where the run would be paid for by the
    hour. `to_download`: bytes of weights that are not on the disk yet, None if none or not known. `changes`, `gpus`
    and `paths` are what advice found, `gpus` the smallest first.
    """
    table = policy_table()
    place = kind_of_place(compute, verdict, gpu_named, where_unknown)
    situation = Situation(
        workload=workload,
        estimate=estimate,
        compute=compute,
        verdict=verdict,
        place=place,
        # A card that was named may be another machine's; that there is none is said of this one.
        in_sight=compute is not None and not where_unknown and not (gpu_named and place == "card"),
        said_elsewhere=where_unknown,
        params=params,
        n_layers=n_layers,
        hours_high=hours_high,
        hours_on=hours_on,
        hours_allowed=hours_allowed,
        cost=cost,
        usd_allowed=usd_allowed,
        to_download=to_download,
        paths=paths,
        figures=table.figures,
        costless=any(change.costless and change.fits for change in changes),
    )
    facts = _facts(table, situation)
    outcomes = [_outcome(trigger, facts) for trigger in table.triggers if trigger.when.holds(facts)]
    asking = [outcome for outcome in outcomes if outcome.ask is not None]
    if not asking:
        return _without_question(table, situation, facts, outcomes, changes, gpus)
    questions = [one.ask for one in asking if one.ask]
    lead = min(questions, key=lambda ask: table.leads.index(ask.question))
    fields = list(dict.fromkeys(name for ask in (lead, *questions) for name in ask.fields))[:MAX_FIELDS]
    beside = [one.trigger.say for one in outcomes if _said_beside(one, lead, fields)]
    triggers = _reported(outcomes)
    words = write(lead.question, situation, triggers, changes, gpus, fields, beside, [o.trigger.id for o in asking])
    reason = _why(asking) + "."
    return Question(
        decision="ask", triggers=triggers, reason=reason, **words._asdict(),
        by_trigger=[outcome.entry for outcome in outcomes],
    )  # fmt: skip


def _facts(table: Table, situation: Situation) -> dict[str, Any]:
    facts = facts_of(situation)
    for name, condition in table.conditions.items():
        facts[name] = condition.holds(facts)
    return facts


def _outcome(trigger: Trigger, facts: dict[str, Any]) -> Outcome:
    """The first silencer that holds, else the first question that does; a trigger with neither is told."""
    for silencer in trigger.silenced_by:
        if silencer.when.holds(facts):
            entry = TriggerDecision(trigger=trigger.id, decision=silencer.then, reason=silencer.because)
            return Outcome(trigger, None, entry)
    ask = next((ask for ask in trigger.ask if ask.when.holds(facts)), None)
    entry = TriggerDecision(trigger=trigger.id, decision="ask" if ask else "tell", reason=trigger.why)
    return Outcome(trigger, ask, entry)


def _said_beside(outcome: Outcome, lead: Ask, fields: Sequence[str]) -> bool:
    """Whether a trigger's own sentence belongs beside the question that leads: its words are not in that already."""
    if outcome.ask is None:
        return outcome.entry.decision == "tell"
    return outcome.ask.question != lead.question or not set(outcome.ask.fields) <= set(fields)


def _reported(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.trigger.id for outcome in outcomes if outcome.entry.decision != "silent"]


def _why(outcomes: Sequence[Outcome]) -> str:
    """Each reason once, behind the triggers that have it."""
    named: dict[str, list[str]] = {}
    for one in outcomes:
        named.setdefault(one.entry.reason, []).append(one.trigger.id)
    return "; ".join(f"{', '.join(ids)}: {reason}" for reason, ids in named.items())


def _without_question(
    table: Table,
    situation: Situation,
    facts: dict[str, Any],
    outcomes: list[Outcome],
    changes: Sequence[Change],
    gpus: Sequence[GpuChoice],
) -> Question:
    told = [outcome for outcome in outcomes if outcome.entry.decision == "tell"]
    facts[A_TRIGGER_FIRED] = bool(told)
    row = next((row for row in table.otherwise if row.when.holds(facts)), None)
    if row is None or row.tell is None:
        entries = [outcome.entry.model_copy(update={"decision": "silent"}) for outcome in outcomes]
        return Question(decision="silent", reason=row.because if row else "", by_trigger=entries)
    triggers = _reported(outcomes)
    text = write(row.tell, situation, triggers, changes, gpus, [], [one.trigger.say for one in told], []).text
    why = _why(told)
    return Question(
        decision="tell", triggers=triggers, text=text, reason=f"{row.because} {why}." if why else row.because,
        by_trigger=[outcome.entry for outcome in outcomes],
    )  # fmt: skip
