"""Memory of one training step of a transformers 5.23 causal language model: forward with labels, backward, optimizer.

The model is played on symbolic tensors (`autograd`), so the peak follows from the library's code and torch's rules.
Layers between the second and the last are equal to their neighbours and are not played (`autograd.unplayed`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ...models.spec import ModelSpec
from ..autograd import ops, views
from ..autograd.graph import BOOL, FLOAT32, INT64, Graph, Var
from ..autograd.unplayed import Left, packed, unplayed, watched
from ..optimizer import Optimizer, step_tensors
from ..recorded.recall import recall
from ..sharded import Group, Shards
from ..tape import Tape
from .embedding import slides
from .training_context import Context
from .training_layers import layer
from .training_parts import GEMMA, OLMO, Lora, Model, Weights

ARCHITECTURES = frozenset(
    {
        "GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
        "Qwen3ForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "PhiForCausalLM",
        "Phi3ForCausalLM", "OPTForCausalLM", "GPTNeoForCausalLM", "GPTJForCausalLM", "OlmoForCausalLM",
        "Olmo2ForCausalLM", "Olmo3ForCausalLM", "BloomForCausalLM",
    }
)  # fmt: skip
"""Hugging Face classes whose training step is transcribed."""
_TWO_MASKS = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Olmo3ForCausalLM"})
_TABLE_PER_KIND = frozenset({"Gemma3ForCausalLM", "Olmo3ForCausalLM"})


def default_dropout(spec: ModelSpec) -> tuple[float, float]:
    """(dropout of hidden states, of attention weights) that the published config asks for in train mode.

    GPT-2's 0.1 and OPT's 0.1 and 0.0 are also the defaults of transformers' GPT2Config and OPTConfig. PhiConfig's
    default is 0.0: phi-2's 0.1 (resid_pdrop) is of its published config.json, from memory. Other classes: 0.0.
    """
    if spec.architecture == "GPT2LMHeadModel":
        return 0.1, 0.1
    return (0.1, 0.0) if spec.architecture == "OPTForCausalLM" or spec.name == "phi-2" else (0.0, 0.0)


@dataclass(frozen=True)
class Step:
    """One training step: what is trained, on which shapes, and how."""

    spec: ModelSpec
    batch_size: int
    seq_len: int
    width: int
    attention: str
    dropout: float = 0.0
    attention_dropout: float = 0.0
    gradient_checkpointing: bool = False
    accumulation: int = 1
    lora: Lora | None = None
    math_kernel: bool = False
    """sdpa: grouped heads without a mask run in torch's unfused kernel (`transformers_forward.needs_math_kernel`)."""
    autocast: Literal["cuda", "cpu"] | None = None
    """torch.autocast around forward and loss, to 16 bit, with that device's list of operators."""
    bucket_views: bool = False
    """DistributedDataParallel with gradient_as_bucket_view, earlier batches of a step in no_sync: the gradients that
    the last backward makes go into the buckets, which are not on the tape."""
    shards: int = 1
    """Cards that FSDP2 (`fully_shard` on every block and on the model) shares the model out over."""
    cpu: bool = False
    """Also play what only torch's CPU kernels allocate, for comparisons with runs on the CPU."""


@dataclass
class Playing:
    """A model that is being played: the weights of its ends, and those of the layers that are not left out."""

    indices: list[int]
    """The layers that are played."""
    ends: Weights
    layers: dict[int, Weights] = field(default_factory=dict)
    shards: Shards | None = None
    before_layers: int = 0
    """How many weights of the ends come before the layers."""

    def of_each(self, tensors_of: Callable[[Weights], list[tuple[int, int]]]) -> list[tuple[int, int]]:
        """What is said of each trained tensor, in the model's order: of the ends and of each layer, those that are left
        out too."""
        ends = tensors_of(self.ends)
        before = sum(v.needs_grad for v in list(self.ends.named.values())[: self.before_layers])
        tensors = ends[:before]
        last = max(self.layers)
        like_the_last = tensors_of(self.layers[last])
        for index in range(last + 1):
            tensors += tensors_of(self.layers[index]) if index in self.layers else like_the_last
        return tensors + ends[before:]


@dataclass(frozen=True)
class Part:
    """What a layer, or the model beside the layers, trains: elements and bytes per element of each tensor."""

    trained: list[tuple[int, int]]


@dataclass(frozen=True)
class Sharding:
    """What `fully_shard` gathers at a time: the root's own parameters, and a block's."""

    root: Group
    block: Group


@dataclass(frozen=True)
class Played:
    """The tape of a step (weights, buffers and optimizer state are not on it), and what is trained."""

    tape: Tape
    ends: Part
    layers: dict[int, Part]
    """Of the layers that were played."""
    trained: list[tuple[int, int]]
    """Elements and bytes per element of each trained tensor, those of the layers that were not played too."""
    shared: list[tuple[int, int]]
    """`trained`, but one card's share of each tensor where the model is sharded."""
    linears: list[str]
    """Names of the linear layers of a block, in order."""
    shards: Sharding | None = None


def play(step: Step, optimizer: Optimizer = "sgd") -> Played:
    """`play_anew`, by what was recorded of a step of another shape where that fits."""
    return recall(
        ("transformers step", replace(step, batch_size=0, seq_len=0), optimizer),
        (step.batch_size, step.seq_len),
        lambda batch_size, seq_len: play_anew(replace(step, batch_size=batch_size, seq_len=seq_len), optimizer),
        with_log=True,
    )


def play_anew(step: Step, optimizer: Optimizer = "sgd") -> Played:
    """Forward with labels and backward, `accumulation` times, and the optimizer's step, where that allocates anything
    (sgd, the default, does not); at the end the gradients are alive.

    Counted are also the input ids and labels, int64 [batch_size, seq_len] each, which a training loop holds until the
    next batch. The logits go when the model's forward has returned: a caller who keeps the output object holds them
    through the backward pass.
    """
    graph = Graph(cpu=step.cpu)
    spec = step.spec
    model = Model(
        spec, step.batch_size, step.seq_len, step.width, step.attention, graph,
        dropout=step.dropout, attention_dropout=step.attention_dropout, lora=step.lora,
        math_kernel=step.math_kernel,
    )  # fmt: skip
    played = Playing(_played_layers(model, step.shards > 1), Weights(model))
    for index in played.indices:
        played.layers[index] = Weights(model)
    if step.shards > 1:
        sharding = _sharding(step)
        played.shards = Shards(graph, sharding.root, sharding.block)
    ids, labels = model.indices(), model.indices()
    for turn in range(step.accumulation):
        with graph.autocasting(None if step.autocast is None else step.autocast == "cuda"):
            loss = _loss(model, played, ids, labels, step, first=turn == 0)
        graph.reduced = step.bucket_views and turn == step.accumulation - 1
        graph.backward(loss)
        if played.shards is not None:
            played.shards.after_backward(played.ends.named.values())
        del loss
    tape = graph.tape
    outcome = _outcome(tape, played, step.shards)
    tape.drop(*[tape.new(nbytes) for nbytes in packed(step_tensors(optimizer, outcome.shared))])
    del ids, labels
    return replace(outcome, tape=tape.closed())


def _outcome(tape: Tape, played: Playing, cards: int) -> Played:
    """What was played, without the weights, whose gradients stay on the tape as it is closed."""
    shards = played.shards
    trained = played.of_each(lambda weights: weights.trained)
    return Played(
        tape,
        Part(played.ends.trained),
        {index: Part(weights.trained) for index, weights in played.layers.items()},
        trained,
        trained if shards is None else played.of_each(lambda weights: weights.shared(cards)),
        list(dict.fromkeys(played.layers[0].linears)),
        None if shards is None else Sharding(shards.root, shards.block),
    )


def _sharding(step: Step) -> Sharding:
    """The root's parameters and a block's, as `fully_shard` has them."""
    model = Model(
        step.spec.model_copy(update={"n_layers": 1}), 1, 1, step.width, step.attention, Graph(cpu=step.cpu),
        dropout=step.dropout, attention_dropout=step.attention_dropout, lora=step.lora, math_kernel=step.math_kernel,
    )  # fmt: skip
    tiny = replace(step, spec=model.spec, batch_size=1, seq_len=1, shards=1, accumulation=1)
    played = Playing([0], Weights(model), {0: Weights(model)})
    loss = _loss(model, played, model.indices(), model.indices(), tiny, first=True)
    del loss
    root, block = (
        Group.of([(v.shape, v.width) for v in weights.named.values()], step.shards)
        for weights in (played.ends, played.layers[0])
    )
    return Sharding(root, block)


def _kind(model: Model, index: int) -> tuple[bool, bool]:
    """What distinguishes layers: whether sdpa gets the window's mask here, and which position table it is."""
    spec = model.spec
    window = slides(spec, index)
    masked = window and model.attention == "sdpa" and spec.window is not None and model.s >= spec.window
    return masked, window and spec.architecture in _TABLE_PER_KIND


def _played_layers(model: Model, sharded: bool) -> list[int]:
    """Which layers to play: of each kind one after the first layer, and its last; those between are like them."""
    kinds = [_kind(model, i) for i in range(model.spec.n_layers)]
    last = len(kinds) - 1
    start = max((kinds.index(kind, 1) for kind in set(kinds[1:])), default=0)
    stop = min(last - kinds[::-1].index(kind) for kind in set(kinds))
    if sharded:  # of each kind also one behind the last layer and before it, where both neighbours' buffers are
        stop -= len(set(kinds))
    if stop - start <= 2:
        return list(range(len(kinds)))
    return [*range(start + 1), *range(stop, len(kinds))]


def _loss(model: Model, played: Playing, ids: Var, labels: Var, step: Step, first: bool) -> Var:
    """`model(input_ids, labels=labels).loss`."""
    shards = played.shards
    if shards is not None:
        shards.before_root()
    hidden_states = hidden(model, played, ids, step.gradient_checkpointing, first)
    loss = _causal_loss(model, logits_of(model, played, hidden_states), labels)
    if shards is not None:
        shards.after_root(loss)
    return loss


def logits_of(model: Model, played: Playing, hidden_states: Var) -> Var:
    """The head, with Gemma's softcap."""
    spec = model.spec
    head = (
        played.ends.get("embed", spec.d_vocab, spec.d_model)
        if spec.tied_embeddings
        else played.ends.get("lm_head", spec.d_vocab, spec.d_model)
    )
    bias = played.ends.get("lm_head.bias", spec.d_vocab) if spec.lm_head_bias else None
    logits = played.ends.gives("lm_head", ops.linear(hidden_states, head, bias).book("logits"))
    if spec.logit_softcap:
        logits = ops.neg(logits)
        logits = ops.tanh(logits)
        logits = ops.neg(logits).book("logits")
    return logits


def _causal_loss(model: Model, logits: Var, labels: Var) -> Var:
    """ForCausalLMLoss of loss/loss_utils.py: in float32, against the labels shifted by one."""
    scores = ops.cast(logits, FLOAT32)
    padded = model.graph.new((model.b, model.s + 1), INT64)
    shifted = model.graph.new((model.b, model.s), INT64)
    scores = views.view(scores, -1, scores.shape[-1])
    loss = ops.cross_entropy(scores, views.view(shifted, -1))
    del padded, scores  # before the logits, which the caller holds
    return loss


def hidden(model: Model, played: Playing, ids: Var, checkpointing: bool = False, first: bool = True) -> Var:
    """The base model's forward: the last hidden state. `first`: the weights have no gradients yet."""
    spec, graph, ends = model.spec, model.graph, played.ends
    inputs_embeds = ops.embedding(ids, ends.get("embed", spec.d_vocab, spec.d_model))
    if spec.architecture in GEMMA:
        inputs_embeds = ops.neg(inputs_embeds)
    if model.lora is not None and checkpointing:
        inputs_embeds.needs_grad = True  # enable_input_require_grads, which peft calls: a leaf, with a gradient
    ends.gives("embed", inputs_embeds)
    positions = [] if spec.architecture == "BloomForCausalLM" else [graph.new((1, model.s), INT64)]
    hidden_states = inputs_embeds
    if spec.architecture in ("GPT2LMHeadModel", "GPTNeoForCausalLM"):
        position_embeds = ops.embedding(positions[0], ends.get("positions", spec.n_ctx, spec.d_model))
        ends.gives("positions", position_embeds)
        hidden_states = ops.add(inputs_embeds, position_embeds)
    elif spec.architecture == "OPTForCausalLM":
        positions = [graph.new((model.b, model.s), FLOAT32), model.indices()]
        rows = spec.n_ctx + spec.positions_offset
        position_embeds = ops.embedding(model.indices(), ends.get("positions", rows, spec.d_model))
        ends.gives("positions", position_embeds)
        hidden_states = ops.add(inputs_embeds, position_embeds)
    elif spec.architecture == "BloomForCausalLM":
        hidden_states = ends.layer_norm(inputs_embeds, "word_embeddings_layernorm")
    contexts = _contexts(model)
    for context in contexts.values():
        context.positions = positions[-1] if positions else None
    if spec.architecture == "GPT2LMHeadModel":
        hidden_states = ops.dropout(hidden_states, model.dropout)
    ends.gives("input", hidden_states)
    played.before_layers = len(ends.named)
    left: dict[tuple[bool, bool], Left] = {}
    following = 0
    gradients: list[int] = []
    for i, weights in played.layers.items():
        if i > following:
            between = [left[_kind(model, j)] for j in range(following, i)]
            hidden_states = unplayed(hidden_states, between, gradients if first else [])
        with watched(graph) as watch:
            outputs = _call(
                model, weights, hidden_states, contexts[slides(spec, i)], checkpointing, played.shards, i == 0
            )
            hidden_states = outputs[0]
        left[_kind(model, i)] = watch.left()
        gradients = weights.gradients if played.shards is None else [played.shards.block.share]
        following = i + 1
    if spec.architecture != "OPTForCausalLM" or spec.norm_placement == "pre":
        hidden_states = ends.norm(hidden_states, "norm")
    return ends.gives("norm", hidden_states)


def _call(
    model: Model, weights: Weights, x: Var, context: Context, checkpointing: bool, shards: Shards | None, first: bool
) -> tuple[Var, Var | None]:
    """A layer, checkpointed if asked for. `first`: it is the model's first one."""

    def run(x: Var) -> tuple[Var, Var | None]:
        if shards is None:
            return layer(model, weights, x, context)
        x = shards.before_block(x, weights.named.values)
        outputs = layer(model, weights, x, context)
        shards.after_block(outputs[0], first)
        return outputs

    if not checkpointing:
        return run(x)
    returned: list[Var | None] = []

    def call(x: Var) -> Var:
        out, attention_weights = run(x)
        returned.append(attention_weights)
        return out

    out = model.graph.checkpoint(call, x)
    return out, returned.pop()


def _contexts(model: Model) -> dict[bool, Context]:
    """Masks and rotary tables, for layers without and with a window."""
    spec, graph = model.spec, model.graph
    alibi = slopes = None
    if spec.positional == "alibi":
        slopes = graph.new((spec.n_heads,), FLOAT32)
        alibi = graph.new((model.b * spec.n_heads, 1, model.s), model.width)
    table: tuple[Var, Var] | tuple[None, None] = (None, None)
    out: dict[bool, Context] = {}
    both = spec.architecture in _TWO_MASKS
    for window in (False, True) if both else (slides(spec, 0),):
        mask = None
        if model.attention == "eager":
            mask = graph.new((model.b, 1, model.s, model.s), model.width)
        elif window and spec.window is not None and model.s >= spec.window:
            mask = graph.new((1, 1, model.s, model.s), BOOL)
        out[window] = Context(mask, alibi=alibi, slopes=slopes)
    if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM":
        width = FLOAT32 if spec.architecture in OLMO else model.width
        shape = (1, model.s, spec.rotary_dim or spec.d_head)
        kinds = {slides(spec, index) for index in range(spec.n_layers)}  # a shallow model may have one of them
        for context in [out[window] for window in out if window in kinds]:
            if table[0] is None or spec.architecture in _TABLE_PER_KIND:
                table = (graph.new(shape, width), graph.new(shape, width))
            cos, sin = table
            assert cos is not None and sin is not None
            context.cos, context.sin = views.unsqueeze(cos, 1), views.unsqueeze(sin, 1)
    return out
