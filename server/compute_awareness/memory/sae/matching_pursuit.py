"""SAELens' matching pursuit encoder: one latent per iteration and token, until the residual is explained.

Read off sae_lens 6.54.12, saes/matching_pursuit_sae.py `_encode_matching_pursuit`. The encoder is tied to the decoder
(W_enc = W_dec.T). How many iterations run is up to the data: it stops when every row of the batch has converged, after
`max_iterations` (null: d_in) at the latest. Each iteration that trains leaves 2 [batch, d_in] tensors and 4 vectors of
the batch behind for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from .autograd import INDEX, Graph, Var
from .frame import Frame


@dataclass(frozen=True)
class Pursuit:
    """How the encoder iterates. `stops_on_duplicates`, `stops_on_residual`: stop_on_duplicate_support, and whether
    residual_threshold is above 0; each keeps something of its own."""

    iterations: int
    stops_on_duplicates: bool = True
    stops_on_residual: bool = True


# Iterations that are played one by one, half of them at either end: all between leave as much behind.
_PLAYED = 4


def bytes_per_iteration(rows: int, d_in: int, width: int) -> int:
    """Saved for the backward pass: residual and chosen rows [rows, d_in], their indices, and the value, the mask of
    active rows and their product [rows]."""
    return rows * (2 * width * d_in + INDEX + 3 * width)


def encode(graph: Graph, sae_in: Var, W_dec: Var, rows: int, d_sae: int, pursuit: Pursuit) -> Var:
    """_encode_matching_pursuit(sae_in, W_dec, ...): the activations [rows, d_sae]; the caller holds `sae_in`."""
    tape, width = graph.tape, sae_in.width
    frame = Frame(tape)
    residual = graph.clone(sae_in)
    frame.assign("residual", residual.tensor)
    acts = graph.new(rows * d_sae, width)
    frame.assign("prev_support", tape.new(rows * d_sae))
    frame.assign("done", tape.new(rows))
    played = min(pursuit.iterations, _PLAYED)
    for number in range(played):
        if number == _PLAYED // 2:
            between = pursuit.iterations - played
            residual = graph.unplayed(residual, between * bytes_per_iteration(rows, sae_in.elements // rows, width))
            frame.assign("residual", residual.tensor)
        indices = _best_latents(graph, residual, W_dec, rows, d_sae)
        frame.assign("indices", indices.tensor)
        selected = graph.select_rows(W_dec, indices, sae_in.elements)
        frame.assign("selected", selected.tensor)
        product = graph.mul(residual, selected)
        sums = graph.sum_rows(product, rows)
        graph.drop(product)
        values = graph.relu(sums)
        graph.drop(sums)
        frame.assign("values", values.tensor)
        frame.assign("active", tape.new(rows))
        active = graph.new(rows, width)
        masked = graph.mul(values, active)
        graph.drop(active)
        frame.assign("masked", masked.tensor)
        graph.scatter_add(acts, indices, masked)
        # nothing reads the last residual, so its history goes with it
        last = number == played - 1
        operands = [graph.detached(x) if last else x for x in (masked, selected, residual)]
        taken = graph.mul(operands[0], operands[1])
        residual = graph.add(operands[2], taken, minus=True)
        graph.drop(taken)
        frame.assign("residual", residual.tensor)
        _converged(graph, frame, rows, d_sae, width, pursuit)
    frame.leave()
    return acts


def _best_latents(graph: Graph, residual: Var, W_dec: Var, rows: int, d_sae: int) -> Var:
    """(residual @ W_dec.T).relu().max(dim=1, keepdim=True).indices under no_grad."""
    product = graph.matmul(graph.detached(residual), graph.detached(W_dec), rows, d_sae)
    positive = graph.new(product.elements, product.width)
    graph.drop(product)
    values, indices = graph.new(rows, positive.width), graph.new(rows, INDEX)
    graph.drop(positive, values)
    return indices


def _converged(graph: Graph, frame: Frame, rows: int, d_sae: int, width: int, pursuit: Pursuit) -> None:
    """Which rows are done: their support did not change, or their residual is small."""
    tape = graph.tape
    if not (pursuit.stops_on_duplicates or pursuit.stops_on_residual):
        return
    support = tape.new(rows * d_sae)
    frame.assign("support", support)
    if pursuit.stops_on_duplicates:
        same = tape.new(rows * d_sae)
        every = tape.new(rows)
        tape.drop(same)
        frame.assign("done", tape.new(rows))
        tape.drop(every)
        frame.assign("prev_support", tape.hold(support))
    if pursuit.stops_on_residual:
        norms = tape.new(rows * width)
        small = tape.new(rows)
        tape.drop(norms)
        frame.assign("done", tape.new(rows))
        tape.drop(small)
