"""peft: LoRA adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..values import Args, Dict, Items, Known, Source, known
from .models import Model
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader


@function("LoraConfig", "peft.LoraConfig", "QLoraConfig")
def _config(reader: Reader, args: Args, path: str) -> Any:
    return Dict({"lora": Known(True)} | args.keywords, args.more)


@function("get_peft_model", "FastLanguageModel.get_peft_model", "peft.inject_adapter_in_model")
def _adapted(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(0, "model")
    config = args.get(1, "peft_config")
    if isinstance(model, Model):
        adapt(model, config, args.line)
    return model


def adapt(model: Model, config: Any, line: int) -> None:
    """What is trained are the adapters."""
    held = config.items if isinstance(config, Dict) else {}
    model.fields["trainable"] = Known("lora", Source("literal", line))
    model.fields["lora_rank"] = held.get("r", Known(8, Source("library_default", line, "peft")))
    targets = held.get("target_modules")
    if isinstance(targets, Items) and not targets.more:
        model.fields["lora_targets"] = Known([known(item) for item in targets.items], Source("literal", line))
    elif isinstance(known(targets), str):
        model.fields["lora_targets"] = Known([known(targets)], Source("literal", line))


@function("PeftModel.from_pretrained", "PeftModelForCausalLM.from_pretrained", "prepare_model_for_kbit_training")
def _pretrained(reader: Reader, args: Args, path: str) -> Any:
    return args.get(0, "model")
