"""Changes beyond the five usual ones: worth trying where those are not enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..memory.estimate import Estimate
from ..models.resolve import resolve
from ..workload import DTYPE_BYTES, ActivationCache, AnyWorkload, Inference, SaeTraining, Training
from .answers import Change
from .attempt import Attempt
from .place import Place
from .several import splits


def further(workload: AnyWorkload, before: Estimate, place: Place) -> list[Change]:
    """Several cards, one layer at a time, smaller buffers, quantised weights, autocast, adapters, shorter sequences:
    those of them that the workload and the place have, each estimated again."""
    attempt = Attempt(workload, before, place)
    return list(_tried(attempt, workload))


def _tried(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    if attempt.place.count > 1:
        yield from _several_cards(attempt, workload)
    if isinstance(workload, ActivationCache):
        yield from _one_layer(attempt, workload)
    if isinstance(workload, SaeTraining) and workload.model is not None and workload.library == "sae_lens":
        yield from _buffers(attempt, workload)
    if isinstance(workload, Training):
        yield from _autocast(attempt, workload)
        yield from _adapters(attempt, workload)
    if isinstance(workload, Inference) and workload.library == "transformers":
        yield from _quantised(attempt, workload)
    yield from _shorter(attempt, workload)


def _several_cards(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    """All cards of the place: a model split over them, or a batch divided among them."""
    cards = attempt.place.count
    if getattr(workload, "n_devices", cards) > 1:
        return
    if isinstance(workload, Training) and workload.batch_size % cards == 0:
        batch = workload.batch_size // cards
        yield attempt.change(
            "several_gpus", f"batch {batch} on each of {cards} cards (DistributedDataParallel)",
            {"n_devices": cards, "batch_size": batch, "gradient_as_bucket_view": True}, "equivalent",
            detail="the same gradient up to rounding, where the loss is averaged over equal numbers of tokens",
            cost=f"none: {cards} cards work at once, and exchange their gradients in every step",
            code=f"# torchrun --nproc_per_node={cards} train.py; each process takes {batch} sequences of a batch\n"
            'rank = int(os.environ["LOCAL_RANK"])\ntorch.distributed.init_process_group("nccl")\n'
            "model = DistributedDataParallel(model.to(rank), device_ids=[rank], gradient_as_bucket_view=True)",
        )  # fmt: skip
    elif isinstance(workload, Inference | ActivationCache) and splits(workload.model_dump()) == "estimated":
        spec = resolve(workload.model)
        loader = "LanguageModel" if workload.library == "nnsight" else "AutoModelForCausalLM.from_pretrained"
        yield attempt.change(
            "several_gpus", f"layers split over {cards} cards (device_map)", {"n_devices": cards}, "equivalent",
            detail="the same arithmetic, each layer on the card that holds it",
            cost="the cards work one after another; activations cross between them once per card",
            slowdown=1.1,
            code=f'model = {loader}("{spec.hf_id or spec.name}", dtype=torch.{workload.dtype}, device_map="auto")',
        )  # fmt: skip


def _one_layer(attempt: Attempt, workload: ActivationCache) -> Iterator[Change]:
    """The same cache in as many passes as there are layers, each keeping one."""
    if (
        workload.layers is not None
        or workload.stop_at_layer is not None
        or not workload.library.startswith("transformer_")
    ):
        return
    depth = resolve(workload.model).n_layers
    if depth < 2:
        return
    # The last layer is the largest: all others have run, and it is followed by the logits.
    yield attempt.change(
        "layer_by_layer", f"one layer at a time, in {depth} passes", {"layers": [depth - 1]}, "equivalent",
        detail="the same activations to the bit; keep what you need of each layer before the next",
        cost=f"{depth} passes instead of one (about half of that with stop_at_layer)",
        slowdown=depth / 2,
        code=f"for layer in range({depth}):\n"
        '    _, cache = model.run_with_cache(tokens, names_filter=lambda n: n.startswith(f"blocks.{layer}."),'
        " stop_at_layer=layer + 1)",
    )  # fmt: skip


def _buffers(attempt: Attempt, workload: SaeTraining) -> Iterator[Change]:
    prompts = attempt.largest("store_batch_size_prompts", workload.store_batch_size_prompts)
    if prompts is not None:
        yield attempt.change(
            "smaller_buffers", f"store_batch_size_prompts {prompts} instead of {workload.store_batch_size_prompts}",
            {"store_batch_size_prompts": prompts}, "equivalent",
            detail="the language model makes the same activations in smaller passes",
            cost="more passes of the language model; slower where they leave the card idle",
            slowdown=1.2,
            code=f"LanguageModelSAERunnerConfig(..., store_batch_size_prompts={prompts})",
        )  # fmt: skip
    batches = attempt.largest("n_batches_in_buffer", workload.n_batches_in_buffer)
    if batches is not None and batches >= 2:
        yield attempt.change(
            "smaller_buffers", f"n_batches_in_buffer {batches} instead of {workload.n_batches_in_buffer}",
            {"n_batches_in_buffer": batches}, "numerically_different",
            detail="activations are mixed over fewer prompts, so the batches of one step are more alike",
            cost="none",
            code=f"LanguageModelSAERunnerConfig(..., n_batches_in_buffer={batches})",
        )  # fmt: skip


def _autocast(attempt: Attempt, workload: Training) -> Iterator[Change]:
    if workload.autocast is None and workload.dtype == "float32" and attempt.place.has_bfloat16:
        yield attempt.change(
            "mixed_precision", "bfloat16 autocast (weights stay float32)", {"autocast": "bfloat16"},
            "numerically_different",
            detail="matrix products in bfloat16; weights, gradients and moments keep float32",
            cost="none, usually faster",
            code='with torch.autocast("cuda", dtype=torch.bfloat16):\n    loss = model(**inputs).loss',
        )  # fmt: skip


def _adapters(attempt: Attempt, workload: Training) -> Iterator[Change]:
    if workload.trainable == "all" and workload.library == "transformers":
        yield attempt.change(
            "low_rank", "LoRA adapters instead of all weights", {"trainable": "lora"}, "different_experiment",
            detail="only small adapters are trained, the model's own weights stay as they are",
            cost="none, usually faster",
            code="from peft import LoraConfig, get_peft_model\nmodel = get_peft_model(model, LoraConfig(r=8))",
        )  # fmt: skip


def _quantised(attempt: Attempt, workload: Inference) -> Iterator[Change]:
    if getattr(workload, "quantization", None) is not None:
        return
    name = resolve(workload.model).hf_id or resolve(workload.model).name
    for bits, patch_value in ((8, "bitsandbytes_8bit"), (4, "bitsandbytes_4bit")):
        patch: dict[str, Any] = {"quantization": patch_value}
        if DTYPE_BYTES[workload.dtype] == 4:
            patch["dtype"] = "bfloat16" if attempt.place.has_bfloat16 else "float16"
        yield attempt.change(
            "quantization", f"{bits}-bit weights (bitsandbytes)", patch, "different_experiment",
            detail=f"the model itself is another: its weights are rounded to {bits} bits",
            cost="often slower",
            slowdown=1.5,
            code=f'model = AutoModelForCausalLM.from_pretrained("{name}", '
            f"quantization_config=BitsAndBytesConfig(load_in_{bits}bit=True))",
        )  # fmt: skip


def _shorter(attempt: Attempt, workload: AnyWorkload) -> Iterator[Change]:
    field = "context_size" if isinstance(workload, SaeTraining) else "seq_len"
    now = getattr(workload, field, None)
    if now is None or now < 2 or getattr(workload, "model", None) is None:
        return
    most = attempt.largest(field, now)
    if most is None:
        return
    yield attempt.change(
        "shorter_sequences", f"{field} {most} instead of {now}", {field: most}, "different_experiment",
        detail="tokens see less context",
        cost="none",
        code=f"tokens = tokens[:, :{most}]"
        if field == "seq_len"
        else f"LanguageModelSAERunnerConfig(..., {field}={most})",
    )  # fmt: skip
