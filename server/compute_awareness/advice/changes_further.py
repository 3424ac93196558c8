"""Changes beyond the five usual ones: worth trying where those are not enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import InputError
from ..memory.estimate import Estimate
from ..models.resolve import resolve
from ..workload import (
    DTYPE_BYTES,
    ActivationCache,
    AnyWorkload,
    Generation,
    Inference,
    Patching,
    SaeInference,
    SaeTraining,
    Training,
)
from .answers import Change
from .attempt import Attempt
from .changes_cards import several_cards
from .changes_offload import further_offloads
from .changes_sae import buffers, one_sae_at_a_time, refreshes, without_logits
from .place import Place, needed


def further(workload: AnyWorkload, before: Estimate, place: Place) -> list[Change]:
    """Several cards, one layer at a time, smaller buffers, quantised weights, autocast, adapters, shorter sequences:
    those of them that the workload and the place have, each estimated again."""
    attempt = Attempt(workload, before, place)
    return list(_tried(attempt, workload))


def _tried(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    yield from several_cards(attempt, workload)
    if isinstance(workload, ActivationCache | Inference) and workload.library == "transformers":
        yield from further_offloads(attempt, workload)
    if isinstance(workload, ActivationCache | Patching):
        yield from _one_layer(attempt, workload)
    if isinstance(workload, SaeTraining) and workload.model is not None:
        yield from buffers(attempt, workload) if workload.library == "sae_lens" else refreshes(attempt, workload)
    if isinstance(workload, SaeTraining | SaeInference):
        yield from one_sae_at_a_time(attempt, workload)
    if isinstance(workload, SaeInference):
        yield from without_logits(attempt, workload)
    if isinstance(workload, Training):
        yield from _autocast(attempt, workload)
        yield from _adapters(attempt, workload)
    if isinstance(workload, Inference | Generation) and workload.library == "transformers":
        yield from _quantised(attempt, workload)
    yield from _shorter(attempt, workload)


def _one_layer(attempt: Attempt, workload: ActivationCache | Patching) -> Iterator[Change]:
    """The same cache in as many passes as there are layers, each keeping one."""
    if workload.layers is not None or getattr(workload, "stop_at_layer", None) is not None:
        return
    if isinstance(workload, Patching) and workload.method not in ("activation_patching", "attribution_patching"):
        return
    depth = resolve(workload.model).n_layers
    if depth < 2 or any(re.search(r"\d", pattern) for pattern in workload.names_filter or workload.reads or []):
        return  # a filter that names blocks keeps more of one than of another
    patch: dict[str, Any] = {"layers": [_worst_layer(attempt, depth)]}
    cost, slowdown = f"{depth} passes instead of one", float(depth)
    if isinstance(workload, ActivationCache) and workload.library.startswith("transformer_"):
        patch = {"layers": [depth - 1], "stop_at_layer": depth}
        cost, slowdown = f"{depth} passes, each up to its layer: about {depth / 2:g} times as long", depth / 2
    if isinstance(workload, Patching):
        cost = f"the cached passes {depth} times instead of once"
        slowdown = float(depth) if workload.method == "attribution_patching" else 1.0
    yield attempt.change(
        "layer_by_layer", f"one layer at a time, in {depth} passes", patch, "equivalent",
        detail="the same activations of the blocks to the bit, those around them in a pass of their own; keep what you "
        "need of each layer before the next",
        cost=cost, slowdown=slowdown, by_layer=True,
    )  # fmt: skip


def _worst_layer(attempt: Attempt, depth: int) -> int:
    """The layer whose pass takes most: what is kept of the first is there while the others run, gradients of the last
    while backward reaches the first."""
    try:
        first, last = (needed(attempt.patched({"layers": [layer]}), attempt.place) for layer in (0, depth - 1))
    except InputError:
        return depth - 1
    return 0 if first > last else depth - 1


def _autocast(attempt: Attempt, workload: Training) -> Iterator[Change]:
    if workload.autocast is None and workload.dtype == "float32" and attempt.place.has_bfloat16:
        yield attempt.change(
            "mixed_precision", "bfloat16 autocast (weights stay float32)", {"autocast": "bfloat16"},
            "numerically_different",
            detail="matrix products in bfloat16; weights, gradients and moments keep float32",
            cost="none, usually faster",
        )  # fmt: skip


def _adapters(attempt: Attempt, workload: Training) -> Iterator[Change]:
    if workload.trainable == "all" and workload.library == "transformers":
        yield attempt.change(
            "low_rank", f"LoRA adapters of rank {workload.lora_rank} instead of all weights", {"trainable": "lora"},
            "different_experiment",
            detail="only small adapters are trained, the model's own weights stay as they are",
            cost="none, usually faster",
        )  # fmt: skip


def _quantised(attempt: Attempt, workload: Inference | Generation) -> Iterator[Change]:
    if workload.quantization is not None or attempt.place.kind in ("cpu", "mps"):
        return  # bitsandbytes is made for CUDA
    for bits, slowdown, cost in ((8, 2.0, "usually slower, up to several times with few tokens"), (4, 1.5, "slower")):
        patch: dict[str, Any] = {"quantization": f"bitsandbytes_{bits}bit"}
        if DTYPE_BYTES[workload.dtype] == 4:
            patch["dtype"] = "bfloat16" if attempt.place.has_bfloat16 else "float16"
        yield attempt.change(
            "quantization", f"{bits}-bit weights (bitsandbytes)", patch, "different_experiment",
            detail=f"the model itself is another: its weights are rounded to {bits} bits",
            cost=cost, slowdown=slowdown,
        )  # fmt: skip


def _shorter(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    field = "seq_len"
    if isinstance(workload, SaeTraining):
        field = "ctx_len" if workload.library == "dictionary_learning" else "context_size"
    now = getattr(workload, field, None)
    if now is None or now < 2 or workload.model is None:
        return
    most = attempt.largest(field, now)
    if most is None:
        return
    yield attempt.change(
        "shorter_sequences", f"{field} {most} instead of {now}", {field: most}, "different_experiment",
        detail="tokens see less context", cost="none",
    )  # fmt: skip
