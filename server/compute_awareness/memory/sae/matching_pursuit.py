"""SAELens' matching pursuit encoder: one latent per iteration and token, until the residual is explained.

Read off sae_lens 6.54.12, saes/matching_pursuit_sae.py `_encode_matching_pursuit`. The encoder is tied to the decoder
(W_enc = W_dec.T). How many iterations run is up to the data: it stops when every row of the batch has converged, after
`max_iterations` (null: d_in) at the latest. Each iteration that trains leaves 2 [batch, d_in] tensors and 4 vectors of
the batch behind for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..autograd import ops, views
from ..autograd.graph import BOOL, INT64, Var


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
    return rows * (2 * width * d_in + INT64 + 3 * width)


def encode(sae_in: Var, W_dec: Var, pursuit: Pursuit) -> Var:
    """_encode_matching_pursuit(sae_in, W_dec, ...) of [rows, d_in]: the activations [rows, d_sae]."""
    graph, width, (rows, d_in) = sae_in.graph, sae_in.width, sae_in.shape
    d_sae = W_dec.shape[0]
    residual = views.clone(sae_in)
    acts = graph.new((rows, d_sae), width)
    held = {"prev_support": graph.new((rows, d_sae), BOOL), "done": graph.new((rows,), BOOL)}
    played = min(pursuit.iterations, _PLAYED)
    for number in range(played):
        if number == _PLAYED // 2 and residual.needs_grad:
            between = pursuit.iterations - played
            residual = graph.unplayed(residual, between * bytes_per_iteration(rows, d_in, width), 0)
        with graph.grad_mode(False):
            indices = _best_latents(residual, W_dec)
        selected = ops.embedding(views.view(indices, rows), W_dec)
        values = ops.relu(ops.sum_over(ops.mul(residual, selected), keepdim=True))
        active = graph.new((rows, 1), BOOL)
        masked = ops.mul(values, ops.cast(active, width))
        acts = ops.scatter_add_(acts, indices, masked)
        # nothing reads the last residual, so its history goes with it
        with graph.grad_mode(graph.enabled and number < played - 1):
            residual = ops.sub(residual, ops.mul(masked, selected))
        # which rows are done: their support did not change, or their residual is small
        if pursuit.stops_on_duplicates or pursuit.stops_on_residual:
            held["support"] = graph.new((rows, d_sae), BOOL)
        if pursuit.stops_on_duplicates:
            same = graph.new((rows, d_sae), BOOL)
            every = graph.new((rows,), BOOL)
            del same
            held["done"] = graph.new((rows,), BOOL)
            del every
            held["prev_support"] = held["support"]
        if pursuit.stops_on_residual:
            norms = graph.new((rows,), width)
            small = graph.new((rows,), BOOL)
            del norms
            held["done"] = graph.new((rows,), BOOL)
            del small
    return acts


def _best_latents(residual: Var, W_dec: Var) -> Var:
    """(residual @ W_dec.T).relu().max(dim=1, keepdim=True).indices"""
    positive = ops.relu(ops.matmul(residual, views.transpose(W_dec, 0, 1)))
    return ops.topk(positive, 1)[1]
