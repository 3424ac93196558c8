"""The work of sparse autoencoders: a training step, encoding and decoding, and how often the language model runs.

Counted in sae_lens 6.54.12 (saes/*.py) and dictionary_learning 0.1.0 (trainers/*.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..memory.sae.activation_buffer import ActivationBuffer
from ..memory.sae.activation_store import MIXING_FRACTION
from ..memory.sae.inference import Use
from ..memory.sae.temporal import Temporal
from .work import NOTHING, Work, product

KERNELS_PER_STEP = 150
"""Of a training step with its optimizer: 95 to 163 were counted in SAELens."""
KERNELS_PER_USE = 15
KERNELS_PER_ITERATION = 15
"""Of matching pursuit."""
# Products of [rows, d_in] with [d_in, d_sae], forward and backward. Each has two gradients, also that of the input,
# because b_dec is subtracted from it. Gated: gate, magnitude, decoder, and once more gate and decoder for the auxiliary
# loss; the first gate only decides, no gradient passes it.
_SAELENS = {
    "standard": 2 + 4, "topk": 2 + 4, "abstopk": 2 + 4, "batchtopk": 2 + 4, "jumprelu": 2 + 4,
    "matryoshka_batchtopk": 2 + 4, "gated": 5 + 8, "matching_pursuit": 1 + 2,
}  # fmt: skip
# What is detached has fewer gradients: the batch that JumpReLU's encoder reads, the decoder of the gate's
# reconstruction. Matryoshka's groups add up to one decoder.
_DICTIONARY_LEARNING = {
    "standard": 2 + 4, "topk": 2 + 4, "batchtopk": 2 + 4, "jumprelu": 2 + 3, "gated": 3 + 5,
    "matryoshka_batchtopk": 2 + 4,
}  # fmt: skip
# Trainers that take from the decoder's gradient what is parallel to its unit vectors
# (trainers/trainer.py `remove_gradient_parallel_to_decoder_directions`); the others do so in ConstrainedAdam, number by
# number.
_EINSUM = ("topk", "batchtopk", "jumprelu", "matryoshka_batchtopk")


@dataclass(frozen=True)
class Step:
    """A training step on `rows` tokens.

    `widths`: of a matryoshka SAE, rising, d_sae the last; `iterations`: of matching pursuit's encoder. `width`: bytes
    of a number in the products (2 under autocast).
    """

    architecture: str
    d_in: int
    d_sae: int
    rows: int
    widths: Sequence[int] = ()
    iterations: int = 0
    width: int = 4

    @property
    def _one(self) -> Work:
        return product(self.rows, self.d_in, self.d_sae, self.width)

    def in_saelens(self) -> Work:
        """One step of SAETrainer, without Adam."""
        work = self._one * _SAELENS[self.architecture] + Work(kernels=KERNELS_PER_STEP)
        # matching pursuit looks for the best latent in every iteration, without a gradient
        work += (self._one + Work(kernels=KERNELS_PER_ITERATION)) * self.iterations
        before = 0
        for inner in self.widths[:-1]:  # each inner width decodes what it has more than the one before it
            work += product(self.rows, inner - before, self.d_in, self.width) * 3
            before = inner
        return work

    def of_dead_latents(self) -> Work:
        """What a step of the top-k family takes more once many latents are dead: another decoding, and its gradients.

        In SAELens; dictionary_learning's trainers do the same.
        """
        return self._one * 3 if "topk" in self.architecture else NOTHING

    def in_dictionary_learning(self) -> Work:
        """One trainer's update(), without Adam."""
        work = self._one * _DICTIONARY_LEARNING[self.architecture] + Work(kernels=KERNELS_PER_STEP)
        if self.architecture in _EINSUM:  # of the gradient and the decoder, a scalar product for each latent
            numbers = self.d_in * self.d_sae
            work += Work(flops=2 * numbers, moved=self.width * (2 * numbers + self.d_sae))
        return work


def encode(use: Use) -> Work:
    """sae.encode of `use.rows` tokens."""
    one = product(use.rows, use.d_in, use.d_sae, use.width)
    if use.temporal is not None:
        return _encode_temporal(use, use.temporal) + Work(kernels=KERNELS_PER_USE)
    if use.pursuit is not None:
        return (one + Work(kernels=KERNELS_PER_ITERATION)) * use.pursuit.iterations
    return one * (2 if use.architecture == "gated" else 1) + Work(kernels=KERNELS_PER_USE)


def _encode_temporal(use: Use, options: Temporal) -> Work:
    """Each attention layer encodes what is left, predicts codes by attention over the sequence and decodes them."""
    rows, width, d_sae = use.rows, use.width, use.d_sae
    narrow = d_sae // options.bottleneck_factor
    heads = options.batch_size * options.n_heads
    one = product(rows, use.d_in, d_sae, width)
    layer = one * 2
    layer += product(rows, d_sae, narrow, width) * 2 + product(rows, d_sae, d_sae, width) * 2
    layer += product(options.seq_len, narrow // options.n_heads, options.seq_len, width, heads, weights=False)
    layer += product(options.seq_len, options.seq_len, d_sae // options.n_heads, width, heads, weights=False)
    return layer * options.n_attn_layers + one


def decode(use: Use) -> Work:
    """sae.decode of `use.rows` tokens."""
    return product(use.rows, use.d_sae, use.d_out, use.width)


def store_batches(steps: int, train_batch: int, buffer: int, per_batch: int) -> int:
    """How often SAELens' activation store runs the language model until it has served `steps` batches.

    `mixing_buffer` of sae_lens 6.54.12: the store fills to `buffer` tokens, keeps half of them and serves the rest,
    then fills again, at least with one batch of the model. All but `steps` in tokens; `buffer` >= `train_batch`.
    """
    keep = int(buffer * MIXING_FRACTION)
    left = served = ran = 0
    seen: dict[int, tuple[int, int]] = {}
    while served < steps:
        if left in seen:  # from here on it repeats
            served_then, ran_then = seen[left]
            times = (steps - served - 1) // (served - served_then)
            ran += times * (ran - ran_then)
            served += times * (served - served_then)
            seen = {}
        else:
            seen[left] = (served, ran)
        # Without max(), which would take longer than the rest of a round.
        batches = -(-(buffer - left) // per_batch) if left < buffer else 1
        ran += batches
        size = left + batches * per_batch
        serves = (size - keep) // train_batch or 1
        served += serves
        left = size - serves * train_batch if size > serves * train_batch else 0
    return ran


def buffer_batches(batches: int, buffer: ActivationBuffer) -> int:
    """How often dictionary_learning's ActivationBuffer runs the language model until it has served `batches`.

    It refreshes at the first batch and whenever fewer than half of its activations are unread. trainSAE of n steps
    asks for n + 1 batches and looks only then whether it is done.
    """
    per_batch = buffer.refresh_batch_size * buffer.ctx_len
    between = (buffer.size - buffer.size // 2) // buffer.out_batch_size + 1
    refreshes = max(0, (batches - 1) // between)
    return -(-buffer.size // per_batch) + refreshes * -(-(buffer.size - buffer.unread) // per_batch)
