"""The Markdown prompts: where they lie, what their front matter says, and how they are filled in."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PromptFileArgument:
    """One argument of a prompt. Values are strings, as in MCP; one that is not given is the empty string."""

    name: str
    description: str
    required: bool


@dataclass(frozen=True)
class PromptFile:
    """One file: TOML front matter between `+++` lines, then a Jinja2 body."""

    name: str
    title: str
    description: str
    arguments: tuple[PromptFileArgument, ...]
    body: str

    def render(self, values: Mapping[str, str] | None = None) -> str:
        """The text for these values. Raises KeyError for a required argument that is missing or empty."""
        given = dict(values or {})
        for argument in self.arguments:
            if argument.required and not given.get(argument.name, "").strip():
                raise KeyError(argument.name)
        arguments = {a.name: given.get(a.name, "").strip() for a in self.arguments}
        return render(self.body, _of_the_policy(self.body) | arguments)


def prompts_folder() -> Path:
    """The folder of the prompts: inside the installed package, else at the root of the repository."""
    here = Path(__file__).resolve().parent
    inside = here / "prompts"
    return inside if inside.is_dir() else here.parents[1] / "prompts"


@cache
def prompt_files() -> dict[str, PromptFile]:
    """Every prompt by name, in the order of their names. Raises ValueError for a file with broken front matter."""
    return {path.stem: _parse(path.stem, path.read_text("utf-8")) for path in sorted(prompts_folder().glob("*.md"))}


def render(template: str, values: Mapping[str, Any]) -> str:
    """A Jinja2 template filled in, which may include the files of prompts/shared by name; a name it uses and `values`
    lacks raises jinja2.UndefinedError."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # Plain text for people and models: HTML escaping would only spoil it.
    environment = Environment(
        loader=FunctionLoader(lambda name: (prompts_folder() / "shared" / f"{name}.md").read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(template).render(values).strip() + "\n"


def _of_the_policy(body: str) -> dict[str, Any]:
    """What a body uses of the trigger table: `triggers`, and `limits` by trigger or condition and key."""
    if "triggers" not in body and "limits" not in body:
        return {}
    from .asking.table import policy_table

    table = policy_table()
    limits = {name: condition.limits for name, condition in table.conditions.items()}
    limits |= {trigger.id: trigger.when.limits for trigger in table.triggers}
    return {"triggers": table.triggers, "limits": limits}


def _parse(name: str, text: str) -> PromptFile:
    parts = text.replace("\r\n", "\n").split("+++\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise ValueError(f"prompt {name}: front matter between two +++ lines is missing")
    front = tomllib.loads(parts[1])
    arguments = tuple(PromptFileArgument(**row) for row in front.get("arguments", []))
    # A backslash at the end of a line joins it to the next, as in TOML's own strings.
    body = parts[2].replace("\\\n", "").strip() + "\n"
    return PromptFile(name, front["title"], front["description"], arguments, body)
