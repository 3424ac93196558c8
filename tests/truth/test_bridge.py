"""`inference` and `activation_cache` of TransformerBridge, held against the real library.

Every covered family is built with the ratios of a catalogue model at a fraction of its width, on the CPU because the
Bridge refuses to split meta tensors, and run; shapes, dtypes, filters and modes are drawn. Caches, peaks and weights
must agree to the byte.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from fnmatch import translate
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from builders import held_tensors, hf_model, quiet, torch_dtype
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak
from recorder import Recorder

from compute_awareness.errors import InputError
from compute_awareness.estimates.bridge_pass import bridge_pass
from compute_awareness.memory import weights
from compute_awareness.memory.bridge import weights as bridge_weights
from compute_awareness.memory.bridge.attention import JOINT
from compute_awareness.memory.bridge.processing import processed
from compute_awareness.memory.card.allocator import UNIT, _Segments, simulate
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.parameters import hf_tensors
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import parse_workload

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
FAMILIES = [
    "gpt2", "pythia-160m", "llama-3.2-1b", "mistral-7b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2-2b", "gemma-2b",
    "phi-2", "opt-125m", "gpt-neo-125m", "gpt-j-6b", "olmo-1b",
]  # fmt: skip
WIDTH = {"float32": 4, "bfloat16": 2}
MODES = ["plain", "unprocessed", "processed"]
VERSION = version("transformer-lens")
OLD_BIASES = tuple(map(int, VERSION.split(".")[:2])) < (4, 3)


def _small(name: str, n_layers: int = 3) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    n_heads = min(spec.n_heads, 8)
    n_kv_heads = max(1, n_heads * spec.n_kv_heads // spec.n_heads)
    d_head = spec.d_head // 4
    square = spec.q_width == spec.d_model
    changes: dict[str, Any] = {
        "name": f"{name}-small", "n_layers": n_layers, "d_vocab": 600, "n_ctx": 700, "d_head": d_head,
        "n_heads": n_heads, "n_kv_heads": n_kv_heads, "d_mlp": 200,
        "d_model": n_heads * d_head if square else n_heads * d_head + 24,
    }  # fmt: skip
    if spec.rotary_dim:
        changes["rotary_dim"] = spec.rotary_dim * d_head // spec.d_head // 2 * 2
    return spec.model_copy(update=changes)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"a": 0, "b": 1, "<e>": 2}, unk_token="<e>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<e>", pad_token="<e>", unk_token="<e>", name_or_path="none"
    )


def _boot(spec: ModelSpec, dtype: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    hf = hf_model(spec, device="cpu", dtype=dtype, attention="eager")
    hf.config.output_attentions = True  # what boot_transformers asks of the config that it loads
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(0, 0.02)
    with quiet():
        return TransformerBridge.boot_transformers(
            spec.hf_id or spec.name, hf_model=hf, device="cpu", dtype=torch_dtype(dtype), tokenizer=_tokenizer()
        )


@lru_cache(maxsize=3)
def _bridge(name: str, dtype: str, mode: str) -> Any:
    bridge = _boot(_small(name), dtype)
    if mode != "plain":
        with quiet():
            bridge.enable_compatibility_mode(no_processing=mode == "unprocessed")
    return bridge


def _held(bridge: Any) -> list[torch.Tensor]:
    """Every parameter and buffer, of the bridges and of the model they wrap."""
    inside = [*torch.nn.Module.parameters(bridge), *torch.nn.Module.buffers(bridge)]
    return [*inside, *held_tensors(bridge.original_model)]


def _patterns(bridge: Any) -> list[torch.Tensor]:
    kept = [getattr(block.attn, "_pattern", None) for block in bridge.blocks]
    return [pattern for pattern in kept if pattern is not None]


def _estimate(spec: ModelSpec, workload: dict[str, Any]) -> Estimate:
    model = spec.model_dump(exclude_defaults=True, exclude={"source"})
    no_processing = workload.get("no_processing", False)
    parsed = parse_workload(
        {key: value for key, value in workload.items() if key != "no_processing"} | {"model": model}
    )
    return bridge_pass(parsed.model_copy(update={"no_processing": no_processing}), None)  # type: ignore[arg-type]


def _chosen(workload: dict[str, Any]) -> Any:
    """The names_filter a user would pass: globs as a function, plain names as a list."""
    patterns, layers = workload.get("names_filter"), workload.get("layers")
    if patterns and layers is None and not any("*" in pattern for pattern in patterns):
        return patterns
    if patterns is None and layers is None:
        return None
    matches = [re.compile(translate(pattern)) for pattern in patterns] if patterns else None
    prefixes = tuple(f"blocks.{layer}." for layer in layers) if layers is not None else ("",)
    return lambda name: name.startswith(prefixes) and (matches is None or any(m.match(name) for m in matches))


def _run(bridge: Any, workload: dict[str, Any], meter: Any = measure_peak, *, fresh: bool = True) -> tuple[int, Any]:
    """(peak bytes, weights and all; the cache) of the real library."""
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long)
    if fresh:
        for block in bridge.blocks:
            block.attn._pattern = None
    stop = {} if workload.get("stop_at_layer") is None else {"stop_at_layer": workload["stop_at_layer"]}

    def run() -> Any:
        with torch.no_grad():
            if workload["task"] == "inference":
                return bridge(tokens), {}
            return bridge.run_with_cache(tokens, names_filter=_chosen(workload), **stop)

    before = distinct_bytes([*_held(bridge), tokens, *_patterns(bridge)])
    with quiet():
        if meter is measure_peak:  # handed over one by one, so that the meter keeps no pattern alive
            baseline = (tensor for source in (_held, _patterns) for tensor in source(bridge))
            measured = meter(run, (tensor for part in ((tokens,), baseline) for tensor in part))
        else:
            measured = meter(run)
    return before + measured.bytes, measured.result[1]


def _agrees(name: str, bridge: Any, mode: str, workload: dict[str, Any]) -> None:
    spec = _small(name)
    workload = workload | {"compatibility_mode": mode != "plain", "no_processing": mode == "unprocessed"}
    workload |= {"library": "transformer_bridge", "library_version": VERSION}
    result = _estimate(spec, workload)
    peak, cache = _run(bridge, workload)
    sizes = {c.name: c.bytes for c in result.components if c.where == "device"}
    assert sizes["weights"] + sizes.get("buffers", 0) == distinct_bytes(_held(bridge)), (name, mode)
    case = (name, mode, workload)
    variant = f"{workload.get('dtype', 'float32')} {mode}"
    judge(
        "transformer_bridge", VERSION, workload["task"], spec.architecture, variant, result.peak.tensors, peak,
        1e-5, case,  # a scalar of four bytes in passes over one token
    )  # fmt: skip
    assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
    if workload["task"] == "inference":
        return
    assert sizes.get("activation_cache", 0) == distinct_bytes(cache.values()), case
    families = Counter(re.sub(r"^blocks\.\d+\.", "", key) for key in cache.keys())  # noqa: SIM118 (no dict)
    assert {h.hook: h.count for h in result.hooks} == dict(families), case
    assert sum(h.bytes for h in result.hooks) == distinct_bytes(cache.values()), case
    # device="cpu" copies for every name that the filter lets through; compatibility mode lets some go in the end
    wanted = _chosen(workload)
    if isinstance(wanted, list) and mode != "plain":
        return
    stored = [t for key, t in cache.items() if not callable(wanted) or wanted(key)]
    moved = _estimate(spec, workload | {"cache_device": "cpu"})
    assert moved.host_bytes == sum(t.numel() * t.element_size() for t in stored), case


FILTERS: list[list[str] | None] = [
    None,
    None,
    ["*hook_resid_post"],
    ["*hook_pattern", "*.hook_z"],
    ["blocks.1.*"],
    ["*hook_in", "*hook_cos"],
    ["embed.*", "hook_embed", "unembed.*"],
    ["blocks.0.hook_resid_pre", "blocks.1.attn.q.hook_out", "blocks.1.mlp.hook_post", "hook_unembed"],
]


@pytest.mark.parametrize("dtype", list(WIDTH))
@pytest.mark.parametrize("name", FAMILIES)
def test_cache_and_peak_to_the_byte(name: str, dtype: str) -> None:
    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        mode = pick(st.sampled_from(MODES))
        if dtype != "float32" and mode == "processed" and OLD_BIASES and bridge_weights.new_biases(_small(name)):
            mode = "plain"  # test_processing_in_16_bits says why
        shape: dict[str, Any] = {
            "batch_size": pick(st.integers(1, 4)),
            "seq_len": pick(st.one_of(st.integers(1, 40), st.integers(60, 180))),
            "dtype": dtype,
        }
        workload = shape | {"task": "activation_cache", "names_filter": pick(st.sampled_from(FILTERS))}
        if workload["names_filter"] is None:
            workload["layers"] = pick(st.sampled_from([None, None, [0, 2]]))
            workload["stop_at_layer"] = pick(st.sampled_from([None, None, 3, 2, -2]))
        bridge = _bridge(name, dtype, mode)
        _agrees(name, bridge, mode, workload)
        _agrees(name, bridge, mode, shape | {"task": "inference"})

    drawn()


@pytest.mark.parametrize("name", ["gpt2", "pythia-160m", "llama-3.2-1b", "opt-125m"])
def test_what_stays_after_a_pass(name: str) -> None:
    """Bridges with a joint q, k, v matrix keep every pattern until the next pass, which then stands higher."""
    spec, bridge = _small(name), _bridge(name, "float32", "plain")
    workload = {"task": "inference", "library": "transformer_bridge", "batch_size": 2, "seq_len": 230}
    result = _estimate(spec, workload)
    first, _ = _run(bridge, workload)
    kept = distinct_bytes(_patterns(bridge))
    assert kept == (4 * 3 * 2 * spec.n_heads * 230**2 if spec.architecture in JOINT else 0)
    assert any("pattern" in warning for warning in result.warnings) == bool(kept)
    second, _ = _run(bridge, workload, fresh=False)
    assert result.peak.tensors == first
    assert result.peak.tensors + result.late_bytes == second


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b"])
def test_against_the_allocator_itself(name: str) -> None:
    """The allocator's own log sees scratch inside kernels, too: within 0.5 %."""
    spec, bridge = _small(name), _bridge(name, "float32", "plain")
    for filtered in (None, ["*hook_resid_post"]):
        workload = {
            "task": "activation_cache", "library": "transformer_bridge", "batch_size": 2, "seq_len": 120,
            "names_filter": filtered,
        }  # fmt: skip
        peak, _ = _run(bridge, workload, profiler_peak)
        ours = _estimate(spec, workload).peak.tensors
        judge("transformer_bridge", VERSION, "activation_cache", spec.architecture, "allocator", ours, peak, 0.005)


@pytest.mark.parametrize("dtype", list(WIDTH))
@pytest.mark.parametrize("name", ["gpt2", "pythia-160m", "gemma-2-2b", "gpt-j-6b", "qwen2.5-0.5b"])
def test_weights_and_the_peak_of_processing(name: str, dtype: str) -> None:
    spec, width = _small(name), WIDTH[dtype]
    buffers = weights.hf_buffer_bytes(spec, width)
    bridge = _boot(spec, dtype)
    booted = distinct_bytes(_held(bridge))
    assert bridge_weights.boot_peak(spec, width, False, False)[1] == booted
    assert bridge_weights.boot_peak(spec, width, True, True)[1] == booted
    with quiet():
        measured = measure_peak(bridge.enable_compatibility_mode, (tensor for tensor in _held(bridge)))
    ours = bridge_weights.boot_peak(spec, width, True, False)[1]
    judge("transformer_bridge", VERSION, "loading", spec.architecture, dtype, ours, booted + measured.bytes, 0)
    assert bridge_weights.bridge_bytes(spec, width, True, OLD_BIASES) + buffers == distinct_bytes(_held(bridge))


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5-0.5b", "gpt-neo-125m"])
def test_processing_in_16_bits(name: str) -> None:
    """Before 4.3 biases that processing makes are float32, and a 16-bit model does not run with them. We say so."""
    bridge = _bridge(name, "bfloat16", "processed")
    workload = {
        "task": "inference", "library": "transformer_bridge", "seq_len": 5, "dtype": "bfloat16",
        "compatibility_mode": True, "library_version": VERSION,
    }  # fmt: skip
    said = any("the run fails" in warning for warning in _estimate(_small(name), workload).warnings)
    try:
        with torch.no_grad():
            bridge(torch.zeros(1, 5, dtype=torch.long))
        fails = False
    except RuntimeError:
        fails = True
    assert said == fails


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("gemma-3-1b-pt", {}, "not covered yet for the Bridge"),
        ("gpt2", {"with_gradients": True}, "with_gradients: not covered yet"),
        ("gpt2", {"use_attn_result": True}, "use_attn_result: not covered yet"),
        ("gpt2", {"attention": "sdpa"}, "TransformerBridge always computes the scores"),
        ("gpt2", {"stop_at_layer": 13}, "outside the 12 blocks"),
        ("gpt2", {"names_filter": ["*hook_resid_pots"]}, "hook_resid_post"),
        ("gpt2", {"layers": [12]}, "outside the 12 blocks"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(name: str, given: dict[str, Any], says: str) -> None:
    workload = {"task": "activation_cache", "library": "transformer_bridge", "model": name, "seq_len": 8}
    with pytest.raises(InputError, match=re.escape(says)):
        bridge_pass(parse_workload(workload | given), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gpt2", "float32"), ("pythia-160m", "bfloat16"), ("llama-3.2-1b", "float32"), ("qwen2.5-0.5b", "bfloat16"),
     ("opt-125m", "float32")],
)  # fmt: skip
def test_what_the_allocator_keeps_after_processing(name: str, dtype: str) -> None:
    """Matrices so large that they share segments: within two of those of what the real library's order leaves."""
    from transformer_lens.model_bridge import TransformerBridge

    known = find(name)
    assert known is not None
    spec = known.model_copy(
        update={"name": f"{name}-short", "n_layers": 4, "d_vocab": 3000, "d_model": 768, "n_heads": 12, "d_head": 64,
                "n_kv_heads": 12 if known.n_kv_heads == known.n_heads else 4, "d_mlp": 4 * 768}
    )  # fmt: skip
    with quiet(), Recorder([]) as recorder:
        hf = hf_model(spec, device="cpu", dtype=dtype, attention="eager")
        bridge = TransformerBridge.boot_transformers(
            spec.hf_id or spec.name, hf_model=hf, device="cpu", dtype=torch_dtype(dtype), tokenizer=_tokenizer()
        )
        bridge.enable_compatibility_mode()
        gc.collect()
        requests = list(recorder.requests)
    real, blocks = _Segments(None), list[int]()
    for request in requests:
        if request > 0:
            blocks.append(real.malloc(-(-request // UNIT)))
        elif request == 0:
            blocks.append(-1)
        elif blocks[~request] >= 0:
            real.free(blocks[~request])
    real.release_cached()
    ours = processed(spec, WIDTH[dtype])
    assert abs(ours.reserved - real.reserved) * UNIT <= 42 * 1024**2
    plain = simulate(hf_tensors(spec, WIDTH[dtype])).reserved
    assert real.reserved * UNIT > 1.2 * plain, "processing leaves more than loading alone"
    # What comes on top finds room in what is free there.
    assert ours.played([3 * 1024**2]).peak_reserved == ours.reserved * UNIT
