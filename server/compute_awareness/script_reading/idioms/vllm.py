"""vLLM: engines and their generation. Found, not estimated: an engine takes a share of the card whatever it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Dict, Known, Source, Thing, Unknown, is_none
from .registry import function
from .tokens import Text, token_ids
from .torch_modes import dtype_of

if TYPE_CHECKING:
    from ..reader import Reader


class Engine(Thing):
    """`LLM(...)`."""

    label = "LLM"

    def __init__(self, name: Any, dtype: Any) -> None:
        self.name, self.dtype = name, dtype

    def held(self) -> Iterable[Any]:
        return ()

    def attribute(self, name: str, reader: Reader) -> Any:
        return Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name not in ("generate", "chat"):
            return Unknown(f"LLM.{name}()", line=args.line)
        ids = token_ids(args.get(0, "prompts"), reader)
        sampling = args.get(1, "sampling_params")
        tokens = sampling.items.get("max_tokens") if isinstance(sampling, Dict) else None
        if tokens is None:
            more = (isinstance(sampling, Dict) and not sampling.more) or is_none(sampling)
            default = Known(16, Source("library_default", args.line, "vLLM"))
            tokens = default if more else Unknown("the sampling parameters are not known")
        fields = {
            "model": self.name, "library": Known("vllm"), "dtype": self.dtype, "batch_size": ids.dim(0),
            "seq_len": ids.dim(1), "new_tokens": tokens,
        }  # fmt: skip
        reader.record("generation", f"LLM.{name}", args, fields, subject=self)
        return Text(ids.dim(0))


@function("vllm.LLM", "LLM")
def _engine(reader: Reader, args: Args, path: str) -> Any:
    given = args.get(None, "dtype")
    default = Known("auto", Source("library_default", args.line, "vLLM"))
    engine = Engine(args.get(0, "model"), default if is_none(given) else dtype_of(given))
    fields = {"model": engine.name, "library": Known("vllm"), "dtype": engine.dtype}
    for name in ("gpu_memory_utilization", "max_model_len", "tensor_parallel_size"):
        if name in args.keywords:
            fields[name] = args.keywords[name]
    reader.record("load", "vllm.LLM", args, fields, subject=engine)
    return engine


@function("vllm.SamplingParams", "SamplingParams")
def _sampling(reader: Reader, args: Args, path: str) -> Any:
    return Dict(dict(args.keywords), args.more)
