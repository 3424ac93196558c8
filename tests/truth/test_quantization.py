"""Quantised weights against bitsandbytes itself, which quantises on the CPU too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders import hf_config, quiet
from judge import judge

from compute_awareness.estimator import estimate
from compute_awareness.memory.quantization import quantized_weight_bytes
from compute_awareness.models.catalogue import find
from compute_awareness.preflight import preflight
from compute_awareness.workload import parse_workload

FAMILIES = {
    "gpt2": {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "d_head": 64, "d_mlp": 512},
    "pythia-70m": {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "d_head": 64, "d_mlp": 384, "rotary_dim": 16},
    "llama-3-8b": {"d_model": 192, "n_heads": 4, "n_kv_heads": 2, "d_head": 64, "d_mlp": 320, "rotary_dim": 64},
    "qwen2.5-0.5b": {"d_model": 128, "n_heads": 2, "n_kv_heads": 1, "d_head": 64, "d_mlp": 320, "rotary_dim": 64},
    "gemma-2-2b": {"d_model": 128, "n_heads": 2, "n_kv_heads": 1, "d_head": 64, "d_mlp": 256, "rotary_dim": 64},
    "opt-125m": {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "d_head": 64, "d_mlp": 512},
}


def held(model: Any) -> int:
    """Bytes of the parameters with what their quantisation keeps beside them."""
    total = 0
    for parameter in model.parameters():
        total += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += sum(t.nbytes for t in vars(state).values() if isinstance(t, torch.Tensor))
        scales = getattr(parameter, "SCB", None)
        total += 0 if scales is None else scales.nbytes
    return total


@pytest.mark.parametrize("quantization", ["bitsandbytes_8bit", "bitsandbytes_4bit"])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_a_quantised_model(tmp_path: Path, name: str, quantization: str) -> None:
    known = find(name)
    assert known is not None
    spec = known.model_copy(update=FAMILIES[name] | {"n_layers": 2, "d_vocab": 320, "n_ctx": 64, "name": "small"})
    how = {"load_in_8bit": True} if quantization == "bitsandbytes_8bit" else {"load_in_4bit": True}
    with quiet():
        transformers.AutoModelForCausalLM.from_config(hf_config(spec)).save_pretrained(tmp_path)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path,
            quantization_config=transformers.BitsAndBytesConfig(**how),
            device_map="cpu",
            dtype=torch.bfloat16,
        )
    judge(
        "transformers", transformers.__version__, "inference", spec.architecture, quantization,
        quantized_weight_bytes(spec, quantization, 2), held(model), 0.0, name,
    )  # fmt: skip


@pytest.mark.parametrize("quantization", ["bitsandbytes_4bit", "gptq_4bit", "fp8"])
def test_a_quantised_model_is_not_judged_by_its_whole_weights(quantization: str) -> None:
    """A 7B model in 4 bits loads on a card that its 16-bit weights do not fit."""
    workload = {
        "task": "inference",
        "library": "transformers",
        "model": "llama-2-7b",
        "dtype": "bfloat16",
        "seq_len": 64,
    }
    plain, small = (estimate(parse_workload(workload | more)) for more in ({}, {"quantization": quantization}))
    assert small.loading_device_bytes < 0.6 * plain.loading_device_bytes
    held = {c.name: c.bytes for c in small.components}["weights"]
    assert held < small.loading_device_bytes < 1.05 * held
    fits = preflight(parse_workload(workload | {"quantization": quantization}), gpu="RTX 4090").verdict.needed_bytes
    assert fits < preflight(parse_workload(workload), gpu="RTX 4090").verdict.needed_bytes * 0.7
