"""torch: tensors by their shapes."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import binary
from ..slices import slice_length
from ..values import Args, Bound, Choice, Items, Known, Source, Thing, Unknown, bound, is_none, known, number
from .registry import function
from .torch_modes import DTYPE_BYTES, device_of, dtype_of

if TYPE_CHECKING:
    from ..events import Event
    from ..reader import Reader

_SAME_SHAPE = {
    "clone", "detach", "contiguous", "requires_grad_", "clamp", "abs", "exp", "log", "relu", "softmax", "log_softmax",
    "pin_memory", "fill_", "zero_", "add", "mul", "sub", "div", "masked_fill", "normal_", "sigmoid", "tanh", "sqrt",
    "roll", "flip", "sort", "cumsum",
}  # fmt: skip
_TO_DTYPE = {"long": "int64", "int": "int32", "float": "float32", "half": "float16", "bfloat16": "bfloat16",
             "double": "float64", "bool": "bool"}  # fmt: skip


_VIEWS = {"detach", "unsqueeze", "squeeze", "transpose", "permute", "t", "swapaxes", "expand", "view"}
_DETACHED = {"detach", "numpy", "tolist"}
NOT_KNOWN = "not known"
"""The dtype of a tensor that is made with one that is not known."""


class Tensor(Thing):
    """A tensor: its dimensions as values (None: how many there are is not known), dtype and device."""

    label = "tensor"

    def __init__(
        self, shape: Iterable[Any] | None, dtype: str = "float32", device: Any = None, of: Iterable[Any] = ()
    ) -> None:
        self.shape = None if shape is None else list(shape)
        self.dtype = dtype
        self.device = device
        self.of = list(of)
        """Things that it keeps alive: a cache whose storage it shares."""
        self.whole: Tensor | None = None
        """The tensor whose storage it keeps, where it is a part of one."""
        self.graph: Event | None = None
        """The pass whose graph it keeps, where that has one."""
        self.share = 1.0
        """How much of that graph lies before it: of a state between blocks what the blocks before it keep."""

    def held(self) -> Iterable[Any]:
        return self.of

    def bytes(self) -> int | None:
        """Its size; None where a dimension or the dtype is not known."""
        if self.shape is None or self.dtype == NOT_KNOWN:
            return None
        size = DTYPE_BYTES.get(self.dtype, 4)
        for dim in self.shape:
            plain = number(dim)
            if plain is None:
                return None
            size *= plain
        return size

    def kept(self) -> int | None:
        """Bytes of the storage that it keeps alive: `cache[name][:, -1]` keeps all of `cache[name]`."""
        return (self.whole or self).bytes()

    def tied(self, made: Any, name: str) -> Any:
        """What a method or an index made of it, with what that keeps alive of it."""
        if isinstance(made, Tensor) and made is not self:
            if name in _VIEWS:
                made.whole = self.whole or self
            if name not in _DETACHED and made.graph is None:
                made.graph, made.share = self.graph, self.share
        return made

    def dim(self, at: int) -> Any:
        if self.shape is None:
            return Unknown("a tensor of a shape that is not known")
        return self.shape[at] if -len(self.shape) <= at < len(self.shape) else Unknown("a tensor of fewer dimensions")

    def like(self, shape: Iterable[Any] | None, **changed: Any) -> Tensor:
        return Tensor(shape, changed.get("dtype", self.dtype), changed.get("device", self.device))

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "shape":
            return Items("tuple", list(self.shape or []), self.shape is None)
        if name in ("data", "real", "grad"):
            return self
        if name in ("T", "mT"):
            return self.like(None if self.shape is None else self.shape[::-1])
        if name == "device":
            return self.device or Unknown("a device")
        if name == "ndim":
            return Unknown("ndim") if self.shape is None else Known(len(self.shape))
        return Bound(self, name)

    def iterate(self, reader: Reader) -> Items:
        if not self.shape:
            return Items("list", [Tensor(None, self.dtype)], True)
        rest = self.like(self.shape[1:])
        return Items("list", [rest], True, number(self.shape[0]))

    def item(self, index: Any, reader: Reader) -> Any:
        if self.shape is None:
            return self._part_of_unknown(index)
        indices = index.items if isinstance(index, Items) and index.kind == "tuple" else [index]
        shape: list[Any] = []
        waiting = list(self.shape)
        for at, one in enumerate(indices):
            if isinstance(one, Known) and one.value is None:
                shape.append(Known(1))
            elif isinstance(one, Known) and one.value is Ellipsis:
                after = sum(not (isinstance(i, Known) and i.value is None) for i in indices[at + 1 :])
                while len(waiting) > after:
                    shape.append(waiting.pop(0))
            elif isinstance(one, slice):
                if waiting:
                    shape.append(self._sliced(one, waiting.pop(0)))
            elif isinstance(one, Items):
                if waiting:
                    waiting.pop(0)
                length = one.length()
                shape.append(Known(length) if length is not None else Unknown("some of them"))
            elif isinstance(one, Tensor):
                if waiting:
                    waiting.pop(0)
                shape += one.shape if one.shape is not None else [Unknown("some of them")]
            elif waiting:
                dim = waiting.pop(0)
                if isinstance(one, Unknown) and not one.form:
                    shape.append(Unknown("an index or several", bound(dim)))
        copied = any(isinstance(one, Items | Tensor) for one in indices)
        made = Tensor([*shape, *waiting], self.dtype, self.device, self.of)
        return self.tied(made, "take" if copied else "view")

    def _sliced(self, part: slice, dim: Any) -> Any:
        length = number(dim)
        if part.start is None and part.stop is None and part.step is None:
            return dim
        found = slice_length(part, length)
        if isinstance(found, Unknown) and found.at_most is None:
            return Unknown(found.why, bound(dim))
        return found

    def _part_of_unknown(self, index: Any) -> Any:
        indices = index.items if isinstance(index, Items) and index.kind == "tuple" else [index]
        slices = [one for one in indices if isinstance(one, slice)]
        if len(slices) == len(indices):
            sizes = [slice_length(one, None) for one in slices]
            if len(sizes) == 1:
                return Tensor([sizes[0], Unknown("a tensor of a shape that is not known")], self.dtype)
            return Tensor(sizes, self.dtype)
        return Tensor(None, self.dtype)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return self.tied(self._made_by(name, args, reader), name)

    def _made_by(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "to":
                return self._to(args)
            case "cpu":
                return Tensor(self.shape, self.dtype, Known("cpu"))
            case "numpy" | "tolist":
                return Tensor(self.shape, self.dtype, Known("cpu"))
            case "cuda":
                return self.like(self.shape, device=Known("cuda"))
            case "size":
                at = number(args.get(0, "dim"))
                return self.attribute("shape", reader) if at is None else self.dim(at)
            case "__len__":
                return self.dim(0)
            case "dim" | "ndimension":
                return Unknown("dim()") if self.shape is None else Known(len(self.shape))
            case "numel" | "nelement":
                return self._count()
            case "item":
                return Unknown("the value of a tensor")
            case "unsqueeze":
                at = number(args.get(0, "dim"))
                return self._inserted(at)
            case "squeeze":
                return self.like(None if self.shape is None else [d for d in self.shape if number(d) != 1])
            case "view" | "reshape":
                return self._reshaped(args)
            case "flatten":
                return self.like([self._count()]) if not args.positional and not args.keywords else self.like(None)
            case "repeat" | "expand" | "tile":
                return self._repeated(args, name)
            case "transpose" | "permute" | "t" | "swapaxes":
                return self._moved(name, args)
            case "backward":
                from .torch_training import backward

                return backward(self, reader, args)
            case "sum" | "mean" | "max" | "min" | "std" | "var" | "norm" | "argmax" | "argmin" | "topk" | "all" | "any":
                return self._reduced(args)
            case "__arithmetic__":
                left, right = args.positional
                others = [side for side in (left, right) if isinstance(side, Tensor) and side.shape is not None]
                widest = max(others, key=lambda side: len(side.shape or []), default=self)
                return Tensor(widest.shape, widest.dtype, self.device)
            case _ if name in _TO_DTYPE:
                return self.like(self.shape, dtype=_TO_DTYPE[name])
            case _ if name in _SAME_SHAPE:
                return Tensor(self.shape, self.dtype, self.device, self.of if name in ("detach", "contiguous") else ())
        return Tensor(None, self.dtype)

    def _to(self, args: Args) -> Tensor:
        dtype, device = self.dtype, self.device
        for value in (*args.positional, *args.keywords.values()):
            plain = known(dtype_of(value)) if not isinstance(value, Tensor) else None
            if plain in DTYPE_BYTES:
                dtype = plain
            elif isinstance(value, Known | Choice | Unknown) and not isinstance(known(value), bool):
                device = device_of(value)
        return Tensor(self.shape, dtype, device, () if known(device) == "cpu" else self.of)

    def _count(self) -> Any:
        return one_dimension(self.shape if self.shape is not None else [Unknown("a shape")])

    def _inserted(self, at: int | None) -> Tensor:
        if self.shape is None or at is None or not -len(self.shape) - 1 <= at <= len(self.shape):
            return self.like(None)
        at = at if at >= 0 else len(self.shape) + 1 + at
        return self.like([*self.shape[:at], Known(1), *self.shape[at:]])

    def _reshaped(self, args: Args) -> Tensor:
        dims = shape_of(args.positional)
        if dims is None or sum(number(d) == -1 for d in dims) > 1:
            return self.like(None)
        if any(number(d) == -1 for d in dims):
            rest = 1
            for dim in dims:
                plain = number(dim)
                rest *= plain if plain is not None and plain > 0 else (1 if plain == -1 else 0)
            total = number(self._count())
            free = Known(total // rest, Source("computed")) if total is not None and rest else Unknown("the rest")
            dims = [free if number(d) == -1 else d for d in dims]
        return self.like(dims)

    def _repeated(self, args: Args, name: str) -> Tensor:
        dims = shape_of(args.positional)
        if dims is None or self.shape is None:
            return self.like(None)
        held = [*[Known(1)] * (len(dims) - len(self.shape)), *self.shape]
        if name == "expand":
            return self.like([d if number(n) == -1 else n for d, n in zip(held, dims, strict=False)])
        return self.like([binary(ast.Mult, d, n, 0) for d, n in zip(held, dims, strict=False)])

    def _moved(self, name: str, args: Args) -> Tensor:
        if self.shape is None:
            return self
        if name == "t":
            return self.like(self.shape[::-1])
        places = [number(d) for d in (shape_of(args.positional) or [])]
        if any(p is None or not -len(self.shape) <= p < len(self.shape) for p in places) or not places:
            return self.like(None)
        shape = list(self.shape)
        if name == "permute":
            return self.like([shape[p] for p in places if p is not None])
        if len(places) == 2 and places[0] is not None and places[1] is not None:
            shape[places[0]], shape[places[1]] = shape[places[1]], shape[places[0]]
        return self.like(shape)

    def _reduced(self, args: Args) -> Any:
        at = number(args.get(0, "dim", "axis"))
        if self.shape is None or at is None:
            return self.like([] if not args.positional and not args.keywords else None)
        if not -len(self.shape) <= at < len(self.shape):
            return self.like(None)
        shape = list(self.shape)
        del shape[at]
        return self.like(shape)


def one_dimension(dims: Iterable[Any]) -> Any:
    """The product of dimensions."""
    total: Any = Known(1)
    for dim in dims:
        total = binary(ast.Mult, total, dim, 0)
    return total


def shape_of(values: Iterable[Any]) -> list[Any] | None:
    """The dimensions that are given one by one or as one tuple; None where they are not known."""
    dims = list(values)
    if len(dims) == 1 and isinstance(dims[0], Items):
        if dims[0].more:
            return None
        dims = dims[0].items
    return [dim if isinstance(dim, Known | Unknown | Choice) else Unknown("a dimension") for dim in dims]


def _made(args: Args, dims: list[Any] | None, default: str = "float32") -> Tensor:
    given = args.get(None, "dtype")
    device = args.get(None, "device")
    dtype = default if is_none(given) else str(known(dtype_of(given)) or NOT_KNOWN)
    return Tensor(dims, dtype, device_of(device) if device is not None else Known("cpu"))


_FILLED = ("zeros", "ones", "empty", "rand", "randn")


@function(*(f"{module}.{name}" for module in ("torch", "t", "numpy", "np") for name in _FILLED))
def _filled(reader: Reader, args: Args, path: str) -> Any:
    given = args.get(None, "size", "shape")
    return _made(args, shape_of([given]) if given is not None else shape_of(args.positional))


@function("torch.full", "t.full")
def _full(reader: Reader, args: Args, path: str) -> Any:
    value = known(args.get(1, "fill_value"))
    return _made(args, shape_of([args.get(0, "size")]), "int64" if isinstance(value, int) else "float32")


@function("torch.randint", "t.randint")
def _randint(reader: Reader, args: Args, path: str) -> Any:
    given = args.get(None, "size")
    if given is None:
        given = next((value for value in args.positional if isinstance(value, Items)), None)
    return _made(args, shape_of([given]) if given is not None else None, "int64")


@function("torch.randperm", "t.randperm")
def _randperm(reader: Reader, args: Args, path: str) -> Any:
    return _made(args, shape_of([args.get(0, "n")]), "int64")


@function("torch.arange", "t.arange")
def _arange(reader: Reader, args: Args, path: str) -> Any:
    from ..builtins_read import call_builtin

    items = call_builtin("range", args, reader)
    length = items.length()
    return _made(args, [Known(length, Source("computed", args.line)) if length is not None else Unknown("arange")],
                 "int64")  # fmt: skip


@function(*(f"torch.{name}_like" for name in (*_FILLED, "full", "randint")), "torch.clone")
def _like(reader: Reader, args: Args, path: str) -> Any:
    other = args.get(0)
    return Tensor(other.shape, other.dtype, other.device) if isinstance(other, Tensor) else Tensor(None)


@function("torch.tensor", "torch.as_tensor", "torch.LongTensor", "torch.Tensor", "torch.FloatTensor",
          "torch.from_numpy", "numpy.array", "np.array")  # fmt: skip
def _tensor(reader: Reader, args: Args, path: str) -> Any:
    value = args.get(0)
    if isinstance(value, Tensor):
        return value
    dims: list[Any] = []
    while isinstance(value, Items) and len(dims) < 6:
        length = value.length()
        dims.append(Known(length, Source("computed", args.line)) if length is not None else Unknown("a list"))
        value = value.items[0] if value.items else Unknown("an element")
    unknown = isinstance(value, Unknown) and not dims
    return _made(args, None if unknown else dims, "int64" if isinstance(known(value), int) else "float32")


@function("torch.cat", "torch.concat", "torch.concatenate", "t.cat", "torch.hstack", "torch.vstack")
def _cat(reader: Reader, args: Args, path: str) -> Any:
    items = reader.items_of(args.get(0, "tensors"))
    at = number(args.get(1, "dim", "axis", default=Known(0)))
    tensors = [item for item in items.items if isinstance(item, Tensor)]
    first = next((one for one in tensors if one.shape is not None), None)
    if first is None or first.shape is None or at is None or not -len(first.shape) <= at < len(first.shape):
        return Tensor(None)
    shape = list(first.shape)
    total: Any = Known(0)
    for one in tensors:
        total = binary(ast.Add, total, one.dim(at), args.line)
    length = items.length()
    if items.more or len(tensors) < len(items.items):
        total = (binary(ast.Mult, shape[at], Known(length), args.line) if length is not None and len(tensors) == 1
                 else Unknown("how many are joined is not known"))  # fmt: skip
    shape[at] = total
    return Tensor(shape, first.dtype, first.device)


@function("torch.stack", "t.stack")
def _stack(reader: Reader, args: Args, path: str) -> Any:
    items = reader.items_of(args.get(0, "tensors"))
    at = number(args.get(1, "dim", default=Known(0)))
    first = next((one for one in items.items if isinstance(one, Tensor) and one.shape is not None), None)
    if first is None or first.shape is None or at != 0:
        return Tensor(None)
    length = items.length()
    count = Known(length, Source("computed", args.line)) if length is not None else Unknown("how many are stacked")
    return Tensor([count, *first.shape], first.dtype, first.device)


@function("torch.load", "numpy.load", "np.load", 
          "torch.nn.utils.rnn.pad_sequence", "pad_sequence", "einops.einsum", "torch.einsum")  # fmt: skip
def _unknown_tensor(reader: Reader, args: Args, path: str) -> Any:
    return Tensor(None) if not path.endswith("load") else Unknown("what a file holds", line=args.line)
