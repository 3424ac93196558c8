"""sparsify: training of SAEs on every layer of a model. Found, not estimated yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Dict, Items, Known, Source, Thing, Unknown, is_none
from .models import Model
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader


def default(value: Any, line: int) -> Known:
    return Known(value, Source("library_default", line, "sparsify"))


@function("sparsify.SaeConfig", "sparsify.TrainConfig", "sparsify.SparseCoderConfig", "sparsify.config.SaeConfig",
          "sparsify.config.TrainConfig")  # fmt: skip
def _config(reader: Reader, args: Args, path: str) -> Any:
    fields = dict(args.keywords)
    if path.endswith("TrainConfig") and args.positional:
        fields.setdefault("sae", args.positional[0])
    elif args.positional:
        fields.setdefault("expansion_factor", args.positional[0])
    return Dict(fields, args.more)


class Training(Thing):
    """A sparsify Trainer."""

    label = "trainer"

    def __init__(self, config: Any, model: Any) -> None:
        self.config, self.model = config, model

    def held(self) -> Iterable[Any]:
        return (self.model,)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name != "fit":
            return Unknown(f"trainer.{name}()", line=args.line)
        held = self.config.items if isinstance(self.config, Dict) else {}
        sae = held.get("sae")
        of_sae = sae.items if isinstance(sae, Dict) else {}
        layers = held.get("layers")
        spec = self.model.spec() if isinstance(self.model, Model) else None
        if isinstance(layers, Items) and layers.length() is not None:
            count: Any = Known(layers.length(), Source("computed", args.line))
        elif is_none(layers) and spec is not None:
            count = default(spec.n_layers, args.line)
        else:
            count = Unknown("how many layers are trained")
        fields = {
            "library": Known("sparsify"), "model": getattr(self.model, "name", Unknown("the model is not known")),
            "expansion_factor": of_sae.get("expansion_factor", default(32, args.line)),
            "k": of_sae.get("k", default(32, args.line)), "batch_size": held.get("batch_size", default(32, args.line)),
            "n_saes": count, "architecture": default("topk", args.line),
        }  # fmt: skip
        reader.record("sae_training", "sparsify.Trainer.fit", args, fields, subject=self.model)
        return Known(None)


@function("sparsify.Trainer", "sparsify.SaeTrainer", "sparsify.trainer.Trainer")
def _trainer(reader: Reader, args: Args, path: str) -> Any:
    return Training(args.get(0, "cfg"), args.get(2, "model"))
