"""Markdown tables, figures and workloads in words, for docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accuracy_summary import error


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, cells not padded: so a changed figure changes one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(figure: int, truth: int) -> str:
    """The error of a figure: `exact`, in bytes where it would round to 0.00 %, else in percent."""
    if figure == truth:
        return "exact"
    value = error(figure, truth)
    if abs(value) < 0.005:
        return f"{figure - truth:+,} B"
    return f"{value:+.2f} %" if abs(value) < 1 else f"{value:+.0f} %"


def words(workload: dict[str, Any]) -> str:
    """A workload in a few words, everything that decides its memory said."""
    match workload["task"]:
        case "sae_training":
            return _sae_training(workload)
        case "sae_inference":
            return _sae_inference(workload)
    text = f"{_model(workload)}, {workload['batch_size']} x {workload['seq_len']}, {workload.get('dtype', 'float32')}"
    library = {"transformer_bridge": "TransformerBridge", "transformers": "transformers"}.get(
        workload.get("library", ""), "HookedTransformer"
    )
    compatible = ", compatibility mode" if workload.get("compatibility_mode") else ""
    match workload["task"]:
        case "activation_cache":
            filters = ", ".join(f"`{pattern}`" for pattern in workload.get("names_filter", ()))
            layers = f" of blocks {', '.join(map(str, workload['layers']))}" if "layers" in workload else ""
            bridge = " (TransformerBridge)" if library == "TransformerBridge" else ""
            return f"{text}{bridge}{compatible}, {f'{filters}{layers}' if filters else 'full cache'}"
        case "generation":
            text += f", {library}, {workload['new_tokens']} new tokens"
        case "training":
            text += f", {library}, {workload.get('optimizer', 'adamw')}"
            text += f", LoRA r {workload['lora_rank']}" if workload.get("trainable") == "lora" else ""
            text += ", gradient checkpointing" if workload.get("gradient_checkpointing") else ""
            if workload.get("gradient_accumulation", 1) > 1:
                text += f", {workload['gradient_accumulation']} batches a step"
        case "patching":
            filters = ", ".join(f"`{pattern}`" for pattern in workload.get("names_filter", ())) or "every hook"
            return f"{text}, {workload['method'].replace('_', ' ')}, {filters}"
    if "attention" in workload:
        text += f", {workload['attention']}"
    return f"{text}{compatible}" + (", no key/value cache" if workload.get("kv_cache") is False else "")


def _model(workload: dict[str, Any]) -> str:
    model = workload["model"]
    return model if isinstance(model, str) else model["name"]


def _sae_training(workload: dict[str, Any]) -> str:
    d_in = workload["d_in"]
    d_sae = workload.get("d_sae") or d_in * workload["expansion_factor"]
    text = f"{workload['architecture']} SAE {d_in} -> {d_sae}, {workload['train_batch_size_tokens']} tokens a step"
    text += f", {workload['dtype']}" if "dtype" in workload else ""
    text += ", autocast" if workload.get("autocast") else ""
    if "model" not in workload:
        return text
    dtype = f" in {workload['model_dtype']}" if "model_dtype" in workload else ""
    text += f", with {_model(workload)}{dtype}"
    if "context_size" in workload:
        text += (
            f", store {workload['n_batches_in_buffer']} x {workload['context_size']} tokens, "
            f"{workload['store_batch_size_prompts']} prompts"
        )
    return text


def _sae_inference(workload: dict[str, Any]) -> str:
    text = f"{workload['architecture']} SAE, {workload['d_sae']} features, on {_model(workload)}, "
    text += f"{workload['batch_size']} x {workload['seq_len']}, "
    if not workload.get("splice"):
        many = f" of {workload['n_saes']} SAEs" if workload.get("n_saes", 1) > 1 else ""
        return f"{text}`run_with_cache` and `encode`{many}" + (", stopped" if workload.get("stop_after_hook") else "")
    text += "spliced in" + (", with error term" if workload.get("use_error_term") else "")
    return text + ("" if workload.get("keep_features", True) else ", features not kept")
