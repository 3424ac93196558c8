"""Operations counted against torch's own counter, on the real libraries' models without weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.runtime.flops import Shape, forward
from compute_awareness.runtime.sae import Step
from compute_awareness.runtime.work import Work

sys.path.append(str(Path(__file__).parents[1] / "truth"))
from builders import hf_model, hooked_transformer, quiet

MODELS = ["gpt2", "pythia-160m", "llama-2-7b", "mistral-7b", "gemma-2-2b", "qwen2.5-0.5b"]


def _spec(name: str) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec.model_copy(update={"n_layers": 2})


def _counted(model: Any, batch: int, seq: int, **forward: Any) -> int:
    tokens = torch.zeros(batch, seq, dtype=torch.long, device="meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), quiet():
        model(tokens, **forward)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_transformers_eager(name: str) -> None:
    spec = _spec(name)
    ours = forward(spec, Shape(2, 24)).flops
    # A mask that is ready for use: transformers cannot make one without values.
    mask = torch.zeros(2, 1, 24, 24, device="meta")
    theirs = _counted(hf_model(spec, attention="eager"), 2, 24, use_cache=False, attention_mask=mask)
    # The rotary angles are a product of one column with one row there, once for the model.
    rotary = 2 * 24 * (spec.rotary_dim or 0) // 2
    assert theirs - ours in (0, rotary, 2 * rotary)


@pytest.mark.parametrize("name", MODELS)
def test_hooked_transformer(name: str) -> None:
    spec = _spec(name)
    model = hooked_transformer(spec)
    assert _counted(model, 3, 17) == forward(spec, Shape(3, 17)).flops
    stopped = _counted(model, 3, 17, stop_at_layer=1)
    assert stopped == forward(spec, Shape(3, 17), layers=1, logits=0).flops


def test_layers_beyond_the_model_are_not_run() -> None:
    spec = _spec("gpt2")
    assert forward(spec, Shape(1, 8), layers=99) == forward(spec, Shape(1, 8))
    assert forward(spec, Shape(1, 8), layers=0, logits=0) == Work()


def test_an_sae_step() -> None:
    tokens, d_in, d_sae = 32, 16, 64
    w_enc = torch.randn(d_in, d_sae, requires_grad=True)
    w_dec = torch.randn(d_sae, d_in, requires_grad=True)
    b_dec = torch.zeros(d_in, requires_grad=True)
    x = torch.randn(tokens, d_in)
    counter = FlopCounterMode(display=False)
    with counter:
        out = torch.relu((x - b_dec) @ w_enc) @ w_dec + b_dec
        (out - x).pow(2).sum().backward()
    assert counter.get_total_flops() == Step("standard", d_in, d_sae, tokens).in_saelens().flops
