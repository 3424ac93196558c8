"""Findings about what a pass keeps: full caches, per-head outputs, graphs for a backward pass, lists that grow."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

from ..units import gib
from . import edits
from .answer import Found
from .events import Event
from .idioms.activation_cache import Cache
from .idioms.torch_tensors import Tensor
from .idioms.transformers import Output
from .moments import Moment, keeps_graph
from .values import Known, Lib, known
from .workloads import plain, read_of

if TYPE_CHECKING:
    from .findings import Findings

_SAME = "the result stays the same"


def full_cache(to: Findings, moment: Moment, one: Found) -> None:
    """Every hook is cached and the script reads a few of them by name."""
    event = moment.event
    if event.kind != "activation_cache" or "names_filter" not in event.fields or not isinstance(event.node, ast.Call):
        return
    base = moment.workload or moment.most_workload or moment.least_workload
    names = read_of(event) if getattr(base, "reads", None) else None  # None too where they are no hooks of the model
    if known(event.fields["names_filter"]) is not None or not names:
        return
    now = to.now(moment)
    after = to.bytes_with(moment, names_filter=names)
    if not to.worth(one, now, after) or now is None or after is None:
        return
    script = to.scripts[event.file]
    few = f"{len(names)} of its hooks are" if len(names) > 1 else f"only {names[0]} is"
    to.add(
        "full_cache", "warning", event, f"every hook is cached and {few} read", now=now, after=after, effect=_SAME,
        changes=edits.with_keyword(script, event.node, f"names_filter={_shown(names)}"),
    )  # fmt: skip


def not_kept(to: Findings, moment: Moment, one: Found) -> None:
    """The script reads a hook that its own filter leaves out."""
    for said in moment.least.warnings if moment.least else []:
        if said.startswith("reads: "):
            to.add("not_kept", "warning", moment.event, said.removeprefix("reads: "))


def _shown(names: list[str]) -> str:
    """The names as code: a list; where many blocks have the same hooks, a test of how a name ends."""
    ends = sorted({re.sub(r"^blocks\.\d+\.", "", name) for name in names})
    if len(names) <= 4 or len(ends) > 3 or len(names) < 4 * len(ends) or any(end in names for end in ends):
        return f"[{', '.join(json.dumps(name) for name in names)}]"
    told = ", ".join(json.dumps(f".{end}") for end in ends)
    return f"lambda name: name.endswith({told if len(ends) == 1 else f'({told})'})"


def attn_result(to: Findings, moment: Moment, one: Found) -> None:
    """Per-head outputs are computed and nobody reads them."""
    event = moment.event
    switch = event.fields.get("use_attn_result")
    if event.kind != "activation_cache" or known(switch) is not True or not isinstance(switch, Known):
        return
    read = [name for cache in event.result or [] for name in cache.read]
    kept = plain(event.fields.get("names_filter"))
    if any(cache.read_all for cache in event.result or []) or any("result" in name for name in [*read, *(kept or [])]):
        return
    now, after = to.now(moment), to.bytes_with(moment, use_attn_result=False)
    if to.worth(one, now, after):
        line = switch.source.line
        changes = edits.without_line(to.scripts[event.file], line, "use_attn_result") if line else None
        to.add(
            "attn_result", "warning", event, "use_attn_result is on and no per-head output is read", now=now,
            after=after, changes=changes, effect=_SAME,
        )  # fmt: skip


def _goes_back(to: Findings) -> bool:
    """Whether the script takes gradients anywhere."""
    words = ("backward", "autograd", "requires_grad_(True", "Trainer(", "trainSAE(", "incl_bwd", "attribute(")
    events = [moment.event for moment, _ in to.pairs]
    return any(word in script.text for script in to.scripts.values() for word in words) or any(
        event.kind in ("training", "sae_training", "attribution") for event in events
    )


def gradients(to: Findings) -> None:
    """Gradients are kept and nobody goes back through them: one edit for the whole script, or one per call."""
    kept = [
        (moment, one) for moment, one in to.pairs
        if known(moment.event.fields.get("with_gradients")) is True and "backward" not in moment.event.fields
        and moment.event.kind in ("activation_cache", "inference") and not moment.event.free
    ]  # fmt: skip
    whole = not _goes_back(to)
    for moment, one in kept:
        event = moment.event
        now, after = to.now(moment), to.bytes_with(moment, with_gradients=False)
        if after is None and event.kind == "inference":
            after = now
        if not to.worth(one, now, after):
            continue
        script = to.scripts[event.file]
        module = next((m for m in to.reading.modules.values() if m.script.path == event.file), None)
        if module is None or module.names.get("torch") != Lib("torch"):
            changes: list[edits.Edit] = []
        elif whole:
            changes = edits.after_imports(script, "torch.set_grad_enabled(False)")
        else:
            statement = edits.statement_of(script, event.line, event.column)
            changes = edits.wrapped(script, statement, "with torch.no_grad():") if statement else []
        to.add(
            "gradients_kept", "warning", event, "no torch.no_grad(): the graph for a backward pass is kept for nothing",
            now=now, after=after, changes=changes, effect=_SAME,
        )  # fmt: skip
        if whole and changes:
            return


def growing(to: Findings) -> None:
    """A list that collects activations on the card over a loop."""
    for grown in to.reading.grown.values():
        size = to.estimates.size_of(grown.value)
        if size is None or size == 0 or grown.script not in to.scripts:
            continue
        script = to.scripts[grown.script]
        total = None if grown.times is None else size * grown.times
        if total is not None and total < to.WORTH:
            continue
        value = grown.node.args[0]
        text = ast.get_source_segment(script.text, value) or ""
        simple = isinstance(value, ast.Name | ast.Subscript | ast.Call | ast.Attribute)
        graph = isinstance(grown.value, Tensor) and keeps_graph(grown.value.graph)
        if isinstance(grown.value, Cache):
            moved = f'{text}.to("cpu")'
        else:
            moved = f"{text}.detach()" * graph or text
            moved += ".cpu()" * (not to.estimates.elsewhere(grown.value))
            simple = simple and not isinstance(grown.value, Output)
        many = "many" if grown.times is None else str(grown.times)
        place = Event("inference", "append", grown.script, grown.node.lineno, grown.node.lineno, 0, 0, {}, grown.times)
        to.add(
            "grows_in_a_loop", "warning", place,
            f"a list keeps {gib(size)} on the card each round, {many} rounds"
            + ", the graph for a backward pass with it" * graph,
            now=total, after=0 if total else None,
            changes=edits.replaced(script, value, moved) if simple and text else None, effect="it then grows in RAM",
        )  # fmt: skip
