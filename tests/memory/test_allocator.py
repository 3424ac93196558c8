"""The caching allocator: its constants, hand-made sequences, a literal second implementation, and real sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import held_tensors, hf_model, hooked_transformer, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder import Recorder

from compute_awareness.memory import parameters, weights
from compute_awareness.memory.card.allocator import Reserved, simulate
from compute_awareness.memory.hooked import transformer as tl
from compute_awareness.memory.huggingface import forward as transformers_forward
from compute_awareness.models.catalogue import find, names
from compute_awareness.models.spec import ModelSpec
from compute_awareness.units import KIB, MIB

PLAIN = settings(derandomize=True, deadline=None, database=None, max_examples=150)
WORKSPACE = 8519680


# -- a literal second implementation: segments are lists of blocks, everything is searched from the start


@dataclass
class Block:
    address: int
    size: int
    live: bool


@dataclass
class Segment:
    small: bool
    blocks: list[Block]


@dataclass
class Literal:
    """torch's allocator in its own words, with nothing clever: c10/cuda/CUDACachingAllocator.cpp."""

    capacity: int | None = None
    expandable: bool = False
    segments: list[Segment] = field(default_factory=list)
    made: list[Block | None] = field(default_factory=list)
    allocated: int = 0
    peak_reserved: int = 0
    peak_allocated: int = 0
    opened: int = 0

    @property
    def reserved(self) -> int:
        return sum(block.size for segment in self.segments for block in segment.blocks)

    def play(self, requests: list[int]) -> Reserved:
        for request in requests:
            if request < 0:
                self.free(self.made[~request])
            elif not self.malloc(request):
                return self.result(request)
        return self.result(None)

    def result(self, failed: int | None) -> Reserved:
        return Reserved(self.peak_reserved, self.peak_allocated, self.reserved, self.allocated, failed)

    def malloc(self, nbytes: int) -> bool:
        if nbytes == 0:
            self.made.append(None)
            return True
        size = max(512, (nbytes + 511) // 512 * 512)
        small = size <= MIB
        fitting = sorted(
            (block.size, block.address, segment_at, block_at)
            for segment_at, segment in enumerate(self.segments)
            for block_at, block in enumerate(segment.blocks)
            if segment.small == small and not block.live and block.size >= size
        )
        if fitting and self.expandable and len(fitting) > 1:
            _, _, segment_at, block_at = fitting[0]
            if block_at == len(self.segments[segment_at].blocks) - 1:  # it could grow: the next one is preferred
                fitting = fitting[1:]
        if not fitting:
            if not (self.expand(size, small) if self.expandable else self.open(size, small)):
                return False
            segment_at = next(i for i, s in enumerate(self.segments) if s.small == small) if self.expandable else -1
            segment = self.segments[segment_at]
            block = segment.blocks[-1]
        else:
            _, _, segment_at, block_at = fitting[0]
            segment = self.segments[segment_at]
            block = segment.blocks[block_at]
        rest = block.size - size
        if rest >= 512 if small or self.expandable else rest > MIB:
            at = segment.blocks.index(block)
            segment.blocks.insert(at + 1, Block(block.address + size, rest, False))
            block.size = size
        block.live = True
        self.made.append(block)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return True

    def open(self, size: int, small: bool) -> bool:
        if small:
            wanted = 2 * MIB
        elif size < 10 * MIB:
            wanted = 20 * MIB
        else:
            wanted = (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
        if self.capacity is not None and self.reserved + wanted > self.capacity:
            self.segments = [s for s in self.segments if len(s.blocks) > 1 or s.blocks[0].live]
            if self.reserved + wanted > self.capacity:
                return False
        self.opened += 1
        address = (self.opened if small else -self.opened) << 50  # where an H100's driver puts them
        self.segments.append(Segment(small, [Block(address, wanted, False)]))
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return True

    def expand(self, size: int, small: bool) -> bool:
        page = 2 * MIB if small else 20 * MIB
        mine = [s for s in self.segments if s.small == small]
        if not mine:
            mine = [Segment(small, [])]
            self.segments += mine
        blocks = mine[0].blocks
        if not blocks or blocks[-1].live:
            end = blocks[-1].address + blocks[-1].size if blocks else 0
            blocks.append(Block(end, 0, False))
        while blocks[-1].size < size:
            blocks[-1].size += page
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return True

    def free(self, block: Block | None) -> None:
        if block is None:
            return
        block.live = False
        self.allocated -= block.size
        for segment in self.segments:
            if any(b is block for b in segment.blocks):
                joined: list[Block] = []
                for one in segment.blocks:
                    if joined and not joined[-1].live and not one.live:
                        joined[-1].size += one.size
                    else:
                        joined.append(one)
                segment.blocks = joined


SIZES = st.one_of(
    st.integers(0, 4 * KIB),
    st.integers(1, 2 * MIB),
    st.integers(1, 24 * MIB),
    st.sampled_from([512, 513, MIB, MIB + 1, 9 * MIB, 10 * MIB - 512, 10 * MIB, 10 * MIB + 1, 19 * MIB, 20 * MIB]),
)


@st.composite
def sequences(draw: st.DrawFn) -> list[int]:
    """Allocations and frees in any order, as `Tape.requests` gives them."""
    requests: list[int] = []
    live: list[int] = []
    made = 0
    for size, which, frees in draw(st.lists(st.tuples(SIZES, st.integers(0, 99), st.booleans()), max_size=60)):
        if frees and live:
            requests.append(~live.pop(which % len(live)))
        else:
            requests.append(size)
            live.append(made)
            made += 1
    return requests


@PLAIN
@given(sequences())
def test_a_literal_implementation_agrees(requests: list[int]) -> None:
    assert simulate(requests) == Literal().play(requests)


@PLAIN
@given(sequences(), st.integers(1, 150))
def test_a_literal_implementation_agrees_where_the_card_is_small(requests: list[int], capacity_mib: int) -> None:
    assert simulate(requests, capacity_mib * MIB) == Literal(capacity_mib * MIB).play(requests)


@PLAIN
@given(sequences(), st.integers(1, 150), st.integers(0, 100 * MIB))
def test_up_to_what_is_said_a_larger_capacity_changes_nothing(requests: list[int], mib: int, more: int) -> None:
    played = simulate(requests, mib * MIB)
    if played.until is None:
        assert simulate(requests, mib * MIB + more) == played == simulate(requests)
        return
    assert mib * MIB < played.until
    assert simulate(requests, min(mib * MIB + more, played.until - 512)) == played
    # At that capacity one request more is met before anything is given back.
    assert simulate(requests, played.until).peak_reserved >= played.until


@PLAIN
@given(sequences())
def test_a_literal_implementation_agrees_with_expandable_segments(requests: list[int]) -> None:
    assert simulate(requests, expandable_segments=True) == Literal(expandable=True).play(requests)


@PLAIN
@given(sequences(), st.booleans())
def test_what_must_hold_for_any_sequence(requests: list[int], expandable: bool) -> None:
    live = peak = 0
    sizes: list[int] = []
    for request in requests:
        if request >= 0:
            sizes.append(request)
        live += request if request >= 0 else -sizes[~request]
        peak = max(peak, live)
    played = simulate(requests, expandable_segments=expandable)
    assert peak <= played.peak_allocated <= played.peak_reserved
    assert played.peak_reserved == played.reserved, "nothing is given back while the driver has more"
    assert played.reserved % (2 * MIB) == 0
    assert live <= played.allocated <= played.reserved

    # Once everything is let go, all blocks are whole segments again and can be given back for one request.
    freed = {~request for request in requests if request < 0}
    rest = [~number for number in range(len(sizes)) if number not in freed]
    assert simulate([*requests, *rest], expandable_segments=expandable).allocated == 0
    most = max(simulate(requests).peak_reserved, 10 * MIB)
    assert simulate([*requests, *rest, most], capacity=most).failed is None


# -- hand-made sequences


@pytest.mark.parametrize(
    ("requests", "reserved", "allocated"),
    [
        ([1], 2 * MIB, 512),
        ([MIB], 2 * MIB, MIB),
        ([MIB, MIB], 2 * MIB, 2 * MIB),
        ([MIB, MIB, 1], 4 * MIB, 2 * MIB + 512),
        ([MIB + 1], 20 * MIB, MIB + 512),
        ([10 * MIB - 512], 20 * MIB, 10 * MIB - 512),
        ([10 * MIB], 10 * MIB, 10 * MIB),
        # 1 MiB or less that is left of a large block stays with it.
        ([10 * MIB + 1], 12 * MIB, 10 * MIB + 512),
        ([11 * MIB], 12 * MIB, 12 * MIB),
        ([], 0, 0),
        ([0, 0], 0, 0),
    ],
)
def test_segments(requests: list[int], reserved: int, allocated: int) -> None:
    played = simulate(requests)
    assert (played.peak_reserved, played.peak_allocated) == (reserved, allocated)


def test_the_cublas_workspace_opens_a_segment_of_20_mib() -> None:
    assert simulate([WORKSPACE]) == Reserved(20 * MIB, WORKSPACE, 20 * MIB, WORKSPACE)
    assert simulate([32 * MIB]).peak_reserved == 32 * MIB
    # Two of them fit in one segment; what is left is 3.75 MiB.
    assert simulate([WORKSPACE, WORKSPACE, 3 * MIB]).peak_reserved == 20 * MIB
    assert simulate([WORKSPACE, WORKSPACE, 4 * MIB]).peak_reserved == 40 * MIB


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    # 30 and 40 MiB free: 25 goes into 30, so that 38 finds its place.
    assert simulate([40 * MIB, 30 * MIB, ~0, ~1, 25 * MIB, 38 * MIB]).peak_reserved == 70 * MIB
    # 12 MiB go into the free 40, which then is too small for 40 again: fragmentation.
    assert simulate([40 * MIB, ~0, 12 * MIB, 40 * MIB]).peak_reserved == 80 * MIB
    assert simulate([40 * MIB, ~0, 12 * MIB, 40 * MIB], expandable_segments=True).peak_reserved == 60 * MIB


def test_a_full_card_gives_back_whole_segments_and_tries_again() -> None:
    # 40 MiB are free in two segments of 20; for 40 in one piece both go back to the driver.
    requests = [20 * MIB, 20 * MIB, ~0, ~1, 40 * MIB]
    assert simulate(requests).peak_reserved == 80 * MIB
    assert simulate(requests, capacity=40 * MIB) == Reserved(40 * MIB, 40 * MIB, 40 * MIB, 40 * MIB)
    # A live tensor of 2 MiB keeps its segment of 20.
    held = [10 * MIB, 2 * MIB, ~0, 30 * MIB]
    assert simulate(held, capacity=49 * MIB).failed == 30 * MIB
    assert simulate(held, capacity=50 * MIB).failed is None
    with pytest.raises(ValueError, match="without a capacity"):
        simulate(held, capacity=1, expandable_segments=True)


def test_the_constants_are_those_of_the_installed_torch() -> None:
    header = Path(torch.__file__).parent / "include" / "c10" / "core" / "AllocatorConfig.h"
    text = header.read_text(encoding="utf-8")
    found = {name: int(value) for name, value in re.findall(r"constexpr size_t (k\w+) = (\d+);", text)}
    assert found["kMinBlockSize"] == 512
    assert found["kSmallSize"] == MIB
    assert found["kSmallBuffer"] == found["kRoundLarge"] == 2 * MIB
    assert found["kMinLargeAlloc"] == 10 * MIB
    assert re.search(r"large_segment_size_\{20971520\}", text)


# -- the parameters of real models


def _spec(name: str, **changes: Any) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec.model_copy(update=changes)


def _by_structure() -> list[str]:
    """One model for each way in which parameters are laid out."""
    first: dict[tuple[Any, ...], str] = {}
    for name in names():
        spec = _spec(name)
        kind = (
            spec.architecture, spec.norm_placement, spec.qk_norm, spec.norm, spec.embed_norm, spec.tied_embeddings,
            spec.act_fn.endswith("_ln"), spec.d_mlp == 0, spec.n_kv_heads == spec.n_heads,
        )  # fmt: skip
        first.setdefault(kind, name)
    return list(first.values())


def _moved(module: Any, seen: set[int]) -> list[int]:
    """Bytes in the order in which `Module.to` comes by: children first, then parameters, then buffers."""
    found: list[int] = []
    for child in module.children():
        found += _moved(child, seen)
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and tensor.numel() and id(tensor) not in seen:
            seen.add(id(tensor))
            found.append(tensor.numel() * tensor.element_size())
    return found


@pytest.mark.parametrize("name", _by_structure())
def test_the_parameters_are_those_of_the_real_model_in_its_order(name: str) -> None:
    spec = _spec(name, n_layers=2, d_vocab=1000)
    if spec.has_hf_model:
        for dtype, width in (("float32", 4), ("bfloat16", 2)):
            assert _moved(hf_model(spec, dtype=dtype), set()) == list(parameters.hf_tensors(spec, width))
    for folded in (True, False):
        model = hooked_transformer(spec, folded=folded)
        # HookedTransformer.move_model_modules_to_device
        parts = [getattr(model, part) for part in ("embed", "pos_embed", "ln_final", "unembed") if hasattr(model, part)]
        seen: set[int] = set()
        moved = [size for part in (*parts, *model.blocks) for size in _moved(part, seen)]
        assert moved == list(parameters.tl_tensors(spec, 4, folded))


def test_the_parameters_add_up_for_every_model_of_the_catalogue() -> None:
    for name in names():
        spec = _spec(name)
        for width in (2, 4):
            if spec.has_hf_model:
                total = weights.hf_params(spec) * width + weights.hf_buffer_bytes(spec, width)
                assert sum(parameters.hf_tensors(spec, width)) == total, name
            for folded in (True, False):
                total = weights.tl_params(spec, folded) * width + weights.tl_buffer_bytes(spec, width)
                assert sum(parameters.tl_tensors(spec, width, folded)) == total, name


# -- the sequence of real forward passes


def _real(model: Any, run: Any, batch_size: int, seq_len: int, standing: list[int]) -> Reserved:
    """The allocator over the sequence of the real library, on the meta device."""
    tokens = torch.zeros(batch_size, seq_len, dtype=torch.long, device="meta")
    with quiet(), torch.no_grad(), Recorder(held_tensors(model)) as recorder:
        recorder.see(tokens)
        kept = run(tokens)
    requests = list(recorder.requests)
    del kept
    before = len(standing) + 1
    return simulate([*standing, WORKSPACE, *(n if n >= 0 else ~(~n + before) for n in requests)])


SHAPES = [(2, 256, 6), (4, 512, 4), (1, 100, 3)]
REAL = ["gpt2-small", "pythia-1b", "llama-3.2-1b", "gemma-2-2b", "qwen3-0.6b", "opt-125m"]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("batch_size", "seq_len", "n_layers"), SHAPES)
@pytest.mark.parametrize("cached", [False, True], ids=["forward", "run_with_cache"])
def test_a_hooked_transformer_reserves_the_same_as_the_real_sequence(
    name: str, batch_size: int, seq_len: int, n_layers: int, cached: bool
) -> None:
    """To the byte: also segments and what is left of blocks, over sections that are played once and repeated."""
    spec = _spec(name, n_layers=n_layers)
    model = hooked_transformer(spec)
    standing = parameters.tl_tensors(spec, 4)
    real = _real(model, model.run_with_cache if cached else model, batch_size, seq_len, standing)
    run = tl.Run(spec, batch_size, seq_len, 4, selects=(lambda _: True) if cached else None)
    ours = simulate(tl.forward(run).tape.requests(standing, WORKSPACE))
    assert (ours.peak_reserved, ours.peak_allocated) == (real.peak_reserved, real.peak_allocated)


@pytest.mark.parametrize("name", [*REAL, "bloom-560m", "gpt-neo-125m"])
@pytest.mark.parametrize(("batch_size", "seq_len", "n_layers"), SHAPES)
def test_a_transformers_model_reserves_close_to_the_real_sequence(
    name: str, batch_size: int, seq_len: int, n_layers: int
) -> None:
    """Within the margin of the range; eager attention, as the meta device decomposes sdpa unlike any card."""
    spec = _spec(name, n_layers=n_layers)
    standing = parameters.hf_tensors(spec, 4)
    model = hf_model(spec, attention="eager")
    real = _real(model, model, batch_size, seq_len, standing)
    tape = transformers_forward.forward(spec, batch_size, seq_len, 4, "eager", kv_cache=True)
    ours = simulate(tape.requests(standing, WORKSPACE))
    assert abs(ours.peak_reserved - real.peak_reserved) <= 0.02 * real.peak_reserved + 20 * MIB
    assert abs(ours.peak_allocated - real.peak_allocated) <= 2 * MIB
