"""The code of a workload, in the words of its library and with its own values filled in.

A workload is written in parts: `load` and `setup` once, `hooks` before the passes, `run` the passes themselves. The
code of a change is those parts that differ from the workload's own, so that several changes together are one program:
a smaller batch and a filtered cache are one loop, not two lines that contradict each other.
"""

from __future__ import annotations

from ...workload import (
    ActivationCache,
    AnyWorkload,
    Generation,
    Inference,
    Patching,
    SaeInference,
    SaeTraining,
    Training,
)
from . import passes, patching, saes, training


def parts(workload: AnyWorkload, whole: AnyWorkload, *, by_layer: bool = False, device: str = "cuda") -> dict[str, str]:
    """The code that runs `workload`, by part in the order in which they are run.

    Args:
        whole: the workload that was asked for: where its batch is larger, `run` is a loop over it.
        by_layer: one pass for each layer, each caching that layer alone.
        device: torch's name of the device.
    Raises:
        InputError: the model is not known.
    """
    match workload:
        case ActivationCache() | Inference():
            return passes.parts(workload, whole, by_layer, device)
        case Generation():
            return passes.generation(workload, whole, device)
        case Training():
            return training.parts(workload, whole, device)
        case Patching():
            return patching.parts(workload, whole, by_layer, device)
        case SaeTraining():
            return saes.training(workload, whole)
        case SaeInference():
            return saes.inference(workload, whole, device)


def code_of(before: AnyWorkload, after: AnyWorkload, *, by_layer: bool = False, device: str = "cuda") -> str:
    """What has to be written otherwise to run `after` instead of `before`."""
    old = parts(before, before, device=device)
    new = parts(after, before, by_layer=by_layer, device=device)
    return "\n".join(code for part, code in new.items() if code and code != old.get(part))
