"""The ActivationCache that `run_with_cache` returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Items, Known, Source, Thing, Unknown, known
from .models import Model
from .torch_tensors import Tensor

if TYPE_CHECKING:
    from ..events import Event
    from ..reader import Reader
from .act_names import hook_name


class Cache(Thing):
    """An ActivationCache: which of its entries the script reads decides whether it should hold the others."""

    label = "cache"

    def __init__(self, event: Event | None, batch: Any, seq_len: Any, model: Model | None) -> None:
        self.event, self.batch, self.seq_len, self.model = event, batch, seq_len, model
        self.read: list[str] = []
        self.read_all = False
        self.on_cpu = False

    def held(self) -> Iterable[Any]:
        return (self.event,) if self.event else ()

    def escape(self) -> None:
        self.read_all = True

    def item(self, index: Any, reader: Reader) -> Any:
        name = hook_name(index)
        if name is None:
            self.read_all = True
        elif name not in self.read:
            self.read.append(name)
        return self.tensor(name)

    def tensor(self, name: str | None) -> Tensor:
        from ...hook_names import hook_width

        spec = self.model.spec() if self.model else None
        width = hook_width(spec, name) if spec and name else None
        dtype = str(known(self.model.dtype) or "float32") if self.model else "float32"
        last = (name or "").rpartition(".")[2]
        if width is None or last in ("hook_z", "hook_q", "hook_k", "hook_v", "hook_pattern", "hook_attn_scores"):
            heads: list[Any] = [self.batch, self.seq_len, Unknown("heads"), Unknown("width")]
            if spec is not None and last in ("hook_z", "hook_q"):
                heads[2:] = [Known(spec.n_heads), Known(spec.d_head)]
            shape = heads if last in ("hook_z", "hook_q", "hook_k", "hook_v") else None
            return Tensor(shape, dtype, None, [self])
        return Tensor([self.batch, self.seq_len, Known(width, Source("model"))], dtype, None, [self])

    def iterate(self, reader: Reader) -> Items:
        self.read_all = True
        return Items("list", [Unknown("a hook name")], True)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name in ("to", "cpu"):
            if name == "cpu" or str(known(args.get(0, "device"))) == "cpu":
                self.on_cpu = True
            return self
        if name in ("remove_batch_dim", "detach"):
            return self
        if name in ("items", "values", "keys"):
            self.read_all = True
            return Items(
                "list", [Items("tuple", [Unknown("a hook name"), Tensor(None, "float32", None, [self])])], True
            )
        self.read_all = True  # stack_activation, decompose_resid, logit_attrs, ...
        return Tensor(None)
