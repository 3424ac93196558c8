"""What a Hugging Face transformers 5.23 model makes before its first layer: embeddings, masks, position tables.

All of it stays until the model's `forward` returns, beside every layer. Sources: `models/*/modeling_*.py`,
`masking_utils.py`.
"""

from __future__ import annotations

from ...models.spec import ModelSpec
from ..tape import Tensor
from .attention import rotary_width
from .parts import FLOAT32, INT64, Pass, norm

_SCALED_EMBEDDING = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
_TWO_MASKS = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Olmo3ForCausalLM"})
_WINDOW_EVERYWHERE = frozenset({"MistralForCausalLM", "Phi3ForCausalLM"})


def slides(spec: ModelSpec, layer: int) -> bool:
    """Whether transformers gives `layer` a sliding-window mask and cache."""
    if spec.architecture in _WINDOW_EVERYWHERE:
        return spec.window is not None
    return spec.architecture in _TWO_MASKS and spec.is_local(layer)


def masked(p: Pass, windowed: bool) -> bool:
    """Whether a layer's sdpa call gets a mask: where its window is not longer than the sequence."""
    return p.attention == "sdpa" and windowed and p.spec.window is not None and p.s >= p.spec.window


def embed(p: Pass) -> tuple[list[Tensor], Tensor | None]:
    """Everything before the first layer.

    Returns what the model's `forward` holds until it returns, and the residual stream where it is a tensor of its own
    (None: it is the embedding).
    """
    tape, spec = p.tape, p.spec
    embedded = tape.new(p.X, "activations")
    if spec.architecture in _SCALED_EMBEDDING:
        scaled = tape.new(p.X, "activations")
        p.visit("embed")
        tape.drop(embedded)
        embedded = scaled
    held = [p.gives("embed", embedded)]
    x = None
    if spec.architecture == "OPTForCausalLM":
        held += [tape.new(FLOAT32 * p.tokens), tape.new(INT64 * p.tokens)]
    elif spec.architecture != "BloomForCausalLM":
        held.append(tape.new(INT64 * p.s))
    if spec.architecture in ("GPT2LMHeadModel", "GPTNeoForCausalLM", "OPTForCausalLM"):
        rows = p.tokens if spec.architecture == "OPTForCausalLM" else p.s
        held.append(p.gives("positions", tape.new(p.w * rows * spec.d_model, "activations")))
        x = tape.new(p.X, "activations")
    if spec.architecture == "BloomForCausalLM":
        x = norm(p, p.X, p.tokens)
        held += _alibi(p)
    p.gives("input", x or embedded)
    held += _masks(p)
    if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM":
        held += rotary_tables(p, p.s)
    return held, x


def _alibi(p: Pass) -> list[Tensor]:
    """BloomModel.forward: slopes [heads], and alibi [b * heads, 1, s] made in float32."""
    tape, heads = p.tape, p.spec.n_heads
    slopes = tape.new(FLOAT32 * heads)
    one = tape.new(FLOAT32 * heads * p.s)
    alibi = tape.new(FLOAT32 * p.b * heads * p.s)
    tape.drop(one)
    if p.w != FLOAT32:
        narrow = tape.new(p.w * p.b * heads * p.s)
        tape.drop(alibi)
        alibi = narrow
    return [slopes, alibi]


def _masks(p: Pass) -> list[Tensor]:
    """masking_utils.create_causal_mask and create_sliding_window_causal_mask.

    Eager attention gets a float mask [b, 1, s, s]. sdpa gets none where it can be told to be causal, and a boolean
    one [1, 1, s, s], expanded over the batch, where the window is shorter than the sequence.
    """
    spec = p.spec
    windows: list[bool] = [False, True] if spec.architecture in _TWO_MASKS else [slides(spec, 0)]
    return [mask(p, p.s, window) for window in windows if p.attention == "eager" or masked(p, window)]


def mask(p: Pass, keys: int, window: bool) -> Tensor:
    """masking_utils.sdpa_mask [1, 1, s, keys] of bool, expanded over the batch; eager_mask makes floats of it."""
    tape, cells = p.tape, p.s * keys
    ranges = tape.new(INT64 * (p.s + keys))
    if window:
        tape.touch(2 * cells)
        inside = tape.new(cells)
        causal = tape.new(cells)
        made = tape.new(cells)
        tape.drop(inside, causal)
    else:
        made = tape.new(cells)
    if p.attention == "eager":
        bias = tape.new(p.w * p.b * cells)
        tape.drop(made)
        made = bias
    tape.drop(ranges)
    return made


def rotary_tables(p: Pass, rows: int) -> list[Tensor]:
    """Cosines and sines [rows, rotary_dim], made in float32, per kind of layer; `rows` is s, or b*s in generate."""
    tape, spec = p.tape, p.spec
    table = FLOAT32 * rows * (spec.rotary_dim or spec.d_head)
    kinds = 1
    if spec.architecture in ("Gemma3ForCausalLM", "Olmo3ForCausalLM"):
        kinds = len({spec.is_local(layer) for layer in range(spec.n_layers)})
    tables = []
    for _ in range(kinds):
        angles = [tape.new(table // 2), tape.new(table)]
        wide = [tape.new(table), tape.new(table)]
        if rotary_width(p) != FLOAT32:
            narrow = [tape.new(table * p.w // FLOAT32) for _ in range(2)]
            tape.drop(*wide)
            wide = narrow
        tape.drop(*angles)
        tables += wide
    return tables
