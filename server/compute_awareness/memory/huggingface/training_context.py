"""What the layers of every family share: what the model's forward hands to them, and how heads are put together."""

from __future__ import annotations

from dataclasses import dataclass

from ..autograd import views
from ..autograd.graph import Var


@dataclass
class Context:
    """What the model's forward hands to every layer."""

    mask: Var | None
    cos: Var | None = None
    sin: Var | None = None
    alibi: Var | None = None
    slopes: Var | None = None
    positions: Var | None = None
    """Not used, but held by a checkpointed call until the layer is recomputed."""


def merged(out: Var) -> Var:
    """attn_output.reshape(*input_shape, -1).contiguous()."""
    return views.contiguous(views.reshape(out, *out.shape[:-2], -1))
