"""What an optimizer keeps, and what its step allocates beside that.

Sources: torch 2.13 optim/adam.py and optim/sgd.py in the foreach variant, which torch chooses on CUDA; bitsandbytes
0.50 optim/optimizer.py (Optimizer2State, block-wise, min_8bit_size 4096).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Optimizer = Literal["adamw", "adam", "sgd", "sgd_momentum", "adamw_8bit"]
_BLOCK, _MIN_8BIT, _MAPS = 256, 4096, 2 * 256 * 4


def state_bytes(optimizer: Optimizer, tensors: Iterable[tuple[int, int]]) -> int:
    """Bytes of the state, which the first step allocates and the optimizer keeps.

    Adam's step counters (4 bytes a tensor) stay on the CPU and are left out.

    Args:
        tensors: of each trained tensor its elements and bytes per element.
    """
    match optimizer:
        case "adamw" | "adam":
            return sum(2 * elements * width for elements, width in tensors)
        case "sgd_momentum":
            return sum(elements * width for elements, width in tensors)
        case "sgd":
            return 0
    total, maps = 0, 0
    for elements, _ in tensors:
        if elements < _MIN_8BIT:
            total += 2 * 4 * elements
        else:  # a byte per moment and element, a float32 scale per block of each
            total += 2 * (elements + 4 * -(-elements // _BLOCK))
            maps = _MAPS
    return total + maps


def state_tensors(optimizer: Optimizer, tensors: Iterable[tuple[int, int]]) -> list[int]:
    """Bytes of each tensor of the state, in the order in which the first step makes them: Adam's two moments of one
    trained tensor, then those of the next."""
    states = [state_bytes(optimizer, [tensor]) for tensor in tensors]
    if optimizer != "sgd_momentum":
        states = [half for state in states for half in (state // 2, state - state // 2)]
    return [nbytes for nbytes in states if nbytes]


def step_tensors(optimizer: Optimizer, tensors: Iterable[tuple[int, int]]) -> list[int]:
    """Bytes of each tensor that the step allocates, one after the other, while gradients and state are alive; at its
    end they go.

    Adam's `_foreach_sqrt(exp_avg_sqs)` makes a list like that of the trained tensors; the others work in place.
    """
    if optimizer in ("adamw", "adam"):
        return [elements * width for elements, width in tensors]
    return []


def step_bytes(optimizer: Optimizer, tensors: Iterable[tuple[int, int]]) -> int:
    """Bytes of `step_tensors`, which are there at once."""
    return sum(step_tensors(optimizer, tensors))
