"""Changes that make SAE training need less."""

from __future__ import annotations

from collections.abc import Iterator

from ..hook_names import layer_of
from ..memory.sae.activation_store import smallest_buffer
from ..workload import DTYPE_BYTES, SaeInference, SaeTraining
from .answers import Change
from .attempt import Attempt, faster, half


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
    )  # fmt: skip


def _half_language_model(attempt: Attempt, workload: SaeTraining) -> Change:
    if DTYPE_BYTES[workload.model_dtype] < 4:
        return attempt.no("mixed_precision", f"the language model is in {workload.model_dtype} already")
    dtype = half(attempt.place)
    return attempt.change(
        "mixed_precision", f"language model in {dtype}", {"model_dtype": dtype}, "numerically_different",
        detail="the SAE trains on activations rounded to 16 bits; the SAE itself stays in float32",
        cost=faster(attempt.place),
    )  # fmt: skip


def for_sae_inference(attempt: Attempt, workload: SaeInference) -> list[Change]:
    return [
        attempt.no("selective_caching", "only the features are kept"),
        attempt.smaller_batch(
            workload.batch_size,
            detail="sequences do not see each other; keep only the features that are active",
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
        cost=faster(attempt.place),
    )  # fmt: skip


def buffers(attempt: Attempt, workload: SaeTraining) -> Iterator[Change]:
    """SAELens: smaller passes of the language model, smaller evaluations, a smaller mixing buffer."""
    prompts = attempt.largest("store_batch_size_prompts", workload.store_batch_size_prompts)
    if prompts is not None:
        yield attempt.change(
            "smaller_buffers", f"store_batch_size_prompts {prompts} instead of {workload.store_batch_size_prompts}",
            {"store_batch_size_prompts": prompts}, "equivalent",
            detail="the language model makes the same activations in smaller passes",
            cost="more passes of the language model; slower where they leave the card idle",
            slowdown=1.2,
        )  # fmt: skip
    evaluated = workload.eval_batch_size_prompts or workload.store_batch_size_prompts
    fewer = attempt.largest("eval_batch_size_prompts", evaluated) if workload.evaluation else None
    if fewer is not None:
        yield attempt.change(
            "smaller_buffers", f"eval_batch_size_prompts {fewer} instead of {evaluated}",
            {"eval_batch_size_prompts": fewer}, "equivalent",
            detail="the SAE is trained the same; its evaluations, three passes with all logits, see fewer prompts each "
            "unless n_eval_batches is raised",
            cost="none",
        )  # fmt: skip
    least = smallest_buffer(workload.train_batch_size_tokens, workload.context_size)
    batches = attempt.largest("n_batches_in_buffer", workload.n_batches_in_buffer, max(2, least))
    if batches is not None:
        yield attempt.change(
            "smaller_buffers", f"n_batches_in_buffer {batches} instead of {workload.n_batches_in_buffer}",
            {"n_batches_in_buffer": batches}, "numerically_different",
            detail="activations are mixed over fewer prompts, so the batches of one step are more alike",
            cost="none",
        )  # fmt: skip


def refreshes(attempt: Attempt, workload: SaeTraining) -> Iterator[Change]:
    """dictionary_learning's ActivationBuffer: smaller passes of the language model, fewer texts in the buffer."""
    texts = attempt.largest("refresh_batch_size", workload.refresh_batch_size)
    if texts is not None:
        yield attempt.change(
            "smaller_buffers", f"refresh_batch_size {texts} instead of {workload.refresh_batch_size}",
            {"refresh_batch_size": texts}, "equivalent",
            detail="the language model makes the same activations in smaller passes",
            cost="more passes of the language model; slower where they leave the card idle",
            slowdown=1.2,
        )  # fmt: skip
    contexts = attempt.largest("n_ctxs", workload.n_ctxs, 2)
    if contexts is not None:
        yield attempt.change(
            "smaller_buffers", f"n_ctxs {contexts} instead of {workload.n_ctxs}", {"n_ctxs": contexts},
            "numerically_different",
            detail="activations are mixed over fewer texts, so the batches of one step are more alike",
            cost="none",
        )  # fmt: skip


def one_sae_at_a_time(attempt: Attempt, workload: SaeTraining | SaeInference) -> Iterator[Change]:
    """Several SAEs one after the other instead of all in memory."""
    if workload.n_saes < 2:
        return
    detail = "no SAE sees the others"
    if isinstance(workload, SaeInference):
        detail += "; keep the features of each before the next"
    yield attempt.change(
        "smaller_batch", f"one SAE at a time instead of {workload.n_saes} in memory", {"n_saes": 1}, "equivalent",
        detail=detail,
        cost=f"the language model runs {workload.n_saes} times" if workload.model is not None else "none",
        slowdown=workload.n_saes if workload.model is not None else 1,
    )  # fmt: skip


def without_logits(attempt: Attempt, workload: SaeInference) -> Iterator[Change]:
    """stop_at_layer after the hook that the SAE reads."""
    if workload.model is None or workload.splice or workload.stop_after_hook:
        return
    layer = layer_of(workload.hook_name or "")
    if layer is not None:
        yield attempt.change(
            "selective_caching", f"stop after block {layer} (stop_at_layer)", {"stop_after_hook": True}, "equivalent",
            detail="the features are the same to the bit; there are no logits",
            cost="none: later blocks and the unembedding are not computed",
        )  # fmt: skip
