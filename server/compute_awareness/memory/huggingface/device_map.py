"""How transformers' `device_map="auto"` (or "balanced") lays a model's weights over several cards: the fullest one.

Whole blocks go to the cards in order. transformers 5.23 integrations/accelerate.py gives each card but the last
room for `total // n + int(1.25 * B)` bytes (`get_balanced_memory`), B the larger of a block and any other module;
`infer_auto_device_map` keeps room for one module on the first card. So a card in the middle is filled to more than
`total // n + B / 4`, the first one to more than `total // n - 3 B / 4`, and what is left for the last is below
`total // n + B`: no card holds more than the room above. A card whose free memory is less than that gets less, and
the rest goes to the RAM.
"""

from __future__ import annotations

from ...models.spec import ModelSpec
from ..parameters import hf_tensors


def fullest_card(spec: ModelSpec, width: int, n_devices: int) -> int:
    """The most bytes of parameters and buffers that one of `n_devices` roomy cards gets, at `width` bytes a number."""
    total = sum(hf_tensors(spec, width))
    one_more = sum(hf_tensors(spec.model_copy(update={"n_layers": spec.n_layers + 1}), width))
    largest = max(one_more - total, width * spec.d_vocab * spec.d_model)
    return min(total, total // n_devices + int(1.25 * largest))
