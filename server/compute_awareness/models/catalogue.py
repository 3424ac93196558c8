"""The models known by name: `facts/models.json`, written by `tools/build_models.py`, read when first asked."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from ..errors import nearest
from .spec import ModelSpec

_FILE = Path(__file__).parent.parent / "facts" / "models.json"


@lru_cache(maxsize=256)
def canonical(name: str) -> str:
    """The form in which names are compared: lower case, with hyphens for underscores and blanks."""
    return "-".join(name.lower().replace("_", " ").split())


@cache
def _entries() -> dict[str, dict[str, Any]]:
    """Catalogue name to the stored fields, in the order of the file (sorted by name)."""
    return {entry["name"]: entry for entry in json.loads(_FILE.read_text(encoding="utf-8"))}


@cache
def _index() -> dict[str, str]:
    """Every canonical spelling to the catalogue name it means."""
    index: dict[str, str] = {}
    for name, entry in _entries().items():
        for spelling in (name, entry.get("hf_id"), entry.get("tl_name"), *entry.get("aliases", ())):
            if spelling:
                index.setdefault(canonical(spelling), name)
    return index


@cache
def _spec(name: str) -> ModelSpec:
    # Our own table, validated by a test: building the validator would cost more than all else a short command does.
    entry = _entries()[name]
    return ModelSpec.model_construct(None, **(entry | {"aliases": tuple(entry.get("aliases", ()))}))


def find(name: str) -> ModelSpec | None:
    """The catalogue's model of that name, alias, Hugging Face id or TransformerLens name, in any case; or None.

    An id with an organisation means exactly that repository: `someone/gpt2` is not `gpt2`.
    """
    known = _index().get(canonical(name))
    return _spec(known) if known else None


def names() -> list[str]:
    """Catalogue names, sorted: one per model, aliases left out."""
    return list(_entries())


def near(name: str, limit: int = 5) -> list[str]:
    """Names of catalogue models closest to `name`, best first, each model once."""
    wanted = canonical(name).split("/")[-1]
    index = _index()
    close = nearest(wanted, (spelling for spelling in index if "/" not in spelling), limit * 3)
    return list(dict.fromkeys(index[spelling] for spelling in close))[:limit]


def rows() -> list[dict[str, Any]]:
    """One row per model for a listing: name, Hugging Face id, architecture, sizes, context and aliases.

    Plain data, without building a `ModelSpec` per model; counts and bytes come from `find` and `memory.weights`.
    """
    shown = ("name", "hf_id", "architecture", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_vocab", "n_ctx")
    return [
        {field: entry.get(field) for field in shown} | {"aliases": entry.get("aliases", [])}
        for entry in _entries().values()
    ]
