"""SAEs in use against real SAELens: encode, forward, run_with_cache and encode, HookedSAETransformer.

`cpu_kernels=True` adds what only torch's CPU kernels take (see test_sae_training); nothing else is added.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import held_tensors, hooked_transformer, quiet
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak

from compute_awareness.errors import InputError
from compute_awareness.estimates.sae_inference import sae_inference
from compute_awareness.memory.sae import inference as played
from compute_awareness.memory.sae.inference import Use
from compute_awareness.memory.tape import Tape
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload.sae_inference import SaeInference

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NAMES = {
    "standard": "StandardSAE", "topk": "TopKSAE", "abstopk": "AbsTopKSAE", "jumprelu": "JumpReLUSAE",
    "gated": "GatedSAE", "transcoder": "Transcoder", "skip_transcoder": "SkipTranscoder",
    "jumprelu_transcoder": "JumpReLUTranscoder", "jumprelu_skip_transcoder": "JumpReLUSkipTranscoder",
}  # fmt: skip


def build(architecture: str, d_in: int, d_sae: int, d_out: int, k: int, dtype: str, hook: str | None = None):
    import sae_lens

    options = {"k": k} if "topk" in architecture else {}
    if "transcoder" in architecture:
        options = {"d_out": d_out, "apply_b_dec_to_input": False}
    config = getattr(sae_lens, NAMES[architecture] + "Config")
    with quiet():
        sae = getattr(sae_lens, NAMES[architecture])(
            config(d_in=d_in, d_sae=d_sae, dtype=dtype, device="cpu", **options)
        )
    sae.cfg.metadata.hook_name = hook
    return sae


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("architecture", NAMES)
@settings(derandomize=True, deadline=None, max_examples=1, database=None)
@given(
    d_in=st.integers(8, 300), d_sae=st.integers(16, 1500), d_out=st.integers(8, 300), rows=st.integers(1, 300),
    k=st.integers(1, 16),
)  # fmt: skip
@example(d_in=256, d_sae=64, d_out=32, rows=200, k=8)
def test_encode_and_forward_to_the_byte(
    architecture: str, dtype: str, d_in: int, d_sae: int, d_out: int, rows: int, k: int
) -> None:
    if "transcoder" not in architecture:
        d_out = d_in
    sae = build(architecture, d_in, d_sae, d_out, k, dtype)
    # a skip connection multiplies the activations as they are, so they must have the SAE's dtype
    given_dtype = sae.dtype if "skip" in architecture else torch.float32
    x = torch.randn(rows, d_in).to(given_dtype)
    use = Use(architecture, d_in, d_sae, d_out, k, rows, sae.dtype.itemsize, x.element_size())
    assert use.params == sum(parameter.numel() for parameter in sae.parameters())
    for name, call, play in (("encode", sae.encode, played.encode), ("forward", sae, played.forward)):
        with torch.no_grad():
            call(x)
            real = profiler_peak(lambda call=call: call(x))
        tape = Tape()
        play(tape, use, tape.adopt(0, "temporaries"), cpu_kernels=True)
        judge("sae_lens", "6.54.12", "sae_inference", architecture, f"{name} {dtype}", tape.peak, real.bytes, 0.0,
              (d_in, d_sae, d_out, rows, k))  # fmt: skip


def short_model() -> ModelSpec:
    gpt2 = find("gpt2")
    assert gpt2 is not None
    return gpt2.model_copy(update={"n_layers": 3, "d_vocab": 600, "d_model": 128, "n_heads": 4, "n_kv_heads": 4,
                                   "d_head": 32, "d_mlp": 512, "name": "short"})  # fmt: skip


def inference(**fields: Any) -> SaeInference:
    return SaeInference(**fields)


def inline(spec: ModelSpec) -> dict:
    return spec.model_dump(exclude_defaults=True, exclude={"source"})


@pytest.mark.parametrize(("stop", "n_saes", "d_sae"), [(True, 1, 2048), (False, 3, 1024), (True, 2, 64)])
@pytest.mark.parametrize("architecture", ["topk", "gated"])
def test_cache_then_encode(architecture: str, stop: bool, n_saes: int, d_sae: int) -> None:
    hook = "blocks.1.hook_resid_pre"
    spec = short_model()
    model = hooked_transformer(spec, device="cpu", folded=False)
    saes = [build(architecture, 128, d_sae, 128, 8, "float32") for _ in range(n_saes)]
    tokens = torch.zeros(3, 40, dtype=torch.long)

    def run():
        kept = {"stop_at_layer": 2} if stop else {}
        logits, cache = model.run_with_cache(tokens, names_filter=[hook], **kept)
        features = [sae.encode(cache[hook]) for sae in saes]
        return logits, cache, features

    held = [*held_tensors(model), *(p for sae in saes for p in sae.parameters()), tokens]
    with torch.no_grad():
        real = distinct_bytes(held) + measure_peak(run, held).bytes
    workload = inference(
        model=inline(spec), hook_name=hook, architecture=architecture, d_sae=d_sae, k=8, batch_size=3, seq_len=40,
        n_saes=n_saes, stop_after_hook=stop,
    )  # fmt: skip
    result = sae_inference(workload, None)
    assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
    judge("sae_lens", "6.54.12", "sae_inference", architecture, "run_with_cache, encode", result.peak.tensors, real,
          0.001, (stop, n_saes, d_sae))  # fmt: skip


@pytest.mark.parametrize(
    ("hook", "d_sae", "keep", "error"),
    [
        ("blocks.1.hook_resid_pre", 2048, True, False),
        ("blocks.0.hook_mlp_out", 256, False, True),
        ("blocks.2.hook_attn_out", 3000, True, True),
        ("blocks.1.hook_resid_post", 512, False, False),
    ],
)
@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_spliced(architecture: str, hook: str, d_sae: int, keep: bool, error: bool) -> None:
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer

    spec = short_model()
    plain = hooked_transformer(spec, device="cpu", folded=False)
    with quiet():
        model = HookedSAETransformer(plain.cfg)
    sae = build(architecture, 128, d_sae, 128, 8, "float32", hook)
    tokens = torch.zeros(3, 40, dtype=torch.long)

    def run():
        if not keep:
            return model.run_with_saes(tokens, saes=[sae], use_error_term=error)
        return model.run_with_cache_with_saes(
            tokens, saes=[sae], use_error_term=error, names_filter=lambda name: name.endswith("hook_sae_acts_post")
        )

    held = [*held_tensors(model), *sae.parameters(), tokens]
    with torch.no_grad(), quiet():
        real = distinct_bytes(held) + measure_peak(run, held).bytes
    workload = inference(
        model=inline(spec), hook_name=hook, architecture=architecture, d_sae=d_sae, batch_size=3, seq_len=40,
        splice=True, keep_features=keep, use_error_term=error,
    )  # fmt: skip
    result = sae_inference(workload, None)
    judge("sae_lens", "6.54.12", "sae_inference", architecture, "spliced", result.peak.tensors, real, 0.003,
          (hook, d_sae, keep, error))  # fmt: skip


@pytest.mark.parametrize("architecture", ["temporal", "matching_pursuit"])
def test_the_rest_is_refused_by_name(architecture: str) -> None:
    with pytest.raises(ValueError, match=f"'{architecture}' is not covered yet"):
        SaeInference(architecture=architecture, d_in=64, d_sae=128)  # type: ignore[arg-type]


def test_more_active_features_than_there_are() -> None:
    with pytest.raises(InputError, match="k 200 is more than the 128 features"):
        sae_inference(SaeInference(architecture="topk", d_in=64, d_sae=128, k=200), None)
