"""Training steps of dictionary_learning's trainers: which tensors `update()` makes and how long they live.

Read off dictionary_learning 0.1.0: `loss` of trainers/{standard,top_k,batch_top_k,jumprelu,gdm,matryoshka_batch_top_k}
.py, `encode` and `decode` of their dictionaries, `ConstrainedAdam` and `remove_gradient_parallel_to_decoder_directions`
of trainers/trainer.py. Default options: float32, no autocast, no resampling; past threshold_start_step.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import ops, views
from ..autograd.elementwise import like
from ..autograd.graph import BOOL, Grads, Node, Var
from ..tape import Tensor
from .step import FLOAT, INDEX, Ledger, Shape, Step

CONSTRAINED = frozenset({"standard", "gated"})
"""Trainers with ConstrainedAdam. They let go of gradients at the start of update(), so these last between steps."""
COUNTS = frozenset({"topk", "batchtopk", "matryoshka_batchtopk", "jumprelu"})
"""Trainers with num_tokens_since_fired, int64."""
_MATRICES = frozenset({"jumprelu", "matryoshka_batchtopk"})
"""Trainers whose dictionary multiplies by matrices; the others' encoder and decoder are torch.nn.Linear."""


def update(tape: Ledger, shape: Shape, batch: Tensor, gradients: list[Tensor]) -> list[Tensor]:
    """Plays one trainer's update() on `tape`, which already holds its weights and optimizer state.

    Args:
        batch: [batch, d_in] in float32, held by the caller.
        gradients: what the trainer's update() before has left (see `CONSTRAINED`).
    Returns:
        The gradients that it leaves itself.
    """
    tape.drop(*gradients)
    step = Step(tape, shape, batch, linear=shape.architecture not in _MATRICES)
    tape.phase = "SAE forward"
    loss = _LOSS[shape.architecture](step)
    tape.phase = "SAE backward"
    step.graph.backward(loss)
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
        return step.take_gradients()
    step.zero_grad()
    return []


def _decode(step: Step, acts: Var) -> Var:
    return ops.add(ops.linear(acts, step.W_dec), step.b_dec)


def _centred(step: Step) -> Var:
    """x - b_dec"""
    return ops.sub(step.batch, step.b_dec)


def _encode(step: Step, x: Var) -> Var:
    """relu(encoder(x)), a torch.nn.Linear with a bias"""
    return ops.relu(ops.linear(x, step.W_enc, step.vector()))


def _error(step: Step, sae_out: Var) -> Var:
    """(x - sae_out).pow(2).sum(dim=-1).mean()"""
    return step.loss(ops.power(ops.sub(step.batch, sae_out)))


def _l1(acts: Var) -> Var:
    """acts.norm(p=1, dim=-1).mean(), scaled"""
    per_row = ops.norm(acts, p=1)
    return ops.neg(ops.average(per_row))


def _standard(step: Step) -> Var:
    acts = _encode(step, _centred(step)).book("sae_activations")
    sae_out = _decode(step, acts)
    # l2_loss is for the log only, but its graph lives as long as loss() does
    logged = ops.norm(ops.sub(step.batch, sae_out))
    total = ops.add(_error(step, sae_out), _l1(acts))
    del logged
    return total


def _above(x: Var) -> Var:
    """(x > threshold).float()"""
    mask = ops.compared(x)
    out = like(x)
    del mask
    return out


def _threshold_gradient(x: Var, threshold: Var) -> Var:
    over_bandwidth = like(threshold)  # -(threshold / bandwidth)
    minus = like(x)
    scaled = like(x)
    del minus
    sides = [ops.compared(x), ops.compared(x)]
    both = ops.compared(x)
    del sides
    rectangle = like(x)
    del both, scaled
    weighted = like(x)
    del rectangle, over_bandwidth
    return like(weighted)


def _jump(node: Node, grads: Grads) -> Grads:
    """JumpReLUFunction.backward"""
    x, threshold = node.saved
    gate = _above(x)
    of_x = like(x)
    del gate
    return [of_x, _threshold_gradient(x, threshold)]


def _ste(node: Node, grads: Grads) -> Grads:
    """StepFunction.backward"""
    x, threshold = node.saved
    return [like(x), _threshold_gradient(x, threshold)]


def _jumprelu(step: Step) -> Var:
    graph, threshold = step.graph, step.vector()
    hidden = ops.add(ops.matmul(step.batch, step.W_enc), step.vector())
    gate = _above(hidden)
    acts = like(hidden)
    del gate
    graph.record([hidden, threshold], [acts], _jump, [hidden, threshold])
    acts.book("sae_activations")
    sae_out = step.decode(acts)
    error = _error(step, sae_out)
    gates = _above(acts)
    graph.record([acts, threshold], [gates], _ste, [acts, threshold])
    l0 = step.loss(gates)
    del gates
    return ops.add(error, l0)


def _gated(step: Step) -> Var:
    b_gate, r_mag, b_mag = step.vector(), step.vector(), step.vector()
    encoded = ops.linear(_centred(step), step.W_enc)
    pi_gate = ops.add(encoded, b_gate)
    positive = ops.compared(pi_gate)
    active = ops.cast(positive, FLOAT)
    del positive
    product = ops.mul(ops.exp(r_mag), encoded)
    pi_mag = ops.add(product, b_mag)
    del product
    acts = ops.mul(active, ops.relu(pi_mag)).book("sae_activations")
    gate = ops.relu(pi_gate).book("sae_activations")
    del encoded, pi_gate, active, pi_mag
    sae_out = _decode(step, acts)
    via_gate = ops.add(ops.linear(gate, step.W_dec.alias()), step.b_dec.alias())
    return step.total([_error(step, sae_out), _l1(gate), _error(step, via_gate)])


def _topk(step: Step) -> Var:
    positive = _encode(step, _centred(step))
    top, indices = ops.topk(positive, step.shape.k)
    acts = ops.scatter_(step.features(), indices, top).book("sae_activations")
    positive.book("sae_activations")
    _threshold(step)
    return _with_aux(step, positive, _decode(step, acts))


def _batchtopk(step: Step) -> Var:
    positive = _encode(step, _centred(step))
    acts = _chosen_of_all(step, positive)
    _threshold(step)
    return _with_aux(step, positive, _decode(step, acts))


def _chosen_of_all(step: Step, positive: Var) -> Var:
    """The k * batch largest of the whole batch, the rest zeros."""
    top, indices = ops.topk(views.view(positive, step.bf), step.rows * step.shape.k)
    zeros = views.view(step.features(), step.bf)
    acts = views.view(ops.scatter_(zeros, indices, top), step.rows, step.d_sae)
    del top, indices
    positive.book("sae_activations")
    return acts.book("sae_activations")


def _threshold(step: Step) -> None:
    """update_threshold: the smallest activation that counts. A batch's by a mask, a row's in a copy of the top k."""
    chosen = step.rows * step.shape.k
    if step.shape.architecture == "topk":
        step.tape.touch((FLOAT + 1) * chosen)
    else:
        step.tape.touch(step.bf + (2 * INDEX + FLOAT) * chosen)


def _with_aux(step: Step, positive: Var, sae_out: Var) -> Var:
    """e = x - sae_out, its square, and the auxiliary loss of the dead latents."""
    difference = ops.sub(step.batch, sae_out)
    losses = [step.loss(ops.power(difference))]
    losses += _aux_loss(step, positive)
    return step.total(losses)


def _aux_loss(step: Step, positive: Var) -> list[Var]:
    """get_auxiliary_loss with at least d_in/2 dead latents; the caller holds the residual."""
    graph = step.graph
    if not step.shape.dead:
        return []
    mask = graph.new((step.d_sae,), BOOL)
    candidates = ops.where(mask, positive)
    top, indices = ops.topk(candidates, min(step.d_in // 2, step.d_sae))
    acts = ops.scatter_(step.features(), indices, top)
    multiplies = step.shape.architecture in _MATRICES
    recons = ops.matmul(acts, step.W_dec) if multiplies else ops.linear(acts, step.W_dec)
    error = _error(step, recons)
    centred = graph.new((step.rows, step.d_in), FLOAT)  # the residual minus its mean, squared
    step.tape.touch(FLOAT * step.bd)
    del centred
    return [ops.neg(error)]


def _matryoshka(step: Step) -> Var:
    widths = step.shape.matryoshka_widths
    positive = ops.relu(ops.add(ops.matmul(_centred(step), step.W_enc), step.vector()))
    acts = _chosen_of_all(step, positive)
    _threshold(step)
    sae_out = ops.add(step.graph.new((step.rows, step.d_in), FLOAT), step.b_dec)
    groups = tuple(width - before for before, width in zip((0, *widths), widths, strict=False))
    weights = views.split(step.W_dec, groups, 0)
    chunks = views.split(acts, groups)
    total: Var | None = None
    for chunk, weight in zip(chunks, weights, strict=True):
        product = ops.matmul(chunk, weight)
        sae_out = ops.add(sae_out, product)
        del product
        error = _error(step, sae_out)
        total = error if total is None else ops.add(total, error)
        del error
    assert total is not None
    residual = step.graph.new((step.rows, step.d_in), FLOAT)
    losses = [total]
    del total
    losses += _aux_loss(step, positive)
    total = step.total(losses)
    del residual
    return total


_LOSS: dict[str, Callable[[Step], Var]] = {
    "standard": _standard, "topk": _topk, "batchtopk": _batchtopk, "jumprelu": _jumprelu, "gated": _gated,
    "matryoshka_batchtopk": _matryoshka,
}  # fmt: skip
TRAINERS = tuple(_LOSS)
