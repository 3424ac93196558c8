"""Training with DistributedDataParallel, two processes joined by gloo, against the played step and its buckets.

The same models, steps and bound as in test_transformers_training: 0.05 % in float32, which is scalars.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.distributed as dist
import transformers
from builders import quiet
from judge import judge
from meters import measure_peak, profiler_peak
from pydantic import ValidationError
from ranks import alone, in_ranks
from test_transformers_training import model_of, small
from torch.nn.parallel import DistributedDataParallel

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory import weights
from compute_awareness.memory.data_parallel import BROADCAST_BYTES, broadcast_bytes, bucket_bytes
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.huggingface.training import Step, play
from compute_awareness.memory.huggingface.training_lora import lora
from compute_awareness.memory.optimizer import state_bytes
from compute_awareness.memory.parameters import hf_tensors
from compute_awareness.models.resolve import resolve
from compute_awareness.workload.training import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# name, attention, batch_size, seq_len, and what else is asked for
CASES: tuple[tuple[str, str, int, int, dict[str, Any]], ...] = (
    ("gpt2", "eager", 1, 100, {}),
    ("gpt2", "eager", 1, 100, {"view": True}),
    ("llama-3-8b", "sdpa", 2, 40, {}),
    ("llama-3-8b", "sdpa", 2, 40, {"view": True}),
    ("pythia-160m", "eager", 2, 64, {"accumulation": 2}),
    ("pythia-160m", "eager", 2, 64, {"accumulation": 2, "view": True}),
    ("gemma-2b", "sdpa", 2, 100, {"view": True}),
    ("gemma-2b", "sdpa", 1, 8, {"accumulation": 3, "view": True}),
    ("gemma-2b", "sdpa", 1, 8, {"optimizer": "adamw", "view": True}),
    ("gpt2", "eager", 1, 8, {"optimizer": "adamw"}),
    ("gpt2", "eager", 1, 8, {"optimizer": "sgd"}),
    ("gpt2", "eager", 2, 64, {"checkpointing": True}),
    ("gpt2", "eager", 2, 64, {"lora": True}),
    ("gpt2", "eager", 2, 64, {"lora": True, "view": True}),
)  # fmt: skip
LAYERS = 5


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Kernels' scratch grows with the number of threads, and the played one is of a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _wrapped(model: Any, options: dict[str, Any]) -> DistributedDataParallel:
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=options.get("view", False))
    if dist.get_backend() == "fake":
        wrapped.register_comm_hook(None, _reduced)  # whose collectives answer with nothing
    return wrapped


def _reduced(state, bucket):
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def measured(cases: tuple[Any, ...]) -> list[int]:
    """For each case the peak of wrapping the model and three steps: in the first the optimizer's state comes, in the
    second the buckets are rebuilt."""
    found = []
    for name, attention, b, s, options in cases:
        model_of.cache_clear()
        model: Any = model_of(name, LAYERS, "float32", attention)
        if options.get("lora"):
            with quiet():
                model = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM")).train()
        if options.get("checkpointing"):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with quiet():
            if dist.get_backend() == "fake":
                found.append(profiler_peak(partial(_steps, model, b, s, options)).bytes)
            else:
                known = [*model.parameters(), *model.buffers()]
                found.append(measure_peak(partial(_steps, model, b, s, options), known).bytes)
    model_of.cache_clear()
    return found


def _steps(model: Any, b: int, s: int, options: dict[str, Any]) -> None:
    wrapped = _wrapped(model, options)
    optimizer = None
    if "optimizer" in options:
        kind: Any = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[options["optimizer"]]
        optimizer = kind((p for p in model.parameters() if p.requires_grad), lr=1e-4, foreach=True)
    for _ in range(3):
        _step(wrapped, optimizer, b, s, options)
        wrapped.zero_grad()


def _step(wrapped: Any, optimizer: Any, b: int, s: int, options: dict[str, Any]) -> None:
    tokens = torch.zeros(b, s, dtype=torch.long)
    labels = tokens.clone()
    batches = options.get("accumulation", 1)
    for batch in range(batches):
        with wrapped.no_sync() if batch < batches - 1 else nullcontext():
            loss = wrapped(tokens, labels=labels, use_cache=False).loss
            loss.backward()
            del loss
    if optimizer is not None:
        optimizer.step()


def ours(case: Any) -> int:
    name, attention, b, s, options = case
    spec = small(name, LAYERS)
    step = Step(
        spec, b, s, 4, attention, accumulation=min(options.get("accumulation", 1), 2), cpu=True,
        bucket_views=options.get("view", False), gradient_checkpointing=options.get("checkpointing", False),
    )  # fmt: skip
    if options.get("lora"):
        step = replace(step, lora=lora(spec, 4, None, play(step).linears))
    played = play(step, options.get("optimizer", "sgd"))
    state = 0
    if "optimizer" in options:
        state = state_bytes(options["optimizer"], played.trained)
    return played.tape.peak + bucket_bytes(played.trained) + state


def check(case: Any, truth: int, backend: str) -> None:
    name, attention, _, _, options = case
    words = " ".join(["ddp", backend, *(f"{key}={value}" for key, value in options.items())])
    judge(
        "transformers", transformers.__version__, "training_ddp", small(name, LAYERS).architecture,
        f"{attention} float32 {words}", ours(case), truth, 0.0005, case,
    )  # fmt: skip


def test_a_step_with_buckets(one_thread: None) -> None:
    """Every allocation of one process, whose collectives do nothing."""
    with alone(2):
        truths = measured(CASES)
    for case, truth in zip(CASES, truths, strict=True):
        check(case, truth, "fake")


SHORTEST = ("gemma-2b", "sdpa", 1, 2, {"view": True})
SIZES, LIMIT = [4096, 20_000, 36_000, 4, 8000, 100_000, 12_000, 4096, 30_000, 400], 40_000


def in_one_of_two(cases: tuple[Any, ...]) -> tuple[list[int], int]:
    """What `measured` gives, and the peak of spreading tensors of `SIZES` in messages of `LIMIT` bytes."""
    tensors = [torch.zeros(size // 4) for size in SIZES]
    group = dist.distributed_c10d._get_default_group()
    messages = measure_peak(lambda: dist._broadcast_coalesced(group, tensors, LIMIT, 0), tensors)
    return measured(cases), messages.bytes


def test_two_processes(tmp_path: Path) -> None:
    """Two real ones, with gloo; the meter of storages sees tensors wherever they go, but not the generator's state
    that a checkpoint keeps.

    In the shortest batch, gradients being views, it decides whether the old buckets have gone when the new ones come.
    They have where nobody else holds them; gloo's thread may or may not. The estimate has two sets.
    """
    cases = tuple(case for case in CASES if "checkpointing" not in case[4])
    buckets = bucket_bytes(play(Step(small(SHORTEST[0], LAYERS), 1, 2, 4, "sdpa")).trained)
    for (*truths, shortest), messages in in_ranks(2, tmp_path, in_one_of_two, (*cases, SHORTEST)):
        for case, truth in zip(cases, truths, strict=True):
            check(case, truth, "gloo")
        assert ours(SHORTEST) - 512 <= shortest <= 2 * buckets + 512
        assert messages == broadcast_bytes(SIZES, LIMIT)


def test_old_buckets_go_first_where_nobody_holds_them() -> None:
    with alone(2):
        check(SHORTEST, measured((SHORTEST,))[0], "fake")
        wrapped = DistributedDataParallel(torch.nn.Linear(2, 2))
    assert wrapped.broadcast_bucket_size == BROADCAST_BYTES


def answer(**changes: Any) -> Estimate:
    given: dict[str, Any] = {"model": "gpt2", "batch_size": 2, "seq_len": 32, "dtype": "float32", "attention": "eager"}
    return estimate(Training(**(given | changes)), "8.0")


def test_an_estimate_has_the_buckets_and_nccl() -> None:
    one, two, views = answer(), answer(n_devices=2), answer(n_devices=2, gradient_as_bucket_view=True)
    trained = 4 * weights.hf_params(resolve("gpt2"))
    assert two.peak.tensors == one.peak.tensors + trained
    assert views.peak.tensors <= one.peak.tensors  # Adam's list makes the peak: the gradients are there all the same
    assert {term.name for term in two.overheads} - {term.name for term in one.overheads} == {"nccl"}
    nccl = next(term for term in two.overheads if term.name == "nccl")
    assert two.peak.device - two.peak.reserved - (one.peak.device - one.peak.reserved) == nccl.bytes > 0
    assert next(c for c in two.components if c.name == "gradients").bytes == 2 * trained
    assert two.flops == one.flops and two.summary.count("each") == 2
    long = {"training_tokens": 2 * 32 * 1000}
    assert answer(n_devices=4, **long).flops * 4 == answer(**long).flops
    assert two.loading_device_bytes == one.loading_device_bytes + broadcast_bytes(hf_tensors(resolve("gpt2"), 4))


def test_adapters_have_buckets_of_their_size_only() -> None:
    one, two = answer(trainable="lora"), answer(trainable="lora", n_devices=8)
    assert two.peak.tensors - one.peak.tensors == 4 * 12 * 8 * (768 + 3 * 768)


def test_what_is_not_covered_says_why() -> None:
    for changes, words in (
        ({"library": "transformer_lens", "n_devices": 2, "attention": None}, "covered for transformers only"),
        ({"parallel": "ddp"}, "parallel is for n_devices of 2 or more"),
        ({"n_devices": 2, "parallel": "zero"}, "'zero' is not estimated: .* ddp"),
        ({"gradient_as_bucket_view": True}, "gradient_as_bucket_view is for n_devices"),
        ({"n_devices": 0}, "n_devices"),
    ):
        with pytest.raises(ValidationError, match=words):
            answer(**changes)
    with pytest.raises(InputError, match="n_devices 2 is not traced yet"):
        answer(n_devices=2, method="trace")
