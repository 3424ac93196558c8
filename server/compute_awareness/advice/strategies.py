"""Five ways to need less, each applied to the workload and estimated again, so that its saving is a figure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..memory.estimate import Estimate
from ..workload import (
    ActivationCache,
    AnyWorkload,
    Generation,
    Inference,
    Patching,
    SaeInference,
    SaeTraining,
    Training,
)
from .answers import Change
from .attempt import Attempt
from .changes_forward import for_cache, for_inference
from .changes_sae import for_sae, for_sae_inference
from .changes_training import for_generation, for_patching, for_training
from .place import Place


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


def changes(workload: AnyWorkload, before: Estimate, place: Place) -> list[Change]:
    """The five strategies for this workload at this place, in `catalogue()` order: first those that keep the result.

    Each is estimated again; `saving` is in bytes of the place's memory. One that cannot help says why and saves 0.
    """
    attempt = Attempt(workload, before, place)
    match workload:
        case ActivationCache():
            return for_cache(attempt, workload)
        case Inference():
            return for_inference(attempt, workload)
        case Generation():
            return for_generation(attempt, workload)
        case Training():
            return for_training(attempt, workload)
        case Patching():
            return for_patching(attempt, workload)
        case SaeTraining():
            return for_sae(attempt, workload)
        case SaeInference():
            return for_sae_inference(attempt, workload)


def best(candidates: list[Change], limit: int = 3) -> list[Change]:
    """Those that help, the ones that make it fit and keep the result first, then those that cost nothing at all, then
    by saving."""
    rank = {"equivalent": 0, "numerically_different": 1, "different_experiment": 2}
    useful = [change for change in candidates if change.applies]

    def key(change: Change) -> tuple[bool, int, bool, int]:
        return change.fits is not True, rank[change.effect], not change.costless, -change.saving

    return sorted(useful, key=key)[:limit]
