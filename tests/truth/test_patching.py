"""Activation, attribution and edge attribution patching against the real library: torch's allocator events on the CPU.

The experiments are written here as people write them; transformer_lens.patching sweeps for itself. Left out are the
numbers that torch's CPU keeps in tensors of 4 and 8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from typing import Any

import pytest
import torch
from builders import held_tensors, quiet
from hooked_models import build, inline, small
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import allocations, distinct_bytes, in_order, profiler_peak, signed

from compute_awareness import hook_names
from compute_awareness.errors import InputError
from compute_awareness.estimates.patching import patching
from compute_awareness.memory.card.passes import as_requests
from compute_awareness.memory.hooked.patching import attribution_in_order
from compute_awareness.memory.hooked.run import Run
from compute_awareness.memory.hooked.transformer import forward
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import ActivationCache
from compute_awareness.workload.patching import Patching

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
ONE_DRAWN = settings(DRAWN, max_examples=1)
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

    if not next(model.parameters()).requires_grad:
        model.add_hook("hook_embed", lambda embed, hook: embed.requires_grad_(), "fwd")
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
        edges = workload["method"] in ("eap", "eap_ig")
        switches = {switch: edges or workload.get(switch, False) for switch in SWITCHES}
        switches["use_hook_mlp_in"] &= spec.d_mlp > 0
        model = build(spec, "float32", not workload["no_processing"], ungroup_grouped_query_attention=edges, **switches)
        model.requires_grad_(workload.get("parameter_gradients", True))
        held = distinct_bytes(held_tensors(model))
        peak = profiler_peak(lambda: run(model)).bytes + adds
    result = patching(Patching.model_validate(workload | {"model": inline(spec)}), None)
    assert abs(result.peak.tensors - held - peak) <= SCALARS, (workload, result.peak.tensors - held - peak)
    assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
    judge(
        "transformer_lens", "3.9.0", "patching", spec.architecture, f"float32 {workload['method']}",
        result.peak.tensors, held + peak, 0.005, workload,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [*NAMES, "opt-1.3b", "qwen3-0.6b", "olmo-2-0425-1b", "gemma-2b", "gpt-j-6b", "olmo-7b"]
)
def test_attribution_patching_to_the_byte(name: str) -> None:
    spec = small(name)

    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        trainable = pick(st.booleans())
        workload: dict[str, Any] = {
            "method": "attribution_patching",
            "batch_size": pick(st.integers(1, 3)),
            # Few tokens and no gradients of parameters: the peak is where the CPU copies a transposed matrix through
            # 14,400 bytes (`meters.in_order`), which CUDA does not; without that it agrees from 2 tokens on.
            "seq_len": pick(st.integers(2 if trainable else 30, 60)),
            "no_processing": pick(st.booleans()),
            "names_filter": pick(st.sampled_from([None, ["*resid_pre"], ["*hook_z", "*attn_out"], ["blocks.0.*"]])),
            "use_attn_result": pick(st.booleans()),
            "parameter_gradients": trainable,
        }
        if spec.d_mlp:
            workload["use_hook_mlp_in"] = pick(st.booleans())
        keeps, clean = _filter(spec, workload), _tokens(workload)
        _compare(spec, workload, lambda model: _attribution(model, keeps, clean), clean.nbytes)

    drawn()


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "qwen3-0.6b", "attn-only-1l"])
def test_attribution_patching_in_the_library_s_order(name: str) -> None:
    """Up to the scores; of these only the largest is on the tape."""
    spec = small(name)

    @DRAWN
    @given(st.integers(1, 3), st.integers(13, 60), st.sampled_from([None, ["*resid_pre"], ["*hook_z", "*attn_out"]]))
    def drawn(batch_size: int, seq_len: int, names_filter: list[str] | None) -> None:
        workload: dict[str, Any] = {
            "method": "attribution_patching", "batch_size": batch_size, "seq_len": seq_len, "no_processing": False,
            "names_filter": names_filter,
        }  # fmt: skip
        with quiet():
            model = build(spec, "float32", True)
            keeps, clean = _filter(spec, workload), _tokens(workload)
            real = in_order(allocations(lambda: _attribution(model, keeps, clean)), 2000)
        cached = ActivationCache.model_validate({"model": inline(spec), "names_filter": names_filter})
        run = Run(spec, batch_size, seq_len, 4, selects=hook_names.selector(cached, spec))
        tape, _, back = attribution_in_order(run, cpu=True)
        ours = in_order(signed(as_requests(tape, ()).requests()), 2000)
        scores = 4  # a difference, its product with a gradient, and both freed
        assert len(ours) > 100 and ours[:-scores] == real[: len(ours) - scores]
        assert back <= {entry[0] for entry in tape.log if isinstance(entry, tuple)}

    drawn()


@pytest.mark.parametrize(
    ("name", "heads"),
    [("gpt2", False), ("pythia-70m", True), ("llama-3.2-1b", False), ("gemma-2-2b", True), ("attn-only-1l", False)],
)
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


def _edge_scores(model: Any, clean: torch.Tensor, batches: int, steps: int) -> torch.Tensor:
    """Edge attribution as hannamw/EAP-IG does it, for prompts of equal length; `steps` 0: without the integral."""
    cfg = model.cfg
    layers, heads = cfg.n_layers, cfg.n_heads
    mlps = 0 if cfg.attn_only else 1
    n_forward, per_layer = 1 + layers * (heads + mlps), 3 * heads + mlps
    scores = torch.zeros(n_forward, layers * per_layer + 1)
    answers = torch.zeros(len(clean), 1, dtype=torch.long)
    for _ in range(batches):
        corrupted = clean.clone()
        difference = torch.zeros(*clean.shape, n_forward, cfg.d_model)

        def fill(sign: int, nodes: Any, x: torch.Tensor, hook: Any, into: torch.Tensor = difference) -> None:
            into[:, :, nodes].add_(x.detach(), alpha=sign)

        def score(before: int, nodes: slice, g: torch.Tensor, hook: Any, by: torch.Tensor = difference) -> None:
            g = g.detach() if g.ndim == 4 else g.detach().unsqueeze(2)
            scores[:before, nodes] += torch.einsum("bsfd,bskd->fk", by[:, :, :before], g)

        def forward_hooks(sign: int, fill: Callable[..., None] = fill) -> list[Any]:
            hooks: list[Any] = [("hook_embed", partial(fill, sign, 0))]
            for layer in range(layers):
                first = 1 + layer * (heads + mlps)
                result = f"blocks.{layer}.attn.hook_result"
                hooks.append((result, partial(fill, sign, slice(first, first + heads))))
                if mlps:
                    hooks.append((f"blocks.{layer}.hook_mlp_out", partial(fill, sign, first + heads)))
            return hooks

        end = layers * per_layer
        backward: list[Any] = [(f"blocks.{layers - 1}.hook_resid_post", partial(score, n_forward, slice(end, end + 1)))]
        for layer in range(layers):
            first, node = 1 + layer * (heads + mlps), layer * per_layer
            for at, letter in zip(range(node, node + 3 * heads, heads), "qkv", strict=True):
                name = f"blocks.{layer}.hook_{letter}_input"
                backward.append((name, partial(score, first, slice(at, at + heads))))
            if not mlps:
                continue
            before = first if cfg.parallel_attn_mlp else first + heads
            at = node + 3 * heads
            backward.append((f"blocks.{layer}.hook_mlp_in", partial(score, before, slice(at, at + 1))))
        with torch.inference_mode():
            with model.hooks(forward_hooks(1)):
                model(corrupted)
            start = difference[:, :, 0].clone() if steps else None
            with model.hooks(forward_hooks(-1) if steps else []):
                clean_logits = model(clean)
            way = start - difference[:, :, 0] if start is not None else None

        def interpolate(
            k: int, x: torch.Tensor, hook: Any, start: Any = start, way: Any = way
        ) -> torch.Tensor:  # fmt: skip
            return (start + (k / steps) * (way - start)).requires_grad_()

        for k in range(max(steps, 1)):
            forwards = [("hook_embed", partial(interpolate, k))] if steps else forward_hooks(-1)
            with model.hooks(forwards, backward):
                logits = model(clean)
                value = logits[:, -1, :].gather(-1, answers).mean()
                value.backward()
        assert clean_logits is not None
    return scores


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "attn-only-3l"])
@pytest.mark.parametrize("method", ["eap", "eap_ig"])
def test_edge_attribution_to_the_byte(name: str, method: str) -> None:
    """Without attention_mask. Llama and Gemma: the weights of grouped heads are repeated."""
    spec = small(name, d_vocab=700)

    @ONE_DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        batch_size, batches = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 2))
        workload: dict[str, Any] = {
            "method": method, "batch_size": batch_size, "seq_len": data.draw(st.integers(16, 40)),
            "no_processing": data.draw(st.booleans()), "n_prompts": batches * batch_size,
        }  # fmt: skip
        if method == "eap_ig":
            workload["ig_steps"] = data.draw(st.integers(1, 3))
            workload["parameter_gradients"] = data.draw(st.booleans())
        clean, steps = _tokens(workload), workload.get("ig_steps", 0)
        _compare(spec, workload, lambda model: _edge_scores(model, clean, batches, steps), clean.nbytes)

    drawn()


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b"])
def test_the_next_batch_of_edges_begins_with_what_hooks_of_the_last_one_hold(name: str) -> None:
    """A small vocabulary and frozen weights: the peak is where a batch's first forward pass with gradients ends."""
    spec = small(name, d_vocab=30)
    workload: dict[str, Any] = {
        "method": "eap_ig", "batch_size": 2, "seq_len": 16, "no_processing": False, "n_prompts": 4, "ig_steps": 2,
        "parameter_gradients": False,
    }  # fmt: skip
    clean = _tokens(workload)
    _compare(spec, workload, lambda model: _edge_scores(model, clean, 2, 2), clean.nbytes)


def test_edge_attribution_counts_time_and_refuses_what_cannot_run() -> None:
    workload = {"model": "gpt2", "method": "eap_ig", "batch_size": 2, "seq_len": 16, "ig_steps": 4}
    edges = patching(Patching.model_validate(workload | {"method": "eap"}), None)
    steps = [patching(Patching.model_validate(workload | {"ig_steps": n}), None).flops for n in (2, 3, 4)]
    # A pass and its gradients more with each step; to the operation it is compared in test_flop_counts.py.
    assert steps[2] - steps[1] == steps[1] - steps[0] > edges.flops / 2
    caches = [c.bytes for c in edges.components if c.name == "activation_cache"]
    assert caches == [2 * 16 * (1 + 12 * 13) * 768 * 4]
    with pytest.raises(ValueError, match="eap needs true"):
        Patching.model_validate(workload | {"method": "eap", "parameter_gradients": False})


def test_a_filter_that_matches_nothing_is_said() -> None:
    with pytest.raises(InputError, match="hook_reslt"):
        patching(Patching.model_validate({"model": "gpt2", "names_filter": ["*hook_reslt"]}), None)
