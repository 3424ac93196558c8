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
    if workload["task"] == "sae_training":
        d_in = workload["d_in"]
        d_sae = workload.get("d_sae") or d_in * workload["expansion_factor"]
        text = f"{workload['architecture']} SAE {d_in} -> {d_sae}, {workload['train_batch_size_tokens']} tokens a step"
        if "model" not in workload:
            return text
        model = workload["model"]
        dtype = f" in {workload['model_dtype']}" if "model_dtype" in workload else ""
        text += f", with {model if isinstance(model, str) else model['name']}{dtype}"
        if "context_size" in workload:
            text += (
                f", store {workload['n_batches_in_buffer']} x {workload['context_size']} tokens, "
                f"{workload['store_batch_size_prompts']} prompts"
            )
        return text
    text = f"{workload['model']}, {workload['batch_size']} x {workload['seq_len']}, {workload.get('dtype', 'float32')}"
    if workload["task"] == "activation_cache":
        filters = ", ".join(f"`{pattern}`" for pattern in workload.get("names_filter", ()))
        layers = f" of blocks {', '.join(map(str, workload['layers']))}" if "layers" in workload else ""
        return f"{text}, {filters}{layers}" if filters else f"{text}, full cache"
    if "attention" in workload:
        text += f", {workload['attention']}"
    return f"{text}, no key/value cache" if workload.get("kv_cache") is False else text
