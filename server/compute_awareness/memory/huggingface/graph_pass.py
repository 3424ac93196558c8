"""Memory of a transformers 5.23 model's forward pass without torch.no_grad(): what autograd keeps for a backward pass
that may follow, beside the key/value cache and what forward hooks hold of modules' outputs."""

from __future__ import annotations

from ...models.spec import ModelSpec
from ..autograd.graph import INT64, Graph
from ..recorded.recall import recall
from .embedding import slides
from .forward import Attention, Keeps, Played, refuse_uncovered
from .outputs import layout
from .training import Playing, hidden, logits_of
from .training_parts import Kept, Model, Weights


def keeping_graph(
    spec: ModelSpec,
    batch_size: int,
    seq_len: int,
    width: int,
    attention: Attention,
    kv_cache: bool,
    math_kernel: bool,
    keeps: Keeps,
    cpu: bool = False,
    flash_only: bool = False,
) -> Played:
    """`model(input_ids)` in eval mode with gradients enabled, every weight wanting one; `forward.keeping` otherwise.

    At the end of the tape live what the caller holds: input ids [batch_size, seq_len] int64, logits [batch_size,
    seq_len, d_vocab] with the whole graph behind them ("activations"), the cache, and the outputs that hooks keep
    ("activation_cache"; those that autograd saved anyway are counted there, too, and once).

    Args:
        width: bytes per element of weights and activations.
        cpu: also what only torch's CPU kernels allocate, for comparisons with runs on the CPU.
        flash_only: attention as the meta device runs it (`Graph.flash_only`), for comparisons with that.
    Raises:
        InputError: the architecture is not covered, or has no sdpa.
    """
    refuse_uncovered(spec, attention)
    how = width, attention, kv_cache, math_kernel
    return recall(
        ("transformers graph", spec, *how, tuple(keeps.layers), keeps.ends, keeps.on_host, cpu, flash_only),
        (batch_size, seq_len),
        lambda b, s: _closed(play_anew(spec, b, s, *how, keeps, cpu, flash_only)),
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
    cpu: bool,
    flash_only: bool = False,
) -> Played:
    """`keeping_graph`, played; what is recorded of other shapes has no say. What it returns holds the graph."""
    graph = Graph(cpu=cpu)
    graph.flash_only |= flash_only
    kept = Kept(keeps.on_host)
    model = Model(
        spec, batch_size, seq_len, width, attention, graph, math_kernel=math_kernel, kv_cache=kv_cache, kept=kept
    )
    known = layout(spec)
    played = Playing(list(range(spec.n_layers)), Weights(model, keeps.ends, known.ends))
    for index in played.indices:
        played.layers[index] = Weights(model, keeps.layers[index], known.inside)
    ids = model.indices()
    if kv_cache:  # DynamicSlidingWindowLayer keeps its window as a tensor
        windows = sum(slides(spec, index) for index in played.indices)
        kept.tensors.append(graph.new((windows,), INT64, None, "kv_cache"))
    logits = logits_of(model, played, hidden(model, played, ids))
    kept.tensors += [ids, logits]
    tape = graph.tape
    tape.book_peak_anew()  # the logits were booked as such after they had made the peak
    return Played(tape, kept.sizes, kept.tensors)


def _closed(played: Played) -> Played:
    """The outcome without the tensors that hold the graph."""
    return Played(played.tape.closed(), played.sizes)
