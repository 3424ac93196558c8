"""Which linear layers of a transformers model peft's LoRA adapts."""

from __future__ import annotations

from ...errors import InputError, nearest
from ...models.spec import ModelSpec
from .training_parts import Lora

# TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING of peft 0.21 (utils/constants.py).
_Q_AND_V = frozenset({"q_proj", "v_proj"})
DEFAULT_TARGETS: dict[str, frozenset[str]] = {
    "GPT2LMHeadModel": frozenset({"c_attn"}),
    "GPTNeoXForCausalLM": frozenset({"query_key_value"}),
    "BloomForCausalLM": frozenset({"query_key_value"}),
    "PhiForCausalLM": frozenset({"q_proj", "v_proj", "fc1", "fc2"}),
    **dict.fromkeys(
        (
            "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM",
            "Gemma2ForCausalLM", "Gemma3ForCausalLM", "OPTForCausalLM", "GPTJForCausalLM", "GPTNeoForCausalLM",
        ),
        _Q_AND_V,
    ),
}  # fmt: skip


def lora(spec: ModelSpec, rank: int, targets: list[str] | None, linears: list[str]) -> Lora:
    """The adapters that `LoraConfig(r=rank, target_modules=targets)` makes.

    Args:
        targets: names as peft takes them, ["all-linear"], or None for peft's default.
        linears: the linear layers of one block of the model.
    Raises:
        InputError: a target that is no linear layer here; peft has no default for this architecture.
    """
    if targets is None:
        default = DEFAULT_TARGETS.get(spec.architecture)
        if default is None:
            raise InputError(
                f"lora_targets: peft has no default for {spec.architecture}; one or more of: {', '.join(linears)}, "
                "or all-linear"
            )
        return Lora(rank, default)
    if targets == ["all-linear"]:
        return Lora(rank, None)
    for target in targets:
        if not any(Lora(rank, frozenset({target})).adapts(name) for name in linears):
            close = nearest(target, linears, 1)
            hint = f"; nearest: {close[0]}" if close else ""
            raise InputError(
                f"lora_targets: {spec.name} has no linear layer {target[:40]!r}{hint}; it has {', '.join(linears)}"
            )
    return Lora(rank, frozenset(targets))
