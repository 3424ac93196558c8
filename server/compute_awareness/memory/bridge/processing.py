"""Where the weights of a Bridge lie on the card once `enable_compatibility_mode()` has processed them.

They are made anew between copies that go again, so the segments that the caching allocator keeps are not full. Read
off transformer_lens 3.9.0: model_bridge/bridge.py (process_weights), weight_processing.py (fold_layer_norm,
center_writing_weights, center_unembed and fold_value_biases, which copy all weights or replace them one by one).
"""

from __future__ import annotations

from functools import lru_cache

from ...models.spec import ModelSpec
from ..card.allocator import SMALL, UNIT, _Segments
from ..parameters import hf_tensors
from .attention import JOINT
from .run import FLOAT32

_State = dict[str, tuple[int, int]]
"""Elements and block of each matrix, by a name."""


@lru_cache(maxsize=16)
def processed(spec: ModelSpec, width: int) -> _Segments:
    """The allocator after processing on the card, once its cache was emptied.

    `width` is bytes per element of the model's dtype. What is no matrix is taken to stay where it was loaded.
    """
    card = _Card()
    originals = [(nbytes, card.make(nbytes)) for nbytes in hf_tensors(spec, width)]
    given = _named(spec, card, width)
    if width < FLOAT32:
        card.free(given)
        given = _named(spec, card, FLOAT32)
    elif spec.tied_embeddings:  # only the unembedding is copied, to be processed on its own
        card.free({name: given.pop(name) for name in list(given) if name != "unembed"})
    else:
        card.free(given)
        given = {}
    state = _named(spec, card, FLOAT32)
    layer_norm = spec.norm == "layernorm"
    _fold(spec, card, state, layer_norm)
    if layer_norm:
        for name in state:
            if name.endswith(("embed", "positions", "o", "out")) and name != "unembed":
                card.replace(state, name, FLOAT32)
    for centred in [True, False] if not spec.logit_softcap else [False]:
        copy = _named(spec, card, FLOAT32)
        card.free(state)
        state = copy
        if centred:
            card.replace(state, "unembed", FLOAT32)
    if width < FLOAT32:
        for name in state:
            card.replace(state, name, width)
    card.free(given)
    joint = width * 3 * spec.d_model**2 if spec.architecture in JOINT else 0
    for nbytes, block in originals:
        if nbytes != joint and nbytes > SMALL * UNIT:
            card.allocator.free(block)
    card.allocator.release_cached()
    return card.allocator


class _Card:
    """The allocator while the weights are processed."""

    def __init__(self) -> None:
        self.allocator = _Segments(None)

    def make(self, nbytes: int) -> int:
        return self.allocator.malloc(-(-nbytes // UNIT))

    def free(self, state: _State) -> None:
        for _, block in state.values():
            self.allocator.free(block)

    def replace(self, state: _State, name: str, width: int) -> None:
        """A matrix is made anew, and the old one goes."""
        elements, block = state[name]
        state[name] = elements, self.make(width * elements)
        self.allocator.free(block)


def _reads(spec: ModelSpec) -> dict[str, int]:
    """Matrices of a layer that read the residual stream, into which norms are folded; elements."""
    d, kv = spec.d_model, spec.d_model * spec.kv_width
    mlp = {"gate": d * spec.d_mlp} if spec.gated_mlp else {}
    return {"q": d * spec.q_width, "k": kv, "v": kv} | mlp | {"in": d * spec.d_mlp}


def _named(spec: ModelSpec, card: _Card, width: int) -> _State:
    """A copy of every matrix, in the order of the state dict."""
    d = spec.d_model
    sizes = {"embed": spec.d_vocab * d}
    if spec.positional == "learned":
        sizes["positions"] = (spec.n_ctx + spec.positions_offset) * d
    layer = _reads(spec)
    mlp = {name: layer.pop(name) for name in ("gate", "in") if name in layer}
    for i in range(spec.n_layers):
        for name, size in (layer | {"o": d * spec.q_width} | mlp | {"out": d * spec.d_mlp}).items():
            sizes[f"{i}.{name}"] = size
    sizes["unembed"] = spec.d_vocab * d
    return {name: (size, card.make(width * size)) for name, size in sizes.items()}


def _fold(spec: ModelSpec, card: _Card, state: _State, layer_norm: bool) -> None:
    """fold_layer_norm: a layer's q, k and v first, which replace the old ones together; then the others."""
    for i in range(spec.n_layers):
        old = {name: state[f"{i}.{name}"] for name in "qkv"}
        for name, (elements, _) in old.items():
            state[f"{i}.{name}"] = elements, card.make(FLOAT32 * elements)
        if layer_norm:  # the centred ones stand beside those that are scaled only
            card.free({name: (elements, card.make(FLOAT32 * elements)) for name, (elements, _) in old.items()})
        for name in ("gate", "in") if spec.gated_mlp else ("in",):
            elements = state[f"{i}.{name}"][0]
            card.replace(state, f"{i}.{name}", FLOAT32)
            if layer_norm:
                card.allocator.free(card.make(FLOAT32 * elements))
        card.free(old)
    card.replace(state, "unembed", FLOAT32)
