"""The policy as data: `prompts/triggers.toml`, strictly read."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ..errors import InputError, nearest
from ..prompt_files import prompts_folder
from .conditions import ALWAYS, Condition, parse_condition
from .facts import A_TRIGGER_FIRED
from .situation import Figures

FILE = "triggers.toml"
MAX_FIELDS = 3
"""A message asks for no more than this."""


@dataclass(frozen=True)
class FieldRow:
    """One thing that the form can ask for. `options`: a list, or the name of a list among the values of `words.py`."""

    name: str
    label: str
    options: tuple[str, ...] | str


@dataclass(frozen=True)
class Silencer:
    """A known answer that makes a trigger's question needless, and whether it is told instead."""

    when: Condition
    then: Literal["tell", "silent"]
    because: str


@dataclass(frozen=True)
class Ask:
    """The question of a trigger in one case: the template and the form fields."""

    when: Condition
    question: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Trigger:
    """One trigger: when it fires, what silences it, what is asked else, and what is said where it is told."""

    id: str
    title: str
    when: Condition
    why: str
    silenced_by: tuple[Silencer, ...]
    ask: tuple[Ask, ...]
    say: str


@dataclass(frozen=True)
class Otherwise:
    """What is said where nothing is asked; `tell` None = nothing."""

    when: Condition
    tell: str | None
    because: str


@dataclass(frozen=True)
class Table:
    """The whole policy. `conditions` are evaluated in their order, each may use those before it.

    `leads`: every question's template, in the order in which one of several leads the message.
    """

    leads: tuple[str, ...]
    figures: Figures
    conditions: dict[str, Condition]
    fields: dict[str, FieldRow]
    triggers: tuple[Trigger, ...]
    otherwise: tuple[Otherwise, ...]


@cache
def policy_table() -> Table:
    """The table that is shipped. Raises InputError for a broken one."""
    folder = prompts_folder()
    templates = {path.stem for path in (folder / "questions").glob("*.md") if not path.stem.startswith("_")}
    return read_table((folder / FILE).read_text("utf-8"), templates)


def read_table(text: str, templates: Iterable[str]) -> Table:
    """The policy in `text`; `templates` are the names of the question templates.

    Raises:
        InputError: with the line and the trigger: not TOML, a key that is missing or unknown, a fact, field or
            template that is not there (with the nearest name), a value that is not accepted.
    """
    return _Reader(text.replace("\r\n", "\n"), frozenset(templates)).table()


class _Reader:
    """Reads one text; knows where in it a thing stands."""

    def __init__(self, text: str, templates: frozenset[str]) -> None:
        self.lines = text.split("\n")
        self.templates = templates
        self.place, self.first = "", 0
        self.flags: list[str] = []
        self.fields: dict[str, FieldRow] = {}
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"prompts/{FILE}: not valid TOML: {error}") from None

    def table(self) -> Table:
        self.keys(self.data, ("leads", "figures", "conditions", "fields", "trigger", "otherwise"))
        leads = self.leads()
        figures = self.part("[figures]", "figures")
        self.keys(figures, ("laptop_flops", "laptop_half_flops"))
        paces = Figures(*(self.number(figures, name) for name in ("laptop_flops", "laptop_half_flops")))
        conditions: dict[str, Condition] = {}
        for name, raw in self.part("[conditions]", "conditions").items():
            self.at(f"condition {name!r}", rf"{re.escape(name)}\s*=", self.row_of(r"\[conditions\]"))
            conditions[name] = self.condition(raw)
            self.flags.append(name)
        for name, row in self.part("[fields]", "fields").items():
            self.at(f"field {name!r}", rf"\[fields\.{re.escape(name)}\]")
            self.keys(row, ("label",), ("options",))
            options = row.get("options", [])
            self.fields[name] = FieldRow(name, row["label"], options if isinstance(options, str) else tuple(options))
        triggers = tuple(self.trigger(row, at) for row, at in self.rows("trigger"))
        ids = [trigger.id for trigger in triggers]
        for name in ids:
            if ids.count(name) > 1:
                raise self.error(f"trigger {name!r} is there twice")
        self.flags.append(A_TRIGGER_FIRED)
        rows = tuple(self.otherwise(row, at) for row, at in self.rows("otherwise"))
        for ask in (ask for trigger in triggers for ask in trigger.ask):
            if ask.question not in leads:
                self.at("leads", "leads")
                raise self.error(f"question {ask.question!r} is missing: a trigger asks it")
        return Table(leads, paces, conditions, self.fields, triggers, rows)

    def leads(self) -> tuple[str, ...]:
        self.at("leads", "leads")
        names = self.data["leads"]
        if not isinstance(names, list):
            raise self.error(f"a list of templates, not {type(names).__name__}")
        return tuple(self.known(name, self.templates, "template") for name in names)

    def trigger(self, row: dict[str, Any], line: int) -> Trigger:
        self.place, self.first = f"trigger {row.get('id', '?')!r}", line
        self.keys(row, ("id", "title", "when", "why", "ask"), ("silenced_by", "say"))
        when = self.condition(row["when"])
        try:
            title = row["title"].format(**when.limits)
        except (KeyError, ValueError, IndexError) as error:
            raise self.error(f"title: no limit of `when` is called {error}", "title") from None
        return Trigger(
            id=row["id"],
            title=title,
            when=when,
            why=row["why"],
            silenced_by=tuple(self.silencer(one) for one in self.list_of(row, "silenced_by")),
            ask=tuple(self.asks(one) for one in self.list_of(row, "ask")),
            say=row.get("say", ""),
        )

    def silencer(self, row: dict[str, Any]) -> Silencer:
        self.keys(row, ("if", "then", "because"))
        if row["then"] not in ("tell", "silent"):
            raise self.error(f"then: {row['then']!r} is not accepted; one of: tell, silent", f'"{row["then"]}"')
        return Silencer(self.condition(row["if"]), row["then"], row["because"])

    def asks(self, row: dict[str, Any]) -> Ask:
        self.keys(row, ("question", "fields"), ("if",))
        if not isinstance(row["fields"], list):
            raise self.error("fields: a list of names of [fields]", "fields")
        for name in row["fields"]:
            self.known(name, self.fields, "field")
        if not 0 < len(row["fields"]) <= MAX_FIELDS:
            raise self.error(f"fields: {len(row['fields'])} of them; a message asks for one to {MAX_FIELDS} things")
        when = self.condition(row["if"]) if "if" in row else ALWAYS
        return Ask(when, self.known(row["question"], self.templates, "template"), tuple(row["fields"]))

    def otherwise(self, row: dict[str, Any], line: int) -> Otherwise:
        self.place, self.first = "otherwise", line
        self.keys(row, ("because",), ("if", "tell"))
        when = self.condition(row["if"]) if "if" in row else ALWAYS
        tell = self.known(row["tell"], self.templates, "template") if "tell" in row else None
        return Otherwise(when, tell, row["because"])

    def condition(self, raw: Any) -> Condition:
        try:
            return parse_condition(raw, self.flags)
        except InputError as error:
            quoted = re.search(r"'([^']+)'", str(error))
            raise self.error(str(error), quoted[1] if quoted else "") from None

    def part(self, place: str, name: str) -> dict[str, Any]:
        self.at(place, re.escape(place))
        part = self.data[name]
        if not isinstance(part, dict):
            raise self.error(f"a table, not {type(part).__name__}")
        return part

    def rows(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """The tables of an array, each with the line on which it begins."""
        found = self.data[name]
        starts = [n for n, line in enumerate(self.lines) if line.strip() == f"[[{name}]]"]
        if not isinstance(found, list) or len(starts) != len(found):
            self.place, self.first = name, 0
            raise self.error(f"write each as a table of its own, below a line [[{name}]]")
        return list(zip(found, starts, strict=True))

    def list_of(self, row: dict[str, Any], name: str) -> list[dict[str, Any]]:
        found = row.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.error(f"{name}: a list of tables, not {type(found).__name__}", name)
        return found

    def keys(self, row: Mapping[str, Any], needed: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
        """Raises InputError unless `row` has all of `needed`, nothing but these and `others`, and plain texts."""
        for key, value in row.items():
            if key not in needed + others:
                close = nearest(key, needed + others, 1)
                hint = f"nearest: {close[0]}" if close else f"accepted: {', '.join(needed + others)}"
                raise self.error(f"unknown key {key!r}; {hint}", key)
            if key in _TEXTS and not isinstance(value, str):
                raise self.error(f"{key}: a text, not {type(value).__name__}", key)
        missing = [key for key in needed if key not in row]
        if missing:
            raise self.error(f"{missing[0]!r} is missing")

    def known(self, name: str, names: Iterable[str], what: str) -> str:
        known = list(names)
        if name in known:
            return name
        close = nearest(name, known, 1)
        hint = f"nearest: {close[0]}" if close else f"known: {', '.join(sorted(known))}"
        raise self.error(f"unknown {what} {name!r}; {hint}", f'"{name}"')

    def number(self, row: Mapping[str, Any], name: str) -> float:
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.error(f"{name}: a number above 0, not {value!r}", name)
        return float(value)

    def row_of(self, pattern: str, start: int = 0) -> int:
        rows = range(start, len(self.lines))
        return next((n for n in rows if re.match(pattern, self.lines[n].lstrip())), start)

    def at(self, place: str, pattern: str, start: int = 0) -> None:
        self.place, self.first = place, self.row_of(pattern, start)

    def error(self, problem: str, near: str = "") -> InputError:
        """The problem with the line of `near` in the part that is being read, else the line where the part begins."""
        rows = range(self.first, len(self.lines))
        ends = next((n for n in rows if n > self.first and self.lines[n].startswith("[")), len(self.lines))
        line = next((n for n in range(self.first, ends) if near and near in self.lines[n]), self.first)
        place = f", {self.place}" if self.place else ""
        return InputError(f"prompts/{FILE}, line {line + 1}{place}: {problem}")


_TEXTS = ("id", "title", "why", "say", "label", "question", "tell", "because", "then")
