"""Libraries that a task is not estimated for: why, and what to ask instead."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

_HOOKS = (
    "patching is written by hand there: estimate its cache (activation_cache), and a patched pass takes no more than "
    "an inference; or patch with transformer_lens or transformer_bridge"
)
_SAES_RUN = "an SAE runs in task sae_inference (splice puts it into the model's pass); alone the model is one of"
_INSTEAD: dict[str, dict[str, str]] = {
    "inference": {
        "sae_lens": f"{_SAES_RUN} transformer_lens, transformer_bridge, transformers, nnsight",
        "dictionary_learning": "it runs a language model through nnsight: give library nnsight",
    },
    "activation_cache": {
        "sae_lens": f"{_SAES_RUN} transformer_lens, transformer_bridge, transformers, nnsight",
        "dictionary_learning": "it takes activations through nnsight: give library nnsight",
    },
    "generation": {
        "nnsight": "its generate is transformers' own: give library transformers, and add what the trace saves",
        "sae_lens": "it generates with its HookedTransformer: give library transformer_lens, and add the SAE "
        "(sae_inference)",
        "dictionary_learning": "it generates no text: give library transformers",
    },
    "training": {
        "nnsight": "the model that it wraps is trained as transformers trains it: give library transformers",
        "sae_lens": "it trains SAEs: that is task sae_training",
        "dictionary_learning": "it trains SAEs: that is task sae_training",
    },
    "patching": {
        "transformers": _HOOKS,
        "nnsight": _HOOKS,
        "sae_lens": "features are patched in a HookedTransformer: give library transformer_lens, and add the SAE "
        "(sae_inference with splice)",
        "dictionary_learning": _HOOKS,
    },
    "sae_training": dict.fromkeys(
        ("transformer_lens", "transformer_bridge", "transformers", "nnsight"),
        "it trains no SAEs: give library sae_lens or dictionary_learning",
    ),
    "sae_inference": {
        **dict.fromkeys(
            ("transformer_lens", "transformer_bridge", "transformers", "nnsight"),
            "it has no SAEs: give library sae_lens (its SAEs read HookedTransformer's hooks)",
        ),
        "dictionary_learning": "using its SAEs was not compared yet, training them was (sae_training); library "
        "sae_lens has the same shapes",
    },
}


def of_task(task: str) -> BeforeValidator:
    """The validator of a task's `library`: says of one that the task has not why, and what to ask instead."""

    def known(value: Any) -> Any:
        why = _INSTEAD[task].get(value) if isinstance(value, str) else None
        if why is not None:
            raise ValueError(f"{value!r} is not one of task {task}: {why}")
        return value

    return BeforeValidator(known)
