"""Writes `facts/models.json`, the model catalogue, from `models_input.json` and the rules of each family.

Run `python tools/build_models.py` after changing either; `tests/truth/test_catalogue.py` then rebuilds every model
from what was written and counts its parameters. The input holds what differs from model to model (dimensions, names,
where they were read); `models/families.py` holds what a family's own code fixes; the table below where one model
departs from its family, read in transformer-lens 3.9.0 (`loading_from_pretrained.py`) and in the published configs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "server"))

from compute_awareness.models.families import with_family  # noqa: E402
from compute_awareness.models.spec import TOY, ModelSpec  # noqa: E402

INPUT = Path(__file__).with_name("models_input.json")
OUTPUT = ROOT / "server" / "compute_awareness" / "facts" / "models.json"

# Where a model departs from its family. The pattern must match the whole repository id.
EXCEPTIONS: list[tuple[str, dict[str, Any]]] = [
    # TransformerLens caps these by name ("capped due to memory issues").
    (r"meta-llama/Llama-3\.[123]-(1B|3B|8B|70B).*", {"n_ctx_tl": 2048}),
    (r"codellama/.*", {"n_ctx_tl": 4096}),
    (r"roneneldan/TinyStories.*", {"n_ctx_tl": 512}),
    (r"mistralai/Mistral-7B-(Instruct-)?v0\.1", {"window": 4096, "local_layers": "all"}),
    (r"microsoft/Phi-3-mini-4k-instruct", {"window": 2047, "local_layers": "all"}),
    (r"microsoft/phi-2", {"rotary": 0.4}),
    (r"allenai/OLMo-7B-hf", {"clip_qkv": True}),
    (r"(meta-llama|google)/.*", {"gated_repo": True}),
]

NAMES = {
    "openai-community/gpt2": "gpt2",
    "mistralai/Mistral-7B-v0.1": "mistral-7b",
    "mistralai/Mistral-7B-Instruct-v0.1": "mistral-7b-instruct",
    "huggyllama/llama-7b": "llama-7b",
    "huggyllama/llama-13b": "llama-13b",
    "microsoft/phi-1_5": "phi-1.5",
    "ArthurConmy/redwood_attn_2l": "redwood-attn-2l",
    "Baidicoot/Othello-GPT-Transformer-Lens": "othello-gpt",
    "NeelNanda/Attn-Only-2L512W-Shortformer-6B-big-lr": "attn-only-2l-demo",
}
# Repositories that moved or that exist twice.
EXTRA_ALIASES = {
    "meta-llama/Llama-3.1-8B": ["meta-llama/Meta-Llama-3.1-8B"],
    "meta-llama/Llama-3.1-70B": ["meta-llama/Meta-Llama-3.1-70B"],
    "meta-llama/Llama-3.1-405B": ["meta-llama/Meta-Llama-3.1-405B"],
    "meta-llama/Llama-3.1-8B-Instruct": ["meta-llama/Meta-Llama-3.1-8B-Instruct"],
    "meta-llama/Llama-3.1-70B-Instruct": ["meta-llama/Meta-Llama-3.1-70B-Instruct"],
    "microsoft/phi-1_5": ["phi-1_5"],
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ["tinyllama", "tinyllama-1.1b", "tinyllama-1.1b-chat"],
    "lmsys/vicuna-7b-v1.5": ["vicuna-7b"],
}
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def short_name(row: dict[str, Any]) -> str:
    """The catalogue key: the repository's own name in lower case, without `-hf` and without `meta-`."""
    if row["hf_id"] in NAMES:
        return NAMES[row["hf_id"]]
    if row["hf_id"].startswith("NeelNanda/"):
        return min(row["aliases"], key=len)
    return row["hf_id"].split("/")[-1].lower().removesuffix("-hf").removeprefix("meta-")


def spellings(name: str) -> list[str]:
    """How people also write a short name: `pythia70m`, `llama2-7b`, `llama-2-7b-hf`; without the release prefix."""
    out = []
    # "gemma2b" may mean Gemma 2B or Gemma 2 2B, so it stays unknown and the nearest names are listed.
    if not re.fullmatch(r"gemma-[27]b(-it)?", name):
        out.append(re.sub(r"^([a-z]+)-(\d)", r"\1\2", name))
    if name.startswith(("llama-", "codellama-", "olmo-")):
        out.append(name + "-hf")
    if name.startswith("deepseek-"):
        out.append(name.removeprefix("deepseek-"))
    if name == "gpt2":
        out += ["gpt-2", "gpt-2-small"]
    return out


def fields_of(row: dict[str, Any]) -> dict[str, Any]:
    """All ModelSpec fields of one input row, names left out."""
    fields = {k: row[k] for k in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp", "d_vocab")}
    fields |= {"hf_id": row["hf_id"], "architecture": row["architecture"], "act_fn": row["act_fn"]}
    fields |= {"n_ctx": row["n_ctx"], "tied_embeddings": row["tied"], "checkpoint_dtype": DTYPES.get(row["dtype"])}
    fields |= {"tl_name": row["tl_name"], "source": row["source"]}
    if row["architecture"] == TOY:
        fields |= {"norm": row["norm"], "positional": {"standard": "learned"}.get(row["positional"], row["positional"])}
    for pattern, departs in EXCEPTIONS:
        if re.fullmatch(pattern, row["hf_id"]):
            fields |= departs
    return with_family(fields)


def build(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The catalogue's entries, sorted by name. Raises ValueError where two models claim one name."""
    specs = [ModelSpec(name=short_name(row), **fields_of(row)) for row in rows]
    # Names and ids first: no spelling of one model may hide the proper name of another.
    taken: dict[str, str] = {}
    for spec in specs:
        for key in (spec.name, spec.hf_id or "", spec.tl_name or ""):
            owner = taken.setdefault(key.lower(), spec.name)
            if key and owner != spec.name:
                raise ValueError(f"{key} names both {owner} and {spec.name}")
    entries = []
    for spec, row in zip(specs, rows, strict=True):
        tail = row["hf_id"].split("/")[-1]
        extra = EXTRA_ALIASES.get(row["hf_id"], [])
        wanted = [*row["aliases"], tail, *extra, *(e.split("/")[-1] for e in extra), *spellings(spec.name)]
        aliases: dict[str, str] = {}
        for alias in wanted:
            if taken.setdefault(alias.lower(), spec.name) == spec.name:
                aliases.setdefault(alias.lower(), alias)
        for own in (spec.name, spec.hf_id or "", spec.tl_name or ""):
            aliases.pop(own.lower(), None)
        entry = spec.model_copy(update={"aliases": tuple(aliases[k] for k in sorted(aliases))})
        entries.append(entry.model_dump(mode="json", exclude_defaults=True))
    return sorted(entries, key=lambda entry: entry["name"])


def render(entries: list[dict[str, Any]]) -> str:
    """The file's text: one model per line, so that a change of one model is a change of one line."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f"[\n{lines}\n]\n"


def main() -> None:
    entries = build(json.loads(INPUT.read_text(encoding="utf-8")))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(render(entries), encoding="utf-8", newline="\n")
    print(f"{len(entries)} models -> {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
