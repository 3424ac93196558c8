"""circuit-tracer: replacement models and attribution graphs. They are found and not estimated yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Known, Source, Thing, Unknown, is_none
from .registry import function
from .torch_modes import device_of, dtype_of

if TYPE_CHECKING:
    from ..reader import Reader


class ReplacementModel(Thing):
    """A language model with its transcoders."""

    label = "ReplacementModel"

    def __init__(self, name: Any, dtype: Any, device: Any) -> None:
        self.name, self.dtype, self.device = name, dtype, device

    def attribute(self, name: str, reader: Reader) -> Any:
        return Bound(self, name)

    def held(self) -> Iterable[Any]:
        return ()


@function("ReplacementModel.from_pretrained")
def _from_pretrained(reader: Reader, args: Args, path: str) -> Any:
    given, device = args.get(None, "dtype"), args.get(None, "device")
    default = Known("float32", Source("library_default", args.line, "circuit-tracer"))
    model = ReplacementModel(
        args.get(0, "model_name"), default if is_none(given) else dtype_of(given),
        Unknown("the library chooses it") if is_none(device) else device_of(device),
    )  # fmt: skip
    fields = {"model": model.name, "library": Known("circuit_tracer"), "dtype": model.dtype, "device": model.device}
    reader.record("load", "ReplacementModel.from_pretrained", args, fields, subject=model)
    return model


@function("circuit_tracer.attribute", "circuit_tracer.attribution.attribute", "circuit_tracer.attribute.attribute")
def _attribute(reader: Reader, args: Args, path: str) -> Any:
    held = [one for one in (*args.positional, *args.keywords.values()) if isinstance(one, ReplacementModel)]
    why = Unknown("the model is not known")
    fields = {"library": Known("circuit_tracer"), "model": held[0].name if held else why,
              "dtype": held[0].dtype if held else why}  # fmt: skip
    defaults = {"batch_size": 512, "max_n_logits": 10, "max_feature_nodes": None}
    for name, value in defaults.items():
        fields[name] = args.get(
            None, name, default=Known(value, Source("library_default", args.line, "circuit-tracer"))
        )
    reader.record("attribution", "attribute", args, fields, subject=held[0] if held else None)
    return Unknown("a graph")
