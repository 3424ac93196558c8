"""dictionary_learning: ActivationBuffer and trainSAE. Defaults are those of 0.1.0 (buffer.py, training.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Choice, Dict, Known, Lib, Source, Thing, Unknown, is_none, known
from .models import Module
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader

_TRAINERS = {
    "StandardTrainer": "standard", "TopKTrainer": "topk", "BatchTopKTrainer": "batchtopk", "GatedSAETrainer": "gated",
    "JumpReluTrainer": "jumprelu", "MatryoshkaBatchTopKTrainer": "matryoshka_batchtopk", "PAnnealTrainer": "p_anneal",
    "GatedAnnealTrainer": "gated_anneal", "StandardTrainerAprilUpdate": "standard_april_update",
}  # fmt: skip


class Buffer(Thing):
    """ActivationBuffer."""

    label = "buffer"

    def __init__(self, args: Args) -> None:
        self.args = args

    def held(self) -> Iterable[Any]:
        return (self.args.get(1, "model"),)

    def fields(self) -> dict[str, Any]:
        args = self.args

        def of(name: str, default: int) -> Any:
            given = args.get(None, name)
            return Known(default, Source("library_default", args.line, "ActivationBuffer")) if is_none(given) else given

        submodule, model = args.get(2, "submodule"), args.get(1, "model")
        path = Known(submodule.path, Source("computed", args.line)) if isinstance(submodule, Module) else Unknown(
            "the submodule is not known")  # fmt: skip
        return {
            "model": getattr(model, "name", Unknown("the model is not known")), "submodule": path,
            "n_ctxs": of("n_ctxs", 30_000), "ctx_len": of("ctx_len", 128),
            "refresh_batch_size": of("refresh_batch_size", 512),
            "train_batch_size_tokens": of("out_batch_size", 8192),
            "model_dtype": getattr(model, "dtype", Unknown("the model is not known")),
        }  # fmt: skip


@function("ActivationBuffer", "dictionary_learning.buffer.ActivationBuffer", "NNsightActivationBuffer")
def _buffer(reader: Reader, args: Args, path: str) -> Any:
    return Buffer(args)


def _trainer(config: Any) -> dict[str, Any]:
    """The fields of one entry of trainer_configs."""
    for option in config.options if isinstance(config, Choice) else (config,):
        if isinstance(option, Dict):
            held = option.items
            kind = held.get("trainer")
            name = kind.last if isinstance(kind, Lib) else known(held.get("trainer_class"))
            architecture = _TRAINERS.get(str(name))
            fields = {
                "architecture": Known(architecture, Source("literal")) if architecture else Unknown("the trainer"),
                "d_in": held.get("activation_dim", Unknown("activation_dim is not given")),
                "d_sae": held.get("dict_size", Unknown("dict_size is not given")),
            }
            if not is_none(held.get("k")):
                fields["k"] = held["k"]
            return fields
    why = Unknown("the trainer's configuration is not known")
    return {"architecture": why, "d_in": why, "d_sae": why}


@function("trainSAE", "dictionary_learning.training.trainSAE")
def _train(reader: Reader, args: Args, path: str) -> Any:
    data = args.get(0, "data")
    configs = reader.items_of(args.get(1, "trainer_configs"))
    trainers = [_trainer(config) for config in configs.items] or [_trainer(Unknown())]
    sizes = [known(one["d_sae"]) for one in trainers]
    largest = max(range(len(trainers)), key=lambda at: sizes[at] if isinstance(sizes[at], int) else 0)
    fields = {"library": Known("dictionary_learning"), **trainers[largest]}
    if isinstance(data, Buffer):
        fields |= data.fields()
    length = configs.length()
    fields["n_saes"] = (
        Known(length, Source("computed", args.line)) if length else Unknown("how many trainers there are")
    )
    event = reader.record("sae_training", "trainSAE", args, fields, subject=None)
    if event is not None and len({str(size) for size in sizes}) > 1:
        event.notes.append("the trainers differ in size: all are counted as the largest")
    return Unknown("trained SAEs")
