"""Training steps of dictionary_learning's trainers: which tensors `update()` makes and how long they live.

Read off dictionary_learning 0.1.0: `loss` of trainers/{standard,top_k,batch_top_k,jumprelu,gdm,matryoshka_batch_top_k}
.py, `encode` and `decode` of their dictionaries, `ConstrainedAdam` and `remove_gradient_parallel_to_decoder_directions`
of trainers/trainer.py. Default options: float32, no autocast, no resampling; past threshold_start_step.
"""

from __future__ import annotations

from collections.abc import Callable

from ..tape import Tensor
from .autograd import Grad, Var
from .step import FLOAT, INDEX, Ledger, Shape, Step

CONSTRAINED = frozenset({"standard", "gated"})
"""Trainers with ConstrainedAdam. They let go of gradients at the start of update(), so these last between steps."""
COUNTS = frozenset({"topk", "batchtopk", "matryoshka_batchtopk", "jumprelu"})
"""Trainers with num_tokens_since_fired, int64."""


def update(tape: Ledger, shape: Shape, batch: Tensor, gradients: list[Tensor]) -> list[Tensor]:
    """Plays one trainer's update() on `tape`, which already holds its weights and optimizer state.

    Args:
        batch: [batch, d_in] in float32, held by the caller.
        gradients: what the trainer's update() before has left (see `CONSTRAINED`).
    Returns:
        The gradients that it leaves itself.
    """
    tape.drop(*gradients)
    step = Step(tape, shape, batch)
    graph = step.graph
    tape.phase = "SAE forward"
    loss = _LOSS[shape.architecture](step)
    tape.phase = "SAE backward"
    graph.backward(loss)
    tape.phase = "optimizer step"
    decoder = FLOAT * shape.d_in * shape.d_sae
    constrained = shape.architecture in CONSTRAINED
    # p / p.norm(), and its product with the gradient or the part to take off
    unit = tape.new(decoder)
    tape.touch(decoder)
    if not constrained:
        tape.drop(unit)
    # _foreach_sqrt(exp_avg_sqs) of Adam, as in SAELens' step; ConstrainedAdam's frame still holds the unit vectors
    tape.touch(shape.param_bytes)
    if constrained:
        tape.drop(unit)
        return graph.take_gradients()
    graph.zero_grad()
    return []


def _affine(step: Step, x: Var, weight: Var, bias: Var) -> Var:
    """torch.nn.Linear with a bias: addmm, one result."""
    graph = step.graph
    out = graph.new(step.bf, FLOAT)

    def backward(g: Grad) -> list[Grad | None]:
        of_input = graph.grad(x.elements, FLOAT) if x.node is not None else None
        return [graph.same(g), of_input, graph.grad(weight.elements, FLOAT)]

    return graph.record(out, [bias, x, weight], [x, weight], backward)


def _decoder(step: Step, acts: Var) -> Var:
    """torch.nn.Linear without a bias: a product with the transposed weight."""
    graph = step.graph
    out = graph.new(step.bd, FLOAT)

    def backward(_: Grad) -> list[Grad | None]:
        of_weight = graph.grad(step.W_dec.elements, FLOAT)
        of_weight.alone = True
        return [graph.grad(acts.elements, FLOAT), of_weight]

    return graph.record(out, [acts, step.W_dec], [acts, step.W_dec], backward)


def _decode(step: Step, acts: Var) -> Var:
    product = _decoder(step, acts)
    out = step.graph.add(product, step.b_dec)
    step.graph.drop(product)
    return out


def _centred(step: Step) -> Var:
    """x - b_dec"""
    return step.graph.add(step.batch, step.b_dec, minus=True)


def _error(step: Step, sae_out: Var) -> Var:
    """(x - sae_out).pow(2).sum(dim=-1).mean()"""
    graph = step.graph
    difference = graph.add(step.batch, sae_out, minus=True)
    squared = graph.square(difference)
    graph.drop(difference)
    out = step.loss(squared)
    graph.drop(squared)
    return out


def _l1(step: Step, acts: Var) -> Var:
    """acts.norm(p=1, dim=-1).mean(), scaled"""
    graph = step.graph
    per_row = graph.norm(acts, step.rows, p=1)
    mean = graph.mean(per_row)
    scaled = graph.scale(mean)
    graph.drop(per_row, mean)
    return scaled


def _standard(step: Step) -> Var:
    graph = step.graph
    x = _centred(step)
    hidden = _affine(step, x, step.W_enc, step.vector())
    acts = graph.relu(hidden)
    graph.drop(x, hidden)
    graph.keep(acts)
    sae_out = _decode(step, acts)
    # l2_loss is for the log only, but its graph lives as long as loss() does
    difference = graph.add(step.batch, sae_out, minus=True)
    logged = graph.norm(difference, step.rows)
    graph.drop(difference)
    total = step.plus(_error(step, sae_out), _l1(step, acts))
    graph.forget(logged, sae_out)
    graph.drop(logged, sae_out, acts)
    return total


def _jumprelu(step: Step) -> Var:
    graph, tape, bf = step.graph, step.tape, step.bf
    threshold = step.vector()
    product = graph.matmul(step.batch, step.W_enc, step.rows, step.d_sae)
    hidden = graph.add(product, step.vector())
    graph.drop(product)

    def above() -> Var:
        """(x > threshold).float()"""
        mask = tape.new(bf)
        out = graph.new(bf, FLOAT)
        tape.drop(mask)
        return out

    def threshold_gradient() -> Var:
        over_bandwidth = tape.new(FLOAT * step.d_sae)  # -(threshold / bandwidth)
        minus = tape.new(FLOAT * bf)
        scaled = tape.new(FLOAT * bf)
        tape.drop(minus)
        sides = [tape.new(bf), tape.new(bf)]
        both = tape.new(bf)
        tape.drop(*sides)
        rectangle = tape.new(FLOAT * bf)
        tape.drop(both, scaled)
        weighted = tape.new(FLOAT * bf)
        tape.drop(rectangle, over_bandwidth)
        out = graph.new(bf, FLOAT)
        tape.drop(weighted)
        return out

    def jump(g: Grad) -> list[Grad | None]:
        gate = above()
        of_x = graph.grad(bf, FLOAT)
        graph.drop(gate)
        return [of_x, Grad(threshold_gradient().tensor, bf, FLOAT)]

    def ste(g: Grad) -> list[Grad | None]:
        zeros = graph.grad(bf, FLOAT)
        return [zeros, Grad(threshold_gradient().tensor, bf, FLOAT)]

    gate = above()
    acts = graph.new(bf, FLOAT)
    graph.drop(gate)
    graph.record(acts, [hidden, threshold], [hidden, threshold], jump)
    graph.keep(acts)
    sae_out = step.decode(acts)
    error = _error(step, sae_out)
    gates = graph.record(above(), [acts, threshold], [acts, threshold], ste)
    l0 = step.loss(gates)
    graph.drop(gates)
    total = step.plus(error, l0)
    graph.drop(sae_out, acts, hidden)
    return total


def _gated(step: Step) -> Var:
    graph, tape = step.graph, step.tape
    b_gate, r_mag, b_mag = step.vector(), step.vector(), step.vector()
    x = _centred(step)
    encoded = graph.matmul(x, step.W_enc, step.rows, step.d_sae)
    graph.drop(x)
    pi_gate = graph.add(encoded, b_gate)
    positive = tape.new(step.bf)
    active = graph.new(step.bf, FLOAT)
    tape.drop(positive)
    exponent = graph.exp(r_mag)
    product = graph.mul(exponent, encoded)
    graph.drop(exponent)
    pi_mag = graph.add(product, b_mag)
    graph.drop(product)
    magnitude = graph.relu(pi_mag)
    acts = graph.mul(active, magnitude)
    gate = graph.relu(pi_gate)
    graph.drop(encoded, pi_gate, active, pi_mag, magnitude)
    graph.keep(acts, gate)
    sae_out = _decode(step, acts)
    product = graph.matmul(gate, graph.detached(step.W_dec), step.rows, step.d_in)
    via_gate = graph.add(product, graph.detached(step.b_dec))
    graph.drop(product)
    error = _error(step, sae_out)
    sparsity = _l1(step, gate)
    total = step.plus(error, sparsity, _error(step, via_gate))
    graph.drop(acts, gate, sae_out, via_gate)
    return total


def _topk(step: Step) -> Var:
    graph = step.graph
    x = _centred(step)
    hidden = _affine(step, x, step.W_enc, step.vector())
    positive = graph.relu(hidden)
    graph.drop(x, hidden)
    top, indices = graph.topk(positive, step.rows * step.shape.k)
    acts = graph.scatter_into(graph.new(step.bf, FLOAT), indices, top)
    graph.keep(positive, acts)
    _threshold(step)
    sae_out = _decode(step, acts)
    return _with_aux(step, positive, sae_out, [acts, top, indices])


def _batchtopk(step: Step) -> Var:
    graph = step.graph
    x = _centred(step)
    hidden = _affine(step, x, step.W_enc, step.vector())
    positive = graph.relu(hidden)
    graph.drop(x, hidden)
    acts = _chosen_of_all(step, positive)
    _threshold(step)
    sae_out = _decode(step, acts)
    return _with_aux(step, positive, sae_out, [acts])


def _chosen_of_all(step: Step, positive: Var) -> Var:
    """The k * batch largest of the whole batch, the rest zeros."""
    graph = step.graph
    top, indices = graph.topk(positive, step.rows * step.shape.k)
    acts = graph.scatter_into(graph.new(step.bf, FLOAT), indices, top)
    graph.drop(top, indices)
    graph.keep(positive, acts)
    return acts


def _threshold(step: Step) -> None:
    """update_threshold: the smallest activation that counts. A batch's by a mask, a row's in a copy of the top k."""
    chosen = step.rows * step.shape.k
    if step.shape.architecture == "topk":
        step.tape.touch((FLOAT + 1) * chosen)
    else:
        step.tape.touch(step.bf + (2 * INDEX + FLOAT) * chosen)


def _with_aux(step: Step, positive: Var, sae_out: Var, rest: list[Var]) -> Var:
    """e = x - sae_out, its square, and the auxiliary loss of the dead latents. Takes over what it is given."""
    graph = step.graph
    difference = graph.add(step.batch, sae_out, minus=True)
    squared = graph.square(difference)
    error = step.loss(squared)
    graph.drop(squared)
    total = step.plus(error, *_aux_loss(step, positive))
    graph.drop(difference, sae_out, positive, *rest)
    return total


def _aux_loss(step: Step, positive: Var) -> list[Var]:
    """get_auxiliary_loss with at least d_in/2 dead latents; the caller holds the residual."""
    graph = step.graph
    if not step.shape.dead:
        return []
    chosen = step.rows * min(step.d_in // 2, step.d_sae)
    mask = graph.new(step.d_sae, 1)
    candidates = graph.where(mask, positive)
    top, indices = graph.topk(candidates, chosen)
    acts = graph.scatter_into(graph.new(step.bf, FLOAT), indices, top)
    transposed = step.shape.architecture != "matryoshka_batchtopk"
    recons = _decoder(step, acts) if transposed else graph.matmul(acts, step.W_dec, step.rows, step.d_in)
    error = _error(step, recons)
    centred = graph.new(step.bd, FLOAT)  # the residual minus its mean, squared
    step.tape.touch(FLOAT * step.bd)
    graph.drop(centred)
    scaled = graph.scale(error)
    graph.drop(error, recons, acts, top, indices, candidates, mask)
    return [scaled]


def _split(step: Step, x: Var, sizes: list[int]) -> list[Var]:
    """x.split(sizes): views with one node; their gradients are joined once all are there."""
    graph, waiting = step.graph, list[Tensor]()

    def join(_: Grad) -> list[Grad | None]:
        whole = graph.grad(x.elements, FLOAT)
        step.tape.drop(*waiting)
        return [whole]

    joined = graph.record(graph.new(0, FLOAT), [x], [], join)

    def arrived(g: Grad) -> list[Grad | None]:
        waiting.append(graph.same(g).tensor)
        return [graph.grad(0, FLOAT)]

    parts = []
    for size in sizes:
        graph.hold(x)
        parts.append(graph.record(Var(x.tensor, size, FLOAT), [joined], [], arrived))
    graph.drop(joined)
    return parts


def _matryoshka(step: Step) -> Var:
    graph, widths = step.graph, step.shape.matryoshka_widths
    x = _centred(step)
    product = graph.matmul(x, step.W_enc, step.rows, step.d_sae)
    hidden = graph.add(product, step.vector())
    graph.drop(product)
    positive = graph.relu(hidden)
    graph.drop(hidden, x)
    acts = _chosen_of_all(step, positive)
    _threshold(step)
    zeros = graph.new(step.bd, FLOAT)
    sae_out = graph.add(zeros, step.b_dec)
    graph.drop(zeros)
    groups = [width - before for before, width in zip((0, *widths), widths, strict=False)]
    weights = _split(step, step.W_dec, [size * step.d_in for size in groups])
    chunks = _split(step, acts, [size * step.rows for size in groups])
    total: Var | None = None
    for chunk, weight in zip(chunks, weights, strict=True):
        product = graph.matmul(chunk, weight, step.rows, step.d_in)
        wider = graph.add(sae_out, product)
        graph.drop(product, sae_out)
        sae_out = wider
        error = _error(step, sae_out)
        total = error if total is None else step.plus(total, error)
    assert total is not None
    residual = graph.new(step.bd, FLOAT)
    total = step.plus(total, *_aux_loss(step, positive))
    graph.drop(residual, sae_out, positive, acts, *chunks, *weights)
    return total


_LOSS: dict[str, Callable[[Step], Var]] = {
    "standard": _standard, "topk": _topk, "batchtopk": _batchtopk, "jumprelu": _jumprelu, "gated": _gated,
    "matryoshka_batchtopk": _matryoshka,
}  # fmt: skip
TRAINERS = tuple(_LOSS)
