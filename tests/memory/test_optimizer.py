"""What optimizers keep, against torch's and bitsandbytes' own."""

from __future__ import annotations

import math
from typing import Any

import bitsandbytes
import pytest
import torch

from compute_awareness.memory.optimizer import state_bytes, step_bytes

SHAPES = [(300, 40), (40,), (17, 300), (4096,), (4095,)]
TENSORS = [(math.prod(shape), 4) for shape in SHAPES]


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    for parameter in made:
        parameter.grad = torch.zeros_like(parameter)
    return made


def kept(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the distinct tensors in the optimizer's state, step counters left out."""
    storages = {
        value.untyped_storage()._cdata: value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step"
    }
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "sgd_momentum"])
def test_torch_optimizers(name: Any, dtype: torch.dtype) -> None:
    weights = parameters(dtype)
    real: torch.optim.Optimizer
    match name:
        case "adamw":
            real = torch.optim.AdamW(weights, foreach=True)
        case "adam":
            real = torch.optim.Adam(weights, foreach=True)
        case _:
            real = torch.optim.SGD(weights, lr=0.1, momentum=0.9 if name == "sgd_momentum" else 0.0, foreach=True)
    real.step()
    tensors = [(n, dtype.itemsize) for n, _ in TENSORS]
    assert state_bytes(name, tensors) == kept(real)


def test_bitsandbytes_adamw_8bit() -> None:
    """A real step. Its CPU kernel works on float32 copies of one tensor at a time, where CUDA's works in place."""
    real = bitsandbytes.optim.AdamW8bit(parameters())
    real.step()
    assert state_bytes("adamw_8bit", TENSORS) == kept(real)
    assert state_bytes("adamw_8bit", [(100, 2)]) == 2 * 4 * 100


def test_what_the_step_allocates() -> None:
    everything = sum(n * w for n, w in TENSORS)
    assert step_bytes("adamw", TENSORS) == step_bytes("adam", TENSORS) == everything
    assert step_bytes("sgd", TENSORS) == step_bytes("sgd_momentum", TENSORS) == step_bytes("adamw_8bit", TENSORS) == 0
