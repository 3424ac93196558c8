"""What to change in a script: each finding has its line, its cause, the bytes before and after, and an edit."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..advice.place import Place, needed
from ..errors import InputError
from ..hardware.compute import Compute
from ..units import GIB, gib
from . import edits
from .answer import Finding, Found
from .events import Event
from .idioms.models import Model
from .idioms.transformer_lens import Cache
from .moments import Estimates, Moment, with_others
from .reading import Reading
from .source import Script
from .values import Known, Lib, known, number
from .workloads import changed, plain, read_of

_WORTH = GIB // 4
"""A saving smaller than this is not worth a line, unless the script does not fit."""
_SAME = "the result stays the same"
_ROUNDING = "figures differ in the third significant digit"


@dataclass
class Findings:
    """Collects what is found in one script."""

    reading: Reading
    place: Place
    compute: Compute | None
    estimates: Estimates
    scripts: dict[str, Script]
    pairs: list[tuple[Moment, Found]]
    found: list[Finding] = field(default_factory=list)

    def collect(self) -> list[Finding]:
        """All findings, the worst first, then by line."""
        for moment, one in self.pairs:
            if moment.event.free or moment.problem:
                continue
            for rule in (_full_cache, _not_kept, _float32, _attn_result, _twice, _buffer, _batch, _evaluation, _no_gpu):
                rule(self, moment, one)
        _gradients(self)
        _growing(self)
        _disk(self)
        rank = {"error": 0, "warning": 1, "note": 2}
        return sorted(self.found, key=lambda one: (rank[one.severity], one.file, one.line))[:20]

    def bytes_with(self, moment: Moment, at: int = 0, **fields: Any) -> int | None:
        """Device bytes at the moment with these fields of the workload; None where there is no such estimate.

        `at` 0: expected, 2: at the most, what comes late in the run with it.
        """
        base = moment.workload or moment.most_workload or moment.least_workload
        if base is None:
            return None
        try:
            made = self.estimates.of(changed(base, **fields))
        except InputError:
            return None
        return needed(with_others(made, moment.beside), self.place)[at]

    def now(self, moment: Moment) -> int | None:
        return self.bytes_with(moment)

    def add(
        self, identity: str, severity: Any, event: Event, cause: str, *, now: int | None = None,
        after: int | None = None, changes: list[edits.Edit] | None = None, effect: str = "", line: int | None = None,
    ) -> None:  # fmt: skip
        script = self.scripts.get(event.file)
        at = line or event.line
        shown = edits.diff(script, changes) if script and changes else ""
        finding = Finding(
            id=identity, severity=severity, file=event.file, line=at, end_line=max(at, event.end_line),
            place=script.place(at) if script else f"line {at}", cause=cause, bytes_now=now, bytes_after=after,
            diff=shown, effect=effect,
        )  # fmt: skip
        finding.edits().extend(changes or [])
        self.found.append(finding)

    def worth(self, one: Found, now: int | None, after: int | None) -> bool:
        if now is None or after is None or after >= now:
            return False
        return now - after >= _WORTH or one.status not in ("fits", None)


def _full_cache(to: Findings, moment: Moment, one: Found) -> None:
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


def _not_kept(to: Findings, moment: Moment, one: Found) -> None:
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


def _float32(to: Findings, moment: Moment, one: Found) -> None:
    """Weights in float32 because nothing else was asked for."""
    event = moment.event
    dtype = event.fields.get("dtype")
    if event.kind != "load" or not isinstance(dtype, Known) or not isinstance(event.node, ast.Call):
        return
    if dtype.source.kind != "library_default" or dtype.value != "float32" or one.low_bytes is None:
        return
    if isinstance(event.subject, Model) and event.subject.trained:
        return
    half = "bfloat16" if to.place.has_bfloat16 else "float16"
    if plain(event.fields.get("library")) not in ("transformer_lens", "transformer_bridge"):
        return
    saving = _saved_by(to, moment, half)
    if saving <= 0 or (saving < GIB and one.status in ("fits", None)):
        return
    module = next((m for m in to.reading.modules.values() if m.script.path == event.file), None)
    has_torch = module is not None and module.names.get("torch") == Lib("torch")
    keyword = f"dtype=torch.{half}" if has_torch else f'dtype="{half}"'
    to.add(
        "float32_by_default", "warning" if one.status == "does_not_fit" else "note", event,
        "no dtype is given: the weights are loaded in float32", now=one.low_bytes, after=one.low_bytes - saving,
        changes=edits.with_keyword(to.scripts[event.file], event.node, keyword), effect=_ROUNDING,
    )  # fmt: skip


def _saved_by(to: Findings, moment: Moment, dtype: str) -> int:
    """Bytes that weights in `dtype` save; on a CPU loading decides, and 16 bit are loaded through float32."""
    if to.place.kind == "cpu":
        whole, less = to.now(moment), to.bytes_with(moment, dtype=dtype)
        return 0 if whole is None or less is None else whole - less
    base = moment.workload
    if base is None:
        return 0
    held = [
        sum(c.bytes for c in to.estimates.of(one).components if c.name in ("weights", "buffers"))
        for one in (base, changed(base, dtype=dtype))
    ]
    return held[0] - held[1]


def _attn_result(to: Findings, moment: Moment, one: Found) -> None:
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


def _twice(to: Findings, moment: Moment, one: Found) -> None:
    """The same model is loaded while it is there already."""
    event = moment.event
    if event.kind != "load" or not isinstance(event.subject, Model):
        return
    for other in event.alive:
        if not isinstance(other, Model) or other is event.subject or other.load is None:
            continue
        mine = (plain(event.subject.name), plain(event.subject.dtype))
        same = mine[0] is not None and mine == (plain(other.name), plain(other.dtype))
        if not same or other.load.file != event.file or other.library != event.subject.library:
            continue
        left = next((one.bytes for one in moment.left if one.line == other.load.line), 0)
        script = to.scripts[event.file]
        first = edits.statement_of(script, other.load.line, other.load.column)
        changes = None
        if (
            isinstance(first, ast.Assign)
            and isinstance(first.targets[0], ast.Name)
            and isinstance(event.node, ast.Call)
        ):
            changes = edits.replaced(script, event.node, first.targets[0].id)
        now = one.low_bytes
        to.add(
            "loaded_twice", "warning", event,
            f"{plain(other.name)} is loaded again; line {other.load.line} has loaded it and it is still there",
            now=now, after=None if now is None else now - left, changes=changes,
        )  # fmt: skip
        return


def _buffer(to: Findings, moment: Moment, one: Found) -> None:
    """The activation store of an SAE training is more than the card has left."""
    event = moment.event
    if event.kind != "sae_training" or moment.least is None or one.status not in ("does_not_fit", "tight"):
        return
    store = sum(c.bytes for c in moment.least.components if c.name == "activation_store")
    if plain(event.fields.get("library")) != "sae_lens" or store < _WORTH:
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


def _batch(to: Findings, moment: Moment, one: Found) -> None:
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


def _evaluation(to: Findings, moment: Moment, one: Found) -> None:
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


def _no_gpu(to: Findings, moment: Moment, one: Found) -> None:
    """`cuda` is written down and there is none."""
    event = moment.event
    device = event.fields.get("device")
    if to.place.kind != "cpu" or event.kind not in ("load", "load_sae") or not isinstance(device, Known):
        return
    name = str(device.value)
    if not name.startswith("cuda") or device.source.kind in ("assumed", "library_default"):
        return
    script = to.scripts[event.file]
    literal = edits.literal_at(script, device.source.line, name)
    module = next((m for m in to.reading.modules.values() if m.script.path == event.file), None)
    has_torch = module is not None and module.names.get("torch") == Lib("torch")
    choice = f'"{name}" if torch.cuda.is_available() else "cpu"'
    to.add(
        "no_cuda_here", "error", event, f"{name!r} is written down and {to.place.name} has no CUDA",
        changes=edits.replaced(script, literal, choice) if literal and has_torch else None,
        line=device.source.line or None,
    )  # fmt: skip


def _goes_back(to: Findings) -> bool:
    """Whether the script takes gradients anywhere."""
    words = ("backward", "autograd", "requires_grad_(True", "Trainer(", "trainSAE(", "incl_bwd", "attribute(")
    events = [moment.event for moment, _ in to.pairs]
    return any(word in script.text for script in to.scripts.values() for word in words) or any(
        event.kind in ("training", "sae_training", "attribution") for event in events
    )


def _gradients(to: Findings) -> None:
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


def _growing(to: Findings) -> None:
    """A list that collects activations on the card over a loop."""
    for grown in to.reading.grown.values():
        size = to.estimates.size_of(grown.value)
        if size is None or size == 0 or grown.script not in to.scripts:
            continue
        script = to.scripts[grown.script]
        total = None if grown.times is None else size * grown.times
        if total is not None and total < _WORTH:
            continue
        value = grown.node.args[0]
        text = ast.get_source_segment(script.text, value) or ""
        moved = f'{text}.to("cpu")' if isinstance(grown.value, Cache) else f"{text}.cpu()"
        simple = isinstance(value, ast.Name | ast.Subscript | ast.Call | ast.Attribute)
        many = "many" if grown.times is None else str(grown.times)
        place = Event("inference", "append", grown.script, grown.node.lineno, grown.node.lineno, 0, 0, {}, grown.times)
        to.add(
            "grows_in_a_loop", "warning", place,
            f"a list keeps {gib(size)} on the card each round, {many} rounds", now=total, after=0 if total else None,
            changes=edits.replaced(script, value, moved) if simple and text else None, effect="it then grows in RAM",
        )  # fmt: skip


def _disk(to: Findings) -> None:
    """Weights to download that the disk has no room for."""
    host = to.compute.host if to.compute is not None else None
    free = getattr(host, "disk_free_bytes", None)
    sizes: dict[str, int] = {}
    first: Event | None = None
    for moment, _ in to.pairs:
        name = plain(moment.event.fields.get("model"))
        if moment.least is not None and moment.least.download_bytes and isinstance(name, str):
            sizes[name] = moment.least.download_bytes
            first = first or moment.event
    total = sum(sizes.values())
    if first is not None and free is not None and total > free:
        to.add(
            "download", "error", first, f"its models are about {gib(total)} to download and the disk has {gib(free)}"
        )
