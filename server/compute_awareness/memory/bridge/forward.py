"""Memory of one forward pass of a TransformerBridge, with or without a cache of activations.

The Bridge runs the Hugging Face model with bridges in place of its modules, so the ledger follows transformers 5.23
(models/*/modeling_*.py: what their `forward` holds beside the blocks) and transformer_lens 3.9.0
(model_bridge/bridge.py, generalized_components/{block,embedding,pos_embed,rotary_embedding,unembedding}.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from ...errors import NotCovered
from ...models.spec import ModelSpec
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from . import names as bridge_names
from .attention import JOINT, attention, table_width
from .parts import ACTIVATIONS, NORMS, activation, mlp, norm, project_out
from .run import FLOAT32, INT64, Pass, Run

_SCALED_EMBEDDING = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM"})
_TOP_HOOKS = [
    "embed.hook_in", "embed.hook_out", "pos_embed.hook_in", "pos_embed.hook_out", "rotary_emb.hook_in",
    "rotary_emb.hook_cos", "rotary_emb.hook_sin",
]  # fmt: skip
_END_HOOKS = [
    "ln_final.hook_in", "ln_final.hook_scale", "ln_final.hook_normalized", "ln_final.hook_out", "unembed.hook_in",
    "unembed.hook_out",
]  # fmt: skip


@dataclass
class Forward:
    """A played call. Bytes."""

    tape: Tape
    hook_counts: Counter[str] = field(default_factory=Counter)
    """Entries of the cache by hook, block numbers left out."""
    hook_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of the storages they keep alive; one that two hooks share counts with the first."""
    host_bytes: int = 0
    """Sum of all entries, where each is copied to the host."""
    hook_names: list[str] = field(default_factory=list)
    """Full names of the hooks that fire, aliases among them."""
    patterns_kept: int = 0
    """Patterns that the model still holds when the call has returned."""

    def add(self, prefix: str, section: Pass, kept: Counter[str]) -> None:
        """A section comes to its end: its tape, where that is its own, and what it left in the cache."""
        if section.tape is not self.tape:
            self.tape.append(section.tape)
        self.hook_names += [prefix + name for name in section.names]
        self.hook_counts.update(list(section.host or section.cache))
        self.hook_bytes.update(kept)
        self.host_bytes += sum(section.host.values())


def check_covered(spec: ModelSpec) -> None:
    """Raise NotCovered, with the reason, for a model whose Bridge is not covered yet."""
    why = ""
    if spec.architecture not in NORMS:
        why = f"{spec.architecture} is not covered yet for the Bridge; covered: {', '.join(sorted(NORMS))}"
    elif spec.architecture == "OPTForCausalLM" and spec.norm_placement != "pre":
        why = "OPT with norms after the additions is not covered yet for the Bridge"
    elif spec.act_fn not in ACTIVATIONS:
        why = f"the activation function {spec.act_fn} is not covered yet for the Bridge"
    if why:
        raise NotCovered(f"{spec.name}: {why}")


def forward(run: Run) -> Forward:
    """`play_anew`, by what was recorded of a call of another shape where that fits."""
    return recall(
        ("bridge forward", replace(run, batch_size=0, seq_len=0)),
        (run.batch_size, run.seq_len),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s)),
        with_log=True,
    )


def play_anew(run: Run) -> Forward:
    """Play one call of the model under torch.no_grad(). The tape starts at the input tokens; weights are not on it.

    Blocks of one kind (same cached hooks, same state of the incoming residual stream) are played once and appended as
    often as they occur. At the end of the tape live what the caller holds (tokens, logits, cache) and the patterns
    that the model keeps.

    Raises:
        NotCovered: the model is not covered.
    """
    check_covered(run.spec)
    spec, aliases = run.spec, bridge_names.aliases(run.spec)
    blocks = spec.n_layers if run.stop_at_layer is None else run.stop_at_layer
    result = Forward(Tape())
    tape = result.tape

    def chosen(prefix: str, hooks: list[str]) -> frozenset[str]:
        if run.selects is None:
            return frozenset()
        both = hooks + [aliases[hook] for hook in hooks if hook in aliases]
        return frozenset(hook for hook in both if run.selects(prefix + hook))

    block_hooks = _block_hooks(run, aliases)
    selected = [chosen(f"blocks.{layer}.", block_hooks) for layer in range(blocks)]
    top = Pass(run, aliases, chosen("", _TOP_HOOKS), tape)
    if run.after_another and spec.architecture in JOINT:
        tape.new(spec.n_layers * top.S, "activations")
    held, residual = _embed(top, frozenset().union(*selected))
    result.add("", top, _kept(top, None))
    for table in ("cos", "sin"):
        if not run.cache_on_host and f"rotary_emb.hook_{table}" not in top.cache:
            times = sum(f"attn.hook_{table}" in each for each in selected)
            result.hook_bytes[f"attn.hook_{table}"] += _table_bytes(top) if times else 0

    played: dict[tuple[frozenset[str], str, bool], tuple[Pass, Counter[str], bool, Tensor]] = {}
    returned = top.returned
    for layer, wanted in enumerate(selected):
        key = (wanted, residual.component, residual.refs > 1)
        if key not in played:
            section = Pass(run, aliases, wanted)
            incoming = section.receive(residual)
            outgoing = _block(section, incoming)
            section.tape.drop(incoming)
            seen = incoming if residual.component == "activation_cache" else None
            played[key] = section, _kept(section, seen), incoming in section.cache.values(), outgoing
        section, kept, keeps_incoming, outgoing = played[key]
        result.add(f"blocks.{layer}.", section, kept)
        if residual is held[0]:  # the embedding itself: `held` keeps it, and so may the cache from now on
            residual.refs -= not keeps_incoming
            residual.component = "activation_cache" if keeps_incoming else residual.component
        returned += section.returned
        residual = outgoing
    result.patterns_kept = blocks if spec.architecture in JOINT else 0

    if run.stop_at_layer is None:
        end = Pass(run, aliases, chosen("", _END_HOOKS), tape)
        incoming = end.receive(residual)
        seen = incoming if incoming.component == "activation_cache" else None
        _head(end, incoming, held)
        result.add("", end, _kept(end, seen))
    else:
        tape.drop(*held)
    for tensor in returned:
        if tensor.refs == 1:
            tape.drop(tape.adopt(tensor.bytes, tensor.component))
    return result


def _block_hooks(run: Run, aliases: dict[str, str]) -> list[str]:
    """The hooks that fire in a block, without the `blocks.i.` prefix and without aliases, in order."""
    section = Pass(run, {}, frozenset())
    _block(section, section.tape.adopt(section.X, "activations"))
    return section.names


def _kept(section: Pass, shared: Tensor | None) -> Counter[str]:
    """Bytes by hook of the distinct storages a section leaves in the cache; `shared` was in it before."""
    seen = {id(shared)}
    kept = Counter(section.host)
    for name, tensor in section.cache.items():
        kept[name] = 0 if id(tensor) in seen else tensor.bytes
        seen.add(id(tensor))
    return kept


def _embed(p: Pass, in_blocks: frozenset[str]) -> tuple[list[Tensor], Tensor]:
    """Everything before the first block, of which `in_blocks` are the hooks that any block caches.

    Returns what the model's `forward` holds until it returns, and the residual stream.
    """
    t, spec = p.tape, p.spec
    p.hook("embed.hook_in", t.new(INT64 * p.tokens))
    embedded = p.new(p.X)
    if spec.architecture in _SCALED_EMBEDDING:
        embedded = p.replace(embedded, p.X)
    p.hook("embed.hook_out", embedded)
    held = [embedded]
    if spec.architecture == "OPTForCausalLM":
        mask = t.new(FLOAT32 * p.tokens)
        positions = t.new(INT64 * p.tokens)
        held += [mask, positions, _mask(p)]
        p.hook("pos_embed.hook_in", mask)
        shifted = t.new(INT64 * p.tokens)
        learned = p.hook("pos_embed.hook_out", p.new(p.X))
        t.drop(shifted)
        return [*held, learned], p.new(p.X)
    positions = t.new(INT64 * p.s)
    held.append(positions)
    if spec.architecture == "GPTNeoForCausalLM":
        held.append(_mask(p))
    if spec.positional == "learned":
        p.hook("pos_embed.hook_in", positions)
        held.append(p.hook("pos_embed.hook_out", p.new(p.X // p.b), entry=p.X))
        residual = p.new(p.X)
        if spec.architecture == "GPT2LMHeadModel":
            held.append(_mask(p))
        return held, residual
    windows = [False, True] if spec.architecture == "Gemma2ForCausalLM" else [_slides(spec, 0)]
    held += [_mask(p, window) for window in windows]
    # DynamicSlidingWindowLayer keeps its length as a tensor
    p.returned.append(t.new(INT64 * sum(_slides(spec, layer) for layer in range(spec.n_layers)), "kv_cache"))
    if spec.architecture != "GPTJForCausalLM":
        p.hook("rotary_emb.hook_in", embedded)
        for table, name in zip(_rotary_tables(p), ("cos", "sin"), strict=True):
            p.hook(f"rotary_emb.hook_{name}", table)
            if f"attn.hook_{name}" in in_blocks and not p.run.cache_on_host:
                t.hold(table, "activation_cache")
            held.append(table)
    return held, t.hold(embedded)


def _slides(spec: ModelSpec, layer: int) -> bool:
    """Whether transformers gives `layer` a sliding-window cache."""
    if spec.architecture == "MistralForCausalLM":
        return spec.window is not None
    return spec.architecture == "Gemma2ForCausalLM" and spec.is_local(layer)


def _mask(p: Pass, window: bool = False) -> Tensor:
    """masking_utils.create_causal_mask (or that of a sliding window) for eager attention.

    A float mask [b, 1, s, s] is made of a boolean one [1, 1, s, s] and two numbers.
    """
    t, square = p.tape, p.s * p.s
    ranges = t.new(INT64 * (2 * p.s + p.b + 1))
    if window:
        t.touch(2 * square)
        parts = t.new(2 * square)
        allowed = t.new(square)
        t.drop(parts)
    else:
        allowed = t.new(square)
    t.drop(ranges)
    numbers = t.new(2 * p.w)
    mask = t.new(p.w * p.b * square)
    t.drop(allowed, numbers)
    return mask


def _table_bytes(p: Pass) -> int:
    """Bytes of the cosines, or the sines, [1, s, rotary_dim]."""
    assert p.spec.rotary_dim is not None
    return table_width(p) * p.s * p.spec.rotary_dim


def _rotary_tables(p: Pass) -> tuple[Tensor, Tensor]:
    """The rotary embedding: cosines and sines, made in float32."""
    wide = _table_bytes(p) * FLOAT32 // table_width(p)
    angles = [p.new(wide // 2), p.new(wide)]
    cos, sin = p.replace(p.new(wide), wide), p.replace(p.new(wide), wide)
    if table_width(p) != FLOAT32:
        narrow = p.new(_table_bytes(p)), p.new(_table_bytes(p))
        p.tape.drop(cos, sin)
        cos, sin = narrow
    p.tape.drop(*angles)
    return cos, sin


def _block(p: Pass, x: Tensor) -> Tensor:
    """BlockBridge around the model's own layer. The caller keeps `x`; gives back the owned output."""
    p.hook("hook_in", x)
    normed = norm(p, "ln1", x)
    attended, pattern = attention(p, normed)
    match p.spec.architecture:
        case "GPT2LMHeadModel" | "GPTNeoForCausalLM":
            out = _gpt2_rest(p, normed, attended)
        case "GPTNeoXForCausalLM":
            out = _neox_rest(p, x, normed, attended)
        case "PhiForCausalLM" | "GPTJForCausalLM":
            written = mlp(p, normed)
            out = p.replace(p.new(p.X), p.X)
            p.tape.drop(normed, attended, written)
        case "OPTForCausalLM":
            out = _opt_rest(p, normed, attended)
        case _:
            out = _llama_rest(p, normed, attended)
    p.tape.drop(pattern)
    return p.hook("hook_out", out)


def _gpt2_rest(p: Pass, normed: Tensor, attended: Tensor) -> Tensor:
    """GPT2Block, GPTNeoBlock after attention, whose output keeps its name to the end."""
    middle = p.new(p.X)
    p.tape.drop(normed)
    normed = norm(p, "ln2", middle)
    written = mlp(p, normed)
    out = p.new(p.X)
    p.tape.drop(normed, middle, attended, written)
    return out


def _neox_rest(p: Pass, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
    """GPTNeoXLayer after attention: norms go when the module that took them returns."""
    p.tape.drop(normed)
    if not p.spec.parallel_attn_mlp:
        attended = p.replace(attended, p.X)
    normed = norm(p, "ln2", x if p.spec.parallel_attn_mlp else attended)
    written = mlp(p, normed)
    p.tape.drop(normed)
    both = p.new(p.X) if p.spec.parallel_attn_mlp else p.new(0)
    out = p.new(p.X)
    p.tape.drop(both, attended, written)
    return out


def _opt_rest(p: Pass, normed: Tensor, attended: Tensor) -> Tensor:
    """OPTDecoderLayer after attention: its MLP is no module of its own."""
    p.tape.drop(normed)
    middle = p.replace(attended, p.X)
    normed = norm(p, "ln2", middle)
    p.hook("mlp.in.hook_in", normed)
    pre = p.hook("mlp.in.hook_out", p.new(p.M))
    p.tape.drop(normed)
    post = activation(p)
    p.tape.drop(pre)
    written = project_out(p, post)
    out = p.new(p.X)
    p.tape.drop(written, middle)
    return out


def _llama_rest(p: Pass, normed: Tensor, attended: Tensor) -> Tensor:
    """LlamaDecoderLayer and its copies after attention; in Gemma 2 with norms after attention and MLP, too."""
    around = p.spec.norm_placement == "both"
    p.tape.drop(normed)
    if around:
        normed = norm(p, "ln1_post", attended)
        p.tape.drop(attended)
        attended = normed
    middle = p.replace(attended, p.X)
    normed = norm(p, "ln2", middle)
    written = mlp(p, normed)
    p.tape.drop(normed)
    if around:
        normed = norm(p, "ln2_post", written)
        p.tape.drop(written)
        written = normed
    out = p.new(p.X)
    p.tape.drop(written, middle)
    return out


def _head(p: Pass, residual: Tensor, held: list[Tensor]) -> Tensor:
    """The last norm, after which the model's `forward` lets go of what it `held`, and the logits, [b, s, d_vocab]."""
    normed = norm(p, "ln_final", residual)
    p.tape.drop(residual, *held)
    p.hook("unembed.hook_in", normed)
    size = p.w * p.tokens * p.spec.d_vocab
    logits = p.hook("unembed.hook_out", p.new(size, "logits"))
    for _ in range(3 * p.spec.logit_softcap):  # divided, tanh, multiplied
        capped = p.new(size, "logits")
        p.tape.drop(logits)
        logits = capped
    p.tape.drop(normed)
    return logits
