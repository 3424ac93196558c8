"""Headers of safetensors files, written by the real library and by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file

from compute_awareness.models.checkpoint import from_folder, from_headers


def test_a_folder_that_the_real_library_wrote(tmp_path: Path) -> None:
    tensors = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.bool),
        "transformer.h.0.attn.c_attn.bias": torch.zeros(24),
        "transformer.h.0.attn.c_attn.weight": torch.zeros(8, 24),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "transformer.wte.weight": torch.zeros(50, 8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    found = from_folder(tmp_path)
    assert found is not None
    assert found.stored_bytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert found.parameters == 24 + 8 * 24 + 50 * 8
    assert found.dtype == "float32"


def test_shards_must_all_be_there(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}), encoding="utf-8")
    assert from_folder(tmp_path) is None
    save_file({"b": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "two.safetensors")
    found = from_folder(tmp_path)
    assert found is not None and (found.stored_bytes, found.parameters, found.dtype) == (12, 6, "bfloat16")


def test_broken_files_say_nothing(tmp_path: Path) -> None:
    assert from_folder(tmp_path) is None
    for content in (
        b"",
        b"abc",
        struct.pack("<Q", 10**15),
        struct.pack("<Q", 40) + b'{"a":',
        struct.pack("<Q", 2) + b"[]",
    ):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert from_folder(tmp_path) is None


def test_packed_and_small_dtypes_are_counted_by_their_bits() -> None:
    found = from_headers([("w", "F4", [3, 3]), ("s", "F8_E4M3", [3])])
    assert (found.stored_bytes, found.parameters, found.dtype) == (5 + 3, 12, None)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Headers are kept by what the file is, not by its name."""
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4)}, file)
    first = from_folder(tmp_path)
    save_file({"a": torch.zeros(4000)}, file)
    second = from_folder(tmp_path)
    assert first is not None and second is not None and (first.parameters, second.parameters) == (4, 4000)
