"""One thing that `doctor` says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """One thing that is wrong or worth knowing."""

    model_config = ConfigDict(extra="forbid")
    id: str
    severity: Literal["error", "warning", "info"]
    message: str
    cure: str = Field(
        default="", description="What to do about it; empty where the message says it or nothing can be done"
    )
