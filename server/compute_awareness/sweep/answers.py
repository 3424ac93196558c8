"""The answer to: what does this grid of runs take?"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..advice.answers import Status
from ..launch.answers import LaunchFile


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class SweepPoint(_Answer):
    """One run of the grid."""

    values: dict[str, Any] = Field(description="The swept fields with their values here")
    needed_bytes: int = Field(description="Expected on the device, CUDA context and workspaces included")
    high_bytes: int = Field(description="Upper end of the same; what packing counts with")
    status: Status
    hours: tuple[float, float] = Field(description="This run's time on the device: a wide range")


class SideBySide(_Answer):
    """Processes on one card at once, each with a CUDA context of its own, counted at their upper ends."""

    any: int = Field(description="So many of the runs hold on one card at once, whichever they are")
    most: int = Field(description="No choice of more of them does")
    groups: list[list[int]] = Field(
        default_factory=list, description="Indices of points that hold on one card together (first-fit decreasing)"
    )
    groups_at_least: int = Field(description="No packing of all of them has fewer groups than this")
    hours: tuple[float, float] = Field(
        description="All groups one after the other on one card. Low: runs on one card do not slow each other; "
        "high: they share its arithmetic, and nothing is gained"
    )


class Sweep(_Answer):
    """What the runs of a grid take together."""

    over: dict[str, list[Any]] = Field(description="The swept fields with all their values")
    count: int = Field(description="Points of the grid")
    fits: int = Field(description="Runs that fit; of the others some are tight")
    does_not_fit: int
    device: str = Field(description="What each run was held against")
    cards: int = Field(default=1, description="Cards that are used at once, one run on each")
    free_bytes: int | None = Field(description="Free memory there; null if not known")
    smallest: SweepPoint
    largest: SweepPoint
    points: list[SweepPoint] = Field(default_factory=list, description="Every run, the last field changing fastest")
    side_by_side: SideBySide | None = Field(
        default=None, description="Null where no run fits, or what is free is not known"
    )
    gpu_hours: tuple[float, float] = Field(description="The runs that do not fail for memory, one after the other")
    hours: tuple[float, float] = Field(description="The same spread over `cards` cards, one run on each at a time")
    usd: tuple[float, float] | None = Field(
        default=None,
        description="USD for `gpu_hours` on rented cards; null where no price is known or the card is at hand",
    )
    price: str = Field(default="", description="Where the price is from, with its date")
    launch: LaunchFile | None = Field(default=None, description="The task file, where one was asked for")
    warnings: list[str] = Field(default_factory=list, description="Of the runs, each once")
    notes: list[str] = Field(default_factory=list)
    summary: str
