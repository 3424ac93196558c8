"""The words for the user, from the templates in `prompts/questions/` and the sentences of `prompts/triggers.toml`.

Each file has TOML front matter between `+++` lines (`id`, `decision`, `about`, and for a question the
`without_answer` that is gone on with), then a Jinja2 body, which is rendered a second time with `form` set, as the
message above a form. What a body, a
field's label or a trigger's sentence may use are the values of `_values`; a question also has `asked` (the form fields,
its own first), `notes` (sentences of other triggers) and `asking` (the triggers that ask).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..advice.answers import Change, GpuChoice
from ..advice.verdict import of_one, while_loading
from ..prompt_files import prompts_folder
from ..units import GIB, duration, gib
from .facts import free_disk, gpu_shares, others_bytes, ram_times_need, torch_finding
from .question import FormField
from .situation import Situation, card_in_sight, cpu_device, cpu_hours, hours, hours_device, on_cpu, on_login_node
from .table import policy_table

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_WAYS = 3
_EFFECTS = ("equivalent", "numerically_different", "different_experiment")


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

    Those that keep the experiment's meaning come first, of them those that cost no time, of them those that lose
    nothing that is read, then those that save most.
    With `to_fit`, where some make it fit, only those, and what puts it on other cards of the place, which may only
    just do.
    """
    worth = [change for change in changes if change.applies and change.saving > 0]
    if to_fit and any(change.fits for change in worth):
        worth = [change for change in worth if change.fits or "n_devices" in change.patch]

    def key(change: Change) -> tuple[int, float, bool, int]:
        return _EFFECTS.index(change.effect), change.slowdown, not change.costless, change.peak_after

    return sorted(worth, key=key)[:MAX_WAYS]


class Words(NamedTuple):
    """What is said: `text` whole; or, where the client shows a form, `message` above its `fields`."""

    text: str
    fields: list[FormField]
    message: str = ""
    default: str = ""


def write(
    name: str,
    situation: Situation,
    triggers: Sequence[str],
    changes: Iterable[Change],
    gpus: Sequence[GpuChoice] = (),
    fields: Sequence[str] = (),
    beside: Sequence[str] = (),
    asking: Sequence[str] = (),
) -> Words:
    """The words of template `name` for this situation.

    `fields` are names of the table's, those of the template first; `beside` the sentences of other triggers, as
    templates. A text for telling is one line, with those sentences behind it.
    """
    environment = _environment()
    values = _values(environment, situation, triggers, list(changes), gpus)
    form = [_field(environment, field, values) for field in fields]
    said = [_line(environment.from_string(template).render(values)) for template in beside]
    notes = [note for note in said if note]
    values |= {"asked": form, "notes": notes, "asking": asking, "form": False}
    template, front = environment.get_template(name), question_files()[name].front
    if front["decision"] == "tell":
        text = template.render(values)
        return Words(" ".join(" ".join([text, *notes]).split()), form)
    default = _line(environment.from_string(front["without_answer"]).render(values))
    values["without_answer"] = default
    message = template.render({**values, "form": True}).strip()
    return Words(template.render(values).strip(), form, message, default)


def _field(environment: Environment, name: str, values: dict[str, Any]) -> FormField:
    row = policy_table().fields[name]
    options = values[row.options] if isinstance(row.options, str) else row.options
    field = FormField(name=name, label=_line(environment.from_string(row.label).render(values)), options=list(options))
    if row.options == "choices":
        field.sets, field.default = values["sets"], values["default_choice"]
    return field


def _values(
    environment: Environment,
    situation: Situation,
    triggers: Sequence[str],
    changes: list[Change],
    gpus: Sequence[GpuChoice],
) -> dict[str, Any]:
    estimate, verdict = situation.estimate, situation.verdict
    # Macros of the shared pieces; their names are attributes only at run time.
    pieces: Any = environment.get_template("_pieces").module
    offered = useful_changes(changes, to_fit=situation.place in ("card", "cpu"))
    fit = any(change.fits for change in offered)
    just = [" (it may only just fit)" if fit and change.fits is False else "" for change in offered]
    ways = [
        _line(pieces.way(change, amount(change.peak_after))) + only for change, only in zip(offered, just, strict=True)
    ]
    sizes_with = [_line(pieces.size_with(change, amount(change.peak_after))) for change in offered]
    room = verdict.free_bytes
    enough = [said for said, one in zip(sizes_with, offered, strict=True) if room is None or one.peak_after <= room]
    needed = amount(verdict.needed_bytes)
    larger = _line(pieces.larger(on_cpu(situation), gpus, needed))
    long, on_a_cpu = hours(situation), cpu_hours(situation)
    headroom = verdict.headroom_bytes or 0
    elsewhere = situation.compute.elsewhere() if situation.compute else None
    device = f"{elsewhere or 'the machine'}'s RAM" if on_cpu(situation) else verdict.device
    if getattr(situation.workload, "n_devices", 1) > 1 and (" x " in device or " and " in device):
        device = f"the fullest of {device}"  # free memory and need are those of one card
    elif of_one(verdict):
        device = f"one of {device}"
    peak, high = estimate.peak, estimate.range.high
    ram = max(estimate.loading_host_bytes, estimate.host_bytes)
    laptop_ram = policy_table().conditions["small"].limits["host_gib_at_most"] * GIB
    waiting, default = _free_after_others(situation), _default(offered, getattr(situation.workload, "reads", None))
    cpu_words = "" if on_a_cpu is None else duration(on_a_cpu * 3600)
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
        "ram": amount(ram) if ram > laptop_ram else "",
        "ram_for_loading": estimate.loading_host_bytes > estimate.host_bytes,
        "ram_has_room": not on_cpu(situation) and _ram_has_room(situation),
        "ram_free": amount(situation.compute.host.ram_available_bytes) if situation.compute else "",
        "free": None if verdict.free_bytes is None else amount(verdict.free_bytes),
        "short": amount(-headroom) if headroom < 0 else "",
        "why": _line(verdict.why),
        "stops": _line(estimate.stops),
        "loading": while_loading(verdict),
        "unread": _unread_card(situation),
        "long": "long_running" in triggers,
        "duration": "" if long is None else duration(long * 3600),
        "hours_on": _line(hours_device(situation)),
        "cpu_duration": cpu_words,
        "cpu": _line(cpu_device(situation)),
        "ways": ways,
        "sizes_with": sizes_with,
        "enough_with": enough,
        "ways_fit": fit,
        "default": _line(pieces.with_change(default)) if default else "",
        "choices": [*ways, *([f"waiting until others free the card: then {waiting}"] if waiting else []), larger],
        "sets": [
            *(change.patch for change in offered),
            *([{}] if waiting else []),
            {"gpu": _named(gpus) if not on_cpu(situation) else "unknown"},
        ],
        "default_choice": ways[offered.index(default)] if default and any(change.fits for change in offered) else "",
        "hours_allowed": "" if situation.hours_allowed is None else duration(situation.hours_allowed * 3600),
        "shared": _shared(situation),
        "on_login_node": on_login_node(situation),
        **_money(situation),
        **_disk(situation),
        **_torch(situation, cpu_words),
        **_path(situation),
    }


def _default(offered: Sequence[Change], reads: list[str] | None) -> Change | None:
    """The change that nobody minds if they do not answer: the results stay, nothing that is or may be read is left out,
    and the device holds it; of these rather one that takes no RAM."""
    harmless = [
        change
        for change in offered
        if change.effect == "equivalent"
        and change.fits is not False
        and not {"layers", "stop_at_layer"} & change.patch.keys()
        and change.patch.get("names_filter", reads) == reads
    ]
    return min(harmless, key=lambda change: change.host_bytes > 0, default=None)


def _named(gpus: Sequence[GpuChoice]) -> str:
    """The smallest card that fits as `gpu` takes it."""
    if not gpus:
        return "unknown"
    return gpus[0].gpu_id if gpus[0].count == 1 else f"{gpus[0].count}x {gpus[0].gpu_id}"


def _money(situation: Situation) -> dict[str, str]:
    cost, allowed = situation.cost, situation.usd_allowed
    per = cost.price if cost else None
    price = f"{per.what} at {per.usd_per_hour:.2f} USD per hour, {per.where}, {per.date}" if per else ""
    return {
        "cost": _usd(cost.usd) if cost else "",
        "price": _line(price),
        "usd_allowed": "" if allowed is None else _usd(allowed),
    }


def _usd(amount_of_it: float) -> str:
    return f"{amount_of_it:.0f} USD" if amount_of_it >= 10 else f"{amount_of_it:.2f} USD"


def _disk(situation: Situation) -> dict[str, str]:
    free, compute = free_disk(situation), situation.compute
    return {
        "download": "" if situation.to_download is None else amount(situation.to_download),
        "disk_free": "" if free is None else amount(free),
        "disk_path": _line(compute.host.disk_path or "the model cache" if compute else ""),
    }


def _torch(situation: Situation, cpu_words: str) -> dict[str, Any]:
    finding = torch_finding(situation)
    cure = finding.cure.rstrip(".") if finding else ""
    on_the_cpu = f"On the CPU: it may take up to {cpu_words}" if cpu_words else "On the CPU"
    choices = [_line(cure)] if cure else []
    choices += ["With another Python, which I name", *([on_the_cpu] if _ram_has_room(situation) else [])]
    return {
        "torch_problem": _line(finding.message) if finding else "",
        "torch_cure": f"{_line(cure)}." if cure else "",
        "torch_choices": choices,
    }


def _path(situation: Situation) -> dict[str, str]:
    first = situation.paths[0] if situation.paths else None
    return {
        "cluster": _line(first.cluster) if first else "",
        "partition": _line(first.partition) if first else "",
        "batch": _line(first.batch) if first else "",
    }


def _shared(situation: Situation) -> str:
    """What others have of the card in sight, in a sentence; empty if nothing is known of it."""
    shares, held, card = gpu_shares(situation), others_bytes(situation), card_in_sight(situation)
    if shares:
        return f"The job has {shares} share{'s' * (shares > 1)} of a GPU: other jobs may take its memory at any time."
    if not held or card is None:
        return ""
    users = dict.fromkeys(process.user for process in card.processes if process.own is False and process.user)
    by = f" ({', '.join(list(users)[:3])})" if users else ""
    whole = amount(card.free_without_others_bytes or 0)
    return _line(f"Other users{by} hold {amount(held)} of the card; without them {whole} would be free.")


def _free_after_others(situation: Situation) -> str:
    """What would be free on the card in sight without other users, where that is enough; else empty."""
    card = card_in_sight(situation) if others_bytes(situation) else None
    free = card.free_without_others_bytes if card else None
    return amount(free) if free is not None and free >= situation.verdict.needed_bytes else ""


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
    return policy_table().conditions["ram_has_room"].holds({"ram_times_need": ram_times_need(situation)})


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
