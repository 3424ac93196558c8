"""The training step of each SAELens architecture: which tensors its forward pass makes and how long they live.

Read off sae_lens 6.54.12: `encode_with_hidden_pre`, `decode`, `calculate_aux_loss` and `training_forward_pass` of
saes/{standard,topk,abstopk,batchtopk,matryoshka_batchtopk,jumprelu,gated,matching_pursuit}_sae.py, around them
`training_forward_pass` (saes/sae.py) and `_train_step` (training/sae_trainer.py). Default options: L1 with p = 1,
JumpReLU's step loss, decoder norms rescaled, dense top-k, the auxiliary loss of the whole SAE
(use_matryoshka_aux_loss false).
"""

from __future__ import annotations

from collections.abc import Callable

from ..tape import Tensor
from . import matching_pursuit
from .autograd import Grad, Var
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
    step.dead_mask = graph.new(shape.d_sae, 1)
    sae_out, acts, hidden, loss = _FORWARD[shape.architecture](step)
    graph.drop(step.dead_mask)
    graph.keep(sae_out, acts, hidden)

    fired = tape.new(step.bf)
    firing = tape.new(FLOAT * step.bf, "sae_activations")
    tape.drop(fired)
    graph.stage(shape.batch, shape.d_sae)
    did_fire = tape.new(shape.d_sae)
    summed = tape.new(FLOAT * shape.d_sae)
    graph.stage(shape.batch, shape.d_sae)
    tape.drop(summed)
    graph.leave_autocast()

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
    graph.zero_grad()
    tape.drop(firing, did_fire, *previous)
    return [sae_out.tensor, acts.tensor, hidden.tensor]


def _whole(step: Step, hidden: Var, acts: Var, sae_out: Var, aux: Callable[[], list[Var]]) -> Output:
    """training_forward_pass from the reconstruction on: squared error, auxiliary losses, the total."""
    error = step.graph.squared_error(sae_out, step.batch)
    mse = step.loss(error)
    losses = aux()
    total = step.plus(mse, *losses)
    step.graph.drop(error)
    return sae_out, acts, hidden, total


def _standard(step: Step) -> Output:
    graph = step.graph
    x = step.centred()
    hidden = step.encode(x, step.vector())
    acts = graph.relu(hidden)
    graph.drop(x)

    def sparsity() -> list[Var]:
        norm = step.decoder_norm()
        weighted = graph.mul(acts, norm)
        graph.drop(norm)
        per_row = graph.norm(weighted, step.rows, p=1)
        scaled = graph.scale(per_row)
        loss = graph.mean(scaled)
        graph.drop(per_row, scaled, weighted)
        return [loss]

    return _whole(step, hidden, acts, step.decode(acts), sparsity)


def _rescaled(step: Step) -> Var:
    """hidden_pre of the top-k family: the pre-activations times the decoder's norms."""
    x = step.centred()
    raw = step.encode(x, step.vector())
    norm = step.decoder_norm()
    hidden = step.graph.mul(raw, norm)
    step.graph.drop(raw, norm, x)
    return hidden


def _decode_rescaled(step: Step, acts: Var, *, bias: bool = True) -> Var:
    graph = step.graph
    scaled = step.over_decoder_norm(acts)
    product = graph.matmul(scaled, step.W_dec, step.rows, step.d_in)
    graph.drop(scaled)
    if not bias:
        return product
    out = graph.add(product, step.b_dec)
    graph.drop(product)
    return out


def _topk(step: Step) -> Output:
    graph = step.graph
    hidden = _rescaled(step)
    chosen = step.rows * step.shape.k
    if step.shape.architecture == "abstopk":
        magnitude = graph.new(step.bf, step.width)
        unused, indices = graph.new(chosen, step.width), graph.new(chosen, INDEX)
        graph.drop(magnitude, unused)
        zeros = graph.new(step.bf, step.width)
        values = graph.gather(hidden, indices)
        acts = graph.scatter_into(zeros, indices, values)
        graph.drop(values, indices)
    else:
        top, indices = graph.topk(hidden, chosen)
        values = graph.relu(top)
        zeros = graph.new(step.bf, step.width)
        acts = graph.scatter_into(zeros, indices, values)
        graph.drop(top, values, indices)
    sae_out = _decode_rescaled(step, acts)
    return _whole(step, hidden, acts, sae_out, lambda: _aux_loss(step, hidden, sae_out))


def _batchtopk(step: Step) -> Output:
    graph = step.graph
    hidden = _rescaled(step)
    positive = graph.relu(hidden)
    top, indices = graph.topk(positive, step.rows * step.shape.k)
    zeros = graph.new(step.bf, step.width)
    acts = graph.scatter_copy(zeros, indices, top)
    graph.drop(zeros, top, indices, positive)
    sae_out = _decode_rescaled(step, acts)
    whole = _whole(step, hidden, acts, sae_out, lambda: _aux_loss(step, hidden, sae_out))
    # update_topk_threshold: where the activations are positive, and the smallest of them
    step.tape.touch(step.bf + (2 * INDEX + step.width) * step.rows * step.shape.k)
    return whole


def _matryoshka(step: Step) -> Output:
    """The widths but the last decode once more, each from the one before: `_iterable_decode`."""
    graph = step.graph
    sae_out, acts, hidden, total = _batchtopk(step)
    scaled = step.over_decoder_norm(acts)
    decoded, before = graph.hold(step.b_dec), 0
    for width in step.shape.matryoshka_widths[:-1]:
        inner = graph.view(scaled, step.rows * (width - before))
        weight = graph.view(step.W_dec, (width - before) * step.d_in)
        product = graph.matmul(inner, weight, step.rows, step.d_in)
        graph.drop(weight)
        wider = graph.add(product, decoded)
        graph.drop(product, decoded, inner)
        decoded, before = wider, width
        error = graph.squared_error(decoded, step.batch)
        rows = graph.sum_rows(error, step.rows)
        graph.drop(error)
        loss = graph.mean(rows)
        graph.drop(rows)
        total = step.plus(total, loss)
    graph.drop(decoded, scaled)
    return sae_out, acts, hidden, total


def _aux_loss(step: Step, hidden: Var, sae_out: Var) -> list[Var]:
    """calculate_topk_aux_loss with at least d_in/2 dead latents: they are to reconstruct what is left over."""
    graph = step.graph
    if not step.shape.dead:
        return []
    assert step.dead_mask is not None
    chosen = step.rows * min(step.d_in // 2, step.d_sae)
    width = max(sae_out.width, FLOAT)
    residual = graph.new(step.bd, width)
    absolute = step.shape.architecture == "abstopk"
    magnitude = graph.absolute(hidden) if absolute else graph.hold(hidden)
    candidates = graph.where(step.dead_mask, magnitude)
    graph.drop(magnitude)
    top, indices = graph.topk(candidates, chosen)
    zeros = graph.new(step.bf, step.width)
    if absolute:
        signed = graph.gather(hidden, indices)
        acts = graph.scatter_into(zeros, indices, signed)
        graph.forget(top, hidden)
        graph.drop(signed, candidates, top, indices)
    else:
        acts = graph.scatter_into(zeros, indices, top)
        graph.drop(candidates, top, indices)
    recons = _decode_rescaled(step, acts, bias=False)
    difference = graph.add(recons, residual, minus=True)
    squared = graph.square(difference)
    graph.drop(difference)
    loss = step.loss(squared)
    scaled = graph.scale(loss)
    graph.drop(squared, loss, residual, recons, acts)
    return [scaled]


def _jumprelu(step: Step) -> Output:
    graph, tape = step.graph, step.tape
    threshold = step.vector(FLOAT)
    x = step.centred()
    hidden = step.encode(x, step.vector())

    def window(like: Var) -> Var:
        """`rectangle`: 1 where |x - threshold| < bandwidth / 2."""
        minus = graph.new(step.bf, like.width)
        distance = graph.new(step.bf, like.width)
        graph.drop(minus)
        sides = [tape.new(step.bf), tape.new(step.bf)]
        inside = tape.new(step.bf)
        tape.drop(*sides)
        result = graph.new(step.bf, like.width)
        tape.drop(inside)
        graph.drop(distance)
        return result

    def estimator(like: Var) -> Var:
        """The straight-through estimator, and the threshold's gradient from it."""
        factor = window(like)
        for _ in range(2):  # times the bandwidth's factor, times the gradient
            product = graph.new(step.bf, like.width)
            graph.drop(factor)
            factor = product
        return factor

    def threshold_gradient(ste: Var) -> Grad:
        negative = graph.new(step.bf, ste.width)
        result = graph.grad(step.d_sae, ste.width)
        graph.stage(step.rows, step.d_sae)
        graph.drop(negative)
        return result

    def gated(source: Var) -> Var:
        """x * (x > threshold)"""
        gate = tape.new(step.bf)
        as_float = tape.new(step.bf * source.width if step.shape.cpu_kernels else 0)
        result = graph.new(step.bf, source.width)
        tape.drop(as_float, gate)
        return result

    cast = graph.cast(threshold, hidden.width)
    acts = gated(hidden)

    def jump_backward(grad: Grad) -> list[Grad | None]:
        per_latent = graph.new(step.d_sae, hidden.width)
        ste = estimator(hidden)
        graph.drop(per_latent)
        of_threshold = threshold_gradient(ste)
        product = gated(hidden)
        graph.drop(ste)
        return [Grad(product.tensor, step.bf, hidden.width), of_threshold]

    graph.record(acts, [hidden, cast], [hidden, cast], jump_backward)
    graph.drop(cast, x)

    def step_loss() -> list[Var]:
        cast = graph.cast(threshold, hidden.width)
        norm = graph.new(step.d_sae, step.width)
        gate = tape.new(step.bf)
        ones = graph.new(step.bf, hidden.width)
        tape.drop(gate)

        def backward(grad: Grad) -> list[Grad | None]:
            ste = estimator(hidden)
            result = threshold_gradient(ste)
            graph.drop(ste)
            return [None, result]

        graph.record(ones, [hidden, cast], [hidden, cast], backward)
        per_row = graph.sum_rows(ones, step.rows)
        graph.drop(ones)
        scaled = graph.scale(per_row)
        loss = graph.mean(scaled)
        graph.drop(scaled, per_row, norm, cast)
        return [loss]

    return _whole(step, hidden, acts, step.decode(acts), step_loss)


def _gated(step: Step) -> Output:
    graph, tape = step.graph, step.tape
    b_gate, r_mag, b_mag = step.vector(), step.vector(), step.vector()
    x = step.centred()
    gate_pre = step.encode(x, b_gate)
    positive = tape.new(step.bf)
    active = graph.new(step.bf, step.width)
    tape.drop(positive)
    exponent = graph.exp(r_mag)
    scaled_encoder = graph.mul(step.W_enc, exponent)
    graph.drop(exponent)
    product = graph.matmul(x, scaled_encoder, step.rows, step.d_sae)
    graph.drop(scaled_encoder)
    hidden = graph.add(product, b_mag)
    graph.drop(product)
    magnitude = graph.relu(hidden)
    acts = graph.mul(active, magnitude)
    graph.forget(gate_pre, x)  # a comparison has no gradient
    graph.drop(magnitude, active, gate_pre, x)

    def losses() -> list[Var]:
        bias = graph.scale(step.b_dec)
        x = graph.add(step.batch, bias, minus=True)
        graph.drop(bias)
        pi_gate = step.encode(x, b_gate)
        pi_acts = graph.relu(pi_gate)
        norm = step.decoder_norm()
        weighted = graph.mul(pi_acts, norm)
        graph.drop(norm)
        per_row = graph.sum_rows(weighted, step.rows)
        graph.drop(weighted)
        mean = graph.mean(per_row)
        graph.drop(per_row)
        l1 = graph.scale(mean)
        graph.drop(mean)
        via_gate = step.decode(pi_acts)
        difference = graph.add(via_gate, step.batch, minus=True)
        squared = graph.square(difference)
        graph.drop(difference)
        aux = step.loss(squared)
        graph.drop(squared, via_gate, pi_acts, pi_gate, x)
        return [l1, aux]

    return _whole(step, hidden, acts, step.decode(acts), losses)


def _matching_pursuit(step: Step) -> Output:
    graph, pursuit = step.graph, step.shape.pursuit
    assert pursuit is not None
    x = step.centred()
    acts = matching_pursuit.encode(graph, x, step.W_dec, step.rows, step.d_sae, pursuit)
    hidden = graph.new(step.bf, acts.width)  # zeros: there is no single pre-activation
    graph.drop(x)
    return _whole(step, hidden, acts, step.decode(acts), list)


_FORWARD: dict[str, Callable[[Step], Output]] = {
    "standard": _standard, "topk": _topk, "abstopk": _topk, "batchtopk": _batchtopk,
    "matryoshka_batchtopk": _matryoshka, "jumprelu": _jumprelu, "gated": _gated,
    "matching_pursuit": _matching_pursuit,
}  # fmt: skip
