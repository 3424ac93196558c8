"""The vocabulary of experiments: what is to be run, as one discriminated union on `task`.

`passes`, `generation`, `training`, `patching`, `sae`, `sae_inference` hold one kind of task each, `fields` the types
they share, `parse` reads a workload from JSON.
"""

from .fields import DTYPE_BYTES, Dtype
from .generation import Generation
from .parse import (
    TASKS,
    AnyWorkload,
    decode_json,
    explain,
    field_names,
    load_workload,
    parse_workload,
)
from .passes import ActivationCache, Inference
from .patching import Patching
from .sae import SaeTraining
from .sae_inference import SaeInference
from .training import Training

__all__ = [
    "DTYPE_BYTES",
    "TASKS",
    "ActivationCache",
    "AnyWorkload",
    "Dtype",
    "Generation",
    "Inference",
    "Patching",
    "SaeInference",
    "SaeTraining",
    "Training",
    "decode_json",
    "explain",
    "field_names",
    "load_workload",
    "parse_workload",
]
