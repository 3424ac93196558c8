"""The vocabulary of experiments: what is to be run, as one discriminated union on `task`.

`passes`, `generation`, `training`, `patching`, `sae` hold one kind of task each, `fields` the types they share,
`parse` reads a workload from JSON.
"""

from .fields import DTYPE_BYTES, Dtype
from .parse import (
    PLANNED_LIBRARIES,
    PLANNED_TASKS,
    TASKS,
    AnyWorkload,
    decode_json,
    explain,
    field_names,
    load_workload,
    parse_workload,
)
from .passes import ActivationCache, Inference
from .sae import SaeTraining

__all__ = [
    "DTYPE_BYTES",
    "PLANNED_LIBRARIES",
    "PLANNED_TASKS",
    "TASKS",
    "ActivationCache",
    "AnyWorkload",
    "Dtype",
    "Inference",
    "SaeTraining",
    "decode_json",
    "explain",
    "field_names",
    "load_workload",
    "parse_workload",
]
