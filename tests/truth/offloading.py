"""accelerate's offloading where the CPU stands for the card: there a copy to the card would be none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import accelerate
import pytest
import torch


class Bus(dict[str, torch.Tensor]):
    """A state dict in RAM whose tensors are copied when they are asked for, and how many bytes that were."""

    crossed = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        held = super().__getitem__(name)
        self.crossed += held.nbytes
        return held.clone()


@contextmanager
def ram_beside_the_card() -> Iterator[None]:
    """`accelerate.cpu_offload` takes its weights over a `Bus`, and what `.cpu()` gives is on meta, not on the card."""
    original = accelerate.cpu_offload

    def over_the_bus(model: Any, execution_device: Any) -> Any:
        return original(model, execution_device=execution_device, state_dict=Bus(model.state_dict()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerate, "cpu_offload", over_the_bus)
        patch.setattr(torch.Tensor, "cpu", lambda tensor: torch.empty_like(tensor, device="meta"))
        yield
