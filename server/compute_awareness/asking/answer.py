"""What the user answered to a question: what it means for the run, in which words, and whether it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..advice import gpus, platforms
from ..errors import InputError
from ..units import duration
from .profile import Profile
from .profile_file import read_profile, set_budget, set_machine
from .question import FormField, Question

How = Literal["accept", "decline", "cancel"]

_NO_GPU = frozenset(("none", "no", "no gpu", "none (cpu only)", "cpu", "cpu only"))
_OWN = frozenset(("gpu", "where", "choice", "time_budget"))
"""Fields that are more than one of a few options."""
_NOT_KNOWN = frozenset(("", "unknown", "i do not know", "i don't know", "not known", "?"))
_NO_ANSWER = {"decline": "The user declined to answer", "cancel": "The user closed the question without an answer"}


@dataclass(frozen=True)
class Settled:
    """What is known after the question. `gpu` as in `preflight`, None = the user did not say one."""

    said: str
    gpu: str | None = None
    patch: dict[str, Any] = field(default_factory=dict[str, Any])
    where: str | None = None
    max_hours: float | None = None
    max_usd: float | None = None
    by_default: bool = False
    """Nothing was answered that settles it: what the question says of no answer is gone on with."""

    def usd_per_hour(self) -> float | None:
        """The cheapest dated price of the card answered; None if none is known."""
        if self.gpu is None or self.gpu in ("none", "unknown"):
            return None
        request = gpus.find_gpu(self.gpu)
        deal = platforms.cheapest([request.gpu.id], request.count)
        return deal.usd_per_hour if deal else None


def settle(question: Question, how: How, given: Mapping[str, Any]) -> Settled:
    """What the user's answer to `question` means. `given` are the form's values by field; those left empty are None.

    Fields: `choice` (an option of the question), `gpu`, `memory_gb`, `where`, `max_hours`, `max_usd`, and those of the
    policy's table that only have options.

    Raises:
        InputError: an answer that cannot be used: a card that is not known and no memory given, a bad number.
    """
    choice = next((one for one in question.fields if one.sets), None)
    # Nobody said that there is another card: without an answer the verdict stays that of the one in question.
    unchosen = {k: v for k, v in _chosen(choice, choice.default).items() if k != "gpu"} if choice else {}
    if how != "accept":
        return _of_choice(f"{_NO_ANSWER[how]}.", unchosen, by_default=True)
    name = _text(given, "gpu")
    gpu = _card(name, _number(given, "memory_gb", 1, 2048))
    where = _text(given, "where") or None
    picked = _text(given, "choice", 400) if choice else ""
    asks_gpu = any(one.name == "gpu" for one in question.fields)
    others = [_text(given, one.name, 400) for one in question.fields if one.name not in _OWN]
    hours, usd = _number(given, "max_hours", 0, 8760), _number(given, "max_usd", 0, 1_000_000)
    parts = [
        picked,
        _in_words(gpu, name) if asks_gpu else "",
        where or "",
        *others,
        f"at most {hours:g} h" if hours is not None else "",
        f"at most {usd:g} USD" if usd is not None else "",
    ]
    answered = [part for part in parts if part]
    said = f"The user answered: {'; '.join(answered)}." if answered else f"{_NO_ANSWER['cancel']}."
    settles = picked if choice else gpu is not None if asks_gpu else answered
    sets = (_chosen(choice, picked) if picked else unchosen) if choice else {}
    chosen = _of_choice(said, sets, by_default=not settles)
    return replace(chosen, gpu=chosen.gpu if gpu is None else gpu, where=where, max_hours=hours, max_usd=usd)


def over_the_limit(settled: Settled, hours_high: float, on: str) -> str:
    """One sentence where the run may take longer, or cost more, than the user allows; empty else."""
    said: list[str] = []
    if settled.max_hours is not None and hours_high > settled.max_hours:
        said.append(
            f"It may take up to {duration(hours_high * 3600)} on {on}, more than the {settled.max_hours:g} h allowed."
        )
    if settled.max_usd is not None:
        price = settled.usd_per_hour()
        if price is None:
            said.append(f"What an hour costs there is not known, so {settled.max_usd:g} USD cannot be held against it.")
        elif price * hours_high > settled.max_usd:
            said.append(
                f"It may cost up to {price * hours_high:.2f} USD at {price:.2f} USD per hour, more than the "
                f"{settled.max_usd:g} USD allowed."
            )
    return " ".join(said)


def keep(settled: Settled, cwd: Path | None = None) -> str:
    """Keep the answer in the project's profile, as its default machine and budget. What was kept where, in words.

    It only adds: what the profile says already stays as it is, since a tick in a form is no order to overwrite.
    """
    if settled.gpu is None and settled.max_hours is None and settled.max_usd is None:
        return "Nothing was kept for this project: no card and no limit was answered."
    before = read_profile(cwd=cwd)
    kept: list[str] = []
    path: Path | None = None
    try:
        if settled.gpu is not None:
            name, fields = _machine(settled, before)
            path = set_machine(name, fields, "project", default=before.default is None, cwd=cwd)
            kept.append(f"machine {name!r}")
        told = before.budget
        usd = settled.max_usd if told is None or told.max_usd is None else None
        hours = settled.max_hours or None if told is None or told.max_hours is None else None
        if usd is not None or hours is not None:
            path = set_budget(usd, hours, "project", cwd=cwd)
            kept.append("budget")
    except InputError as error:
        return f"The answer could not be kept: {error}."
    stays = ""
    if usd != settled.max_usd or hours != (settled.max_hours or None):
        stays = " The profile has a limit already, which stays: `compute-awareness profile budget` changes it."
    if not kept:
        return f"Nothing was kept for this project.{stays}"
    return f"Kept for this project as the user agreed: {' and '.join(kept)}, in {path}.{stays}"


def _machine(settled: Settled, before: Profile) -> tuple[str, dict[str, Any]]:
    """The name under which the card is kept, and its fields: the default machine where that has no card yet, else a
    machine of its own."""
    default = before.default_machine()
    if default is not None and default[1].gpu is None:
        return default[0], {"gpu": settled.gpu}
    wanted = name = _slug(settled.where or settled.gpu or "")
    number = 1
    while (found := before.machine(name)) is not None and found[1].gpu != settled.gpu:
        number += 1
        name = f"{wanted}-{number}"
    return name, {"gpu": settled.gpu} if found else {"gpu": settled.gpu, "where": settled.where}


def _of_choice(said: str, sets: dict[str, Any], *, by_default: bool = False) -> Settled:
    patch = dict(sets)
    gpu = patch.pop("gpu", None)
    return Settled(said, None if gpu == "unknown" else gpu, patch, by_default=by_default)


def _chosen(choice: FormField, picked: str) -> dict[str, Any]:
    if not picked:
        return {}
    if picked not in choice.options:
        raise InputError(f"choice {picked[:80]!r} was not offered; one of: {' | '.join(choice.options)}")
    return choice.sets[choice.options.index(picked)]


def _card(name: str, memory_gb: float | None) -> str | None:
    """The card as `gpu` takes it; None where the user does not know. Raises InputError for one that is not known."""
    plain = " ".join(name.lower().split())
    if plain in _NO_GPU:
        return "none"
    of_size = None if memory_gb is None else f"a card with {round(memory_gb)} GB"
    if plain in _NOT_KNOWN:
        return of_size
    if memory_gb is None:
        gpus.find_gpu(name)
        return name
    sized = f"{name} {round(memory_gb)} GB"
    try:
        gpus.find_gpu(name)
    except InputError:
        return of_size  # a card that is not in the table, of known memory
    gpus.find_gpu(sized)
    return sized


def _in_words(gpu: str | None, name: str) -> str:
    if gpu is None:
        return "GPU not known"
    if gpu == "none":
        return "no GPU"
    known = name in gpu or name.lower() in _NOT_KNOWN
    return f"GPU {gpu}" if known else f"GPU {name}, which is not in the table: counted as {gpu}"


def _text(given: Mapping[str, Any], name: str, most: int = 80) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}: a text, not {type(value).__name__}")
    return " ".join(value.split())[:most]


def _number(given: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError(f"{name}: a number from {least:g} to {most:g}, not {str(value)[:40]!r}")
    return float(value)


def _slug(text: str) -> str:
    """A machine's name for the profile: letters, digits and '-'; `answered` where none are left."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return plain if plain and plain not in ("none", "unknown", "budget") else "answered"
