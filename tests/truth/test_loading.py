"""What loading holds at its worst moment, against the libraries themselves on the CPU, watched by the allocator's log.

No network: the Hugging Face model is built from the numbers of a spec, handed to from_pretrained or given to it in
place of the download; for transformers it is saved and loaded again.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import transformers
from builders import held_tensors, hf_model, quiet, tl_config, torch_dtype
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, profiler_peak
from transformer_lens import HookedTransformer, loading_from_pretrained

from compute_awareness.memory.loading import loading
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.versions import COVERED

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
FAMILIES = ("gpt2", "pythia-70m", "llama-3.2-1b", "qwen2.5-0.5b", "gemma-2-2b", "phi-2", "gpt-neo-125m", "olmo-2-7b")
DTYPES = st.sampled_from(["float32", "bfloat16", "float16"])


def _drawn_spec(name: str, pick: Any) -> ModelSpec:
    """The catalogue's model with few narrow layers of drawn widths."""
    spec = find(name)
    assert spec is not None
    heads = pick(st.sampled_from([4, 6]))
    d_head = pick(st.sampled_from([16, 32]))
    rotary_dim = None
    if spec.rotary_dim is not None:
        rotary_dim = d_head if spec.rotary_dim == spec.d_head else d_head // 2
    return spec.model_copy(
        update={
            "name": f"{name}-drawn", "n_layers": pick(st.integers(1, 4)), "d_model": heads * d_head, "n_heads": heads,
            "n_kv_heads": 2 if spec.n_kv_heads < spec.n_heads else heads, "d_head": d_head,
            "d_mlp": pick(st.sampled_from([256, 500])), "d_vocab": pick(st.integers(3000, 9000)),
            "n_ctx": pick(st.sampled_from([128, 300])), "n_ctx_tl": None, "rotary_dim": rotary_dim,
        }
    )  # fmt: skip


def _from_pretrained(
    patch: pytest.MonkeyPatch, spec: ModelSpec, dtype: str, no_processing: bool, given_model: Any
) -> Any:
    """HookedTransformer.from_pretrained with the config of `spec`; without `given_model` it "downloads" one."""
    cfg = tl_config(spec, "cpu", dtype, folded=not no_processing)

    class Hub:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            return hf_model(spec, "cpu", dtype)

    patch.setattr(loading_from_pretrained, "get_pretrained_model_config", lambda *_, **__: cfg)
    patch.setattr(loading_from_pretrained, "get_official_model_name", lambda name: name)
    patch.setattr(loading_from_pretrained, "AutoModelForCausalLM", Hub)
    load: Any = HookedTransformer.from_pretrained_no_processing if no_processing else HookedTransformer.from_pretrained
    with quiet():
        return load("gpt2", hf_model=given_model, dtype=torch_dtype(dtype), device="cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_hooked_transformer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        spec, dtype, no_processing = _drawn_spec(name, pick), pick(DTYPES), pick(st.booleans())
        passed = hf_model(spec, "cpu", dtype) if pick(st.booleans()) else None
        held = distinct_bytes(held_tensors(passed)) if passed is not None else 0
        measured = profiler_peak(lambda: _from_pretrained(monkeypatch, spec, dtype, no_processing, passed))
        ours = loading(
            "transformer_lens", None, spec, dtype, no_processing=no_processing, keeps_hf_model=passed is not None
        )
        case = (spec.model_dump(exclude={"source"}), dtype, no_processing, passed is not None)
        variant = f"{dtype} {'plain' if no_processing else 'processed'}"
        judge(
            "transformer_lens", COVERED["transformer_lens"].verified.split()[-1], "loading", spec.architecture, variant,
            ours.host_bytes, held + measured.bytes, 0.005, case,
        )  # fmt: skip
        finished = distinct_bytes(held_tensors(measured.result))
        early = ours.device_bytes - finished  # what the converter alone puts on a GPU
        assert early == 0 or (spec.architecture == "LlamaForCausalLM" and not no_processing and early > 0)

    drawn()


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "gemma-2-2b"])
def test_transformers(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The weights are pages of the mapped file, or their converted copies beside it; never both as allocations."""
    # One thread, so that the log sees every allocation; by default four convert one tensor each.
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")

    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        spec, dtype, saved = _drawn_spec(name, pick), pick(DTYPES), pick(DTYPES)
        spec = spec.model_copy(update={"checkpoint_dtype": saved})
        file = tmp_path / "model.safetensors"

        def load() -> Any:
            with quiet():
                return transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch_dtype(dtype))

        with quiet():
            hf_model(spec, "cpu", saved).save_pretrained(tmp_path)
        gc.collect()
        measured = profiler_peak(load)
        mapped = file.stat().st_size
        truth = measured.bytes if saved == dtype else measured.bytes - mapped
        ours = loading("transformers", None, spec, dtype)
        judge(
            "transformers", COVERED["transformers"].verified.split()[-1], "loading", spec.architecture, dtype,
            ours.host_bytes, truth, 0.005, (spec.model_dump(exclude={"source"}), dtype, saved),
        )  # fmt: skip
        assert ours.device_bytes == distinct_bytes(held_tensors(measured.result)) or saved == dtype
        assert ("mapped" in ours.detail) == (saved == dtype)

    drawn()


def test_sixteen_bits_do_not_halve_the_processing() -> None:
    """Weights are processed in float32: loading pythia-2.8b in bfloat16 takes nearly the RAM that float32 takes."""
    spec = find("pythia-2.8b")
    assert spec is not None
    whole = loading("transformer_lens", None, spec, "float32").host_bytes
    half = loading("transformer_lens", None, spec, "bfloat16").host_bytes
    plain = loading("transformer_lens", None, spec, "bfloat16", no_processing=True).host_bytes
    assert 0.8 * whole < half < whole
    assert plain < half / 2


def test_older_releases() -> None:
    """Before 3.5 every clone of the state dict copies masks and long tables too; 2.x processes in place."""
    spec = find("llama-3-8b")
    assert spec is not None
    newest = loading("transformer_lens", "3.9.0", spec, "bfloat16")
    masks = loading("transformer_lens", "3.4.0", spec, "bfloat16")
    in_place = loading("transformer_lens", "2.18.0", spec, "bfloat16")
    assert masks.host_bytes - newest.host_bytes > 3 * spec.n_layers * spec.context_tl**2
    assert masks.device_bytes - newest.device_bytes > spec.n_layers * spec.context_tl**2
    assert in_place.host_bytes < newest.host_bytes / 2


def test_transformer_bridge() -> None:
    """On the device: the model, and where enable_compatibility_mode processes it three float32 copies and more."""
    spec = find("gpt2")
    assert spec is not None
    plain = loading("transformer_bridge", None, spec, "bfloat16")
    kept = loading("transformer_bridge", None, spec, "bfloat16", compatibility_mode=True, no_processing=True)
    processed = loading("transformer_bridge", None, spec, "bfloat16", compatibility_mode=True)
    assert plain.device_bytes == kept.device_bytes
    assert processed.device_bytes > 6 * plain.device_bytes
    assert plain.host_bytes == processed.host_bytes == loading("transformers", None, spec, "bfloat16").host_bytes
    assert "mapped" not in processed.detail  # the checkpoint is float32
