"""Weights of a TransformerBridge, and what loading them takes at its worst moment.

Read off transformer_lens 3.9.0: model_bridge/bridge.py (process_weights), weight_processing.py, sources/transformers.py
(boot), generalized_components/{unembedding,joint_qkv_attention,linear}.py, supported_architectures/neox.py. 4.3.0
allocates the same.
"""

from __future__ import annotations

from ...models.spec import ModelSpec
from .. import weights
from .run import FLOAT32


def bridge_params(spec: ModelSpec, processed: bool = False) -> int:
    """Numbers that the Bridge's parameters hold, what is shared counted once.

    It keeps the Hugging Face model. The unembedding gets a bias; the joint matrix of GPT-NeoX is kept beside the
    copies that q, k and v are (GPT-2's are views of it). `processed` is after enable_compatibility_mode(): embedding
    and unembedding are no longer tied, q, k and v of GPT-2 are copies too, and folding makes biases that were missing.
    """
    d, v = spec.d_model, spec.d_vocab
    total = weights.hf_params(spec) + (0 if spec.lm_head_bias else v)
    joint = 3 * d * d + 3 * d
    if spec.architecture == "GPTNeoXForCausalLM" or (spec.architecture == "GPT2LMHeadModel" and processed):
        total += spec.n_layers * joint
    if processed:
        total += v * d * spec.tied_embeddings + spec.n_layers * new_biases(spec)
    return total


def _new_qkv_biases(spec: ModelSpec) -> int:
    """Numbers in the biases that q, k and v of a layer get, where the norm before them has one."""
    if spec.norm != "layernorm" or not spec.norm_weights or spec.qkv_bias:
        return 0
    return spec.q_width + 2 * spec.kv_width


def new_biases(spec: ModelSpec) -> int:
    """Numbers in the biases that processing gives a layer: those, and the output's, into which the values' go."""
    of_qkv = _new_qkv_biases(spec)
    return of_qkv + spec.d_model * (bool(of_qkv or spec.qkv_bias) and not spec.attn_out_bias)


def bridge_bytes(spec: ModelSpec, width: int, processed: bool = False, float32_biases: bool = False) -> int:
    """Bytes of the Bridge's parameters; `width` is bytes per element of its dtype.

    `float32_biases`: the biases that processing makes are float32 in a model of any dtype, as before TransformerLens
    4.3; where it has 16 bits torch refuses to add them.
    """
    new = spec.n_layers * new_biases(spec) if processed and float32_biases else 0
    return bridge_params(spec, processed) * width + new * (FLOAT32 - width)


def boot_peak(spec: ModelSpec, width: int, compatibility_mode: bool, no_processing: bool) -> tuple[int, int]:
    """(RAM, device memory) in bytes of tensors at the worst moment of `boot_transformers(...)` onto a GPU, and of
    `enable_compatibility_mode(no_processing=...)` after it where `compatibility_mode` is set.

    Booting loads the Hugging Face model on the CPU in its dtype and moves it. Processing happens where the model is:
    beside the weights stand two float32 copies of all of them with the unembedding on its own, in 16 bit a third, and
    at the worst moment, when the unembedding is centred, one of that (Gemma 2, which caps its logits, is not centred).
    `no_processing=True` copies nothing. `width` is bytes per element of the model's dtype.
    """
    host = weights.hf_params(spec) * width + weights.hf_buffer_bytes(spec, width)
    boot = bridge_params(spec) * width + weights.hf_buffer_bytes(spec, width)
    if not compatibility_mode or no_processing:
        return host, boot
    unembedding = spec.d_vocab * spec.d_model
    all_numbers = weights.hf_params(spec) + unembedding * spec.tied_embeddings
    all_numbers += 0 if spec.lm_head_bias else spec.d_vocab
    copies = 2 if width == FLOAT32 else 3
    extra = copies * all_numbers + 2 * spec.n_layers * _new_qkv_biases(spec)
    if spec.tied_embeddings and width == FLOAT32:
        extra += unembedding
    if not spec.logit_softcap:
        extra += unembedding + spec.d_model
    return host, boot + FLOAT32 * extra
