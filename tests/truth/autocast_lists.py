"""CUDA's list of autocast operators, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class CudaList(TorchFunctionMode):
    """What CUDA's autocast raises to float32 and the CPU's does not, done by hand on the CPU.

    Of CUDA's list (ATen/autocast_mode.h, AT_FORALL_FP32) these are the ones that the models call on 16-bit numbers.
    """

    RAISED = frozenset(
        {
            torch.pow, torch.rsqrt, torch.layer_norm, torch.softmax, torch.log_softmax, torch.Tensor.pow,
            torch.Tensor.softmax, torch.Tensor.__pow__, torch.nn.functional.softmax, torch.nn.functional.log_softmax,
        }
    )  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.RAISED and args[0].dtype == torch.bfloat16 and not (kwargs or {}).get("dtype"):
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))
