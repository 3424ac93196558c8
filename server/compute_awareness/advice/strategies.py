"""Five ways to need less, each applied to the workload and estimated again, so that its saving is a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..estimator import estimate
from ..memory.estimate import Estimate
from ..models.resolve import resolve
from ..units import gib
from ..workload import DTYPE_BYTES, ActivationCache, AnyWorkload, Inference, SaeTraining, parse_workload
from .answers import Change, Effect
from .place import Place, needed, verdict_at


class StrategyInfo(BaseModel):
    """One strategy in general."""

    model_config = ConfigDict(extra="forbid")
    id: str
    title: str
    what: str = Field(description="What it does")
    changes_result: str = Field(description="What it does to the result")
    costs: str


def catalogue() -> list[StrategyInfo]:
    """The strategies, in the order in which they are worth trying."""
    return [
        StrategyInfo(
            id="selective_caching",
            title="Cache only the hooks you read",
            what="names_filter keeps only what it names; stop_at_layer skips the rest of the model",
            changes_result="equivalent, if the experiment reads only the hooks that are kept",
            costs="nothing",
        ),
        StrategyInfo(
            id="smaller_batch",
            title="Smaller batches",
            what="the same inputs in more, smaller forward passes",
            changes_result="equivalent for forward passes; a different experiment where a model is trained",
            costs="about the same time on a card that smaller batches keep busy, else more",
        ),
        StrategyInfo(
            id="offloading",
            title="Move what is not needed on the card to RAM",
            what="caches, activation stores or weights live in RAM and cross the bus when needed",
            changes_result="equivalent",
            costs="transfers over PCIe: often several times slower",
        ),
        StrategyInfo(
            id="mixed_precision",
            title="16-bit weights and activations",
            what="bfloat16 (float16 on cards before Ampere) halves weights and most activations",
            changes_result="numerically different: about three significant digits in bfloat16",
            costs="nothing, usually faster",
        ),
        StrategyInfo(
            id="gradient_checkpointing",
            title="Do not keep what backward can compute again",
            what="for training: recompute activations in the backward pass; where no backward is run: torch.no_grad()",
            changes_result="equivalent",
            costs="about a third more time in training",
        ),
    ]


class _Try:
    """Applies changes to one workload and writes down what they save at one place."""

    def __init__(self, workload: AnyWorkload, before: Estimate, place: Place) -> None:
        self.workload = workload
        self.before = before
        self.place = place
        self.now = needed(before, place)[0]

    def patched(self, patch: dict[str, Any]) -> Estimate:
        return estimate(parse_workload(self.workload.model_dump() | patch), self.place.compute_capability)

    def fits(self, after: Estimate) -> bool | None:
        if self.place.free_bytes is None:
            return None
        return verdict_at(after, self.place).status == "fits"

    def change(
        self, strategy: Any, title: str, patch: dict[str, Any], effect: Effect, *, detail: str, cost: str, code: str
    ) -> Change:
        after = self.patched(patch)
        size = needed(after, self.place)[0]
        if size >= self.now:
            return self.no(strategy, f"{title}: saves nothing here")
        return Change(
            strategy=strategy, title=title, applies=True, patch=patch,
            peak_before=self.now, peak_after=size, saving=self.now - size, host_bytes=after.host_bytes,
            fits=self.fits(after), effect=effect, effect_detail=detail, cost=cost, code=code,
        )  # fmt: skip

    def no(self, strategy: Any, why: str) -> Change:
        return Change(
            strategy=strategy, title=why, applies=False, peak_before=self.now, peak_after=self.now, saving=0,
            effect="equivalent",
        )  # fmt: skip

    def largest(self, field: str, most: int) -> int | None:
        """The largest value below `most` with which it fits; 1 where nothing is known of the place or nothing fits,
        half where it fits already."""
        if most <= 1:
            return None
        if self.fits(self.before):
            return most // 2
        if self.place.free_bytes is None or not self.fits(self.patched({field: 1})):
            return 1
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.fits(self.patched({field: middle})):
                low = middle
            else:
                high = middle
        return low


def changes(workload: AnyWorkload, before: Estimate, place: Place) -> list[Change]:
    """The five strategies for this workload at this place, in `catalogue()` order: first those that keep the result.

    Each is estimated again; `saving` is in bytes of the place's memory. One that cannot help says why and saves 0.
    """
    attempt = _Try(workload, before, place)
    match workload:
        case ActivationCache():
            return _for_cache(attempt, workload)
        case Inference():
            return _for_inference(attempt, workload)
        case SaeTraining():
            return _for_sae(attempt, workload)


def _half(place: Place) -> str:
    return "bfloat16" if place.has_bfloat16 else "float16"


_HALF_DETAIL = (
    "activations and logits differ from float32 in about the third significant digit; norms still compute in float32"
)


def _for_cache(attempt: _Try, workload: ActivationCache) -> list[Change]:
    return [
        _selective(attempt, workload),
        _smaller_batch(attempt, workload),
        _cache_on_cpu(attempt, workload),
        _half_precision(attempt, workload),
        _no_grad(attempt, workload),
    ]


def _for_inference(attempt: _Try, workload: Inference) -> list[Change]:
    return [
        attempt.no("selective_caching", "nothing is cached in a plain forward pass"),
        _smaller_batch(attempt, workload),
        _offload_weights(attempt, workload),
        _half_precision(attempt, workload),
        attempt.no("gradient_checkpointing", "no gradients are kept in a forward pass without them"),
    ]


def _for_sae(attempt: _Try, workload: SaeTraining) -> list[Change]:
    has_model = workload.model is not None
    return [
        attempt.no("selective_caching", "the activation store already caches one hook and stops the model after it"),
        _smaller_sae_batch(attempt, workload),
        _store_on_cpu(attempt, workload)
        if has_model
        else attempt.no("offloading", "activations come from disk; there is no store to move"),
        _half_language_model(attempt, workload)
        if has_model
        else attempt.no("mixed_precision", "no language model is loaded, and the SAE itself stays in float32"),
        attempt.no("gradient_checkpointing", "an SAE is one layer deep: recomputing it would save nothing"),
    ]


def _selective(attempt: _Try, workload: ActivationCache) -> Change:
    if workload.names_filter is None:
        patch: dict[str, Any] = {"names_filter": ["*hook_resid_post"]}
        keep = "the residual stream"
        test = 'name.endswith("hook_resid_post")'
        if workload.layers is not None:
            test += f" and name.startswith({_prefixes(workload.layers)})"
        return attempt.change(
            "selective_caching", f"cache only {keep}, if that is all you read (names_filter)", patch, "equivalent",
            detail="what is kept is the same to the bit, other hooks are not recorded; name the hooks that you read",
            cost="none",
            code=f"logits, cache = model.run_with_cache(tokens, names_filter=lambda name: {test})",
        )  # fmt: skip
    last = max(workload.layers, default=None) if workload.layers and min(workload.layers) >= 0 else None
    if workload.stop_at_layer is None and last is not None:
        return attempt.change(
            "selective_caching", f"stop after block {last} (stop_at_layer)", {"stop_at_layer": last + 1}, "equivalent",
            detail="the kept activations are the same to the bit; there are no logits",
            cost="none: later blocks and the unembedding are not computed",
            code=f"_, cache = model.run_with_cache(tokens, names_filter=..., stop_at_layer={last + 1})",
        )  # fmt: skip
    return attempt.no("selective_caching", "the cache is filtered already")


def _prefixes(layers: list[int]) -> str:
    return repr(tuple(f"blocks.{layer}." for layer in layers))


def _smaller_batch(attempt: _Try, workload: ActivationCache | Inference) -> Change:
    batch = attempt.largest("batch_size", workload.batch_size)
    if batch is None:
        return attempt.no("smaller_batch", "the batch is 1 already; a shorter seq_len would change the experiment")
    call = "model(batch)" if isinstance(workload, Inference) else "model.run_with_cache(batch, ...)"
    return attempt.change(
        "smaller_batch", f"batch {batch} instead of {workload.batch_size}", {"batch_size": batch}, "equivalent",
        detail="sequences do not see each other; keep only what you need of each batch",
        cost=f"{-(-workload.batch_size // batch)} passes instead of one",
        code=f"for batch in torch.split(tokens, {batch}):\n    result = {call}  # reduce or move to CPU, then del",
    )  # fmt: skip


def _cache_on_cpu(attempt: _Try, workload: ActivationCache) -> Change:
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the cache to")
    if workload.cache_device == "cpu":
        return attempt.no("offloading", "the cache is on the CPU already")
    patch = {"cache_device": "cpu"}
    ram = attempt.patched(patch).host_bytes
    return attempt.change(
        "offloading", f"cache on the CPU ({gib(ram)} of RAM)", patch, "equivalent",
        detail="the values are the same, in RAM",
        cost="every cached activation crosses the bus: several times slower",
        code='logits, cache = model.run_with_cache(tokens, device="cpu")',
    )  # fmt: skip


def _half_precision(attempt: _Try, workload: ActivationCache | Inference) -> Change:
    if DTYPE_BYTES[workload.dtype] < 4:
        return attempt.no("mixed_precision", f"it runs in {workload.dtype} already")
    dtype = _half(attempt.place)
    spec = resolve(workload.model)
    if workload.library == "transformers":
        code = f'model = AutoModelForCausalLM.from_pretrained("{spec.hf_id or spec.name}", dtype=torch.{dtype})'
    else:
        loader = "from_pretrained_no_processing" if workload.no_processing else "from_pretrained"
        code = f'model = HookedTransformer.{loader}("{spec.tl_name or spec.name}", dtype=torch.{dtype})'
    return attempt.change(
        "mixed_precision", f"{dtype} weights and activations", {"dtype": dtype}, "numerically_different",
        detail=_HALF_DETAIL, cost="none, usually faster on a GPU", code=code,
    )  # fmt: skip


def _no_grad(attempt: _Try, workload: ActivationCache) -> Change:
    if not workload.with_gradients:
        return attempt.no("gradient_checkpointing", "no gradients are kept (torch.no_grad)")
    return attempt.change(
        "gradient_checkpointing",
        "run under torch.no_grad() (HookedTransformer has no checkpointing)",
        {"with_gradients": False},
        "equivalent",
        detail="the cache is detached anyway; only a backward pass from the logits needs the graph",
        cost="none",
        code="with torch.no_grad():\n    logits, cache = model.run_with_cache(tokens)",
    )


def _offload_weights(attempt: _Try, workload: Inference) -> Change:
    if attempt.place.kind in ("cpu", "mps"):
        return attempt.no("offloading", "there is no separate memory to move the weights to")
    if workload.library != "transformers":
        return attempt.no(
            "offloading", "HookedTransformer keeps all its weights on the device; transformers can offload"
        )
    from ..memory import device

    spec = resolve(workload.model)
    held = {c.name: c.bytes_at_peak for c in attempt.before.components}
    matrix = DTYPE_BYTES[workload.dtype] * max(
        spec.d_vocab * spec.d_model, spec.d_model * max(spec.d_mlp, spec.q_width)
    )
    tensors = attempt.before.peak.tensors - held.get("weights", 0) + 2 * matrix
    after = device.device_bytes(tensors, attempt.place.compute_capability)
    if after >= attempt.now:
        return attempt.no("offloading", "the weights are not what takes the memory")
    free = attempt.place.free_bytes
    high = device.device_range(tensors, attempt.place.compute_capability)[1]
    return Change(
        strategy="offloading", title="weights in RAM, one layer at a time on the card (rough)",
        applies=True, peak_before=attempt.now, peak_after=after, host_bytes=held.get("weights", 0),
        saving=attempt.now - after,
        fits=None if free is None else high <= free, effect="equivalent",
        effect_detail="same weights, same arithmetic; counted with two of the largest matrices on the card",
        cost="all weights cross the bus in every pass: 10 to 50 times slower",
        code="from accelerate import cpu_offload\ncpu_offload(model, execution_device=0)",
    )  # fmt: skip


def _smaller_sae_batch(attempt: _Try, workload: SaeTraining) -> Change:
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
        code=f"LanguageModelSAERunnerConfig(..., train_batch_size_tokens={batch})",
    )  # fmt: skip


def _store_on_cpu(attempt: _Try, workload: SaeTraining) -> Change:
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


def _half_language_model(attempt: _Try, workload: SaeTraining) -> Change:
    if DTYPE_BYTES[workload.model_dtype] < 4:
        return attempt.no("mixed_precision", f"the language model is in {workload.model_dtype} already")
    dtype = _half(attempt.place)
    return attempt.change(
        "mixed_precision", f"language model in {dtype}", {"model_dtype": dtype}, "numerically_different",
        detail="the SAE trains on activations rounded to 16 bits; the SAE itself stays in float32",
        cost="none, usually faster",
        code=f'LanguageModelSAERunnerConfig(..., model_from_pretrained_kwargs={{"dtype": "{dtype}"}})',
    )  # fmt: skip


def best(candidates: list[Change], limit: int = 3) -> list[Change]:
    """Those that help, the ones that make it fit and keep the result first, then by saving."""
    rank = {"equivalent": 0, "numerically_different": 1, "different_experiment": 2}
    useful = [change for change in candidates if change.applies]
    key: Callable[[Change], tuple[bool, int, int]] = lambda c: (c.fits is not True, rank[c.effect], -c.saving)  # noqa: E731
    return sorted(useful, key=key)[:limit]
