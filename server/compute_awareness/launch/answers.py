"""What is told of a task file."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Engine = Literal["skypilot", "slurm", "modal", "colab", "dstack"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


class LaunchFile(BaseModel):
    """A task file for an engine that starts runs; nothing was started and nothing was spent."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    engine: Engine
    file_name: str
    text: str = Field(description="The whole file")
    start: str = Field(description="What the user does to start it")
    gpu: str
    count: int
    limit_seconds: int = Field(description="The run is ended after this")
    disk_gib: int
    ram_gib: int
    usd: tuple[float, float] | None = Field(
        description="Cost of the shortest and of the longest expected run at a dated price, USD; null if none is known"
    )
    price: str = Field(default="", description="Where the price is from, with its date")
    notes: list[str] = Field(default_factory=list)
    summary: str
