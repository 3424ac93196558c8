"""Counts the operations of a run with torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from builders import quiet
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _attention(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


# The counter knows CUDA's fused kernels but not the CPU's, which does the same products.
_CPU_KERNEL = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def counted(run: Callable[[], Any]) -> int:
    """Operations of `run()` as FlopCounterMode counts them, attention in the CPU's fused kernel as in CUDA's."""
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_KERNEL)
    with counter, quiet():
        run()
    return counter.get_total_flops()
