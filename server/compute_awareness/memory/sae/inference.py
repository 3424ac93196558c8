"""What an SAE allocates when it is used: encode, decode, and the whole of it spliced into a language model.

Read off sae_lens 6.54.12: `encode` and `decode` of saes/{standard,topk,abstopk,jumprelu,gated}_sae.py and
transcoder.py (inference classes, as `SAE.from_pretrained` gives them), `_SAEWrapper.forward` of
analysis/hooked_sae_transformer.py. Under torch.no_grad(). The training classes' `encode` (used by SAELens'
evaluation) differs for the top-k family, JumpReLU and matching pursuit. `matching_pursuit` and `temporal` play those
two encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..autograd import ops, views
from ..autograd.elementwise import like
from ..autograd.graph import Graph, Var
from ..tape import Tape, Tensor
from . import matching_pursuit
from . import temporal as temporal_sae
from .architectures import above_threshold
from .matching_pursuit import Pursuit
from .temporal import Temporal

FLOAT = 4
# Vectors of d_sae numbers beside the matrices and b_dec.
INFERENCE_VECTORS = {
    "standard": 1, "topk": 1, "abstopk": 1, "jumprelu": 2, "gated": 3, "transcoder": 1, "skip_transcoder": 1,
    "jumprelu_transcoder": 2, "jumprelu_skip_transcoder": 2, "matching_pursuit": 0, "temporal": 0,
}  # fmt: skip
SAVED_AS_JUMPRELU = ("batchtopk", "matryoshka_batchtopk")


@dataclass(frozen=True)
class Use:
    """An SAE in use. `rows`: tokens at once. `width`: bytes per number of the SAE, `input_width` of what it is given.

    `training`: the class that SAETrainer trains, whose top-k family rescales by the decoder's norms. `pursuit` and
    `temporal`: of those architectures.
    """

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    k: int
    rows: int
    width: int = FLOAT
    input_width: int = FLOAT
    training: bool = False
    pursuit: Pursuit | None = None
    temporal: Temporal | None = None

    @property
    def transcodes(self) -> bool:
        return "transcoder" in self.architecture

    @property
    def params(self) -> int:
        """Parameters of the inference class (`initialize_weights`)."""
        if self.temporal is not None:
            return self.temporal.params(self.d_in, self.d_sae)
        if self.pursuit is not None:  # tied: W_enc is a view of W_dec
            return self.d_sae * self.d_in + self.d_in
        skip = self.d_out * self.d_in if "skip" in self.architecture else 0
        vectors = INFERENCE_VECTORS[self.architecture]
        return self.d_sae * (self.d_in + self.d_out) + self.d_out + vectors * self.d_sae + skip

    @property
    def tensors(self) -> list[int]:
        """Bytes of its parameters, the matrices one by one; they add up to `params` at `width`."""
        total = self.params * self.width
        matrices = [self.d_sae * self.d_in * self.width]
        if self.pursuit is None and self.temporal is None:
            matrices.append(self.d_sae * self.d_out * self.width)
        return [*matrices, total - sum(matrices)]

    @property
    def features(self) -> int:
        """Elements of the feature activations."""
        return self.rows * self.d_sae


class _Sae:
    """The SAE's operators on one tape, without gradients."""

    def __init__(self, tape: Tape, use: Use, cpu_kernels: bool = False) -> None:
        self.tape, self.use = tape, use
        self.graph = graph = Graph(tape, cpu_kernels)
        graph.enabled = False
        self.W_enc = graph.parameter((use.d_in, use.d_sae), use.width, False)
        self.W_dec = graph.parameter((use.d_sae, use.d_out), use.width, False)
        self.b_dec = graph.parameter((use.d_out,), use.width, False)
        self.vector = graph.parameter((use.d_sae,), use.width, False)

    def given(self, source: Tensor) -> Var:
        """The activations to encode, which the caller holds."""
        return self.graph.on(source, (self.use.rows, self.use.d_in), self.use.input_width)

    def features(self) -> Var:
        return self.graph.new((self.use.rows, self.use.d_sae), self.use.width)

    def centred(self, x: Var) -> Var:
        """process_sae_in; a transcoder does not subtract b_dec."""
        if self.use.transcodes:
            return ops.cast(x, self.use.width)
        return ops.sub(ops.cast(x, self.use.width), ops.neg(self.b_dec))

    def norms(self) -> Var:
        return self.graph.new((self.use.d_sae,), self.use.width)

    def encode(self, source: Var) -> Var:
        use = self.use
        if use.temporal is not None:
            return self.encode_with_predictions(source)[0]
        x = self.centred(source)
        if use.pursuit is not None:
            acts = matching_pursuit.encode(x, self.W_dec, use.pursuit)
            if use.training:
                self.tape.touch(use.features * use.width)  # zeros that nobody reads
            return acts
        hidden = ops.add(ops.matmul(x, self.W_enc), self.vector)
        family = use.architecture
        if family == "gated":
            return self._gated(x, hidden)
        if family.startswith("jumprelu"):
            return self._jumprelu(hidden)
        if "topk" in family:
            if use.training:
                hidden = ops.mul(hidden, self.norms())
            return self._topk(hidden)
        return ops.relu(hidden)

    def encode_with_predictions(self, source: Var) -> tuple[Var, Var]:
        """Of the temporal SAE: novel and predicted codes."""
        use, graph = self.use, self.graph
        assert use.temporal is not None
        sae_in = self.centred(source).hand_over()
        z_novel, z_pred = temporal_sae.encode(
            self.tape, sae_in, use.width, use.d_in, use.d_sae, use.temporal, cpu_kernels=graph.cpu
        )
        shape = use.rows, use.d_sae
        novel, predicted = graph.on(z_novel, shape, use.width), graph.on(z_pred, shape, use.width)
        self.tape.drop(sae_in, z_novel, z_pred)
        return novel, predicted

    def _gated(self, x: Var, hidden: Var) -> Var:
        positive = ops.compared(hidden)
        active = ops.cast(positive, self.use.width)
        del positive
        product = ops.matmul(x, ops.mul(self.W_enc, self.norms()))
        magnitude = ops.add(product, self.vector)
        del product
        return ops.mul(active, ops.relu(magnitude))

    def _jumprelu(self, hidden: Var) -> Var:
        if self.use.training:  # JumpReLU.apply
            return above_threshold(hidden)
        base = ops.relu(hidden)
        above = ops.compared(hidden)
        mask = ops.cast(above, self.use.width)
        del above
        return ops.mul(base, mask)

    def _topk(self, hidden: Var) -> Var:
        use = self.use
        if use.architecture == "abstopk":
            values, indices = ops.topk(like(hidden), use.k)
            del values
            zeros = self.features()
            values = ops.gather(hidden, indices)
            return ops.scatter_(zeros, indices, values)
        if use.architecture in SAVED_AS_JUMPRELU:
            source = ops.relu(hidden)
            top, indices = ops.topk(views.view(source, use.features), use.rows * use.k)
            zeros = views.view(self.features(), use.features)
            return views.view(ops.scatter(zeros, indices, top), use.rows, use.d_sae)
        top, indices = ops.topk(hidden, use.k)
        values = ops.relu(top)
        return ops.scatter_(self.features(), indices, values)

    def decode(self, acts: Var) -> Var:
        if self.use.training and "topk" in self.use.architecture:
            norms = self.norms()
            inverse = ops.neg(ops.reciprocal(norms))
            del norms
            acts = ops.mul(acts, inverse)
            del inverse
        product = ops.matmul(acts, self.W_dec)
        del acts
        return ops.add(product, self.b_dec)


def encode(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> Tensor:
    """sae.encode(source); gives back the feature activations."""
    sae = _Sae(tape, use, cpu_kernels)
    return sae.encode(sae.given(source)).hand_over()


def reconstruct(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> tuple[Tensor, Tensor]:
    """sae.decode(sae.encode(source)); gives back features and reconstruction."""
    sae = _Sae(tape, use, cpu_kernels)
    acts = sae.encode(sae.given(source))
    return acts.hand_over(), sae.decode(acts).hand_over()


def encode_then_decode(
    tape: Tape, use: Use, source: Tensor, encoded: Callable[[Tensor], None], *, cpu_kernels: bool = False
) -> Tensor:
    """The reconstruction in two statements: `encoded` is called with the features between them and keeps them."""
    sae = _Sae(tape, use, cpu_kernels)
    acts = sae.encode(sae.given(source))
    encoded(acts.hand_over())
    return sae.decode(acts).hand_over()


def forward(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> tuple[Tensor, Tensor]:
    """sae(source); gives back features and output. The temporal SAE decodes predicted and novel codes together."""
    sae = _Sae(tape, use, cpu_kernels)
    x = sae.given(source)
    if use.temporal is not None:
        acts, predicted = sae.encode_with_predictions(x)
        product = ops.matmul(ops.add(acts, predicted), sae.W_dec)
        out = ops.add(product, sae.b_dec)
        del product, predicted
        return acts.hand_over(), out.hand_over()
    acts = sae.encode(x)
    out = sae.decode(acts)
    if "skip" in use.architecture:
        out = ops.add(out, sae.graph.new((use.rows, use.d_out), use.width))
    return acts.hand_over(), out.hand_over()


def attached(
    tape: Tape, use: Use, source: Tensor, original: Tensor, original_width: int, *, error_term: bool = False
) -> tuple[Tensor, Tensor]:
    """`_SAEWrapper.forward`: decode(encode(source)) in place of `original`; gives back features and output.

    With `error_term` the SAE runs once more, and what it missed of `original` is added. A skip connection and the
    temporal SAE's predicted codes have no part in it: the wrapper calls encode and decode, not the SAE itself.
    """
    sae = _Sae(tape, use)
    x = sae.given(source)
    acts = sae.encode(x)
    out = sae.decode(acts)
    if error_term:
        clean = sae.encode(x)
        recons = sae.decode(clean)
        error = ops.sub(sae.graph.on(original, (use.rows, use.d_out), original_width), recons)
        out = ops.add(out, error)
    return acts.hand_over(), out.hand_over()
