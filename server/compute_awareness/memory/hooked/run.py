"""One call of a HookedTransformer, and the ledger its sections are played on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...models.spec import ModelSpec
from ..tape import Tape, Tensor
from .versions import NEWEST, Release


@dataclass(frozen=True)
class Run:
    """One call of the model: shapes, dtype width and what is asked of it."""

    spec: ModelSpec
    batch_size: int
    seq_len: int
    width: int
    """Bytes per element of the model's dtype."""
    folded: bool = True
    """Norm weights are folded into the next matrix, as from_pretrained does by default."""
    selects: Callable[[str], bool] | None = None
    """Which hooks the cache keeps, by full name; None = not run with a cache."""
    cache_on_host: bool = False
    gradients: bool = False
    trainable: bool = True
    """Whether parameters require gradients (read where `gradients` is; see hooked_backward)."""
    stop_at_layer: int | None = None
    """Number of blocks to run, 0..n_layers; None = the whole model with logits."""
    use_attn_result: bool = False
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    autocast: bool = False
    """torch.autocast to 16 bit around forward and loss, by CUDA's list of operators (read where `gradients` is; without
    them: `call_under_autocast`)."""
    release: Release = NEWEST
    """What an older TransformerLens does otherwise."""

    @property
    def elementwise(self) -> frozenset[str]:
        """Products of a block that are multiplied out number by number and summed (see `runtime.flops`)."""
        heads = self.release.multiplied_heads and (self.use_split_qkv_input or self.use_attn_in)
        results = self.use_attn_result and not self.release.contracted_results
        return frozenset({"q", "k", "v"} if heads else ()) | frozenset({"o"} if results else ())


class Pass:
    """The run of one section (embedding, one block, or the end) on a tape of its own."""

    def __init__(self, run: Run, selected: frozenset[str] | None) -> None:
        self.run = run
        self.tape = Tape()
        self.selected = selected
        self.names: list[str] = []
        self.cache: dict[str, Tensor] = {}
        self.host: dict[str, int] = {}
        self.tokens = run.batch_size * run.seq_len

    def new(self, elements: int, width: int | None = None) -> Tensor:
        return self.tape.new(elements * (self.run.width if width is None else width))

    def receive(self, tensor: Tensor) -> Tensor:
        """A tensor of the section before, counted there; the cache or autograd may hold it too."""
        incoming = self.tape.adopt(tensor.bytes, tensor.component)
        if tensor.refs > 1:
            self.tape.hold(incoming)
        return incoming

    def hook(self, name: str, tensor: Tensor) -> Tensor:
        """A HookPoint: the cache takes `tensor.detach()`, which shares its storage, or a copy on the host."""
        if name not in self.names:
            self.names.append(name)
        if self.selected is None or name not in self.selected:
            return tensor
        if self.run.cache_on_host:
            self.host[name] = tensor.bytes
            return tensor
        before = self.cache.get(name)
        self.cache[name] = self.tape.hold(tensor, "activation_cache")
        if before is not None:  # ln1 runs for q, k and v; the cache keeps the last, autograd may keep all
            if before.refs > 1:
                self.tape.book(before, "activations")
            self.tape.drop(before)
        return tensor

    def save(self, *tensors: Tensor) -> None:
        """Autograd keeps these until backward."""
        if self.run.gradients:
            for tensor in tensors:
                self.tape.hold(tensor, "activations" if tensor.component == "temporaries" else None)
