"""The shape of the answer about a script."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from .edits import Edit
from .source import Script

Status = Literal["fits", "tight", "does_not_fit", "unknown"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Said(_Answer):
    """A value of a call and where it comes from."""

    value: Any
    origin: Literal["literal", "computed", "model", "library_default", "default", "assumed"] = Field(
        description="literal: stands in the text; computed: from values in the text; model: the model's own numbers; "
        "library_default: not given; default: of an option or argument that can be set otherwise; assumed"
    )
    where: str = Field(default="", description="'line 12', or which default")


class Open(_Answer):
    """A value that the text does not give."""

    why: str
    at_most: int | None = Field(default=None, description="Bound that the text or the model gives")


class AliveBeside(_Answer):
    """Something that earlier lines left alive."""

    what: str
    bytes: int
    line: int


class Found(_Answer):
    """A call that takes memory."""

    file: str
    line: int
    end_line: int
    place: str = Field(description="'line 12'; in a notebook 'cell 3, line 2'")
    call: str
    kind: str = Field(description="load, load_sae, or the task of a workload")
    workload: dict[str, Any] | None = Field(description="What estimate_memory takes, where all of it is known")
    values: dict[str, Said]
    unknown: dict[str, Open] = Field(default_factory=dict)
    missing: list[str] = Field(default_factory=list, description="Of them, those without which there is no estimate")
    times: int | None = Field(description="How often it runs; null = not known")
    called: bool = Field(default=True, description="false: in a function that the file itself never calls")
    conditional: bool = Field(default=False, description="In a branch that may not be taken")
    low_bytes: int | None = Field(default=None, description="Device memory at the least, all that is alive counted")
    high_bytes: int | None = Field(default=None, description="The same at the most; null = no bound is known")
    beside: list[AliveBeside] = Field(default_factory=list, description="Of it, what earlier lines left alive")
    precision: Literal["exact", "close", "rough"] | None = None
    status: Status | None = Field(default=None, description="Held against the device; null = takes nothing there")
    largest: dict[str, int] = Field(
        default_factory=dict, description="The largest value of a field that fits, where it is not known or too large"
    )
    others: int = Field(
        default=0, description="Further variants of the call with other values, none of which takes more"
    )
    words: str = Field(description="One line a person can read")
    notes: list[str] = Field(default_factory=list)


class Finding(_Answer):
    """Something to change, at a line."""

    id: str
    severity: Literal["error", "warning", "note"]
    file: str
    line: int
    end_line: int
    place: str
    cause: str
    bytes_now: int | None = None
    bytes_after: int | None = None
    diff: str = Field(default="", description="The edit as a unified diff; empty where it is not one edit")
    effect: str = Field(default="", description="What the edit does to the result, where it does anything")
    _edits: list[Edit] = PrivateAttr(default_factory=list)

    def edits(self) -> list[Edit]:
        """The edits behind the diff, as places in the text that was read."""
        return self._edits


class ScriptReport(_Answer):
    """What a script will take, line by line."""

    files: list[str]
    device: str = Field(description="What it was held against")
    free_bytes: int | None
    status: Status
    worst: int | None = Field(default=None, description="Index in `found` of the moment that takes most")
    needed_bytes: int | None = Field(default=None, description="At the worst moment, at the least")
    hours: tuple[float, float] | None = Field(
        default=None, description="Low and high, of the calls whose number is known; null = none is"
    )
    download_bytes: int | None = None
    found: list[Found]
    findings: list[Finding] = Field(default_factory=list)
    questions: list[str] = Field(default_factory=list, description="What to ask where it decides whether it fits")
    notes: list[str] = Field(default_factory=list)
    summary: str
    _scripts: dict[str, Script] = PrivateAttr(default_factory=dict)

    def scripts(self) -> dict[str, Script]:
        """The texts that were read, by path."""
        return self._scripts
