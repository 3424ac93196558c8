"""`activation_cache` and `inference` of HookedTransformer, held against the real library.

Every family of the catalogue is built from its own numbers (real widths, few layers) on the meta device and run; the
shapes, dtypes, filters and switches are drawn by the test. Caches must agree to the byte; so must the peak, which the
issue allows to be 0.5 % off.
"""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import translate
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from builders import held_tensors, hooked_transformer, quiet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak

from compute_awareness.estimator import estimate
from compute_awareness.models.catalogue import find, names
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import parse_workload

DRAWN = settings(
    max_examples=4, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
LAYERS = 4
SWITCHES = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in")


def _kinds() -> list[str]:
    """One model for each way in which catalogue models differ in what they allocate."""
    first: dict[tuple[Any, ...], str] = {}
    for name in names():
        spec = _spec(name)
        shape = {"n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp", "d_vocab", "n_ctx", "n_ctx_tl"}
        labels = {"name", "hf_id", "tl_name", "aliases", "source", "gated_repo", "checkpoint_dtype", "rotary_dim"}
        hf_only = {"tied_embeddings", "qkv_bias", "attn_out_bias", "mlp_bias", "lm_head_bias", "positions_offset"}
        kind = spec.model_dump(exclude=shape | labels | hf_only | {"window", "architecture", "norm_weights"})
        grouped = spec.grouped_attention_tl, spec.n_kv_heads == 1, spec.d_mlp == 0, spec.architecture
        first.setdefault((*kind.items(), *grouped), name)
    return list(first.values())


def _spec(name: str) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec


KINDS = _kinds()


def _short(name: str, n_layers: int = LAYERS) -> ModelSpec:
    spec = _spec(name)
    return spec.model_copy(update={"n_layers": min(n_layers, spec.n_layers), "name": f"{name}-short"})


@lru_cache(maxsize=2)
def _model(name: str, dtype: str, folded: bool) -> Any:
    return hooked_transformer(_short(name), device="meta", dtype=dtype, folded=folded)


def _inline(spec: ModelSpec) -> dict[str, Any]:
    return spec.model_dump(exclude_defaults=True, exclude={"source"})


def _chosen(workload: dict[str, Any]) -> Any:
    """The names_filter a user would write for the workload, in TransformerLens' own terms."""
    patterns = workload.get("names_filter")
    layers = workload.get("layers")
    matches = [re.compile(translate(pattern)) for pattern in patterns] if patterns else None
    prefixes = tuple(f"blocks.{layer}." for layer in layers) if layers is not None else ("",)
    return lambda name: name.startswith(prefixes) and (matches is None or any(m.match(name) for m in matches))


def _run_real(model: Any, workload: dict[str, Any], meter: Any = measure_peak) -> tuple[int, int, list[str]]:
    """(peak bytes above weights and buffers, distinct bytes of the cache, cached names) of the real library."""
    device = next(model.parameters()).device
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long, device=device)
    for switch in SWITCHES:
        if workload.get(switch, False) != getattr(model.cfg, switch):
            getattr(model, f"set_{switch}")(workload.get(switch, False))
    for block in model.blocks:  # ALiBi biases of a longer run before would be kept; a fresh model has none
        block.attn.alibi = None
    stop = {} if workload.get("stop_at_layer") is None else {"stop_at_layer": workload["stop_at_layer"]}

    def run() -> Any:
        with torch.set_grad_enabled(workload.get("with_gradients", False)):
            if workload["task"] == "inference":
                return model(tokens), {}
            return model.run_with_cache(tokens, names_filter=_chosen(workload), **stop)

    with quiet():
        held = [*held_tensors(model), tokens]
        measured = meter(run, held) if meter is measure_peak else meter(run)
    _, cache = measured.result
    return measured.bytes + 8 * tokens.numel(), distinct_bytes(cache.values()), list(cache.keys())


def _agrees(name: str, spec: ModelSpec, workload: dict[str, Any], model: Any) -> None:
    result = estimate(parse_workload(workload | {"model": _inline(spec)}))
    peak, cached, cached_names = _run_real(model, workload)
    by_name = {c.name: c for c in result.components if c.where == "device"}
    assert by_name["weights"].bytes == distinct_bytes(model.parameters()), workload
    ours = by_name["activation_cache"].bytes if "activation_cache" in by_name else 0
    assert ours == cached, (name, workload, ours - cached)
    judge(
        "transformer_lens", version("transformer-lens"), workload["task"], spec.architecture,
        workload.get("dtype", "float32"), result.peak.tensors, distinct_bytes(held_tensors(model)) + peak, 0,
        (name, workload),
    )  # fmt: skip
    assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
    families = Counter(re.sub(r"^blocks\.\d+\.", "", n) for n in cached_names)
    assert {h.hook: h.count for h in result.hooks} == dict(families)
    assert sum(h.bytes for h in result.hooks) == cached


FILTERS: list[list[str] | None] = [
    None,
    ["*hook_resid_post"],
    ["*hook_pattern", "*.hook_z"],
    ["blocks.1.*"],
    ["*ln1*", "hook_embed"],
    ["*resid_pre", "*resid_post", "unembed.*"],
]


@pytest.mark.parametrize("name", KINDS)
def test_cache_and_peak_to_the_byte(name: str) -> None:
    spec = _short(name)

    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        workload: dict[str, Any] = {
            "task": "activation_cache",
            "batch_size": pick(st.integers(1, 4)),
            "seq_len": pick(st.one_of(st.integers(1, 60), st.integers(200, 900))),
            "dtype": pick(st.sampled_from(["float32", "bfloat16", "float16"])),
            "names_filter": pick(st.sampled_from(FILTERS)),
            "stop_at_layer": pick(st.sampled_from([None, None, None, spec.n_layers, spec.n_layers - 1, -1])),
            "no_processing": pick(st.booleans()),
            "with_gradients": pick(st.sampled_from([False, False, True])),
            "use_attn_result": pick(st.sampled_from([False, False, True])),
            "use_split_qkv_input": pick(st.sampled_from([False, False, True])),
        }
        if spec.d_mlp:
            workload["use_hook_mlp_in"] = pick(st.booleans())
        if not spec.grouped_attention_tl:
            workload["use_attn_in"] = pick(st.booleans())
        if workload["names_filter"] == ["blocks.1.*"] and spec.n_layers == 1:
            workload["names_filter"] = None
        if workload["names_filter"] is None:
            workload["layers"] = pick(st.sampled_from([None, [0], list(range(spec.n_layers))]))
        stops_early = workload["stop_at_layer"] not in (None, spec.n_layers)
        if stops_early and (spec.n_layers <= 2 or workload["names_filter"] is None):
            workload["stop_at_layer"] = None  # nothing but the embedding would be left of the filters and layers below
        model = _model(name, workload["dtype"], not workload["no_processing"])
        _agrees(name, spec, workload, model)
        plain = {key: workload[key] for key in ("batch_size", "seq_len", "dtype", "no_processing")}
        if not any(workload.get(switch) for switch in SWITCHES):
            _agrees(name, spec, plain | {"task": "inference"}, model)

    drawn()


@pytest.mark.parametrize(
    ("name", "batch_size", "seq_len", "dtype"),
    [
        ("gpt2", 2, 1024, "float32"),
        ("pythia-2.8b", 4, 1024, "float32"),
        ("gemma-2-2b", 1, 2048, "bfloat16"),
        ("llama-3.2-1b", 3, 500, "float16"),
    ],
)
def test_whole_models(name: str, batch_size: int, seq_len: int, dtype: str) -> None:
    """At full depth nothing but the number of layers changes; checked on real models all the same."""
    spec = _spec(name)
    model = hooked_transformer(spec, device="meta", dtype=dtype)
    workload = {"task": "activation_cache", "batch_size": batch_size, "seq_len": seq_len, "dtype": dtype}
    _agrees(name, spec, workload, model)


def test_long_inputs_grow_the_rotary_tables() -> None:
    """Past 2048 positions every block builds longer tables in the first forward, and keeps them."""
    spec = _short("llama-2-7b", 2)
    model = hooked_transformer(spec, device="meta", dtype="bfloat16")
    workload = {"task": "activation_cache", "batch_size": 1, "seq_len": 3000, "dtype": "bfloat16"}
    short_tables = distinct_bytes(model.buffers())
    with quiet(), torch.no_grad():
        model(torch.zeros(1, 3000, dtype=torch.long, device="meta"))
    held = distinct_bytes(held_tensors(model))
    result = estimate(parse_workload(workload | {"model": _inline(spec)}))
    peak, cached, _ = _run_real(model, workload)
    by_name = {c.name: c.bytes for c in result.components}
    assert by_name["activation_cache"] == cached
    assert by_name["buffers"] == distinct_bytes(model.buffers()) > short_tables
    assert result.peak.tensors == held + peak


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b"])
def test_against_the_allocator_itself(name: str) -> None:
    """Real tensors on the CPU, watched by the allocator's own log: within 0.5 %, never more than that below."""
    spec = _short(name, 2).model_copy(update={"d_vocab": 2000})
    model = hooked_transformer(spec, device="cpu", dtype="float32")
    for batch_size, seq_len in ((1, 37), (2, 96)):
        for filtered in (None, ["*resid_post"]):
            workload = {
                "task": "activation_cache", "batch_size": batch_size, "seq_len": seq_len, "dtype": "float32",
                "names_filter": filtered,
            }  # fmt: skip
            result = estimate(parse_workload(workload | {"model": _inline(spec)}))
            peak, cached, _ = _run_real(model, workload, profiler_peak)
            truth = distinct_bytes(held_tensors(model)) + peak
            assert {c.name: c.bytes for c in result.components}["activation_cache"] == cached
            assert abs(result.peak.tensors - truth) <= 0.005 * truth, (workload, result.peak.tensors / truth)


def test_cache_on_the_cpu_holds_every_hook_once() -> None:
    """`device="cpu"` copies hook by hook: the host pays for each, the device for none but the forward pass."""
    spec = _short("gpt2", 2).model_copy(update={"d_vocab": 2000})
    model = hooked_transformer(spec, device="cpu", dtype="float32")
    workload = {"task": "activation_cache", "batch_size": 2, "seq_len": 64, "dtype": "float32"}
    tokens = torch.zeros(2, 64, dtype=torch.long)
    with quiet(), torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    every_entry = sum(t.numel() * t.element_size() for t in cache.values())
    moved = estimate(parse_workload(workload | {"model": _inline(spec), "cache_device": "cpu"}))
    plain = estimate(parse_workload(workload | {"model": _inline(spec), "task": "inference"}))
    assert moved.host_bytes == every_entry
    assert moved.peak.tensors == plain.peak.tensors


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "bloom-560m"])
def test_past_the_context_we_say_whether_it_runs(name: str) -> None:
    """Learned positions and rotary tables end at n_ctx, ALiBi does not."""
    spec = _short(name, 1)
    seq_len = spec.context_tl + 8
    workload = {"task": "inference", "model": _inline(spec), "seq_len": seq_len}
    said = any("the run fails" in warning for warning in estimate(parse_workload(workload)).warnings)
    model = hooked_transformer(spec, device="meta", dtype="float32")
    try:
        with quiet(), torch.no_grad():
            model(torch.zeros(1, seq_len, dtype=torch.long, device="meta"))
        fails = False
    except RuntimeError:
        fails = True
    assert said == fails


def test_an_unfolded_norm_can_be_the_worst_moment() -> None:
    """The normalised input keeps its name while weight and bias are applied: three tensors beside the residual."""
    narrow = {"d_vocab": 64, "d_mlp": 32, "n_heads": 1, "n_kv_heads": 1, "d_head": 8}
    spec = _short("solu-10l").model_copy(update=narrow)
    model = hooked_transformer(spec, device="meta", dtype="float32", folded=False)
    for batch_size, seq_len in ((4, 10), (2, 33)):
        sizes = {"batch_size": batch_size, "seq_len": seq_len, "dtype": "float32", "no_processing": True}
        _agrees("solu-10l", spec, sizes | {"task": "inference"}, model)
