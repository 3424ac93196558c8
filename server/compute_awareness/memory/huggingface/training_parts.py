"""Pieces of transformers 5.23 models in train mode, on symbolic tensors: weights, norms, activations, attention.

Transcribed from `models/*/modeling_*.py`, `activations.py`, `integrations/sdpa_attention.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ...models.spec import ModelSpec
from ..autograd import ops, views
from ..autograd.graph import FLOAT32, HALF, INT64, Graph, Var
from ..sharded import local_elements

LLAMA_RMS = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM"}
)
GEMMA = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
LATE_OLMO = frozenset({"Olmo2ForCausalLM", "Olmo3ForCausalLM"})
OLMO = LATE_OLMO | {"OlmoForCausalLM"}


@dataclass(frozen=True)
class Lora:
    """peft's LoraConfig: rank, and the names of the linear layers that get adapters (None: all of them)."""

    rank: int
    targets: frozenset[str] | None

    def adapts(self, name: str) -> bool:
        """Whether the linear layer `name` is a target: by its whole name, or its end after a dot."""
        return self.targets is None or any(name == t or name.endswith(f".{t}") for t in self.targets)


@dataclass
class Kept:
    """What outlives a pass: the tensors, and bytes of each module output that hooks keep, by its role."""

    on_host: bool = False
    """The outputs are copied to host memory, and nothing is held here."""
    tensors: list[Var] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Model:
    """What is trained: the model's numbers, the input's shape, and the graph it is played on."""

    spec: ModelSpec
    b: int
    s: int
    width: int
    attention: str
    graph: Graph
    dropout: float = 0.0
    """Of embeddings and of what attention and MLP return."""
    attention_dropout: float = 0.0
    lora: Lora | None = None
    math_kernel: bool = False
    """sdpa: grouped heads without a mask run in torch's unfused kernel."""
    kv_cache: bool = False
    kept: Kept | None = None
    """What outlives the pass."""

    @property
    def trainable(self) -> bool:
        """Whether the model's own weights are trained."""
        return self.lora is None

    def indices(self) -> Var:
        """int64 [b, s], counted on the tape."""
        return self.graph.new((self.b, self.s), INT64, None, "activations")

    def cached(self, key: Var, value: Var) -> tuple[Var, Var]:
        """DynamicCache.update of an empty cache: contiguous copies by torch.cat, which the cache holds; without a
        cache the tensors themselves. A sliding layer keeps a view, so all of the first pass."""
        if not self.kv_cache or self.kept is None:
            return key, value
        key, value = views.cat([key], -2).book("kv_cache"), views.cat([value], -2).book("kv_cache")
        self.kept.tensors += [key.alias(), value.alias()]
        return key, value


class Weights:
    """The weights of one layer (or of the ends), made when first asked for.

    `roles` are the outputs that hooks keep here (`outputs.Layout`), `modules` the role by path inside the layer: a
    module is found by the end of its path, which is what its weights are named after.
    """

    def __init__(
        self, model: Model, roles: frozenset[str] = frozenset(), modules: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.model = model
        self.roles, self.modules = roles, modules
        self.named: dict[str, Var] = {}
        self.linears: list[str] = []
        """Names of the linear layers, as they were asked for."""

    def get(self, name: str, *shape: int, width: int = 0, trainable: bool | None = None) -> Var:
        known = self.named.get(name)
        if known is None:
            model = self.model
            train = model.trainable if trainable is None else trainable
            known = self.named[name] = model.graph.parameter(shape, width or model.width, train)
        return known

    def gives(self, role: str, x: Var) -> Var:
        """`x` is what the module `role` returns, and a hook may keep it, graph and all."""
        kept = self.model.kept
        if kept is not None and role in self.roles:
            kept.sizes[role] = x.elements * x.width
            if not kept.on_host:
                kept.tensors.append(x.alias().book("activation_cache"))
        return x

    def _returns(self, name: str, x: Var) -> Var:
        """`x` is what the module that the weights `name` belong to returns."""
        if self.roles:
            for path, role in self.modules.items():
                if path == name or path.endswith(f".{name}"):
                    return self.gives(role, x)
        return x

    def activation(self, x: Var) -> Var:
        """The model's activation function."""
        return self.gives("act", activation(x, self.model.spec.act_fn))

    @property
    def gradients(self) -> list[int]:
        """Bytes of each gradient, in about the order in which backward comes to them."""
        return [v.elements * v.width for v in reversed(self.named.values()) if v.needs_grad]

    @property
    def trained(self) -> list[tuple[int, int]]:
        """Elements and bytes per element of each trained tensor."""
        return [(v.elements, v.width) for v in self.named.values() if v.needs_grad]

    def shared(self, n_devices: int) -> list[tuple[int, int]]:
        """`trained`, of one card's share of each tensor (FSDP2)."""
        return [(local_elements(v.shape, n_devices), v.width) for v in self.named.values() if v.needs_grad]

    def linear(self, x: Var, name: str, out: int, bias: bool = False) -> Var:
        """nn.Linear, with peft's adapter where the name is a target."""
        inside = x.shape[-1]
        y = ops.linear(x, self.get(name, out, inside), self.get(f"{name}.bias", out) if bias else None)
        width = y.width
        for added in self._adapter(x, name, inside, out):
            y = ops.add(y, added)
            del added
        return self._returns(name, ops.cast(y, width))

    def conv1d(self, x: Var, name: str, out: int) -> Var:
        """GPT-2's Conv1D, with peft's adapter where the name is a target."""
        inside = x.shape[-1]
        y = ops.conv1d(x, self.get(name, inside, out), self.get(f"{name}.bias", out))
        width = y.width
        for added in self._adapter(x, name, inside, out):
            y = ops.add(y, added)
            del added
        return self._returns(name, ops.cast(y, width))

    def _adapter(self, x: Var, name: str, inside: int, out: int) -> Iterator[Var]:
        """`lora_B(lora_A(x)) * scaling` of peft 0.21 (tuners/lora/layer.py), in float32 whatever the model's dtype."""
        self.linears.append(name)
        lora = self.model.lora
        if lora is None or not lora.adapts(name):
            return
        down = self.get(f"{name}.lora_A", lora.rank, inside, width=FLOAT32, trainable=True)
        up = self.get(f"{name}.lora_B", out, lora.rank, width=FLOAT32, trainable=True)
        x = ops.cast(x, FLOAT32)
        yield ops.neg(ops.linear(ops.linear(x, down), up))

    def layer_norm(self, x: Var, name: str) -> Var:
        """nn.LayerNorm with weight and bias."""
        return self._returns(name, self._layer_norm(x, name))

    def _layer_norm(self, x: Var, name: str) -> Var:
        length = x.shape[-1]
        return ops.layer_norm(x, self.get(name, length), self.get(f"{name}.bias", length))

    def norm(self, x: Var, name: str) -> Var:
        """The norm of the model's family."""
        return self._returns(name, self._norm(x, name))

    def _norm(self, x: Var, name: str) -> Var:
        architecture = self.model.spec.architecture
        if architecture in LLAMA_RMS:
            return self._llama_rms(x, name)
        if architecture in GEMMA:
            return self._gemma_rms(x, name)
        if architecture in LATE_OLMO:
            return self._olmo_rms(x, name)
        if architecture == "OlmoForCausalLM":
            return ops.cast(ops.layer_norm(ops.cast(x, FLOAT32), None, None), x.width)
        return self._layer_norm(x, name)

    def _llama_rms(self, x: Var, name: str) -> Var:
        hidden = ops.cast(x, FLOAT32)
        variance = ops.mean(ops.power(hidden))
        hidden = ops.mul(hidden, ops.rsqrt(ops.add(variance, 1e-6)))
        return ops.mul(self.get(name, x.shape[-1]), ops.cast(hidden, x.width))

    def _olmo_rms(self, x: Var, name: str) -> Var:
        hidden = ops.cast(x, FLOAT32)
        variance = ops.mean(ops.power(hidden))
        hidden = ops.mul(hidden, ops.rsqrt(ops.add(variance, 1e-6)))
        return ops.cast(ops.mul(self.get(name, x.shape[-1]), hidden), x.width)

    def _gemma_rms(self, x: Var, name: str) -> Var:
        def normed(x: Var) -> Var:
            return ops.mul(x, ops.rsqrt(ops.add(ops.mean(ops.power(x)), 1e-6)))

        output = normed(ops.cast(x, FLOAT32))
        output = ops.mul(output, ops.add(ops.cast(self.get(name, x.shape[-1]), FLOAT32), 1.0))
        return ops.cast(output, x.width)


def gelu_new(x: Var) -> Var:
    """NewGELUActivation: 0.5 * x * (1 + tanh(c * (x + 0.044715 * x ** 3)))."""
    return ops.mul(ops.neg(x), ops.add(ops.tanh(ops.neg(ops.add(x, ops.neg(ops.power(x))))), 1.0))


def activation(x: Var, name: str) -> Var:
    """The activation function as ACT2FN of transformers has it."""
    if name == "gelu_new":
        return gelu_new(x)
    if name == "relu":
        return ops.relu(x)
    return ops.saves_input(x)  # silu, gelu, gelu_pytorch_tanh: one kernel


def rotate_half(x: Var) -> Var:
    half = x.shape[-1] // 2
    first = views.narrow(x, -1, half)
    second = views.narrow(x, -1, half)
    return views.cat([ops.neg(second), first])


def rotated(x: Var, cos: Var, sin: Var) -> Var:
    """(x * cos) + (rotate_half(x) * sin)."""
    return ops.add(ops.mul(x, cos), ops.mul(rotate_half(x), sin))


def heads(x: Var, d_head: int) -> Var:
    """x.view(b, s, -1, d_head).transpose(1, 2)."""
    return views.transpose(views.view(x, *x.shape[:-1], -1, d_head), 1, 2)


def repeat_kv(x: Var, times: int) -> Var:
    b, kv, s, d = x.shape
    if times == 1:
        return x
    return views.reshape(views.expand(views.unsqueeze(x, 2), b, kv, times, s, d), b, kv * times, s, d)


def eager(
    model: Model, q: Var, k: Var, v: Var, mask: Var | None, *, softcap: bool = False, upcast: bool = True
) -> tuple[Var, Var]:
    """eager_attention_forward of most models. `upcast`: the softmax is asked for in float32."""
    times = q.shape[1] // k.shape[1]
    keys, values = repeat_kv(k, times), repeat_kv(v, times)
    weights = ops.neg(ops.matmul(q, views.transpose(keys, 2, 3)))
    if softcap:
        weights = ops.neg(weights)
        weights = ops.tanh(weights)
        weights = ops.neg(weights)
    if mask is not None:
        weights = ops.add(weights, mask)
    weights = ops.cast(ops.softmax(weights, FLOAT32), q.width) if upcast else ops.softmax(weights)
    weights = ops.dropout(weights, model.attention_dropout)
    out = ops.matmul(weights, values)
    out = views.transpose(out, 1, 2)
    return views.contiguous(out) if upcast else out, weights


def sdpa(model: Model, q: Var, k: Var, v: Var, mask: Var | None) -> tuple[Var, None]:
    """sdpa_attention_forward in a fused kernel; a boolean mask becomes a float one. On CUDA flash attention is taken
    only in 16 bit and without a mask (ATen/native/transformers/cuda/sdp_utils.cpp)."""
    times = q.shape[1] // k.shape[1]
    if times > 1 and (mask is not None or k.shape[-1] > 256):
        k, v = repeat_kv(k, times), repeat_kv(v, times)
    width = q.width if model.graph.autocast is None else HALF
    if mask is not None:
        mask = model.graph.new((model.b, 1, model.s, model.s), width)
    if model.math_kernel and mask is None and times > 1:
        out = ops.math_attention(q, k, v)
    elif (width == FLOAT32 or mask is not None) and not model.graph.flash_only:
        out = ops.efficient_attention(q, k, v, mask)
    else:
        out = ops.flash_attention(q, k, v, mask)
    return views.contiguous(views.transpose(out, 1, 2)), None


def attend(
    model: Model, q: Var, k: Var, v: Var, mask: Var | None, *, softcap: bool = False, upcast: bool = True
) -> tuple[Var, Var | None]:
    """The attention function of the chosen implementation: [b, s, heads, d_head]."""
    if model.attention == "sdpa":
        return sdpa(model, q, k, v, mask)
    return eager(model, q, k, v, mask, softcap=softcap, upcast=upcast)
