"""Training of a language model: forward with labels, backward, optimizer step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .fields import Attention, LibraryVersion, ModelTask, NDevices, Strings, Tokens
from .libraries import of_task
from .passes import check_library


def _autocast(value: Any) -> Any:
    """True means bfloat16, false none; `torch.bfloat16`, `bf16` and `fp16` are names of the dtypes."""
    if isinstance(value, bool):
        return "bfloat16" if value else None
    if isinstance(value, str):
        name = value.strip().lower().removeprefix("torch.")
        return {"bf16": "bfloat16", "fp16": "float16", "half": "float16"}.get(name, name)
    return value


def _parallel(value: Any) -> Any:
    """Other names of FSDP2; says of other ways to share out a model's state that they are not estimated."""
    name = value.strip().lower() if isinstance(value, str) else value
    if name in ("fsdp2", "fully_shard"):
        return "fsdp"
    if name in ("fsdp1", "deepspeed", "zero"):
        raise ValueError(
            f"{value!r} is not estimated: what is gathered and reduced beside each card's shard was not compared; "
            "fsdp (torch's fully_shard) is, and so is ddp"
        )
    return name


class Training(ModelTask):
    """Steps of training or fine-tuning one language model, on one card or with a process on each of several."""

    task: Literal["training"] = "training"
    library: Annotated[Literal["transformers", "transformer_lens", "transformer_bridge"], of_task("training")] = Field(
        default="transformers",
        description="transformer_lens = HookedTransformer; transformer_bridge = TransformerBridge, traced",
    )
    library_version: LibraryVersion = None
    attention: Attention = None
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    optimizer: Literal["adamw", "adam", "sgd", "sgd_momentum", "adamw_8bit"] = Field(
        default="adamw", description="torch's, as it runs on CUDA (foreach); adamw_8bit is bitsandbytes'"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="model.gradient_checkpointing_enable(): layers are computed again in backward"
    )
    autocast: Annotated[Literal["bfloat16", "float16"] | None, BeforeValidator(_autocast)] = Field(
        default=None, description="torch.autocast around forward and loss; true = bfloat16, weights stay float32"
    )
    trainable: Literal["all", "lora"] = Field(default="all", description="Every parameter, or peft's LoRA adapters")
    lora_rank: int = Field(default=8, ge=1, le=100_000, description="LoRA: r of peft's LoraConfig")
    lora_targets: Strings | None = Field(
        default=None,
        description="LoRA: names of the linear layers, or all-linear; null = peft's default for the architecture",
        examples=[["q_proj", "v_proj"]],
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, le=1_000_000, description="Batches per optimizer step; the gradients live through all of them"
    )
    training_tokens: Tokens | None = Field(
        default=None, description="Tokens of the whole run, for its duration; null = one optimizer step"
    )
    n_devices: NDevices = Field(default=1, description="Cards, one process and one batch on each; peak stays per card")
    parallel: Annotated[Literal["ddp", "fsdp"] | None, BeforeValidator(_parallel)] = Field(
        default=None,
        description="How n_devices share it: ddp = DistributedDataParallel; fsdp = fully_shard per block; null = ddp",
    )
    gradient_as_bucket_view: bool = Field(
        default=False, description="ddp: gradients are views into its buckets, not a copy beside them"
    )

    @model_validator(mode="after")
    def _fits(self) -> Training:
        check_library(self, self.library, self.attention, self.compatibility_mode)
        if self.trainable == "all" and self.lora_targets is not None:
            raise ValueError("lora_targets is for trainable 'lora'")
        self._several_cards()
        return self

    def _several_cards(self) -> None:
        """What of several cards is not covered, and fields that one card has no use for."""
        if self.n_devices > 1:
            if self.library != "transformers":
                raise ValueError(
                    f"n_devices {self.n_devices}: training over several cards is covered for transformers only "
                    f"(DistributedDataParallel); with {self.library} estimate one card (n_devices 1), or give library "
                    "transformers"
                )
            if self.parallel == "fsdp":
                self._shardable()
            return
        for name in ("parallel", "gradient_as_bucket_view"):
            if getattr(self, name):
                raise ValueError(f"{name} is for n_devices of 2 or more")

    def _shardable(self) -> None:
        """What of FSDP was not compared."""
        for name, plain in (
            ("trainable", "all"), ("autocast", None), ("gradient_accumulation", 1), ("gradient_as_bucket_view", False),
        ):  # fmt: skip
            if getattr(self, name) != plain:
                raise ValueError(f"parallel 'fsdp' with {name} {getattr(self, name)!r} is not covered yet")
        if self.optimizer == "adamw_8bit":
            raise ValueError("parallel 'fsdp' with optimizer 'adamw_8bit' is not covered yet; adamw is")
