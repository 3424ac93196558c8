"""Which modules of a Hugging Face transformers 5.23 model a forward hook can keep the output of, and what it keeps.

A module's path leads to its role in the pass that `transformers_forward` plays. Several paths may share a role, where
one module returns what another made (dropout in eval mode). What is not listed as a role returns no plain tensor.
Paths are those of `model.named_modules()`; sources: `models/*/modeling_*.py`, `utils/output_capturing.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ...errors import InputError, nearest
from ...models.spec import ModelSpec
from .forward import Keeps

_GATED = {"mlp": "mlp", "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.act_fn": "act", "mlp.down_proj": "down"}
_QKVO = {
    "self_attn": "attn", "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
}  # fmt: skip
_LLAMA = _QKVO | _GATED | {"": "layer", "input_layernorm": "norm1", "post_attention_layernorm": "norm2"}
_QK_NORM = {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
_GEMMA2 = _LLAMA | {
    "post_attention_layernorm": "norm1_after", "pre_feedforward_layernorm": "norm2",
    "post_feedforward_layernorm": "norm2_after",
}  # fmt: skip
_OLMO2 = (
    _QKVO | _GATED | _QK_NORM
    | {"": "layer", "post_attention_layernorm": "norm1_after", "post_feedforward_layernorm": "norm2_after"}
)  # fmt: skip
_GPT_MLP = {"mlp": "mlp", "mlp.act": "act", "mlp.dropout": "mlp"}
_GPT2 = _GPT_MLP | {
    "": "layer", "ln_1": "norm1", "attn": "attn", "attn.c_attn": "qkv", "attn.c_proj": "o", "attn.resid_dropout": "o",
    "ln_2": "norm2", "mlp.c_fc": "up", "mlp.c_proj": "down",
}  # fmt: skip
_GPT_NEO = _GPT_MLP | {
    "": "layer", "ln_1": "norm1", "attn": "attn", "attn.attention": "attn", "attn.attention.q_proj": "q",
    "attn.attention.k_proj": "k", "attn.attention.v_proj": "v", "attn.attention.out_proj": "o",
    "attn.attention.resid_dropout": "o", "ln_2": "norm2", "mlp.c_fc": "up", "mlp.c_proj": "down",
}  # fmt: skip
_GPTJ = _GPT_MLP | {
    "": "layer", "ln_1": "norm1", "attn": "attn", "attn.q_proj": "q", "attn.k_proj": "k", "attn.v_proj": "v",
    "attn.out_proj": "o", "attn.resid_dropout": "o", "mlp.fc_in": "up", "mlp.fc_out": "down",
}  # fmt: skip
_NEOX = {
    "": "layer", "input_layernorm": "norm1", "attention": "attn", "attention.query_key_value": "qkv",
    "attention.dense": "o", "post_attention_dropout": "attn", "post_attention_layernorm": "norm2", "mlp": "mlp",
    "mlp.dense_h_to_4h": "up", "mlp.act": "act", "mlp.dense_4h_to_h": "down", "post_mlp_dropout": "mlp",
}  # fmt: skip
_BLOOM = {
    "": "layer", "input_layernorm": "norm1", "self_attention": "attn", "self_attention.query_key_value": "qkv",
    "self_attention.dense": "o", "post_attention_layernorm": "norm2", "mlp": "mlp", "mlp.dense_h_to_4h": "up",
    "mlp.gelu_impl": "act", "mlp.dense_4h_to_h": "down",
}  # fmt: skip
_OPT = {
    "": "layer", "self_attn_layer_norm": "norm1", "self_attn": "attn", "self_attn.q_proj": "q",
    "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.out_proj": "o", "final_layer_norm": "norm2",
    "fc1": "up", "activation_fn": "act", "fc2": "down",
}  # fmt: skip
_PHI = {
    "": "layer", "input_layernorm": "norm1", "self_attn": "attn", "self_attn.q_proj": "q", "self_attn.k_proj": "k",
    "self_attn.v_proj": "v", "self_attn.dense": "o", "mlp": "mlp", "mlp.fc1": "up", "mlp.activation_fn": "act",
    "mlp.fc2": "down",
}  # fmt: skip
_PHI3 = {
    "": "layer", "input_layernorm": "norm1", "self_attn": "attn", "self_attn.qkv_proj": "qkv", "self_attn.o_proj": "o",
    "resid_attn_dropout": "attn", "post_attention_layernorm": "norm2", "mlp": "mlp", "mlp.gate_up_proj": "gate_up",
    "mlp.activation_fn": "act", "mlp.down_proj": "down", "resid_mlp_dropout": "mlp",
}  # fmt: skip

_ENDS = {"model.embed_tokens": "embed", "model.norm": "norm", "lm_head": "lm_head"}
_GPT_ENDS = {"transformer.wte": "embed", "transformer.drop": "input", "transformer.ln_f": "norm", "lm_head": "lm_head"}
_WITH_POSITIONS = _GPT_ENDS | {"transformer.wpe": "positions"}


@dataclass(frozen=True)
class Layout:
    """The modules of one model class."""

    layers: str
    """Path of the list of layers."""
    inside: dict[str, str]
    """Role by path inside a layer; "" is the layer."""
    ends: dict[str, str]
    """Role by path of everything else."""
    others: tuple[str, ...] = ()
    """Paths inside a layer that return no plain tensor, or are not called."""


_ROTARY = ("model.layers", _LLAMA, _ENDS)
_LAYOUTS = {
    "GPT2LMHeadModel": Layout("transformer.h", _GPT2, _WITH_POSITIONS, ("attn.attn_dropout",)),
    "GPTNeoForCausalLM": Layout("transformer.h", _GPT_NEO, _WITH_POSITIONS, ("attn.attention.attn_dropout",)),
    "GPTJForCausalLM": Layout("transformer.h", _GPTJ, _GPT_ENDS, ("attn.attn_dropout",)),
    "GPTNeoXForCausalLM": Layout(
        "gpt_neox.layers", _NEOX,
        {"gpt_neox.embed_in": "embed", "gpt_neox.emb_dropout": "input", "gpt_neox.final_layer_norm": "norm",
         "lm_head": "lm_head"},
    ),
    "BloomForCausalLM": Layout(
        "transformer.h", _BLOOM,
        {"transformer.word_embeddings": "embed", "transformer.word_embeddings_layernorm": "input",
         "transformer.ln_f": "norm", "lm_head": "lm_head"},
        ("self_attention.attention_dropout",),
    ),
    "OPTForCausalLM": Layout(
        "model.decoder.layers", _OPT,
        {"model.decoder.embed_tokens": "embed", "model.decoder.embed_positions": "positions",
         "model.decoder.final_layer_norm": "norm", "lm_head": "lm_head"},
    ),
    "PhiForCausalLM": Layout(
        "model.layers", _PHI,
        {"model.embed_tokens": "embed", "model.embed_dropout": "input", "model.final_layernorm": "norm",
         "lm_head": "lm_head"},
        ("resid_dropout",),
    ),
    "Phi3ForCausalLM": Layout("model.layers", _PHI3, _ENDS),
    "LlamaForCausalLM": Layout(*_ROTARY),
    "MistralForCausalLM": Layout(*_ROTARY),
    "Qwen2ForCausalLM": Layout(*_ROTARY),
    "Qwen3ForCausalLM": Layout("model.layers", _LLAMA | _QK_NORM, _ENDS),
    "GemmaForCausalLM": Layout(*_ROTARY),
    "Gemma2ForCausalLM": Layout("model.layers", _GEMMA2, _ENDS),
    "Gemma3ForCausalLM": Layout("model.layers", _GEMMA2 | _QK_NORM, _ENDS),
    "OlmoForCausalLM": Layout(*_ROTARY),
    "Olmo2ForCausalLM": Layout("model.layers", _OLMO2, _ENDS),
    "Olmo3ForCausalLM": Layout("model.layers", _OLMO2, _ENDS),
}  # fmt: skip


def layout(spec: ModelSpec) -> Layout:
    """The modules of the model's class. Raises InputError where it is not covered."""
    known = _LAYOUTS.get(spec.architecture)
    if known is None:
        raise InputError(f"{spec.name}: {spec.architecture} is not a model of transformers that is covered")
    if spec.architecture == "OPTForCausalLM" and spec.norm_placement != "pre":  # opt-350m has no last norm
        return Layout(known.layers, known.inside, {p: r for p, r in known.ends.items() if r != "norm"})
    return known


@dataclass(frozen=True)
class Selection:
    """The modules whose outputs are kept: (path of the family, role, in how many layers)."""

    keeps: Keeps
    families: list[tuple[str, str, int]]

    def by_family(self, sizes: dict[str, int]) -> list[tuple[str, int, int]]:
        """(path, how many, bytes of all) of each family, where `sizes` has the bytes of one by role."""
        return [(path, count, count * sizes[role]) for path, role, count in self.families]


def hidden_states(spec: ModelSpec, attentions: bool, states: bool) -> Keeps:
    """What `output_hidden_states` and `output_attentions` keep: the first layer's input, every layer's output but the
    last one's, in whose place is what the last norm returns; and every layer's attention weights, which only eager
    attention returns."""
    weights = frozenset({"weights"} if attentions else ())
    inner = weights | {"layer"} if states else weights
    layers = [inner] * (spec.n_layers - 1) + [weights]
    return Keeps(layers, frozenset({"input", "norm"} if states else ()))


def select(
    spec: ModelSpec, names_filter: Sequence[str] | None, layers: Sequence[int] | None, on_host: bool
) -> Selection:
    """The modules that the globs match; None = every layer.

    In a glob `*` stands for any part of one name between dots, and at the start for any number of names, so
    "model.layers.*" are the layers and "*.mlp" every MLP. With `layers` only modules of these blocks are kept.

    Raises:
        InputError: nothing matches, a match returns no plain tensor, layers outside the model.
    """
    wanted = None if names_filter is None else tuple(names_filter)
    return _select(spec, wanted, None if layers is None else tuple(layers), on_host)


@lru_cache(maxsize=64)
def _select(
    spec: ModelSpec, names_filter: tuple[str, ...] | None, layers: tuple[int, ...] | None, on_host: bool
) -> Selection:
    known = layout(spec)
    n = spec.n_layers
    for i in layers or ():
        if not -n <= i < n:
            raise InputError(f"layers: {i} is outside the {n} blocks of {spec.name}")
    blocks = sorted({i % n for i in layers}) if layers is not None else list(range(n))
    if names_filter is not None and not names_filter:
        raise InputError("names_filter: an empty list keeps nothing; leave it out to keep every layer's output")
    pattern = re.compile("|".join(module_regex(glob) for glob in names_filter or [f"{known.layers}.*"]))
    counts: Counter[tuple[str, str]] = Counter()
    roles: list[set[str]] = [set() for _ in range(n)]
    for i in blocks:
        for local, role in known.inside.items():
            if pattern.fullmatch(_join(known.layers, str(i), local)):
                roles[i].add(role)
                counts[_join(known.layers, "*", local), role] += 1
        for local in known.others:
            if pattern.fullmatch(_join(known.layers, str(i), local)):
                raise InputError(_not_plain(_join(known.layers, str(i), local), known))
    ends: set[str] = set()
    if layers is None:
        for path, role in known.ends.items():
            if pattern.fullmatch(path):
                ends.add(role)
                counts[path, role] += 1
        for path in _containers(known):
            if pattern.fullmatch(path):
                raise InputError(_not_plain(path, known))
    if not counts:
        raise InputError(_no_module(spec, known, names_filter or [], layers))
    keeps = Keeps([frozenset(r) for r in roles], frozenset(ends), on_host)
    return Selection(keeps, [(path, role, count) for (path, role), count in counts.items()])


def paths(spec: ModelSpec, names_filter: Sequence[str] | None, layers: Sequence[int] | None = None) -> list[str]:
    """The full paths of the modules that `select` keeps, layer by layer, then those around the layers."""
    wanted = None if names_filter is None else tuple(names_filter)
    return [*_paths(spec, wanted, None if layers is None else tuple(layers))]


@lru_cache(maxsize=64)
def _paths(spec: ModelSpec, names_filter: tuple[str, ...] | None, layers: tuple[int, ...] | None) -> list[str]:
    known, n = layout(spec), spec.n_layers
    pattern = re.compile("|".join(module_regex(glob) for glob in names_filter or [f"{known.layers}.*"]))
    blocks = range(n) if layers is None else sorted({layer % n for layer in layers})
    inside = [_join(known.layers, str(i), local) for i in blocks for local in known.inside]
    ends = list(known.ends) if layers is None else []
    return [path for path in [*inside, *ends] if pattern.fullmatch(path)]


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def module_regex(glob: str) -> str:
    """The regular expression of the module paths that a glob stands for, to be matched as a whole."""
    tail = glob.lstrip("*")
    parts = re.split(r"(\*|\?)", tail)
    out = "".join({"*": "[^.]*", "?": "[^.]"}.get(part) or re.escape(part) for part in parts)
    return (".*" if tail != glob else "") + out


def _containers(known: Layout) -> list[str]:
    """Modules around the layers and position tables: what they return is no tensor, or not called with one."""
    parts = known.layers.split(".")
    around = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return [*around, f"{parts[0]}.rotary_emb"]


def _covered(known: Layout) -> str:
    return ", ".join([_join(known.layers, "*", local) for local in known.inside][:24] + list(known.ends))


def _not_plain(path: str, known: Layout) -> str:
    return f"names_filter: it matches {path}, whose output is not covered; covered: {_covered(known)}"


def _no_module(spec: ModelSpec, known: Layout, wanted: Sequence[str], layers: Sequence[int] | None) -> str:
    paths = [_join(known.layers, "*", local) for local in known.inside] + list(known.ends)
    shown = ", ".join(repr(glob) for glob in wanted[:3])
    by_tail = {path.rsplit(".", 1)[-1]: path for path in paths if path[-1] != "*"}
    close = [by_tail[hit] for glob in wanted for hit in nearest(glob.rsplit(".", 1)[-1], by_tail, 3)]
    where = f" (layers {list(layers)})" if layers is not None else ""
    hint = f"nearest: {', '.join(dict.fromkeys(close))}" if close else f"covered: {_covered(known)}"
    return f"names_filter: {shown} matches no module of {spec.name} in transformers{where}; {hint}"
