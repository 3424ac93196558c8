"""What a training step asks of the caching allocator, against the real libraries on the meta device, and on an H100.

The first step makes the optimizer's state among what it frees; the second one is what is measured, as on the card
(`benchmarks/results/gpu_truth.json`).
"""

from __future__ import annotations

import gzip
import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from builders import held_tensors, hf_config, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from test_allocator import Recorder

from compute_awareness.estimates import assemble
from compute_awareness.estimator import estimate
from compute_awareness.memory import optimizer, parameters
from compute_awareness.memory.card import playback
from compute_awareness.memory.card.allocator import UNIT, _Segments
from compute_awareness.memory.huggingface import training
from compute_awareness.memory.huggingface.training import Step, play_anew
from compute_awareness.memory.recorded.recall import forget
from compute_awareness.memory.tape import Tape
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.units import MIB
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PLAIN = settings(derandomize=True, deadline=None, database=None)
WORKSPACE = 32 * MIB
RECORDED: list[dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "benchmarks" / "results" / "gpu_training_steps.json.gz").read_bytes())
)["cases"]
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout")
NAMES = ["gpt2", "pythia-160m", "opt-125m", "llama-3.2-1b", "qwen2.5-0.5b", "gemma-2-2b", "gpt-neo-125m", "bloom-560m"]


def spec_of(name: str, n_layers: int) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec.model_copy(update={"n_layers": n_layers})


def two_steps(spec: ModelSpec, b: int, s: int, checkpointing: bool) -> tuple[list[int], list[int]]:
    """What the real library allocates and frees in its first step, and in the second; without dropout, whose kernel is
    another one on the meta device."""
    config = hf_config(spec)
    for field in _DROPOUTS:
        if getattr(config, field, 0.0):
            setattr(config, field, 0.0)
    with quiet(), torch.device("meta"):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager"
        ).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    adam = torch.optim.AdamW(model.parameters(), foreach=True)
    ids = torch.zeros(b, s, dtype=torch.long, device="meta")

    def step() -> None:
        tokens, labels = ids.clone(), ids.clone()
        loss = model(tokens, labels=labels, use_cache=False).loss
        loss.backward()
        del loss
        adam.step()

    # Whether sequences are packed is asked of the positions' values, which there are none of.
    unpacked = patch("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)
    with quiet(), unpacked, Recorder([*held_tensors(model), ids]) as recorder:
        step()
        adam.zero_grad()
        first = len(recorder.requests)
        step()
        adam.zero_grad()
    return recorder.requests[:first], recorder.requests[first:]


def reserved(standing: list[int], first: list[int], second: list[int]) -> int:
    """Bytes that torch's allocator has reserved in the second step, when it gave back what it could after the first."""
    allocator = _Segments(None)
    for nbytes in (*standing, WORKSPACE):
        allocator.malloc(-(-nbytes // UNIT))
    blocks: list[int] = []
    for part in (first, second):
        for request in part:
            if request > 0:
                blocks.append(allocator.malloc(-(-request // UNIT)))
            elif request == 0:
                blocks.append(-1)
            elif blocks[~request] >= 0:
                allocator.free(blocks[~request])
        if part is first:
            allocator.release_cached()
            allocator.peak_reserved = allocator.reserved
    return allocator.peak_reserved * UNIT


@settings(PLAIN, max_examples=12)
@given(st.data())
def test_a_step_reserves_close_to_the_real_sequence(data: st.DataObject) -> None:
    draw = data.draw
    spec = spec_of(draw(st.sampled_from(NAMES)), draw(st.integers(1, 9)))
    b, s, checkpointing = draw(st.integers(1, 8)), draw(st.integers(64, 700)), draw(st.booleans())
    standing = list(parameters.hf_tensors(spec, 4))
    first, second = two_steps(spec, b, s, checkpointing)
    real = reserved(standing, first, second)
    played = play_anew(Step(spec, b, s, 4, "eager", gradient_checkpointing=checkpointing), "adamw")
    states = optimizer.state_tensors("adamw", played.trained)
    ours = playback.reserved(played.tape, standing, WORKSPACE, 0, states)
    assert abs(ours - real) <= 0.03 * real + 20 * MIB


# -- the order on a card


def large(requests: list[int]) -> list[int]:
    """Sizes of more than 1 MiB in the order in which they are allocated, and less than zero, freed; those that go one
    after the other in the order of their sizes. What comes and goes at once is left out: buffers of kernels."""
    sizes: list[int] = []
    events: list[tuple[int, bool]] = []
    last = None
    for request in requests:
        number = len(sizes) if request >= 0 else ~request
        if request >= 0:
            sizes.append(-(-request // UNIT) * UNIT)
        if sizes[number] <= MIB:
            continue
        if request < 0 and last == (number, True):
            events.pop()
            last = None
            continue
        last = number, request >= 0
        events.append(last)
    out: list[int] = []
    freed: list[int] = []
    for number, made in events:
        if made:
            out += [*sorted(freed), sizes[number]]
            freed = []
        else:
            freed.append(-sizes[number])
    return out + sorted(freed)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["id"])
def test_large_tensors_come_in_the_order_of_the_card(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With every layer played; at most one event in a hundred is elsewhere, or of a kernel."""
    monkeypatch.setattr(training, "_played_layers", lambda model, sharded: list(range(model.spec.n_layers)))
    tapes: list[Tape] = []
    monkeypatch.setattr(assemble, "reserved_by", lambda tape, *rest: tapes.append(tape) or 0)
    forget()
    estimate(parse_workload(case["workload"]), "9.0")
    forget()
    requests = tapes[-1].requests()
    made = sum(request >= 0 for request in requests)
    gone = {~request for request in requests if request < 0}
    ours = large([*requests, *(~number for number in range(made) if number not in gone)])  # optimizer.zero_grad()
    real = large(case["requests"])
    assert abs(len(ours) - len(real)) <= 0.025 * len(real)
    assert SequenceMatcher(None, ours, real, autojunk=False).ratio() >= 0.985
