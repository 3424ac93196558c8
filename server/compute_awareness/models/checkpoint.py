"""The stored weights of a model, by the headers of its safetensors files: no tensor is read.

A file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object of tensor name ->
dtype, shape and offsets (the safetensors format).
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MAX_HEADER = 100 * 1024**2

# Masks and tables that old files hold and loaders drop: GPT-2's and GPT-Neo's attn.bias, Pythia's attention.bias and
# masked_bias, Llama's rotary_emb.inv_freq (transformers 5.23: _keys_to_ignore_on_load_unexpected, buffers).
_DROPPED = re.compile(
    r"(?:^|\.)(?:attn|attention)\.(?:bias|masked_bias)$|rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$"
)


@dataclass(frozen=True)
class Checkpoint:
    """What the files hold."""

    stored_bytes: int
    """Of all tensors: what is downloaded."""
    parameters: int
    """Elements of the tensors that a loader keeps."""
    dtype: str | None
    """torch's name of the dtype of most of those elements; None for a packed or 8-bit one."""


def from_headers(tensors: Iterable[tuple[str, str, list[int]]]) -> Checkpoint:
    """From (name, dtype, shape) of every tensor of every file.

    Raises:
        ValueError: a dtype that safetensors does not have.
    """
    stored = parameters = 0
    by_dtype: Counter[str] = Counter()
    for name, dtype, shape in tensors:
        if dtype not in _BITS:
            raise ValueError(f"unknown dtype {dtype!r}")
        elements = prod(shape)
        stored += -(-elements * _BITS[dtype] // 8)
        if not (_DROPPED.search(name) and len(shape) != 1):
            parameters += elements
            by_dtype[dtype] += elements
    most = by_dtype.most_common(1)
    return Checkpoint(stored, parameters, _TORCH.get(most[0][0]) if most else None)


def from_folder(folder: Path) -> Checkpoint | None:
    """Of the safetensors files in a local folder; None where there are none, one is broken, or a shard is missing."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    try:
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all((folder / shard).is_file() for shard in shards):
                return None
            files = sorted(folder / shard for shard in shards)
        return from_headers(tensor for file in files for tensor in _header(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return None


@lru_cache(maxsize=16)
def _read(files: tuple[tuple[Path, int, int], ...]) -> Checkpoint:
    """Of (file, time of change, size): a preflight resolves its model many times, the headers are read once."""
    return from_headers(tensor for file, *_ in files for tensor in _header(file))


def _header(file: Path) -> list[tuple[str, str, list[int]]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _MAX_HEADER:
            raise ValueError("not a safetensors header")
        header = json.loads(stream.read(length).decode("utf-8"))
    return [(name, info["dtype"], info["shape"]) for name, info in header.items() if name != "__metadata__"]
