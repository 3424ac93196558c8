"""One training step of every covered transformers family: the played step against the allocator's events on the CPU.

Real models, narrow and shallow; forward with labels, backward, the optimizer's step and zero_grad of a second step,
as the first one allocates the optimizer's state. Bounds: 0.05 % in float32, which is a handful of 4-byte scalars
(losses, numbers wrapped as tensors) and nothing else. In bfloat16 the CPU's matrix products allocate scratch that CUDA
has not, so there the bound is 1 %. Models are built without dropout, whose CPU kernel keeps float noise where CUDA's
keeps a bool mask; one test builds them with it and plays the CPU's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import peft
import pytest
import torch
import transformers
from autocast_lists import CudaList
from builders import EAGER_ONLY, hf_config, hf_model, quiet, torch_dtype
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import Measured, distinct_bytes, profiler_peak
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel

from compute_awareness.errors import InputError
from compute_awareness.estimates.transformers_training import transformers_training
from compute_awareness.memory import weights
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.huggingface.training import ARCHITECTURES, Step, play
from compute_awareness.memory.huggingface.training_lora import DEFAULT_TARGETS, lora
from compute_awareness.memory.optimizer import state_bytes
from compute_awareness.models import catalogue
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload.training import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VERSION = transformers.__version__
WIDTH = {"float32": 4, "bfloat16": 2}
NAMES = (
    "gpt2", "pythia-160m", "llama-2-7b", "llama-3-8b", "mistral-7b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2b",
    "gemma-2-2b", "gemma-3-1b-pt", "phi-2", "phi-3-mini-4k-instruct", "opt-125m", "gpt-neo-125m", "gpt-j-6b",
    "olmo-1b", "olmo-7b", "olmo-2-0425-1b", "olmo-3-1025-7b", "bloom-560m",
)  # fmt: skip
_DROPOUTS = (
    "dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "activation_dropout",
    "embed_dropout", "resid_dropout",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def few_threads() -> Iterator[None]:
    """Kernels' scratch grows with the number of threads, and the played one is of a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    model_of.cache_clear()


def small(name: str, n_layers: int, **changes: Any) -> ModelSpec:
    """A narrow relative of a catalogue model: 4 heads of 32, its ratio of key/value heads, a small vocabulary."""
    spec = catalogue.find(name)
    assert spec is not None, name
    groups = spec.n_heads // spec.n_kv_heads
    numbers: dict[str, Any] = {
        "name": f"small-{name}", "n_layers": n_layers, "n_heads": 4, "d_head": 32, "d_model": 128, "d_mlp": 320,
        "n_kv_heads": 4 if groups == 1 else 1 if spec.n_kv_heads == 1 else 2, "d_vocab": 503, "n_ctx": 256,
    }  # fmt: skip
    if spec.rotary_dim:
        numbers["rotary_dim"] = 32 * spec.rotary_dim // spec.d_head
    if spec.architecture == "BloomForCausalLM":
        numbers["d_mlp"] = 4 * 128
    return spec.model_copy(update=numbers | changes)


@cache
def model_of(name: str, n_layers: int, dtype: str, attention: str, dropout: float = 0.0, window: int = 0) -> Any:
    spec = small(name, n_layers, **({"window": window} if window else {}))
    config = hf_config(spec)
    for field in _DROPOUTS:
        if getattr(config, field, 0.0) and not dropout:
            setattr(config, field, 0.0)
    with quiet():
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch_dtype(dtype), attn_implementation=attention
        )
    return model.train()


def run(model: Any, b: int, s: int, batches: int = 1, optimizer: torch.optim.Optimizer | None = None) -> Measured:
    """The second training step, measured; inputs are made in it."""
    ids = torch.zeros(b, s, dtype=torch.long)

    def step() -> None:
        tokens, labels = ids.clone(), ids.clone()
        for _ in range(batches):
            loss = model(tokens, labels=labels, use_cache=False).loss
            loss.backward()
            del loss
        if optimizer is not None:
            optimizer.step()

    with quiet():
        if optimizer is not None:
            step()
        model.zero_grad()
        measured = profiler_peak(step)
        model.zero_grad()
    return measured


def check(spec: ModelSpec, model: Any, step: Step, dtype: str, tolerance: float, variant: str = "") -> None:
    truth = run(model, step.batch_size, step.seq_len, step.accumulation).bytes
    ours = play(step).tape
    assert sum(ours.at_peak.values()) == ours.peak
    judge(
        "transformers", VERSION, "training", spec.architecture, f"{step.attention} {dtype}{variant}", ours.peak, truth,
        tolerance, step,
    )  # fmt: skip


def attentions(name: str) -> list[str]:
    spec = catalogue.find(name)
    assert spec is not None
    return ["eager"] if spec.architecture in EAGER_ONLY else ["eager", "sdpa"]


def test_every_covered_class_is_run() -> None:
    assert {small(name, 2).architecture for name in NAMES} == ARCHITECTURES


@pytest.mark.parametrize("name", NAMES)
def test_every_family(name: str) -> None:
    """float32 with one attention, deep enough that layers are left out in the playing; bfloat16 with the other."""
    kinds = attentions(name)
    deep = kinds[NAMES.index(name) % len(kinds)]
    for attention in kinds:
        cases = []
        if attention == deep:
            cases.append((5, "float32", 1, 100))
        if attention != deep or len(kinds) == 1:
            cases.append((2, "bfloat16", 8, 48))
        for n_layers, dtype, b, s in cases:
            spec = small(name, n_layers)
            model = model_of(name, n_layers, dtype, attention)
            step = Step(spec, b, s, WIDTH[dtype], attention, cpu=True)
            check(spec, model, step, dtype, 0.0005 if dtype == "float32" else 0.01)
            parameters = [(p.numel(), p.element_size()) for p in model.parameters()]
            assert sorted(play(step).trained) == sorted(parameters)
            assert sum(n for n, _ in parameters) == weights.hf_params(spec)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    attention = data.draw(st.sampled_from(attentions(name)))
    n_layers = data.draw(st.sampled_from((2, 5)))
    b, s = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 120))
    batches = data.draw(st.sampled_from((1, 2)))
    spec = small(name, n_layers)
    step = Step(spec, b, s, 4, attention, accumulation=batches, cpu=True)
    check(spec, model_of(name, n_layers, "float32", attention), step, "float32", 0.0005)


@contextmanager
def checkpointed(model: Any, listed: str | None = None) -> Iterator[None]:
    """Gradient checkpointing, whose recomputations, in backward, are under the same list of operators."""
    both = {"context_fn": lambda: (nullcontext(), CudaList())} if listed == "cuda" else {}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, **both})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def check_autocast(spec: ModelSpec, model: Any, step: Step, variant: str = "") -> None:
    """Autocast around forward and loss, backward outside of it, as torch's documentation has it. What oneDNN packs for
    a product of 16-bit numbers is left out."""
    ids = torch.zeros(step.batch_size, step.seq_len, dtype=torch.long)

    def real() -> None:
        tokens, labels = ids.clone(), ids.clone()
        for _ in range(step.accumulation):
            with torch.autocast("cpu", dtype=torch.bfloat16), CudaList() if step.autocast == "cuda" else nullcontext():
                loss = model(tokens, labels=labels, use_cache=False).loss
            loss.backward()
            del loss

    with quiet():
        model.zero_grad()
        truth = profiler_peak(real, products_scratch=False).bytes
        model.zero_grad()
    ours = play(step).tape
    assert sum(ours.at_peak.values()) == ours.peak
    judge(
        "transformers", VERSION, "training_autocast", spec.architecture,
        f"{step.attention} float32 {step.autocast}{variant}", ours.peak, truth, 0.0005, step,
    )  # fmt: skip


LISTS: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name: str) -> None:
    """By the CPU's list of operators, as it is, and by CUDA's."""
    kinds = attentions(name)
    attention = kinds[NAMES.index(name) % len(kinds)]
    spec = small(name, 5)
    for listed in LISTS:
        check_autocast(
            spec, model_of(name, 5, "float32", attention), Step(spec, 4, 32, 4, attention, autocast=listed, cpu=True)
        )


@pytest.mark.parametrize("name", NAMES)
def test_autocast_with_checkpointing(name: str) -> None:
    """The copies of weights are made again for each layer that backward recomputes."""
    kinds = attentions(name)
    attention = kinds[(NAMES.index(name) + 1) % len(kinds)]
    spec = small(name, 5)
    model = model_of(name, 5, "float32", attention)
    step = Step(spec, 4, 64, 4, attention, gradient_checkpointing=True, autocast="cuda", cpu=True)
    with checkpointed(model, "cuda"):
        check_autocast(spec, model, step, " checkpointing")


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "gemma-2b"])
def test_autocast_of_short_batches(name: str) -> None:
    """Where the copies of weights count most, made anew for each accumulated batch. Gemma: the one key head of a lone
    sequence is repeated without a copy until autocast makes one, which is of all heads."""
    spec = small(name, 6)
    model = model_of(name, 6, "float32", "eager")
    for listed in LISTS:
        check_autocast(spec, model, Step(spec, 1, 8, 4, "eager", accumulation=2, autocast=listed, cpu=True))


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "gpt-neo-125m"])
def test_gradient_checkpointing(name: str) -> None:
    for attention in attentions(name):
        spec = small(name, 6)
        model = model_of(name, 6, "float32", attention)
        with checkpointed(model):
            for batches in (1, 2):
                step = Step(spec, 4, 64, 4, attention, gradient_checkpointing=True, accumulation=batches, cpu=True)
                check(spec, model, step, "float32", 0.0005, " checkpointing")


@pytest.mark.parametrize("name", ["mistral-7b", "gemma-3-1b-pt", "olmo-3-1025-7b", "phi-3-mini-4k-instruct"])
def test_windows(name: str) -> None:
    """Sequences longer than the window: sdpa gets a mask in the layers that have one."""
    spec = small(name, 8, window=40)
    model = model_of(name, 8, "float32", "sdpa", window=40)
    check(spec, model, Step(spec, 2, 64, 4, "sdpa", cpu=True), "float32", 0.0005, " window")


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-2b"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_grouped_heads_in_the_math_kernel(name: str, dtype: str) -> None:
    """What CUDA falls back to in float32, and before Ampere: the CPU runs it where it is told to."""
    spec = small(name, 3)
    with sdpa_kernel(SDPBackend.MATH):
        step = Step(spec, 2, 90, WIDTH[dtype], "sdpa", math_kernel=True, cpu=True)
        check(spec, model_of(name, 3, dtype, "sdpa"), step, dtype, 0.0005 if dtype == "float32" else 0.01, " math")


@pytest.mark.parametrize(("name", "attention_dropout"), [("gpt2", 0.1), ("opt-125m", 0.0)])
def test_dropout(name: str, attention_dropout: float) -> None:
    spec = small(name, 3)
    step = Step(spec, 3, 50, 4, "eager", dropout=0.1, attention_dropout=attention_dropout, cpu=True)
    check(spec, model_of(name, 3, "float32", "eager", dropout=0.1), step, "float32", 0.0005, " dropout")


def test_dropout_masks_are_smaller_on_cuda() -> None:
    """A bool mask per number in place of float noise, and no product of it: known from the source, not measured."""
    step = Step(small("gpt2", 3), 3, 50, 4, "eager", dropout=0.1, attention_dropout=0.1, cpu=True)
    on_cuda = Step(small("gpt2", 3), 3, 50, 4, "eager", dropout=0.1, attention_dropout=0.1)
    assert play(on_cuda).tape.peak < play(step).tape.peak


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "sgd_momentum"])
def test_whole_step_with_optimizer(optimizer: Any) -> None:
    """A short batch, where Adam's list makes the peak, and for the others the backward pass."""
    name, b, s = "gpt2", 1, 16
    spec = small(name, 3, d_vocab=503)
    model = model_of(name, 3, "float32", "eager")
    real: torch.optim.Optimizer
    if optimizer.startswith("ad"):
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
        real = kind(model.parameters(), lr=1e-4, foreach=True)
    else:
        momentum = 0.9 if optimizer == "sgd_momentum" else 0.0
        real = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=momentum, foreach=True)
    truth = run(model, b, s, optimizer=real).bytes
    played = play(Step(spec, b, s, 4, "eager", cpu=True), optimizer)
    # Ids and labels, 256 bytes, are there to the step's end; only numbers wrapped as tensors are not counted.
    assert -16 <= played.tape.peak - truth <= 0
    kept = [v for state in real.state.values() for key, v in state.items() if key != "step"]
    assert state_bytes(optimizer, played.trained) == distinct_bytes(kept)
    judge(
        "transformers", VERSION, "training", spec.architecture, f"eager float32 {optimizer}", played.tape.peak, truth,
        0.0005, (b, s),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype", "targets"),
    [
        ("gpt2", "float32", None), ("llama-3-8b", "bfloat16", None), ("llama-3-8b", "float32", "all-linear"),
        ("bloom-560m", "float32", None), ("phi-2", "bfloat16", "all-linear"),
    ],
)  # fmt: skip
def test_lora(name: str, dtype: str, targets: str | None) -> None:
    spec = small(name, 5)
    base = model_of(name, 5, dtype, "eager")
    with quiet():
        config = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, config).train()
    try:
        plain = Step(spec, 4, 64, WIDTH[dtype], "eager", cpu=True)
        adapters = lora(spec, 4, [targets] if targets else None, play(plain).linears)
        step = Step(spec, 4, 64, WIDTH[dtype], "eager", lora=adapters, cpu=True)
        check(spec, model, step, dtype, 0.0005 if dtype == "float32" else 0.01, " lora")
        if dtype == "float32":
            for listed in LISTS:
                check_autocast(spec, model, replace(step, autocast=listed), " lora")
        real = [(p.numel(), p.element_size()) for p in model.parameters() if p.requires_grad]
        assert sorted(play(step).trained) == sorted(real)
    finally:
        model_of.cache_clear()


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("gpt2", None), ("llama-3-8b", "all-linear"), ("pythia-160m", None), ("opt-125m", None), ("gemma-2-2b", None),
        ("gemma-3-1b-pt", "all-linear"), ("phi-2", None), ("bloom-560m", None), ("olmo-2-0425-1b", "all-linear"),
    ],
)  # fmt: skip
def test_lora_with_checkpointing(name: str, targets: str | None) -> None:
    """In float32, and in autocast."""
    spec = small(name, 5)
    base = model_of(name, 5, "float32", "eager")
    with quiet():
        config = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, config).train()
    try:
        plain = Step(spec, 4, 64, 4, "eager", cpu=True)
        adapters = lora(spec, 4, [targets] if targets else None, play(plain).linears)
        step = replace(plain, lora=adapters, gradient_checkpointing=True)
        with checkpointed(model):
            check(spec, model, step, "float32", 0.0005, " lora checkpointing")
        with checkpointed(model, "cuda"):
            check_autocast(spec, model, replace(step, autocast="cuda"), " lora checkpointing")
    finally:
        model_of.cache_clear()


@pytest.mark.parametrize("name", ["olmo-3-1025-7b", "gemma-3-1b-pt"])
def test_layers_of_one_kind_have_one_rotary_table(name: str) -> None:
    """So few that none is without a window. In autocast adapters save so much that the peak is in the forward pass."""
    spec = small(name, 3, d_vocab=77)
    with quiet():
        config = peft.LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(hf_model(spec, "cpu", attention="eager"), config).train()
    plain = Step(spec, 1, 60, 4, "eager", cpu=True)
    step = replace(plain, lora=lora(spec, 1, ["all-linear"], play(plain).linears), autocast="cuda")
    check_autocast(spec, model, step, " lora")


def test_default_targets_are_those_of_peft() -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as theirs

    for name in NAMES:
        spec = small(name, 2)
        default = theirs.get(hf_config(spec).model_type)
        ours = DEFAULT_TARGETS.get(spec.architecture)
        assert ours == (None if default is None else frozenset(default)), name


def test_the_work_does_not_grow_with_depth_and_the_peak_is_linear() -> None:
    """Left-out layers count as played ones do."""
    for name, attention in (("llama-3-8b", "sdpa"), ("gemma-3-1b-pt", "eager")):
        peaks = [play(Step(small(name, n), 4, 64, 4, attention)).tape.peak for n in (12, 24, 36)]
        assert peaks[1] - peaks[0] == peaks[2] - peaks[1] > 0
        assert len(play(Step(small(name, 36), 4, 64, 4, attention)).layers) < 16


def answer(**changes: Any) -> Estimate:
    given: dict[str, Any] = {"model": "gpt2", "batch_size": 2, "seq_len": 32, "dtype": "float32"}
    return transformers_training(Training(**(given | changes)), None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"autocast": True},
        {"autocast": "fp16"},
        {"autocast": True, "trainable": "lora"},
        {"autocast": True, "gradient_checkpointing": True},
        {"autocast": True, "gradient_checkpointing": True, "trainable": "lora"},
    ],
)
def test_an_estimate_counts_all_that_is_alive_at_the_peak(changes: dict[str, Any]) -> None:
    workload = Training(model="gpt2", batch_size=2, seq_len=32, dtype="float32", optimizer="sgd", **changes)
    result = transformers_training(workload, None)
    spec = catalogue.find("gpt2")
    assert spec is not None
    adapters = lora(spec, 8, None, []) if workload.trainable == "lora" else None
    step = Step(
        spec, 2, 32, 4, result.workload["attention"], 0.1, 0.1, workload.gradient_checkpointing, lora=adapters,
        autocast="cuda" if workload.autocast else None,
    )  # fmt: skip
    played = play(step)
    standing = 4 * weights.hf_params(spec) + weights.hf_buffer_bytes(spec, 4)
    standing += sum(n * width for n, width in played.trained) if adapters else 0
    assert sum(c.bytes_at_peak for c in result.components) == standing + played.tape.peak
    assert result.precision == "close"


def test_accumulation_and_the_length_of_a_run() -> None:
    """Memory is that of two batches however many there are; `training_tokens` decides the work alone."""
    one, two, many = answer(), answer(gradient_accumulation=2), answer(gradient_accumulation=50)
    assert sum(c.bytes_at_peak for c in many.components) == sum(c.bytes_at_peak for c in two.components)
    assert sum(c.bytes_at_peak for c in two.components) >= sum(c.bytes_at_peak for c in one.components)
    assert many.flops == 50 * one.flops > 0
    run = answer(training_tokens=1000)
    assert run.flops == 16 * one.flops  # 1000 tokens in batches of 64
    assert [c.bytes for c in run.components] == [c.bytes for c in one.components]
    # The blocks run once more, the logits do not; to the operation it is compared in test_flop_counts.py.
    assert one.flops * 6 < answer(gradient_checkpointing=True).flops * 5 < one.flops * 20 / 3


def test_bad_input_is_one_line() -> None:
    for changes, words in (
        ({"autocast": True, "dtype": "bfloat16"}, "dtype float32 with autocast"),
        ({"model": "gpt-neo-125m", "attention": "sdpa"}, "has no sdpa"),
        ({"trainable": "lora", "lora_targets": ["c_atn"]}, "nearest: c_attn"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            answer(**changes)
        assert "\n" not in str(caught.value)
    for changes in ({"autocast": "int8"}, {"lora_targets": ["c_attn"]}, {"gradient_accumulation": 0}):
        with pytest.raises(ValidationError):
            answer(**changes)
