"""The words for the user, from the templates in `prompts/questions/`.

Each file has TOML front matter between `+++` lines (`id`, `decision`, `about`, and for a question its form
`fields` and the `without_answer` that is gone on with), then a Jinja2 body, which is rendered a second time with
`form` set, as the message above a form. A field's `label` is a template too; its `options` are a list, or the name of
the list among the values; `only_if` names a trigger without which the field is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..advice.answers import Change, GpuChoice
from ..prompt_files import prompts_folder
from ..units import GIB, duration, gib
from .policy import SMALL_HOST_BYTES
from .question import FormField, Trigger
from .triggers import Situation, cpu_device, cpu_hours, hours, hours_device, on_cpu

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_WAYS = 3
_EFFECTS = ("equivalent", "numerically_different", "different_experiment")


class Words(NamedTuple):
    """What is said to the user: the text, and of a question its form, the message above it and the default."""

    text: str
    fields: list[FormField]
    message: str = ""
    default: str = ""


class QuestionFile(NamedTuple):
    """One template: its front matter and its body."""

    front: dict[str, Any]
    body: str


@cache
def question_files() -> dict[str, QuestionFile]:
    """Every template by name. Raises ValueError for one whose front matter is missing or broken."""
    return {
        path.stem: _parse(path.stem, path.read_text("utf-8"))
        for path in sorted((prompts_folder() / "questions").glob("*.md"))
    }


def amount(n: int) -> str:
    """Bytes in GiB for a question, where figures have to be comparable: never in MiB."""
    return gib(n) if n >= GIB / 10 else "less than 0.1 GiB"


def useful_changes(changes: Iterable[Change], to_fit: bool) -> list[Change]:
    """The changes worth offering, at most three, best first.

    Those that keep the experiment's meaning come first, of them those that cost no time, then those that save most.
    With `to_fit`, where some make it fit, only those.
    """
    worth = [change for change in changes if change.applies and change.saving > 0]
    if to_fit and any(change.fits for change in worth):
        worth = [change for change in worth if change.fits]
    return sorted(worth, key=lambda change: (_EFFECTS.index(change.effect), change.slowdown, change.peak_after))[
        :MAX_WAYS
    ]


def write(
    name: str,
    situation: Situation,
    triggers: Sequence[Trigger],
    changes: Iterable[Change],
    gpus: Sequence[GpuChoice] = (),
) -> Words:
    """The words of template `name` for this situation. A text for telling is one line."""
    environment = _environment()
    front = question_files()[name].front
    values = _values(environment, situation, triggers, list(changes), gpus)
    fields = []
    for row in front.get("fields", []):
        if row.get("only_if", triggers[0] if triggers else None) in (*triggers, None):
            options = row.get("options", [])
            label = _line(environment.from_string(row["label"]).render(values))
            field = FormField(name=row["name"], label=label)
            if isinstance(options, str):
                field.options, field.sets, field.default = values[options], values["sets"], values["safe_choice"]
            else:
                field.options = options
            fields.append(field)
    values["questions"] = [field.label for field in fields]
    template = environment.get_template(name)
    text = template.render(values).strip()
    if front["decision"] == "tell":
        return Words(" ".join(text.split()), fields)
    default = _line(environment.from_string(front["without_answer"]).render(values))
    return Words(text, fields, template.render({**values, "form": True}).strip(), default)


def _values(
    environment: Environment,
    situation: Situation,
    triggers: Sequence[Trigger],
    changes: list[Change],
    gpus: Sequence[GpuChoice],
) -> dict[str, Any]:
    estimate, verdict = situation.estimate, situation.verdict
    # Macros of the shared pieces; their names are attributes only at run time.
    pieces: Any = environment.get_template("_pieces").module
    offered = useful_changes(changes, to_fit=situation.place in ("card", "cpu"))
    ways = [_line(pieces.way(change, amount(change.peak_after))) for change in offered]
    sizes_with = [_line(pieces.size_with(change, amount(change.peak_after))) for change in offered]
    needed = amount(verdict.needed_bytes)
    larger = _line(pieces.larger(on_cpu(situation), gpus, needed))
    long, on_a_cpu = hours(situation), cpu_hours(situation)
    headroom = verdict.headroom_bytes or 0
    elsewhere = situation.compute.elsewhere() if situation.compute else None
    device = f"{elsewhere or 'the machine'}'s RAM" if on_cpu(situation) else verdict.device
    peak, high = estimate.peak, estimate.range.high
    ram = max(estimate.loading_host_bytes, estimate.host_bytes)
    return {
        "place": situation.place,
        "status": verdict.status,
        "run": _line(pieces.run(situation.workload, _model_name(situation))),
        "device": _line(device),
        "machine": _line(elsewhere or "this machine"),
        "here": _line(f"on {elsewhere}") if elsewhere else "here",
        "needed": needed,
        "gpu_needed": amount(peak.device),
        "gpu_high": amount(high) if high > 1.1 * peak.device else "",
        "largest": _largest(situation),
        "ram": amount(ram) if ram > SMALL_HOST_BYTES else "",
        "ram_for_loading": estimate.loading_host_bytes > estimate.host_bytes,
        "ram_has_room": not on_cpu(situation) and _ram_has_room(situation),
        "free": None if verdict.free_bytes is None else amount(verdict.free_bytes),
        "short": amount(-headroom) if headroom < 0 else "",
        "why": _line(verdict.why),
        "unread": _unread_card(situation),
        "long": "long_running" in triggers,
        "duration": "" if long is None else duration(long * 3600),
        "hours_on": _line(hours_device(situation)),
        "cpu_duration": "" if on_a_cpu is None else duration(on_a_cpu * 3600),
        "cpu": _line(cpu_device(situation)),
        "ways": ways,
        "sizes_with": sizes_with,
        "ways_fit": any(change.fits for change in offered),
        "choices": [*ways, larger],
        "sets": [*(change.patch for change in offered), {"gpu": _named(gpus) if not on_cpu(situation) else "unknown"}],
        "safe_choice": ways[0] if offered and _safe(offered[0]) else larger,
        "safe": bool(offered) and _safe(offered[0]),
        "form": False,
    }


def _safe(change: Change) -> bool:
    """Whether it may be made without an answer: it makes the run fit, and every value stays what it was.

    What is kept of a cache is the user's to say: a filter is safe only for who knows which hooks are read.
    """
    kept = {"names_filter", "layers", "stop_at_layer"} & set(change.patch)
    return change.fits is True and change.effect == "equivalent" and bool(change.patch) and not kept


def _named(gpus: Sequence[GpuChoice]) -> str:
    """The smallest card that fits as `gpu` takes it."""
    if not gpus:
        return "unknown"
    return gpus[0].gpu_id if gpus[0].count == 1 else f"{gpus[0].count}x {gpus[0].gpu_id}"


def _model_name(situation: Situation) -> str:
    model = situation.workload.model
    if isinstance(model, dict):
        model = str(model.get("name") or "a model of your own")
    return _line(model or "", 80)


def _largest(situation: Situation) -> str:
    """The component that is more than half of the peak, in words; empty if none is."""
    peak = situation.estimate.peak.tensors
    parts = [part for part in situation.estimate.components if part.where == "device"]
    top = max(parts, key=lambda part: part.bytes_at_peak, default=None)
    return f"the {top.name.replace('_', ' ')}" if top and top.bytes_at_peak > peak / 2 else ""


def _ram_has_room(situation: Situation) -> bool:
    compute = situation.compute
    return compute is not None and compute.host.ram_available_bytes > 2 * situation.verdict.needed_bytes


def _unread_card(situation: Situation) -> str:
    """A card that is there for the run although its free memory cannot be read; empty if there is none."""
    cards = situation.compute.accelerators if situation.compute else []
    names = [card.name for card in cards if card.visible and card.free_bytes is None]
    return _line(names[0]) if names else ""


def _line(text: str, most: int = 600) -> str:
    """One line of at most `most` characters: names and titles come from outside."""
    joined = " ".join(text.split())
    return joined if len(joined) <= most else joined[: most - 3] + "..."


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    # Text for people and models, never HTML: escaping would only spoil it.
    environment = Environment(
        loader=DictLoader({name: file.body for name, file in question_files().items()}),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"flat": _flat, "amount": amount}
    return environment


def _flat(items: list[Any]) -> list[Any]:
    """A list of lists and single values as one list."""
    return [one for item in items for one in (item if isinstance(item, list) else [item])]


def _parse(name: str, text: str) -> QuestionFile:
    parts = text.replace("\r\n", "\n").split("+++\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise ValueError(f"question {name}: front matter between two +++ lines is missing")
    # A backslash at the end of a line joins it to the next, as in TOML's own strings.
    return QuestionFile(tomllib.loads(parts[1]), parts[2].replace("\\\n", ""))
