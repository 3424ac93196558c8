"""Memory of `HookedTransformer.generate(tokens, max_new_tokens=n)` of TransformerLens 3.9.0 with its defaults.

The prompt's pass makes the logits of every position, and they live on through the first step after it; every step
copies the unembedding matrix; cached keys are rotated anew in every step. Memory only grows with the context
otherwise, so the prompt's pass, the step after it, the steps that make longer rotary tables, and the last are played.

Source: HookedTransformer.py (generate, get_residual, forward), cache/key_value_cache_entry.py,
components/abstract_attention.py, components/pos_embed.py, utilities/{tensors,logits_utils}.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...models.spec import ModelSpec
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from ..weights import tl_rotary_table_bytes
from .attention import _qk_norm
from .parts import block_norm, mlp, project, softcap
from .run import Pass, Run
from .transformer import _unembed

INT64 = 8
FLOAT32 = 4


@dataclass(frozen=True)
class Generate:
    """One call of `generate`: the model, [batch_size, seq_len] prompt tokens, how many new ones, and how."""

    spec: ModelSpec
    batch_size: int
    seq_len: int
    new_tokens: int
    width: int
    folded: bool = True
    kv_cache: bool = True

    @property
    def last(self) -> int:
        """Positions that have been read when the last token is made; that token itself is never read."""
        return self.seq_len + self.new_tokens - 1


@dataclass(frozen=True)
class Generated:
    """A call that was played."""

    tape: Tape
    """Its live bytes: of the prompt's pass, and of those of the later ones that can be the worst."""
    prompt_entries: int
    """How many entries of the tape's log are the prompt's pass."""


def generate(run: Generate) -> Generated:
    """`play_anew`, by what was recorded of another shape where that fits."""
    return recall(
        ("hooked generate", replace(run, batch_size=0, seq_len=0)),
        (run.batch_size, run.seq_len),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s)),
        with_log=True,
    )


def play_anew(run: Generate) -> Generated:
    """Live bytes above weights and buffers, from the prompt's tokens on; at the end the cache still lives.

    A model with its tokenizer, so that an attention mask is made; sampling with temperature 1 and neither top_k nor
    top_p; no sequence ends early.
    """
    spec, tape, b, s = run.spec, Tape(), run.batch_size, run.seq_len
    tape.new(2 * INT64 * b * s)  # the prompt, and its attention mask
    tape.new(b)  # finished sequences
    token = run.width * b * spec.d_model
    tables = 0 if spec.positional == "alibi" else tl_rotary_table_bytes(spec, run.width)  # of one block
    totals = _worth_playing(run)
    previous: Tensor | None = None
    state = tape.new(0)
    cached = prompt_entries = 0
    for total in totals:
        made = total - s  # tokens sampled before this step
        per_layer = 2 * run.width * b * spec.kv_width
        if run.kv_cache and made:  # the steps between only grow the cache
            tape.new(spec.n_layers * per_layer * (total - 1 - cached), "kv_cache")
            cached = total - 1
        # embeddings of all tokens; mask, its ones, the sampled tokens
        grown = tape.new(token * total + INT64 * b * (made + (total + made if made else 0)))
        tape.drop(state)
        state = grown
        kept = 2 if spec.positional == "learned" else 1  # embeddings, and with the positions added
        residual = tape.new(token * total * (kept - 1))
        # generate calls locals(), and up to Python 3.12 the frame keeps that snapshot of the step before.
        snapshot = tape.new(token * (total - 1) * kept if made else 0)
        old_mask = tape.new(INT64 * b * (total - 1 + made - 1) if made > 1 else 0)
        if previous is None and made:
            previous = tape.new(run.width * b * spec.d_vocab * (1 if run.kv_cache else total - 1), "logits")
        fresh = total if not (run.kv_cache and made) else 1
        if spec.positional == "alibi":  # the steps between have grown every block's biases
            grown_to = _biases(spec, total - 1) if made else 0
            tape.new(spec.n_layers * (grown_to - tables), "buffers")
            tables = grown_to
        logits = _forward(run, tape, fresh, total, tables)
        cached = total
        if spec.positional == "alibi":
            tables = _biases(spec, total)
        elif total > 2048:
            tables = max(tables, tl_rotary_table_bytes(spec, run.width, total))
        if previous is not None:
            tape.drop(previous)
        sample(run, tape, total)
        tape.drop(residual, snapshot, old_mask)
        follows = run.kv_cache and made == 0 and len(totals) > 1 and totals[1] == total + 1
        if follows:
            previous = logits
        else:
            tape.drop(logits)
            previous = None
        prompt_entries = prompt_entries or len(tape.log)
    return Generated(tape, prompt_entries)


def _biases(spec: ModelSpec, total: int) -> int:
    """Bytes of the ALiBi biases that a block keeps for `total` positions: [head, total, total] in float32."""
    return FLOAT32 * spec.n_heads * total**2


def _worth_playing(run: Generate) -> list[int]:
    """Lengths of the context at which a step may make the peak."""
    s, last = run.seq_len, run.last
    totals = [s, s + 1, last] if run.kv_cache else [s, last]
    rows = min(run.spec.context_tl, 2048)
    while run.spec.positional == "rotary" and rows < min(last, run.spec.context_tl):
        if rows >= s:
            totals.append(rows + 1)
        rows = min(run.spec.context_tl, max(rows + 1, 2 * rows))
    rising = sorted(total for total in totals if total <= last)
    return [total for at, total in enumerate(rising) if not at or total != rising[at - 1]]


def sample(run: Generate, tape: Tape, total: int) -> None:
    """utils.sample_logits: the tokens so far, the scaled logits in float32, and Categorical's logits, probabilities
    and random numbers."""
    row = run.batch_size * run.spec.d_vocab
    held = [tape.new(INT64 * run.batch_size * total)]
    scaled = tape.new(run.width * row)
    if run.width != FLOAT32:
        wide = tape.new(FLOAT32 * row)
        tape.drop(scaled)
        scaled = wide
    held += [scaled, tape.new(FLOAT32 * row), tape.new(FLOAT32 * row)]
    tape.touch(FLOAT32 * row)
    tape.drop(*held)


def _forward(run: Generate, tape: Tape, fresh: int, total: int, tables: int) -> Tensor:
    """HookedTransformer.forward(residual, start_at_layer=0) over the last `fresh` of `total` positions."""
    spec = run.spec
    call = Run(spec=spec, batch_size=run.batch_size, seq_len=fresh, width=run.width, folded=run.folded)
    sections: dict[tuple[bool, bool], tuple[Tape, Tensor]] = {}
    residual: Tensor | None = None
    for layer in range(spec.n_layers):
        kind = spec.is_local(layer), residual is not None
        if kind not in sections:
            sections[kind] = block(call, kind[0], total, run.kv_cache, tables, residual)
        section, out = sections[kind]
        tape.append(section)
        residual = tape.adopt(out.bytes, out.component)
    return unembed(call, tape, residual or tape.new(0))


def unembed(call: Run, tape: Tape, residual: Tensor) -> Tensor:
    """The last norm and the unembedding, on the tape of the whole; the logits."""
    end = Pass(call, None)
    end.tape = tape
    return _unembed(end, residual)


def block(
    call: Run, local: bool, total: int, cached: bool, tables: int, incoming: Tensor | None
) -> tuple[Tape, Tensor]:
    """A block's tape and its output; its input goes in the end, where that is what another block returned."""
    p = Pass(call, None)
    out = _block(p, p.tape.adopt(0, "temporaries"), local, total, cached, tables)
    if incoming is not None:
        p.tape.drop(p.tape.adopt(incoming.bytes, incoming.component))
    return p.tape, out


def _block(p: Pass, resid_pre: Tensor, local: bool, total: int, cached: bool, tables: int) -> Tensor:
    """TransformerBlock.forward without hooks or switches; the input is held outside, the output is owned."""
    t, spec = p.tape, p.run.spec
    tokens_d = p.tokens * spec.d_model
    post = spec.norm_placement == "post"
    normed = normed_inputs(p, resid_pre)
    attn_out = _attention(p, normed, local, total, cached, tables)
    t.drop(*normed)
    if spec.norm_placement in ("both", "post"):
        out = block_norm(p, "ln1", attn_out, foldable=False)
        t.drop(attn_out)
        attn_out = out
    if spec.d_mlp == 0:
        resid_post = p.new(tokens_d)
        t.drop(attn_out)
        return resid_post
    resid_mid = t.hold(resid_pre) if spec.parallel_attn_mlp else p.new(tokens_d)
    source = t.hold(resid_mid) if post else block_norm(p, "ln2", resid_mid)
    mlp_out = mlp(p, source)
    if spec.norm_placement in ("both", "post"):
        out = block_norm(p, "ln2", mlp_out, foldable=False)
        t.drop(mlp_out)
        mlp_out = out
    partial = p.new(tokens_d) if spec.parallel_attn_mlp else None
    resid_post = p.new(tokens_d)
    if partial is not None:
        t.drop(partial)
    t.drop(mlp_out, source, resid_mid, attn_out)
    return resid_post


def normed_inputs(p: Pass, resid_pre: Tensor) -> list[Tensor]:
    """What queries, keys and values are made from."""
    t = p.tape
    normed: list[Tensor] = []
    for which in "qkv":
        if p.run.spec.norm_placement == "post":
            normed.append(t.hold(resid_pre))
            continue
        out = block_norm(p, "ln1", resid_pre)
        if which != "v":
            added = p.new(p.tokens * p.run.spec.d_model)
            t.drop(out)
            out = added
        normed.append(out)
    return normed


def _rotary(p: Pass, positions: int, heads: int, total: int, tables: int, grows: bool) -> Tensor:
    """apply_rotary with an attention mask: sines and cosines are gathered for each sequence of the batch."""
    t, spec, b, w = p.tape, p.run.spec, p.run.batch_size, p.run.width
    assert spec.rotary_dim is not None
    part = b * positions * heads * spec.rotary_dim
    flip = p.new(part)
    t.touch(w * part // 2)
    if grows:
        old = t.adopt(tables, "buffers")
        t.new(tl_rotary_table_bytes(spec, w, total), "buffers")
        t.drop(old)
    ids = t.new(INT64 * b * total)
    gathered = [p.new(b * positions * spec.rotary_dim), p.new(b * positions * spec.rotary_dim)]
    products = [p.new(part), p.new(part)]
    rotated = p.new(part)
    t.drop(*products)
    out = p.new(b * positions * heads * spec.d_head)
    t.drop(flip, ids, *gathered, rotated)
    return out


def _attention(p: Pass, inputs: list[Tensor], local: bool, total: int, cached: bool, tables: int) -> Tensor:
    """AbstractAttention.forward for `p.run.seq_len` queries over `total` keys, as `hooked_attention.attention`."""
    t, run, spec = p.tape, p.run, p.run.spec
    b, s, heads, kv = run.batch_size, run.seq_len, spec.n_heads, spec.n_kv_heads
    square, all_q, all_kv = b * heads * s * total, b * total * spec.q_width, b * total * spec.kv_width
    grouped = spec.grouped_attention_tl

    q, k, v = (project(p, x, n, False) for x, n in zip(inputs, (heads, kv, kv), strict=True))
    if spec.qk_norm is not None:
        q = _qk_norm(p, "attn.q_norm", q, heads, copied=False)
        k = _qk_norm(p, "attn.k_norm", k, kv, copied=False)
    if spec.clip_qkv:
        clamped = []
        for tensor in (q, k, v):
            clamped.append(t.new(tensor.bytes))
            t.drop(tensor)
        q, k, v = clamped
    if cached:
        there = run.width * b * (total - s) * spec.kv_width
        before = [t.adopt(there, "kv_cache") for _ in range(2 * (s < total))]
        for tensor in before:
            t.book(tensor, "temporaries")  # what is being replaced is no longer the cache
        stored = [t.new(run.width * all_kv, "kv_cache") for _ in range(2)]
        t.drop(*before, k, v)
        k, v = (t.hold(tensor) for tensor in stored)
    if spec.positional == "rotary":
        grows = tl_rotary_table_bytes(spec, run.width, total) > tables
        rotated = _rotary(p, s, heads, total, tables, grows)
        t.drop(q)
        q = rotated
        rotated = _rotary(p, total, kv, total, tables, False)
        t.drop(k)
        k = rotated

    split = b > 1 and heads > 1
    k_all = p.new(all_q) if grouped else t.hold(k)
    flat_q = p.new(p.tokens * spec.q_width) if split and s > 1 else t.hold(q)
    flat_k = p.new(all_q) if split and total > 1 else t.hold(k_all)
    scores = p.new(square)
    t.drop(flat_q, flat_k)
    divided = p.new(square)
    t.drop(scores)
    scores = divided
    if spec.attn_softcap:
        scores = softcap(p, scores, square)
    t.drop(k_all)
    if spec.positional == "alibi":  # built anew whenever the keys are more than before
        slope = t.new(FLOAT32 * total * total)
        old = t.adopt(tables, "buffers")
        t.new(_biases(spec, total), "buffers")
        t.drop(slope, old)
    mask = p.new(s * total, 1)
    if local:
        inside, both = p.new(s * total, 1), p.new(s * total, 1)
        t.drop(mask, inside)
        mask = both
    padding = p.new(b * total, 1)
    both = p.new(b * s * total, 1)
    t.drop(mask, padding)
    masked = p.new(square)
    t.drop(scores, both)
    scores = masked

    softmax = p.new(square)
    is_nan, zeros = p.new(square, 1), p.new(square)
    pattern = p.new(square)
    t.drop(softmax, is_nan, zeros)
    v_all = p.new(all_q) if grouped else t.hold(v)
    flat_v = p.new(all_q) if split and total > 1 else t.hold(v_all)
    z = p.new(p.tokens * spec.q_width)
    t.drop(flat_v, v_all)
    weight = p.new(spec.q_width * spec.d_model)
    if heads > 1 and s > 1:
        flat_z = p.new(p.tokens * spec.q_width)
        t.drop(z)
        z = flat_z
    out = p.new(p.tokens * spec.d_model)
    t.drop(weight, z, pattern, scores, q, k, v)
    return out
