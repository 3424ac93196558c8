"""The training step of each SAELens architecture: which tensors it makes and when autograd lets them go.

Read off sae_lens 6.54.12: `encode_with_hidden_pre`, `decode` and `calculate_aux_loss` of saes/{standard_sae,topk_sae,
batchtopk_sae,jumprelu_sae,gated_sae}.py, around them `training_forward_pass` (saes/sae.py) and `_train_step`
(training/sae_trainer.py). Default options: L1 with p = 1, JumpReLU's step loss, decoder norms rescaled, dense top-k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .sae_step import FLOAT, INDEX, Operations, sae_params
from .tape import Tensor

# What TrainStepOutput holds of a step (sae_out, feature_acts, hidden_pre), and its backward pass.
Played = tuple[list[Tensor], Callable[[], None]]


def previous_output(step: Operations) -> list[Tensor]:
    """sae_out, feature_acts and hidden_pre of the step before."""
    return [step.keep(size) for size in (step.bd, step.bf, step.bf)]


def train_step(step: Operations, batch: list[Tensor], previous: list[Tensor]) -> list[Tensor]:
    """Plays one step of SAETrainer.fit(), which holds the output of the step before throughout.

    Args:
        step: the operators, on the tape to play on; it already holds weights and optimizer state.
        batch: the batch, if it is a tensor of its own; empty if it is a view of the activation store's buffer.
        previous: what the output of the step before holds, its batch among it.
    Returns:
        What this step's output holds.
    """
    tape, shape = step.tape, step.shape
    tape.phase = "SAE forward"
    dead_mask = tape.new(shape.d_sae)
    centred = step.keep(step.bd)
    output, backward = _ARCHITECTURES[shape.architecture](step, centred, dead_mask)

    fired = tape.new(step.mask)
    firing = step.keep(step.bf)
    tape.drop(fired)
    did_fire = tape.new(shape.d_sae)
    tape.touch(step.f)

    tape.phase = "SAE backward"
    step.gradient(FLOAT * shape.d_in)
    backward()

    tape.phase = "optimizer step"
    # _foreach_sqrt(exp_avg_sqs) makes a list as large as the parameters while the gradients are still there
    # (torch 2.13, optim/adam.py, _multi_tensor_adam: what torch chooses on CUDA).
    tape.touch(FLOAT * sae_params(shape.architecture, shape.d_in, shape.d_sae))
    tape.drop(*step.grads, firing, did_fire, *previous)
    step.grads.clear()
    return [*batch, *output]


def _standard(step: Operations, centred: Tensor, dead_mask: Tensor) -> Played:
    tape = step.tape
    hidden = step.linear(step.bf)
    acts = step.keep(step.bf)
    sae_out, error = step.reconstruct()
    norm = step.keep(step.f)
    weighted = step.keep(step.bf)
    tape.drop(dead_mask, error)

    def backward() -> None:
        sign = tape.new(step.bf)
        grad_weighted = tape.new(step.bf)
        tape.drop(sign, weighted)
        grad_acts = step.product_backward()
        tape.drop(grad_weighted)
        step.norm_backward(norm, first=True)
        more = step.decoder_backward(tape.new(step.bd), first=False)
        tape.drop(more)
        grad_pre = tape.new(step.bf)
        tape.drop(grad_acts)
        step.encoder_backward(grad_pre, centred)

    return [sae_out, acts, hidden], backward


def _topk(step: Operations, centred: Tensor, dead_mask: Tensor) -> Played:
    tape, shape = step.tape, step.shape
    per_batch = shape.architecture == "batchtopk"
    chosen = shape.batch * shape.k
    raw = step.linear(step.bf)
    encoder_norm = step.keep(step.f)
    hidden = step.keep(step.bf)
    relu = step.keep(step.bf) if per_batch else None
    values, indices = step.keep(FLOAT * chosen), step.keep(INDEX * chosen)
    if per_batch:
        zeros = tape.new(step.bf)
        acts = step.keep(step.bf)
        tape.drop(zeros, values)
    else:
        relu = step.keep(FLOAT * chosen)
        acts = step.keep(step.bf)
        tape.drop(values)
    *scale, scaled = step.by_decoder_norm()
    sae_out, error = step.reconstruct()
    aux = _aux_loss(step) if shape.dead else None
    tape.drop(error)
    if per_batch:  # update_topk_threshold: where the activations are positive, and the smallest of them
        tape.touch(step.mask + (2 * INDEX + FLOAT) * chosen)
    if aux is None:
        tape.drop(dead_mask)
    assert relu is not None

    def backward() -> None:
        grad_hidden = _aux_backward(step, aux, dead_mask) if aux else None
        grad_scaled = step.decoder_backward(tape.new(step.bd), first=aux is None)
        tape.drop(scaled)
        grad_acts = step.product_backward()
        tape.drop(grad_scaled)
        step.norm_backward(step.reciprocal_backward(scale), first=False)
        grad_values = tape.new(FLOAT * chosen)
        tape.drop(grad_acts)
        if not per_batch:
            tape.touch(FLOAT * chosen)
            tape.drop(relu)
        grad = tape.new(step.bf)
        tape.drop(grad_values, indices)
        if per_batch:
            before = grad
            grad = tape.new(step.bf)
            tape.drop(before, relu)
        if grad_hidden is not None:
            tape.drop(grad_hidden)
        grad_pre = step.product_backward()
        tape.drop(grad, raw)
        step.norm_backward(encoder_norm, first=False)
        step.encoder_backward(grad_pre, centred)

    return [sae_out, acts, hidden], backward


@dataclass
class _AuxLoss:
    """What the auxiliary loss keeps for its backward pass."""

    scale: list[Tensor]
    scaled: Tensor
    acts: Tensor
    indices: Tensor
    difference: Tensor


def _aux_loss(step: Operations) -> _AuxLoss:
    """calculate_topk_aux_loss with at least d_in/2 dead latents: they are to reconstruct what is left over."""
    tape = step.tape
    k_aux = min(step.shape.d_in // 2, step.shape.d_sae)
    chosen = step.shape.batch * k_aux
    residual = tape.new(step.bd)
    candidates = tape.new(step.bf)
    values, indices = tape.new(FLOAT * chosen), step.keep(INDEX * chosen)
    acts = step.keep(step.bf)
    tape.drop(candidates, values)
    *scale, scaled = step.by_decoder_norm()
    recons = tape.new(step.bd)
    difference = step.keep(step.bd)
    tape.touch(step.bd)
    tape.drop(residual, recons)
    return _AuxLoss(scale, scaled, acts, indices, difference)


def _aux_backward(step: Operations, aux: _AuxLoss, dead_mask: Tensor) -> Tensor:
    """Returns the gradient of hidden_pre, which waits for that of the main path."""
    tape = step.tape
    grad_scaled = step.decoder_backward(step.square_backward(aux.difference), first=True)
    tape.drop(aux.scaled)
    grad_acts = step.product_backward()
    tape.drop(grad_scaled, aux.acts)
    step.norm_backward(step.reciprocal_backward(aux.scale), first=False)
    grad_values = tape.new(aux.indices.bytes // INDEX * FLOAT)
    tape.drop(grad_acts)
    grad_candidates = tape.new(step.bf)
    tape.drop(grad_values, aux.indices)
    grad_hidden = tape.new(step.bf)
    tape.drop(grad_candidates, dead_mask)
    return grad_hidden


def _jumprelu(step: Operations, centred: Tensor, dead_mask: Tensor) -> Played:
    tape = step.tape
    cast = step.bf if step.shape.cpu_casts else 0
    hidden = step.linear(step.bf)
    gate = tape.new(step.mask)
    as_float = tape.new(cast)
    acts = step.keep(step.bf)
    tape.drop(gate, as_float)
    sae_out, error = step.reconstruct()
    tape.touch(step.f + step.mask + step.bf)  # W_dec's norm and the step function summed into L0
    tape.drop(dead_mask, error)

    def rectangle() -> Tensor:
        """The straight-through estimator's window: 1 where |x - threshold| < bandwidth / 2."""
        minus = tape.new(step.bf)
        distance = tape.new(step.bf)
        tape.drop(minus)
        sides = [tape.new(step.mask), tape.new(step.mask)]
        inside = tape.new(step.mask)
        tape.drop(*sides)
        window = tape.new(step.bf)
        tape.drop(inside, distance)
        return window

    def estimator() -> Tensor:
        factor = rectangle()
        for _ in range(2):  # times the bandwidth's factor, times the gradient
            product = tape.new(step.bf)
            tape.drop(factor)
            factor = product
        tape.touch(step.bf + step.f)  # negated and summed into the threshold's gradient
        return factor

    def backward() -> None:
        tape.drop(estimator())
        step.gradient(step.f)
        grad_acts = step.decoder_backward(tape.new(step.bd), first=True)
        per_latent = tape.new(step.f)
        ste = estimator()
        gate = tape.new(step.mask)
        as_float = tape.new(cast)
        grad_pre = tape.new(step.bf)
        tape.drop(as_float, gate, ste, grad_acts, per_latent)
        step.encoder_backward(grad_pre, centred)

    return [sae_out, acts, hidden], backward


def _gated(step: Operations, centred: Tensor, dead_mask: Tensor) -> Played:
    tape = step.tape
    gate_pre = step.linear(step.bf)
    positive = tape.new(step.mask)
    active = step.keep(step.bf)
    tape.drop(positive)
    exponent, scaled_encoder = step.keep(step.f), step.keep(step.w)
    hidden = step.linear(step.bf)
    magnitude = step.keep(step.bf)
    acts = step.keep(step.bf)
    tape.drop(gate_pre)
    sae_out, error = step.reconstruct()

    centred_again = step.keep(step.bd)
    pi_gate = step.linear(step.bf)
    pi_acts = step.keep(step.bf)
    norm = step.keep(step.f)
    tape.touch(step.bf)  # times the decoder norms, summed into L1
    via_gate = step.linear(step.bd)
    difference = step.keep(step.bd)
    tape.touch(step.bd)
    tape.drop(pi_gate, via_gate, dead_mask, error)

    def backward() -> None:
        grad_pi = step.decoder_backward(step.square_backward(difference), first=True)
        tape.drop(step.product_backward())
        step.norm_backward(norm, first=False)
        grad_gate = tape.new(step.bf)
        tape.drop(grad_pi, pi_acts)
        step.encoder_backward(grad_gate, centred_again)
        grad_acts = step.decoder_backward(tape.new(step.bd), first=False)
        grad_magnitude = tape.new(step.bf)
        tape.drop(grad_acts, active)
        grad_hidden = tape.new(step.bf)
        tape.drop(grad_magnitude, magnitude)
        # through x @ (W_enc * r_mag.exp()) + b_mag
        step.gradient(step.f)
        grad_encoder, grad_in = tape.new(step.w), tape.new(step.bd)
        tape.drop(grad_hidden, scaled_encoder, centred)
        halves = [tape.new(step.w), tape.new(step.w)]
        step.gradient(step.f)
        tape.drop(*halves, grad_encoder)
        tape.touch(step.f)
        tape.drop(exponent)
        tape.touch(step.bd)
        tape.drop(grad_in)

    return [sae_out, acts, hidden], backward


_ARCHITECTURES = {"standard": _standard, "topk": _topk, "batchtopk": _topk, "jumprelu": _jumprelu, "gated": _gated}
