"""Edge attribution patching: hannamw/EAP-IG (`eap`), and loops over graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..values import Args, Known, Source, Thing, Unknown, known
from .registry import function
from .tokens import Loader
from .transformer_lens import HookedModel, some_model

if TYPE_CHECKING:
    from ..reader import Reader


class Graph(Thing):
    label = "graph"


@function("Graph.from_model")
def _graph(reader: Reader, args: Args, path: str) -> Any:
    return Graph()


def _batch(args: Args, reader: Reader) -> Any:
    """The batch size of the loader that is given."""
    for value in (*args.positional, *args.keywords.values()):
        if isinstance(value, Loader):
            return value.batch_size
    return Unknown("the loader is not known")


def _length(model: HookedModel) -> Any:
    return model.capped(Unknown("the prompts are not known"), model.context())


@function("eap.attribute.attribute", "eap.attribute", "attribute_node", "eap.attribute_node.attribute_node")
def _attribute(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(0, "model")
    held = model if isinstance(model, HookedModel) else some_model(reader)
    given = known(args.get(None, "method", default=Known("EAP-IG-inputs")))
    steps = args.get(None, "ig_steps", default=Known(5, Source("library_default", args.line, "EAP-IG")))
    integrated = isinstance(given, str) and "ig" in given.lower()
    fields = held.common() | {
        "method": Known("eap_ig" if integrated else "eap", Source("literal", args.line)),
        "batch_size": _batch(args, reader), "seq_len": _length(held),
    }  # fmt: skip
    if integrated:
        fields["ig_steps"] = steps
    reader.record("patching", "eap.attribute", args, fields, subject=held)
    return Known(None)


@function("eap.evaluate.evaluate_graph", "eap.evaluate.evaluate_baseline", "evaluate_graph", "evaluate_baseline")
def _evaluate(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(0, "model")
    held = model if isinstance(model, HookedModel) else some_model(reader)
    fields = held.common() | {
        "batch_size": _batch(args, reader), "seq_len": _length(held),
        "with_gradients": Known(False),
    }  # fmt: skip
    reader.record("inference", f"eap.{path.rpartition('.')[2]}", args, fields, subject=held)
    return Unknown("a result")
