"""The symbolic autograd against torch's own: small graphs that each show one rule of the engine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from compute_awareness.memory.autograd import ops, views
from compute_awareness.memory.autograd.graph import Graph, Var
from compute_awareness.memory.autograd.shapes import like_stride, same_layout
from compute_awareness.memory.autograd.unplayed import Left
from compute_awareness.memory.autograd.unplayed import unplayed as leave_out
from compute_awareness.memory.card.device import cublas_workspace
from compute_awareness.memory.card.staging import Kernels, processors, staging_bytes

sys.path.insert(0, str(Path(__file__).parents[1] / "truth"))
from meters import profiler_peak  # pyright: ignore[reportMissingImports]

B, S, D, V = 2, 32, 64, 500
ROOM = 64  # bytes: losses and first gradients of one number


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compare(
    real: Callable[..., torch.Tensor], ours: Callable[..., Var], *shapes: tuple[int, ...], scratch: int = 0
) -> None:
    """Both get leaves of `shapes` and return one number; the peaks of forward and backward agree, and every gradient
    is there. `scratch`: what a CPU kernel allocates for itself at the peak."""
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def step() -> None:
        real(*leaves).backward()

    truth = profiler_peak(step)
    graph = Graph(cpu=True)
    weights = [graph.parameter(shape, 4) for shape in shapes]
    graph.backward(ours(graph, *weights))
    assert abs(graph.tape.peak + scratch - truth.bytes) <= ROOM, (graph.tape.peak, truth.bytes)
    assert [w.grad.shape if w.grad else None for w in weights] == [tuple(leaf.shape) for leaf in leaves]
    gradients = sum(4 * leaf.numel() for leaf in leaves)
    assert graph.tape.live == graph.tape.by_component["gradients"] == gradients
    del weights
    gc.collect()
    assert graph.tape.live == 0


def ids(graph: Graph) -> Var:
    return graph.new((B, S), 8)


def test_chain_of_linear_layers() -> None:
    def real(w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        x = torch.randn(B, S, D)
        return torch.tanh(F.linear(F.silu(F.linear(x, w1, b1)), w2) + x).sum()

    def ours(graph: Graph, w1: Var, b1: Var, w2: Var) -> Var:
        x = graph.new((B, S, D), 4)
        return ops.total(ops.tanh(ops.add(ops.linear(ops.silu(ops.linear(x, w1, b1)), w2), x)))

    compare(real, ours, (3 * D, D), (3 * D,), (D, 3 * D))


def test_a_matrix_used_twice_gets_its_gradients_added_out_of_place() -> None:
    """The gradient of a transposed weight is a view, whose base torch keeps: nothing is added into it in place."""
    tokens = torch.zeros(B, S, dtype=torch.long)

    def real(w: torch.Tensor) -> torch.Tensor:
        x = F.embedding(tokens, w)
        return F.cross_entropy(F.linear(x, w).view(-1, V), tokens.view(-1))

    def ours(graph: Graph, w: Var) -> Var:
        tokens = Graph.parameter(graph, (B, S), 8, trainable=False)
        x = ops.embedding(tokens, w)
        return ops.cross_entropy(views.view(ops.linear(x, w), -1, V), views.view(tokens, -1))

    compare(real, ours, (V, D))


def test_a_tensor_read_by_three() -> None:
    """Sums of gradients in the input buffer: the first sum is new, the next is in place."""

    def real(w: torch.Tensor) -> torch.Tensor:
        x = F.linear(torch.randn(B, S, D), w)
        return (torch.tanh(x) + F.silu(x) * x).sum()

    def ours(graph: Graph, w: Var) -> Var:
        x = ops.linear(graph.new((B, S, D), 4), w)
        return ops.total(ops.add(ops.tanh(x), ops.mul(ops.silu(x), x)))

    compare(real, ours, (D, D))


def test_written_out_norm_and_layer_norm() -> None:
    def real(w: torch.Tensor, n: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = F.linear(torch.randn(B, S, D), w)
        x = n * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return torch.tanh(F.layer_norm(x, (D,), g, b)).sum()

    def ours(graph: Graph, w: Var, n: Var, g: Var, b: Var) -> Var:
        x = ops.linear(graph.new((B, S, D), 4), w)
        x = ops.mul(n, ops.mul(x, ops.rsqrt(ops.add(ops.mean(ops.power(x)), 1e-6))))
        return ops.total(ops.tanh(ops.layer_norm(x, g, b)))

    compare(real, ours, (D, D), (D,), (D,), (D,))


@pytest.mark.parametrize("fused", [False, True])
def test_attention(fused: bool) -> None:
    """Operands that lie token by token are copied to merge batch and heads, and the copies are saved."""

    def real(wq: torch.Tensor, wk: torch.Tensor, wv: torch.Tensor) -> torch.Tensor:
        x = torch.randn(B, S, D)
        q, k, v = (F.linear(x, w).view(B, S, 4, -1).transpose(1, 2) for w in (wq, wk, wv))
        if fused:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            z = torch.matmul(F.softmax(torch.matmul(q, k.transpose(2, 3)) * 0.25, dim=-1), v)
        return torch.tanh(z.transpose(1, 2).contiguous()).sum()

    def ours(graph: Graph, wq: Var, wk: Var, wv: Var) -> Var:
        x = graph.new((B, S, D), 4)
        q, k, v = (views.transpose(views.view(ops.linear(x, w), B, S, 4, -1), 1, 2) for w in (wq, wk, wv))
        if fused:
            z = ops.flash_attention(q, k, v)
        else:
            z = ops.matmul(ops.softmax(ops.neg(ops.matmul(q, views.transpose(k, 2, 3)))), v)
        return ops.total(ops.tanh(views.contiguous(views.transpose(z, 1, 2))))

    # the fused backward works on a tile of [32, 32] scores and another of probabilities
    compare(real, ours, (D, D), (D, D), (D, D), scratch=2 * 4 * S * S + 128 if fused else 0)


def test_slices_splits_and_concatenation() -> None:
    def real(w: torch.Tensor) -> torch.Tensor:
        a, b, c = F.linear(torch.randn(B, S, D), w).split(D, dim=-1)
        half = torch.cat((-a[..., D // 2 :], a[..., : D // 2]), dim=-1)
        return (torch.tanh(half) + b * c).sum()

    def ours(graph: Graph, w: Var) -> Var:
        a, b, c = views.split(ops.linear(graph.new((B, S, D), 4), w), (D, D, D))
        first, second = views.narrow(a, -1, D // 2), views.narrow(a, -1, D // 2)
        half = views.cat([ops.neg(second), first])
        del first, second
        return ops.total(ops.add(ops.tanh(half), ops.mul(b, c)))

    compare(real, ours, (3 * D, D))


def test_chosen_elements() -> None:
    """topk, gather and scatter save indices only; `scatter_add_` goes on with what was in place."""

    def real(w: torch.Tensor) -> torch.Tensor:
        x = F.linear(torch.randn(B * S, D), w)
        top, indices = x.topk(D)
        first = torch.zeros(B * S, V).scatter_(-1, indices, torch.tanh(top))
        second = torch.zeros(B * S, V).scatter(-1, indices, x.gather(-1, indices))
        both = torch.zeros(B * S, V)
        both.scatter_add_(-1, indices, torch.tanh(top))
        both.scatter_add_(-1, indices, top)
        return (torch.tanh(first) * torch.tanh(second) + both.abs()).sum()

    def ours(graph: Graph, w: Var) -> Var:
        def zeros() -> Var:
            return graph.new((B * S, V), 4)

        x = ops.linear(graph.new((B * S, D), 4), w)
        top, indices = ops.topk(x, D)
        first = ops.scatter_(zeros(), indices, ops.tanh(top))
        into = zeros()
        second = ops.scatter(into, indices, ops.gather(x, indices))
        del into
        both = ops.scatter_add_(zeros(), indices, ops.tanh(top))
        both = ops.scatter_add_(both, indices, top)
        return ops.total(ops.add(ops.mul(ops.tanh(first), ops.tanh(second)), ops.absolute(both)))

    compare(real, ours, (V, D))


def test_norms_and_errors() -> None:
    def real(w: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = torch.randn(B * S, D) @ w
        norm = w.norm(dim=0) * target.norm(p=1, dim=-1).exp().mean()
        error = F.mse_loss(x * (1 / norm), torch.randn(B * S, V), reduction="none")
        return error.sum(dim=-1).mean() + x.sum(dim=0, keepdim=True).abs().mean()

    def ours(graph: Graph, w: Var, target: Var) -> Var:
        x = ops.matmul(graph.new((B * S, D), 4), w)
        weights = ops.norm(views.transpose(w, 0, 1))
        norm = ops.mul(weights, ops.average(ops.exp(ops.norm(target, p=1))))
        error = ops.squared_error(ops.mul(x, ops.neg(ops.reciprocal(norm))), graph.new((B * S, V), 4))
        rows = ops.average(ops.sum_over(error))
        return ops.add(rows, ops.average(ops.absolute(ops.sum_over(x, 0, keepdim=True))))

    compare(real, ours, (D, V), (D, V))


PRODUCTS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., Var]]] = {
    "mm": (torch.mm, ops.matmul),
    "addmm": (lambda a, b: torch.addmm(torch.zeros(b.shape[-1]), a, b), lambda a, b: ops.mm(a, b, _bias(b))),
    "bmm": (torch.bmm, ops.bmm),
    "baddbmm": (lambda a, b: torch.baddbmm(torch.zeros(a.shape[0], 1, b.shape[-1]), a, b), ops.baddbmm),
    "linear": (lambda a, b: F.linear(a, b.T), lambda a, b: ops.linear(a, views.transpose(b, 0, 1))),
}


def _bias(b: Var) -> Var:
    return b.graph.parameter((b.shape[-1],), 4, trainable=False)


@pytest.mark.parametrize("name", PRODUCTS)
def test_which_gradient_of_a_product_comes_first(name: str) -> None:
    real, ours = PRODUCTS[name]
    lead = (3,) if "bmm" in name else ()
    shapes = ((*lead, 5, 11), (*lead, 11, 7))
    made: list[int] = []

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if "mm" in str(func):
                made.append(4 * result.numel())
            return result

    loss = real(*(torch.randn(shape, requires_grad=True) for shape in shapes)).sum()
    with Made():
        loss.backward()
    graph = Graph()
    weights = [graph.parameter(shape, 4) for shape in shapes]
    root = ops.total(ours(*weights))
    before = len(graph.tape.log)
    graph.backward(root)
    asked = [entry for entry in graph.tape.log[before:] if isinstance(entry, int) and entry > 4]
    assert sorted(set(asked), key=asked.index) == made


def test_what_cuda_kernels_take_beside_their_results() -> None:
    """A workspace with each thread's first product; a buffer with a sum over rows, none with one along a row."""
    rows, columns = 4096, 24_576
    graph = Graph()
    graph.kernels = Kernels("9.0")
    x, w = graph.new((rows, D), 4), graph.parameter((D, columns), 4)
    bias, scale = graph.parameter((columns,), 4), graph.parameter((rows, 1), 4)
    graph.backward(ops.total(ops.mul(ops.add(ops.matmul(x, w), bias), scale)))
    asked = [entry for entry in graph.tape.log if isinstance(entry, int) and entry >= 0]
    buffer = staging_bytes(rows, columns, processors("9.0"))
    assert buffer > 0
    assert asked.count(buffer) == 1
    assert asked.count(cublas_workspace("9.0")) == 2
    plain = Graph()
    x, w = plain.new((rows, D), 4), plain.parameter((D, columns), 4)
    plain.backward(ops.total(ops.add(ops.matmul(x, w), plain.parameter((columns,), 4))))
    assert not {buffer, cublas_workspace("9.0")} & {entry for entry in plain.tape.log if isinstance(entry, int)}


def test_checkpoint_keeps_the_input_and_computes_again() -> None:
    from torch.utils.checkpoint import checkpoint

    def real(*weights: torch.Tensor) -> torch.Tensor:
        x = F.linear(torch.randn(8 * B, S, D), weights[0])
        for w in weights[1:]:
            x = checkpoint(lambda x, w=w: x + torch.tanh(F.silu(F.linear(x, w))), x, use_reentrant=False)  # type: ignore[assignment]
        return x.sum()

    def ours(graph: Graph, *weights: Var) -> Var:
        x = ops.linear(graph.new((8 * B, S, D), 4), weights[0])
        for w in weights[1:]:
            x = graph.checkpoint(lambda x, w=w: ops.add(x, ops.tanh(ops.silu(ops.linear(x, w)))), x)
        return ops.total(x)

    compare(real, ours, *[(D, D)] * 4)


def test_nothing_is_saved_without_a_gradient_to_compute() -> None:
    graph = Graph()
    frozen = graph.parameter((D, D), 4, trainable=False)
    x = ops.silu(ops.linear(graph.new((S, D), 4), frozen))
    assert x.node is None
    assert graph.tape.live == 4 * S * D
    trained = graph.parameter((D, D), 4)
    with graph.grad_mode(False):
        assert ops.linear(x, trained).node is None


def test_gradients_accumulate_in_place_and_saved_tensors_go() -> None:
    graph = Graph()
    w = graph.parameter((D, D), 4)
    for _ in range(3):
        graph.backward(ops.total(ops.tanh(ops.linear(graph.new((S, D), 4), w))))
        assert graph.tape.live == 4 * D * D
    w.grad = None
    assert graph.tape.live == 0


def test_unplayed_layers_count_like_played_ones() -> None:
    def peak(played: int, unplayed: int) -> int:
        graph = Graph()
        weights = [graph.parameter((D, D), 4) for _ in range(played)]
        x = ops.linear(graph.new((8 * S, D), 4), weights[0])
        per_layer = 0
        for i, w in enumerate(weights[1:], 1):
            if i == played - 1:
                x = leave_out(x, [Left([per_layer], [], [])] * unplayed, [4 * D * D])
            before = graph.tape.live
            x = ops.add(x, ops.tanh(ops.linear(x, w)))
            per_layer = graph.tape.live - before
        graph.backward(ops.total(x))
        return graph.tape.peak

    assert peak(9, 0) == peak(5, 4) == peak(4, 5)


def test_views_that_need_a_copy() -> None:
    graph = Graph()
    x = graph.new((B, S, 4, D), 4)
    heads_first = views.transpose(x, 1, 2)
    assert views.reshape(x, B, -1).storage is x.storage
    assert views.reshape(heads_first, B * 4, S, D).storage is not x.storage
    assert views.contiguous(heads_first).shape == (B, 4, S, D)
    one = views.transpose(graph.new((1, S, 4, D), 4), 1, 2)
    assert views.reshape(one, 4, S, D).storage is one.storage


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data())
def test_a_copy_is_laid_out_as_torch_lays_it_out(shape: list[int], data: st.DataObject) -> None:
    """Also of expanded tensors, whose dimensions of stride 0 stay in their places."""
    x = torch.empty(shape, device="meta").permute(data.draw(st.permutations(range(len(shape)))))
    x = x.expand([n if n > 1 else data.draw(st.integers(1, 3)) for n in x.shape])
    real = x.to(torch.bfloat16).stride()
    assert same_layout(tuple(x.shape), like_stride(tuple(x.shape), x.stride()), real)
