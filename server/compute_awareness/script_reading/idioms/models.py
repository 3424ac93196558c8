"""What all language models have in common, whichever library runs them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...models.catalogue import find
from ..values import Args, Bound, Choice, Items, Known, Source, Thing, Unknown, bound, known, number
from .tokens import Tokenizer, token_ids
from .torch_modes import DTYPE_BYTES, FLOATS, device_of, dtype_of
from .torch_tensors import Tensor

if TYPE_CHECKING:
    from ...models.spec import ModelSpec
    from ..events import Event
    from ..reader import Reader


@cache
def _of_config(config: str) -> ModelSpec | None:
    from ...models.resolve import resolve

    try:
        return resolve(json.loads(config))
    except InputError:
        return None


class Model(Thing):
    """A language model that was loaded, or one that is not known (`name` unknown)."""

    label = "model"
    library = "transformers"

    def __init__(self, name: Any, dtype: Any, device: Any, **fields: Any) -> None:
        self.name = name
        self.dtype = dtype
        self.device = device
        self.fields = fields
        self.load: Event | None = None
        self.trained = False
        self.requires_gradients = True

    def spec(self) -> ModelSpec | None:
        """Its numbers, where its name is one of the catalogue or a configuration is given."""
        plain = known(self.name)
        if isinstance(plain, dict):
            return _of_config(json.dumps(plain, sort_keys=True, default=str))
        return find(plain) if isinstance(plain, str) else None

    def common(self) -> dict[str, Any]:
        """The fields that every workload of this model has."""
        return {"model": self.name, "library": Known(self.library), "dtype": self.dtype, **self.fields}

    def held(self) -> Iterable[Any]:
        return ()

    def move(self, args: Args) -> Model:
        """`.to(...)`: another dtype or device."""
        for value in (*args.positional, *args.keywords.values()):
            plain = known(dtype_of(value))
            if plain in DTYPE_BYTES and not (isinstance(value, Known) and isinstance(value.value, bool)):
                self.change_dtype(Known(plain, Source("literal", args.line)))
            elif isinstance(value, Known | Choice | Unknown) and not isinstance(known(value), bool):
                self.device = device_of(value)
                if self.load is not None:
                    self.load.fields["device"] = self.device
        return self

    def change_dtype(self, dtype: Any) -> None:
        self.dtype = dtype
        if self.load is not None:
            self.load.fields["dtype"] = dtype

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "tokenizer":
            return Tokenizer(self.name)
        if name == "device":
            return self.device
        if name == "dtype":
            return self.dtype
        return Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "to" | "cuda" | "cpu":
                if name != "to":
                    args = Args((Known("cuda" if name == "cuda" else "cpu"),), {}, args.node)
                return self.move(args)
            case "eval" | "train" | "requires_grad_" | "compile":
                if name == "requires_grad_" and known(args.get(0, default=Known(True))) is False:
                    self.requires_gradients = False
                return self
            case "parameters" | "named_parameters" | "named_modules" | "modules":
                return Parameters(self)
            case "forward" | "__call__":
                return self.call(args, reader)
            case _ if name in FLOATS:
                self.change_dtype(Known(FLOATS[name], Source("literal", args.line)))
                return self
        return Unknown(f"model.{name}()", line=args.line)

    def input_shape(self, value: Any, reader: Reader) -> tuple[Any, Any]:
        """(batch, tokens) of what the model is given: token ids, or texts where the library takes them."""
        if isinstance(value, Tensor):
            if not value.shape:
                why = "the shape of the input is not known"
                return Unknown(why), Unknown(why)
            if len(value.shape) == 1:
                return Known(1, Source("computed")), value.shape[0]
            return value.shape[0], value.shape[1] if len(value.shape) > 1 else Unknown("the length of the input")
        ids = token_ids(value, reader)
        return ids.dim(0), ids.dim(1)

    def merged(self, sizes: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Batch and length of an input that is one of several: known where all agree that know it."""
        result = []
        for column in zip(*sizes, strict=True):
            stated = [value for value in column if number(value) is not None]
            numbers = {number(value) for value in stated}
            bounds = [bound(value) for value in column]
            most = None if None in bounds else max(b for b in bounds if b is not None)
            result.append(stated[0] if len(numbers) == 1 else Unknown("one of several inputs", most))
        return result[0], result[1]

    def capped(self, seq_len: Any, context: int | None) -> Any:
        """A length that is not known is at most the model's context."""
        if isinstance(seq_len, Unknown) and context is not None:
            most = context if seq_len.at_most is None else min(context, seq_len.at_most)
            return Unknown(seq_len.why, most, seq_len.line, seq_len.form)
        if isinstance(seq_len, Choice):
            return Unknown("one of several", bound(seq_len))
        return seq_len


class Module(Thing):
    """A part of a model by its path: `transformer.h.5.mlp`."""

    label = "module"

    def __init__(self, model: Model, path: str) -> None:
        self.model, self.path = model, path

    def held(self) -> Iterable[Any]:
        return (self.model,)

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in ("weight", "bias"):
            return Tensor(None)
        if name in ("device", "dtype"):
            return getattr(self.model, name)
        return Module(self.model, f"{self.path}.{name}")

    def item(self, index: Any, reader: Reader) -> Any:
        at = number(index)
        spec = self.model.spec()
        if at is not None and at < 0 and spec is not None:
            at += spec.n_layers
        return Module(self.model, f"{self.path}.{'*' if at is None else at}")

    def iterate(self, reader: Reader) -> Items:
        spec = self.model.spec()
        if spec is None:
            return Items("list", [Module(self.model, f"{self.path}.*")], True)
        return Items("list", [Module(self.model, f"{self.path}.{at}") for at in range(spec.n_layers)])

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "__len__":
            spec = self.model.spec()
            return Known(spec.n_layers, Source("model")) if spec else Unknown("how many layers")
        return self if name in ("to", "eval", "half", "float", "cuda") else Unknown(f"{name}() of a module")

    def call(self, args: Args, reader: Reader) -> Any:
        return Tensor(None)


class Parameters(Thing):
    """`model.parameters()`."""

    label = "parameters"

    def __init__(self, of: Any) -> None:
        self.of = of

    def held(self) -> Iterable[Any]:
        return (self.of,)

    def item(self, index: Any, reader: Reader) -> Any:
        return self

    def iterate(self, reader: Reader) -> Any:
        return Items("list", [Parameter(self.of)], True)


class Parameter(Thing):
    """One parameter of a model."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def held(self) -> Iterable[Any]:
        return (self.of,)

    def attribute(self, name: str, reader: Reader) -> Any:
        return (
            getattr(self.of, name) if name in ("device", "dtype") and isinstance(self.of, Model) else Bound(self, name)
        )

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        if name == "requires_grad" and known(value) is False and isinstance(self.of, Model) and not reader.conditional:
            self.of.requires_gradients = False
