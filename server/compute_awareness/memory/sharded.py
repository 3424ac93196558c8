"""A training step with FSDP2: `fully_shard` on every block and on the model, one process for each card.

Each card keeps its share of parameters, gradients and optimizer state. Source: torch 2.13
distributed/fsdp/_fully_shard/_fsdp_param_group.py and _fsdp_collectives.py. In backward a block's parameters are
gathered in a flat buffer, copied out of it, and while the block runs the next one's buffer is filled already
(`_backward_prefetch`); its whole gradients are copied into the input of the reduce-scatter, which stays until the next
block's gradients are there. What no block has (embedding, head, last norm) belongs to the root, which is whole from the
beginning of forward to the end of backward, its gradients too once they are there.

The worst moments are played apart: the loss, the backward pass of the last block, of the last but one and of the first,
each with what the blocks before it have saved, and the optimizer's step. Within a moment everything is taken to be at
its largest at once, so the figure is an upper end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .huggingface.training import Played, Step, play
from .optimizer import Optimizer, state_bytes, step_bytes


@dataclass(frozen=True)
class Moment:
    """Bytes on one card at one moment, beside its share of the parameters and of the optimizer's state."""

    gradients: int
    """Its shares, and the root's whole ones."""
    gathered: int
    """Whole parameters, and the buffers of what is gathered and reduced."""
    activations: Counter[str]

    @property
    def bytes(self) -> int:
        return self.gradients + self.gathered + sum(self.activations.values())


def share(nbytes: int, n_devices: int) -> int:
    """One card's part of so many bytes, rounded up. `fully_shard` splits each tensor by rows, the last part padded:
    where rows do not divide it is up to one row of each tensor more."""
    return -(-nbytes // n_devices)


def moments(step: Step, played: Played, optimizer: Optimizer, n_devices: int) -> list[Moment]:
    """The moments that can be the worst of a step in which `played` (`step` with `bucket_views`) is sharded."""
    spec, last = step.spec, step.spec.n_layers
    root = _bytes(played.ends.trained)
    block = max(_bytes(layer.trained) for layer in played.layers.values())
    whole = _bytes(played.trained)
    head = step.width * spec.d_vocab * spec.d_model
    found = [Moment(head, root + block, played.tape.at_peak)]  # the loss; the last block's buffer is not let go yet
    for blocks in sorted({last, max(last - 1, 1), 1}):
        # A block's backward with what it and those before it saved; the logits have gone.
        left = play(replace(step, spec=spec.model_copy(update={"n_layers": blocks, "d_vocab": 1}))).tape.at_peak
        done = last - blocks + 1
        flat = (blocks > 1) + (blocks < last)  # the next one's gathered, the one before's still being reduced
        found.append(Moment(head + done * share(block, n_devices), root + (2 + flat) * block, left))
    reducing = root + share(whole, n_devices)
    found.append(Moment(reducing, root + block, Counter()))
    stepping = share(step_bytes(optimizer, played.trained), n_devices)
    found.append(Moment(share(whole, n_devices), 0, Counter(temporaries=stepping)))
    return found


def peak(
    step: Step, played: Played, optimizer: Optimizer, n_devices: int, standing: dict[str, int]
) -> tuple[Counter[str], Counter[str]]:
    """(bytes alive at the worst moment, each component at its largest) on one card, as `assemble.largest_and_peak`.

    `standing` is what is there all the while and is not sharded: the model's buffers.
    """
    counted = Counter(standing)
    counted["weights"] = share(_bytes(played.trained), n_devices)
    counted["optimizer_state"] = share(state_bytes(optimizer, played.trained), n_devices)
    every = [
        counted + moment.activations + Counter(gradients=moment.gradients, temporaries=moment.gathered)
        for moment in moments(step, played, optimizer, n_devices)
    ]
    worst = max(every, key=lambda moment: sum(moment.values()))
    largest = Counter({name: max(moment[name] for moment in every) for moment in every for name in moment})
    largest["temporaries"] = worst["temporaries"]
    return worst, largest


def loading_bytes(played: Played, n_devices: int) -> int:
    """Bytes on a card while the model is sharded: the shares that are there, and one block, or the root, whole."""
    largest = max(_bytes(part.trained) for part in (played.ends, *played.layers.values()))
    return share(_bytes(played.trained), n_devices) + largest


def _bytes(tensors: Iterable[tuple[int, int]]) -> int:
    return sum(elements * width for elements, width in tensors)
