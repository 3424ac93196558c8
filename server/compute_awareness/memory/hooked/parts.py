"""The parts of a HookedTransformer: norms, projections, rotary embedding, activation functions, MLP.

Read off transformer_lens 3.9.0: HookedTransformer.py, components/{abstract_attention,grouped_query_attention,
transformer_block,layer_norm,layer_norm_pre,rms_norm,rms_norm_pre,embed,pos_embed,unembed}.py, components/mlps/
{mlp,gated_mlp}.py, utilities/{attention,activation_functions}.py. Each function below writes down one of theirs in
its own order: which tensors it makes, which the frames of running calls keep, which hooks see them.

Symbols: b batch, s seq, T = b*s, d d_model, H heads, Q = H*d_head, KV = n_kv_heads*d_head, m d_mlp, V vocabulary,
w bytes of the model's dtype. Norms compute in float32 whatever the model's dtype, so their hooks hold 4-byte values.
"""

from __future__ import annotations

from ..tape import Tensor
from ..weights import tl_rotary_table_bytes
from .run import Pass


def norm(p: Pass, name: str, x: Tensor, rows: int, length: int, *, pre: bool, rms: bool) -> Tensor:
    """LayerNorm, LayerNormPre, RMSNorm or RMSNormPre over `rows` rows of `length`. The caller keeps `x`."""
    t, half = p.tape, p.run.width < 4
    inner = p.new(rows * length, 4) if half else x
    owned = half
    if not rms:
        mean = p.new(rows, 4)
        centred = p.new(rows * length, 4)
        t.drop(mean)
        if owned:
            t.drop(inner)
        inner, owned = centred, True
    squared = p.new(rows * length, 4)
    p.save(inner)
    mean = p.new(rows, 4)
    t.drop(squared)
    shifted = p.new(rows, 4)
    t.drop(mean)
    scale = p.new(rows, 4)
    t.drop(shifted)
    p.save(scale)
    p.hook(f"{name}.hook_scale", scale)
    normalized = p.new(rows * length, 4)
    if p.run.release.norm_hook_on_output and not pre and not rms:
        return _layer_norm_2(p, name, normalized, [scale, inner] if owned else [scale])
    p.hook(f"{name}.hook_normalized", normalized)
    out = normalized
    if half:
        out = p.new(rows * length)
        t.drop(normalized)
    if not pre:
        if owned:
            t.drop(inner)
            owned = False
        # The normalised input keeps its name until the call returns.
        named, out = out, p.new(rows * length)
        p.save(named)
        if not rms:
            shifted = p.new(rows * length)
            t.drop(out)
            out = shifted
        t.drop(named)
    if owned:
        t.drop(inner)
    t.drop(scale)
    return out


def _layer_norm_2(p: Pass, name: str, x: Tensor, held: list[Tensor]) -> Tensor:
    """The end of LayerNorm.forward in 2.x, in float32: hook_normalized(x * w + b).to(dtype). `x` takes the place of
    the centred input, the last of `held`."""
    t = p.tape
    elements = x.bytes // 4
    t.drop(*held[1:])
    scaled = p.new(elements, 4)
    shifted = p.new(elements, 4)
    t.drop(scaled)
    p.hook(f"{name}.hook_normalized", shifted)
    out = shifted
    if p.run.width < 4:
        out = p.new(elements)
        t.drop(shifted)
    t.drop(x, held[0])
    return out


def block_norm(p: Pass, name: str, x: Tensor, heads: int = 1, *, foldable: bool = True) -> Tensor:
    """ln1, ln2, ln1_post or ln2_post. Gives back an owned tensor (x itself, held once more, without norms)."""
    spec = p.run.spec
    if spec.norm == "none":
        return p.tape.hold(x)
    pre = p.run.folded and foldable and spec.folds_norms_tl
    return norm(p, name, x, p.tokens * heads, spec.d_model, pre=pre, rms=spec.norm == "rmsnorm")


def add_bias(p: Pass, product: Tensor) -> Tensor:
    """A product of matrices with its bias: one kernel makes both, but up to 2.1 the sum is a second tensor. Takes over
    `product`."""
    if not p.run.release.added_biases:
        return product
    out = p.tape.new(product.bytes, product.component)
    p.tape.drop(product)
    return out


def project(p: Pass, x: Tensor, heads: int, per_head: bool) -> Tensor:
    """utilities/attention.py: q, k or v of `heads` heads from the normed input."""
    t, spec = p.tape, p.run.spec
    if per_head:  # complex_attn_linear: einsum, then + bias
        product = p.new(p.tokens * heads * spec.d_head * (spec.d_model if p.run.release.multiplied_heads else 1))
        if p.run.release.multiplied_heads:
            summed = p.new(p.tokens * heads * spec.d_head)
            t.drop(product)
            product = summed
        p.save(x)
        out = p.new(p.tokens * heads * spec.d_head)
        t.drop(product)
        return out
    # simple_attn_linear: the weight [head, d_model, d_head] is flattened, which copies it unless there is one head.
    weight = p.new(heads * spec.d_head * spec.d_model) if heads > 1 else None
    out = p.new(p.tokens * heads * spec.d_head)
    p.save(x)
    if weight is not None:
        p.save(weight)
        t.drop(weight)
    return add_bias(p, out)


def rotary(p: Pass, x: Tensor, heads: int, table: Tensor | None) -> Tensor:
    """apply_rotary: the rotated copy of q or k. `table` is the current sin and cos, replaced when it is too short."""
    t, spec = p.tape, p.run.spec
    assert spec.rotary_dim is not None
    rotated_part = p.tokens * heads * spec.rotary_dim
    flip = p.new(rotated_part)
    t.touch(p.run.width * rotated_part // 2)
    if table is not None:
        t.new(tl_rotary_table_bytes(spec, p.run.width, p.run.seq_len), "buffers")
        t.drop(table)
    with_cos = p.new(rotated_part)
    with_sin = p.new(rotated_part)
    rotated = p.new(rotated_part)
    t.drop(with_cos, with_sin)
    out = p.new(p.tokens * heads * spec.d_head)
    t.drop(flip, rotated)
    return out


def softcap(p: Pass, x: Tensor, elements: int, width: int | None = None) -> Tensor:
    """cap * tanh(x / cap). Takes over `x`."""
    t = p.tape
    divided = p.new(elements, width)
    squashed = p.new(elements, width)
    p.save(squashed)
    t.drop(divided)
    out = p.new(elements, width)
    t.drop(squashed, x)
    return out


def _activation(p: Pass, x: Tensor, elements: int) -> Tensor:
    """utilities/activation_functions.py: an owned tensor; the caller keeps `x`."""
    t = p.tape
    match p.run.spec.act_fn:
        case "gelu_new":
            half_x = p.new(elements)
            cubed = p.new(elements)
            p.save(x)
            scaled = p.new(elements)
            t.drop(cubed)
            summed = p.new(elements)
            t.drop(scaled)
            scaled = p.new(elements)
            t.drop(summed)
            squashed = p.new(elements)
            p.save(squashed)
            t.drop(scaled)
            one_plus = p.new(elements)
            t.drop(squashed)
            out = p.new(elements)
            p.save(half_x, one_plus)
            t.drop(half_x, one_plus)
            return out
        case "gelu_fast":
            half_x = p.new(elements)
            scaled = p.new(elements)
            small = p.new(elements)
            squared = p.new(elements)
            p.save(small, x)
            t.drop(small)
            one_plus = p.new(elements)
            t.drop(squared)
            argument = p.new(elements)
            p.save(scaled, one_plus)
            t.drop(scaled, one_plus)
            squashed = p.new(elements)
            p.save(squashed)
            t.drop(argument)
            one_plus = p.new(elements)
            t.drop(squashed)
            out = p.new(elements)
            p.save(half_x, one_plus)
            t.drop(half_x, one_plus)
            return out
        case "solu" | "solu_ln":
            softmax = p.new(elements)
            out = p.new(elements)
            p.save(softmax, x)
            t.drop(softmax)
            return out
        case "relu":
            out = p.new(elements)
            p.save(out)
            return out
        case _:  # gelu, silu, gelu_pytorch_tanh: one fused kernel
            out = p.new(elements)
            p.save(x)
            return out


def mlp(p: Pass, x: Tensor) -> Tensor:
    """MLP.forward or GatedMLP.forward. The caller keeps `x`."""
    t, run, spec = p.tape, p.run, p.run.spec
    wide = p.tokens * spec.d_mlp
    matrix = 0 if run.release.plain_products else spec.d_model * spec.d_mlp
    if spec.gated_mlp:
        weight = p.new(matrix)
        pre = p.new(wide)
        p.save(x, weight)
        t.drop(weight)
        p.hook("mlp.hook_pre", pre)
        weight = p.new(matrix)
        linear = p.new(wide)
        p.save(weight)
        t.drop(weight)
        p.hook("mlp.hook_pre_linear", linear)
        active = _activation(p, pre, wide)
        product = p.new(wide)
        p.save(active, linear)
        t.drop(active)
        post = p.new(wide)
        t.drop(product)
        p.hook("mlp.hook_post", post)
        weight = p.new(matrix)
        out = p.new(p.tokens * spec.d_model)
        p.save(post, weight)
        t.drop(weight)
        out = add_bias(p, out)
        t.drop(linear, pre, post)
        return out
    pre = p.hook("mlp.hook_pre", add_bias(p, p.new(wide)))
    p.save(x)
    post = _activation(p, pre, wide)
    middle = None
    if spec.act_fn == "solu_ln":
        middle = p.hook("mlp.hook_mid", post)
        post = norm(p, "mlp.ln", middle, p.tokens, spec.d_mlp, pre=run.folded and spec.folds_norms_tl, rms=False)
    p.hook("mlp.hook_post", post)
    out = p.new(p.tokens * spec.d_model)
    p.save(post)
    out = add_bias(p, out)
    t.drop(pre, post)
    if middle is not None:
        t.drop(middle)
    return out
