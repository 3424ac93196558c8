"""The shape of the decision whether to ask the user."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Decision = Literal["ask", "tell", "silent"]


class FormField(BaseModel):
    """One thing to ask for, as a flat form field."""

    model_config = ConfigDict(extra="forbid")
    name: str
    label: str
    options: list[str] = Field(default_factory=list, description="Suggested answers; empty = free text")
    sets: list[dict[str, Any]] = Field(
        default_factory=list, description="Of a choice: what each option sets in the call (gpu, or workload fields)"
    )
    default: str = Field(default="", description="The option that is taken without an answer; empty = none of them")


class TriggerDecision(BaseModel):
    """One trigger that fired, and what came of it."""

    model_config = ConfigDict(extra="forbid")
    trigger: str
    decision: Decision = Field(description="silent: a known answer makes it no matter at all")
    reason: str


class Question(BaseModel):
    """Whether to ask, in which words, and why."""

    model_config = ConfigDict(extra="forbid")
    decision: Decision = Field(description="ask the user; tell in one line and go on; or stay silent")
    triggers: list[str] = Field(
        default_factory=list, description="What made it worth a thought, first the strongest (prompts/triggers.toml)"
    )
    text: str = Field(
        default="", description="The words for the user: a question (ask) or one line (tell); empty when silent"
    )
    message: str = Field(default="", description="The text without its questions, to stand above a form of `fields`")
    fields: list[FormField] = Field(default_factory=list, description="What to ask for, at most three")
    default: str = Field(default="", description="What to go on with where the user gives no answer")
    reason: str = Field(default="", description="Why this decision")
    by_trigger: list[TriggerDecision] = Field(
        default_factory=list, description="The same for each trigger whose condition holds"
    )
