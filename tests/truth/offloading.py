"""accelerate's offloading where the CPU stands for the card: there a copy to the card would be none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import accelerate
import pytest
import torch
from accelerate.utils.offload import extract_submodules_state_dict
from safetensors import safe_open
from transformers import modeling_utils
from transformers.integrations import accelerate as integration


class Bus(dict[str, torch.Tensor]):
    """A state dict in RAM whose tensors are copied when they are asked for, and how many bytes that were."""

    crossed = 0
    last: Bus | None = None
    """The one that was made last."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        Bus.last = self

    def __getitem__(self, name: str) -> torch.Tensor:
        held = super().__getitem__(name)
        self.crossed += held.nbytes
        return held.clone()


@contextmanager
def ram_beside_the_card() -> Iterator[None]:
    """`accelerate.cpu_offload` takes its weights over a `Bus`, so does a model that `from_pretrained` splits by
    `max_memory` (by transformers' own map, whose card 0 is the CPU here), and what `.cpu()` gives is on meta, not on
    the card."""
    offload, place, dispatch = accelerate.cpu_offload, integration._get_device_map, accelerate.dispatch_model

    def over_the_bus(model: Any, execution_device: Any) -> Any:
        return offload(model, execution_device=execution_device, state_dict=Bus(model.state_dict()))

    def placed(*given: Any) -> dict[str, Any]:
        found = place(*given)
        return {name: torch.device("cpu") if device == 0 else device for name, device in found.items()}

    def dispatched(model: Any, device_map: dict[str, Any], **given: Any) -> Any:
        waits = [name for name, device in device_map.items() if device == "cpu"]
        if waits:
            given["state_dict"] = Bus(extract_submodules_state_dict(model.state_dict(), waits))
        return dispatch(model, device_map=device_map, **given)

    def opened(path: Any, framework: str, device: Any) -> Any:
        return safe_open(path, framework=framework, device=str(device))  # which takes numbers of cards, and words

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerate.utils.offload, "safe_open", opened)
        patch.setattr(accelerate, "cpu_offload", over_the_bus)
        patch.setattr(modeling_utils, "_get_device_map", placed)
        patch.setattr(integration, "dispatch_model", dispatched)
        patch.setattr(torch.Tensor, "cpu", lambda tensor: torch.empty_like(tensor, device="meta"))
        yield
