"""`generation` held against the real `generate` of transformers and of HookedTransformer, on the CPU with small widths.

`generate` reads the tokens it makes, so it cannot run on meta. The peak must agree to the byte in both dtypes, the
key/value cache too; the profiler of the allocator, which sees scratch inside kernels, must agree within 0.5 %.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import held_tensors, hf_model, hooked_transformer, quiet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import Measured, distinct_bytes, measure_peak, profiler_peak

from compute_awareness.errors import InputError
from compute_awareness.estimates.generation import generation
from compute_awareness.memory.huggingface.forward import default_attention, supports_sdpa
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.runtime.flops import Shape, forward
from compute_awareness.workload.generation import Generation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=tuple(HealthCheck)
)
TRANSFORMERS = (
    "gpt2", "pythia-160m", "llama-3-8b", "mistral-7b", "qwen3-0.6b", "gemma-2b", "gemma-2-2b", "opt-125m", "phi-2",
    "bloom-560m", "gpt-j-6b", "gpt-neo-125m",
)  # fmt: skip
# The embeddings of the step before: from Python 3.13 on `locals()` in a function keeps no snapshot of them.
EXACT_UNLESS_FREED = 1e-4 if sys.version_info < (3, 13) else 0.15
HOOKED = (
    "gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "qwen3-0.6b", "mistral-7b", "qwen2.5-0.5b", "gemma-2b",
    "gemma-3-1b-pt", "phi-2", "phi-3-mini-4k-instruct", "opt-125m", "gpt-neo-125m", "gpt-j-6b", "olmo-1b",
    "olmo-2-0425-1b", "attn-only-1l", "bloom-560m",
)  # fmt: skip


def small(name: str, n_layers: int = 2) -> ModelSpec:
    """The model at small widths: what decides is which tensors are made, not how large they are."""
    spec = find(name)
    assert spec is not None
    heads = min(spec.n_heads, 8)
    shape: dict[str, Any] = {
        "name": f"{name}-small", "n_layers": n_layers, "n_heads": heads, "d_head": 16, "d_model": heads * 16,
        "n_kv_heads": max(1, heads * spec.n_kv_heads // spec.n_heads), "d_mlp": heads * 64, "d_vocab": 512,
        "n_ctx": 1024, "n_ctx_tl": 1024, "window": 32 if spec.window else None,
    }  # fmt: skip
    if spec.rotary_dim:
        shape["rotary_dim"] = 16 * spec.rotary_dim // spec.d_head
    return spec.model_copy(update=shape)


def inline(spec: ModelSpec) -> dict[str, Any]:
    return spec.model_dump(exclude_defaults=True, exclude={"source"})


def hf_generate(model: Any, w: Generation, meter: Any = measure_peak, **more: Any) -> Measured:
    """`model.generate`, greedy; the end-of-sequence token lies outside the vocabulary, so every new token is made."""
    config = model.generation_config
    config.eos_token_id, config.pad_token_id, config.bos_token_id = model.config.vocab_size, None, None
    ids = torch.ones(w.batch_size, w.seq_len, dtype=torch.long)

    def run() -> Any:
        return model.generate(ids, max_new_tokens=w.new_tokens, do_sample=False, use_cache=w.kv_cache, **more)

    return measured(run, meter, model, ids)


def tl_generate(model: Any, w: Generation, meter: Any = measure_peak) -> Measured:
    """`HookedTransformer.generate` with its defaults; under inference_mode the meter would not see inside operators."""
    model.tokenizer = SimpleNamespace(padding_side="right", pad_token_id=0, bos_token_id=0, eos_token_id=10**6)
    ids = torch.ones(w.batch_size, w.seq_len, dtype=torch.long)

    def run() -> Any:
        real = type(model).generate.__wrapped__
        return real(model, ids, max_new_tokens=w.new_tokens, use_past_kv_cache=w.kv_cache, verbose=False)

    return measured(run, meter, model, ids)


def measured(run: Any, meter: Any, model: Any, ids: torch.Tensor) -> Measured:
    held = held_tensors(model)
    with quiet(), torch.no_grad():
        result = meter(run, [*held, ids]) if meter is measure_peak else meter(run)
    result.bytes += distinct_bytes([*held, ids])
    return result


def drawn(data: st.DataObject, library: str, spec: ModelSpec, new_tokens: int, **fields: Any) -> Generation:
    pick = data.draw
    return Generation(
        library=library,  # type: ignore[arg-type]
        model=inline(spec),
        batch_size=pick(st.integers(1, 4)),
        seq_len=pick(st.one_of(st.integers(1, 8), st.integers(20, 120))),
        new_tokens=pick(st.integers(1, new_tokens)),
        kv_cache=pick(st.sampled_from([True, True, False])),
        **fields,
    )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    spec = small(name)
    attentions = ["sdpa", "eager"] if supports_sdpa(spec.architecture) else ["eager"]
    models = {
        (dtype, attention): hf_model(spec, "cpu", dtype, attention)
        for dtype, attention in [("float32", attentions[0]), ("bfloat16", attentions[-1])]
    }

    @DRAWN
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        (dtype, attention), model = data.draw(st.sampled_from(list(models.items())))
        w = drawn(data, "transformers", spec, 16, dtype=dtype, attention=attention)
        # The CPU's kernel groups heads in float32; compute capability plays no part in what the tape is compared with.
        ours = generation(w, None) if not grouped_in_float32(spec, w) else without_math_kernel(w)
        truth = hf_generate(model, w)
        assert truth.result.shape == (w.batch_size, w.seq_len + w.new_tokens)
        variant = f"{attention} {dtype} cache={w.kv_cache}"
        judge(
            "transformers", "5.23.0", "generation", spec.architecture, variant, ours.peak.tensors, truth.bytes, 1e-4, w
        )

    compare()


def grouped_in_float32(spec: ModelSpec, w: Generation) -> bool:
    return w.attention == "sdpa" and w.dtype == "float32" and spec.n_heads > spec.n_kv_heads


def without_math_kernel(w: Generation) -> Any:
    """The estimate as the CPU runs it; on CUDA float32 with grouped heads falls back to the unfused kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "compute_awareness.memory.huggingface.forward.needs_math_kernel", lambda spec, width, capability=None: False
        )
        return generation(w, None)


@pytest.mark.parametrize(
    ("name", "seq_len", "new_tokens"), [("gpt2", 9, 12), ("llama-3-8b", 30, 1), ("gemma-2-2b", 20, 40)]
)
def test_the_cache_is_the_real_one(name: str, seq_len: int, new_tokens: int) -> None:
    """Bytes of the DynamicCache at the end, sliding layers cut to their window."""
    spec = small(name, 3)
    w = Generation(model=inline(spec), batch_size=2, seq_len=seq_len, new_tokens=new_tokens, dtype="bfloat16")
    model = hf_model(spec, "cpu", "bfloat16", default_attention(spec))
    cache = hf_generate(model, w, return_dict_in_generate=True).result.past_key_values
    windows = [getattr(layer, "_sliding_window_tensor", None) for layer in cache.layers]
    real = distinct_bytes([*(t for layer in cache.layers for t in (layer.keys, layer.values)), *windows])
    assert {c.name: c.bytes for c in generation(w, None).components}["kv_cache"] == real


@pytest.mark.parametrize("name", HOOKED)
def test_hooked_transformer(name: str) -> None:
    spec = small(name)
    models = {dtype: hooked_transformer(spec, "cpu", dtype) for dtype in ("float32", "bfloat16")}

    @DRAWN
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        dtype, model = data.draw(st.sampled_from(list(models.items())))
        w = drawn(data, "transformer_lens", spec, 8, dtype=dtype)
        for block in model.blocks:  # ALiBi's biases of the call before
            block.attn.alibi = None
        truth = tl_generate(model, w)
        variant = f"{dtype} cache={w.kv_cache}"
        ours = generation(w, None)
        judge(
            "transformer_lens", "3.9.0", "generation", spec.architecture, variant, ours.peak.tensors, truth.bytes,
            EXACT_UNLESS_FREED, w,
        )  # fmt: skip
        if w.kv_cache:
            bytes_per_token = 2 * spec.n_layers * spec.kv_width * (4 if dtype == "float32" else 2)
            cached = {c.name: c.bytes for c in ours.components}["kv_cache"]
            assert cached == w.batch_size * (w.seq_len + w.new_tokens - 1) * bytes_per_token

    compare()


def test_against_the_allocator_itself() -> None:
    spec = small("gpt2")
    w = Generation(model=inline(spec), batch_size=2, seq_len=40, new_tokens=20)
    truth = hf_generate(hf_model(spec, "cpu", "float32", "sdpa"), w, profiler_peak)
    judge(
        "transformers", "5.23.0", "generation", spec.architecture, "profiler", generation(w, None).peak.tensors,
        truth.bytes, 0.005, w,
    )  # fmt: skip


@pytest.mark.parametrize("library", ["transformers", "transformer_lens"])
@pytest.mark.parametrize("kv_cache", [True, False])
def test_flops_are_the_sum_of_the_steps(library: Any, kv_cache: bool) -> None:
    spec = small("llama-3-8b")
    w = Generation(model=inline(spec), library=library, batch_size=2, seq_len=7, new_tokens=5, kv_cache=kv_cache)
    lens, unembed = library == "transformer_lens", 2 * 2 * spec.d_model * spec.d_vocab
    total = 0
    for step in range(5):
        length = 7 + step
        if kv_cache and step:
            scores = 4 * 2 * spec.n_layers * spec.q_width
            total += forward(spec, Shape(2, 1), logits=0).flops + scores * (length - 1) + unembed
        else:
            total += forward(spec, Shape(2, length), logits=0).flops + unembed * (length if lens else 1)
    assert generation(w, None).flops == total


def test_a_million_new_tokens_take_no_longer() -> None:
    w = Generation(model="llama-3-8b", seq_len=1000, new_tokens=1_000_000, dtype="bfloat16")
    result = generation(w, None)
    assert {c.name: c.bytes for c in result.components}["kv_cache"] == 32 * 2 * 1024 * 2 * 1_000_999
    assert any("beyond transformers's context" in warning for warning in result.warnings)


def test_quantised_weights_are_of_transformers() -> None:
    given = Generation.model_construct(
        **Generation(model="gpt2").model_dump() | {"library": "transformer_lens", "quantization": "bitsandbytes_4bit"}
    )
    with pytest.raises(InputError, match="is of transformers"):
        generation(given, None)


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"model": "attn-only-2l-demo"}, "shortformer"), ({"model": "gpt2", "library_version": "2.18.0"}, "3.5.1 on")],
)
def test_what_was_not_compared_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        generation(Generation(library="transformer_lens", **fields), None)
