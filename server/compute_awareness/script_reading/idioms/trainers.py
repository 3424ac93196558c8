"""Trainers that run the loop themselves: transformers' Trainer, trl's SFTTrainer. Defaults are those of 5.x."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Bound, Dict, Items, Known, Source, Thing, Unknown, bound, is_none, known
from .models import Model
from .peft import adapt
from .registry import function
from .tokens import Column, Dataset
from .transformers import HuggingFaceModel, load

if TYPE_CHECKING:
    from ..reader import Reader

_OPTIMIZERS = {
    "sgd": "sgd",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
}


class Arguments(Thing):
    """TrainingArguments, SFTConfig."""

    label = "training arguments"

    def __init__(self, args: Args) -> None:
        self.given = dict(args.keywords)
        self.more, self.line = args.more, args.line

    def attribute(self, name: str, reader: Reader) -> Any:
        return self.given.get(name, Bound(self, name))

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        self.given[name] = value

    def get(self, name: str, default: Any) -> Any:
        if name in self.given:
            return self.given[name]
        if self.more:
            return Unknown("given through **")
        return Known(default, Source("library_default", self.line, "transformers"))


@function("TrainingArguments", "SFTConfig", "transformers.TrainingArguments", "Seq2SeqTrainingArguments")
def _arguments(reader: Reader, args: Args, path: str) -> Any:
    return Arguments(args)


class TrainerObject(Thing):
    """A Trainer that is ready to train."""

    label = "Trainer"

    def __init__(self, model: Model, arguments: Arguments, sft: bool, data: Any) -> None:
        self.model, self.arguments, self.sft, self.data = model, arguments, sft, data

    def held(self) -> Iterable[Any]:
        return (self.model,)

    def attribute(self, name: str, reader: Reader) -> Any:
        return self.model if name == "model" else Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name not in ("train", "evaluate", "predict"):
            return Unknown(f"trainer.{name}()", line=args.line)
        if name != "train":
            self.evaluate(args, reader)
            return Unknown("what an evaluation returns")
        held = self.arguments
        seq_len = self.seq_len()
        half = next((name for name, on in (("bfloat16", "bf16"), ("float16", "fp16"))
                     if truthy(held.given.get(on, Known(False))) is True), None)  # fmt: skip
        optimizer = held.get("optim", "adamw_torch")
        plain = known(optimizer)
        fields = self.model.common() | {
            "batch_size": held.get("per_device_train_batch_size", 8),
            "seq_len": seq_len,
            "gradient_accumulation": held.get("gradient_accumulation_steps", 1),
            "optimizer": Known(_OPTIMIZERS.get(str(plain), "adamw"), optimizer.source)
            if isinstance(optimizer, Known) else optimizer,
            "autocast": Known(half, Source("literal", held.line)),
        }  # fmt: skip
        if truthy(held.given.get("gradient_checkpointing", Known(False))) is True:
            fields["gradient_checkpointing"] = Known(True, Source("literal", held.line))
        event = reader.record("training", f"{self.label}.train", args, fields, subject=self.model)
        evaluates = held.get("per_device_eval_batch_size", 8)
        if event is not None:
            event.evaluation_batch = evaluates
        when = known(held.given.get("eval_strategy", held.given.get("evaluation_strategy")))
        if when in ("steps", "epoch"):
            self.evaluate(args, reader)
        return Unknown("what training returns")

    def evaluate(self, args: Args, reader: Reader) -> None:
        """Passes without a graph over batches of their own size."""
        fields = self.model.common() | {
            "batch_size": self.arguments.get("per_device_eval_batch_size", 8), "seq_len": self.seq_len(),
            "with_gradients": Known(False), "with_labels": Known(True),
        }  # fmt: skip
        with reader.repeated(None):
            reader.record("inference", f"{self.label}.evaluate", args, fields, subject=self.model)

    def seq_len(self) -> Any:
        """How long the rows are: as the arguments, else as the function that tokenized them cut them."""
        held = self.arguments
        limit = held.given.get("max_length", held.given.get("max_seq_length"))
        if limit is None and self.sft:
            limit = Known(1024, Source("library_default", held.line, "trl"))
        rows = self.data.dataset if isinstance(self.data, Column) else self.data
        seq_len: Any = Unknown("how long the rows of the dataset are", bound(limit))
        if limit is None and isinstance(rows, Dataset) and rows.tokenized:
            seq_len = rows.seq_len
        return self.model.capped(seq_len, self.context())

    def context(self) -> int | None:
        return self.model.context() if isinstance(self.model, HuggingFaceModel) else None


@function("transformers.Trainer", "Trainer", "SFTTrainer", "trl.SFTTrainer", "Seq2SeqTrainer")
def _trainer(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(0, "model")
    if isinstance(known(model), str):
        model = load(reader, args, path, HuggingFaceModel, model)
    arguments = args.get(1, "args")
    if not isinstance(model, Model):
        return Unknown("a trainer of a model that is not known")
    if not isinstance(arguments, Arguments):
        arguments = Arguments(Args(more=not is_none(arguments), node=args.node))
    peft = args.get(None, "peft_config")
    if isinstance(peft, Dict):
        adapt(model, peft, args.line)
    model.device = Known("cuda" if reader.has_gpu else "cpu", Source("assumed", args.line, "Trainer moves it"))
    if model.load is not None:
        model.load.fields["device"] = model.device
    return TrainerObject(model, arguments, path.endswith("SFTTrainer"), args.get(None, "train_dataset"))


@function("Accelerator", "accelerate.Accelerator")
def _accelerator(reader: Reader, args: Args, path: str) -> Any:
    return Accelerator({"bf16": "bfloat16", "fp16": "float16"}.get(str(known(args.get(None, "mixed_precision")))))


class Accelerator(Thing):
    """accelerate's Accelerator: moves what it prepares."""

    label = "accelerator"

    def __init__(self, autocast: str | None) -> None:
        self.autocast = autocast

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "prepare":
            for value in args.positional:
                if isinstance(value, Model):
                    value.fields["autocast"] = Known(self.autocast, Source("computed", args.line))
                    value.device = Known("cuda" if reader.has_gpu else "cpu", Source("assumed", args.line))
                    if value.load is not None:
                        value.load.fields["device"] = value.device
            return args.positional[0] if len(args.positional) == 1 else Items("tuple", list(args.positional))
        if name == "backward":
            from .torch_training import backward

            return backward(args.get(0), reader, args)
        return Unknown(f"accelerator.{name}()", line=args.line)

    def attribute(self, name: str, reader: Reader) -> Any:
        return Known("cuda" if reader.has_gpu else "cpu", Source("assumed")) if name == "device" else Bound(self, name)
