"""What a script does that takes memory, in the order in which it does it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "load", "inference", "activation_cache", "generation", "training", "patching", "sae_training", "sae_inference",
    "load_sae", "attribution",
]  # fmt: skip


@dataclass(eq=False)
class Event:
    """One call that matters, as often as it is made with the same values."""

    kind: Kind
    call: str
    """How the library calls it: `HookedTransformer.run_with_cache`."""
    file: str
    line: int
    end_line: int
    column: int
    end_column: int
    fields: dict[str, Any]
    """Values of the workload's fields by name."""
    times: int | None
    """How often it runs; None where that is not known."""
    subject: Any = None
    """The model or SAE that it runs; of a load the one that it makes."""
    result: Any = None
    """The thing that it makes and that may stay alive: a cache, logits."""
    called: bool = True
    """False: in a function that the file itself never calls."""
    conditional: bool = False
    """In a branch that may not be taken."""
    alive: list[Any] = field(default_factory=list)
    """Things of libraries that are alive when it runs."""
    notes: list[str] = field(default_factory=list)
    node: ast.Call | None = None
    nodes: dict[str, ast.Call] = field(default_factory=dict)
    """Other calls of the text that belong to it: the one that makes a configuration."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """The fields as the call itself gave them; later lines may change a model's dtype."""
    evaluation_batch: Any = None
    """Batch size of an evaluation that belongs to it."""
    free: bool = False
    """It takes nothing here: it runs on another machine."""
