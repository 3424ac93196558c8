"""The operations of every task, to the last one, against torch's FlopCounterMode on the real libraries (CPU, meta).

Small models of every family; what is counted here depends on shapes alone.
"""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import test_bridge as bridges
import test_generation as generations
import test_patching as patches
import test_sae_inference as saes_in_use
import test_sae_training as saes
import test_transformers_training as trainings
import torch
from builders import hf_model, hooked_transformer, quiet
from flop_meter import counted
from hooked_models import KINDS, build, inline, small
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from compute_awareness.estimates.bridge_pass import bridge_pass
from compute_awareness.estimates.generation import generation
from compute_awareness.estimates.hooked_pass import hooked_pass
from compute_awareness.estimates.hooked_training import hooked_training
from compute_awareness.estimates.patching import patching
from compute_awareness.estimates.sae_inference import sae_inference
from compute_awareness.estimates.sae_training import EVAL_BATCHES, sae_training
from compute_awareness.estimates.transformers_pass import transformers_pass
from compute_awareness.estimates.transformers_training import transformers_training
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.huggingface.forward import supports_sdpa
from compute_awareness.memory.sae.activation_buffer import ActivationBuffer
from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec
from compute_awareness.runtime.sae import Step, buffer_batches, store_batches
from compute_awareness.workload import parse_workload

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The training dataset contains fewer samples:UserWarning"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:All samples in the training dataset have been exhausted:UserWarning"),
]
DRAWN = settings(
    max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
HOOKED = (*KINDS, "gpt-neo-125m", "gemma-3-1b-pt")


def workload(task: str, spec: ModelSpec | None, **fields: Any) -> Any:
    model = {} if spec is None else {"model": inline(spec)}
    return parse_workload({"task": task, **model, **fields})


def work(result: Estimate) -> int:
    """The operations of the whole run; that they are the sum of its parts is checked on the way."""
    assert result.flops == sum(part.times * part.flops for part in result.work)
    assert result.moved_bytes == sum(part.times * part.moved_bytes for part in result.work) > 0
    return result.flops


# ------------------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("name", trainings.NAMES)
def test_transformers_forward(name: str) -> None:
    for attention in trainings.attentions(name):
        spec = trainings.small(name, 3)
        model = trainings.model_of(name, 3, "float32", attention)
        for b, s in ((1, 2), (3, 37)):
            w = workload("inference", spec, library="transformers", batch_size=b, seq_len=s, attention=attention)
            ids = torch.zeros(b, s, dtype=torch.long)
            with torch.no_grad():
                real = counted(lambda model=model, ids=ids: model(ids, use_cache=False))
            # In float32 grouped heads are taken to run unfused on CUDA; the same products either way.
            assert work(transformers_pass(w, None)) == real


def in_training(name: str, attention: str) -> Any:
    """The model with the dropout of its published config, but for attention's: the CPU's fused kernel has none."""
    model = trainings.model_of(name, 3, "float32", attention, dropout=1)
    for module in model.modules():
        if hasattr(module, "attn_dropout"):
            module.attn_dropout.p = 0.0
    return model


@pytest.mark.parametrize("name", trainings.NAMES)
def test_transformers_training(name: str) -> None:
    """Every weight trained, with and without checkpointing; dropout as the published config has it."""
    for attention in trainings.attentions(name):
        spec = trainings.small(name, 3)
        model = in_training(name, attention)
        for checkpointing in (False, True):
            w = workload(
                "training", spec, batch_size=2, seq_len=24, attention=attention, gradient_checkpointing=checkpointing,
                gradient_accumulation=2, dtype="bfloat16", optimizer="sgd",
            )  # fmt: skip
            ids = torch.zeros(2, 24, dtype=torch.long)

            def step(model: Any = model, ids: Any = ids) -> None:
                for _ in range(2):
                    model(ids, labels=ids, use_cache=False).loss.backward()

            with trainings.checkpointed(model) if checkpointing else contextlib.nullcontext():
                # in bfloat16 every card since Ampere has a fused kernel for grouped heads, as the CPU has
                assert work(transformers_training(w, "8.0")) == counted(step), (attention, checkpointing)
            model.zero_grad()
    trainings.model_of.cache_clear()


@pytest.mark.parametrize("name", trainings.NAMES)
@pytest.mark.parametrize("where", ["default", "all-linear", "first", "output", "last"])
def test_lora(name: str, where: str) -> None:
    """Adapters anywhere in a block: what needs no gradient in the first block has none."""
    kinds = trainings.attentions(name)
    attention = kinds[(trainings.NAMES.index(name) + len(where)) % len(kinds)]
    spec = trainings.small(name, 3)
    base = in_training(name, attention)
    linears = trainings.play(trainings.Step(spec, 2, 24, 4, attention)).linears
    at = {4: (0, 1, -1), 6: (0, 3, -1), 7: (0, 3, -1)}[len(linears)]
    places = {"first": [linears[at[0]]], "output": [linears[at[1]]], "last": [linears[at[2]]]}
    targets = {"default": None, "all-linear": ["all-linear"], **places}[where]
    if where == "default" and spec.architecture not in trainings.DEFAULT_TARGETS:
        return
    try:
        with quiet():
            asked = "all-linear" if where == "all-linear" else targets
            config = peft.LoraConfig(r=4, target_modules=asked, task_type="CAUSAL_LM")
            model = peft.get_peft_model(base, config).train()
        ids = torch.zeros(2, 24, dtype=torch.long)
        for checkpointing in (False, True):
            w = workload(
                "training", spec, batch_size=2, seq_len=24, attention=attention, trainable="lora", lora_rank=4,
                lora_targets=targets, gradient_checkpointing=checkpointing, dtype="bfloat16",
            )  # fmt: skip
            with trainings.checkpointed(model) if checkpointing else contextlib.nullcontext():
                real = counted(lambda: model(ids, labels=ids, use_cache=False).loss.backward())
            assert work(transformers_training(w, "8.0")) == real, checkpointing
    finally:
        trainings.model_of.cache_clear()


def test_the_length_of_a_training_run() -> None:
    spec = trainings.small("gpt2", 2)
    given: dict[str, Any] = {"batch_size": 4, "seq_len": 16, "gradient_accumulation": 4}
    one = transformers_training(workload("training", spec, **given), None)
    run = transformers_training(workload("training", spec, training_tokens=1000, **given), None)
    assert [(p.what, p.times) for p in one.work] == [("forward and backward pass", 4), ("optimizer step", 1)]
    assert [p.times for p in run.work] == [16, 4]  # 1000 tokens in passes of 64
    assert any("one optimizer step" in line and "training_tokens" in line for line in one.assumptions)
    assert not any("one optimizer step" in line for line in run.assumptions)


# --------------------------------------------------------------------------------------------------- generation


def _counting(run: Any) -> Any:
    return SimpleNamespace(bytes=0, flops=counted(run))


@pytest.mark.parametrize("name", [*generations.TRANSFORMERS, "gemma-3-1b-pt", "gpt-neo-125m"])
def test_generation_in_transformers(name: str) -> None:
    """The window of these models is 32 tokens: prompts below, above, and growing over it."""
    spec = generations.small(name)
    attention = "sdpa" if supports_sdpa(spec.architecture) else "eager"
    model = hf_model(spec, "cpu", "float32", attention)
    for kv_cache in (True, False):
        for seq_len, new_tokens in ((7, 5), (40, 3), (30, 6), (1, 1)):
            w = workload(
                "generation", spec, library="transformers", batch_size=2, seq_len=seq_len, new_tokens=new_tokens,
                kv_cache=kv_cache, attention=attention,
            )  # fmt: skip
            real = generations.hf_generate(model, w, _counting)
            assert work(generation(w, None)) == real.flops, (kv_cache, seq_len, new_tokens)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", generations.HOOKED)
def test_generation_in_transformer_lens(name: str) -> None:
    spec = generations.small(name)
    model = hooked_transformer(spec, "cpu", "float32")
    for kv_cache in (True, False):
        for seq_len, new_tokens in ((7, 5), (40, 3)):
            w = workload(
                "generation", spec, library="transformer_lens", batch_size=2, seq_len=seq_len, new_tokens=new_tokens,
                kv_cache=kv_cache,
            )  # fmt: skip
            for block in model.blocks:  # ALiBi's biases of the call before
                block.attn.alibi = None
            real = generations.tl_generate(model, w, _counting)
            assert work(generation(w, None)) == real.flops, (kv_cache, seq_len, new_tokens)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------- TransformerLens


@pytest.mark.parametrize("name", HOOKED)
def test_hooked_transformer(name: str) -> None:
    """Caches with every switch, some of the blocks, and a training step."""
    spec = small(name)
    tokens = torch.zeros(2, 20, dtype=torch.long)
    shape = {"library": "transformer_lens", "batch_size": 2, "seq_len": 20}
    for switch in ("", *patches.SWITCHES, "use_attn_in"):
        if (switch == "use_hook_mlp_in" and not spec.d_mlp) or (switch == "use_attn_in" and spec.grouped_attention_tl):
            continue
        given = {switch: True} if switch else {}
        model = build(spec, "float32", True, **given)
        with torch.no_grad():
            real = counted(lambda model=model: model.run_with_cache(tokens))
        assert work(hooked_pass(workload("activation_cache", spec, **shape, **given), None)) == real, switch
    plain = build(spec, "float32", False)
    stopped = workload("activation_cache", spec, **shape, stop_at_layer=-1)
    if spec.n_layers > 1:
        with torch.no_grad():
            real = counted(lambda: plain.run_with_cache(tokens, stop_at_layer=-1))
        assert work(hooked_pass(stopped, None)) == real
    real = counted(lambda: plain(tokens, return_type="loss").backward())
    assert work(hooked_training(workload("training", spec, **shape, no_processing=True), None)) == real


@pytest.mark.parametrize("name", bridges.FAMILIES)
def test_bridge(name: str) -> None:
    spec, bridge = bridges._small(name), bridges._bridge(name, "float32", "plain")
    tokens = torch.zeros(2, 20, dtype=torch.long)
    shape = {"library": "transformer_bridge", "batch_size": 2, "seq_len": 20}
    with torch.no_grad():
        assert work(bridge_pass(workload("inference", spec, **shape), None)) == counted(lambda: bridge(tokens))
        real = counted(lambda: bridge.run_with_cache(tokens, stop_at_layer=1))
    assert work(bridge_pass(workload("activation_cache", spec, **shape, stop_at_layer=1), None)) == real
    bridges._bridge.cache_clear()


# ----------------------------------------------------------------------------------------------------- patching


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b"])
def test_activation_patching(name: str) -> None:
    from transformer_lens import patching as library

    spec, clean = small(name), torch.zeros(2, 5, dtype=torch.long)
    model = build(spec, "float32", True)

    def run() -> None:
        cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith("resid_pre"))[1]
        library.get_act_patch_resid_pre(model, clean, cache, lambda logits: logits[0, -1, 0])

    given = {"method": "activation_patching", "batch_size": 2, "seq_len": 5, "names_filter": ["*hook_resid_pre"]}
    with torch.no_grad():
        real = counted(run)
    assert work(patching(workload("patching", spec, **given), None)) == real
    twice = patching(workload("patching", spec, **given, n_prompts=4), None)
    assert work(twice) == 2 * real and [part.times for part in twice.work] == [2]


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", patches.NAMES)
def test_attribution_patching(name: str, trainable: bool) -> None:
    spec, clean = small(name), torch.zeros(2, 20, dtype=torch.long)
    for results in (False, True):
        model = build(spec, "float32", True, use_attn_result=results).requires_grad_(trainable)
        real = counted(lambda model=model: patches._attribution(model, lambda name: "resid_pre" in name, clean))
        w = workload(
            "patching", spec, method="attribution_patching", batch_size=2, seq_len=20, use_attn_result=results,
            parameter_gradients=trainable,
        )  # fmt: skip
        assert work(patching(w, None)) == real, results


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "attn-only-3l"])
def test_edge_attribution(name: str) -> None:
    """hannamw/EAP-IG as it is written down in test_patching."""
    spec, clean = small(name), torch.zeros(2, 20, dtype=torch.long)
    for steps, trainable in ((0, True), (2, True), (3, False)):
        switches = dict.fromkeys(patches.SWITCHES, True) | {"use_hook_mlp_in": spec.d_mlp > 0}
        model = build(spec, "float32", True, ungroup_grouped_query_attention=True, **switches)
        model.requires_grad_(trainable)
        real = counted(lambda model=model, steps=steps: patches._edge_scores(model, clean, 1, steps))
        given = {"method": "eap_ig", "ig_steps": steps} if steps else {"method": "eap"}
        w = workload("patching", spec, batch_size=2, seq_len=20, parameter_gradients=trainable, **given)
        assert work(patching(w, None)) == real, (steps, trainable)


# --------------------------------------------------------------------------------------------------------- SAEs


def _fit(trainer: Any) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        trainer.fit()


@pytest.mark.parametrize("architecture", saes.NAMES)
@DRAWN
@given(**saes.sizes)
def test_sae_training(architecture: str, d_in: int, d_sae: int, batch: int, k: int) -> None:
    batch, k = min(batch, 200), min(k, 8)
    for autocast in (False, True):
        sae = saes.build_sae(architecture, d_in, d_sae, k)
        trainer = saes.trainer_of(sae, saes.fresh_batches(batch, d_in), batch, 2, autocast=autocast)
        real = counted(lambda trainer=trainer: _fit(trainer))
        more: dict[str, Any] = {}
        if architecture.startswith("matryoshka"):
            more["matryoshka_widths"] = list(saes.matryoshka(architecture, d_sae))
        if architecture == "matching_pursuit":
            more["max_iterations"] = k
        w = workload(
            "sae_training", None, architecture=architecture, d_in=d_in, d_sae=d_sae, k=k, autocast=autocast,
            train_batch_size_tokens=batch, training_tokens=batch + 1, **more,
        )  # fmt: skip
        assert work(sae_training(w, None)) == real


@pytest.mark.parametrize("architecture", saes.TOP_K)
def test_dead_latents(architecture: str) -> None:
    d_in, d_sae, batch = 64, 512, 96
    sae = saes.build_sae(architecture, d_in, d_sae, 8)
    real = counted(lambda: _fit(saes.trainer_of(sae, saes.fresh_batches(batch, d_in), batch, 1, dead=True)))
    step = Step(architecture, d_in, d_sae, batch, saes.matryoshka(architecture, d_sae))
    assert real == (step.in_saelens() + step.of_dead_latents()).flops


@settings(DRAWN, max_examples=60)
@given(batch=st.integers(1, 300), more=st.integers(0, 2000), per_batch=st.integers(1, 700), steps=st.integers(1, 200))
def test_the_store_runs_the_model_as_often_as_the_mixing_buffer_asks(
    batch: int, more: int, per_batch: int, steps: int
) -> None:
    from sae_lens.training.mixing_buffer import mixing_buffer

    ran = 0

    def activations() -> Any:
        nonlocal ran
        while True:
            ran += 1
            yield torch.zeros(per_batch, 0)

    served = mixing_buffer(batch + more, batch, activations())
    for _ in range(steps):
        next(served)
    assert store_batches(steps, batch, batch + more, per_batch) == ran


def test_a_run_of_a_billion_tokens_is_counted_at_once() -> None:
    every = store_batches(244_141, 4096, 64 * 512, 32 * 512)
    assert every * 32 * 512 == pytest.approx(10**9, rel=0.001)


def test_refreshes_of_the_activation_buffer() -> None:
    """By ActivationBuffer's own rule: it refreshes while fewer than half of its activations are unread."""
    for size, length, texts, batch, steps in ((24, 32, 6, 200, 30), (160, 16, 40, 900, 7), (3, 10, 2, 64, 9)):
        buffer = ActivationBuffer(size, length, texts, batch, 16, 4)
        unread = ran = 0
        for _ in range(steps):
            if unread < buffer.size // 2:
                while unread < buffer.size:
                    unread = min(buffer.size, unread + texts * length)
                    ran += 1
            unread = max(0, unread - batch)
        assert buffer_batches(steps, buffer) == ran


@pytest.mark.parametrize("architecture", ["topk", "matching_pursuit", "gated", "jumprelu"])
def test_sae_training_with_model_store_and_evaluation(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from sae_lens.config import LoggingConfig
    from sae_lens.llm_sae_training_runner import LLMSaeEvaluator

    monkeypatch.setattr(wandb, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(wandb, "Histogram", lambda *args, **kwargs: None)
    spec = saes_in_use.short_model().model_copy(update={"d_vocab": 100, "n_ctx": 128})
    hook, batch, context, prompts, eval_prompts, steps = "blocks.1.hook_resid_pre", 64, 24, 4, 3, 9
    model = hooked_transformer(spec, device="cpu", folded=False)
    store = saes.activations_store(model, 128, context, 8, prompts, batch, hook)
    evaluator = LLMSaeEvaluator(model, store, eval_prompts, EVAL_BATCHES, {})
    sae = saes.build_sae(architecture, 128, 256, 8)
    sae.cfg.metadata.hook_name = hook
    trainer = saes.trainer_of(sae, store, batch, steps, evaluator=evaluator)
    trainer.cfg.logger = LoggingConfig(log_to_wandb=True, wandb_log_frequency=2, eval_every_n_wandb_logs=2)
    real = counted(lambda: _fit(trainer))
    more = {"max_iterations": 8} if architecture == "matching_pursuit" else {}
    w = workload(
        "sae_training", spec, architecture=architecture, hook_name=hook, d_sae=256, k=8, train_batch_size_tokens=batch,
        training_tokens=batch * steps, context_size=context, n_batches_in_buffer=8, store_batch_size_prompts=prompts,
        eval_batch_size_prompts=eval_prompts, eval_every_n_steps=4, **more,
    )  # fmt: skip
    assert work(sae_training(w, None)) == real


@pytest.mark.parametrize("architecture", saes_in_use.NAMES)
def test_sae_inference(architecture: str) -> None:
    """Encoding with two SAEs after run_with_cache, and the reconstruction spliced in."""
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer

    hook, spec, d_sae = "blocks.1.hook_resid_pre", saes_in_use.short_model(), 512
    options = saes_in_use.options_of(architecture, d_sae)
    if architecture == "matching_pursuit":
        options = saes_in_use.every_iteration(5)
    sae = saes_in_use.build(architecture, 128, d_sae, 128, 8, "float32", hook, **options)
    plain = hooked_transformer(spec, device="cpu", folded=False)
    with quiet():
        model = HookedSAETransformer(plain.cfg)
    tokens = torch.zeros(3, 40, dtype=torch.long)
    given = {
        "architecture": architecture, "hook_name": hook, "d_sae": d_sae, "k": 8, "batch_size": 3, "seq_len": 40,
        **options,
    }  # fmt: skip

    def encode() -> None:
        cache = plain.run_with_cache(tokens, names_filter=[hook], stop_at_layer=2)[1]
        for _ in range(2):
            sae.encode(cache[hook])

    with torch.no_grad():
        real = counted(encode)
        w = workload("sae_inference", spec, n_saes=2, stop_after_hook=True, **given)
        assert work(sae_inference(w, None)) == real
        for error in (False, True):
            real = counted(lambda on=error: model.run_with_saes(tokens, saes=[sae], use_error_term=on))
            w = workload("sae_inference", spec, splice=True, use_error_term=error, **given)
            assert work(sae_inference(w, None)) == real, error


def test_what_an_older_release_multiplies_number_by_number() -> None:
    """use_attn_result is one contraction before TransformerLens 2.10, and inputs per head are not from 2.10 to 2.15."""
    spec = find("gpt2")
    assert spec is not None
    shape: dict[str, Any] = {"batch_size": 1, "seq_len": 10, "library": "transformer_lens"}
    out = 12 * 2 * 10 * 768 * 768

    def flops(version: str, **switches: bool) -> int:
        return hooked_pass(workload("activation_cache", spec, library_version=version, **shape, **switches), None).flops

    whole = flops("3.9.0")
    assert flops("3.9.0", use_attn_result=True) == flops("2.10.0", use_attn_result=True) == whole - out
    assert flops("2.9.0", use_attn_result=True) == whole
    assert flops("2.12.0", use_split_qkv_input=True) == whole - 3 * out
    assert flops("3.9.0", use_split_qkv_input=True) == whole
