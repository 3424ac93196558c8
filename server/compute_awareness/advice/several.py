"""What several cards are good for with a workload: who splits a model over them, and what one card then takes."""

from __future__ import annotations

from typing import Any, Literal

from ..errors import InputError
from ..memory.estimate import Estimate
from ..workload import ActivationCache, AnyWorkload, Inference, parse_workload
from .once import estimated

Split = Literal["estimated", "rough", "none"]


def splits(filled: dict[str, Any]) -> Split:
    """How the workload (as an estimate has it) can be split over cards so that each holds less of the model.

    estimated: device_map of transformers, which `n_devices` counts; rough: the library splits by layers, but how they
    fall is not estimated; none: every card would hold the whole model.
    """
    task, library = filled.get("task"), filled.get("library")
    if task in ("inference", "activation_cache") and library in ("transformers", "nnsight"):
        return "none" if filled.get("quantization") else "estimated"
    if task in ("training", "sae_training", "sae_inference"):
        return "none"
    return "rough"


def with_cards(workload: AnyWorkload, count: int, capability: str | None) -> Estimate | None:
    """The estimate with the model split over `count` cards; None where the split is not estimated."""
    if not isinstance(workload, Inference | ActivationCache) or splits(workload.model_dump()) != "estimated":
        return None
    try:
        return estimated(parse_workload(workload.model_dump() | {"n_devices": count}), capability)
    except InputError:
        return None


def cards_help(filled: dict[str, Any]) -> bool:
    """Whether more cards than one leave less on each, in a way that is offered."""
    return splits(filled) == "estimated" or filled.get("task") == "training"


def processes(filled: dict[str, Any]) -> int:
    """Processes, each of which loads the model: training has one for each card, device_map one for all."""
    return filled.get("n_devices") or 1 if filled.get("task") == "training" else 1


def why_not(filled: dict[str, Any]) -> str:
    """Why several cards do not make such a run fit, as a sentence."""
    if filled.get("task") == "training":
        return (
            "More cards with such a batch on each leave one card's share as it is: DistributedDataParallel keeps the "
            "whole model, its gradients and optimizer state on each; parallel 'fsdp' shares them out (transformers)."
        )
    if filled.get("quantization"):
        return "How a quantised model is laid over several cards is not estimated."
    return "The library keeps all of it on one card."
