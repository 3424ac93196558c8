"""What the user already told: their machines and their budget, kept only because they agreed to it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import InputError, nearest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# A profile is read by people and by assistants: nothing that looks like a secret is taken.
_SECRET = re.compile(r"(?<![A-Za-z0-9])(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|ASIA|AIza|eyJ|rpa_)\w{8,}")


class Machine(BaseModel):
    """One machine that the user can run experiments on."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    gpu: str | None = Field(default=None, max_length=80, description='Its card: "RTX 4090", "2xH100"; "none" = no GPU')
    where: str | None = Field(default=None, max_length=80, description="Where it is, e.g. Colab, the lab's cluster")
    host: str | None = Field(default=None, max_length=255, description="Its name for ssh")
    max_hours: float | None = Field(default=None, gt=0, le=8760, description="Longest run there, hours")
    usd_per_hour: float | None = Field(default=None, ge=0, le=10_000, description="What it costs")
    saved: datetime.date = Field(description="When the user said so")

    @field_validator("gpu", "where", "host")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("holds a control character")
        if value is not None and _SECRET.search(value):
            raise ValueError("looks like a secret; a profile holds none")
        return value or None


class Budget(BaseModel):
    """What one run may cost before it is worth a question."""

    model_config = ConfigDict(extra="forbid")

    max_usd: float | None = Field(default=None, ge=0, le=1_000_000, description="USD a run may cost without asking")
    max_hours: float | None = Field(default=None, gt=0, le=8760, description="Hours a run may take without asking")
    saved: datetime.date


class Profile(BaseModel):
    """The answers of the user's file and of the project's, the project's first."""

    model_config = ConfigDict(extra="forbid")

    machines: dict[str, Machine] = Field(default_factory=dict)
    default: str | None = Field(default=None, description="The machine that experiments run on unless told otherwise")
    budget: Budget | None = None
    files: list[str] = Field(default_factory=list, description="The files read, the project's first")
    problems: list[str] = Field(default_factory=list, description="Files that could not be used, and why")

    def machine(self, name: str) -> tuple[str, Machine] | None:
        """The machine of that name, in any case."""
        return next(((n, m) for n, m in self.machines.items() if n.lower() == name.strip().lower()), None)

    def default_machine(self) -> tuple[str, Machine] | None:
        """The default machine, or the only one there is."""
        if self.default is not None:
            return self.machine(self.default)
        return next(iter(self.machines.items())) if len(self.machines) == 1 else None


def machine_name(name: str) -> str:
    """`name` if it can name a machine. Raises InputError else."""
    if not _NAME.fullmatch(name) or name.lower() in ("none", "unknown", "budget"):
        raise InputError(
            f"machine name {name[:64]!r}: give letters, digits, '.', '_' or '-', at most 64 "
            "(not none, unknown or budget), e.g. gpu-box"
        )
    return name


def unknown_machine(name: str, profile: Profile) -> InputError:
    """The error for a machine that is not in the profile."""
    close = nearest(name, profile.machines)
    known = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(profile.machines) or 'none'}"
    return InputError(f"no machine {name[:64]!r} in the profile; {known}")


def age(saved: datetime.date, today: datetime.date) -> str:
    """How old an answer is, in words."""
    days = (today - saved).days
    if days <= 0:
        return "said today"
    if days == 1:
        return "said yesterday"
    if days < 60:
        return f"said {days} days ago"
    return f"said {days // 30} months ago, on {saved.isoformat()}"


def profile_from(data: Mapping[str, Any]) -> Profile:
    """The profile that a decoded file holds.

    Raises:
        InputError: a field that is not known or a value that is not accepted, by its place in the file.
    """
    try:
        return Profile.model_validate({name: value for name, value in data.items() if name != "format"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{place}: {first['msg']}") from None
