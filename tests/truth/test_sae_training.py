"""SAE training memory against real SAELens: real SAETrainer.fit(), real ActivationsStore, torch's allocator events.

Adam's foreach is forced, because torch chooses it on CUDA but not on the CPU where these tests run. torch's CPU kernels
take scratch that CUDA's do not; `cpu_kernels=True` adds exactly these, so that the test can be tight while the estimate
(without them) is the CUDA figure:

* operands of a mixed product are cast to the common dtype first (ATen/TensorIterator.cpp does so where
  `common_device == kCPU`; CUDA casts inside the kernel): `(x > threshold) * grad` of JumpReLU, one [B, d_sae] at the
  peak of its backward pass; bfloat16 products plus float32 biases under autocast; the error of a 16-bit SAE against
  the float32 batch.
* 16-bit numbers are scattered in a float32 copy.
* sums of bools are cast to int64 first, 8 bytes each: the count of active features in the evaluation.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from autocast_lists import CudaList
from builders import held_tensors, hooked_transformer, quiet
from hooked_models import KINDS, build, inline, small
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import distinct_bytes, profiler_peak

from compute_awareness.errors import InputError
from compute_awareness.estimates.sae_parts import hooked_model
from compute_awareness.estimator import estimate
from compute_awareness.memory.sae.activation_store import MIXING_FRACTION, check_store, refills
from compute_awareness.memory.sae.evaluation import evaluation
from compute_awareness.memory.sae.inference import Use
from compute_awareness.memory.sae.matching_pursuit import Pursuit, bytes_per_iteration
from compute_awareness.memory.sae.step import FLOAT
from compute_awareness.memory.sae.training import LanguageModelPart, Shape, sae_params, training_memory
from compute_awareness.models.catalogue import find
from compute_awareness.workload import DTYPE_BYTES, parse_workload
from compute_awareness.workload.sae import SaeArchitecture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The training dataset contains fewer samples:UserWarning"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:All samples in the training dataset have been exhausted:UserWarning"),
]

NAMES = {
    "standard": "Standard", "topk": "TopK", "abstopk": "AbsTopK", "batchtopk": "BatchTopK", "jumprelu": "JumpReLU",
    "gated": "Gated", "matryoshka_batchtopk": "MatryoshkaBatchTopK", "matching_pursuit": "MatchingPursuit",
}  # fmt: skip
TOP_K = [name for name in NAMES if "topk" in name]
D_VOCAB, N_LAYERS, HOOK = 100, 3, "blocks.1.hook_resid_pre"
DRAWN = settings(derandomize=True, deadline=None, max_examples=1, database=None)


def matryoshka(architecture: str, d_sae: int) -> tuple[int, ...]:
    return (d_sae // 8, d_sae // 2, d_sae) if architecture.startswith("matryoshka") else ()


def build_sae(architecture: str, d_in: int, d_sae: int, k: int, dtype: str = "float32"):
    import sae_lens

    config = getattr(sae_lens, f"{NAMES[architecture]}TrainingSAEConfig")
    options: dict[str, object] = {"k": k} if architecture in TOP_K else {}
    if widths := matryoshka(architecture, d_sae):
        options["matryoshka_widths"] = list(widths)
    if architecture == "matching_pursuit":  # k iterations, whatever the data are
        options = {"max_iterations": k, "stop_on_duplicate_support": False, "residual_threshold": 0.0}
        options["decoder_init_norm"] = 1.0
    sae = getattr(sae_lens, f"{NAMES[architecture]}TrainingSAE")
    return sae(config(d_in=d_in, d_sae=d_sae, device="cpu", dtype=dtype, **options))


def shape_of(architecture: str, d_in: int, d_sae: int, k: int, batch: int, **more: Any) -> Shape:
    widths = matryoshka(architecture, d_sae)
    pursuit = Pursuit(k, False, False) if architecture == "matching_pursuit" else None
    given: dict[str, Any] = {"pursuit": pursuit, "matryoshka_widths": widths} | more
    return Shape(architecture, d_in, d_sae, k, batch, cpu_kernels=True, **given)


def trainer_of(sae, batches, batch: int, steps: int, *, dead: bool = False, autocast: bool = False, **more):
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=batch * steps, train_batch_size_samples=batch, autocast=autocast, device="cpu",
            lr_end=3e-5, dead_feature_window=-1 if dead else 1000,
        ),
        sae=sae,
        data_provider=batches,
        **more,
    )  # fmt: skip
    for group in trainer.optimizer.param_groups:
        group["foreach"] = True
    return trainer


def fit_peak(
    sae, batches, batch: int, steps: int, others: list[torch.Tensor], *, dead: bool = False, autocast: bool = False,
    products_scratch: bool = True,
) -> int:  # fmt: skip
    """Peak of live bytes in SAETrainer.fit(): what is there before it, and the allocator's events during it."""
    trainer = trainer_of(sae, batches, batch, steps, dead=dead, autocast=autocast)
    counters = [trainer.act_freq_scores, trainer.n_forward_passes_since_fired]
    before = distinct_bytes([*sae.parameters(), *sae.buffers(), *counters, *others])

    def fit() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit()

    return before + profiler_peak(fit, products_scratch).bytes


def fresh_batches(batch: int, d_in: int) -> Iterator[torch.Tensor]:
    while True:
        yield torch.randn(batch, d_in)


def agrees(architecture: str, variant: str, ours: int, real: int, tolerance: float = 0.0005) -> None:
    """Not counted are single numbers, losses and coefficients, some 100 bytes in all."""
    judge("sae_lens", "6.54.12", "sae_training", architecture, variant, ours, real, max(tolerance, 512 / real))


sizes = {
    "d_in": st.integers(4, 24).map(lambda n: 16 * n),
    "d_sae": st.integers(4, 40).map(lambda n: 32 * n),
    "batch": st.one_of(st.integers(1, 64), st.integers(1, 12).map(lambda n: 128 * n)),
    "k": st.integers(1, 60),
}


def compare(
    architecture: str, d_in: int, d_sae: int, batch: int, k: int, dtype: str = "float32", autocast: bool = False,
    dead: bool = False,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    sae = build_sae(architecture, d_in, d_sae, k, dtype)
    assert sum(p.numel() for p in sae.parameters()) == sae_params(architecture, d_in, d_sae)
    # the second step has Adam's state and the first one's output
    real = fit_peak(sae, fresh_batches(batch, d_in), batch, 2, [], autocast=autocast, dead=dead)
    width = torch.finfo(getattr(torch, dtype)).bits // 8
    shape = shape_of(architecture, d_in, d_sae, k, batch, width=width, autocast=autocast)
    memory = training_memory(shape, 128, 64, 8, None)
    variant = f"{dtype}{' autocast' * autocast}{' dead' * dead}"
    agrees(architecture, variant, memory.peak + dead * memory.dead_latents_extra, real)


@pytest.mark.parametrize("architecture", NAMES)
@DRAWN
@given(**sizes)
@example(d_in=64, d_sae=1024, batch=1024, k=32)
@example(d_in=256, d_sae=1024, batch=2, k=60)
@example(d_in=384, d_sae=128, batch=1024, k=16)
def test_fit_without_a_store(architecture: str, d_in: int, d_sae: int, batch: int, k: int) -> None:
    compare(architecture, d_in, d_sae, batch, k)


@pytest.mark.parametrize("architecture", NAMES)
@DRAWN
@given(**sizes)
@example(d_in=256, d_sae=128, batch=512, k=16)
def test_autocast(architecture: str, d_in: int, d_sae: int, batch: int, k: int) -> None:
    # oneDNN's bfloat16 products on the CPU take scratch of their own, up to 0.1 MB; it shows in tiny runs only
    assume(batch * d_sae >= 2**16)
    compare(architecture, d_in, d_sae, batch, k, autocast=True)


@pytest.mark.parametrize("architecture", [name for name in NAMES if name != "gated"])
@DRAWN
@given(**sizes)
@example(d_in=256, d_sae=128, batch=512, k=16)
def test_sixteen_bit_saes(architecture: str, d_in: int, d_sae: int, batch: int, k: int) -> None:
    compare(architecture, d_in, d_sae, batch, k, dtype="float16")


def test_bfloat16_is_as_wide_as_float16() -> None:
    compare("topk", 128, 1024, 1024, 16, dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_saelens_cannot_train_a_gated_sae_in_16_bits(dtype: str) -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        fit_peak(build_sae("gated", 32, 64, 8, dtype), fresh_batches(16, 32), 16, 1, [])
    with pytest.raises(InputError, match="cannot train a gated SAE"):
        parse_workload({"task": "sae_training", "d_in": 32, "d_sae": 64, "architecture": "gated", "dtype": dtype})


@pytest.mark.parametrize("architecture", TOP_K)
@pytest.mark.parametrize(("d_in", "d_sae", "batch", "k"), [(256, 1024, 32, 8), (64, 640, 1024, 60)])
def test_dead_latents(architecture: str, d_in: int, d_sae: int, batch: int, k: int) -> None:
    compare(architecture, d_in, d_sae, batch, k, dead=True)


def test_the_cpu_casts_what_cuda_does_not() -> None:
    x = torch.randn(256, 1024)
    gate = x > 0
    assert profiler_peak(lambda: gate * x).bytes == 2 * x.nbytes
    counted = training_memory(shape_of("jumprelu", 64, 1024, 1, 256), 128, 64, 8, None).peak
    cuda = training_memory(replace(shape_of("jumprelu", 64, 1024, 1, 256), cpu_kernels=False), 128, 64, 8, None).peak
    assert 0 < counted - cuda <= x.nbytes


def test_what_saelens_registers_for_training_is_covered_or_refused_by_name() -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    assert {*SAE_TRAINING_CLASS_REGISTRY} == {*NAMES} == {*get_args(SaeArchitecture)}
    for name in {*SAE_CLASS_REGISTRY} - {*SAE_TRAINING_CLASS_REGISTRY}:
        with pytest.raises(InputError, match=f"'{name}' cannot be estimated for training: .*for inference only"):
            parse_workload({"task": "sae_training", "d_in": 32, "d_sae": 64, "architecture": name})


@pytest.mark.parametrize(
    ("d_in", "d_sae", "batch", "iterations", "duplicates", "threshold"),
    [(64, 1024, 300, 5, True, 1e-2), (96, 608, 301, 1, True, 0.0), (64, 32, 200, 70, False, 1e-2),
     (16, 48, 64, 300, True, 1e-2)],
)  # fmt: skip
def test_matching_pursuit_as_it_stops(
    d_in: int, d_sae: int, batch: int, iterations: int, duplicates: bool, threshold: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By its own rules: how many iterations the step with the peak ran is counted, and given as the limit."""
    import sae_lens
    from sae_lens.saes import matching_pursuit_sae

    torch.manual_seed(0)
    config = sae_lens.MatchingPursuitTrainingSAEConfig(
        d_in=d_in, d_sae=d_sae, device="cpu", decoder_init_norm=1.0, max_iterations=iterations,
        stop_on_duplicate_support=duplicates, residual_threshold=threshold,
    )  # fmt: skip
    ran: list[int] = []
    encode, scatter_add_ = matching_pursuit_sae._encode_matching_pursuit, torch.Tensor.scatter_add_

    def counted(*args, **kwargs):
        ran.append(0)
        return encode(*args, **kwargs)

    def counted_add(self, *args):
        ran[-1] += 1
        return scatter_add_(self, *args)

    monkeypatch.setattr(matching_pursuit_sae, "_encode_matching_pursuit", counted)
    monkeypatch.setattr(torch.Tensor, "scatter_add_", counted_add)
    real = fit_peak(sae_lens.MatchingPursuitTrainingSAE(config), fresh_batches(batch, d_in), batch, 2, [])
    assert len(ran) == 2
    assert ran[1] >= ran[0]  # the second has Adam's state, too, so the peak is there
    assert (ran[1] == iterations) == (iterations < 300), ran
    pursuit = Pursuit(ran[1], duplicates, threshold > 0)
    shape = shape_of("matching_pursuit", d_in, d_sae, 1, batch, pursuit=pursuit)
    agrees("matching_pursuit", "as it stops", training_memory(shape, 128, 64, 8, None).peak, real)
    # one iteration more
    more = replace(shape, pursuit=replace(pursuit, iterations=ran[1] + 1))
    grown = training_memory(more, 128, 64, 8, None).peak - training_memory(shape, 128, 64, 8, None).peak
    assert iterations == 1 or grown == bytes_per_iteration(batch, d_in, FLOAT)


def language_model(d_model: int, context: int):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    return HookedTransformer(
        HookedTransformerConfig(
            n_layers=N_LAYERS, d_model=d_model, n_ctx=context, d_head=32, n_heads=d_model // 32, d_mlp=4 * d_model,
            d_vocab=D_VOCAB, act_fn="gelu", normalization_type="LN", seed=0, device="cpu",
        )
    )  # fmt: skip


def activations_store(model, d_in: int, context: int, n_batches: int, prompts: int, batch: int, hook: str = HOOK,
                      vocabulary: int = D_VOCAB, autocast_lm: bool = False):  # fmt: skip
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    rows = np.random.default_rng(0).integers(0, vocabulary, (1024, context)).tolist()
    return ActivationsStore(
        model=model, dataset=Dataset.from_dict({"input_ids": rows}), streaming=False, hook_name=hook,
        hook_head_index=None, context_size=context, d_in=d_in, n_batches_in_buffer=n_batches, total_training_tokens=10,
        store_batch_size_prompts=prompts, train_batch_size_tokens=batch, prepend_bos=True,
        normalize_activations="none", device=torch.device("cpu"), dtype="float32",
        autocast_lm=autocast_lm,
    )  # fmt: skip


def language_model_part(model, prompts: int, context: int, hook: str = HOOK) -> LanguageModelPart:
    tokens = torch.zeros(prompts, context, dtype=torch.long)

    @torch.no_grad()
    def run():
        return model.run_with_cache(tokens, names_filter=[hook], stop_at_layer=2, prepend_bos=False)

    run()
    measured = profiler_peak(run)
    return LanguageModelPart(
        weights=distinct_bytes(model.parameters()),
        buffers=distinct_bytes(held_tensors(model)) - distinct_bytes(model.parameters()),
        forward_peak=measured.bytes,
        retained=measured.result[1][hook].untyped_storage().nbytes(),
    )


# d_in, d_sae, train batch, context, n_batches_in_buffer, prompts, hook, and the worst moment.
STORES = [
    ("standard", 64, 1024, 512, 64, 32, 8, HOOK, "SAE backward"),
    ("topk", 128, 512, 448, 64, 17, 7, HOOK, "SAE backward"),
    ("topk", 256, 256, 1024, 64, 96, 24, HOOK, "filling the activation store"),
    ("batchtopk", 64, 512, 64, 32, 2, 32, "blocks.1.attn.hook_z", "filling the activation store"),
    ("jumprelu", 128, 128, 256, 128, 2, 16, "blocks.1.mlp.hook_post", "filling the activation store"),
    ("gated", 64, 512, 256, 32, 32, 16, HOOK, "SAE backward"),
    ("standard", 256, 2048, 80, 16, 20, 8, HOOK, "optimizer step"),
    ("matching_pursuit", 128, 512, 448, 64, 17, 7, HOOK, "SAE backward"),
]


@pytest.mark.parametrize(
    ("architecture", "d_in", "d_sae", "batch", "context", "n_batches", "prompts", "hook", "phase"), STORES
)
def test_fit_with_model_and_store(
    architecture: str, d_in: int, d_sae: int, batch: int, context: int, n_batches: int, prompts: int, hook: str,
    phase: str,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    model = language_model(d_in // 4 if "mlp" in hook else d_in, context)
    lm = language_model_part(model, prompts, context, hook)
    buffer = n_batches * context
    kept = int(buffer * MIXING_FRACTION)
    # every batch up to the largest refill and the first one after it: the buffer varies from refill to refill
    every = list(refills(buffer, batch, prompts * context))
    largest = max(range(len(every)), key=lambda n: every[n].before + every[n].after)
    steps = 1 + sum(max(1, (refill.before - kept) // batch) for refill in every[: largest + 1])
    store = activations_store(model, d_in, context, n_batches, prompts, batch, hook)
    real = fit_peak(build_sae(architecture, d_in, d_sae, 8), store, batch, steps, held_tensors(model))
    memory = training_memory(shape_of(architecture, d_in, d_sae, 8, batch), context, n_batches, prompts, lm)
    agrees(architecture, "with store", memory.peak, real, 0.005)
    assert memory.phase == phase
    assert sum(memory.at_peak.values()) == memory.peak


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("hook", "prompts", "context"),
    [("blocks.1.hook_resid_pre", 2, 60), ("blocks.0.attn.hook_z", 3, 40), ("blocks.0.hook_resid_post", 1, 12),
     ("blocks.2.hook_attn_out", 5, 90), ("hook_embed", 4, 50)],
)  # fmt: skip
def test_store_under_autocast(name: str, hook: str, prompts: int, context: int) -> None:
    """autocast_lm: the store's call of the model, by CUDA's list of operators, done by hand."""
    spec = small(name)
    last = spec.n_layers - 1
    hook = hook.replace("blocks.2", f"blocks.{last}").replace("blocks.1", f"blocks.{min(1, last)}")
    with quiet():
        model = build(spec, "float32", False)
    lm = hooked_model(inline(spec), hook, prompts, context, FLOAT, None)
    part = lm.part_under_autocast(cpu=True)
    store = activations_store(
        model, lm.width_of_hook, context, 4, prompts, 16, hook, vocabulary=spec.d_vocab, autocast_lm=True
    )
    tokens = store.get_batch_tokens()
    with quiet(), CudaList():
        store.get_activations(tokens)
        real = profiler_peak(lambda: store.get_activations(tokens), products_scratch=False).bytes + tokens.nbytes
    alibi = [getattr(block.attn, "alibi", None) for block in model.blocks]
    assert part.weights + part.buffers == distinct_bytes([*model.parameters(), *model.buffers(), *alibi])
    ours = tokens.nbytes + max(part.forward_peak, part.retained + FLOAT * tokens.numel() * lm.width_of_hook)
    judge("sae_lens", "6.54.12", "store_autocast", spec.architecture, "float32", ours, real, 0.0005, (name, hook))


@pytest.mark.parametrize(
    ("name", "hook"), [("gpt2", "blocks.1.mlp.hook_post"), ("gpt2", HOOK), ("llama-3.2-1b", "blocks.2.attn.hook_z")]
)
def test_fit_with_autocast_lm(name: str, hook: str) -> None:
    """A run whose worst moment is the store's call under autocast; the SAE's step is in float32."""
    torch.manual_seed(0)
    spec, context, prompts, batch, n_batches = small(name), 64, 24, 128, 4
    with quiet():
        model = build(spec, "float32", False)
    lm = hooked_model(inline(spec), hook, prompts, context, FLOAT, None)
    d_in = lm.width_of_hook
    store = activations_store(
        model, d_in, context, n_batches, prompts, batch, hook, vocabulary=spec.d_vocab, autocast_lm=True
    )
    every = list(refills(n_batches * context, batch, prompts * context))
    kept = int(n_batches * context * MIXING_FRACTION)
    steps = 1 + sum(max(1, (refill.before - kept) // batch) for refill in every)
    with CudaList():
        real = fit_peak(
            build_sae("topk", d_in, 128, 8), store, batch, steps, held_tensors(model), products_scratch=False
        )
    shape = shape_of("topk", d_in, 128, 8, batch)
    memory = training_memory(shape, context, n_batches, prompts, lm.part_under_autocast(cpu=True))
    plain = training_memory(shape, context, n_batches, prompts, lm.part)
    assert memory.phase == "filling the activation store"
    assert memory.peak != plain.peak
    judge("sae_lens", "6.54.12", "store_autocast", spec.architecture, "float32", memory.peak, real, 0.005, (name, hook))


def test_autocast_lm_in_an_answer() -> None:
    given = {
        "task": "sae_training", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 4096,
        "n_batches_in_buffer": 64, "store_batch_size_prompts": 64, "context_size": 512, "evaluation": False,
    }  # fmt: skip
    plain, mixed = (estimate(parse_workload(given | {"autocast_lm": on})) for on in (False, True))
    assert mixed.peak.tensors < plain.peak.tensors
    assert sum(c.bytes_at_peak for c in mixed.components) == mixed.peak.tensors
    assert any("autocast_lm" in assumption for assumption in mixed.assumptions)
    assert mixed.precision == "close"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": None, "hook_name": None, "d_in": 64}, "autocast_lm is of the language model"),
        ({"model_dtype": "bfloat16"}, "autocast_lm with model_dtype bfloat16"),
        ({"library": "dictionary_learning", "hook_name": None, "submodule": "transformer.h.6"}, "library sae_lens"),
    ],
)
def test_autocast_lm_where_it_cannot_be(more: dict[str, Any], message: str) -> None:
    given = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 4096,
             "autocast_lm": True}  # fmt: skip
    with pytest.raises(InputError, match=message):
        parse_workload({name: value for name, value in (given | more).items() if value is not None})


# architecture, hook, d_vocab, d_sae, context, training prompts, evaluation prompts, dtype of the model
EVALUATIONS = [
    ("standard", "blocks.1.hook_resid_pre", 4000, 256, 32, 4, None, "float32"),
    ("topk", "blocks.0.hook_mlp_out", 3000, 512, 24, 2, 8, "float32"),
    ("matryoshka_batchtopk", "blocks.1.hook_resid_pre", 3000, 512, 24, 2, 8, "float16"),
    ("jumprelu", "blocks.1.hook_resid_post", 100, 4096, 24, 4, 16, "float32"),
    ("abstopk", "blocks.0.hook_resid_mid", 50, 4096, 32, 4, 16, "float32"),
    ("gated", "blocks.1.hook_resid_pre", 3000, 256, 16, 4, 12, "float32"),
    ("matching_pursuit", "blocks.1.hook_resid_pre", 100, 4096, 24, 4, 16, "float32"),
]


@pytest.mark.parametrize(
    ("architecture", "hook", "d_vocab", "d_sae", "context", "prompts", "eval_prompts", "dtype"), EVALUATIONS
)
def test_evaluation(
    architecture: str, hook: str, d_vocab: int, d_sae: int, context: int, prompts: int, eval_prompts: int | None,
    dtype: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What LanguageModelSAETrainingRunner does with log_to_wandb: its evaluator, in the middle of fit()."""
    import wandb
    from sae_lens.config import LoggingConfig
    from sae_lens.llm_sae_training_runner import LLMSaeEvaluator

    monkeypatch.setattr(wandb, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(wandb, "Histogram", lambda *args, **kwargs: None)
    torch.manual_seed(0)
    gpt2 = find("gpt2")
    assert gpt2 is not None
    spec = gpt2.model_copy(update={"n_layers": 2, "d_vocab": d_vocab, "d_model": 128, "n_heads": 4, "n_kv_heads": 4,
                                   "d_head": 32, "d_mlp": 512, "name": "short"})  # fmt: skip
    width, batch = DTYPE_BYTES[dtype], 64
    model = hooked_transformer(spec, device="cpu", dtype=dtype, folded=False)
    with torch.no_grad():  # large enough that the three losses differ in float16 too
        for parameter in model.parameters():
            parameter.mul_(8)
    store = activations_store(model, 128, context, 8, prompts, batch, hook, vocabulary=d_vocab)
    evaluator = LLMSaeEvaluator(model, store, eval_prompts, 2, {})
    sae = build_sae(architecture, 128, d_sae, 8)
    sae.cfg.metadata.hook_name = hook
    trainer = trainer_of(sae, store, batch, 2, evaluator=evaluator)
    trainer.cfg.logger = LoggingConfig(log_to_wandb=True, wandb_log_frequency=1, eval_every_n_wandb_logs=1)
    held = [*sae.parameters(), *sae.buffers(), trainer.act_freq_scores, trainer.n_forward_passes_since_fired]
    before = distinct_bytes([*held, *held_tensors(model)])

    def fit() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit()

    real = before + profiler_peak(fit).bytes
    # and the whole of it, from the model's numbers alone
    hooked = hooked_model(
        spec.model_dump(exclude_defaults=True, exclude={"source"}), hook, prompts, context, width, None
    )
    run = replace(hooked.run, batch_size=eval_prompts or prompts, selects=None, stop_at_layer=None)
    shape = shape_of(architecture, 128, d_sae, 8, batch, logs=True)
    rows = run.batch_size * context
    use = Use(architecture, 128, d_sae, 128, 8, rows, FLOAT, width, training=True, pursuit=shape.pursuit)
    memory = training_memory(
        shape, context, 8, prompts, hooked.part,
        evaluation=evaluation(run, hook, use, cpu_kernels=True),
    )  # fmt: skip
    assert memory.phase == "evaluation"
    agrees(architecture, f"evaluation {dtype}", memory.peak, real, 0.002)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(batch=st.integers(1, 300), more=st.integers(0, 2000), per_batch=st.integers(1, 700))
def test_refills_are_those_of_the_mixing_buffer(batch: int, more: int, per_batch: int) -> None:
    from sae_lens.training.mixing_buffer import mixing_buffer

    buffer = batch + more
    activations = (torch.zeros(per_batch, 1) for _ in iter(int, 1))
    held: list[int] = []
    last = None
    for served in mixing_buffer(buffer, batch, activations, MIXING_FRACTION):
        address = served.untyped_storage().data_ptr()
        if last is None or address != last.untyped_storage().data_ptr():
            held.append(served.untyped_storage().nbytes() // 4)
        last = served
        if len(held) == 8:
            break
    expected = list(refills(buffer, batch, per_batch))
    sizes = [expected[0].before, *(refill.after for refill in expected)][:8]
    assert held[: len(sizes)] == sizes


@pytest.mark.parametrize(("batch", "context", "n_batches"), [(4096, 128, 20), (100, 16, 6), (512, 64, 7)])
def test_check_store_says_what_saelens_says(batch: int, context: int, n_batches: int) -> None:
    model = language_model(64, context)

    def first_batch(n: int) -> Callable[[], torch.Tensor]:
        store = activations_store(model, 64, context, n, 4, batch)
        return lambda: next(store)

    message = check_store(batch, context, n_batches, 4)
    assert message is not None
    with pytest.raises(ValueError) as raised:
        first_batch(n_batches)()
    assert str(raised.value) in message
    smallest = -(-batch // context)
    assert f"Give n_batches_in_buffer {smallest} or more" in message
    assert check_store(batch, context, smallest, 4) is None
    assert first_batch(smallest)().shape == (batch, 64)
    assert check_store(batch, context, smallest - 1, 4) is not None
