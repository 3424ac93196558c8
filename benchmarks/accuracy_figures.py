"""Our figure for each workload of the accuracy benchmark, and the one of the rules of thumb. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from typing import Any
from unittest.mock import patch

import rough
from accuracy_cases import kinds_of

from compute_awareness.estimator import estimate
from compute_awareness.memory.hooked import patching as hooked_patching
from compute_awareness.memory.hooked import training as hooked_training
from compute_awareness.memory.huggingface import training as transformers_training
from compute_awareness.memory.sae import inference as sae_inference
from compute_awareness.memory.sae import training as sae
from compute_awareness.memory.weights import hf_params
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import DTYPE_BYTES, Generation, Inference, SaeTraining, Training, parse_workload
from compute_awareness.workload import SaeInference as SaeUse


@contextlib.contextmanager
def on_the_cpu() -> Iterator[None]:
    """Estimates made inside count what torch's CPU kernels allocate and CUDA's do not, as the truth tests do.

    What was run here ran on the CPU. The package itself only ever answers for CUDA; `cuda_figures` has that answer.
    """
    import compute_awareness.estimates.transformers_training as estimates

    with contextlib.ExitStack() as patched:
        patched.enter_context(patch.object(sae, "Shape", partial(sae.Shape, cpu_kernels=True)))
        patched.enter_context(patch.object(hooked_training, "step", partial(hooked_training.step, cpu=True)))
        attribution = partial(hooked_patching.attribution_patching, cpu=True)
        patched.enter_context(patch.object(hooked_patching, "attribution_patching", attribution))
        patched.enter_context(patch.object(estimates, "Step", partial(transformers_training.Step, cpu=True)))
        for name in ("encode", "forward"):
            kernels = partial(getattr(sae_inference, name), cpu_kernels=True)
            patched.enter_context(patch.object(sae_inference, name, kernels))
        yield


def our_figures(workload: dict[str, Any]) -> dict[str, int]:
    """Bytes by kind for the device the truth is measured on: the CPU, or torch's meta device."""
    with on_the_cpu():
        return cuda_figures(workload)


def cuda_figures(workload: dict[str, Any]) -> dict[str, int]:
    """Bytes by kind, through the package's public functions: what a user is told."""
    result = estimate(parse_workload(workload))
    cached = sum(c.bytes for c in result.components if c.name == "activation_cache" and c.where == "device")
    return {kind: cached if kind in ("cache", "filtered") else result.peak.tensors for kind in kinds_of(workload)}


def rough_figures(workload: dict[str, Any]) -> dict[str, int]:
    """Bytes by kind, by the rules of thumb.

    The rules know no filters: for a filtered cache the parts of their formula that the filter keeps are taken. The
    peak of `run_with_cache` and of patching is weights and cache, that of a forward pass and of generation the weights.
    Of training they know the parts of their SAE formula: parameters, gradients, Adam's state, each as large. An SAE in
    use is its parameters and the model's.
    """
    parsed = parse_workload(workload)
    if isinstance(parsed, SaeTraining | SaeUse):
        return dict.fromkeys(kinds_of(workload), _rough_sae(parsed))
    spec = resolve(parsed.model)
    width = DTYPE_BYTES[parsed.dtype]
    weights = rough.model_bytes(spec.name, hf_params(spec), width)
    if isinstance(parsed, Training):
        states = {"adam": 2, "adamw": 2, "sgd_momentum": 1}.get(parsed.optimizer, 0)
        trained = 1 + states if parsed.trainable == "all" else 0
        return dict.fromkeys(kinds_of(workload), weights * (1 + trained))
    if isinstance(parsed, Inference | Generation):
        return dict.fromkeys(kinds_of(workload), weights)
    cached = _rough_cache(spec, parsed)
    kinds = kinds_of(workload)
    return {kind: cached + (0 if kind in ("cache", "filtered") else weights) for kind in kinds}


def _rough_sae(workload: SaeTraining | SaeUse) -> int:
    d_in = workload.d_in or resolve(workload.model or "").d_model
    d_sae = workload.d_sae or 0
    if isinstance(workload, SaeTraining):
        total = rough.sae_bytes(d_in, d_sae, workload.train_batch_size_tokens)
    else:
        params, activations = rough.sae_counts(d_in, d_sae, workload.batch_size * workload.seq_len)
        total = 4 * (workload.n_saes * params + activations)
    if workload.model is not None:
        total += hf_params(resolve(workload.model)) * DTYPE_BYTES[workload.model_dtype]
    return total


def _rough_cache(spec: ModelSpec, workload: Any) -> int:
    terms = rough.cache_terms(
        spec.n_layers, spec.d_model, spec.n_heads, spec.d_head, workload.batch_size, workload.seq_len,
        DTYPE_BYTES[workload.dtype],
    )  # fmt: skip
    if workload.names_filter is None:
        return sum(terms.values())
    kept = [
        terms[term] // parts
        for hook, (term, parts) in rough.COUNTED_HOOKS.items()
        if any(fnmatch(f"blocks.0.{hook}", pattern) for pattern in workload.names_filter)
    ]
    if not kept:
        raise ValueError(f"the rough formula counts nothing that {workload.names_filter} keeps")
    layers = spec.n_layers if workload.layers is None else len(workload.layers)
    return sum(kept) * layers // spec.n_layers
