"""Norms, activation functions and MLPs of Hugging Face transformers 5.23, as what they allocate and free.

Each function writes down one forward of the library's code on a tape: tensors in the order in which they are made,
let go where the last Python reference to them goes. An argument stays alive as long as its caller holds it, so the
functions here never drop what they were given. Sources are `models/*/modeling_*.py` and `activations.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...models.spec import ModelSpec
from ..tape import Tape, Tensor

NormCode = Literal["layer_norm", "rms", "rms_gemma", "rms_olmo", "layer_norm_fp32"]

_RMS = dict.fromkeys(
    ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM"), "rms"
)
_NORMS: dict[str, NormCode] = {
    **_RMS,
    "GemmaForCausalLM": "rms_gemma",
    "Gemma2ForCausalLM": "rms_gemma",
    "Gemma3ForCausalLM": "rms_gemma",
    "OlmoForCausalLM": "layer_norm_fp32",
    "Olmo2ForCausalLM": "rms_olmo",
    "Olmo3ForCausalLM": "rms_olmo",
}  # type: ignore[assignment]
_PYTHON_GELU = frozenset({"GPT2LMHeadModel", "GPTNeoForCausalLM", "GPTJForCausalLM", "PhiForCausalLM"})
FLOAT32 = 4
INT64 = 8


@dataclass
class Keep:
    """What is kept of a section's module outputs, by the module's role ("layer", "attn", "mlp", "q", ...)."""

    roles: frozenset[str]
    on_host: bool = False
    """Each is copied to host memory instead, and nothing is held."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each of the roles that came by."""


@dataclass(frozen=True)
class Waiting:
    """Bytes of the weights that come to the card for their module alone, by its role; nothing for what is there."""

    ends: Mapping[str, int]
    """Of the modules outside the layers."""
    layers: Sequence[Mapping[str, int]]
    """Of each layer."""

    @property
    def largest(self) -> int:
        """Bytes of the module whose weights are the most."""
        return max((nbytes for part in (self.ends, *self.layers) for nbytes in part.values()), default=0)


@dataclass(frozen=True)
class Pass:
    """One forward pass: the model, the input's shape, the bytes of an element, and the tape it is written on.

    The capital names are bytes of the tensors that keep coming back: `X` the residual stream [b, s, d_model], `Q` and
    `K` the queries and the keys (or values), `M` the MLP's hidden layer, `S` the scores [b, heads, s, s].
    """

    spec: ModelSpec
    b: int
    s: int
    w: int
    attention: Literal["eager", "sdpa"]
    kv_cache: bool
    tape: Tape = field(default_factory=Tape)
    masked: bool = False
    """sdpa only: this layer gets a mask (without one the kernel is told that it is causal)."""
    math_kernel: bool = False
    """sdpa only: grouped heads without a mask run in torch's unfused kernel."""
    keep: Keep | None = None
    leaves_weights: bool = False
    """The attention's weights outlive the layer: its caller holds what it returns."""
    visiting: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the weights that are on the card only while their module runs, by the module's role (`offload`)."""

    def gives(self, role: str, tensor: Tensor) -> Tensor:
        """`tensor` is what the module `role` returns, and somebody may keep it."""
        self.visit(role)
        if self.keep is not None and role in self.keep.roles:
            self.keep.sizes[role] = tensor.bytes
            if not self.keep.on_host:
                self.tape.hold(tensor, "activation_cache")
        return tensor

    def visit(self, role: str) -> None:
        """The weights of the module `role` are on the card beside what is alive now."""
        if nbytes := self.visiting.get(role, 0):
            self.tape.touch(nbytes, "weights")

    @property
    def tokens(self) -> int:
        return self.b * self.s

    @property
    def position_rows(self) -> int:
        """Rows of the position ids: one for all sequences, unless the caller passes ids for each (`generate` does)."""
        return 1

    @property
    def X(self) -> int:
        return self.w * self.tokens * self.spec.d_model

    @property
    def Q(self) -> int:
        return self.w * self.tokens * self.spec.q_width

    @property
    def K(self) -> int:
        return self.w * self.tokens * self.spec.kv_width

    @property
    def M(self) -> int:
        return self.w * self.tokens * self.spec.d_mlp

    @property
    def S(self) -> int:
        return self.w * self.b * self.spec.n_heads * self.s * self.s

    def as_float32(self, nbytes: int) -> int:
        """Bytes of the same tensor in float32."""
        return nbytes * FLOAT32 // self.w


def norm(p: Pass, nbytes: int, rows: int) -> Tensor:
    """The model's norm over a tensor of `nbytes` in `rows` rows; returns the output, as large as the input."""
    code = _NORMS.get(p.spec.architecture, "layer_norm")
    if code == "layer_norm":
        return _layer_norm(p, nbytes, rows, "activations")
    if code == "layer_norm_fp32":
        return _layer_norm_float32(p, nbytes, rows)
    if code == "rms_gemma":
        return _rms_gemma(p, nbytes, rows)
    return _rms(p, nbytes, rows, downcast_first=code == "rms")


def _layer_norm(p: Pass, nbytes: int, rows: int, component: str) -> Tensor:
    """torch.nn.LayerNorm: native_layer_norm also returns mean and reciprocal deviation of each row, in float32."""
    out = p.tape.new(nbytes, component)
    p.tape.touch(2 * FLOAT32 * rows)
    return out


def _layer_norm_float32(p: Pass, nbytes: int, rows: int) -> Tensor:
    """OlmoLayerNorm: computed in float32, without weights."""
    if p.w == FLOAT32:
        return _layer_norm(p, nbytes, rows, "activations")
    tape = p.tape
    upcast = tape.new(p.as_float32(nbytes))
    normed = _layer_norm(p, p.as_float32(nbytes), rows, "temporaries")
    tape.drop(upcast)
    out = tape.new(nbytes, "activations")
    tape.drop(normed)
    return out


def _rms(p: Pass, nbytes: int, rows: int, downcast_first: bool) -> Tensor:
    """LlamaRMSNorm and its copies; Olmo2RMSNorm multiplies by the weight first and casts back then."""
    tape, full, half = p.tape, p.as_float32(nbytes), p.w != FLOAT32
    upcast = tape.new(full) if half else None
    _mean_square(p, full, rows)
    scales = tape.new(FLOAT32 * rows)
    tape.touch(FLOAT32 * rows)
    root = tape.new(FLOAT32 * rows)
    normed = tape.new(full)
    tape.drop(root)
    if upcast is not None:
        tape.drop(upcast)
    if half:
        between = tape.new(nbytes if downcast_first else full)
        out = tape.new(nbytes, "activations")
        tape.drop(between)
    else:
        out = tape.new(nbytes, "activations")
    tape.drop(normed, scales)
    return out


def _rms_gemma(p: Pass, nbytes: int, rows: int) -> Tensor:
    """GemmaRMSNorm: float32 throughout, times (1 + weight), cast back at the end."""
    tape, full, half = p.tape, p.as_float32(nbytes), p.w != FLOAT32
    upcast = tape.new(full) if half else None
    _mean_square(p, full, rows)
    tape.touch(2 * FLOAT32 * rows)
    root = tape.new(FLOAT32 * rows)
    normed = tape.new(full)
    tape.drop(root)
    if upcast is not None:
        tape.drop(upcast)
    width = FLOAT32 * nbytes // (p.w * rows)
    weight = tape.new(width)
    scaled = tape.new(full, "temporaries" if half else "activations")
    tape.drop(weight, normed)
    if not half:
        return scaled
    out = tape.new(nbytes, "activations")
    tape.drop(scaled)
    return out


def _mean_square(p: Pass, full: int, rows: int) -> None:
    """`x.pow(2).mean(-1, keepdim=True)`: the squares live until the means are there."""
    squares = p.tape.new(full)
    p.tape.touch(FLOAT32 * rows)
    p.tape.drop(squares)


def mlp(p: Pass) -> Tensor:
    """The MLP; its input is held by the caller. Returns the output [b, s, d_model]."""
    out = _fused_gated_mlp(p) if p.spec.architecture == "Phi3ForCausalLM" else _mlp(p)
    if p.spec.architecture != "BloomForCausalLM":  # whose MLP adds the residual, and returns the layer's output
        p.gives("mlp", out)
    return out


def _mlp(p: Pass) -> Tensor:
    tape = p.tape
    if p.spec.gated_mlp:
        gate = p.gives("gate", tape.new(p.M, "activations"))
        activated = p.gives("act", tape.new(p.M, "activations"))
        tape.drop(gate)
        up = p.gives("up", tape.new(p.M, "activations"))
        hidden = tape.new(p.M, "activations")
        tape.drop(activated, up)
    else:
        pre = p.gives("up", tape.new(p.M, "activations"))
        hidden = p.gives("act", _activation(p))
        tape.drop(pre)
    out = p.gives("down", tape.new(p.X, "activations"))
    tape.drop(hidden)
    return out


def _fused_gated_mlp(p: Pass) -> Tensor:
    """Phi3MLP: gate and up in one projection, whose storage the `gate` view keeps to the end."""
    tape = p.tape
    gate_up = p.gives("gate_up", tape.new(2 * p.M, "activations"))
    activated = p.gives("act", tape.new(p.M, "activations"))
    hidden = tape.new(p.M, "activations")
    tape.drop(activated)
    out = p.gives("down", tape.new(p.X, "activations"))
    tape.drop(hidden, gate_up)
    return out


def _activation(p: Pass) -> Tensor:
    """The activation function of a plain MLP; its input is held by the caller."""
    tape = p.tape
    if p.spec.architecture in _PYTHON_GELU:
        # NewGELUActivation: 0.5 * x * (1 + tanh(c * (x + 0.044715 * x ** 3))), each step a tensor
        half = tape.new(p.M)
        chain = tape.new(p.M)
        for _ in range(5):
            step = tape.new(p.M)
            tape.drop(chain)
            chain = step
        out = tape.new(p.M, "activations")
        tape.drop(half, chain)
        return out
    if p.spec.architecture == "BloomForCausalLM":
        # bloom_gelu_forward: x * 0.5 * (1 + tanh(c * x * (1 + 0.044715 * x * x)))
        half, scaled = tape.new(p.M), tape.new(p.M)
        cubic = tape.new(p.M)
        for _ in range(2):
            step = tape.new(p.M)
            tape.drop(cubic)
            cubic = step
        chain = tape.new(p.M)
        tape.drop(scaled, cubic)
        for _ in range(2):
            step = tape.new(p.M)
            tape.drop(chain)
            chain = step
        out = tape.new(p.M, "activations")
        tape.drop(half, chain)
        return out
    return tape.new(p.M, "activations")
