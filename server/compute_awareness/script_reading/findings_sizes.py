"""Findings about sizes: batches, evaluation batches, the activation store of an SAE training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..units import gib
from . import edits
from .answer import Found
from .moments import Moment
from .values import Known, number
from .workloads import plain

if TYPE_CHECKING:
    from .findings import Findings


def buffer(to: Findings, moment: Moment, one: Found) -> None:
    """The activation store of an SAE training is more than the card has left."""
    event = moment.event
    if event.kind != "sae_training" or moment.least is None or one.status not in ("does_not_fit", "tight"):
        return
    store = sum(c.bytes for c in moment.least.components if c.name == "activation_store")
    if plain(event.fields.get("library")) != "sae_lens" or store < to.WORTH:
        return
    after = to.bytes_with(moment, act_store_device="cpu")
    if not to.worth(one, to.now(moment), after):
        return
    config = event.nodes.get("config")
    changes = edits.with_keyword(to.scripts[event.file], config, 'act_store_device="cpu"') if config else None
    to.add(
        "activation_store", "warning", event, f"the activation store alone takes {gib(store)} of the card",
        now=to.now(moment), after=after, changes=changes, effect="the same result; copies to the card take time",
    )  # fmt: skip


def batch(to: Findings, moment: Moment, one: Found) -> None:
    """A batch that cannot fit, and the largest that does."""
    event = moment.event
    size = event.fields.get("batch_size")
    largest = one.largest.get("batch_size")
    if one.status != "does_not_fit" or not isinstance(size, Known) or largest is None or event.kind == "load":
        return
    given = number(size)
    if given is None or largest >= given:
        return
    script = to.scripts[event.file]
    literal = edits.literal_at(script, size.source.line, given) if size.source.line else None
    to.add(
        "batch_too_large", "error", event, f"a batch of {given} cannot fit {to.place.name}; {largest} does",
        now=to.now(moment), after=to.bytes_with(moment, batch_size=largest),
        changes=edits.replaced(script, literal, str(largest)) if literal else None,
        effect="fewer sequences at once: the same work takes more passes",
    )  # fmt: skip


def evaluation(to: Findings, moment: Moment, one: Found) -> None:
    """An evaluation in larger batches than the training."""
    event = moment.event
    if event.kind == "sae_training":
        train, held = (event.fields.get(n) for n in ("store_batch_size_prompts", "eval_batch_size_prompts"))
    else:
        train, held = event.fields.get("batch_size"), event.evaluation_batch
    small, large = number(train), number(held)
    if event.kind not in ("training", "sae_training") or small is None or large is None or large <= small:
        return
    if not isinstance(held, Known) or held.source.kind == "library_default":
        return
    script = to.scripts[event.file]
    literal = edits.literal_at(script, held.source.line, large)
    now = to.bytes_with(moment, 2) if event.kind == "sae_training" else None
    after = to.bytes_with(moment, 2, eval_batch_size_prompts=small) if event.kind == "sae_training" else None
    to.add(
        "evaluation_batch", "note", event, f"the evaluation runs in batches of {large}, the training of {small}",
        now=now, after=after, changes=edits.replaced(script, literal, str(small)) if literal else None,
        line=held.source.line or None,
    )  # fmt: skip
