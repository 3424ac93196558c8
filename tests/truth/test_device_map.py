"""Where transformers' own `device_map` puts weights, on the meta device, against the fullest card that is counted.

And where HookedTransformer puts its blocks.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformer_lens
import transformers
from builders import hf_config, quiet
from pydantic import ValidationError
from test_transformers_training import NAMES, small
from transformers.integrations.accelerate import get_balanced_memory, infer_auto_device_map

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory.huggingface.device_map import fullest_card
from compute_awareness.models.resolve import resolve
from compute_awareness.workload import ActivationCache, Inference


def by_card(model: torch.nn.Module, n: int) -> Counter[object]:
    """Bytes of parameters and buffers on each of `n` empty cards of 1 TB."""
    room = dict.fromkeys(range(n), 10**12)
    split = model._no_split_modules
    placed = infer_auto_device_map(
        model, get_balanced_memory(model, room, no_split_module_classes=split), no_split_module_classes=split
    )
    found: Counter[object] = Counter()
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        module = max((m for m in placed if f"{name}.".startswith(f"{m}.") or m == ""), key=len)
        found[placed[module]] += tensor.numel() * tensor.element_size()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_card_holds_more_than_is_counted(name: str) -> None:
    for n_layers, vocabulary in ((12, 503), (9, 20_000)):
        spec = small(name, n_layers, d_vocab=vocabulary)
        with quiet(), torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(hf_config(spec))
        for n in (2, 3, 4):
            with quiet():
                cards = by_card(model, n)
            assert set(cards) <= set(range(n)), "nothing goes to the RAM"
            counted, fullest = fullest_card(spec, 4, n), max(cards.values())
            assert fullest <= counted, (n, cards)
            if vocabulary == 503:
                assert counted <= 1.5 * fullest, (n, cards)


def test_an_estimate_has_the_fullest_cards_weights() -> None:
    for task in (Inference, ActivationCache):
        given = {"model": "pythia-2.8b", "library": "transformers", "batch_size": 2, "seq_len": 64}
        one, two = estimate(task(**given)), estimate(task(**given, n_devices=2))
        held = [next(c.bytes_at_peak for c in e.components if c.name == "weights") for e in (one, two)]
        assert held[1] == fullest_card(resolve("pythia-2.8b"), 4, 2) < 0.6 * held[0]
        assert one.peak.tensors - two.peak.tensors == held[0] - held[1]
        assert two.precision == "rough" and two.range.high > two.peak.device
        assert "nccl" not in {term.name for term in two.overheads}  # one process
        assert "on the fullest card" in two.summary


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"library": "transformer_lens"}, "puts blocks where memory is free"),
        ({"library": "transformer_bridge"}, "not covered yet"),
        ({"library": "transformers", "quantization": "bitsandbytes_8bit"}, "quantization"),
    ],
)
def test_what_is_not_covered_says_why(given: dict[str, str], words: str) -> None:
    with pytest.raises((ValidationError, InputError), match=words):
        estimate(Inference(model="gpt2", n_devices=2, **given))


class _Part:
    """A module of `nbytes`, which takes memory of the card that it is moved to."""

    def __init__(self, nbytes: int, used: Counter[int]) -> None:
        self.nbytes, self.used, self.device = nbytes, used, torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self.device = device
        self.used[device.index] += self.nbytes


def test_hooked_transformer_puts_blocks_where_its_forward_does_not_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why two cards get the finding `n_devices_unreliable`: the library's own two rules, on two empty cards."""
    from transformer_lens.utilities.multi_gpu import get_device_for_block_index

    used: Counter[int] = Counter()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=10**6))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda i: used[i])
    cfg = transformer_lens.HookedTransformerConfig(
        n_layers=4, d_model=8, n_ctx=8, d_head=4, d_vocab=10, act_fn="relu", device="cpu"
    )
    cfg.device, cfg.n_devices = "cuda", 2
    blocks = [_Part(100, used) for _ in range(4)]
    names = ("embed", "hook_embed", "pos_embed", "hook_pos_embed", "ln_final", "unembed")
    model: Any = SimpleNamespace(cfg=cfg, blocks=blocks, **{name: _Part(10, used) for name in names})
    transformer_lens.HookedTransformer.move_model_modules_to_device(model)
    placed = [block.device.index for block in blocks]
    sent = [get_device_for_block_index(i, cfg).index for i in range(4)]
    assert sent == [0, 0, 1, 1]
    assert sorted(placed) == [0, 0, 1, 1] and placed != sent
