"""Memory of one forward pass without gradients of a Hugging Face transformers 5.23 model.

The layers are written down once per kind on a tape of their own and played as often as the model has them; around
them go what the model's own `forward` holds meanwhile: embeddings, masks, position tables, and at the end the logits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..errors import InputError
from ..models.spec import ModelSpec
from .tape import Tape, Tensor
from .transformers_attention import attend
from .transformers_embedding import embed, masked, slides
from .transformers_parts import FLOAT32, INT64, Pass, mlp, norm

Attention = Literal["eager", "sdpa"]

# `_supports_sdpa` of the classes of transformers 5.23; asking the others for sdpa is a ValueError there.
_SDPA = frozenset(
    {
        "GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
        "Qwen3ForCausalLM", "GemmaForCausalLM", "Gemma3ForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM",
        "OPTForCausalLM", "OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM",
    }
)  # fmt: skip
_EAGER_ONLY = frozenset({"Gemma2ForCausalLM", "GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})
# These models' loop over the layers keeps the last layer's output tuple, attention weights included.
_KEEPS_LAYER_OUTPUT = frozenset({"GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})


def supports_sdpa(architecture: str) -> bool:
    """Whether the Hugging Face class `architecture` has scaled-dot-product attention in transformers 5.23."""
    return architecture in _SDPA


def default_attention(spec: ModelSpec) -> Attention:
    """What transformers 5.23 uses where `attn_implementation` is not given: sdpa where the class has it."""
    return "sdpa" if supports_sdpa(spec.architecture) else "eager"


def needs_math_kernel(spec: ModelSpec, width: int) -> bool:
    """Whether sdpa of this model computes all scores on CUDA: grouped heads in float32.

    transformers 5.23 (integrations/sdpa_attention.py, use_gqa_in_sdpa) leaves the grouping to the kernel where there
    is no mask. Of torch 2.13's CUDA kernels flash and cuDNN attention can group but refuse float32, the
    memory-efficient one cannot group (ATen/native/transformers/cuda/sdp_utils.cpp; pytorch/pytorch#181528), so the
    unfused one is left. The CPU's kernel groups in every dtype.
    """
    return supports_sdpa(spec.architecture) and spec.n_heads > spec.n_kv_heads and width == FLOAT32


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
    `needs_math_kernel`; float32 only), and the softmax of eager attention to upcast with a copy, as torch does on the
    CPU and for bfloat16 on CUDA. Source: transformers 5.23, models/*/modeling_*.py.

    Raises:
        InputError: the architecture is not covered, or has no sdpa.
        ValueError: `math_kernel` in 16 bit, where the fused kernels group heads.
    """
    if math_kernel and width != FLOAT32:
        raise ValueError("math_kernel is for float32")
    if spec.architecture not in _SDPA | _EAGER_ONLY:
        raise InputError(f"{spec.name}: {spec.architecture} is not a model of transformers that is covered")
    if attention == "sdpa" and not supports_sdpa(spec.architecture):
        raise InputError(f"{spec.name}: {spec.architecture} has no sdpa in transformers 5.23; use attention 'eager'")
    p = Pass(spec, batch_size, seq_len, width, attention, kv_cache, math_kernel=math_kernel)
    tape = p.tape
    tape.new(INT64 * p.tokens, "activations")
    held, x = embed(p)
    if kv_cache:
        # DynamicSlidingWindowLayer keeps its window as a tensor
        tape.new(INT64 * sum(slides(spec, layer) for layer in range(spec.n_layers)), "kv_cache")
    _play_layers(p, held, x)
    return tape


def _play_layers(p: Pass, held: list[Tensor], x: Tensor | None) -> None:
    """The layers, the last norm, the head. `x` is the residual stream if it is not the embedding itself."""
    tape, spec = p.tape, p.spec
    kinds = [masked(p, slides(spec, layer)) for layer in range(spec.n_layers)]
    sections = {kind: _layer(replace(p, tape=Tape(), masked=kind)) for kind in set(kinds)}
    tape.append(sections[kinds[0]])
    if x is None:
        x = tape.new(p.X, "activations")
    if spec.architecture in _KEEPS_LAYER_OUTPUT:
        held.append(tape.new(p.S, "activations"))
    # What is held only grows from layer to layer, so the last layer of each kind alone can make the peak.
    played = 1
    for last in sorted({kind: layer for layer, kind in enumerate(kinds)}.values()):
        if last < played:
            continue
        section = sections[kinds[last]]
        tape.new((last - played) * section.live, "kv_cache")
        tape.append(section)
        played = last + 1
    if spec.architecture == "OPTForCausalLM" and spec.norm_placement != "pre":
        final = x
    else:
        final = norm(p, p.X, p.tokens)
        tape.drop(x)
    tape.drop(*held)
    size = p.w * p.tokens * spec.d_vocab
    logits = tape.new(size, "logits")
    for _ in range(3 * spec.logit_softcap):  # divided, tanh, multiplied, each in a new tensor
        capped = tape.new(size, "logits")
        tape.drop(logits)
        logits = capped
    tape.drop(final)


def _layer(p: Pass) -> Tape:
    """One layer on `p.tape`; its input is held outside. What is left on the tape is what the cache keeps."""
    match p.spec.architecture:
        case "GPTNeoXForCausalLM":
            _neox_layer(p)
        case "PhiForCausalLM" | "GPTJForCausalLM":
            _parallel_layer(p)
        case "GPT2LMHeadModel" | "GPTNeoForCausalLM":
            _gpt2_layer(p)
        case "OPTForCausalLM":
            _opt_layer(p)
        case "BloomForCausalLM":
            _bloom_layer(p)
        case _:
            _llama_layer(p)
    return p.tape


def _finish(p: Pass, *held: Tensor | None) -> None:
    """The layer's output appears beside `held`; the loop over the layers takes it over."""
    out = p.tape.new(p.X, "activations")
    p.tape.drop(*(tensor for tensor in held if tensor is not None), out)


def _norm(p: Pass) -> Tensor:
    return norm(p, p.X, p.tokens)


def _renormed(p: Pass, old: Tensor) -> Tensor:
    new = _norm(p)
    p.tape.drop(old)
    return new


def _llama_layer(p: Pass) -> None:
    """LlamaDecoderLayer and its copies; norms before, after, or around attention and MLP."""
    tape, placement = p.tape, p.spec.norm_placement
    before = _norm(p) if placement != "post" else None
    y, weights = attend(p)
    if before is not None:
        tape.drop(before)
    if placement != "pre":
        y = _renormed(p, y)
    residual = tape.new(p.X, "activations")
    tape.drop(y)
    before = _norm(p) if placement != "post" else None
    z = mlp(p)
    if before is not None:
        tape.drop(before)
    if placement != "pre":
        z = _renormed(p, z)
    _finish(p, residual, z, weights)


def _gpt2_layer(p: Pass) -> None:
    """GPT2Block, GPTNeoBlock: attention's output keeps its name through the MLP."""
    normed = _norm(p)
    y, weights = attend(p)
    residual = p.tape.new(p.X, "activations")
    p.tape.drop(normed)
    normed = _norm(p)
    z = mlp(p)
    _finish(p, y, residual, normed, z, weights)


def _opt_layer(p: Pass) -> None:
    """OPTDecoderLayer; norms before attention and MLP, or after the additions (opt-350m)."""
    tape, pre = p.tape, p.spec.norm_placement == "pre"
    normed = _norm(p) if pre else None
    y, weights = attend(p)
    if normed is not None:
        tape.drop(normed)
    residual = tape.new(p.X, "activations")
    tape.drop(y)
    if pre:
        normed = _norm(p)
    else:
        residual = _renormed(p, residual)
    hidden = tape.new(p.M, "activations")
    if pre and normed is not None:
        tape.drop(normed)
    activated = tape.new(p.M, "activations")
    tape.drop(hidden)
    z = tape.new(p.X, "activations")
    tape.drop(activated)
    if not pre:
        added = tape.new(p.X, "activations")
        tape.drop(z, residual)
        residual, z = added, tape.new(0)
    _finish(p, residual, z, weights)


def _parallel_layer(p: Pass) -> None:
    """PhiDecoderLayer, GPTJBlock: attention and MLP read the same norm."""
    normed = _norm(p)
    y, weights = attend(p)
    z = mlp(p)
    both = p.tape.new(p.X, "activations")
    _finish(p, both, normed, y, z, weights)


def _neox_layer(p: Pass) -> None:
    """GPTNeoXLayer: norms are arguments without a name, so they go when the module that took them returns."""
    tape = p.tape
    normed = _norm(p)
    y, weights = attend(p)
    tape.drop(normed)
    if not p.spec.parallel_attn_mlp:
        residual = tape.new(p.X, "activations")
        tape.drop(y)
        y = residual
    normed = _norm(p)
    z = mlp(p)
    tape.drop(normed)
    both = tape.new(p.X, "activations") if p.spec.parallel_attn_mlp else None
    _finish(p, both, y, z, weights)


def _bloom_layer(p: Pass) -> None:
    """BloomBlock: attention adds the residual itself, so does the MLP."""
    normed = _norm(p)
    y, weights = attend(p)
    normed = _renormed(p, normed)
    z = mlp(p)
    _finish(p, y, normed, z, weights)
