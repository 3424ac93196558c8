"""What the real libraries hold, with the builders and meters of the truth tests. CPU and meta device only."""

from __future__ import annotations

import contextlib
import warnings
from functools import lru_cache
from typing import Any

import experiments
from accuracy_cases import kinds_of
from experiments import Experiment, truth_module

from compute_awareness.models.resolve import resolve


def measure(workload: dict[str, Any]) -> dict[str, int]:
    """True bytes by kind (`accuracy_cases.KINDS`): distinct storages of the cache, peak of live tensors.

    Passes of HookedTransformer and transformers run whole models on torch's meta device, which executes the library's
    own Python and allocates nothing. The rest really runs on the CPU: under a dispatch mode that follows every
    storage where there are no gradients, and watched by the allocator's own log where there are.
    """
    import torch

    torch.set_num_threads(1)  # scratch inside CPU kernels grows with the threads
    on_meta = workload["task"] in ("activation_cache", "inference") and workload.get("library") != "transformer_bridge"
    with warnings.catch_warnings(), truth_module("builders").quiet(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        if on_meta and workload.get("library") == "transformers":
            # On the meta device sdpa would compute the scores that no real device computes.
            stack.enter_context(truth_module("test_transformers_inference").as_on_a_real_device(True))
        if on_meta and workload.get("library") != "transformers":
            # kept from row to row: building a large one takes longer than running it
            stack.enter_context(_one_hooked_model(workload))
        made = experiments.experiment(workload, "meta" if on_meta else "cpu")
        return _measured(workload, made)


def _measured(workload: dict[str, Any], made: Experiment) -> dict[str, int]:
    import torch

    meters = truth_module("meters")
    with torch.set_grad_enabled(made.gradients):
        if made.warm_up is not None:
            made.warm_up()
        held = meters.distinct_bytes(made.held())
        if made.gradients:
            measured = meters.profiler_peak(made.run)
        else:
            measured = meters.measure_peak(made.run, iter(made.held()))
    peak = held + measured.bytes
    kinds = kinds_of(workload)
    kept = meters.distinct_bytes(measured.result[1].values()) if {"cache", "filtered"} & set(kinds) else 0
    return {kind: kept if kind in ("cache", "filtered") else peak for kind in kinds}


@contextlib.contextmanager
def _one_hooked_model(workload: dict[str, Any]) -> Any:
    """`experiments.hooked_model` answers with a model of the row before where it is the same and unchanged."""
    rotary = workload["seq_len"] > 2048
    original = experiments.hooked_model
    if rotary:
        _hooked_model.cache_clear()
    experiments.hooked_model = lambda filled, device: _hooked_model(resolve(filled["model"]).name, filled["dtype"])
    try:
        yield
    finally:
        experiments.hooked_model = original
        if rotary:  # it has longer tables now
            _hooked_model.cache_clear()


@lru_cache(maxsize=1)
def _hooked_model(name: str, dtype: str) -> Any:
    return truth_module("builders").hooked_transformer(resolve(name), "meta", dtype)
