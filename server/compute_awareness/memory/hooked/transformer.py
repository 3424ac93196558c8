"""What a forward pass of TransformerLens' HookedTransformer allocates, hook by hook.

Read off transformer_lens 3.9.0: HookedTransformer.py, components/{abstract_attention,grouped_query_attention,
transformer_block,layer_norm,layer_norm_pre,rms_norm,rms_norm_pre,embed,pos_embed,unembed}.py, components/mlps/
{mlp,gated_mlp}.py, utilities/{attention,activation_functions}.py. Each function below writes down one of theirs in
its own order: which tensors it makes, which the frames of running calls keep, which hooks see them.

Symbols: b batch, s seq, T = b*s, d d_model, H heads, Q = H*d_head, KV = n_kv_heads*d_head, m d_mlp, V vocabulary,
w bytes of the model's dtype. Norms compute in float32 whatever the model's dtype, so their hooks hold 4-byte values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .attention import attention
from .parts import add_bias, block_norm, mlp, norm, softcap
from .run import Pass, Run

__all__ = ["Forward", "Run", "family", "forward"]

TOP_HOOKS = ("embed.ln.hook_scale", "embed.ln.hook_normalized", "hook_embed", "hook_pos_embed")
END_HOOKS = ("ln_final.hook_scale", "ln_final.hook_normalized", "unembed.hook_in", "unembed.hook_out")


@dataclass
class Forward:
    """The outcome: the tape at the moment the call returns, and what the cache holds."""

    tape: Tape
    sections: list[tuple[str, list[str]]] = field(default_factory=list)
    """Prefix and names of the hooks that fire, section by section in order."""
    hook_counts: Counter[str] = field(default_factory=Counter)
    """Cached hooks by family (block number left out)."""
    hook_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of distinct storages by family; a shared storage counts with the family that kept it first."""
    host_bytes: int = 0
    """Bytes of copies in host memory, one per hook: a copy shares nothing."""
    returned: Tensor | None = None
    """Logits, or the last residual stream with stop_at_layer."""

    @property
    def hook_names(self) -> list[str]:
        """Every hook that fires, in order."""
        return [prefix + name for prefix, names in self.sections for name in names]

    def add(self, prefixes: Sequence[str], section: Pass, kept: Counter[str]) -> None:
        """A section comes to its end, once for each prefix: its tape and what it left in the cache."""
        times = len(prefixes)
        self.tape.append(section.tape, times)
        self.sections += [(prefix, section.names) for prefix in prefixes]
        for name in (*section.cache, *section.host):
            self.hook_counts[name] += times
        for name, nbytes in kept.items():
            self.hook_bytes[name] += times * nbytes
        self.host_bytes += times * sum(section.host.values())


def _kept(section: Pass, shared: Tensor | None) -> Counter[str]:
    """Bytes by hook of the distinct storages a section leaves in the cache; `shared` was in it before."""
    seen = {id(shared)}
    kept = Counter(section.host)
    for name, tensor in section.cache.items():
        kept[name] = 0 if id(tensor) in seen else tensor.bytes
        seen.add(id(tensor))
    return kept


def _apply_mlp(p: Pass, x: Tensor) -> Tensor:
    """TransformerBlock.apply_mlp. The caller keeps `x`."""
    out = mlp(p, x)
    if p.run.spec.norm_placement in ("both", "post"):
        name = "ln2_post" if p.run.spec.norm_placement == "both" else "ln2"
        normed = block_norm(p, name, out, foldable=False)
        p.tape.drop(out)
        out = normed
    return p.hook("hook_mlp_out", out)


def _block(p: Pass, resid_pre: Tensor, local: bool, shortformer_pos: Tensor | None) -> Tensor:
    """TransformerBlock.forward. The caller keeps `resid_pre`; gives back the owned resid_post."""
    t, run, spec = p.tape, p.run, p.run.spec
    tokens_d = p.tokens * spec.d_model
    grouped = spec.grouped_attention_tl
    heads = {"q": spec.n_heads, "k": spec.n_kv_heads, "v": spec.n_kv_heads}
    held: list[Tensor] = []
    p.hook("hook_resid_pre", resid_pre)
    if shortformer_pos is not None and (run.use_attn_in or run.use_split_qkv_input):
        held.append(p.new(tokens_d * spec.n_heads))  # the positions, repeated per head
    inputs = {"q": resid_pre, "k": resid_pre, "v": resid_pre}
    per_head = {"q": 1, "k": 1, "v": 1}
    if run.use_attn_in:
        attn_in = p.hook("hook_attn_in", p.new(tokens_d * spec.n_heads))
        held.append(attn_in)
        inputs = dict.fromkeys(inputs, attn_in)
        per_head = heads
    if run.use_split_qkv_input:
        per_head = heads
        for which in inputs:
            inputs[which] = p.hook(f"hook_{which}_input", p.new(tokens_d * heads[which]))
            held.append(inputs[which])

    post = spec.norm_placement == "post"
    normed: list[Tensor] = []
    for which, source in inputs.items():
        if post:
            normed.append(t.hold(source))
            continue
        out = block_norm(p, "ln1", source, per_head[which])
        if which != "v":  # q and k add 0.0 or the shortformer positions, which copies
            added = p.new(tokens_d * per_head[which])
            t.drop(out)
            out = added
        normed.append(out)
    attn_out = attention(p, (normed[0], normed[1], normed[2]), local, grouped)
    t.drop(*normed)
    if spec.norm_placement in ("both", "post"):
        out = block_norm(p, "ln1" if post else "ln1_post", attn_out, foldable=False)
        t.drop(attn_out)
        attn_out = out
    p.hook("hook_attn_out", attn_out)

    if spec.d_mlp == 0:
        resid_post = p.hook("hook_resid_post", p.new(tokens_d))
        t.drop(attn_out, *held)
        return resid_post
    if spec.parallel_attn_mlp:
        resid_mid = t.hold(resid_pre)
    else:
        resid_mid = p.hook("hook_resid_mid", p.new(tokens_d))
    mlp_in = p.hook("hook_mlp_in", p.new(tokens_d)) if run.use_hook_mlp_in else t.hold(resid_mid)
    source = t.hold(mlp_in) if post else block_norm(p, "ln2", mlp_in)
    if run.use_hook_mlp_in and spec.parallel_attn_mlp:
        t.drop(mlp_in)
    mlp_out = _apply_mlp(p, source)
    if spec.parallel_attn_mlp:
        partial_sum = p.new(tokens_d)
        resid_post = p.new(tokens_d)
        t.drop(partial_sum)
    else:
        resid_post = p.new(tokens_d)
    if not (run.use_hook_mlp_in and spec.parallel_attn_mlp):
        t.drop(mlp_in)
    p.hook("hook_resid_post", resid_post)
    t.drop(mlp_out, source, resid_mid, attn_out, *held)
    return resid_post


def _embed(p: Pass) -> tuple[Tensor, Tensor | None]:
    """input_to_embed: the residual stream before block 0, and the shortformer positions if any."""
    t, spec = p.tape, p.run.spec
    tokens_d = p.tokens * spec.d_model
    embed = p.new(tokens_d)
    if spec.embed_norm:
        normed = norm(p, "embed.ln", embed, p.tokens, spec.d_model, pre=False, rms=False)
        t.drop(embed)
        embed = normed
    p.hook("hook_embed", embed)
    if spec.positional in ("learned", "shortformer"):
        positions = p.hook("hook_pos_embed", p.new(tokens_d))
        if spec.positional == "shortformer":
            return embed, positions
        residual = p.new(tokens_d)
        t.drop(positions, embed)
        return residual, None
    return embed, None


def _unembed(p: Pass, residual: Tensor) -> Tensor:
    """ln_final, Unembed.forward and the logit soft cap. Takes over `residual`."""
    t, run, spec = p.tape, p.run, p.run.spec
    if spec.norm != "none":
        pre = run.folded and spec.folds_norms_tl
        normed = norm(p, "ln_final", residual, p.tokens, spec.d_model, pre=pre, rms=spec.norm == "rmsnorm")
        t.drop(residual)
        residual = normed
    hooked = not run.release.plain_products
    if hooked:
        p.hook("unembed.hook_in", residual)
    weight = p.new(spec.d_model * spec.d_vocab if hooked else 0)
    in_cache = hooked and p.selected is not None and "unembed.hook_out" in p.selected and not run.cache_on_host
    logits = t.new(p.tokens * spec.d_vocab * run.width, "activation_cache" if in_cache else "logits")
    p.save(residual, weight)
    t.drop(weight)
    logits = add_bias(p, logits)
    if hooked:
        p.hook("unembed.hook_out", logits)
    if spec.logit_softcap:
        capped = softcap(p, logits, p.tokens * spec.d_vocab)
        logits = t.hold(capped, "logits")
        t.drop(capped)
    t.drop(residual)
    return logits


def family(name: str) -> str:
    """A hook's name without its block number: `blocks.3.attn.hook_z` -> `attn.hook_z`."""
    return name.removeprefix("blocks.").split(".", 1)[1] if name.startswith("blocks.") else name


def forward(run: Run) -> Forward:
    """`play_anew`, by what was recorded of a call of another shape where that fits."""
    return recall(
        ("hooked forward", replace(run, batch_size=0, seq_len=0)),
        (run.batch_size, run.seq_len),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s)),
        with_log=True,
    )


def play_anew(run: Run) -> Forward:
    """Play one call of the model. The tape starts at the input tokens; weights and buffers are not on it.

    Blocks of one kind (same attention type, same cached hooks, same state of the incoming residual stream) are
    played once and appended as often as they occur, so the work does not grow with depth.
    """
    spec = run.spec
    result = Forward(Tape())
    tape = result.tape
    tape.new(8 * run.batch_size * run.seq_len)  # the tokens, int64

    def chosen(prefix: str, names: tuple[str, ...]) -> frozenset[str] | None:
        return None if run.selects is None else select(run.selects, prefix, names)

    top = Pass(run, chosen("", TOP_HOOKS))
    residual, positions = _embed(top)
    result.add([""], top, _kept(top, None))

    blocks = spec.n_layers if run.stop_at_layer is None else run.stop_at_layer
    block_names = block_hook_names(run) if run.selects is not None else ()
    played: dict[tuple[bool, frozenset[str] | None, str, bool], tuple[Pass, Counter[str], Tensor]] = {}
    order: list[tuple[bool, frozenset[str] | None, str, bool]] = []
    for layer in range(blocks):
        key = (spec.is_local(layer), chosen(f"blocks.{layer}.", block_names), residual.component, residual.refs > 1)
        if key not in played:
            section = Pass(run, key[1])
            incoming = section.receive(residual)
            outgoing = _block(section, incoming, key[0], positions)
            section.tape.drop(incoming)
            played[key] = section, _kept(section, incoming if key[2] == "activation_cache" else None), outgoing
        residual = played[key][2]
        order.append(key)
    for key, alike in groupby(enumerate(order), key=itemgetter(1)):
        section, kept, _ = played[key]
        result.add([f"blocks.{layer}." for layer, _ in alike], section, kept)

    if run.stop_at_layer is None:
        end = Pass(run, chosen("", END_HOOKS))
        incoming = end.receive(residual)
        before = incoming.component
        result.returned = _unembed(end, incoming)
        result.add([""], end, _kept(end, incoming if before == "activation_cache" else None))
    else:
        result.returned = residual
    if positions is not None and positions.refs == 1:
        tape.drop(tape.adopt(positions.bytes, positions.component))
    return result


@lru_cache(maxsize=1024)
def select(selects: Callable[[str], bool], prefix: str, names: tuple[str, ...]) -> frozenset[str]:
    """The hooks of a section whose full name `selects` wants, without the prefix."""
    return frozenset(name for name in names if selects(prefix + name))


def block_hook_names(run: Run) -> tuple[str, ...]:
    """Names of the hooks that fire in a block, without the blocks.i. prefix, in order. No shape has a say in them."""
    return _block_hook_names(replace(run, batch_size=1, seq_len=1, width=1, selects=None))


@lru_cache(maxsize=64)
def _block_hook_names(run: Run) -> tuple[str, ...]:
    section = Pass(run, None)
    resid = section.tape.adopt(0, "temporaries")
    _block(section, resid, False, None)
    return tuple(section.names)
