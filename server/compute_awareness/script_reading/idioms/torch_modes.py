"""torch: gradient modes, autocast, whether there is a GPU, dtypes and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Choice, Dict, Function, Known, Lib, Source, Unknown, known
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader

_DTYPES = {
    "float32": "float32", "float": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "half": "float16", "fp16": "float16", "float64": "float64", "double": "float64",
    "int64": "int64", "long": "int64", "int32": "int32", "int": "int32", "bool": "bool", "uint8": "uint8",
    "int8": "int8", "int16": "int16",
}  # fmt: skip
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "int64": 8, "int32": 4, "bool": 1, "uint8": 1,
               "int8": 1, "int16": 2}  # fmt: skip
FLOATS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64"}
"""Methods of modules and tensors that change the dtype."""


def dtype_of(value: Any) -> Any:
    """A dtype as a value: Known of its plain name, or Unknown. None and "auto" as they are."""
    if isinstance(value, Choice):
        from ..values import choose

        return choose(dtype_of(option) for option in value.options)
    if isinstance(value, Lib) and value.last in _DTYPES:
        return Known(_DTYPES[value.last], Source("literal"))
    if isinstance(value, Known) and isinstance(value.value, str):
        name = value.value.removeprefix("torch.")
        return Known(_DTYPES.get(name, name), value.source)
    return value if isinstance(value, Known | Unknown) else Unknown("a dtype that is not known")


def device_of(value: Any) -> Any:
    """A device as a value: Known("cuda"), Known("cpu"), ... `cuda:0` keeps its number."""
    if isinstance(value, Dict):  # device_map={"": "cuda"}
        held = list(value.items.values())
        return device_of(held[0]) if len(held) == 1 else Unknown("several devices")
    if isinstance(value, Known) and isinstance(value.value, int):
        return Known(f"cuda:{value.value}", value.source)
    return value if isinstance(value, Known | Choice | Unknown) else Unknown("a device that is not known")


@function("torch.device")
def _device(reader: Reader, args: Args, path: str) -> Any:
    return device_of(args.get(0))


@function("torch.cuda.is_available", "cuda.is_available", "t.cuda.is_available")
def _has_cuda(reader: Reader, args: Args, path: str) -> Any:
    return Known(
        reader.has_gpu, Source("assumed", args.line, "a GPU is there" if reader.has_gpu else "no GPU is there")
    )


@function("torch.backends.mps.is_available", "mps.is_available", "torch.mps.is_available")
def _has_mps(reader: Reader, args: Args, path: str) -> Any:
    return Known(False, Source("assumed", args.line, "no Apple GPU"))


@function(
    "transformer_lens.utils.get_device", "utils.get_device", "get_device", "transformer_lens.utilities.get_device"
)
def _get_device(reader: Reader, args: Args, path: str) -> Any:
    return Known("cuda" if reader.has_gpu else "cpu", Source("assumed", args.line, "a GPU is there"))


@function("torch.cuda.device_count")
def _count(reader: Reader, args: Args, path: str) -> Any:
    return Unknown("how many cards there are", line=args.line)


@function("torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad", "no_grad", "inference_mode", "t.no_grad",
          "t.inference_mode")  # fmt: skip
def _no_grad(reader: Reader, args: Args, path: str) -> Any:
    function_ = args.get(0)
    if isinstance(function_, Function):
        function_.decorators = (*function_.decorators, Lib("torch.no_grad"))
        return function_
    on = truthy(args.get(0, "mode")) is False and path.endswith("inference_mode")
    return Dict({"gradients": on})


@function("torch.enable_grad", "enable_grad")
def _enable_grad(reader: Reader, args: Args, path: str) -> Any:
    return Dict({"gradients": True})


@function("torch.set_grad_enabled", "set_grad_enabled", "t.set_grad_enabled")
def _set_grad(reader: Reader, args: Args, path: str) -> Any:
    on = truthy(args.get(0, "mode"))
    reader.gradients[-1] = on is not False
    return Dict({"gradients": on is not False})


@function("torch.autocast", "torch.cuda.amp.autocast", "torch.amp.autocast", "autocast")
def _autocast(reader: Reader, args: Args, path: str) -> Any:
    given = args.get(1, "dtype")
    if truthy(args.get(None, "enabled", default=Known(True))) is False:
        return Dict({"autocast": None})
    default = "float16" if "cuda.amp" in path or str(known(args.get(0)) or "cuda").startswith("cuda") else "bfloat16"
    return Dict({"autocast": known(dtype_of(given)) if given is not None else default})
