"""Which tensor of a workload has the size of the request that failed.

The shapes are those that `memory/` plays; here they carry names and symbols, so that the match can be shown as a
product ("12 x 1024 x 1024 x 4 bytes").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from ..models.spec import ModelSpec
from ..units import MIB

_NAMES = {4: "float32", 2: "16-bit", 1: "bool"}


@dataclass(frozen=True)
class Candidate:
    """A tensor that the workload makes: `dims` as (symbol, size), and bytes per element."""

    what: str
    dims: tuple[tuple[str, int], ...]
    width: int

    @property
    def bytes(self) -> int:
        return prod(size for _, size in self.dims) * self.width

    def shown(self) -> str:
        """`[batch 4, heads 32, seq 1024, seq 1024] float32`."""
        return f"[{', '.join(f'{symbol} {size}' for symbol, size in self.dims)}] {_NAMES[self.width]}"

    def product(self) -> str:
        """`4 x 32 x 1024 x 1024 x 4 bytes`."""
        return f"{' x '.join(str(size) for _, size in self.dims)} x {self.width} bytes"


def model_tensors(spec: ModelSpec, batch: int, seq: int, width: int, library: str) -> Iterator[Candidate]:
    """Activations of one pass, then weights, in the order in which they usually are what fails."""
    b, s = ("batch", batch), ("seq", seq)
    heads, kv, d_head = ("n_heads", spec.n_heads), ("n_kv_heads", spec.n_kv_heads), ("d_head", spec.d_head)
    d, mlp, vocab, layers = (
        ("d_model", spec.d_model), ("d_mlp", spec.d_mlp), ("d_vocab", spec.d_vocab), ("n_layers", spec.n_layers),
    )  # fmt: skip
    for w in dict.fromkeys((width, 4)):
        yield Candidate("one layer's attention scores or pattern", (b, heads, s, s), w)
        yield Candidate("the logits", (b, s, vocab), w)
        yield Candidate("the logits of all but the last token", (b, ("seq - 1", max(1, seq - 1)), vocab), w)
        yield Candidate("one layer's MLP activations", (b, s, mlp), w)
        yield Candidate("a residual stream", (b, s, d), w)
        yield Candidate("every layer's residual stream, stacked", (("n_layers + 1", spec.n_layers + 1), b, s, d), w)
    yield Candidate("one layer's queries or z", (b, s, heads, d_head), width)
    yield Candidate("one layer's keys or values", (b, s, kv, d_head), width)
    # GPT-2's c_attn and GPT-NeoX's query_key_value; where a model has three matrices, nothing has this size
    together = ("n_heads + 2 * n_kv_heads", spec.n_heads + 2 * spec.n_kv_heads)
    if library in ("transformers", "nnsight"):
        yield Candidate("one layer's queries, keys and values in one", (b, s, together, d_head), width)
    if library.startswith("transformer"):
        yield Candidate("use_attn_result's product before the sum over d_head", (b, s, heads, d_head, d), width)
        yield Candidate("per-head inputs or results of one layer", (b, s, heads, d), width)
        yield Candidate(
            "every head's result, stacked", (("n_layers * n_heads", spec.n_layers * spec.n_heads), b, s, d), width
        )
        nodes = 1 + spec.n_layers * (spec.n_heads + 1)
        yield Candidate("EAP's activation differences", (b, s, ("nodes", nodes), d), width)
    yield Candidate("one layer's boolean attention mask", (b, heads, s, s), 1)
    for w in dict.fromkeys((width, 4)):
        yield Candidate("the embedding or unembedding matrix", (vocab, d), w)
        yield Candidate("an MLP matrix", (d, mlp), w)
        yield Candidate("a matrix of attention", (d, heads, d_head), w)
        yield Candidate("the matrix of queries, keys and values in one", (d, together, d_head), w)
        yield Candidate("an MLP matrix of all layers, stacked (model.W_in and the like)", (layers, d, mlp), w)
        yield Candidate(
            "an attention matrix of all layers, stacked (model.W_Q and the like)", (layers, heads, d, d_head), w
        )
    yield Candidate("a causal mask over the whole context", (("n_ctx", spec.n_ctx), ("n_ctx", spec.n_ctx)), 4)


def sae_tensors(d_in: int, d_sae: int, batch: int, buffer_tokens: int | None, width: int = 4) -> Iterator[Candidate]:
    """Of an SAE training step and its activation store, or with `buffer_tokens` None of an SAE of `width` bytes per
    number that is used."""
    b, f, d = ("tokens", batch), ("d_sae", d_sae), ("d_in", d_in)
    for w in dict.fromkeys((width, 4)):
        yield Candidate("the SAE's features of one batch", (b, f), w)
        yield Candidate("the SAE's encoder or decoder, its gradient, or one of Adam's moments", (d, f), w)
        yield Candidate("the SAE's reconstruction of one batch", (b, d), w)
    if buffer_tokens:
        yield Candidate("the activation store's buffer", (("buffer tokens", buffer_tokens), d), 4)


@dataclass(frozen=True)
class Match:
    """A tensor of the failed request's size. `instead` says what would have to differ from the workload given."""

    tensor: Candidate
    instead: dict[str, int]


def matches(
    requested: int, step: int, backend: str, candidates: list[Candidate], *, solve: tuple[str, ...] = ("batch", "seq")
) -> list[Match]:
    """Candidates whose rounded size is `requested`, given to within `step` bytes; those of the workload's own sizes
    first. Where none fits, one of the sizes in `solve` is varied.

    A CUDA request below 10 MiB prints as its segment (2 or 20 MiB) and names no tensor: nothing is returned for it.
    """
    if backend in ("cuda", "hip", "xpu") and requested <= 20 * MIB:
        return []
    exact = [Match(c, {}) for c in candidates if _prints_as(c.bytes, requested, step, backend)]
    if exact:
        return _one_per_size(exact)
    varied: list[Match] = []
    for candidate in candidates:
        for symbol in solve:
            other = _solved(candidate, symbol, requested, step, backend)
            if other is not None:
                varied.append(Match(*other))
    return _one_per_size(varied)[:3]


def _prints_as(nbytes: int, requested: int, step: int, backend: str) -> bool:
    rounded = -(-nbytes // (2 * MIB)) * 2 * MIB if backend in ("cuda", "hip", "xpu") else nbytes
    return abs(rounded - requested) <= max(step / 2, 1)


def _solved(
    candidate: Candidate, symbol: str, requested: int, step: int, backend: str
) -> tuple[Candidate, dict[str, int]] | None:
    """The candidate with another value of `symbol` (at most 1,024 times the given one) that fits the request."""
    power = sum(name == symbol for name, _ in candidate.dims)
    if not power or not candidate.bytes:
        return None
    given = next(size for name, size in candidate.dims if name == symbol)
    rest = candidate.bytes / given**power
    guess = round((requested / rest) ** (1 / power))
    for value in (guess, guess - 1):
        # A round number is what people write; any other match is likely chance.
        if value < 1 or value == given or value > 1024 * given or value & (value - 1):
            continue
        dims = tuple((name, value if name == symbol else size) for name, size in candidate.dims)
        changed = Candidate(candidate.what, dims, candidate.width)
        if _prints_as(changed.bytes, requested, step, backend):
            return changed, {symbol: value}
    return None


def _one_per_size(found: list[Match]) -> list[Match]:
    """Without repetitions of one tensor under two widths that are the same."""
    seen: dict[tuple[Any, ...], Match] = {}
    for match in found:
        seen.setdefault((match.tensor.what, match.tensor.bytes), match)
    return list(seen.values())
