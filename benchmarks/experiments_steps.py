"""The experiments with gradients, and those of SAELens: training, patching, SAE training, SAEs in use."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import experiments
from experiments import Experiment, tokens_of, truth_module

from compute_awareness.memory.sae.activation_store import MIXING_FRACTION, refills
from compute_awareness.models.resolve import resolve

# Enough for what a run does once (schedulers, the first look at the data) to weigh little.
_MANY_STEPS = 24


def experiment(workload: dict[str, Any], device: str, many_steps: bool = False) -> Experiment:
    """As `experiments.experiment`; `workload` has every default filled in."""
    match workload["task"], workload["library"]:
        case "training", "transformers":
            return _transformers_training(workload, device)
        case "training", _:
            return _hooked_training(workload, device)
        case "patching", _:
            return _patching(workload, device)
        case "sae_training", _:
            return _sae_training(workload, device, _MANY_STEPS if many_steps else 2)
        case "sae_inference", _:
            return _sae_inference(workload, device)
    raise ValueError(f"no experiment is written for {workload['task']} in {workload['library']}")


def _optimizer(name: str, parameters: Any) -> Any:
    """torch's optimizer as it runs on CUDA, with lists of tensors."""
    import torch

    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-4, foreach=True)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=1e-4, foreach=True)
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9 if name == "sgd_momentum" else 0.0, foreach=True)


def _second_step(step: Callable[[], None], optimizer: Any, held: Callable[[], list[Any]]) -> Experiment:
    """The first step makes the optimizer's state; counters of steps, 4 bytes each, are not counted."""

    def whole() -> None:
        step()
        optimizer.zero_grad()

    def state() -> list[Any]:
        return [v for s in optimizer.state.values() for key, v in s.items() if key != "step"]

    return Experiment(lambda: [*held(), *state()], whole, whole, gradients=True)


def _transformers_training(workload: dict[str, Any], device: str) -> Experiment:
    """Dropout stays as the published config has it, as in fine-tuning."""
    import torch
    import transformers

    builders = truth_module("builders")
    spec = resolve(workload["model"])
    config = builders.hf_config(spec)
    attention = workload["attention"] or experiments._default_attention(spec)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=builders.torch_dtype(workload["dtype"]), attn_implementation=attention
        )
    if workload["trainable"] == "lora":
        import peft

        targets = workload["lora_targets"]
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=workload["lora_rank"], target_modules=targets[0] if targets == ["all-linear"] else targets,
                task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
    model.train()
    if workload["gradient_checkpointing"]:
        model.gradient_checkpointing_enable()
    optimizer = _optimizer(workload["optimizer"], [p for p in model.parameters() if p.requires_grad])
    ids = tokens_of(workload, device)
    cast = builders.torch_dtype(workload["autocast"]) if workload["autocast"] else None

    def step() -> None:
        tokens, labels = ids.clone(), ids.clone()
        for _ in range(workload["gradient_accumulation"]):
            with torch.autocast(ids.device.type, dtype=cast, enabled=cast is not None):
                loss = model(tokens, labels=labels, use_cache=False).loss
            loss.backward()
            del loss
        optimizer.step()

    return _second_step(step, optimizer, lambda: builders.held_tensors(model))


def _hooked_training(workload: dict[str, Any], device: str) -> Experiment:
    model, tokens = experiments.hooked_model(workload, device), tokens_of(workload, device)
    optimizer = _optimizer(workload["optimizer"], model.parameters())

    def step() -> None:
        for _ in range(workload["gradient_accumulation"]):
            model(tokens, return_type="loss").backward()
        optimizer.step()

    def held() -> list[Any]:
        alibi = [getattr(block.attn, "alibi", None) for block in model.blocks]
        return [*truth_module("builders").held_tensors(model), *alibi, tokens]

    return _second_step(step, optimizer, held)


def _patching(workload: dict[str, Any], device: str) -> Experiment:
    """The experiments of the truth tests; transformer_lens.patching sweeps by itself."""
    import torch

    tests, builders = truth_module("test_patching"), truth_module("builders")
    spec = resolve(workload["model"])
    model, clean = experiments.hooked_model(workload, device, spec), tokens_of(workload, device)
    keeps = tests._filter(spec, workload)
    if workload["method"] == "attribution_patching":

        def attribution() -> Any:
            with torch.device(device):  # for the answers' ids, which the experiment makes
                scores = tests._attribution(model, keeps, clean)
            model.zero_grad()
            return scores

        return Experiment(lambda: [*builders.held_tensors(model), clean], attribution, gradients=True)
    from transformer_lens import patching

    heads = workload["names_filter"] == ["*hook_z"]
    sweep = patching.get_act_patch_attn_head_out_by_pos if heads else patching.get_act_patch_resid_pre

    @torch.no_grad()
    def run() -> Any:
        corrupted = clean.clone()
        clean_logits, clean_cache = model.run_with_cache(clean, names_filter=keeps)
        return sweep(model, corrupted, clean_cache, lambda logits: logits[0, -1, 0]), clean_logits

    return Experiment(lambda: [*builders.held_tensors(model), clean], run, gradients=True)


def _fresh(batch: int, d_in: int, device: str) -> Iterator[Any]:
    import torch

    while True:
        yield torch.randn(batch, d_in, device=device)


def _sae_training(workload: dict[str, Any], device: str, steps: int) -> Experiment:
    """SAETrainer.fit(): `steps` steps without a store; with one, until its largest refill is over and one step more."""
    import torch
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    tests, builders = truth_module("test_sae_training"), truth_module("builders")
    torch.manual_seed(0)
    batch, architecture = workload["train_batch_size_tokens"], workload["architecture"]
    model: Any = None
    if workload["model"] is not None:
        spec = resolve(workload["model"])
        model = builders.hooked_transformer(spec, device, workload["model_dtype"], folded=False)
    d_in, d_sae = workload["d_in"] or (model.cfg.d_model if model else 0), workload["d_sae"]
    sae = tests.build_sae(architecture, d_in, d_sae, workload["k"], workload["dtype"])
    sae.cfg.device = device
    sae = sae.to(device)
    batches = _fresh(batch, d_in, device)
    if model is not None:
        context, prompts = workload["context_size"], workload["store_batch_size_prompts"]
        steps = _steps_past_the_largest_refill(workload["n_batches_in_buffer"] * context, batch, prompts * context)
        batches = _store(model, workload, d_in, device)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=batch * steps, train_batch_size_samples=batch, autocast=workload["autocast"],
            device=device, lr_end=3e-5, dead_feature_window=1000,
        ),
        sae=sae,
        data_provider=batches,
    )  # fmt: skip
    for group in trainer.optimizer.param_groups:
        group["foreach"] = True

    def fit() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit()

    counters = [trainer.act_freq_scores, trainer.n_forward_passes_since_fired]
    others = [] if model is None else builders.held_tensors(model)
    return Experiment(
        lambda: [*sae.parameters(), *sae.buffers(), *counters, *others], fit, gradients=True, steps=steps, again=False
    )


def _store(model: Any, workload: dict[str, Any], d_in: int, device: str) -> Any:
    """SAELens' activation store over a data set of random token ids."""
    import numpy as np
    import torch
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    context = workload["context_size"]
    rows = np.random.default_rng(0).integers(0, 100, (1024, context)).tolist()
    return ActivationsStore(
        model=model, dataset=Dataset.from_dict({"input_ids": rows}), streaming=False, hook_name=workload["hook_name"],
        hook_head_index=None, context_size=context, d_in=d_in, n_batches_in_buffer=workload["n_batches_in_buffer"],
        total_training_tokens=10, store_batch_size_prompts=workload["store_batch_size_prompts"],
        train_batch_size_tokens=workload["train_batch_size_tokens"], prepend_bos=True, normalize_activations="none",
        device=torch.device(device), dtype="float32",
    )  # fmt: skip


def _steps_past_the_largest_refill(buffer: int, batch: int, per_model_batch: int) -> int:
    """SAE steps until the refill of the store that holds the most tokens is over, and one more. Sizes in tokens."""
    kept = int(buffer * MIXING_FRACTION)
    every = list(refills(buffer, batch, per_model_batch))
    largest = max(range(len(every)), key=lambda n: every[n].before + every[n].after)
    return 1 + sum(max(1, (refill.before - kept) // batch) for refill in every[: largest + 1])


def _sae_inference(workload: dict[str, Any], device: str) -> Experiment:
    """encode of activations at hand; run_with_cache and encode; or HookedSAETransformer."""
    import torch

    tests, builders = truth_module("test_sae_inference"), truth_module("builders")
    hook, architecture = workload["hook_name"], workload["architecture"]
    spec = None if workload["model"] is None else resolve(workload["model"])
    d_in = workload["d_in"] or (spec.d_model if spec else 0)
    d_out = workload["d_out"] or d_in
    saes = [
        tests.build(architecture, d_in, workload["d_sae"], d_out, workload["k"], workload["dtype"], hook).to(device)
        for _ in range(workload["n_saes"])
    ]
    parameters = [p for sae in saes for p in sae.parameters()]
    if spec is None:
        raise ValueError("sae_inference is run with a model")
    model = builders.hooked_transformer(spec, device, workload["model_dtype"], folded=False)
    tokens = tokens_of(workload, device)
    if workload["splice"]:
        return _spliced(workload, model.cfg, saes, tokens)
    stop = {"stop_at_layer": int(hook.split(".")[1]) + 1} if workload["stop_after_hook"] else {}

    @torch.no_grad()
    def run() -> Any:
        logits, cache = model.run_with_cache(tokens, names_filter=[hook], **stop)
        return logits, cache, [sae.encode(cache[hook]) for sae in saes]

    return Experiment(lambda: [*builders.held_tensors(model), *parameters, tokens], run)


def _spliced(workload: dict[str, Any], cfg: Any, saes: list[Any], tokens: Any) -> Experiment:
    import torch
    from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer

    model = HookedSAETransformer(cfg)
    parameters = [p for sae in saes for p in sae.parameters()]
    error = workload["use_error_term"]

    @torch.no_grad()
    def run_spliced() -> Any:
        if not workload["keep_features"]:
            return model.run_with_saes(tokens, saes=saes, use_error_term=error)
        return model.run_with_cache_with_saes(
            tokens, saes=saes, use_error_term=error, names_filter=lambda name: name.endswith("hook_sae_acts_post")
        )

    return Experiment(lambda: [*truth_module("builders").held_tensors(model), *parameters, tokens], run_spliced)
