"""What a careful person reads in a snippet: the form of the labels in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent
from typing import Any


@dataclass(frozen=True)
class Unknown:
    """The value cannot be known from the text; `at_most` where the text bounds it."""

    at_most: int | None = None


UNKNOWN = Unknown()
Label = dict[str, Any]
"""Task and fields of one workload; a value is `Unknown` where a reader must not state one."""


@dataclass(frozen=True)
class Case:
    name: str
    code: str
    expected: list[Label]

    @property
    def text(self) -> str:
        return dedent(self.code).strip("\n") + "\n"


def load(model: Any, dtype: Any = "float32", library: str = "transformer_lens", **more: Any) -> Label:
    return {"task": "load", "model": model, "dtype": dtype, "library": library, **more}


def cache(model: Any, batch_size: Any, seq_len: Any, **more: Any) -> Label:
    return {"task": "activation_cache", "model": model, "batch_size": batch_size, "seq_len": seq_len, **more}


def forward(model: Any, batch_size: Any, seq_len: Any, **more: Any) -> Label:
    return {"task": "inference", "model": model, "batch_size": batch_size, "seq_len": seq_len, **more}


def generate(model: Any, batch_size: Any, seq_len: Any, new_tokens: Any, **more: Any) -> Label:
    return {"task": "generation", "model": model, "batch_size": batch_size, "seq_len": seq_len,
            "new_tokens": new_tokens, **more}  # fmt: skip


def train(model: Any, batch_size: Any, seq_len: Any, **more: Any) -> Label:
    return {"task": "training", "model": model, "batch_size": batch_size, "seq_len": seq_len, **more}


def patching(model: Any, batch_size: Any, seq_len: Any, **more: Any) -> Label:
    return {"task": "patching", "model": model, "batch_size": batch_size, "seq_len": seq_len, **more}
