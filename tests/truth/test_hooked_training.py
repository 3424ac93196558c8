"""Training steps of HookedTransformer against the real library: torch's allocator events on the CPU.

The model is built, trained for one step so that the optimizer has its state, and the second step is watched. Left out
are the numbers that torch's CPU keeps in tensors of 4 and 8 bytes. In 16 bits CPU kernels take scratch that CUDA's do
not (scatter_add_ sums in float32, matrix products are packed): the first is played, the shapes keep the second small.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from autocast_lists import CudaList
from builders import quiet
from hooked_models import KINDS, build, inline, small
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import allocations, distinct_bytes, in_order, profiler_peak, signed

from compute_awareness.errors import InputError
from compute_awareness.estimates.hooked_training import hooked_training
from compute_awareness.memory.hooked import training as memory
from compute_awareness.memory.hooked.run import Run
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload.training import Training

DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
SCALARS = 400
"""Bytes: single numbers as tensors, which the estimate leaves out."""


def _optimizer(name: str, parameters: Any) -> torch.optim.Optimizer:
    match name:
        case "adamw":
            return torch.optim.AdamW(parameters, foreach=True)
        case "adam":
            return torch.optim.Adam(parameters, foreach=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=1e-3, foreach=True)
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, foreach=True)


def _real(spec: ModelSpec, workload: dict[str, Any], **switches: bool) -> tuple[int, int, int]:
    """(weights and buffers, optimizer state, peak of a step above both) in bytes."""
    with quiet():
        model = build(spec, workload["dtype"], not workload["no_processing"], **switches)
    optimizer = _optimizer(workload["optimizer"], model.parameters())
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long)

    def step() -> None:
        for _ in range(workload["gradient_accumulation"]):
            model(tokens, return_type="loss").backward()
        optimizer.step()

    with quiet():
        step()
        optimizer.zero_grad()
        peak = profiler_peak(step).bytes + 8 * tokens.numel()
    state = distinct_bytes(v for s in optimizer.state.values() for key, v in s.items() if key != "step")
    alibi = [getattr(block.attn, "alibi", None) for block in model.blocks]
    return distinct_bytes([*model.parameters(), *model.buffers(), *alibi]), state, peak


@pytest.mark.parametrize("name", KINDS)
def test_a_step_to_the_byte(name: str) -> None:
    spec = small(name)

    @DRAWN
    @given(st.data())
    def drawn(data: st.DataObject) -> None:
        pick = data.draw
        workload: dict[str, Any] = {
            "library": "transformer_lens",
            "batch_size": pick(st.integers(1, 4)),
            "seq_len": pick(st.integers(2, 100)),
            "dtype": "float32",
            "no_processing": pick(st.booleans()),
            "optimizer": pick(st.sampled_from(["adamw", "adam", "sgd", "sgd_momentum"])),
            "gradient_accumulation": pick(st.integers(1, 2)),
        }
        result = hooked_training(Training.model_validate(workload | {"model": inline(spec)}), None)
        held, state, peak = _real(spec, workload)
        by_name = {c.name: c.bytes for c in result.components}
        assert by_name.get("optimizer_state", 0) == state, workload
        assert by_name["weights"] + by_name.get("buffers", 0) == held, workload
        assert abs(result.peak.tensors - held - state - peak) <= SCALARS, workload
        judge(
            "transformer_lens", "3.9.0", "training", spec.architecture, f"float32 {workload['optimizer']}",
            result.peak.tensors, held + state + peak, 0.005, workload,
        )  # fmt: skip

    drawn()


LEAST = 2000


@pytest.mark.parametrize("name", KINDS)
def test_tensors_come_and_go_in_the_library_s_order(name: str) -> None:
    """All but the smallest, which the caching allocator keeps apart and which weigh nothing."""
    spec = small(name)

    @DRAWN
    @given(st.integers(1, 4), st.integers(13, 100), st.booleans())
    def drawn(batch_size: int, seq_len: int, folded: bool) -> None:
        with quiet():
            model = build(spec, "float32", folded)
        tokens = torch.zeros(batch_size, seq_len, dtype=torch.long)

        def step() -> None:
            model(tokens, return_type="loss").backward()

        with quiet():
            step()
            model.zero_grad()
            real = allocations(step)
        tape, _ = memory.play_in_order(
            Run(spec, batch_size, seq_len, 4, folded=folded, gradients=True), "sgd", cpu=True
        )
        ours, real = (in_order(done, LEAST) for done in (signed(tape.requests()), real))
        assert len(ours) > 100 and ours == real

    drawn()


def test_adam_s_roots_are_as_large_as_the_parameters() -> None:
    """A list of new tensors in `_foreach_sqrt`, which all are there at once."""
    with quiet():
        model = build(small("gpt2"), "float32", True)
    tape, _ = memory.play_in_order(Run(small("gpt2"), 2, 40, 4, gradients=True), "adam")
    roots = tape.log[-1]
    assert isinstance(roots, tuple)
    assert sorted(roots[0].requests()) == sorted(4 * p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "gemma-2-2b"])
@pytest.mark.parametrize("switches", [("use_attn_result",), ("use_split_qkv_input", "use_hook_mlp_in")])
def test_switches_count_in_backward_too(name: str, switches: tuple[str, ...]) -> None:
    """use_attn_result multiplies [b, s, head, d_head, d_model] once forward and twice backward."""
    spec = small(name)
    on = dict.fromkeys(switches, True)
    workload = {"batch_size": 2, "seq_len": 40, "dtype": "float32", "no_processing": False, "optimizer": "sgd",
                "gradient_accumulation": 1}  # fmt: skip
    *_, peak = _real(spec, workload, **on)
    ours = memory.step(Run(spec, 2, 40, 4, gradients=True, **on), "sgd").tape.peak
    assert abs(ours - peak) <= SCALARS


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "attn-only-1l"])
def test_bfloat16(name: str) -> None:
    spec = small(name, d_vocab=1500)
    workload = {"batch_size": 3, "seq_len": 40, "dtype": "bfloat16", "no_processing": False, "optimizer": "adamw",
                "gradient_accumulation": 1}  # fmt: skip
    held, state, peak = _real(spec, workload)
    ours = memory.step(Run(spec, 3, 40, 2, gradients=True), "adamw", cpu=True).tape.peak
    judge(
        "transformer_lens", "3.9.0", "training", spec.architecture, "bfloat16 adamw",
        held + state + ours, held + state + peak, 0.01, workload,
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batches", [1, 2])
def test_autocast(name: str, batches: int) -> None:
    """By CUDA's list of operators, done by hand; without what oneDNN packs for a product of 16-bit numbers."""
    spec = small(name)
    b, s = (2, 60) if batches == 1 else (1, 12)
    with quiet():
        model = build(spec, "float32", True)
    tokens = torch.zeros(b, s, dtype=torch.long)

    def step() -> None:
        for _ in range(batches):
            with torch.autocast("cpu", dtype=torch.bfloat16), CudaList():
                loss = model(tokens, return_type="loss")
            loss.backward()
            del loss

    with quiet():
        step()
        model.zero_grad()
        truth = profiler_peak(step, products_scratch=False).bytes + 8 * tokens.numel()
    run = Run(spec, b, s, 4, gradients=True, autocast=True)
    ours = memory.step(run, "sgd", batches, cpu=True).tape
    assert sum(ours.at_peak.values()) == ours.peak
    judge(
        "transformer_lens", "3.9.0", "training_autocast", spec.architecture, "float32", ours.peak, truth, 0.0005,
        (name, b, s, batches),
    )  # fmt: skip


def test_autocast_in_an_answer() -> None:
    given = {"library": "transformer_lens", "model": "gpt2", "batch_size": 4, "seq_len": 256}
    plain = hooked_training(Training.model_validate(given), None)
    mixed = hooked_training(Training.model_validate(given | {"autocast": True}), None)
    assert mixed.peak.tensors < plain.peak.tensors
    assert sum(c.bytes_at_peak for c in mixed.components) == mixed.peak.tensors
    assert any("torch.autocast" in assumption for assumption in mixed.assumptions)


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("gradient_checkpointing", {"gradient_checkpointing": True}),
        ("trainable", {"trainable": "lora"}),
        ("autocast", {"autocast": True, "dtype": "bfloat16"}),
    ],
)
def test_what_it_cannot_do_is_refused(field: str, more: dict[str, Any]) -> None:
    workload = Training.model_validate({"library": "transformer_lens", "model": "gpt2"} | more)
    with pytest.raises(InputError, match=field):
        hooked_training(workload, None)


def test_depth_costs_nothing() -> None:
    """Blocks of one kind are played once: the tape of a deep model is that of a shallow one and more of the same."""
    peaks = [
        memory.step(Run(small("gemma-2-2b", n_layers=n), 2, 30, 4, gradients=True), "sgd").tape.live for n in (3, 5, 7)
    ]
    assert peaks[1] - peaks[0] == peaks[2] - peaks[1] > 0
