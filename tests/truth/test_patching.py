"""Activation patching and attribution patching against the real library: torch's allocator events on the CPU.

The experiments are written here as people write them; transformer_lens.patching sweeps for itself. Left out are the
numbers that torch's CPU keeps in tensors of 4 and 8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from builders import held_tensors, quiet
from hooked_models import build, inline, small
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, profiler_peak

from compute_awareness.errors import InputError
from compute_awareness.estimates.patching import patching
from compute_awareness.memory.hooked_pass import Run
from compute_awareness.memory.hooked_transformer import forward
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload.patching import Patching

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
SCALARS = 800
NAMES = ("gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "attn-only-1l")
SWITCHES = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")


def _tokens(workload: dict[str, Any]) -> torch.Tensor:
    return torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long)


def _filter(spec: ModelSpec, workload: dict[str, Any]) -> Callable[[str], bool]:
    """names_filter in the library's terms; hooks that are switched off cannot be hooked at all."""
    switches = {switch: workload.get(switch, False) for switch in SWITCHES}
    fires = set(forward(Run(spec, 1, 2, 4, folded=not workload["no_processing"], **switches)).hook_names)
    patterns = workload["names_filter"] or ["*"]
    return lambda name: name in fires and any(fnmatch(name, pattern) for pattern in patterns)


def _attribution(model: Any, keeps: Callable[[str], bool], clean: torch.Tensor) -> dict[str, torch.Tensor]:
    corrupted, answers = clean.clone(), torch.zeros(len(clean), 1, dtype=torch.long)
    with torch.no_grad():
        clean_logits, clean_cache = model.run_with_cache(clean, names_filter=keeps)
    activations: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def keep_activation(activation: torch.Tensor, hook: Any) -> None:
        activations[hook.name] = activation.detach()

    def keep_gradient(gradient: torch.Tensor, hook: Any) -> None:
        gradients[hook.name] = gradient.detach()

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, :].gather(-1, answers).mean()

    model.add_hook(keeps, keep_activation, "fwd")
    model.add_hook(keeps, keep_gradient, "bwd")
    metric(model(corrupted)).backward()
    model.reset_hooks()
    scores = {
        name: ((clean_cache[name] - activations[name]) * gradients[name]).sum() for name in gradients
    }  # fmt: skip
    assert clean_logits is not None
    return scores


def _compare(spec: ModelSpec, workload: dict[str, Any], run: Callable[[Any], Any], adds: int) -> None:
    """`run(model)` with real memory against the estimate; `adds` bytes of its inputs were there before."""
    with quiet():
        model = build(spec, "float32", not workload["no_processing"], **{s: workload.get(s, False) for s in SWITCHES})
        held = distinct_bytes(held_tensors(model))
        peak = profiler_peak(lambda: run(model)).bytes + adds
    result = patching(Patching.model_validate(workload | {"model": inline(spec)}), None)
    assert abs(result.peak.tensors - held - peak) <= SCALARS, (workload, result.peak.tensors - held - peak)
    assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
    judge(
        "transformer_lens", "3.9.0", "patching", spec.architecture, f"float32 {workload['method']}",
        result.peak.tensors, held + peak, 0.005, workload,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_attribution_patching_to_the_byte(name: str) -> None:
    spec = small(name)

    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        workload: dict[str, Any] = {
            "method": "attribution_patching",
            "batch_size": pick(st.integers(1, 3)),
            "seq_len": pick(st.integers(2, 60)),
            "no_processing": pick(st.booleans()),
            "names_filter": pick(st.sampled_from([None, ["*resid_pre"], ["*hook_z", "*attn_out"], ["blocks.0.*"]])),
            "use_attn_result": pick(st.booleans()),
        }
        if spec.d_mlp:
            workload["use_hook_mlp_in"] = pick(st.booleans())
        keeps, clean = _filter(spec, workload), _tokens(workload)
        _compare(spec, workload, lambda model: _attribution(model, keeps, clean), clean.nbytes)

    drawn()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heads", [False, True])
def test_activation_patching_to_the_byte(name: str, heads: bool) -> None:
    """transformer_lens.patching itself, over positions of the residual stream or over heads."""
    from transformer_lens import patching as library

    spec = small(name, n_layers=1, d_vocab=1000)  # logits above the scratch in which the CPU transposes matrices
    workload: dict[str, Any] = {
        "method": "activation_patching", "batch_size": 4, "seq_len": 6 if heads else 12, "no_processing": heads,
        "names_filter": ["*hook_z"] if heads else None,
    }  # fmt: skip
    if heads:
        workload["positions"] = 6
    keeps, clean = _filter(spec, workload), _tokens(workload)
    sweep = library.get_act_patch_attn_head_out_by_pos if heads else library.get_act_patch_resid_pre

    @torch.no_grad()
    def run(model: Any) -> Any:
        corrupted = clean.clone()
        clean_logits, clean_cache = model.run_with_cache(clean, names_filter=keeps)
        return sweep(model, corrupted, clean_cache, lambda logits: logits[0, -1, 0]), clean_logits

    _compare(spec, workload, run, clean.nbytes)


def test_time_counts_every_patch() -> None:
    workload = {"model": "gpt2", "method": "activation_patching", "batch_size": 4, "seq_len": 10, "n_prompts": 8,
                "names_filter": ["*hook_z"]}  # fmt: skip
    by_head = patching(Patching.model_validate(workload), None).flops
    one_layer = patching(Patching.model_validate(workload | {"layers": [3]}), None).flops
    one_place = patching(Patching.model_validate(workload | {"layers": [3], "positions": 1}), None).flops
    one = one_place // 2 // (1 + 12)
    assert (by_head, one_layer) == (2 * one * (1 + 12 * 10 * 12), 2 * one * (1 + 10 * 12))


def test_without_parameter_gradients_none_are_allocated() -> None:
    workload = {"model": "gpt2", "method": "attribution_patching", "batch_size": 2, "seq_len": 64,
                "names_filter": ["*resid_pre"]}  # fmt: skip
    kept, frozen = (
        patching(Patching.model_validate(workload | {"parameter_gradients": on}), None) for on in (True, False)
    )
    sizes = [{c.name: c.bytes for c in result.components}["gradients"] for result in (kept, frozen)]
    assert sizes == [{c.name: c.bytes for c in kept.components}["weights"], 4 * 2 * 64 * 768]  # of hook_embed alone
    assert frozen.peak.tensors < kept.peak.tensors


@pytest.mark.parametrize("method", ["eap", "eap_ig"])
def test_edge_attribution_is_refused(method: str) -> None:
    with pytest.raises(InputError, match="not covered yet"):
        patching(Patching.model_validate({"model": "gpt2", "method": method}), None)


def test_a_filter_that_matches_nothing_is_said() -> None:
    with pytest.raises(InputError, match="hook_reslt"):
        patching(Patching.model_validate({"model": "gpt2", "names_filter": ["*hook_reslt"]}), None)
