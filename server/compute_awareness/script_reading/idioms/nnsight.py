"""nnsight: LanguageModel, traces, what they save. Read for 0.8."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Bound, Items, Known, Source, Thing, Unknown, is_none, known
from .models import Model, Module
from .registry import function
from .tokens import token_ids
from .torch_tensors import Tensor
from .transformers import HuggingFaceModel, load

if TYPE_CHECKING:
    from ..events import Event
    from ..reader import Reader

_VALUES = ("output", "input", "inputs", "source")


class NnsightModel(HuggingFaceModel):
    """`LanguageModel(...)`."""

    label = "LanguageModel"
    library = "nnsight"

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in ("config", "device", "dtype", "tokenizer"):
            return super().attribute(name, reader)
        if name == "output":
            return Proxy(self, "lm_head")
        return Bound(self, name) if name in ("trace", "generate", "edit", "scan", "session") else Part(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "trace" | "generate" | "scan":
                return Trace(self, args, name)
            case "session" | "edit":
                return Session(self)
        return super().method(name, args, reader)


class Part(Module):
    """A module of the model, in whose place nnsight puts an envoy."""

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in _VALUES:
            return Proxy(self.model, self.path)
        return (
            super().attribute(name, reader) if name in ("device", "dtype") else Part(self.model, f"{self.path}.{name}")
        )

    def item(self, index: Any, reader: Reader) -> Any:
        return Part(self.model, super().item(index, reader).path)

    def iterate(self, reader: Reader) -> Items:
        items = super().iterate(reader)
        return Items("list", [Part(self.model, one.path) for one in items.items], items.more)

    def call(self, args: Args, reader: Reader) -> Any:
        given = args.get(0)
        return given if isinstance(given, Proxy) else Tensor(None)


class Proxy(Thing):
    """A value inside a trace; `save()` keeps it."""

    label = "proxy"

    def __init__(self, model: Model, path: str) -> None:
        self.model, self.path = model, path
        self.trace: Trace | None = None
        """The trace that saves it."""
        self.detached = False
        self.device: Any = None

    def share(self) -> float:
        """How much of the pass's graph lies before it, by the number of its block."""
        found, spec = re.search(r"\.(\d+)(?:\.|$)", self.path), self.model.spec()
        return min(1.0, (int(found.group(1)) + 1) / spec.n_layers) if found and spec else 1.0

    def attribute(self, name: str, reader: Reader) -> Any:
        return self if name in ("value", "T", "data") else Bound(self, name)

    def item(self, index: Any, reader: Reader) -> Any:
        return self

    def iterate(self, reader: Reader) -> Items:
        return Items("list", [self], True)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "save":
            save(self, reader)
        if name == "backward":
            return Known(None)
        if name == "detach":
            self.detached = True
        if name == "cpu" or (name == "to" and known(args.get(0, "device")) == "cpu"):
            self.device = Known("cpu")
        return self


def save(value: Any, reader: Reader) -> None:
    """Keep the value of the trace that is open."""
    for trace in reversed(reader.traces):
        if isinstance(value, Proxy):
            value.trace = trace
            if value.path not in trace.saved:
                trace.saved.append(value.path)
        return


class Session(Thing):
    """`with model.session() as session:`: traces inside are their own."""

    label = "session"

    def __init__(self, model: NnsightModel) -> None:
        self.model = model


class Trace(Thing):
    """`with model.trace(...)`: the pass that runs when it closes."""

    label = "trace"

    def __init__(self, model: NnsightModel, args: Args, kind: str) -> None:
        self.model, self.args, self.kind = model, args, kind
        self.saved: list[str] = []
        self.event: Event | None = None
        self.inputs: list[Any] = [args.positional[0]] if args.positional else []

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "__enter__":
                reader.traces.append(self)
                return self
            case "__exit__":
                if self in reader.traces:
                    reader.traces.remove(self)
                self.run(reader)
                return Known(None)
            case "invoke":
                if args.positional:
                    self.inputs.append(args.positional[0])
                return Invoke()
            case "save":
                return self
            case "all" | "iter" | "next" | "stop" | "cache":
                return Unknown(f"tracer.{name}()")
        return Unknown(f"tracer.{name}()", line=args.line)

    def sizes(self, reader: Reader) -> tuple[Any, Any]:
        """All inputs are one batch."""
        if not self.inputs:
            why = Unknown("the input of the trace is not known")
            return why, self.model.capped(why, self.model.context())
        first = self.inputs[0]
        if isinstance(first, Tensor):
            batch, seq_len = self.model.input_shape(first, reader)
        elif hasattr(first, "items") and isinstance(first.items, dict) and "input_ids" in first.items:
            batch, seq_len = self.model.input_shape(first.items["input_ids"], reader)
        else:
            ids = token_ids(first, reader)
            batch, seq_len = ids.dim(0), ids.dim(1)
        if len(self.inputs) > 1:
            counts = [known(token_ids(one, reader).dim(0)) for one in self.inputs if not isinstance(one, Tensor)]
            whole = all(isinstance(count, int) for count in counts) and len(counts) == len(self.inputs)
            batch = Known(sum(counts), Source("computed")) if whole else Unknown("how many inputs the trace has")
        return batch, self.model.capped(seq_len, self.model.context())

    def run(self, reader: Reader) -> None:
        model, args = self.model, self.args
        batch, seq_len = self.sizes(reader)
        free = truthy(args.get(None, "remote", default=Known(False))) is True
        fields = model.common() | {"batch_size": batch, "seq_len": seq_len}
        if self.kind == "generate":
            fields["new_tokens"] = model.new_tokens(args, seq_len)
            fields["library"] = Known("transformers")
            event = reader.record("generation", "LanguageModel.generate", args, fields, subject=model)
        else:
            fields["with_gradients"] = Known(reader.with_gradients and model.requires_gradients, Source("computed"))
            kind = "activation_cache" if self.saved else "inference"
            if self.saved:
                fields["names_filter"] = Known(list(self.saved), Source("computed"))
            event = reader.record(kind, "LanguageModel.trace", args, fields, subject=model)
        self.event = event
        if event is not None and free:
            event.free = True
            if model.load is not None and not is_none(model.load.fields.get("free_load")):
                model.load.free = True
        elif event is not None and model.load is not None:
            model.load.fields.pop("free_load", None)
            model.load.free = False


class Invoke(Thing):
    """`with tracer.invoke(...)`."""

    label = "invoke"


@function("nnsight.LanguageModel", "LanguageModel", "StandardizedTransformer", "nnsight.NNsight", "UnifiedTransformer")
def _language_model(reader: Reader, args: Args, path: str) -> Any:
    name = args.get(0, default=Unknown("no name is given"))
    held = name if isinstance(name, Model) else None
    model = load(reader, args, "LanguageModel", NnsightModel, held.name if held is not None else name)
    if model.load is not None and truthy(args.get(None, "dispatch", default=Known(False))) is not True:
        # Its weights are loaded by the first trace that runs here; remote traces never load them.
        model.load.fields["free_load"] = Known(True)
    return model


@function("nnsight.save")
def _save(reader: Reader, args: Args, path: str) -> Any:
    save(args.get(0), reader)
    return args.get(0)
