"""Edge attribution patching (EAP, EAP-IG) with a HookedTransformer.

Transcribed from hannamw/EAP-IG, src/eap/attribute.py and utils.py: one tensor `activation_difference`
[b, s, n_forward, d] that forward hooks fill, and backward hooks that multiply the part of it before their node with a
gradient. The number of nodes before differs per layer: the backward half of a block is cut at its hooks into pieces,
which are the same for all blocks of a kind, and what the hooks allocate goes between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..autograd.graph import Grads, Node, Var
from ..autograd.ops import add, div, mul, sub, total
from ..autograd.shapes import view_stride
from ..card.passes import as_requests
from ..card.staging import Kernels
from ..recorded.recall import recall
from ..tape import Tape
from .backward import Section
from .backward_model import block, embed, embed_positions, embed_tokens, unembed
from .backward_ops import gather_next, last_position, same
from .run import Run
from .transformer import forward

_QKV = ("hook_q_input", "hook_k_input", "hook_v_input")


def _writers(run: Run) -> int:
    """Nodes of a block that write to the residual stream."""
    return run.spec.n_heads + (run.spec.d_mlp > 0)


def n_forward(run: Run) -> int:
    """Nodes that write to the residual stream: the input, every head, every MLP."""
    return 1 + run.spec.n_layers * _writers(run)


def n_backward(run: Run) -> int:
    """Nodes that read it: q, k and v of every head, every MLP, the logits."""
    return run.spec.n_layers * (3 * run.spec.n_heads + (run.spec.d_mlp > 0)) + 1


class EdgeSection(Section):
    """A section whose backward hooks score the edges into its nodes. `last`: the last block, whose output is scored."""

    def __init__(
        self,
        run: Run,
        *,
        last: bool = False,
        accumulated: bool = False,
        cpu: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        self.repeats = run.spec.n_heads // run.spec.n_kv_heads  # set_ungroup_grouped_query_attention(True)
        super().__init__(_ungrouped(run), accumulated=accumulated, cpu=cpu, kernels=kernels)
        self.scored = {*_QKV, "hook_mlp_in"} | ({"hook_resid_post"} if last else set())
        self.scores: list[tuple[str, Callable[[int], list[int]]]] = []
        self.pieces = [self.backward]

    def hook(self, name: str, x: Var) -> Var:
        if name not in self.scored or not x.needs_grad:
            return x
        nodes, out = n_forward(self.run), x.alias()
        scores, pieces, current = self.scores, self.pieces, self._tape

        def backward(node: Node, grads: Grads) -> Grads:
            g = grads[0]
            assert g is not None
            scores.append((name, _einsum_bytes(g, nodes)))
            pieces.append(Tape())
            current.at = pieces[-1]
            return [g]

        self.graph.record([x], [out], backward)
        return out

    def play_backward(self, tape: Tape, layer: int, scored: bool = True) -> None:
        """The backward half as block `layer`; what is no block has no scores. `scored`: with what scoring takes."""
        spec = self.run.spec
        tape.append(self.pieces[0])
        for (name, nbytes), piece in zip(self.scores, self.pieces[1:], strict=True):
            before = 1 + layer * _writers(self.run)
            if name == "hook_resid_post":
                before = n_forward(self.run)
            elif name == "hook_mlp_in" and not spec.parallel_attn_mlp:
                before += spec.n_heads
            if scored:
                tape.drop(*[tape.new(part) for part in nbytes(before)])
            tape.append(piece)


def _einsum_bytes(g: Var, nodes: int) -> Callable[[int], list[int]]:
    """einsum("b s f d, b s k d -> f k") as one bmm: both operands are flattened, which copies what is no view.

    Returns the bytes of those copies and of the result, in order, for the number of nodes before, f.
    """
    (b, s, *_, d), (batch, row, *_, one), width = g.shape, g.stride, g.width
    heads, step = (g.shape[2], g.stride[2]) if len(g.shape) == 4 else (1, 1)
    right = view_stride((b, s, d, heads), (batch, row, one, step), (b * s * d, heads))

    def nbytes(before: int) -> list[int]:
        shape, stride = (before, b, s, d), (d, s * nodes * d, nodes * d, 1)
        copies = [] if view_stride(shape, stride, (before, b * s * d)) is not None else [before * b * s * d]
        if right is None:
            copies.append(heads * b * s * d)
        return [width * elements for elements in (*copies, before * heads)]

    return nbytes


def _ungrouped(run: Run) -> Run:
    """With repeated weights each query head has a key head and a value head of its own."""
    return replace(run, spec=run.spec.model_copy(update={"n_kv_heads": run.spec.n_heads}))


def edge_attribution(run: Run, passes: int, integrated: bool = False, cpu: bool = False, several: bool = False) -> Tape:
    """`play_edge_attribution`, by what was recorded of another shape where that fits."""
    return recall(
        ("edge attribution", replace(run, batch_size=0, seq_len=0), min(passes, 2), integrated, cpu, several),
        (run.batch_size, run.seq_len),
        lambda b, s: play_edge_attribution(replace(run, batch_size=b, seq_len=s), passes, integrated, cpu, several),
    )


def edge_requests(run: Run, passes: int, integrated: bool, capability: str | None, several: bool = False) -> Tape:
    """`edge_attribution` as torch's caching allocator gets to see it on CUDA: with the buffers of its kernels, and with
    cuBLAS's workspace for the backward pass where its first product comes.

    Args:
        capability: compute capability of the card; None = a typical one.
    """

    def play(b: int, s: int) -> Tape:
        kernels = Kernels(capability, handles=("main",))
        return as_requests(
            *edges_in_order(replace(run, batch_size=b, seq_len=s), passes, integrated, kernels, several=several)
        )

    kind = replace(run, batch_size=0, seq_len=0), min(passes, 2), integrated, capability, several
    return recall(("edge attribution's requests", *kind), (run.batch_size, run.seq_len), play, with_log=True)


def play_edge_attribution(
    run: Run, passes: int, integrated: bool = False, cpu: bool = False, several: bool = False
) -> Tape:
    """One batch after the other, or one step of the integral after the other: `passes` forward and backward.

    `run` has use_attn_result, use_split_qkv_input and use_hook_mlp_in; prompts are of equal length, so that no
    attention_mask is passed. Nobody sets gradients to None between passes, as in the reference.

    Args:
        integrated: EAP-IG, whose passes start from an interpolated embedding.
        cpu: also what only torch's CPU kernels allocate.
        several: the passes are of more than one batch, each with a tensor `activation_difference` of its own.
    """
    return edges_in_order(run, passes, integrated, cpu=cpu, several=several)[0]


def edges_in_order(
    run: Run,
    passes: int,
    integrated: bool = False,
    kernels: Kernels | None = None,
    cpu: bool = False,
    several: bool = False,
) -> tuple[Tape, set[Tape]]:
    """The same, and which of the tape's sections go back through a layer.

    Args:
        kernels: what CUDA's kernels take beside their results, where that is played as well.
    """
    b, s, width, d = run.batch_size, run.seq_len, run.width, run.spec.d_model
    tape, back = Tape(), set[Tape]()
    tape.new(2 * 8 * b * s)
    tape.new(n_forward(run) * n_backward(run) * width)
    difference = tape.new(b * s * n_forward(run) * d * width, "activation_cache")
    bare = replace(_ungrouped(run), selects=None, gradients=False)
    without = forward(bare).tape
    logits = b * s * run.spec.d_vocab * width
    for _ in range(2):  # the corrupted run, whose logits go, and the clean one
        tape.append(without)
        tape.drop(tape.adopt(8 * b * s, "temporaries"), tape.adopt(logits, "logits"))
    tape.new(logits, "logits")
    if integrated:
        tape.new(2 * b * s * d * width, "activation_cache")
    graded = replace(run, gradients=True)
    for number in range(min(passes, 2)):
        if number and several:  # the next batch's, while hooks in the graph of the last pass hold that of this one
            tape.new(difference.bytes, "activation_cache")
        sections = _through(graded, integrated, accumulated=number > 0, cpu=cpu, kernels=kernels)
        for section, _ in sections:
            tape.append(section.forward)
        if number:  # `logits = ` and `metric_value = ` let go of the pass before
            tape.drop(tape.adopt(logits, "logits"))
            if several:
                tape.drop(difference)
            if integrated or not run.trainable:
                tape.drop(tape.adopt(b * s * d * width, "activations"))
                tape.drop(tape.adopt(b * s * d * width, "gradients"))
        gone_back: dict[int, Var | None] = {}
        gradient: Var | None = None
        for layer, (section, out) in reversed(list(enumerate(sections, -1))):
            if id(section) not in gone_back:
                gone_back[id(section)] = section.go_back(out, gradient)
            gradient = gone_back[id(section)]
            # As in `as_requests`: of a kind's blocks the first that goes back stands for the others, which take less.
            section.play_backward(tape, layer, scored=kernels is None or section.backward not in back)
            back.update(section.pieces)
        for section, _ in sections:
            section.close()
    return tape.closed(), back


def _through(
    run: Run, integrated: bool, accumulated: bool, cpu: bool, kernels: Kernels | None
) -> list[tuple[EdgeSection, Var]]:
    """The forward halves of all sections, each with its output; blocks of one kind are the same section."""
    first = EdgeSection(run, accumulated=accumulated, cpu=cpu, kernels=kernels)
    resid = _interpolated(first) if integrated else embed(first)
    first.turn()
    sections = [(first, resid)]
    kinds: dict[tuple[object, ...], tuple[EdgeSection, Var]] = {}
    for layer in range(run.spec.n_layers):
        local, last = run.spec.is_local(layer), layer == run.spec.n_layers - 1
        entry = resid.storage.entry
        key = local, last, layer == 0, entry and entry.component, resid.storage.vars > 1
        if key not in kinds:
            section = EdgeSection(run, last=last, accumulated=accumulated, cpu=cpu, kernels=kernels)
            out = block(section, section.receive(resid), local)
            section.turn()
            kinds[key] = section, out
        sections.append(kinds[key])
        resid = kinds[key][1]
    end = EdgeSection(run, accumulated=accumulated, cpu=cpu, kernels=kernels)
    out = _metric(end, end.receive(resid))
    end.turn()
    sections.append((end, out))
    return sections


def _interpolated(p: Section) -> Var:
    """corrupted + (k / steps) * (clean - corrupted), a leaf in place of the embedding."""
    with p.graph.grad_mode(False):
        replaced = embed_tokens(p)
        ends = [p.constant(*replaced.shape) for _ in range(2)]
        x = add(ends[0], mul(sub(ends[1], ends[0]), 0.5))
    x.needs_grad = True
    p.keep.append(x.book("activations"))
    del replaced
    return embed_positions(p, same(x))


def _metric(p: Section, owned: list[Var]) -> Var:
    """logits = model(tokens); metric(logits) of one answer's logit: the caller holds the logits."""
    logits, residual = unembed(p, owned)
    p.keep.append(logits.alias())
    del residual
    return div(total(gather_next(last_position(logits))), 1.0)
