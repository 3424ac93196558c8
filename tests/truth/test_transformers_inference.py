"""One forward pass of every covered transformers family: the tape against the live storages of the real model.

Most runs are on the meta device, which executes the library's own Python and allocates nothing, so widths are real.
Bounds: the transient alone within 0.1 % (in practice equal to the byte), which is far inside the promised 0.5 % of
weights, buffers and transient together; what is left at the end is exact.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from builders import held_tensors, hf_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak
from recorder import above, cpu_requests

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory.huggingface.forward import default_attention, forward, needs_math_kernel, supports_sdpa
from compute_awareness.memory.huggingface.parts import Pass
from compute_awareness.memory.huggingface.scores import math_sdpa
from compute_awareness.models import catalogue
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
# One or more per family, among them one key/value head (gemma-2b), a window on every layer (mistral-7b), on some
# (gemma-3, olmo-3), full rotation (phi-3) and a quarter (pythia), one attention head per 4 (llama-3).
NAMES = (
    "gpt2", "pythia-160m", "llama-2-7b", "llama-3-8b", "mistral-7b", "gemma-2b", "gemma-7b", "gemma-2-2b",
    "gemma-3-1b-pt", "gemma-3-270m", "qwen2.5-0.5b", "qwen3-0.6b", "phi-2", "phi-3-mini-4k-instruct", "gpt-neo-125m",
    "tinystories-1m", "gpt-j-6b", "opt-125m", "bloom-560m", "olmo-1b", "olmo-7b", "olmo-2-0425-1b", "olmo-3-1025-7b",
)  # fmt: skip
FULL_DEPTH = ("gpt2", "pythia-70m", "gemma-3-270m", "gpt-neo-125m")


def spec_of(name: str, n_layers: int | None = None) -> ModelSpec:
    spec = catalogue.find(name)
    assert spec is not None, name
    return spec.model_copy(update={"n_layers": n_layers}) if n_layers else spec


@contextlib.contextmanager
def as_on_a_real_device(fused_sdpa: bool) -> Iterator[None]:
    """The two places where a meta tensor takes another path than one with contents.

    sdpa has no fused kernel for meta and would compute the scores; the operator that the CPU dispatches to has a shape
    function, so with `fused_sdpa` it is called directly, after the conversion of boolean masks that precedes it. And
    without a cache transformers looks for packed sequences by reading position ids, of which there are none here.
    """
    import transformers.masking_utils as masking

    def fused(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            masked = torch.full((), float("-inf"), dtype=query.dtype, device="meta")
            attn_mask = torch.where(attn_mask, torch.zeros_like(masked), masked)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    with pytest.MonkeyPatch.context() as patch:
        if fused_sdpa:
            patch.setattr(F, "scaled_dot_product_attention", fused)
        patch.setattr(masking, "find_packed_sequence_indices", lambda position_ids: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def cheap_collections() -> Iterator[None]:
    """The meter collects garbage before each run; what the imports left behind need not be looked at every time."""
    gc.collect()
    gc.freeze()
    yield
    meta_model.cache_clear()
    gc.unfreeze()


@cache
def meta_model(name: str, n_layers: int | None, dtype: str, attention: str) -> Any:
    return hf_model(spec_of(name, n_layers), "meta", dtype, attention)


def check(
    spec: ModelSpec, model: Any, b: int, s: int, dtype: str, attention: Any, kv_cache: bool, math_kernel: bool = False
) -> None:
    """`math_kernel`: its bools of the masked scores are inside an operator, where the mode does not see them; the
    tape's peak may have them (`test_the_math_kernel_in_the_order_of_torch` has the real kernel)."""
    device = model.device.type
    ids = torch.zeros(b, s, dtype=torch.long, device=device)
    real = contextlib.nullcontext() if device == "cpu" else as_on_a_real_device(not math_kernel)
    with torch.no_grad(), real:
        measured = measure_peak(lambda: model(ids, use_cache=kv_cache), [*held_tensors(model), ids])
    tokens = distinct_bytes([ids])
    truth, left = measured.bytes + tokens, measured.left + tokens
    tape = forward(spec, b, s, WIDTH[dtype], attention, kv_cache, math_kernel)
    truth = max(truth, min(tape.peak, truth + b * spec.n_heads * s * s * math_kernel))
    where = f"{spec.name} {spec.n_layers} layers {dtype} {attention} cache={kv_cache} b={b} s={s}: {measured.peak_op}"
    assert tape.peak >= truth * 0.999, f"{where}: {tape.peak} < {truth}"
    assert abs(tape.peak - truth) <= 0.001 * truth + 64, f"{where}: {tape.peak} != {truth}"
    standing = distinct_bytes(held_tensors(model))
    judge(
        "transformers", transformers.__version__, "inference", spec.architecture, f"{dtype} {attention}",
        tape.peak + standing, truth + standing, 0.005, where,
    )  # fmt: skip
    assert tape.live == left, f"{where}: left {tape.live} != {left}"
    assert sum(tape.at_peak.values()) == tape.peak
    assert tape.by_component["logits"] == WIDTH[dtype] * b * s * spec.d_vocab
    assert tape.by_component["temporaries"] == 0


def attentions(spec: ModelSpec) -> list[str]:
    return ["eager", "sdpa"] if supports_sdpa(spec.architecture) else ["eager"]


@pytest.mark.parametrize("name", NAMES)
def test_every_family(name: str) -> None:
    """Long and short, one sequence and several, with and without a cache."""
    spec = spec_of(name, 2)
    for attention in attentions(spec):
        for dtype, b, s, kv_cache in (("float32", 2, 300, True), ("bfloat16", 1, 1024, False)):
            check(spec, meta_model(name, 2, dtype, attention), b, s, dtype, attention, kv_cache)


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    spec = spec_of(name, data.draw(st.sampled_from((1, 2, 3))))
    attention = data.draw(st.sampled_from(attentions(spec)))
    dtype = data.draw(st.sampled_from(sorted(WIDTH)))
    longest = 4200 if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM" else min(spec.n_ctx, 2048)
    b = data.draw(st.integers(1, 9))
    s = data.draw(st.one_of(st.integers(1, 64), st.integers(1, longest)))
    kv_cache = data.draw(st.booleans())
    check(spec, meta_model(name, spec.n_layers, dtype, attention), b, s, dtype, attention, kv_cache)


@pytest.mark.parametrize("name", ["mistral-7b", "gemma-3-1b-pt", "olmo-3-1025-7b", "phi-3-mini-4k-instruct"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_around_the_window(name: str, beyond: int) -> None:
    """A mask appears for sdpa as soon as the sequence is as long as the window."""
    spec = spec_of(name, 2)
    assert spec.window is not None
    check(spec, meta_model(name, 2, "bfloat16", "sdpa"), 1, spec.window + beyond, "bfloat16", "sdpa", True)


@pytest.mark.parametrize("name", ["llama-3-8b", "qwen2.5-0.5b", "gemma-2b", "phi-4"])
@pytest.mark.parametrize(("b", "s", "kv_cache"), [(2, 300, True), (1, 2000, False), (3, 1, True)])
def test_grouped_heads_in_the_math_kernel(name: str, b: int, s: int, kv_cache: bool) -> None:
    """The kernel that CUDA falls back to in float32, and in 16 bit before Ampere, is what meta takes by itself."""
    spec = spec_of(name, 2)
    assert needs_math_kernel(spec, 4)
    assert not needs_math_kernel(spec, 2) and not needs_math_kernel(spec, 2, "8.0")
    assert needs_math_kernel(spec, 2, "7.5")
    for dtype in ("float32", "float16"):
        check(spec, meta_model(name, 2, dtype, "sdpa"), b, s, dtype, "sdpa", kv_cache, math_kernel=True)


@settings(derandomize=True, deadline=None, max_examples=12, database=None)
@given(
    b=st.integers(1, 3), s=st.integers(65, 160), groups=st.integers(2, 4), kv_heads=st.integers(2, 4),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)  # fmt: skip
def test_the_math_kernel_in_the_order_of_torch(b: int, s: int, groups: int, kv_heads: int, dtype: str) -> None:
    """By the log of the CPU's allocator, which sees inside operators: every tensor larger than the mask."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    width, heads, size = WIDTH[dtype], groups * kv_heads, 32
    make = torch.randn if dtype == "float32" else torch.zeros
    kind = getattr(torch, dtype)
    q = make(b, s, heads, size, dtype=kind).transpose(1, 2)
    k, v = make(b, kv_heads, s, size, dtype=kind), make(b, kv_heads, s, size, dtype=kind)

    def run() -> torch.Tensor:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2).contiguous()

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run()
        real = cpu_requests(run)
    spec = spec_of("llama-3.2-1b").model_copy(update={"n_heads": heads, "n_kv_heads": kv_heads, "d_head": size})
    p = Pass(spec, b, s, width, "sdpa", kv_cache=True, math_kernel=True)
    p.tape.drop(math_sdpa(p, "tokens"))
    least = 4 * s * s
    assert above(p.tape.requests(), least) == above(real, least)


@pytest.mark.parametrize("capability", ["7.5", "8.0", None])
@pytest.mark.parametrize("task", ["inference", "generation", "training"])
def test_old_cards_have_an_estimate_in_16_bits(task: str, capability: str | None) -> None:
    workload = {"task": task, "library": "transformers", "model": "llama-3.2-1b", "seq_len": 64, "dtype": "float16"}
    needs = estimate(parse_workload(workload), capability).peak.tensors
    assert needs >= estimate(parse_workload(workload), "8.0").peak.tensors


def test_no_math_kernel_without_groups() -> None:
    assert not needs_math_kernel(spec_of("gpt2"), 4)
    assert not needs_math_kernel(spec_of("gemma-2-2b"), 4)


@pytest.mark.parametrize("name", FULL_DEPTH)
def test_all_layers(name: str) -> None:
    spec = spec_of(name)
    attention = default_attention(spec)
    check(spec, meta_model(name, None, "bfloat16", attention), 2, 600, "bfloat16", attention, True)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "qwen2.5-0.5b", "gemma-3-270m", "opt-125m", "tinystories-1m"])
def test_on_the_cpu(name: str, attention: str) -> None:
    """Real tensors and real kernels, in float32; a small vocabulary, for its random weights take the time."""
    spec = spec_of(name, 2).model_copy(update={"d_vocab": 1000})
    if attention not in attentions(spec):
        attention = "eager"
    model = hf_model(spec, "cpu", "float32", attention)
    check(spec, model, 2, 48, "float32", attention, True)
    check(spec, model, 1, 17, "float32", attention, False)


def test_which_classes_have_sdpa() -> None:
    """What the library itself refuses, by asking it."""
    import transformers

    for name in NAMES:
        spec = spec_of(name)
        has = getattr(transformers, spec.architecture)._supports_sdpa
        assert supports_sdpa(spec.architecture) == has, spec.architecture
        assert default_attention(spec) == ("sdpa" if has else "eager")


def test_every_catalogue_model_has_an_estimate() -> None:
    specs = [spec for name in catalogue.names() if (spec := catalogue.find(name)) and spec.architecture != "NeelToy"]
    assert len(specs) > 150
    for spec in specs:
        tape = forward(spec, 1, 128, 2, default_attention(spec), kv_cache=True)
        assert tape.peak >= tape.live > tape.by_component["kv_cache"] >= 2 * 2 * spec.n_layers * 128 * spec.kv_width


def test_sdpa_of_a_model_without_it_is_refused() -> None:
    for name in ("gemma-2-2b", "gpt-neo-125m", "gpt-j-6b", "bloom-560m"):
        with pytest.raises(InputError, match="sdpa"):
            forward(spec_of(name), 1, 16, 4, "sdpa", True)
    toy = spec_of("gpt2").model_copy(update={"architecture": "NeelToy"})
    with pytest.raises(InputError, match="NeelToy"):
        forward(toy, 1, 16, 4, "eager", True)
