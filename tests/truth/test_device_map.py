"""Where transformers' own `device_map` puts weights, on the meta device, against the fullest card that is counted."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
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
