"""Changes that make a forward pass, with or without a cache, need less."""

from __future__ import annotations

from typing import Any

from ..models.resolve import resolve
from ..units import gib
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .answers import Change
from .attempt import HALF_DETAIL, Attempt, half


def for_cache(attempt: Attempt, workload: ActivationCache) -> list[Change]:
    return [
        _selective(attempt, workload),
        _smaller_batch(attempt, workload),
        _cache_on_cpu(attempt, workload),
        _half_precision(attempt, workload),
        _no_grad(attempt, workload),
    ]


def for_inference(attempt: Attempt, workload: Inference) -> list[Change]:
    return [
        attempt.no("selective_caching", "nothing is cached in a plain forward pass"),
        _smaller_batch(attempt, workload),
        _offload_weights(attempt, workload),
        _half_precision(attempt, workload),
        attempt.no("gradient_checkpointing", "no gradients are kept in a forward pass without them"),
    ]


def _selective(attempt: Attempt, workload: ActivationCache) -> Change:
    if workload.library in ("transformers", "nnsight"):
        return attempt.no("selective_caching", "only the modules that are named are kept")
    if workload.names_filter is None:
        patch: dict[str, Any] = {"names_filter": ["*hook_resid_post"]}
        keep = "the residual stream"
        test = 'name.endswith("hook_resid_post")'
        if workload.layers is not None:
            test += f" and name.startswith({_prefixes(workload.layers)})"
        return attempt.change(
            "selective_caching", f"cache only {keep}, if that is all you read (names_filter)", patch, "equivalent",
            detail="what is kept is the same to the bit, other hooks are not recorded; name the hooks that you read",
            cost="none",
            code=f"logits, cache = model.run_with_cache(tokens, names_filter=lambda name: {test})",
        )  # fmt: skip
    last = max(workload.layers, default=None) if workload.layers and min(workload.layers) >= 0 else None
    if workload.stop_at_layer is None and last is not None:
        return attempt.change(
            "selective_caching", f"stop after block {last} (stop_at_layer)", {"stop_at_layer": last + 1}, "equivalent",
            detail="the kept activations are the same to the bit; there are no logits",
            cost="none: later blocks and the unembedding are not computed",
            code=f"_, cache = model.run_with_cache(tokens, names_filter=..., stop_at_layer={last + 1})",
        )  # fmt: skip
    return attempt.no("selective_caching", "the cache is filtered already")


def _prefixes(layers: list[int]) -> str:
    return repr(tuple(f"blocks.{layer}." for layer in layers))


def _smaller_batch(attempt: Attempt, workload: ActivationCache | Inference) -> Change:
    cached = not isinstance(workload, Inference) and workload.library.startswith("transformer_")
    call = "model.run_with_cache(batch, ...)" if cached else "model(batch)"
    return attempt.smaller_batch(
        workload.batch_size,
        detail="sequences do not see each other; keep only what you need of each batch",
        code=f"result = {call}  # reduce or move to CPU, then del",
        stuck="the batch is 1 already; a shorter seq_len would change the experiment",
    )


def _cache_on_cpu(attempt: Attempt, workload: ActivationCache) -> Change:
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the cache to")
    if workload.cache_device == "cpu":
        return attempt.no("offloading", "the cache is on the CPU already")
    patch = {"cache_device": "cpu"}
    ram = attempt.patched(patch).host_bytes
    return attempt.change(
        "offloading", f"cache on the CPU ({gib(ram)} of RAM)", patch, "equivalent",
        detail="the values are the same, in RAM",
        cost="every cached activation crosses the bus: several times slower",
        code='logits, cache = model.run_with_cache(tokens, device="cpu")'
        if workload.library.startswith("transformer_")
        else "kept[name] = output.detach().cpu()  # in the hook, or .cpu().save() in an nnsight trace",
    )  # fmt: skip


def _half_precision(attempt: Attempt, workload: ActivationCache | Inference) -> Change:
    if DTYPE_BYTES[workload.dtype] < 4:
        return attempt.no("mixed_precision", f"it runs in {workload.dtype} already")
    dtype = half(attempt.place)
    spec = resolve(workload.model)
    name = spec.hf_id or spec.name
    match workload.library:
        case "transformers":
            code = f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype=torch.{dtype})'
        case "nnsight":
            code = f'model = LanguageModel("{name}", dtype=torch.{dtype}, device_map="auto")'
        case "transformer_bridge":
            code = f'model = TransformerBridge.boot_transformers("{name}", dtype=torch.{dtype})'
        case "transformer_lens":
            loader = "from_pretrained_no_processing" if workload.no_processing else "from_pretrained"
            code = f'model = HookedTransformer.{loader}("{spec.tl_name or spec.name}", dtype=torch.{dtype})'
    return attempt.change(
        "mixed_precision", f"{dtype} weights and activations", {"dtype": dtype}, "numerically_different",
        detail=HALF_DETAIL, cost="none, usually faster on a GPU", code=code,
    )  # fmt: skip


def _no_grad(attempt: Attempt, workload: ActivationCache) -> Change:
    if not workload.with_gradients:
        return attempt.no("gradient_checkpointing", "no gradients are kept (torch.no_grad)")
    title = "run under torch.no_grad()"
    detail = "only a backward pass from the outputs needs the graph"
    match workload.library:
        case "transformers":
            code = "with torch.no_grad():\n    output = model(input_ids)"
        case "nnsight":
            code = "with torch.no_grad(), model.trace(prompts):\n    ..."
        case _:
            title += " (HookedTransformer has no checkpointing)"
            detail = "the cache is detached anyway; only a backward pass from the logits needs the graph"
            code = "with torch.no_grad():\n    logits, cache = model.run_with_cache(tokens)"
    return attempt.change(
        "gradient_checkpointing", title, {"with_gradients": False}, "equivalent", detail=detail, cost="none", code=code
    )


def _offload_weights(attempt: Attempt, workload: Inference) -> Change:
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the weights to")
    if workload.library != "transformers":
        return attempt.no(
            "offloading", "HookedTransformer keeps all its weights on the device; transformers can offload"
        )
    from ..memory.card import device

    spec = resolve(workload.model)
    held = {c.name: c.bytes_at_peak for c in attempt.before.components}
    matrix = DTYPE_BYTES[workload.dtype] * max(
        spec.d_vocab * spec.d_model, spec.d_model * max(spec.d_mlp, spec.q_width)
    )
    tensors = attempt.before.peak.tensors - held.get("weights", 0) + 2 * matrix
    after = device.device_bytes(tensors, attempt.place.compute_capability)
    if after >= attempt.now:
        return attempt.no("offloading", "the weights are not what takes the memory")
    free = attempt.place.free_bytes
    high = device.device_range(tensors, attempt.place.compute_capability)[1]
    return Change(
        strategy="offloading", title="weights in RAM, one layer at a time on the card (rough)",
        applies=True, peak_before=attempt.now, peak_after=after, host_bytes=held.get("weights", 0),
        saving=attempt.now - after,
        fits=None if free is None else high <= free, effect="equivalent",
        effect_detail="same weights, same arithmetic; counted with two of the largest matrices on the card",
        cost="all weights cross the bus in every pass: 10 to 50 times slower",
        code="from accelerate import cpu_offload\ncpu_offload(model, execution_device=0)",
    )  # fmt: skip
