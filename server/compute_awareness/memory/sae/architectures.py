"""The training step of each SAELens architecture: which tensors its forward pass makes and how long they live.

Read off sae_lens 6.54.12: `encode_with_hidden_pre`, `decode`, `calculate_aux_loss` and `training_forward_pass` of
saes/{standard,topk,abstopk,batchtopk,matryoshka_batchtopk,jumprelu,gated,matching_pursuit}_sae.py, around them
`training_forward_pass` (saes/sae.py) and `_train_step` (training/sae_trainer.py). Default options: L1 with p = 1,
JumpReLU's step loss, decoder norms rescaled, dense top-k, the auxiliary loss of the whole SAE
(use_matryoshka_aux_loss false).
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import ops, views
from ..autograd.elementwise import like
from ..autograd.graph import BOOL, Grads, Node, Var
from ..tape import Tensor
from . import matching_pursuit
from .step import FLOAT, INDEX, Ledger, Shape, Step

# sae_out, feature_acts and hidden_pre, which TrainStepOutput holds, and the loss.
Output = tuple[Var, Var, Var, Var]


def previous_output(tape: Ledger, shape: Shape) -> list[Tensor]:
    """sae_out, feature_acts and hidden_pre of the step before, and what it logged."""
    # Under autocast, too: the biases are float32 and turn every sum back into it.
    sizes = (shape.batch * shape.d_in, shape.batch * shape.d_sae, shape.batch * shape.d_sae)
    held = [tape.new(size * shape.width, "sae_activations") for size in sizes]
    return [*held, tape.new(shape.logged_bytes, "sae_activations")]


def train_step(
    tape: Ledger, shape: Shape, batch: Tensor, previous: list[Tensor], *, first: bool = False
) -> list[Tensor]:
    """Plays one step of SAETrainer.fit(), which holds the output of the step before throughout.

    Args:
        tape: the tape to play on; it already holds weights and optimizer state.
        batch: the batch, or the activation store's buffer that it is a view of. The caller holds it.
        previous: what the output of the step before holds, its batch among it.
        first: Adam makes its state in this step.
    Returns:
        What this step's output holds beside the batch.
    """
    step = Step(tape, shape, batch)
    graph = step.graph
    tape.phase = "SAE forward"
    with graph.autocasting(not shape.cpu_kernels if shape.autocast else None):
        step.dead_mask = graph.new((shape.d_sae,), BOOL)
        sae_out, acts, hidden, loss = _FORWARD[shape.architecture](step)
        step.dead_mask = None
        for held in (sae_out, acts, hidden):
            held.book("sae_activations")

        fired = tape.new(step.bf)
        firing = tape.new(FLOAT * step.bf, "sae_activations")
        tape.drop(fired)
        graph.summed(shape.batch, shape.d_sae)
        did_fire = tape.new(shape.d_sae)
        summed = tape.new(FLOAT * shape.d_sae)
        graph.summed(shape.batch, shape.d_sae)
        tape.drop(summed)

    tape.phase = "SAE backward"
    graph.backward(loss)
    tape.phase = "optimizer step"
    if first:
        for nbytes in shape.tensors:
            tape.new(nbytes, "optimizer_state")
            tape.new(nbytes, "optimizer_state")
    # _foreach_sqrt(exp_avg_sqs) makes a list as large as the parameters while the gradients are still there
    # (torch 2.13, optim/adam.py, _multi_tensor_adam: what torch chooses on CUDA).
    tape.drop(*[tape.new(nbytes) for nbytes in shape.tensors])
    step.zero_grad()
    tape.drop(firing, did_fire, *previous)
    return [held.hand_over() for held in (sae_out, acts, hidden, loss)]


def _whole(step: Step, hidden: Var, acts: Var, sae_out: Var, aux: Callable[[], list[Var]]) -> Output:
    """training_forward_pass from the reconstruction on: squared error, auxiliary losses, the total."""
    error = ops.squared_error(sae_out, step.batch)
    step.batch.book("sae_activations")  # also where it is a view of the store's buffer: the graph keeps it now
    losses = [step.loss(error)]
    losses += aux()
    return sae_out, acts, hidden, step.total(losses)


def _standard(step: Step) -> Output:
    x = step.centred()
    hidden = step.encode(x, step.vector())
    acts = ops.relu(hidden)
    del x

    def sparsity() -> list[Var]:
        weighted = ops.mul(acts, step.decoder_norm())
        per_row = ops.norm(weighted, p=1)
        scaled = ops.neg(per_row)
        return [ops.average(scaled)]

    return _whole(step, hidden, acts, step.decode(acts), sparsity)


def _rescaled(step: Step) -> Var:
    """hidden_pre of the top-k family: the pre-activations times the decoder's norms."""
    x = step.centred()
    raw = step.encode(x, step.vector())
    return ops.mul(raw, step.decoder_norm())


def _decode_rescaled(step: Step, acts: Var, *, bias: bool = True) -> Var:
    product = ops.matmul(step.over_decoder_norm(acts), step.W_dec)
    return ops.add(product, step.b_dec) if bias else product


def _topk(step: Step) -> Output:
    graph, k = step.graph, step.shape.k
    hidden = _rescaled(step)
    if step.shape.architecture == "abstopk":
        with graph.grad_mode(False):
            values, indices = ops.topk(ops.absolute(hidden), k)
        del values
        zeros = step.features()
        values = ops.gather(hidden, indices)
        acts = ops.scatter_(zeros, indices, values)
    else:
        top, indices = ops.topk(hidden, k)
        values = ops.relu(top)
        acts = ops.scatter_(step.features(), indices, values)
        del top
    del values, indices
    sae_out = _decode_rescaled(step, acts)
    return _whole(step, hidden, acts, sae_out, lambda: _aux_loss(step, hidden, sae_out))


def _batchtopk(step: Step) -> Output:
    hidden = _rescaled(step)
    positive = ops.relu(hidden)
    top, indices = ops.topk(views.view(positive, step.bf), step.rows * step.shape.k)
    zeros = views.view(step.features(), step.bf)
    acts = views.view(ops.scatter(zeros, indices, top), step.rows, step.d_sae)
    del zeros, top, indices, positive
    sae_out = _decode_rescaled(step, acts)
    whole = _whole(step, hidden, acts, sae_out, lambda: _aux_loss(step, hidden, sae_out))
    # update_topk_threshold: where the activations are positive, and the smallest of them
    step.tape.touch(step.bf + (2 * INDEX + step.width) * step.rows * step.shape.k)
    return whole


def _matryoshka(step: Step) -> Output:
    """The widths but the last decode once more, each from the one before: `_iterable_decode`."""
    sae_out, acts, hidden, total = _batchtopk(step)
    scaled = step.over_decoder_norm(acts)
    decoded, before = step.b_dec, 0
    for width in step.shape.matryoshka_widths[:-1]:
        inner = views.narrow(scaled, 1, width - before)
        product = ops.matmul(inner, views.narrow(step.W_dec, 0, width - before))
        decoded, before = ops.add(product, decoded), width
        del product, inner
        rows = ops.sum_over(ops.squared_error(decoded, step.batch))
        loss = ops.average(rows)
        del rows
        total = ops.add(total, loss)
        del loss
    return sae_out, acts, hidden, total


def _aux_loss(step: Step, hidden: Var, sae_out: Var) -> list[Var]:
    """calculate_topk_aux_loss with at least d_in/2 dead latents: they are to reconstruct what is left over."""
    graph = step.graph
    if not step.shape.dead:
        return []
    assert step.dead_mask is not None
    residual = graph.new((step.rows, step.d_in), max(sae_out.width, FLOAT))
    absolute = step.shape.architecture == "abstopk"
    candidates = ops.where(step.dead_mask, ops.absolute(hidden) if absolute else hidden)
    top, indices = ops.topk(candidates, min(step.d_in // 2, step.d_sae))
    zeros = step.features()
    values = ops.gather(hidden, indices) if absolute else top
    acts = ops.scatter_(zeros, indices, values)
    del candidates, top, indices, zeros, values
    recons = _decode_rescaled(step, acts, bias=False)
    squared = ops.power(ops.sub(recons, residual))
    loss = step.loss(squared)
    return [ops.neg(loss)]


# -- JumpReLU: two functions with backward passes of their own, saes/jumprelu_sae.py


def _jumprelu(step: Step) -> Output:
    threshold = step.vector(FLOAT)
    x = step.centred()
    hidden = step.encode(x, step.vector())
    cast = ops.cast(threshold, hidden.width)
    acts = above_threshold(hidden)
    step.graph.record([hidden, cast], [acts], _jump_backward, [hidden, cast])
    del cast, x

    def step_loss() -> list[Var]:
        graph = step.graph
        cast = ops.cast(threshold, hidden.width)
        with graph.grad_mode(False):
            norm = step.decoder_norm()
        gate = ops.compared(hidden)
        ones = like(hidden)
        del gate
        graph.record([hidden, cast], [ones], _step_backward, [hidden, cast])
        per_row = ops.sum_over(ones)
        del ones
        scaled = ops.neg(per_row)
        loss = ops.average(scaled)
        del scaled, per_row, norm, cast
        return [loss]

    return _whole(step, hidden, acts, step.decode(acts), step_loss)


def above_threshold(x: Var) -> Var:
    """x * (x > threshold), without history"""
    gate = ops.compared(x)
    as_float = like(x) if x.graph.cpu else None
    result = like(x)
    del as_float, gate
    return result


def _jump_backward(node: Node, grads: Grads) -> Grads:
    """JumpReLU.backward"""
    hidden, threshold = node.saved
    negative = like(threshold)
    estimate = _estimator(hidden)
    del negative
    of_threshold = _threshold_gradient(estimate, threshold)
    return [above_threshold(hidden), of_threshold]


def _step_backward(node: Node, grads: Grads) -> Grads:
    """Step.backward: none for what is compared with the threshold"""
    hidden, threshold = node.saved
    return [None, _threshold_gradient(_estimator(hidden), threshold)]


def _estimator(x: Var) -> Var:
    """The straight-through estimator: `rectangle`, times the bandwidth's factor, times the gradient."""
    factor = _rectangle(x)
    for _ in range(2):
        factor = like(factor)
    return factor


def _rectangle(x: Var) -> Var:
    """1 where |x - threshold| < bandwidth / 2."""
    minus = like(x)
    distance = like(minus)
    del minus
    sides = [ops.compared(x), ops.compared(x)]
    inside = ops.compared(x)
    del sides
    result = like(x)
    del inside, distance
    return result


def _threshold_gradient(estimate: Var, threshold: Var) -> Var:
    return ops.sum_to(ops.neg(estimate), threshold.shape)


def _gated(step: Step) -> Output:
    b_gate, r_mag, b_mag = step.vector(), step.vector(), step.vector()
    x = step.centred()
    gate_pre = step.encode(x, b_gate)
    positive = ops.compared(gate_pre)
    active = ops.cast(positive, step.width)
    del positive
    product = ops.matmul(x, ops.mul(step.W_enc, ops.exp(r_mag)))
    hidden = ops.add(product, b_mag)
    del product
    acts = ops.mul(active, ops.relu(hidden))
    del active, gate_pre, x  # a comparison has no gradient

    def losses() -> list[Var]:
        x = ops.sub(step.batch, ops.neg(step.b_dec))
        pi_gate = step.encode(x, b_gate)
        pi_acts = ops.relu(pi_gate)
        per_row = ops.sum_over(ops.mul(pi_acts, step.decoder_norm()))
        mean = ops.average(per_row)
        del per_row
        l1 = ops.neg(mean)
        del mean
        via_gate = step.decode(pi_acts)
        squared = ops.power(ops.sub(via_gate, step.batch))
        return [l1, step.loss(squared)]

    return _whole(step, hidden, acts, step.decode(acts), losses)


def _matching_pursuit(step: Step) -> Output:
    pursuit = step.shape.pursuit
    assert pursuit is not None
    x = step.centred()
    acts = matching_pursuit.encode(x, step.W_dec, pursuit)
    hidden = step.features()  # zeros: there is no single pre-activation
    del x
    return _whole(step, hidden, acts, step.decode(acts), list)


_FORWARD: dict[str, Callable[[Step], Output]] = {
    "standard": _standard, "topk": _topk, "abstopk": _topk, "batchtopk": _batchtopk,
    "matryoshka_batchtopk": _matryoshka, "jumprelu": _jumprelu, "gated": _gated,
    "matching_pursuit": _matching_pursuit,
}  # fmt: skip
