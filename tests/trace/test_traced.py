"""`traced`: a workload, the experiment's Python, an estimate."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import BaseModel

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.models import catalogue
from compute_awareness.runtime.duration import estimate_time
from compute_awareness.trace import configs
from compute_awareness.trace.estimate import traced
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.filterwarnings("ignore")


class Training(BaseModel):
    """Stands for a workload of a task with these fields."""

    task: str = "training"
    library: str = "transformers"
    library_version: str | None = None
    model: Any = None
    batch_size: int = 1
    seq_len: int = 8
    dtype: str = "float32"
    optimizer: str = "adamw"


def cache(**fields: Any) -> Any:
    return parse_workload({"task": "activation_cache", "batch_size": 2, "seq_len": 20, **fields})


def forward(**fields: Any) -> Any:
    given = {"task": "inference", "library": "transformers", "batch_size": 2, "seq_len": 20, "model": "gpt2"}
    return parse_workload(given | fields)


def patching(**fields: Any) -> Any:
    return parse_workload({"task": "patching", "model": "gpt2", **fields})


def test_a_deep_forward_pass_is_what_the_closed_form_says():
    workload = forward(model="pythia-2.8b")
    ours, closed = traced(workload, "8.0", sys.executable), estimate(workload, "8.0")
    assert ours.method == "trace"
    assert ours.precision == "close"
    assert ours.peak.tensors == closed.peak.tensors
    assert {c.name: c.bytes_at_peak for c in ours.components} == {c.name: c.bytes_at_peak for c in closed.components}
    assert sum(c.bytes_at_peak for c in ours.components) == ours.peak.tensors
    assert ours.range.low < ours.peak.device < ours.range.high
    assert ours.flops == closed.flops
    assert ours.moved_bytes == pytest.approx(closed.moved_bytes, rel=0.01)
    # q, k and v are one product here, which reads its input once
    assert ours.work[0].activation_bytes == pytest.approx(closed.work[0].activation_bytes, rel=0.1)
    assert ours.work[0].kernels == pytest.approx(closed.work[0].kernels, rel=0.5)
    assert "2, 3 and 4 layers, extended to 32" in ours.assumptions[0]
    assert sys.executable in ours.assumptions[0]
    assert "transformers 5." in ours.verified_on


def test_a_cache_is_what_the_closed_form_says():
    workload = cache(model="tiny-stories-1M", library_version="3.8.0")
    ours, closed = traced(workload, None, sys.executable), estimate(workload, None)
    assert ours.peak.tensors == closed.peak.tensors
    named = {c.name: c.bytes for c in ours.components}
    assert named["activation_cache"] == next(c.bytes for c in closed.components if c.name == "activation_cache")
    assert ours.warnings == [f"library_version 3.8.0 was asked for, the trace ran {ours.verified_on.split()[1][:-1]}"]


def test_patching_and_generation_are_what_the_closed_forms_say():
    model = {"name": "tiny", "n_layers": 2, "d_model": 32, "n_heads": 2, "d_vocab": 100, "n_ctx": 64,
             "architecture": "GPT2LMHeadModel"}  # fmt: skip
    fields = {"model": model, "batch_size": 2, "seq_len": 12, "library": "transformer_lens"}
    for task in ({"task": "patching"}, {"task": "generation", "new_tokens": 3}):
        workload = parse_workload(fields | task)
        ours, closed = traced(workload, None, sys.executable), estimate(workload, None)
        assert abs(ours.peak.tensors - closed.peak.tensors) <= 0.001 * closed.peak.tensors
        assert ours.flops == closed.flops


@pytest.mark.parametrize("more", [{}, {"task": "generation", "new_tokens": 2}, {"task": "training"}])
def test_what_the_bridge_has_no_closed_form_for_is_traced(more: dict[str, Any]):
    fields = {"task": "patching", "model": "tiny-stories-1M", "library": "transformer_bridge", "seq_len": 8}
    result = estimate(parse_workload(fields | more), python=sys.executable)
    assert result.method == "trace"
    assert "TransformerBridge" in " ".join(result.assumptions)
    how = "method" if more else "estimate_method"
    with pytest.raises(InputError, match="no closed form for transformer_bridge"):
        estimate(parse_workload(fields | more | {how: "closed_form"}), python=sys.executable)


def test_another_release_than_the_one_asked_for_is_no_answer():
    workload = parse_workload(
        {"task": "training", "model": "tiny-stories-1M", "library": "transformer_bridge", "library_version": "3.8.7",
         "seq_len": 8}
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has transformer-lens .*, not 3\.8\.7"):
        estimate(workload, python=sys.executable)


def test_training_an_encoder_that_has_no_spec():
    config = {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "num_hidden_layers": 2, "hidden_size": 32,
        "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 300,
    }  # fmt: skip
    ours = traced(Training(model="mine"), None, sys.executable, config=config)
    assert ours.precision == "rough"
    named = {c.name: c for c in ours.components}
    assert named["optimizer_state"].bytes >= 2 * named["weights"].bytes
    assert named["gradients"].bytes_at_peak > 0
    assert ours.flops > 0
    assert any("as FlopCounterMode counts" in line for line in ours.assumptions)
    assert ours.work[0].kernels > 0
    assert 0 < ours.work[0].activation_bytes < ours.work[0].moved_bytes
    assert estimate_time(ours.work, None, "gpu", None).high > 0
    assert ours.download_bytes is None
    assert "BertForMaskedLM" in ours.assumptions[0]


@pytest.mark.parametrize(
    "workload, said",
    [
        (parse_workload({"task": "sae_training", "d_in": 8, "d_sae": 16}), "library: 'sae_lens' is not traced yet"),
        (cache(model="gpt2", library="nnsight"), "'nnsight' is not traced yet"),
        (patching(method="eap", batch_size=2, seq_len=8), "method 'eap' is not traced yet"),
        (parse_workload({"task": "training", "model": "gpt2", "gradient_accumulation": 4}), "gradient_accumulation 4"),
        (cache(model="gpt2", cache_device="cpu"), "cache_device 'cpu' is not traced yet"),
        (forward(quantization="bitsandbytes_8bit"), "quantization 'bitsandbytes_8bit' is not traced yet"),
        (Training(model="gpt2", optimizer="lion"), "optimizer 'lion' is not traced"),
        (forward(model="attn-only-1l"), "transformers has no class"),
    ],
)
def test_what_is_not_traced_is_refused_before_anything_starts(workload, said):
    with pytest.raises(InputError, match=said):
        traced(workload, None, "a Python that is never looked for")


def test_a_config_of_another_library_is_refused():
    with pytest.raises(InputError, match="no model for it; trace it with library transformers or transformer_bridge"):
        traced(cache(model="gpt2"), None, None, config={"model_type": "gpt2"})


def test_every_catalogue_model_has_a_config_with_its_numbers():
    """Built by the library itself: a field that transformers does not know would leave a default in its place."""
    import transformers

    architectures = set()
    for name in catalogue.names():
        spec = catalogue.find(name)
        if spec is None or not spec.has_hf_model or spec.architecture in architectures:
            continue
        architectures.add(spec.architecture)
        given = configs.hf_config(spec)
        config = transformers.CONFIG_MAPPING[given.pop("model_type")].from_dict(given)
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size) == (
            spec.n_layers, spec.d_model, spec.n_heads, spec.d_vocab,
        )  # fmt: skip
        assert getattr(transformers, spec.architecture)
    assert len(architectures) >= 15
