"""One call of a TransformerBridge, and the ledger its sections are played on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...models.spec import ModelSpec
from ..tape import Tape, Tensor
from .names import KEEP_THEIR_NAME, MIRRORED

FLOAT32 = 4
INT64 = 8


@dataclass(frozen=True)
class Run:
    """One call of the model: shapes, dtype width and what is asked of it."""

    spec: ModelSpec
    batch_size: int
    seq_len: int
    width: int
    """Bytes per element of the model's dtype."""
    compatibility_mode: bool = False
    processed: bool = False
    """enable_compatibility_mode() processed the weights, as it does by default."""
    selects: Callable[[str], bool] | None = None
    """Which hooks the cache keeps, by full name; None = not run with a cache."""
    cache_on_host: bool = False
    stop_at_layer: int | None = None
    """Number of blocks to run, 0..n_layers; None = the whole model with logits."""
    mirrored: bool = False
    """OPT in TransformerLens 4: its MLP, which is no module of its own, has names for the hooks of its matrices."""
    after_another: bool = False
    """A pass of the same shapes ran before, whose patterns the model still holds where it keeps them."""


class Pass:
    """The run of one section (embedding, one block, or the end) on a tape of its own.

    The capital names are bytes of the tensors that keep coming back: `X` the residual stream [b, s, d_model], `Q` and
    `K` the queries and the keys (or values), `M` the MLP's hidden layer, `S` the scores [b, heads, s, s].
    """

    def __init__(self, run: Run, aliases: dict[str, str], selected: frozenset[str], tape: Tape | None = None) -> None:
        self.run, self.spec = run, run.spec
        self.aliases = aliases
        self.selected = selected
        self.tape = tape or Tape()
        self.names: list[str] = []
        self.cache: dict[str, Tensor] = {}
        self.host: dict[str, int] = {}
        self.returned: list[Tensor] = []
        """What the Hugging Face model's output holds until the Bridge has taken the logits out of it."""
        self.b, self.s, self.w = run.batch_size, run.seq_len, run.width
        self.tokens = self.b * self.s
        self.X = self.w * self.tokens * run.spec.d_model
        self.Q = self.w * self.tokens * run.spec.q_width
        self.K = self.w * self.tokens * run.spec.kv_width
        self.M = self.w * self.tokens * run.spec.d_mlp
        self.S = self.w * self.b * run.spec.n_heads * self.s * self.s

    @property
    def half(self) -> bool:
        """Whether the model's dtype has 16 bits."""
        return self.w != FLOAT32

    def as_float32(self, nbytes: int) -> int:
        """Bytes of the same tensor in float32."""
        return nbytes * FLOAT32 // self.w

    def new(self, nbytes: int, component: str = "activations") -> Tensor:
        return self.tape.new(nbytes, component)

    def replace(self, old: Tensor, nbytes: int) -> Tensor:
        """`x = f(x)`: the new tensor exists before the old one goes."""
        new = self.new(nbytes)
        self.tape.drop(old)
        return new

    def receive(self, tensor: Tensor) -> Tensor:
        """A tensor of the section before, counted there; something else may hold it too."""
        incoming = self.tape.adopt(tensor.bytes, tensor.component)
        if tensor.refs > 1:
            self.tape.hold(incoming)
        return incoming

    def hook(self, name: str, tensor: Tensor, entry: int | None = None) -> Tensor:
        """A HookPoint: for each of its names the cache takes `tensor.detach()`, or a copy on the host.

        `entry` is the size of the entry where it is a view that is expanded beyond its storage.
        """
        fired, given = self.fire(name)
        for each in fired:
            if self.run.cache_on_host:
                self.host[each] = tensor.bytes if entry is None else entry
            else:
                self.cache[each] = self.tape.hold(tensor, "activation_cache")
        for each in given:
            if self.run.cache_on_host:
                self.host[each] = 0
            else:
                self.cache[each] = self.tape.hold(tensor)
        return tensor

    def fire(self, name: str) -> tuple[list[str], list[str]]:
        """A HookPoint is called: those of its names that the cache keeps.

        First the selected ones, each of which is stored; then the one that compatibility mode adds afterwards for a
        stored entry, which is the same tensor.
        """
        own, legacy = name, self.aliases.get(name)
        names = [own] + ([legacy] if legacy else [])
        if self.run.mirrored and own in MIRRORED:
            names.append(MIRRORED[own])
        self.names += [each for each in names if each not in self.names]
        fired = [each for each in names if each in self.selected]
        given: list[str] = []
        canonical = own if own in KEEP_THEIR_NAME or not legacy else legacy
        if self.run.compatibility_mode and canonical in fired:
            given = [each for each in names if each not in fired]
        return fired, given
