"""The rules of thumb beside the package's own figures, as tables for docs/accuracy.md. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rough
from accuracy_words import percent, table, words

from compute_awareness.advice.answers import GpuChoice
from compute_awareness.advice.gpus import find_gpu
from compute_awareness.estimator import estimate
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.weights import hf_params, tl_params
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.preflight import preflight, recommend
from compute_awareness.units import gib
from compute_awareness.workload import parse_workload

CACHE_MODELS = ("gpt2", "gpt2-xl", "pythia-410m", "pythia-2.8b", "llama-2-7b", "mistral-7b")
CACHE_LENGTHS = (128, 512, 1024, 2048)
HOOKS_OF = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
SAE_SHAPES = ((768, 8, 4096), (768, 32, 4096), (2304, 8, 4096), (4096, 8, 4096), (768, 8, 256))
SAE_MODEL = {"model": "gpt2", "hook_name": "blocks.6.hook_resid_pre"}


def _sae(d_in: int, factor: int, tokens: int, architecture: str = "standard", **more: Any) -> dict[str, Any]:
    return {
        "task": "sae_training", "architecture": architecture, "d_in": d_in, "expansion_factor": factor,
        "train_batch_size_tokens": tokens,
    } | more  # fmt: skip


def _cache(model: str, batch_size: int, seq_len: int, dtype: str = "float32") -> dict[str, Any]:
    return {
        "task": "activation_cache", "model": model, "batch_size": batch_size, "seq_len": seq_len, "dtype": dtype
    }  # fmt: skip


def _forward(model: str, batch_size: int, seq_len: int, dtype: str = "float32") -> dict[str, Any]:
    return _cache(model, batch_size, seq_len, dtype) | {"task": "inference"}


# A light and a heavy workload that each row of the guide covers by its words.
GUIDE_WORKLOADS: tuple[tuple[dict[str, Any], ...], ...] = (
    (_forward("gpt2", 8, 1024), _cache("gpt2", 1, 1024), _cache("gpt2", 16, 1024)),
    (_forward("pythia-2.8b", 1, 1024, "bfloat16"), _forward("pythia-2.8b", 1, 1024), _cache("pythia-2.8b", 1, 1024)),
    (_forward("llama-2-7b", 1, 2048, "bfloat16"), _forward("llama-2-7b", 1, 2048), _cache("llama-2-7b", 1, 2048)),
    (_sae(768, 8, 4096), _sae(768, 8, 4096, **SAE_MODEL)),
    (_sae(768, 32, 4096), _sae(768, 32, 4096, "gated", **SAE_MODEL)),
    (
        _sae(4096, 8, 4096),
        _sae(4096, 8, 4096, model="llama-2-7b", hook_name="blocks.16.hook_resid_pre", model_dtype="bfloat16"),
    ),
    (_cache("gpt2", 1, 1024), _cache("gpt2", 16, 1024), _cache("pythia-2.8b", 1, 256), _cache("pythia-2.8b", 4, 1024)),
)


def parts() -> dict[str, str]:
    """The tables by the name of their markers."""
    return {
        "models": _models(),
        "cache": _cache_lengths(),
        "cache-hooks": _cache_hooks(),
        "sae": _sae_shapes(),
        "sae-parts": _sae_parts(),
        "guide": _guide(),
    }


def _spec(name: str) -> ModelSpec:
    spec = find(name)
    if spec is None:
        raise LookupError(f"{name} is not in the catalogue")
    return spec


def _models() -> str:
    lines = []
    for row in rough.MODEL_TABLE:
        spec = _spec(row.name)
        theirs, hooked = hf_params(spec), tl_params(spec)
        said = int(row.float32_gb * rough.GUIDE_GB)
        lines.append(
            [
                row.label,
                f"{row.params / 1e9:g} B" if row.params >= 10**9 else f"{row.params / 1e6:g} M",
                f"~{row.float32_gb:g} / ~{row.half_gb:g}",
                f"{theirs:,}",
                f"{gib(4 * theirs)} / {gib(2 * theirs)}",
                f"{hooked:,}",
                f"{gib(4 * hooked)} / {gib(2 * hooked)}",
                f"{percent(said, 4 * theirs)} / {percent(said, 4 * hooked)}",
            ]
        )
    head = ["model", "rule: parameters", "rule: fp32 / half, GB", "transformers: parameters", "fp32 / half"]
    head += ["HookedTransformer: parameters", "fp32 / half", "rule in fp32 against transformers / HookedTransformer"]
    return table(head, lines)


def _rough_cache(spec: ModelSpec, workload: dict[str, Any]) -> dict[str, int]:
    return rough.cache_terms(
        spec.n_layers, spec.d_model, spec.n_heads, spec.d_head, workload["batch_size"], workload["seq_len"], 4
    )


def _component(result: Estimate, name: str) -> int:
    return sum(c.bytes for c in result.components if c.name == name and c.where == "device")


def _cache_lengths() -> str:
    lines = []
    for name in CACHE_MODELS:
        cells = [name]
        for seq_len in CACHE_LENGTHS:
            spec = _spec(name)
            if seq_len > spec.context_tl:
                cells.append(f"beyond {spec.context_tl}")
                continue
            workload = _cache(name, 1, seq_len)
            true = _component(estimate(parse_workload(workload)), "activation_cache")
            said = sum(_rough_cache(spec, workload).values())
            cells.append(f"{gib(said)}, {gib(true)}, {true / said:.2f} x")
        lines.append(cells)
    lengths = (f"{seq_len} tokens" for seq_len in CACHE_LENGTHS)
    return table(["one sequence, float32: rule, true, true / rule", *lengths], lines)


def _cache_hooks() -> str:
    result = estimate(parse_workload(HOOKS_OF))
    terms = _rough_cache(_spec(HOOKS_OF["model"]), HOOKS_OF)
    lines, forgotten = [], 0
    for hook in result.hooks:
        if not hook.bytes:
            lines.append([f"`{hook.hook}`", str(hook.count), "0: shares another hook's storage", ""])
            continue
        if hook.hook in rough.COUNTED_HOOKS:
            term, share = rough.COUNTED_HOOKS[hook.hook]
            lines.append([f"`{hook.hook}`", str(hook.count), f"{hook.bytes:,}", f"{terms[term] // share:,}"])
        else:
            forgotten += hook.bytes
            lines.append([f"`{hook.hook}`", str(hook.count), f"{hook.bytes:,}", "forgotten"])
    total, said = sum(hook.bytes for hook in result.hooks), sum(terms.values())
    lines.append(["all", str(sum(hook.count for hook in result.hooks)), f"{total:,}", f"{said:,}"])
    listed = table([f"hook of {words(HOOKS_OF)}", "how many", "true bytes", "rule, bytes"], lines)
    return f"{listed}\n\nForgotten: {gib(forgotten)} of {gib(total)}, {100 * forgotten / total:.0f} %."


def _sae_shapes() -> str:
    lines = []
    for d_in, factor, tokens in SAE_SHAPES:
        said = rough.sae_bytes(d_in, d_in * factor, tokens)
        cells = [f"{d_in} x {factor}, {tokens} tokens", gib(said)]
        for architecture in ("standard", "topk", "batchtopk", "jumprelu", "gated"):
            true = estimate(parse_workload(_sae(d_in, factor, tokens, architecture))).peak.tensors
            cells.append(f"{gib(true)} ({percent(said, true)})")
        if d_in == 768:
            alone = estimate(parse_workload(_sae(d_in, factor, tokens, "standard", **SAE_MODEL))).peak.tensors
            cells.append(f"{gib(alone)} ({percent(said, alone)})")
        else:
            cells.append("")
        lines.append(cells)
    head = ["d_in x expansion, step", "rule", "standard", "topk", "batchtopk", "jumprelu", "gated"]
    return table([*head, f"standard, with {SAE_MODEL['model']} and its store"], lines)


def _sae_parts() -> str:
    """One shape, component by component: the rule's P (parameters) and A (activations) beside what is alive."""
    d_in, factor, tokens = SAE_SHAPES[0]
    workload = _sae(d_in, factor, tokens, "standard", **SAE_MODEL)
    result = estimate(parse_workload(workload))
    params, activations = (4 * count for count in rough.sae_counts(d_in, d_in * factor, tokens))
    terms = {
        "sae_weights": ("P", params),
        "gradients": ("P", params),
        "optimizer_state": ("2 P", 2 * params),
        "sae_activations": ("A", activations),
        "temporaries": ("A, as gradients of activations", activations),
    }
    lines = []
    for part in result.components:
        if not part.bytes_at_peak:
            continue
        name, said = terms.get(part.name, ("forgotten", 0))
        lines.append([part.name.replace("_", " "), f"{part.bytes_at_peak:,}", name, f"{said:,}" if said else ""])
    said = rough.sae_bytes(d_in, d_in * factor, tokens)
    lines.append(["all", f"{result.peak.tensors:,}", "4 P + 2 A", f"{said:,}"])
    return table([f"{words(workload)}, at the peak", "true bytes", "rule", "rule, bytes"], lines)


_VERDICTS = {"fits": "fits", "tight": "tight", "does_not_fit": "does not fit"}


def _guide() -> str:
    lines = []
    for row, workloads in zip(rough.GPU_GUIDE, GUIDE_WORKLOADS, strict=True):
        for data in workloads:
            workload = parse_workload(data)
            found = recommend(workload)
            result, cards = found.estimate, found.advice.gpus
            cells = [row.task, words(data) + (", forward pass" if data["task"] == "inference" else "")]
            cells.append(gib(result.peak.device))
            if row.minimum_card is None or row.recommended_card is None:
                cells += [row.minimum, row.recommended]
                against = _against_half(result)
            else:
                verdicts = [preflight(workload, gpu=c).verdict.status for c in (row.minimum_card, row.recommended_card)]
                cells += [
                    f"{said}: {_VERDICTS[v]}" for said, v in zip((row.minimum, row.recommended), verdicts, strict=True)
                ]
                against = _against_minimum(verdicts[0], cards, find_gpu(row.minimum_card).gpu.usable_bytes)
            cells.append(" or ".join(_card(choice) for choice in cards[:2]) or "none of the table")
            lines.append([*cells, f"{against}: {_largest(result)}"])
    head = ["row of the guide", "workload", "needs", "guide: minimum", "guide: recommended"]
    return table([*head, "our smallest", "the guide, and what decides"], lines)


def _card(choice: GpuChoice) -> str:
    return f"{choice.count} x {choice.name}" if choice.count > 1 else choice.name


def _against_minimum(verdict: str, cards: Sequence[GpuChoice], usable: int) -> str:
    """How the guide's smallest card compares with ours. `usable` is bytes of the guide's."""
    if verdict != "fits":
        return "barely enough" if verdict == "tight" else "too small"
    return "larger than needed" if cards[0].usable_bytes < 0.9 * usable else "agrees"


def _against_half(result: Estimate) -> str:
    """The cache as a share of the weights, beside the guide's 50 %."""
    share = _component(result, "activation_cache") / _component(result, "weights")
    return f"{'too little' if share > 0.5 else 'enough'}, the cache is {100 * share:.0f} % of the weights"


def _largest(result: Estimate) -> str:
    """The two largest kinds of memory at the peak, with their share of the tensors."""
    largest = sorted((c for c in result.components if c.where == "device"), key=lambda c: -c.bytes_at_peak)[:2]
    return ", ".join(
        f"{part.name.replace('_', ' ')} {100 * part.bytes_at_peak / result.peak.tensors:.0f} %" for part in largest
    )
