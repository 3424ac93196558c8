"""Changes that make SAE training need less."""

from __future__ import annotations

from ..workload import DTYPE_BYTES, SaeInference, SaeTraining
from .answers import Change
from .attempt import Attempt, half


def for_sae(attempt: Attempt, workload: SaeTraining) -> list[Change]:
    has_model = workload.model is not None
    return [
        attempt.no("selective_caching", "the activation store already caches one hook and stops the model after it"),
        _smaller_sae_batch(attempt, workload),
        _store_on_cpu(attempt, workload)
        if has_model
        else attempt.no("offloading", "activations come from disk; there is no store to move"),
        _half_language_model(attempt, workload)
        if has_model
        else attempt.no("mixed_precision", "no language model is loaded; the SAE trains in its own dtype"),
        attempt.no("gradient_checkpointing", "an SAE is one layer deep: recomputing it would save nothing"),
    ]


def _smaller_sae_batch(attempt: Attempt, workload: SaeTraining) -> Change:
    batch = attempt.largest("train_batch_size_tokens", workload.train_batch_size_tokens)
    if batch is None:
        return attempt.no("smaller_batch", "the batch is one token already")
    if batch == 1:
        batch = max(1, workload.train_batch_size_tokens // 2)
    if batch > 256:
        batch -= batch % 256
    return attempt.change(
        "smaller_batch", f"train_batch_size_tokens {batch} instead of {workload.train_batch_size_tokens}",
        {"train_batch_size_tokens": batch}, "different_experiment",
        detail="the optimizer takes smaller, noisier steps; learning rate and sparsity may need tuning again",
        cost="more steps for the same tokens",
        code=f"LanguageModelSAERunnerConfig(..., train_batch_size_tokens={batch})"
        if workload.library == "sae_lens"
        else f"ActivationBuffer(..., out_batch_size={batch})",
    )  # fmt: skip


def _store_on_cpu(attempt: Attempt, workload: SaeTraining) -> Change:
    if workload.library == "dictionary_learning":
        return attempt.no("offloading", "an ActivationBuffer with device 'cpu' is not counted yet; a smaller n_ctxs is")
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the activation store to")
    if workload.act_store_device == "cpu":
        return attempt.no("offloading", "the activation store is on the CPU already")
    return attempt.change(
        "offloading", "activation store on the CPU", {"act_store_device": "cpu"}, "equivalent",
        detail="the same activations, kept in RAM until their batch is due",
        cost="one copy of every batch over the bus, small beside the step",
        code='LanguageModelSAERunnerConfig(..., act_store_device="cpu")',
    )  # fmt: skip


def _half_language_model(attempt: Attempt, workload: SaeTraining) -> Change:
    if DTYPE_BYTES[workload.model_dtype] < 4:
        return attempt.no("mixed_precision", f"the language model is in {workload.model_dtype} already")
    dtype = half(attempt.place)
    return attempt.change(
        "mixed_precision", f"language model in {dtype}", {"model_dtype": dtype}, "numerically_different",
        detail="the SAE trains on activations rounded to 16 bits; the SAE itself stays in float32",
        cost="none, usually faster",
        code=f'LanguageModelSAERunnerConfig(..., model_from_pretrained_kwargs={{"dtype": "{dtype}"}})'
        if workload.library == "sae_lens"
        else f"LanguageModel(..., torch_dtype=torch.{dtype})",
    )  # fmt: skip


def for_sae_inference(attempt: Attempt, workload: SaeInference) -> list[Change]:
    return [
        attempt.no("selective_caching", "only the features are kept"),
        attempt.smaller_batch(
            workload.batch_size,
            detail="sequences do not see each other; keep only the features that are active",
            code="features = sae.encode(...).to_sparse()",
        ),
        attempt.no("offloading", "the SAE is read in every pass"),
        _half_of_both(attempt, workload),
        attempt.no("gradient_checkpointing", "no gradients are kept (torch.no_grad)"),
    ]


def _half_of_both(attempt: Attempt, workload: SaeInference) -> Change:
    patch = {
        name: half(attempt.place) for name in ("dtype", "model_dtype") if DTYPE_BYTES[getattr(workload, name)] == 4
    }
    if not patch:
        return attempt.no("mixed_precision", f"it runs in {workload.dtype} already")
    dtype = half(attempt.place)
    return attempt.change(
        "mixed_precision", f"{dtype} SAE and language model", patch, "numerically_different",
        detail="features near their threshold may switch on or off",
        cost="none, usually faster",
        code=f'sae = SAE.from_pretrained(release, sae_id, device="cuda", dtype="{dtype}")',
    )  # fmt: skip
