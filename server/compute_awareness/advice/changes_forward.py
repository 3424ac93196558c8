"""Changes that make a forward pass, with or without a cache, need less."""

from __future__ import annotations

import re
from typing import Any

from ..memory.huggingface.outputs import layout
from ..models.resolve import resolve
from ..units import gib
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .answers import Change
from .attempt import HALF_DETAIL, Attempt, faster, half
from .changes_offload import offload_weights

_BLOCK = re.compile(r"blocks\.(\d{1,6})\.")


def for_cache(attempt: Attempt, workload: ActivationCache) -> list[Change]:
    return [
        _selective(attempt, workload),
        _smaller_batch(attempt, workload),
        _cache_on_cpu(attempt, workload),
        half_precision(attempt, workload),
        _no_grad(attempt, workload),
    ]


def for_inference(attempt: Attempt, workload: Inference) -> list[Change]:
    return [
        _no_kv_cache(attempt, workload),
        _smaller_batch(attempt, workload),
        _states_on_cpu(attempt, workload) if workload.output_hidden_states else offload_weights(attempt, workload),
        half_precision(attempt, workload),
        attempt.no("gradient_checkpointing", "no gradients are kept in a forward pass without them"),
    ]


def _selective(attempt: Attempt, workload: ActivationCache) -> Change:
    only_read = attempt.only_read(workload)
    if only_read is not None and (only_read.applies or workload.names_filter is None):
        return only_read
    if workload.library in ("transformers", "nnsight"):
        return attempt.no("selective_caching", "only the modules that are named are kept")
    if workload.names_filter is None:
        return attempt.change(
            "selective_caching", "cache only the residual stream, if that is all you read (names_filter)",
            {"names_filter": ["*hook_resid_post"]}, "equivalent",
            detail="what is kept is the same to the bit, other hooks are not recorded; name the hooks that you read "
            "(reads)",
            cost="none",
        )  # fmt: skip
    last = _last_block(workload)
    if workload.stop_at_layer is None and last is not None:
        return attempt.change(
            "selective_caching", f"stop after block {last} (stop_at_layer)", {"stop_at_layer": last + 1}, "equivalent",
            detail="the kept activations are the same to the bit; there are no logits",
            cost="none: later blocks and the unembedding are not computed",
        )  # fmt: skip
    return attempt.no("selective_caching", "the cache is filtered already")


def _last_block(workload: ActivationCache) -> int | None:
    """The last block that the filter keeps anything of; None where it may be any."""
    if workload.layers:
        n_layers = resolve(workload.model).n_layers
        return max(layer % n_layers for layer in workload.layers)
    found = [_BLOCK.match(pattern) for pattern in workload.names_filter or []]
    blocks = [int(match.group(1)) for match in found if match]
    return max(blocks) if blocks and len(blocks) == len(found) else None


def _no_kv_cache(attempt: Attempt, workload: Inference) -> Change:
    if workload.library != "transformers":
        return attempt.no("selective_caching", "nothing is cached in a plain forward pass")
    if workload.kv_cache is False:
        return attempt.no("selective_caching", "the pass keeps no key/value cache (use_cache=False)")
    return attempt.change(
        "selective_caching", "no key/value cache (use_cache=False)", {"kv_cache": False}, "equivalent",
        detail="only generation reads it; logits are the same", cost="none",
    )  # fmt: skip


def _smaller_batch(attempt: Attempt, workload: ActivationCache | Inference) -> Change:
    return attempt.smaller_batch(
        workload.batch_size,
        detail="sequences do not see each other; keep only what you need of each batch",
        stuck="the batch is 1 already; a shorter seq_len would change the experiment",
    )


def _cache_on_cpu(attempt: Attempt, workload: ActivationCache) -> Change:
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the cache to")
    if workload.cache_device == "cpu":
        return attempt.no("offloading", "the cache is on the CPU already")
    patch = {"cache_device": "cpu"}
    return attempt.change(
        "offloading", f"cache on the CPU ({gib(attempt.patched(patch).host_bytes)} of RAM)", patch, "equivalent",
        detail="the values are the same, in RAM",
        cost="every cached activation crosses the bus: several times slower",
        slowdown=4,
    )  # fmt: skip


def _states_on_cpu(attempt: Attempt, workload: Inference) -> Change:
    """What output_hidden_states returns, taken by hooks and moved to RAM layer by layer."""
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the hidden states to")
    if workload.output_attentions:
        return attempt.no("offloading", "hooks that move attention patterns to RAM are not counted yet")
    known = layout(resolve(workload.model))
    ends = [path for path, role in known.ends.items() if role == "norm"]
    patch = {
        "task": "activation_cache", "names_filter": [f"{known.layers}.*", *ends], "cache_device": "cpu",
        "with_gradients": False,
    }  # fmt: skip
    return attempt.change(
        "offloading", "hidden states to RAM, layer by layer, by hooks in place of output_hidden_states", patch,
        "equivalent",
        detail="the values are the same, in RAM; hidden_states[i + 1] is kept under the path of layer i, the last one "
        "is the final norm's output",
        cost="every hidden state crosses the bus: slower by up to several times",
        slowdown=2,
    )  # fmt: skip


def half_precision(attempt: Attempt, workload: Any) -> Change:
    """16-bit weights and activations where nothing is trained."""
    if DTYPE_BYTES[workload.dtype] < 4:
        return attempt.no("mixed_precision", f"it runs in {workload.dtype} already")
    dtype = half(attempt.place)
    return attempt.change(
        "mixed_precision", f"{dtype} weights and activations", {"dtype": dtype}, "numerically_different",
        detail=HALF_DETAIL, cost=faster(attempt.place),
    )  # fmt: skip


def _no_grad(attempt: Attempt, workload: ActivationCache) -> Change:
    if not workload.with_gradients:
        return attempt.no("gradient_checkpointing", "no gradients are kept (torch.no_grad)")
    title = "run under torch.no_grad()"
    detail = "only a backward pass from the outputs needs the graph"
    if workload.library.startswith("transformer_"):
        title += f" ({HOOKED[workload.library]} has no checkpointing)"
        detail = "the cache is detached anyway; only a backward pass from the logits needs the graph"
    return attempt.change(
        "gradient_checkpointing", title, {"with_gradients": False}, "equivalent", detail=detail, cost="none"
    )


HOOKED = {"transformer_lens": "HookedTransformer", "transformer_bridge": "TransformerBridge"}
"""TransformerLens' classes, by the name of the library in a workload."""
