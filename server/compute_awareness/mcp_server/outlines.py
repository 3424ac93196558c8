"""What the output schemas say: the main fields of each result.

The results are whole instances of the core's models (`Compute`, `Estimate`, `Recommendation`, `Preflight`,
`OomReport`). Their full schemas would cost every session several thousand tokens, and importing them would delay
every start.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Outline(BaseModel):
    model_config = ConfigDict(defer_build=True)  # by the first call


class ComputeOutline(_Outline):
    """Of `hardware.compute.Compute`."""

    summary: str
    host: dict[str, Any]
    environment: dict[str, Any]
    accelerators: list[dict[str, Any]] = []


class EstimateOutline(_Outline):
    """Of `memory.estimate.Estimate`."""

    summary: str
    workload: dict[str, Any]
    components: list[dict[str, Any]]
    peak: dict[str, Any]
    range: dict[str, Any]
    precision: str


class RecommendationOutline(_Outline):
    """Of `preflight.Recommendation`."""

    summary: str
    workload: dict[str, Any]
    estimate: dict[str, Any]
    advice: dict[str, Any]
    sweep: dict[str, Any] | None = None
    launch: dict[str, Any] | None = None


class PreflightOutline(_Outline):
    """Of `preflight.Preflight`."""

    summary: str
    workload: dict[str, Any]
    compute: dict[str, Any] | None
    estimate: dict[str, Any]
    verdict: dict[str, Any]
    advice: dict[str, Any]
    asking: dict[str, Any]


class ScriptOutline(_Outline):
    """Of `script_reading.answer.ScriptReport`."""

    summary: str
    files: list[str]
    device: str
    free_bytes: int | None
    status: str
    found: list[dict[str, Any]]
    findings: list[dict[str, Any]] = []
    questions: list[str] = []


class OomOutline(_Outline):
    """Of `oom.explain.OomReport`."""

    summary: str
    message: dict[str, Any]
    findings: list[dict[str, Any]]
    matches: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
