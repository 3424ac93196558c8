"""SAE classes of the script's own: parameters by their shapes, training loops and encodings.

A class counts as an SAE by its name (`AutoEncoder`, `CrossCoder`, `MySAE`) and by being an `nn.Module`. Its memory is
estimated as that of SAELens' standard SAE of the same sizes, which is a rough figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Class, Instance, Items, Known, Lib, Source, Thing, Unknown, known, number
from .registry import function
from .torch_modes import DTYPE_BYTES, FLOATS, dtype_of
from .torch_tensors import NOT_KNOWN, Tensor, one_dimension

if TYPE_CHECKING:
    from ..reader import Reader

_NAME = re.compile(r"(?i)sae|auto_?encoder|cross_?coder|trans_?coder")
INPUT, TRAINED, CAST = "<input>", "<trained>", "<dtype>"
_INIT = ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "normal_", "uniform_", "zeros_",
         "orthogonal_", "constant_", "trunc_normal_", "ones_")  # fmt: skip


class Weight(Tensor):
    """A parameter."""


class Linear(Thing):
    """`nn.Linear(a, b)`."""

    label = "layer"

    def __init__(self, width_in: Any, width_out: Any) -> None:
        self.width_in, self.width_out = width_in, width_out

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "weight":
            return Weight([self.width_out, self.width_in])
        return Weight([self.width_out]) if name == "bias" else Bound(self, name)

    def call(self, args: Args, reader: Reader) -> Any:
        given = args.get(0)
        shape = given.shape if isinstance(given, Tensor) else None
        return Tensor(None if shape is None else [*shape[:-1], self.width_out])


class Sequence(Thing):
    """`nn.Sequential`, `nn.ModuleList`."""

    label = "layers"

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def held(self) -> Iterable[Any]:
        return self.parts

    def item(self, index: Any, reader: Reader) -> Any:
        at = number(index)
        return self.parts[at] if at is not None and -len(self.parts) <= at < len(self.parts) else Unknown("a layer")

    def iterate(self, reader: Reader) -> Items:
        return Items("list", self.parts)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "append":
            self.parts.append(args.get(0))
        return self

    def call(self, args: Args, reader: Reader) -> Any:
        value = args.get(0)
        for part in self.parts:
            value = reader.call(part, Args((value,), {}, args.node)) if isinstance(part, Thing | Instance) else value
        return value


@function("nn.Parameter", "torch.nn.Parameter", "Parameter", "torch.nn.parameter.Parameter")
def _parameter(reader: Reader, args: Args, path: str) -> Any:
    value = args.get(0, "data")
    return Weight(value.shape, value.dtype, value.device) if isinstance(value, Tensor) else Weight(None)


@function("nn.Linear", "torch.nn.Linear")
def _linear(reader: Reader, args: Args, path: str) -> Any:
    return Linear(args.get(0, "in_features"), args.get(1, "out_features"))


@function("nn.Sequential", "torch.nn.Sequential", "nn.ModuleList", "torch.nn.ModuleList")
def _sequence(reader: Reader, args: Args, path: str) -> Any:
    if path.endswith("List"):
        return Sequence(list(reader.items_of(args.get(0)).items) if args.positional else [])
    return Sequence(list(args.positional))


@function(*(f"init.{name}" for name in _INIT))
def _initialised(reader: Reader, args: Args, path: str) -> Any:
    return args.get(0, "tensor")


def is_own_sae(value: Any) -> bool:
    """Whether it is an object of an SAE class of the text."""
    if not isinstance(value, Instance) or value.of is None:
        return False
    from ..classes import all_bases

    bases = all_bases(value.of)
    names = [value.of.node.name, *(base.node.name for base in bases if isinstance(base, Class))]
    module = any(isinstance(base, Lib) and base.last == "Module" for base in bases)
    return module and any(_NAME.search(name) for name in names)


def made(reader: Reader, value: Instance, args: Args) -> None:
    """Write down that an SAE of an own class is there."""
    if is_own_sae(value) and value.of is not None:
        reader.record("load_sae", value.of.node.name, args, sizes(value), subject=value)


def sizes(value: Instance) -> dict[str, Any]:
    """d_in, d_sae and dtype by the shapes of its parameters."""
    missing = Unknown("the shapes of its parameters are not known")
    fields: dict[str, Any] = {"library": Known("own"), "d_in": missing, "d_sae": missing}
    best = 0
    for name, held in value.attributes.items():
        rank = 3 if "enc" in name.lower() else 1 if "dec" in name.lower() else 2
        if isinstance(held, Sequence):
            held = next((part for part in held.parts if isinstance(part, Linear)), None)
        if isinstance(held, Linear):
            shape: list[Any] = [held.width_in, held.width_out]
            dtype = "float32"
        elif isinstance(held, Weight) and held.shape is not None and len(held.shape) >= 2:
            shape, dtype = held.shape, held.dtype
        else:
            continue
        if rank <= best:
            continue
        best = rank
        pair = (shape[-2], shape[-1]) if rank > 1 else (shape[-1], shape[0])
        fields |= {"d_in": pair[0], "d_sae": pair[1], "dtype": Known(dtype, Source("computed"))}
        if dtype == NOT_KNOWN:
            fields["dtype"] = Unknown("a dtype that is not known")
        fields["copies"] = shape[0] if len(shape) == 3 and rank > 1 else shape[1] if len(shape) == 3 else Known(1)
    if "dtype" in fields:
        fields["dtype"] = value.attributes.get(CAST, fields["dtype"])
    return fields


def cast(reader: Reader, value: Instance, name: str, args: Args) -> None:
    """`.to(dtype)`, `.half()`: its parameters have another dtype from here on.

    `load_state_dict` copies into the parameters that are there, whatever the checkpoint holds: shapes have to agree and
    the dtype stays (torch 2.13, nn/modules/module.py). Only with `assign=True` the dtype is the checkpoint's.
    """
    dtype: Any = None
    if name in FLOATS:
        dtype = Known(FLOATS[name], Source("literal", args.line))
    elif name == "load_state_dict":
        if known(args.get(2, "assign")) is True:
            dtype = Unknown("the dtype is the checkpoint's", line=args.line)
    elif name == "to":
        given = args.get(1, "dtype", default=args.get(0))
        plain = dtype_of(given)
        if known(plain) in DTYPE_BYTES:
            dtype = plain
        elif isinstance(plain, Unknown) and (given is args.get(1, "dtype") or "dtype" in plain.form):
            dtype = Unknown("a dtype that is not known", line=args.line)
    if dtype is None:
        return
    value.attributes[CAST] = dtype
    for event in reader.events:
        if event.subject is value and event.kind == "load_sae" and "dtype" in event.fields:
            event.fields["dtype"] = dtype


def called(reader: Reader, value: Instance, name: str, args: Args) -> None:
    """Its input is remembered; an encoding outside of training is a use of it."""
    given = args.get(0)
    inside = any(frame.owner is value for frame in reader.frames)
    if inside:
        return
    if isinstance(given, Tensor):
        value.attributes[INPUT] = given
    if name == "encode" and TRAINED not in value.attributes:
        from .sae_lens import sizes_of

        batch, seq_len, _ = sizes_of(given)
        fields = sizes(value) | {"batch_size": batch, "seq_len": seq_len}
        reader.record(
            "sae_inference", f"{value.of.node.name if value.of else 'SAE'}.encode", args, fields, subject=value
        )


def architecture_of(value: Instance) -> str:
    """What its name says it is."""
    name = value.of.node.name.lower() if value.of else ""
    for kind in ("crosscoder", "transcoder", "gated", "batchtopk", "topk", "jumprelu"):
        if kind in name.replace("_", ""):
            return kind
    return "standard"


def stepped(reader: Reader, optimizer: Any, args: Args) -> None:
    """`optimizer.step()`: a training step of the SAEs whose parameters it has."""
    for value in optimizer.of:
        if not is_own_sae(value):
            continue
        given = value.attributes.get(INPUT)
        tokens: Any = Unknown("the batch is not known")
        fields = sizes(value)
        if isinstance(given, Tensor) and given.shape:
            extra = 1 if number(fields.get("copies")) not in (None, 1) else 0
            tokens = one_dimension(given.shape[: max(1, len(given.shape) - 1 - extra)])
        fields |= {
            "architecture": Known(architecture_of(value), Source("assumed", args.line, "the class's name")),
            "train_batch_size_tokens": tokens, "optimizer": Known(optimizer.kind, Source("literal", optimizer.line)),
        }  # fmt: skip
        name = value.of.node.name if value.of else "SAE"
        event = reader.record("sae_training", f"training loop of {name}", args, fields, subject=value)
        if event is not None and not event.notes:
            event.notes.append(
                "an SAE class of the script's own: counted as SAELens' standard SAE of these sizes, roughly"
            )
