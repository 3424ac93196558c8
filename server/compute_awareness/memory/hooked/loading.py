"""What `HookedTransformer.from_pretrained` holds while it converts and processes the weights, all of it in RAM.

Read off transformer_lens 3.9.0: HookedTransformer.from_pretrained and load_and_process_state_dict,
loading_from_pretrained.{get_pretrained_state_dict,fill_missing_keys}, pretrained/weight_conversions/*.py and
weight_processing.ProcessWeights. The state dict of the converter shares its storages with the Hugging Face model; it
lives until from_pretrained returns, beside the new model, while each processing step clones the dict of the step
before. Processing is done in float32 whatever the dtype, so a 16-bit model takes as much as a float32 one, and more.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...models.spec import TOY, ModelSpec
from .. import weights
from ..tape import Tape, Tensor
from . import versions as hooked_versions
from .versions import NEWEST, Release

_GEMMA = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
TRANSPOSED = 60 * 60
"""Numbers in the block through which torch's CPU copies a transposed matrix (ATen/native/Copy.cpp, BLOCK_SZ)."""


@dataclass(frozen=True)
class StateDict:
    """The state dict of the converter, completed by fill_missing_keys. Numbers of elements but for `bytes_float32`."""

    bytes_float32: int
    """Bytes of a copy in float32: what every clone of the processing takes."""
    made: int
    """Elements that the converter makes itself (zero biases and the like) in the model's dtype."""
    made_float32: int
    """Elements that it makes in float32 whatever the dtype (Gemma's norms)."""
    hugging_face: int
    """Elements of the Hugging Face model that the dict refers to: its storages stay while the dict does."""


def state_dict(spec: ModelSpec, buffer_bytes_float32: int) -> StateDict:
    """The state dict from which a HookedTransformer of `spec` is loaded.

    `buffer_bytes_float32` are the bytes of the model's buffers with floating-point ones in float32: fill_missing_keys
    puts them into the dict, and every step clones them too.
    """
    d, q, kv, m, layers = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp, spec.n_layers
    params = weights.tl_params(spec, folded=False)
    phi3_biases = 2 * layers * spec.d_vocab if spec.architecture == "Phi3ForCausalLM" else 0  # written with that size
    total = 4 * (params + phi3_biases) + buffer_bytes_float32
    if spec.architecture == TOY:  # a file in TransformerLens' own names; nothing is shared with another model
        return StateDict(total, 0, 0, params)
    zeros = (q + 2 * kv) * (not spec.qkv_bias) + d * (not spec.attn_out_bias) + (m + d) * (not spec.mlp_bias)
    if spec.architecture == "OlmoForCausalLM":
        zeros -= q + 2 * kv  # taken from the new model instead
    if spec.architecture == "Phi3ForCausalLM":
        zeros -= m + d
    made = layers * zeros + phi3_biases
    if not spec.lm_head_bias and spec.architecture not in ("GPT2LMHeadModel", "BloomForCausalLM"):
        made += spec.d_vocab
    norms = 0
    if not spec.norm_weights:
        made += params - weights.tl_params(spec, folded=True)
    if spec.architecture in _GEMMA:
        made += spec.d_vocab * d  # scaled by sqrt(d_model)
        norms = d * (1 + layers * (4 if spec.norm_placement == "both" else 2))
        norms += layers * 2 * spec.d_head * (spec.qk_norm == "head")
    return StateDict(total, made, norms, weights.hf_params(spec) - norms)


def play(
    spec: ModelSpec,
    width: int,
    *,
    no_processing: bool = False,
    keeps_hf_model: bool = False,
    release: Release = NEWEST,
) -> Tape:
    """Play the loading of a HookedTransformer, up to the moment before it is moved to its device.

    Args:
        width: bytes per element of the model's dtype.
        no_processing: from_pretrained_no_processing.
        keeps_hf_model: the caller passed `hf_model` and holds on to it; otherwise it goes as soon as it is converted.
            Its parameters require gradients (transformers' default), which from_pretrained switches off only for a
            model it loads itself, so autograd keeps what the folding multiplies.
        release: what an older TransformerLens does otherwise.

    Returns:
        The tape; components are `hugging_face` (tensors of that model, file pages mapped into memory where the
        checkpoint has the dtype asked for), `weights` (the new model) and `temporaries`.
    """
    entries = state_dict(spec, hooked_versions.buffer_bytes(spec, 4, release))
    tape = Tape()
    shared = width * entries.hugging_face
    hugging_face = tape.new(shared, "hugging_face")
    converted = tape.new(width * entries.made + 4 * entries.made_float32)
    if spec.architecture != TOY:
        rest = tape.new(width * weights.hf_params(spec) + weights.hf_buffer_bytes(spec, width) - shared, "hugging_face")
        if not keeps_hf_model:
            tape.drop(rest)
    _build(tape, spec, width, not no_processing, release)
    if release.loads_at_once:
        tape.touch(width * TRANSPOSED)
    if release.processes_in_dtype:
        if not no_processing:
            _process_in_place(tape, spec, width, entries, keeps_hf_model)
        return tape
    if width < 4:  # process_weights: state_dict[k] = v.float() in the caller's dict; the originals go one by one
        tape.drop(converted)
        if not keeps_hf_model:
            tape.drop(hugging_face)
        # All but what is no 16-bit tensor, which stays shared with the model: a scalar per block, boolean masks.
        masks = spec.n_layers * spec.context_tl**2 if release.stored_masks else 0
        tape.new(entries.bytes_float32 - 4 * spec.n_layers - masks)
    if not no_processing:
        if keeps_hf_model and spec.folds_norms_tl and spec.norm_weights:
            tape.new(_kept_for_backward(spec))
        _process(tape, spec, entries.bytes_float32)
    if width < 4:
        tape.touch(width * spec.d_vocab * spec.d_model)  # back to the dtype, embed.W_E first
    return tape


def _build(tape: Tape, spec: ModelSpec, width: int, folded: bool, release: Release) -> None:
    """HookedTransformer.__init__: parameters and buffers, and the scratch of stored masks."""
    total = width * weights.tl_params(spec, folded) + hooked_versions.buffer_bytes(spec, width, release)
    if not release.stored_masks:
        tape.new(total, "weights")
        return
    # The last block's mask is made before its tables and MLP and the unembedding: ones in float32, then as booleans.
    square = spec.context_tl**2
    later = width * (spec.d_model + 1) * spec.d_vocab + square
    later += width * ((3 if spec.gated_mlp else 2) * spec.d_model * spec.d_mlp + spec.d_mlp + spec.d_model)
    if spec.rotary_dim is not None:
        later += 2 * spec.context_tl * spec.rotary_dim * width
    tape.new(total - later, "weights")
    tape.touch(5 * square)
    tape.new(later, "weights")


def _process(tape: Tape, spec: ModelSpec, dict_bytes: int) -> None:
    """ProcessWeights.process_weights: three steps, each on a clone of the whole dict (its caller keeps the one before
    until the step returns)."""
    d, q = spec.d_model, spec.q_width
    steps: list[int] = []  # scratch of a step while both dicts are alive
    if spec.folds_norms_tl:
        steps.append(0)
    if not spec.logit_softcap and spec.positional != "shortformer":  # center_unembed: W_U - its mean
        steps.append(4 * (d * spec.d_vocab + d))
    # fold_value_biases: b_V[:, :, None] * W_O, with b_V repeated for grouped attention, and its sum
    steps.append(4 * (q * d + d + q * spec.grouped_attention_tl))
    current: Tensor | None = None
    for scratch in steps:
        clone = tape.new(dict_bytes)
        tape.touch(scratch)
        if current is not None:
            tape.drop(current)
        current = clone


def _process_in_place(tape: Tape, spec: ModelSpec, width: int, entries: StateDict, keeps_hf_model: bool) -> None:
    """2.x: load_and_process_state_dict replaces entry by entry in the one dict, in the model's dtype."""
    table = spec.d_vocab * spec.d_model
    if keeps_hf_model:  # nothing goes: at most everything is there once more
        tape.new(entries.bytes_float32 * width // 4)
        tape.touch(width * table)
        return
    norms = (2 if spec.norm == "layernorm" else 1) * spec.d_model * (2 * spec.n_layers + 1)
    gemma = spec.architecture in _GEMMA
    if spec.folds_norms_tl:
        if spec.norm_weights:
            tape.drop(tape.adopt((4 if gemma else width) * norms, "temporaries"))  # del state_dict[...]
        if spec.architecture == "GPT2LMHeadModel":
            tape.new(width * spec.d_vocab)  # b_U is the model's own until the norm's bias is folded into it
        if gemma and width < 4:  # a 16-bit matrix times a float32 norm: a float32 copy of it, and a float32 product
            matrices = spec.d_model * (spec.q_width + 2 * spec.kv_width + 2 * spec.d_mlp)
            tape.new((4 - width) * spec.n_layers * matrices)
            tape.touch(8 * table)
            tape.new((4 - width) * table)
        elif gemma or not spec.tied_embeddings:
            tape.touch(width * table)
        else:
            tape.new(width * table)  # W_U is its own now, while W_E keeps the matrix they shared
    if spec.norm == "layernorm" and spec.folds_norms_tl:
        tape.touch(_minus_mean(table, spec.d_vocab, width))  # W_E
    if not spec.logit_softcap and spec.positional != "shortformer":
        tape.touch(_minus_mean(table, spec.d_model, 4 if gemma else width))  # W_U
    tape.touch(width * spec.d_model * spec.q_width)


def _minus_mean(elements: int, means: int, width: int) -> int:
    """Scratch of `x - x.mean()` on the CPU, which takes a 16-bit mean in float32: a copy, the mean, the mean again."""
    return 4 * elements + (4 if width == 4 else 4 + width) * means


def _kept_for_backward(spec: ModelSpec) -> int:
    """Bytes of the matrices behind a norm as they were before folding, and of the norms."""
    d, matrices_in = spec.d_model, 2 if spec.gated_mlp else 1
    layer = d * (spec.q_width + 2 * spec.kv_width) + matrices_in * d * spec.d_mlp
    norms = (2 if spec.norm == "layernorm" else 1) * d * (2 * spec.n_layers + 1)
    return 4 * (spec.n_layers * layer + d * spec.d_vocab + norms)


def early_on_device(spec: ModelSpec, no_processing: bool, release: Release) -> int:
    """Bytes that the converter puts on the device before the model is there, and that stay until it is.

    convert_llama_weights alone names `cfg.device`: W_O and the biases that it makes. With processing the dict that
    holds them lives to the end, in float32; without, and in 2.x, its entries go as they are loaded.
    """
    if spec.architecture != "LlamaForCausalLM" or no_processing or release.processes_in_dtype:
        return 0
    d, q, kv, m = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    numbers = spec.n_layers * (q * d + q + 2 * kv + d + m + d) + spec.d_vocab
    return 4 * numbers
