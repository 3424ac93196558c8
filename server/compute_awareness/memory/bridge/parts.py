"""The parts of a TransformerBridge outside attention: norms and MLPs, as what they allocate and which hooks see it.

Read off transformer_lens 3.9.0 (model_bridge/generalized_components/{normalization,mlp,gated_mlp}.py) and the modules
they call in transformers 5.23 (models/*/modeling_*.py). In 4.3.0 the same code allocates the same.
"""

from __future__ import annotations

from typing import Literal

from ..tape import Tensor
from .run import FLOAT32, Pass

Norm = Literal["python", "layer_norm", "layer_norm_float32", "rms", "rms_offset"]

NORMS: dict[str, Norm] = {
    "GPT2LMHeadModel": "python",
    "GPTNeoForCausalLM": "python",
    "GPTJForCausalLM": "python",
    "GPTNeoXForCausalLM": "layer_norm",
    "PhiForCausalLM": "layer_norm",
    "OPTForCausalLM": "layer_norm",
    "OlmoForCausalLM": "layer_norm_float32",
    "LlamaForCausalLM": "rms",
    "MistralForCausalLM": "rms",
    "Qwen2ForCausalLM": "rms",
    "Qwen3ForCausalLM": "rms",
    "GemmaForCausalLM": "rms_offset",
    "Gemma2ForCausalLM": "rms_offset",
}
"""How the Bridge computes the norms of a model: itself ("python"), or for its hooks only, and then with the model's own
module, which is the rest of the word. These are the covered architectures."""

ACTIVATIONS = frozenset({"gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"})


def norm(p: Pass, name: str, x: Tensor, rows: int | None = None) -> Tensor:
    """NormalizationBridge.forward over `rows` rows (None = one per token). The caller keeps `x`; gives the output."""
    rows = rows or p.tokens
    p.hook(f"{name}.hook_in", x)
    kind = NORMS[p.spec.architecture]
    out = _python_norm(p, name, x, rows) if kind == "python" else _native_norm(p, name, x, rows, kind)
    return p.hook(f"{name}.hook_out", out)


def _python_norm(p: Pass, name: str, x: Tensor, rows: int) -> Tensor:
    """_python_norm_forward of a LayerNorm with weight and bias: all in float32."""
    t, full, row = p.tape, p.as_float32(x.bytes), FLOAT32 * rows
    upcast = p.new(full) if p.half else None
    mean = p.new(row)
    centred = p.new(full)
    t.drop(mean)
    if upcast is not None:
        t.drop(upcast)
    squares = p.new(full)
    variance = p.replace(squares, row)
    scale = p.replace(p.replace(variance, row), row)
    p.hook(f"{name}.hook_scale", scale)
    normalized = p.hook(f"{name}.hook_normalized", p.replace(centred, full))
    out = p.replace(p.new(full), full)  # weight, bias
    if p.half:
        out = p.replace(out, x.bytes)
    t.drop(normalized, scale)
    return out


def _native_norm(p: Pass, name: str, x: Tensor, rows: int, kind: Norm) -> Tensor:
    """_hf_autograd_forward_with_hooks: everything that was made for the hooks lives through the model's own norm."""
    t, full, row = p.tape, p.as_float32(x.bytes), FLOAT32 * rows
    held = [p.new(full)] if p.half else []
    if kind.startswith("layer_norm"):
        mean = p.new(row)
        held.append(p.new(full))
        t.drop(mean)
    held.append(p.replace(p.new(full), row))  # squares, variance
    held.append(p.replace(p.new(row), row))
    scale = p.replace(p.new(row), row)
    normalized = p.new(full)
    p.hook(f"{name}.hook_scale", scale)
    p.hook(f"{name}.hook_normalized", normalized)
    if kind == "layer_norm":
        out = _layer_norm(p, x.bytes, rows)
    elif kind == "layer_norm_float32":
        out = _layer_norm_float32(p, x.bytes, rows)
    else:
        out = _rms(p, x.bytes, rows, offset=kind == "rms_offset")
    t.drop(*held, scale, normalized)
    return out


def _layer_norm(p: Pass, nbytes: int, rows: int) -> Tensor:
    """torch.nn.LayerNorm: native_layer_norm also returns mean and reciprocal deviation of each row, in float32."""
    out = p.new(nbytes)
    p.tape.touch(2 * FLOAT32 * rows)
    return out


def _layer_norm_float32(p: Pass, nbytes: int, rows: int) -> Tensor:
    """OlmoLayerNorm."""
    if not p.half:
        return _layer_norm(p, nbytes, rows)
    upcast = p.new(p.as_float32(nbytes))
    out = _layer_norm(p, p.as_float32(nbytes), rows)
    p.tape.drop(upcast)
    return p.replace(out, nbytes)


def _rms(p: Pass, nbytes: int, rows: int, offset: bool) -> Tensor:
    """LlamaRMSNorm and its copies; GemmaRMSNorm (`offset`) multiplies by 1 + weight in float32."""
    t, full, row = p.tape, p.as_float32(nbytes), FLOAT32 * rows
    upcast = p.new(full) if p.half else None
    variance = p.replace(p.new(full), row)
    if offset:
        root = p.replace(p.replace(variance, row), row)
    else:
        root = p.replace(p.new(row), row)
    normed = p.replace(root, full)
    if upcast is not None:
        t.drop(upcast)
    if not offset:
        between = p.new(nbytes) if p.half else p.tape.hold(normed)
        out = p.new(nbytes)
        t.drop(between, normed, variance)
        return out
    weight = p.new(full // rows)
    if p.half:
        weight = p.replace(weight, full // rows)
    out = p.new(full)
    t.drop(weight, normed)
    return p.replace(out, nbytes) if p.half else out


def mlp(p: Pass, x: Tensor) -> Tensor:
    """The MLP of a block, from its input, which the caller keeps."""
    p.hook("mlp.hook_in", x)
    if p.spec.gated_mlp:
        out = _processed_gated(p) if p.run.processed else _gated(p, x)
    else:
        out = _plain(p, x)
    return p.hook("mlp.hook_out", out)


def _plain(p: Pass, x: Tensor) -> Tensor:
    p.hook("mlp.in.hook_in", x)
    pre = p.hook("mlp.in.hook_out", p.new(p.M))
    post = activation(p)
    p.tape.drop(pre)
    return project_out(p, post)


def project_out(p: Pass, post: Tensor) -> Tensor:
    """The MLP's second matrix; takes over `post`."""
    p.hook("mlp.out.hook_in", post)
    out = p.hook("mlp.out.hook_out", p.new(p.X))
    p.tape.drop(post)
    return out


def _gated(p: Pass, x: Tensor) -> Tensor:
    """GatedMLPBridge.forward around the model's own MLP, whose matrices are LinearBridges."""
    p.hook("mlp.gate.hook_in", x)
    gate = p.hook("mlp.gate.hook_out", p.new(p.M))
    active = activation(p)
    p.tape.drop(gate)
    p.hook("mlp.in.hook_in", x)
    linear = p.hook("mlp.in.hook_out", p.new(p.M))
    post = p.new(p.M)
    p.tape.drop(active, linear)
    return project_out(p, post)


def _processed_gated(p: Pass) -> Tensor:
    """GatedMLPBridge.forward with processed weights: its own computation, every step of which has a name."""
    gate = p.hook("mlp.gate.hook_out", p.new(p.M))
    linear = p.hook("mlp.in.hook_out", p.new(p.M))
    active = activation(p)
    post = p.tape.hold(p.new(p.M))
    out = project_out(p, post)
    p.tape.drop(gate, linear, active, post)
    return out


def activation(p: Pass) -> Tensor:
    """The activation function of the MLP; its input is held by the caller."""
    if p.spec.act_fn != "gelu_new" or p.spec.gated_mlp:
        return p.new(p.M)
    # NewGELUActivation: 0.5 * x * (1 + tanh(c * (x + 0.044715 * x ** 3))), each step a tensor
    half, chain = p.new(p.M), p.new(p.M)
    for _ in range(5):
        chain = p.replace(chain, p.M)
    out = p.new(p.M)
    p.tape.drop(half, chain)
    return out
