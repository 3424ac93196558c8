"""What the real libraries hold, with the builders and meters of the truth tests. CPU and meta device only."""

from __future__ import annotations

import importlib
import sys
import warnings
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from compute_awareness.memory.activation_store import MIXING_FRACTION, refills
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "truth"))
# Past this many tokens the first pass of a rotary HookedTransformer lengthens tables that it then keeps.
_ROTARY_ROWS = 2048


def measure(workload: dict[str, Any]) -> dict[str, int]:
    """True bytes by kind (`accuracy_cases.KINDS`): distinct storages of the cache, peak of live tensors.

    TransformerLens and transformers run whole models on torch's meta device, which executes the library's own Python
    and allocates nothing. SAELens really trains, watched by the CPU allocator's own log.
    """
    if workload["task"] == "sae_training":
        return {"sae_peak": _sae_peak(workload)}
    spec = resolve(workload["model"])
    if workload.get("library") == "transformers":
        return {"hf_peak": _transformers_peak(spec, workload)}
    return _hooked(spec, workload)


@lru_cache(maxsize=1)
def _hooked_model(name: str, dtype: str) -> Any:
    return importlib.import_module("builders").hooked_transformer(resolve(name), "meta", dtype)


def _hooked(spec: ModelSpec, workload: dict[str, Any]) -> dict[str, int]:
    import torch

    builders, meters = importlib.import_module("builders"), importlib.import_module("meters")
    if workload["seq_len"] > _ROTARY_ROWS:
        _hooked_model.cache_clear()
    model = _hooked_model(spec.name, workload["dtype"])
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long, device="meta")
    patterns, layers = workload.get("names_filter"), workload.get("layers")
    within = tuple(f"blocks.{layer}." for layer in layers) if layers else ("",)

    def keep(name: str) -> bool:
        return name.startswith(within) and (patterns is None or any(fnmatchcase(name, p) for p in patterns))

    def run() -> Any:
        if workload["task"] == "inference":
            return model(tokens), {}
        return model.run_with_cache(tokens, names_filter=keep)

    with builders.quiet(), torch.no_grad():
        if workload["seq_len"] > _ROTARY_ROWS:
            model(tokens)
        held = [*builders.held_tensors(model), tokens]
        measured = meters.measure_peak(run, held)
    peak = meters.distinct_bytes(held) + measured.bytes
    if workload["task"] == "inference":
        return {"tl_peak": peak}
    cached = meters.distinct_bytes(measured.result[1].values())
    return {"cache" if patterns is None else "filtered": cached, "cache_peak": peak}


def _transformers_peak(spec: ModelSpec, workload: dict[str, Any]) -> int:
    import torch

    builders, meters = importlib.import_module("builders"), importlib.import_module("meters")
    # On the meta device sdpa would compute the scores that no real device computes.
    as_on_a_real_device = importlib.import_module("test_transformers_inference").as_on_a_real_device
    model = builders.hf_model(spec, "meta", workload["dtype"], workload.get("attention", "sdpa"))
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long, device="meta")
    held = [*builders.held_tensors(model), tokens]
    use_cache = workload.get("kv_cache", True)
    with builders.quiet(), torch.no_grad(), as_on_a_real_device(True):
        measured = meters.measure_peak(lambda: model(tokens, use_cache=use_cache), held)
    return meters.distinct_bytes(held) + measured.bytes


def _sae_peak(workload: dict[str, Any]) -> int:
    import torch

    builders = importlib.import_module("builders")
    with warnings.catch_warnings(), builders.quiet():
        warnings.simplefilter("ignore")
        runs = importlib.import_module("test_sae_training")
        torch.manual_seed(0)
        d_in, batch = workload["d_in"], workload["train_batch_size_tokens"]
        sae = runs.build_sae(workload["architecture"], d_in, workload["d_sae"], workload["k"])
        if "model" not in workload:
            # the second step has Adam's state and the first one's output
            return runs.fit_peak(sae, runs.fresh_batches(batch, d_in), batch, 2, [])
        model = builders.hooked_transformer(resolve(workload["model"]), "cpu", "float32", folded=False)
        context, n_batches, prompts = (
            workload[field] for field in ("context_size", "n_batches_in_buffer", "store_batch_size_prompts")
        )
        steps = _steps_past_the_largest_refill(n_batches * context, batch, prompts * context)
        store = runs.activations_store(model, d_in, context, n_batches, prompts, batch, workload["hook_name"])
        return runs.fit_peak(sae, store, batch, steps, builders.held_tensors(model))


def _steps_past_the_largest_refill(buffer: int, batch: int, per_model_batch: int) -> int:
    """SAE steps until the refill of the store that holds the most tokens is over, and one more. Sizes in tokens."""
    kept = int(buffer * MIXING_FRACTION)
    every = list(refills(buffer, batch, per_model_batch))
    largest = max(range(len(every)), key=lambda n: every[n].before + every[n].after)
    return 1 + sum(max(1, (refill.before - kept) // batch) for refill in every[: largest + 1])
