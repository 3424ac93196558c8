"""Weights of a transformers model whose linear layers are quantised, and the scratch that computing with them takes.

Only the linear layers of the blocks are quantised: embeddings, norms, biases and the LM head keep the model's dtype
(transformers 5.23, quantizers/*; integrations/bitsandbytes.py). Sizes of one matrix [out, in] of n elements:

* bitsandbytes 8-bit: int8 values and a float32 scale per row (`SCB`).
* bitsandbytes 4-bit: half a byte per value, a float32 `absmax` per 64 values, and the 16 float32 values of the code.
* GPTQ and AWQ, 4 bits in groups of 128 inputs: packed values, packed zeros, float16 scales per group; GPTQ also the
  int32 group index of every input (gptqmodel and autoawq's `WQLinear`, their common group size).
* fp8: a byte per value and a float32 scale per 128 x 128 block (integrations/finegrained_fp8.py).

The bitsandbytes sizes are checked against the library on the CPU; GPTQ, AWQ and fp8 kernels need a GPU and were read.
"""

from __future__ import annotations

from ..models.spec import ModelSpec
from .weights import hf_params

_GROUP = 128
_BLOCK_4BIT = 64
_BLOCK_FP8 = 128


def linear_layers(spec: ModelSpec) -> list[tuple[int, int]]:
    """[out, in] of every linear layer of one block, as transformers lays them out (fused where it fuses)."""
    d, q, kv, mlp = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    fused = spec.architecture in ("GPT2LMHeadModel", "GPTNeoXForCausalLM", "BloomForCausalLM", "Phi3ForCausalLM")
    attention = [(q + 2 * kv, d)] if fused else [(q, d), (kv, d), (kv, d)]
    attention.append((d, q))
    if not spec.gated_mlp:
        return [*attention, (mlp, d), (d, mlp)]
    up = [(2 * mlp, d)] if spec.architecture == "Phi3ForCausalLM" else [(mlp, d), (mlp, d)]
    return [*attention, *up, (d, mlp)]


def quantized_weight_bytes(spec: ModelSpec, quantization: str, width: int) -> int:
    """Bytes of all parameters with the blocks' linear layers quantised, the rest at `width` bytes per element."""
    layers = linear_layers(spec)
    plain = hf_params(spec) - spec.n_layers * sum(rows * columns for rows, columns in layers)
    return plain * width + spec.n_layers * sum(_matrix_bytes(*layer, quantization) for layer in layers)


def _matrix_bytes(rows: int, columns: int, quantization: str) -> int:
    n = rows * columns
    groups = -(-columns // _GROUP)
    match quantization:
        case "bitsandbytes_8bit":
            return n + 4 * rows
        case "bitsandbytes_4bit":
            return -(-n // 2) + 4 * -(-n // _BLOCK_4BIT) + 4 * 16
        case "gptq_4bit":
            return n // 2 + groups * rows // 2 + 2 * groups * rows + 4 * columns
        case "awq_4bit":
            return n // 2 + groups * rows // 2 + 2 * groups * rows
        case "fp8":
            return n + 4 * -(-rows // _BLOCK_FP8) * -(-columns // _BLOCK_FP8)
    raise ValueError(quantization)


def scratch_bytes(spec: ModelSpec, quantization: str, tokens: int, width: int) -> int:
    """Bytes that the hungriest linear layer takes beside its input and output, for `tokens` = batch * seq.

    4-bit kernels unpack the whole matrix to the compute dtype for more than one token (bitsandbytes
    `MatMul4Bit.forward`: dequantize_4bit); 8-bit ones hold int8 inputs with a scale per token and the int32 product
    (bitsandbytes `MatMul8bitLt.forward`); fp8 ones hold the quantised inputs.
    """
    layers = linear_layers(spec)
    if quantization == "bitsandbytes_8bit":
        return max(tokens * (columns + 4 + 4 * rows) for rows, columns in layers)
    if quantization == "fp8":
        return max(tokens * (columns + 4 * -(-columns // _BLOCK_FP8)) for _, columns in layers)
    return 0 if tokens == 1 else max(rows * columns for rows, columns in layers) * width
