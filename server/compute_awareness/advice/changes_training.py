"""Changes that make training, patching and generation need less."""

from __future__ import annotations

from ..workload import DTYPE_BYTES, Generation, Patching, Training
from .answers import Change
from .attempt import Attempt
from .changes_forward import HOOKED, half_precision


def for_training(attempt: Attempt, workload: Training) -> list[Change]:
    return [
        attempt.no("selective_caching", "nothing is cached in training"),
        _accumulate(attempt, workload),
        attempt.no("offloading", "optimizer state in RAM needs DeepSpeed or FSDP, which is not estimated"),
        _small_optimizer(attempt, workload),
        _half_weights(attempt, workload),
        _checkpointing(attempt, workload),
    ]


def for_patching(attempt: Attempt, workload: Patching) -> list[Change]:
    return [
        _cache_less(attempt, workload),
        attempt.smaller_batch(workload.batch_size, detail="the effects of prompts are averaged anyway"),
        attempt.no("offloading", "the clean cache is read in every patched pass"),
        half_precision(attempt, workload),
        _no_parameter_gradients(attempt, workload),
    ]


def for_generation(attempt: Attempt, workload: Generation) -> list[Change]:
    return [
        attempt.no("selective_caching", "nothing is cached but keys and values"),
        attempt.smaller_batch(workload.batch_size, detail="sequences do not see each other"),
        attempt.no("offloading", "the weights are read for every token: moving them would dominate"),
        half_precision(attempt, workload),
        attempt.no("gradient_checkpointing", "no gradients are kept in generation"),
    ]


def _no_parameter_gradients(attempt: Attempt, workload: Patching) -> Change:
    if workload.method == "activation_patching":
        return attempt.no("gradient_checkpointing", "no gradients are kept (torch.no_grad)")
    if not workload.parameter_gradients:
        return attempt.no(
            "gradient_checkpointing",
            f"only activations have gradients; {HOOKED[workload.library]} has no checkpointing",
        )
    return attempt.change(
        "gradient_checkpointing", "no gradients of the weights (requires_grad_(False))", {"parameter_gradients": False},
        "equivalent",
        detail="only the gradients of activations are read; they are the same",
        cost="none, a little faster",
    )  # fmt: skip


def _accumulate(attempt: Attempt, workload: Training) -> Change:
    # Gradients that are added up live through the passes, so the batch is sought with them there.
    added = {"gradient_accumulation": max(2, workload.gradient_accumulation)}
    batch = attempt.largest("batch_size", workload.batch_size, **added)
    if batch is None:
        return attempt.no("smaller_batch", "the batch is 1 already; a shorter seq_len would change the experiment")
    steps = -(-workload.batch_size // batch)
    patch = {"batch_size": batch, "gradient_accumulation": workload.gradient_accumulation * steps}
    return attempt.change(
        "smaller_batch", f"batch {batch} with gradients of {steps} passes added up", patch, "equivalent",
        detail="the same gradient up to rounding, where the loss is averaged over equal numbers of tokens",
        cost=f"{steps} passes per step",
    )  # fmt: skip


def _small_optimizer(attempt: Attempt, workload: Training) -> Change:
    if workload.optimizer not in ("adam", "adamw"):
        return attempt.no("mixed_precision", f"the state of {workload.optimizer} is small already")
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("mixed_precision", "bitsandbytes' 8-bit optimizers are made for CUDA")
    return attempt.change(
        "mixed_precision", "8-bit optimizer state (bitsandbytes)", {"optimizer": "adamw_8bit"}, "numerically_different",
        detail="Adam's moments are kept in 8 bits with a scale per 256 values",
        cost="little",
    )  # fmt: skip


def _half_weights(attempt: Attempt, workload: Training) -> Change:
    if DTYPE_BYTES[workload.dtype] < 4:
        return attempt.no("mixed_precision", f"it trains in {workload.dtype} already")
    if not attempt.place.has_bfloat16:
        return attempt.no("mixed_precision", "the card has no bfloat16, and float16 weights do not train stably")
    return attempt.change(
        "mixed_precision", "bfloat16 weights, gradients and moments", {"dtype": "bfloat16"}, "numerically_different",
        detail="updates smaller than about 1/256 of a weight are lost; autocast keeps float32 weights but saves less",
        cost="none, usually faster",
    )  # fmt: skip


def _checkpointing(attempt: Attempt, workload: Training) -> Change:
    if workload.library != "transformers":
        return attempt.no(
            "gradient_checkpointing", f"{HOOKED[workload.library]} has no checkpointing; transformers has"
        )
    if workload.gradient_checkpointing:
        return attempt.no("gradient_checkpointing", "activations are recomputed already")
    return attempt.change(
        "gradient_checkpointing", "recompute activations in the backward pass", {"gradient_checkpointing": True},
        "equivalent",
        detail="the same gradients",
        cost="about a third more time",
        slowdown=1.33,
    )  # fmt: skip


def _cache_less(attempt: Attempt, workload: Patching) -> Change:
    only_read = attempt.only_read(workload)
    if only_read is not None and (only_read.applies or workload.names_filter is None):
        return only_read
    if workload.names_filter is not None:
        return attempt.no("selective_caching", "the cache is filtered already")
    if workload.method not in ("activation_patching", "attribution_patching"):
        return attempt.no("selective_caching", "edge attribution reads the input of every edge")
    return attempt.change(
        "selective_caching", "cache only the residual stream, if that is all you patch (names_filter)",
        {"names_filter": ["*hook_resid_pre"]}, "equivalent",
        detail="what is kept is the same to the bit; name the hooks that you patch (reads)",
        cost="none",
    )  # fmt: skip
