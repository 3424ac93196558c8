"""Memory of one forward pass without gradients of a Hugging Face transformers 5.23 model.

The layers are written down once per kind on a tape of their own and appended as often as the model has them; around
them go what the model's own `forward` holds meanwhile: embeddings, masks, position tables, and at the end the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from ...errors import InputError
from ...models.spec import ModelSpec
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .attention import attend
from .embedding import embed, masked, slides
from .parts import FLOAT32, INT64, Keep, Pass, Waiting, mlp, norm

Attention = Literal["eager", "sdpa"]

# `_supports_sdpa` of the classes of transformers 5.23; asking the others for sdpa is a ValueError there.
SDPA = frozenset(
    {
        "GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
        "Qwen3ForCausalLM", "GemmaForCausalLM", "Gemma3ForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM",
        "OPTForCausalLM", "OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM",
    }
)  # fmt: skip
EAGER_ONLY = frozenset({"Gemma2ForCausalLM", "GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})
# These models' loop over the layers keeps the last layer's output tuple, attention weights included.
KEEPS_LAYER_OUTPUT = frozenset({"GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})


_Kind = tuple[bool, frozenset[str], bool, frozenset[tuple[str, int]]]
"""What layers must share to be written down once: mask, kept roles, whether the input goes, weights that come."""


@dataclass(frozen=True)
class Keeps:
    """Module outputs that outlive the pass, by role (`transformers_outputs` maps module paths to roles)."""

    layers: Sequence[frozenset[str]]
    """Of each layer."""
    ends: frozenset[str] = frozenset()
    """Outside the layers; "input" is what the first layer gets, "norm" what the last norm returns."""
    on_host: bool = False


@dataclass(frozen=True)
class Played:
    """A pass on the tape, and bytes of each output that was kept (or copied to the host), by role."""

    tape: Tape
    sizes: dict[str, int] = field(default_factory=dict)
    held: Sequence[object] = ()
    """What keeps the graph of a pass with gradients on the tape: tensors are let go with the last name for them."""


def supports_sdpa(architecture: str) -> bool:
    """Whether the Hugging Face class `architecture` has scaled-dot-product attention in transformers 5.23."""
    return architecture in SDPA


def default_attention(spec: ModelSpec) -> Attention:
    """What transformers 5.23 uses where `attn_implementation` is not given: sdpa where the class has it."""
    return "sdpa" if supports_sdpa(spec.architecture) else "eager"


def needs_math_kernel(spec: ModelSpec, width: int, capability: str | None = None) -> bool:
    """Whether sdpa of this model computes all scores on CUDA: grouped heads in float32, or on a card before Ampere.

    transformers 5.23 (integrations/sdpa_attention.py, use_gqa_in_sdpa) leaves the grouping to the kernel where there
    is no mask. Of torch 2.13's CUDA kernels flash and cuDNN attention can group but refuse float32, the
    memory-efficient one cannot group (ATen/native/transformers/cuda/sdp_utils.cpp; pytorch/pytorch#181528), so the
    unfused one is left. Before compute capability 8.0 there is no flash attention at all. The CPU's kernel groups in
    every dtype.
    """
    no_flash = width == FLOAT32 or (capability is not None and float(capability) < 8.0)
    return supports_sdpa(spec.architecture) and spec.n_heads > spec.n_kv_heads and no_flash


def forward(
    spec: ModelSpec,
    batch_size: int,
    seq_len: int,
    width: int,
    attention: Attention,
    kv_cache: bool,
    math_kernel: bool = False,
) -> Tape:
    """`model(input_ids)` under `torch.no_grad()`, `use_cache=kv_cache`: live bytes above weights and buffers.

    `width` is the bytes per element of weights and activations. Counted are the input ids [batch_size, seq_len] in
    int64 too. At the end of the tape live what the caller still holds: input ids, logits [batch_size, seq_len,
    d_vocab], and the DynamicCache.

    sdpa is taken to run in a fused kernel (flash or memory-efficient attention) unless `math_kernel` is given (see
    `needs_math_kernel`), and the softmax of eager attention to upcast with a copy, as torch does on the
    CPU and for bfloat16 on CUDA. Source: transformers 5.23, models/*/modeling_*.py.

    Raises:
        InputError: the architecture is not covered, or has no sdpa.
    """
    return keeping(spec, batch_size, seq_len, width, attention, kv_cache, math_kernel, None).tape


def refuse_uncovered(spec: ModelSpec, attention: Attention) -> None:
    """InputError for an architecture that is not covered, and for sdpa where it has none."""
    if spec.architecture not in SDPA | EAGER_ONLY:
        raise InputError(f"{spec.name}: {spec.architecture} is not a model of transformers that is covered")
    if attention == "sdpa" and not supports_sdpa(spec.architecture):
        raise InputError(f"{spec.name}: {spec.architecture} has no sdpa in transformers 5.23; use attention 'eager'")


def keeping(
    spec: ModelSpec,
    batch_size: int,
    seq_len: int,
    width: int,
    attention: Attention,
    kv_cache: bool,
    math_kernel: bool,
    keeps: Keeps | None,
    waiting: Waiting | None = None,
) -> Played:
    """As `forward`, while something keeps module outputs; what it holds is booked as "activation_cache".

    `waiting`: bytes of weights that come to the card for their module alone (`placement.waiting`); None = none do.

    Raises:
        InputError, ValueError: as `forward` does.
    """
    refuse_uncovered(spec, attention)
    keeps = keeps or Keeps([frozenset()] * spec.n_layers)
    how = width, attention, kv_cache, math_kernel
    visits = waiting and tuple(frozenset(part.items()) for part in (waiting.ends, *waiting.layers))
    return recall(
        ("transformers forward", spec, *how, tuple(keeps.layers), keeps.ends, keeps.on_host, visits),
        (batch_size, seq_len),
        lambda b, s: play_anew(spec, b, s, *how, keeps, waiting),
        with_log=True,
    )


def play_anew(
    spec: ModelSpec,
    batch_size: int,
    seq_len: int,
    width: int,
    attention: Attention,
    kv_cache: bool,
    math_kernel: bool,
    keeps: Keeps,
    waiting: Waiting | None = None,
) -> Played:
    """`keeping`, played; what is recorded of other shapes has no say."""
    sizes: dict[str, int] = {}
    p = Pass(
        spec, batch_size, seq_len, width, attention, kv_cache, math_kernel=math_kernel,
        keep=Keep(keeps.ends, keeps.on_host, sizes), visiting=waiting.ends if waiting else {},
    )  # fmt: skip
    tape = p.tape
    tape.new(INT64 * p.tokens, "activations")
    held, x = embed(p)
    if kv_cache:
        # DynamicSlidingWindowLayer keeps its window as a tensor
        tape.new(INT64 * sum(slides(spec, layer) for layer in range(spec.n_layers)), "kv_cache")
    x = _play_layers(p, keeps.layers, held, x, waiting.layers if waiting else [{}] * spec.n_layers)
    _play_end(p, held, x)
    return Played(tape, sizes)


def _play_layers(
    p: Pass,
    roles: Sequence[frozenset[str]],
    held: list[Tensor],
    x: Tensor | None,
    visiting: Sequence[Mapping[str, int]],
) -> Tensor:
    """The layers; returns the last one's output. `x` is the residual stream if it is not the embedding itself."""
    tape, spec, keep = p.tape, p.spec, p.keep
    assert keep is not None
    # The output of a layer is the residual stream of the next, whose input goes when that returns, unless it is kept.
    # An embedding that is the first one is held to the end, so the first layer lets go of nothing.
    drops_input = x is not None and x.refs == 1
    sections: dict[_Kind, tuple[Tape, bool]] = {}
    order: list[_Kind] = []
    for i in range(spec.n_layers):
        kind = (masked(p, slides(spec, i)), roles[i], drops_input, frozenset(visiting[i].items()))
        if kind not in sections:
            q = replace(
                p, tape=Tape(), masked=kind[0], keep=Keep(roles[i], keep.on_host, keep.sizes), visiting=visiting[i]
            )
            out = _play_layer(q)
            if drops_input:
                q.tape.drop(q.tape.adopt(p.X, "activations"))
            sections[kind] = q.tape, out.refs > 1
        order.append(kind)
        drops_input = not sections[kind][1]
    tape.append(sections[order[0]][0])
    if spec.architecture in KEEPS_LAYER_OUTPUT and ("weights" not in roles[0] or keep.on_host):
        held.append(tape.new(p.S, "activations"))
    for kind, run in groupby(order[1:]):
        tape.append(sections[kind][0], times=len(list(run)))
    if drops_input:
        return tape.adopt(p.X, "activations")
    return tape.hold(tape.adopt(p.X, "activation_cache"))


def _play_end(p: Pass, held: list[Tensor], x: Tensor) -> None:
    """The last norm and the head, from the last layer's output `x`."""
    tape, spec = p.tape, p.spec
    if spec.architecture == "OPTForCausalLM" and spec.norm_placement != "pre":
        final = p.gives("norm", x)
    else:
        final = p.gives("norm", norm(p, p.X, p.tokens))
        tape.drop(x)
    tape.drop(*held)
    size = p.w * p.tokens * spec.d_vocab
    logits = p.gives("lm_head", tape.new(size, "logits"))
    for _ in range(3 * spec.logit_softcap):  # divided, tanh, multiplied, each in a new tensor
        capped = tape.new(size, "logits")
        tape.drop(logits)
        logits = capped
    tape.drop(final)


def layer(p: Pass, leaves_output: bool = False) -> Tape:
    """One layer on `p.tape`; its input is held outside. What is left on the tape is what the cache keeps, and with
    `leaves_output` what the next layer reads."""
    out = _play_layer(p)
    if not leaves_output:
        p.tape.drop(out)
    return p.tape


def _play_layer(p: Pass) -> Tensor:
    """One layer on `p.tape`; its input is held outside. Returns its output, which is left there."""
    match p.spec.architecture:
        case "GPTNeoXForCausalLM":
            out = _neox_layer(p)
        case "PhiForCausalLM" | "GPTJForCausalLM":
            out = _parallel_layer(p)
        case "GPT2LMHeadModel" | "GPTNeoForCausalLM":
            out = _gpt2_layer(p)
        case "OPTForCausalLM":
            out = _opt_layer(p)
        case "BloomForCausalLM":
            out = _bloom_layer(p)
        case _:
            out = _llama_layer(p)
    if p.spec.architecture == "BloomForCausalLM":
        p.gives("mlp", out)
    return p.gives("layer", out)


def _finish(p: Pass, *held: Tensor | None) -> Tensor:
    """The layer's output appears beside `held`; the loop over the layers takes it over."""
    out = p.tape.new(p.X, "activations")
    p.tape.drop(*(tensor for tensor in held if tensor is not None))
    return out


def _norm(p: Pass, role: str) -> Tensor:
    return p.gives(role, norm(p, p.X, p.tokens))


def _renormed(p: Pass, old: Tensor, role: str) -> Tensor:
    new = _norm(p, role)
    p.tape.drop(old)
    return new


def _llama_layer(p: Pass) -> Tensor:
    """LlamaDecoderLayer and its copies; norms before, after, or around attention and MLP."""
    tape, placement = p.tape, p.spec.norm_placement
    before = _norm(p, "norm1") if placement != "post" else None
    y, weights = attend(p)
    if before is not None:
        tape.drop(before)
    if placement != "pre":
        y = _renormed(p, y, "norm1_after")
    residual = tape.new(p.X, "activations")
    tape.drop(y)
    before = _norm(p, "norm2") if placement != "post" else None
    z = mlp(p)
    if before is not None:
        tape.drop(before)
    if placement != "pre":
        z = _renormed(p, z, "norm2_after")
    return _finish(p, residual, z, weights)


def _gpt2_layer(p: Pass) -> Tensor:
    """GPT2Block, GPTNeoBlock: attention's output keeps its name through the MLP."""
    normed = _norm(p, "norm1")
    y, weights = attend(p)
    residual = p.tape.new(p.X, "activations")
    p.tape.drop(normed)
    normed = _norm(p, "norm2")
    z = mlp(p)
    return _finish(p, y, residual, normed, z, weights)


def _opt_layer(p: Pass) -> Tensor:
    """OPTDecoderLayer; norms before attention and MLP, or after the additions (opt-350m)."""
    tape, pre = p.tape, p.spec.norm_placement == "pre"
    normed = _norm(p, "norm1") if pre else None
    y, weights = attend(p)
    if normed is not None:
        tape.drop(normed)
    residual = tape.new(p.X, "activations")
    tape.drop(y)
    if pre:
        normed = _norm(p, "norm2")
    else:
        residual = _renormed(p, residual, "norm1")
    hidden = p.gives("up", tape.new(p.M, "activations"))
    if pre and normed is not None:
        tape.drop(normed)
    activated = p.gives("act", tape.new(p.M, "activations"))
    tape.drop(hidden)
    z = p.gives("down", tape.new(p.X, "activations"))
    tape.drop(activated)
    if not pre:
        added = tape.new(p.X, "activations")
        tape.drop(z, residual)
        residual, z = added, tape.new(0)
    out = _finish(p, residual, z, weights)
    return out if pre else p.gives("norm2", out)


def _parallel_layer(p: Pass) -> Tensor:
    """PhiDecoderLayer, GPTJBlock: attention and MLP read the same norm."""
    normed = _norm(p, "norm1")
    y, weights = attend(p)
    z = mlp(p)
    both = p.tape.new(p.X, "activations")
    return _finish(p, both, normed, y, z, weights)


def _neox_layer(p: Pass) -> Tensor:
    """GPTNeoXLayer: norms are arguments without a name, so they go when the module that took them returns."""
    tape = p.tape
    normed = _norm(p, "norm1")
    y, weights = attend(p)
    tape.drop(normed)
    if not p.spec.parallel_attn_mlp:
        residual = tape.new(p.X, "activations")
        tape.drop(y)
        y = residual
    normed = _norm(p, "norm2")
    z = mlp(p)
    tape.drop(normed)
    both = tape.new(p.X, "activations") if p.spec.parallel_attn_mlp else None
    return _finish(p, both, y, z, weights)


def _bloom_layer(p: Pass) -> Tensor:
    """BloomBlock: attention adds the residual itself, so does the MLP."""
    normed = _norm(p, "norm1")
    y, weights = attend(p)
    normed = _renormed(p, normed, "norm2")
    z = mlp(p)
    return _finish(p, y, normed, z, weights)
