"""Models that no closed form covers: traced where a Python can, their text model alone, or refused with the reasons."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.preflight import preflight
from compute_awareness.workload import parse_workload

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512, "vocab_size": 1000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAVA = {
    "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {"hidden_size": 64},
    "text_config": {key: value for key, value in LLAMA.items() if key != "architectures"},
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "num_local_experts": 4,
    "num_experts_per_tok": 2, "vocab_size": 500, "max_position_embeddings": 256,
}  # fmt: skip


def forward(model: dict[str, Any], **more: Any) -> Any:
    fields = {"task": "inference", "library": "transformers", "model": model, "batch_size": 2, "seq_len": 64}
    return parse_workload(fields | more)


def test_a_multimodal_model_is_its_text_model_and_says_so() -> None:
    whole, text = estimate(forward(LLAVA)), estimate(forward(LLAMA))
    assert whole.peak == text.peak
    assert whole.precision == "rough" and any("text model alone" in warning for warning in whole.warnings)
    assert whole.workload["model"] == LLAVA
    assert whole.range.high > text.range.high
    answer = preflight(forward(LLAVA), gpu="RTX 4090")
    assert answer.verdict.status == "fits" and answer.advice.changes == []


def test_a_mixture_of_experts_is_traced_in_the_experiments_python() -> None:
    result = estimate(forward(MIXTRAL), python=sys.executable)
    assert result.method == "trace"
    experts = 3 * 4 * 64 * 128
    assert {c.name: c.bytes for c in result.components}["weights"] > 2 * 4 * experts
    answer = preflight(forward(MIXTRAL), gpu="RTX 4090", python=sys.executable)
    assert answer.verdict.status == "fits" and answer.estimate.method == "trace"


def test_without_torch_both_reasons_are_said(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"mixture of experts .*cannot be traced") as error:
        estimate(forward(MIXTRAL), python=str(tmp_path / "no-python"))
    assert "\n" not in str(error.value)


def test_closed_form_means_no_trace() -> None:
    with pytest.raises(InputError, match="mixture of experts"):
        estimate(forward(MIXTRAL, method="closed_form"), python=sys.executable)


def test_a_task_that_is_not_traced_says_so() -> None:
    workload = {"task": "activation_cache", "library": "transformers", "model": MIXTRAL}
    with pytest.raises(InputError, match=r"mixture of experts .*cannot be traced: task 'activation_cache'"):
        estimate(parse_workload(workload), python=sys.executable)
