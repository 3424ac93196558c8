"""SAEs in use against real SAELens: encode, forward, run_with_cache and encode, HookedSAETransformer.

`cpu_kernels=True` adds what only torch's CPU kernels take (see test_sae_training); nothing else is added.
"""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from builders import held_tensors, hooked_transformer, quiet
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak
from recorder import Recorder, above

from compute_awareness.errors import InputError
from compute_awareness.estimates.sae_inference import sae_inference
from compute_awareness.memory.hooked.run import Run
from compute_awareness.memory.sae import inference as played
from compute_awareness.memory.sae.inference import Use
from compute_awareness.memory.sae.matching_pursuit import Pursuit
from compute_awareness.memory.sae.splice import spliced_forward
from compute_awareness.memory.sae.temporal import Temporal
from compute_awareness.memory.tape import Tape, Tensor
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload.sae_inference import SaeInference, SaeInferenceArchitecture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NAMES = {
    "standard": "StandardSAE", "topk": "TopKSAE", "abstopk": "AbsTopKSAE", "jumprelu": "JumpReLUSAE",
    "gated": "GatedSAE", "transcoder": "Transcoder", "skip_transcoder": "SkipTranscoder",
    "jumprelu_transcoder": "JumpReLUTranscoder", "jumprelu_skip_transcoder": "JumpReLUSkipTranscoder",
    "matching_pursuit": "MatchingPursuitSAE", "temporal": "TemporalSAE",
}  # fmt: skip


def build(
    architecture: str, d_in: int, d_sae: int, d_out: int, k: int, dtype: str, hook: str | None = None,
    hook_out: str | None = None, **options: Any,
):  # fmt: skip
    import sae_lens

    if "topk" in architecture:
        options = {"k": k}
    if "transcoder" in architecture:
        options = {"d_out": d_out, "apply_b_dec_to_input": False}
    config = getattr(sae_lens, NAMES[architecture] + "Config")
    with quiet():
        sae = getattr(sae_lens, NAMES[architecture])(
            config(d_in=d_in, d_sae=d_sae, dtype=dtype, device="cpu", **options)
        )
    sae.cfg.metadata.hook_name = hook
    sae.cfg.metadata.hook_name_out = hook_out
    return sae


def every_iteration(k: int) -> dict[str, Any]:
    """Options of matching pursuit with which it runs `k` iterations whatever the data are."""
    return {"max_iterations": k, "residual_threshold": 0.0, "stop_on_duplicate_support": False}


def narrow_heads(d_sae: int) -> dict[str, Any]:
    """Options of the temporal SAE with heads so narrow that CUDA, too, makes the scores, as the CPU always does."""
    return {"n_heads": 2, "bottleneck_factor": d_sae // 2, "kval_topk": 8}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("architecture", [name for name in NAMES if name != "temporal"])
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
    pursues = architecture == "matching_pursuit"
    sae = build(architecture, d_in, d_sae, d_out, k, dtype, **(every_iteration(k) if pursues else {}))
    # a skip connection multiplies the activations as they are, so they must have the SAE's dtype
    given_dtype = sae.dtype if "skip" in architecture else torch.float32
    x = torch.randn(rows, d_in).to(given_dtype)
    pursuit = Pursuit(k, False, False) if pursues else None
    use = Use(architecture, d_in, d_sae, d_out, k, rows, sae.dtype.itemsize, x.element_size(), pursuit=pursuit)
    to_the_byte(sae, use, x, dtype)


def to_the_byte(sae: Any, use: Use, x: torch.Tensor, variant: str) -> None:
    """encode(x) and sae(x) against the SAE itself."""
    assert use.params == sum(parameter.numel() for parameter in sae.parameters())
    for name, call, play in (("encode", sae.encode, played.encode), ("forward", sae, played.forward)):
        with torch.no_grad():
            call(x)
            real = profiler_peak(lambda call=call: call(x))
        tape = Tape()
        play(tape, use, tape.adopt(0, "temporaries"), cpu_kernels=True)
        judge("sae_lens", "6.54.12", "sae_inference", use.architecture, f"{name} {variant}", tape.peak, real.bytes, 0.0,
              use)  # fmt: skip


@pytest.mark.parametrize(("iterations", "duplicates", "threshold"), [(1, True, 0.01), (2, False, 0.01), (20, True, 0)])
def test_matching_pursuit_as_it_stops(iterations: int, duplicates: bool, threshold: float) -> None:
    torch.manual_seed(0)
    options = {"max_iterations": iterations, "stop_on_duplicate_support": duplicates, "residual_threshold": threshold}
    sae = build("matching_pursuit", 96, 640, 96, 8, "float32", **options)
    pursuit = Pursuit(iterations, duplicates, threshold > 0)
    to_the_byte(sae, Use("matching_pursuit", 96, 640, 96, 8, 200, pursuit=pursuit), torch.randn(200, 96), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("batch", "seq_len", "d_in", "d_sae", "heads", "layers", "bottleneck", "kval", "kind", "tied"),
    [
        (3, 40, 64, 512, 8, 1, 64, 16, "topk", True),
        (3, 40, 64, 512, 2, 2, 16, None, "topk", True),
        (1, 7, 256, 512, 2, 1, 64, 8, "topk", False),
        (2, 300, 32, 256, 4, 1, 64, 8, "topk", False),
        (1, 140, 48, 192, 1, 3, 48, None, "relu", True),
        (100, 1, 64, 512, 8, 1, 64, 16, "topk", True),
    ],
)
def test_temporal(
    batch: int, seq_len: int, d_in: int, d_sae: int, heads: int, layers: int, bottleneck: int, kval: int | None,
    kind: str, tied: bool, dtype: str,
) -> None:  # fmt: skip
    sae = build(
        "temporal", d_in, d_sae, d_in, 8, dtype, n_heads=heads, n_attn_layers=layers, bottleneck_factor=bottleneck,
        sae_diff_type=kind, kval_topk=kval, tied_weights=tied,
    )  # fmt: skip
    x = torch.randn(batch, seq_len, d_in)
    temporal = Temporal(batch, seq_len, heads, layers, bottleneck, kval, tied)
    width = sae.dtype.itemsize
    with quiet():
        to_the_byte(sae, Use("temporal", d_in, d_sae, d_in, 8, batch * seq_len, width, temporal=temporal), x, dtype)


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
@pytest.mark.parametrize("architecture", ["topk", "gated", "matching_pursuit", "temporal"])
def test_cache_then_encode(architecture: str, stop: bool, n_saes: int, d_sae: int) -> None:
    hook = "blocks.1.hook_resid_pre"
    spec = short_model()
    model = hooked_transformer(spec, device="cpu", folded=False)
    options = options_of(architecture, d_sae)
    saes = [build(architecture, 128, d_sae, 128, 8, "float32", **options) for _ in range(n_saes)]
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
        n_saes=n_saes, stop_after_hook=stop, **options,
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
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "matching_pursuit", "temporal"])
def test_spliced(architecture: str, hook: str, d_sae: int, keep: bool, error: bool) -> None:

    options = options_of(architecture, d_sae)
    sae = build(architecture, 128, d_sae, 128, 8, "float32", hook, **options)
    compare_spliced(sae, keep, error, {"hook_name": hook, "architecture": architecture, "d_sae": d_sae} | options)


@pytest.mark.parametrize(
    ("hook", "hook_out", "d_sae", "keep", "error"),
    [
        ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out", 2048, True, False),
        ("blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", 256, False, True),
        ("blocks.2.hook_resid_pre", "blocks.2.hook_resid_post", 3000, True, True),
        ("blocks.1.hook_mlp_out", None, 512, False, False),
    ],
)
@pytest.mark.parametrize(
    "architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
)
def test_spliced_transcoders(
    architecture: str, hook: str, hook_out: str | None, d_sae: int, keep: bool, error: bool
) -> None:
    sae = build(architecture, 128, d_sae, 128, 8, "float32", hook, hook_out)
    names = {"hook_name": hook, "hook_name_out": hook_out}
    compare_spliced(sae, keep, error, {"architecture": architecture, "d_sae": d_sae} | names)


def options_of(architecture: str, d_sae: int) -> dict[str, Any]:
    return {"matching_pursuit": {"max_iterations": 5}, "temporal": narrow_heads(d_sae)}.get(architecture, {})


def compare_spliced(sae: Any, keep: bool, error: bool, fields: dict[str, Any]) -> None:
    """HookedSAETransformer with the SAE attached against the estimate of `fields`."""
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer

    spec = short_model()
    plain = hooked_transformer(spec, device="cpu", folded=False)
    with quiet():
        model = HookedSAETransformer(plain.cfg)
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
    result = sae_inference(
        inference(
            model=inline(spec), batch_size=3, seq_len=40, splice=True, keep_features=keep, use_error_term=error,
            **fields,
        ),
        None,
    )  # fmt: skip
    judge("sae_lens", "6.54.12", "sae_inference", fields["architecture"], "spliced", result.peak.tensors, real, 0.003,
          (fields, keep, error))  # fmt: skip


READS = ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "ln2.hook_normalized", "hook_mlp_out", "hook_resid_post"]


@settings(derandomize=True, deadline=None, max_examples=12, database=None, phases=[Phase.generate])
@given(
    name=st.sampled_from(["gpt2-small", "pythia-70m", "llama-3.2-1b", "gemma-2-2b"]),
    read=st.sampled_from(READS), layer=st.integers(0, 3), batch=st.integers(1, 3), seq_len=st.integers(20, 60),
    architecture=st.sampled_from(["standard", "jumprelu", "topk"]), d_sae=st.integers(300, 3000), keep=st.booleans(),
    error=st.booleans(),
)  # fmt: skip
def test_spliced_in_the_order_of_the_library(
    name: str, read: str, layer: int, architecture: str, batch: int, seq_len: int, d_sae: int, keep: bool, error: bool
) -> None:
    """What is alive when decides how much the caching allocator reserves."""
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer

    spec = find(name)
    assert spec is not None
    spec = spec.model_copy(update={"n_layers": 4, "d_vocab": 2000, "name": "short"})
    hook = f"blocks.{layer}.{read}"
    d_in = spec.d_model
    sae = build(architecture, d_in, d_sae, d_in, 8, "float32", hook).to("meta")
    with quiet():
        model = HookedSAETransformer(hooked_transformer(spec, device="meta", folded=False).cfg)
    tokens = torch.zeros(batch, seq_len, dtype=torch.long, device="meta")
    call = model.run_with_cache_with_saes if keep else model.run_with_saes
    kept = {"names_filter": lambda name: name.endswith("hook_sae_acts_post")} if keep else {}
    with torch.no_grad(), quiet(), Recorder([*held_tensors(model), *sae.parameters(), tokens]) as recorder:
        result = call(tokens, saes=[sae], use_error_term=error, **kept)
    real = list(recorder.requests)
    del result

    run = Run(spec, batch, seq_len, 4, folded=False)
    use = Use(architecture, d_in, d_sae, d_in, 8, batch * seq_len)

    def with_sae(tape: Tape, source: Tensor, original: Tensor) -> Tensor:
        acts, out = played.attached(tape, use, source, original, 4, error_term=error)
        if not keep:
            tape.drop(acts)
        return out

    ours = spliced_forward(run, hook, with_sae).requests()
    least = 4 * batch * seq_len * 16
    assert above(ours, least) == above(real, least)


def test_every_architecture_that_saelens_registers_is_covered() -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    # what is trained but not registered for use is saved as another architecture
    assert {*get_args(SaeInferenceArchitecture)} == {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}
    assert {*NAMES} == {*SAE_CLASS_REGISTRY}
    assert {*SAE_TRAINING_CLASS_REGISTRY} - {*SAE_CLASS_REGISTRY} == {*played.SAVED_AS_JUMPRELU}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hook_name_out": "blocks.2.hook_mlp_out"}, "is no later hook of the block of blocks.1.hook_resid_mid"),
        ({"hook_name_out": "blocks.1.hook_attn_out"}, "is no later hook of the block"),
        ({"hook_name_out": "blocks.1.hook_mlp_outs"}, "hook_name_out: 'blocks.1.hook_mlp_outs' is no hook of short"),
        ({"hook_name_out": "blocks.1.hook_mlp_out", "d_out": 64}, "d_out: 64 given, but blocks.1.hook_mlp_out"),
        ({"d_out": 64}, "d_out: 64 given, but blocks.1.hook_resid_mid, where it is spliced in, is 128 wide"),
    ],
)
def test_transcoders_whose_hooks_do_not_fit(change: dict[str, Any], said: str) -> None:
    fields = {"model": inline(short_model()), "hook_name": "blocks.1.hook_resid_mid", "d_sae": 256, "splice": True}
    with pytest.raises(InputError, match=said) as raised:
        sae_inference(inference(architecture="transcoder", **fields, **change), None)
    assert "\n" not in str(raised.value)


def test_a_temporal_sae_whose_heads_do_not_fit() -> None:
    with pytest.raises(AssertionError):
        build("temporal", 64, 1000, 64, 8, "float32")
    with pytest.raises(InputError, match=r"d_sae 1000 is no multiple of bottleneck_factor \* n_heads = 64 \* 8"):
        sae_inference(inference(architecture="temporal", d_in=64, d_sae=1000), None)


def test_more_active_features_than_there_are() -> None:
    with pytest.raises(InputError, match="k 200 is more than the 128 features"):
        sae_inference(SaeInference(architecture="topk", d_in=64, d_sae=128, k=200), None)
