"""What a transformers pass keeps: output_hidden_states, output_attentions, and forward hooks on modules.

The tape against the real model on the meta device (the library's own Python, no memory), and on the CPU in float32.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from builders import held_tensors, hf_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, measure_peak
from test_transformers_inference import NAMES, as_on_a_real_device, attentions, spec_of

from compute_awareness.errors import InputError
from compute_awareness.estimates.generation import generation
from compute_awareness.estimates.transformers_pass import transformers_pass
from compute_awareness.estimator import estimate
from compute_awareness.memory.huggingface.forward import Keeps, keeping
from compute_awareness.memory.huggingface.outputs import hidden_states, layout, select
from compute_awareness.memory.quantization import quantized_weight_bytes, scratch_bytes
from compute_awareness.models import catalogue
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import ActivationCache, Generation, Inference

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WIDTH = {"float32": 4, "bfloat16": 2}
FEW = (
    "gpt2",
    "pythia-160m",
    "llama-3-8b",
    "gemma-2-2b",
    "gemma-3-1b-pt",
    "qwen3-0.6b",
    "opt-125m",
    "bloom-560m",
    "gpt-j-6b",
)
SMALL = ("gpt2", "pythia-70m", "qwen3-0.6b", "gemma-2-2b", "llama-3-8b")


@pytest.fixture(autouse=True, scope="module")
def cheap_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    meta_model.cache_clear()
    gc.unfreeze()


@cache
def meta_model(name: str, n_layers: int, dtype: str, attention: str) -> Any:
    return hf_model(spec_of(name, n_layers), "meta", dtype, attention)


def first_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def run(model: Any, ids: torch.Tensor, paths: list[str], kv_cache: bool, **asked: bool) -> Any:
    """One pass with forward hooks on `paths`: (what the model returns, what the hooks kept)."""
    kept: list[torch.Tensor] = []
    modules = dict(model.named_modules())
    handles = [modules[p].register_forward_hook(lambda m, a, out: kept.append(first_of(out))) for p in paths]
    try:
        return model(ids, use_cache=kv_cache, **asked), kept
    finally:
        for handle in handles:
            handle.remove()


def compare(
    spec: ModelSpec, model: Any, b: int, s: int, dtype: str, attention: Any, kv_cache: bool, task: str,
    keeps: Keeps, paths: list[str], **asked: bool,
) -> None:  # fmt: skip
    device = model.device.type
    ids = torch.zeros(b, s, dtype=torch.long, device=device)
    real = contextlib.nullcontext() if device == "cpu" else as_on_a_real_device(attention == "sdpa")
    with torch.no_grad(), real:
        measured = measure_peak(lambda: run(model, ids, paths, kv_cache, **asked), [*held_tensors(model), ids])
    tokens = distinct_bytes([ids])
    tape = keeping(spec, b, s, WIDTH[dtype], attention, kv_cache, False, keeps).tape
    case = (spec.name, spec.n_layers, dtype, attention, kv_cache, b, s, paths, asked, measured.peak_op)
    truth = measured.bytes + tokens
    slack = 64 / truth  # scalars, as in test_transformers_inference
    judge(
        "transformers", "5.23.0", task, spec.architecture, f"{attention} {dtype}", tape.peak, truth, 0.001 + slack, case
    )
    assert tape.live == measured.left + tokens, f"left {tape.live} != {measured.left + tokens}: {case}"
    output, hooked = measured.result
    named = [*hooked, *(output.hidden_states or ()), *(output.attentions or ())]
    assert tape.by_component["activation_cache"] == distinct_bytes(named), case


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_and_attentions(name: str) -> None:
    spec = spec_of(name, 3)
    for attention in attentions(spec):
        model = meta_model(name, 3, "bfloat16", attention)
        both = attention == "eager"
        compare(
            spec, model, 2, 70, "bfloat16", attention, True, "inference", hidden_states(spec, both, True), [],
            output_hidden_states=True, output_attentions=both,
        )  # fmt: skip
    compare(
        spec, meta_model(name, 3, "bfloat16", "eager"), 1, 33, "bfloat16", "eager", False, "inference",
        hidden_states(spec, True, False), [], output_attentions=True,
    )  # fmt: skip


def paths_of(spec: ModelSpec, layers: list[int], roles: list[str]) -> list[str]:
    known = layout(spec)
    return [".".join(filter(None, (known.layers, str(i), local))) for i in layers for local in roles]


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_the_tables(name: str) -> None:
    """Each path exists, each other module is refused, each output is as large as the tape says, all are kept."""
    spec = spec_of(name, 2)
    model = meta_model(name, 2, "float32", "eager")
    known = layout(spec)
    ours = set(paths_of(spec, [0, 1], [*known.inside, *known.others])) | set(known.ends)
    there = {path for path, module in model.named_modules() if path}
    unknown = there - ours
    assert ours <= there, ours - there
    for path in unknown:
        with pytest.raises(InputError, match="not covered"):
            select(spec, [path], None, False)
    paths = [*paths_of(spec, [0, 1], list(known.inside)), *known.ends]
    chosen = select(spec, paths, None, False)
    compare(spec, model, 2, 9, "float32", "eager", True, "activation_cache", chosen.keeps, paths)
    sizes = keeping(spec, 2, 9, 4, "eager", True, False, chosen.keeps).sizes
    roles = [role for _ in range(2) for role in known.inside.values()] + list(known.ends.values())
    with torch.no_grad(), as_on_a_real_device(False):
        kept: dict[str, torch.Tensor] = {}
        handles = [
            module.register_forward_hook(lambda m, a, out, path=path: kept.update({path: first_of(out)}))
            for path, module in model.named_modules()
            if path in ours
        ]
        model(torch.zeros(2, 9, dtype=torch.long, device="meta"))
    for handle in handles:
        handle.remove()
    for path, role in zip(paths, roles, strict=True):
        assert kept[path].untyped_storage().nbytes() == kept[path].nbytes == sizes[role], path


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_hooks(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FEW))
    n = data.draw(st.sampled_from((1, 3)))
    spec = spec_of(name, n)
    attention = data.draw(st.sampled_from(attentions(spec)))
    dtype = data.draw(st.sampled_from(sorted(WIDTH)))
    known = layout(spec)
    inside = data.draw(st.lists(st.sampled_from(sorted(known.inside)), min_size=1, max_size=4, unique=True))
    ends = data.draw(st.lists(st.sampled_from(sorted(known.ends)), max_size=2, unique=True))
    globs = [".".join(filter(None, (known.layers, "*", local))) for local in inside]
    layers = data.draw(st.one_of(st.none(), st.lists(st.integers(0, n - 1), min_size=1, unique=True)))
    chosen = select(spec, globs + ends, layers, False)
    paths = paths_of(spec, sorted(layers) if layers is not None else list(range(n)), inside)
    paths += ends if layers is None else []
    b, s = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 200))
    kv_cache = data.draw(st.booleans())
    model = meta_model(name, n, dtype, attention)
    compare(spec, model, b, s, dtype, attention, kv_cache, "activation_cache", chosen.keeps, paths)


@pytest.mark.parametrize("name", SMALL)
def test_on_the_cpu(name: str) -> None:
    """Real tensors: hidden states, a hook on every layer, and copies to the host."""
    spec = spec_of(name, 3).model_copy(update={"d_vocab": 500, "d_model": 256, "d_mlp": 512})
    spec = spec.model_copy(update={"n_heads": 4, "n_kv_heads": min(4, spec.n_kv_heads), "d_head": 64})
    if spec.rotary_dim:
        spec = spec.model_copy(update={"rotary_dim": 16 if name.startswith("pythia") else 64})
    kinds: list[Any] = attentions(spec)
    for attention in kinds:
        model = hf_model(spec, "cpu", "float32", attention)
        everything = hidden_states(spec, attention == "eager", True)
        asked = {"output_hidden_states": True, "output_attentions": attention == "eager"}
        compare(spec, model, 2, 48, "float32", attention, True, "inference", everything, [], **asked)
        chosen = select(spec, None, None, False)
        compare(
            spec,
            model,
            2,
            48,
            "float32",
            attention,
            True,
            "activation_cache",
            chosen.keeps,
            paths_of(spec, [0, 1, 2], [""]),
        )
        copied = keeping(spec, 2, 48, 4, attention, True, False, select(spec, None, [0, -1], True).keeps)
        plain = keeping(spec, 2, 48, 4, attention, True, False, None)
        assert copied.tape.peak == plain.tape.peak
        assert copied.tape.by_component["activation_cache"] == 0
        assert copied.sizes == {"layer": 4 * 2 * 48 * spec.d_model}


def test_sdpa_returns_no_attention_weights() -> None:
    model = meta_model("pythia-70m", 2, "float32", "sdpa")
    with torch.no_grad(), as_on_a_real_device(True):
        output = model(torch.zeros(1, 5, dtype=torch.long, device="meta"), output_attentions=True)
    assert not output.attentions


def test_globs() -> None:
    spec = spec_of("llama-3-8b", 3)

    def families(*globs: str, layers: list[int] | None = None) -> dict[str, int]:
        return {path: count for path, _, count in select(spec, globs, layers, False).families}

    assert families("model.layers.*") == {"model.layers.*": 3}
    assert families("*.mlp") == {"model.layers.*.mlp": 3}
    assert families("*_proj", layers=[0, -1])["model.layers.*.mlp.up_proj"] == 2
    assert families("model.layers.?.self_attn", "lm_head") == {"model.layers.*.self_attn": 3, "lm_head": 1}
    for globs, message in (
        (["*hook_resid_post"], "matches no module"),
        (["*.mpl"], r"nearest: .*\.mlp"),
        (["model"], "not covered"),
        (["model.rotary_emb"], "not covered"),
        ([], "empty"),
    ):
        with pytest.raises(InputError, match=message):
            families(*globs)
    with pytest.raises(InputError, match="outside the 3 blocks"):
        families("*.mlp", layers=[3])


def test_every_catalogue_model_has_modules() -> None:
    for name in catalogue.names():
        spec = catalogue.find(name)
        if spec is not None and spec.architecture != "NeelToy":
            assert select(spec, None, None, False).families == [(f"{layout(spec).layers}.*", "layer", spec.n_layers)]


def bytes_of(result: Any, name: str, where: str = "device") -> int:
    return sum(c.bytes for c in result.components if c.name == name and c.where == where)


def test_estimates() -> None:
    """From workload to estimate: the parts add up, and what is asked for is what changes."""
    plain = estimate(Inference(model="gpt2", library="transformers", batch_size=2, seq_len=64, attention="eager"))
    states = estimate(
        Inference(
            model="gpt2", library="transformers", batch_size=2, seq_len=64, attention="eager",
            output_hidden_states=True, output_attentions=True,
        )
    )  # fmt: skip
    assert bytes_of(plain, "activation_cache") == 0
    assert bytes_of(states, "activation_cache") == 4 * 2 * (13 * 64 * 768 + 12 * 12 * 64 * 64)
    assert states.peak.tensors > plain.peak.tensors
    sdpa = estimate(Inference(model="gpt2", library="transformers", seq_len=64, output_attentions=True))
    assert bytes_of(sdpa, "activation_cache") == 0
    assert any("attn_implementation='eager'" in warning for warning in sdpa.warnings)
    host = estimate(
        ActivationCache(
            model="gpt2", library="transformers", batch_size=2, seq_len=64, attention="eager", cache_device="cpu",
            names_filter=["*.mlp"], layers=[0, -1],
        )
    )  # fmt: skip
    assert host.host_bytes == bytes_of(host, "activation_cache", "host") == 2 * 4 * 2 * 64 * 768
    assert host.peak.tensors == plain.peak.tensors
    refusals: list[dict[str, Any]] = [{"stop_at_layer": 1}, {"use_attn_result": True}]
    for refused in refusals:
        with pytest.raises(InputError, match="not covered yet for transformers"):
            estimate(ActivationCache(model="gpt2", library="transformers", seq_len=8, **refused))


def test_quantised_weights() -> None:
    """Weights as `quantized_weight_bytes`, which test_quantization checks against bitsandbytes; given or the model's
    own; the rest of the pass as before, with the scratch on top."""
    spec = spec_of("llama-3-8b", 2)
    numbers = spec.model_dump(exclude_none=True, exclude={"source", "checkpoint"})
    fields: dict[str, Any] = {"library": "transformers", "seq_len": 64, "dtype": "bfloat16"}
    plain = estimate(Inference(model=numbers, **fields))
    cases: list[tuple[Any, str]] = [("bitsandbytes_4bit", "close"), ("bitsandbytes_8bit", "close"), ("fp8", "rough")]
    for quantization, precision in cases:
        given = transformers_pass(Inference(model=numbers, quantization=quantization, **fields), None)
        own = transformers_pass(Inference(model=numbers | {"quantization": quantization}, **fields), None)
        assert bytes_of(given, "weights") == bytes_of(own, "weights") == quantized_weight_bytes(spec, quantization, 2)
        saved = bytes_of(plain, "weights") - bytes_of(given, "weights")
        assert given.peak.tensors == plain.peak.tensors - saved + scratch_bytes(spec, quantization, 64, 2)
        assert given.precision == own.precision == precision
        plain_text = generation(Generation(model=numbers, new_tokens=5, **fields), None)
        text = generation(Generation(model=numbers, new_tokens=5, quantization=quantization, **fields), None)
        assert text.peak.tensors == plain_text.peak.tensors - saved + scratch_bytes(spec, quantization, 64, 2)
        assert text.precision == precision
