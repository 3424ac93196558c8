"""One layer of a Hugging Face transformers 5.23 model that reads one new token per sequence and a cache of the others.

Everything but attention works on a single token, and is played by `transformers_forward`. What grows with the context
is written down here: `torch.cat` makes the longer keys beside the old ones, and what attention computes from them.

Sources: `cache_utils.py` (DynamicLayer, DynamicSlidingWindowLayer), `models/*/modeling_*.py`,
`integrations/sdpa_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..tape import Tape, Tensor
from .forward import layer as whole_layer
from .parts import FLOAT32, INT64, Pass
from .scores import in_math_kernel, matmul, merging_copies, rebind, softmax


@dataclass(frozen=True)
class Step(Pass):
    """One call of the model inside `generate`: `s` new tokens that look at `keys` keys, their own among them."""

    keys: int = 0

    @property
    def position_rows(self) -> int:
        return self.b

    @property
    def S(self) -> int:
        return self.w * self.b * self.spec.n_heads * self.s * self.keys

    @property
    def K_all(self) -> int:
        """Keys (or values) of the layer, [b, n_kv_heads, keys, d_head]."""
        return self.w * self.b * self.keys * self.spec.kv_width

    @property
    def Q_all(self) -> int:
        """The same with one head for each query head."""
        return self.w * self.b * self.keys * self.spec.q_width


def decode_layer(p: Step, stored: int, sliding: bool) -> Tape:
    """One layer for one new token; its input is held outside.

    Args:
        stored: bytes of the keys that the cache holds before (as many of values), on the tape of the caller already.
        sliding: a DynamicSlidingWindowLayer, which lets go of the old values only after both were concatenated.

    Returns:
        The layer's tape: its live bytes are what the cache grew by, negative where a long prompt is cut to the window.
    """
    tape = p.tape
    old_k, old_v = tape.adopt(stored, "kv_cache"), tape.adopt(stored, "kv_cache")
    normed = tape.new(p.X if p.spec.norm_placement != "post" else 0, "activations")
    to_the_end, until_cached = _one_token(p)
    held = [tape.new(n, "activations") for n in to_the_end]
    replaced = [tape.new(n, "activations") for n in until_cached]
    _concatenate(p, old_k, old_v, sliding, replaced)
    mixed, weights = _mix(p)
    out = tape.new(p.X, "activations")
    tape.drop(out, mixed, normed, *weights, *held)
    # Norms, projections and MLP of one token; the cache's growth is on this tape already.
    tape.append(whole_layer(replace(p, tape=Tape(), kv_cache=False)))
    return tape


def growing_part(p: Step, stored: int, sliding: bool) -> Tape:
    """Of `decode_layer` what is as long as the context, for the caching allocator: it frees the old keys and values,
    and leaves the new ones."""
    tape = p.tape
    _concatenate(p, tape.adopt(stored, "kv_cache"), tape.adopt(stored, "kv_cache"), sliding, [])
    mixed, weights = _mix(p)
    tape.drop(mixed, *weights)
    return tape


def _concatenate(p: Step, old_k: Tensor, old_v: Tensor, sliding: bool, replaced: list[Tensor]) -> None:
    """DynamicCache.update: keys, then values, each made anew beside the old ones, which go then. `replaced`: the
    one-token tensors that go when both are in the cache."""
    tape = p.tape
    tape.book(old_k, "temporaries")  # what is being replaced is no longer the cache
    tape.new(p.K_all, "kv_cache")
    if not sliding:
        tape.drop(old_k)
    tape.book(old_v, "temporaries")
    tape.new(p.K_all, "kv_cache")
    if sliding:
        tape.drop(old_k)
    tape.drop(old_v, *replaced)


def _one_token(p: Step) -> tuple[list[int], list[int]]:
    """Bytes of the one-token tensors that attention holds to its end, and until keys and values are in the cache.

    The names that `transformers_attention` follows one by one, at the moment when the cache is updated.
    """
    spec = p.spec
    rotary = spec.rotary_dim or spec.d_head
    q_part, k_part = p.Q * rotary // spec.d_head, p.K * rotary // spec.d_head
    match spec.architecture:
        case "GPT2LMHeadModel" | "BloomForCausalLM":
            return [3 * p.X], []
        case "GPTNeoXForCausalLM" | "Phi3ForCausalLM":
            return [p.Q + 2 * p.K, p.Q], [p.K]
        case "PhiForCausalLM":
            return [p.Q, p.K, q_part, k_part, p.Q], [p.K, p.K]
        case "GPTJForCausalLM":
            sincos = p.w * p.b * rotary
            return [p.X, p.X, *gptj_tables(p), sincos, q_part, k_part, p.X], [p.X, p.X]
        case _:
            return [p.Q], [p.K, p.K]


def gptj_tables(p: Step) -> list[int]:
    """GPTJAttention._get_embed_positions: the whole float32 position table, repeated per sequence of the batch because
    `generate` passes position ids of the batch; and the indices that gather from it."""
    rotary = p.spec.rotary_dim or p.spec.d_head
    return [FLOAT32 * p.b * p.spec.n_ctx * rotary, INT64 * p.tokens * rotary]


def _mix(p: Step) -> tuple[Tensor, list[Tensor]]:
    """From q and the cached keys and values to the weighted values [b, 1, heads * d_head], and eager's weights."""
    if p.spec.architecture in ("GPTNeoForCausalLM", "GPTJForCausalLM"):
        return _float32_scores(p)
    if p.spec.architecture == "BloomForCausalLM":
        raw = p.tape.new(p.S, "activations")
        scores = p.tape.hold(p.tape.new(p.S, "activations"))
        weights = softmax(p, scores, upcast=True)
        return p.tape.new(p.X, "activations"), [raw, scores, weights]
    if p.attention == "eager":
        return _eager(p)
    return (_math_kernel(p) if in_math_kernel(p) else _fused_kernel(p)), []


def _fused_kernel(p: Step) -> Tensor:
    """sdpa: heads are grouped by the kernel, or packed by transformers where there is a mask; nothing is repeated."""
    tape = p.tape
    bias = tape.new(p.w * p.b * p.keys if p.masked else 0)
    out = tape.new(p.Q, "activations")
    tape.touch(FLOAT32 * p.b * p.spec.n_heads)
    tape.drop(bias)
    return out


def _math_kernel(p: Step) -> Tensor:
    """_scaled_dot_product_attention_math: repeats the grouped keys and values, then scales the keys; in float32."""
    tape, wide_all = p.tape, p.as_float32(p.Q_all)
    half = p.w != FLOAT32
    cached = wide_all * p.spec.n_kv_heads // p.spec.n_heads
    held = [tape.new(p.as_float32(p.Q)), tape.new(cached), tape.new(cached)] if half else []
    held += [tape.new(p.as_float32(p.Q)), tape.new(wide_all), tape.new(wide_all)]
    scaled_keys = tape.new(wide_all)
    scores = tape.new(p.as_float32(p.S), "activations")
    tape.drop(scaled_keys)
    weights = rebind(p, scores, p.as_float32(p.S))
    out = tape.new(p.as_float32(p.Q), "activations")
    if half:
        out = rebind(p, out, p.Q)
    tape.drop(weights, *held)
    return out


def _eager(p: Step) -> tuple[Tensor, list[Tensor]]:
    """eager_attention_forward, as in `transformers_scores.eager`: repeat_kv copies every key and value there is."""
    tape, spec, repeated = p.tape, p.spec, []
    copies = False
    if spec.n_heads > spec.n_kv_heads > 1:
        repeated = [tape.new(p.Q_all, "activations"), tape.new(p.Q_all, "activations")]
    elif spec.n_heads > spec.n_kv_heads:
        copies = p.b > 1  # one head expands without a copy, but merging batch and heads then makes one
    fused = spec.architecture == "GPT2LMHeadModel" and merging_copies(p, "fused")
    scores = matmul(p, p.Q, p.Q_all, p.S, fused, copies)
    for _ in range(1 + 3 * spec.attn_softcap + 1):
        scores = rebind(p, scores, p.S)
    weights = softmax(p, scores, upcast=spec.architecture != "GPT2LMHeadModel")
    mixed = matmul(p, 0, p.Q_all, p.Q, False, copies)
    tape.drop(*repeated)
    return mixed, [weights]


def _float32_scores(p: Step) -> tuple[Tensor, list[Tensor]]:
    """`_attn` of GPT-Neo and GPT-J: q and all keys upcast, scores and softmax in float32."""
    tape, wide = p.tape, p.as_float32(p.S)
    half = p.w != FLOAT32
    upcast = [tape.new(p.as_float32(p.Q)), tape.new(p.as_float32(p.Q_all))] if half else []
    scores = tape.new(wide, "activations")
    for _ in range(3):  # local mask or scaling, causal mask, softmax
        scores = rebind(p, scores, wide)
    if half:
        scores = rebind(p, scores, p.S)
    mixed = tape.new(p.Q, "activations")
    tape.drop(*upcast)
    return mixed, [scores]
