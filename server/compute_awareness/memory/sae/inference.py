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

from ..tape import Tape, Tensor
from . import matching_pursuit
from . import temporal as temporal_sae
from .autograd import Graph, Var
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

    def __init__(self, tape: Tape, use: Use, cpu_kernels: bool) -> None:
        self.tape, self.use = tape, use
        self.graph = Graph(tape, cpu_kernels=cpu_kernels, gradients=False)
        self.W_enc = self.graph.parameter(use.d_in * use.d_sae, use.width)
        self.W_dec = self.graph.parameter(use.d_sae * use.d_out, use.width)
        self.b_dec = self.graph.parameter(use.d_out, use.width)
        self.vector = self.graph.parameter(use.d_sae, use.width)

    def features(self) -> Var:
        return self.graph.new(self.use.features, self.use.width)

    def centred(self, x: Var) -> Var:
        """process_sae_in; a transcoder does not subtract b_dec."""
        graph = self.graph
        cast = graph.cast(x, self.use.width)
        if self.use.transcodes:
            return cast
        bias = graph.scale(self.b_dec)
        out = graph.add(cast, bias, minus=True)
        graph.drop(cast, bias)
        return out

    def norms(self) -> Var:
        return self.graph.new(self.use.d_sae, self.use.width)

    def encode(self, source: Var) -> Var:
        graph, use = self.graph, self.use
        if use.temporal is not None:
            novel, predicted = self.encode_with_predictions(source)
            graph.drop(predicted)
            return novel
        x = self.centred(source)
        if use.pursuit is not None:
            acts = matching_pursuit.encode(graph, x, self.W_dec, use.rows, use.d_sae, use.pursuit)
            hidden_pre = self.features() if use.training else graph.new(0, use.width)  # zeros that nobody reads
            graph.drop(hidden_pre, x)
            return acts
        hidden = graph.linear(x, self.W_enc, self.vector, use.rows, use.d_sae)
        family = use.architecture
        if family == "gated":
            acts = self._gated(x)
        elif family.startswith("jumprelu"):
            acts = self._jumprelu(hidden)
        elif "topk" in family:
            if use.training:
                norms = self.norms()
                rescaled = graph.mul(hidden, norms)
                graph.drop(hidden, norms)
                hidden = rescaled
            acts = self._topk(hidden)
        else:
            acts = graph.relu(hidden)
        graph.drop(hidden, x)
        return acts

    def encode_with_predictions(self, source: Var) -> tuple[Var, Var]:
        """Of the temporal SAE: novel and predicted codes."""
        use = self.use
        assert use.temporal is not None
        x = self.centred(source)
        codes = temporal_sae.encode(self.graph, x, self.W_dec, use.d_in, use.d_sae, use.temporal)
        self.graph.drop(x)
        return codes

    def _gated(self, x: Var) -> Var:
        graph, use = self.graph, self.use
        positive = self.tape.new(use.features)
        active = self.features()
        self.tape.drop(positive)
        exponent = self.norms()
        scaled = graph.mul(self.W_enc, exponent)
        graph.drop(exponent)
        product = graph.matmul(x, scaled, use.rows, use.d_sae)
        graph.drop(scaled)
        hidden = graph.add(product, self.vector)
        graph.drop(product)
        magnitude = graph.relu(hidden)
        acts = graph.mul(active, magnitude)
        graph.drop(magnitude, hidden, active)
        return acts

    def _jumprelu(self, hidden: Var) -> Var:
        graph, use = self.graph, self.use
        if use.training:  # JumpReLU.apply: x * (x > threshold)
            gate = self.tape.new(use.features)
            cast = self.tape.new(use.features * use.width if graph.cpu_kernels else 0)
            acts = self.features()
            self.tape.drop(cast, gate)
            return acts
        base = graph.relu(hidden)
        above = self.tape.new(use.features)
        mask = self.features()
        self.tape.drop(above)
        acts = graph.mul(base, mask)
        graph.drop(base, mask)
        return acts

    def _topk(self, hidden: Var) -> Var:
        graph, use = self.graph, self.use
        chosen = use.rows * use.k
        if use.architecture == "abstopk":
            magnitude = self.features()
            unused, indices = graph.topk(magnitude, chosen)
            graph.drop(magnitude, unused)
            zeros = self.features()
            values = graph.gather(hidden, indices)
            graph.scatter_into(zeros, indices, values)
            graph.drop(values, indices)
            return zeros
        per_batch = use.architecture in SAVED_AS_JUMPRELU
        source = graph.relu(hidden) if per_batch else hidden
        top, indices = graph.topk(source, chosen)
        if per_batch:
            zeros = self.features()
            acts = graph.scatter_copy(zeros, indices, top)
            graph.drop(zeros, top, indices, source)
            return acts
        values = graph.relu(top)
        acts = graph.scatter_into(self.features(), indices, values)
        graph.drop(values, top, indices)
        return acts

    def decode(self, acts: Var) -> Var:
        graph, use = self.graph, self.use
        source = graph.hold(acts)
        if use.training and "topk" in use.architecture:
            norms = self.norms()
            inverse = graph.reciprocal(norms)
            graph.drop(norms)
            scaled = graph.mul(acts, inverse)
            graph.drop(inverse, source)
            source = scaled
        product = graph.matmul(source, self.W_dec, use.rows, use.d_out)
        graph.drop(source)
        out = graph.add(product, self.b_dec)
        graph.drop(product)
        return out


def encode(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> Tensor:
    """sae.encode(source); gives back the feature activations."""
    sae = _Sae(tape, use, cpu_kernels)
    return sae.encode(Var(source, use.rows * use.d_in, use.input_width)).tensor


def reconstruct(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> tuple[Tensor, Tensor]:
    """sae.decode(sae.encode(source)); gives back features and reconstruction."""
    sae = _Sae(tape, use, cpu_kernels)
    acts = sae.encode(Var(source, use.rows * use.d_in, use.input_width))
    return acts.tensor, sae.decode(acts).tensor


def encode_then_decode(
    tape: Tape, use: Use, source: Tensor, encoded: Callable[[Tensor], None], *, cpu_kernels: bool = False
) -> Tensor:
    """The reconstruction in two statements: `encoded` is called with the features between them and keeps them."""
    sae = _Sae(tape, use, cpu_kernels)
    acts = sae.encode(Var(source, use.rows * use.d_in, use.input_width))
    encoded(acts.tensor)
    return sae.decode(acts).tensor


def forward(tape: Tape, use: Use, source: Tensor, *, cpu_kernels: bool = False) -> tuple[Tensor, Tensor]:
    """sae(source); gives back features and output. The temporal SAE decodes predicted and novel codes together."""
    sae = _Sae(tape, use, cpu_kernels)
    graph = sae.graph
    x = Var(source, use.rows * use.d_in, use.input_width)
    if use.temporal is not None:
        novel, predicted = sae.encode_with_predictions(x)
        codes = graph.add(novel, predicted)
        product = graph.matmul(codes, sae.W_dec, use.rows, use.d_out)
        graph.drop(codes)
        out = graph.add(product, sae.b_dec)
        graph.drop(product, predicted)
        return novel.tensor, out.tensor
    acts = sae.encode(x)
    out = sae.decode(acts)
    if "skip" in use.architecture:
        skip = graph.new(use.rows * use.d_out, use.width)
        total = graph.add(out, skip)
        graph.drop(out, skip)
        out = total
    return acts.tensor, out.tensor


def attached(
    tape: Tape, use: Use, source: Tensor, original: Tensor, original_width: int, *, error_term: bool = False
) -> tuple[Tensor, Tensor]:
    """`_SAEWrapper.forward`: decode(encode(source)) in place of `original`; gives back features and output.

    With `error_term` the SAE runs once more, and what it missed of `original` is added. A skip connection and the
    temporal SAE's predicted codes have no part in it: the wrapper calls encode and decode, not the SAE itself.
    """
    sae = _Sae(tape, use, cpu_kernels=False)
    graph = sae.graph
    x = Var(source, use.rows * use.d_in, use.input_width)
    acts = sae.encode(x)
    out = sae.decode(acts)
    if error_term:
        clean = sae.encode(x)
        recons = sae.decode(clean)
        error = graph.add(Var(original, use.rows * use.d_out, original_width), recons, minus=True)
        total = graph.add(out, error)
        graph.drop(out, error, recons, clean)
        out = total
    return acts.tensor, out.tensor
