"""The hooks that fire and the tensors that autograd saves, derived from the installed libraries, and what changed.

    python tools/library_tables.py                 compare the installed libraries with the committed tables
    python tools/library_tables.py --write         write the tables of the installed libraries; others stay

The figures of `server/compute_awareness/memory/` were transcribed from these libraries' sources. Run this in an
environment with a new release: what it prints is what must be read again there. It exits with 1 where something
changed. Needs torch and whichever of transformer-lens, sae-lens and transformers is to be looked at; no network, no
weights, less than a minute on a CPU. Sizes are small primes and their products, so that a shape can be written in
symbols.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[1] / "tests" / "truth" / "data" / "library_tables.json"
BATCH, SEQ, HEADS, KV, D_HEAD, D_MLP, VOCAB, N_CTX, LAYERS = 3, 7, 4, 2, 14, 58, 101, 17, 2
D_MODEL = HEADS * D_HEAD
SYMBOLS = {
    BATCH: "batch", SEQ: "seq", D_MODEL: "d_model", HEADS: "n_heads", KV: "n_kv_heads", D_HEAD: "d_head",
    D_MLP: "d_mlp", VOCAB: "d_vocab", BATCH * SEQ: "tokens", BATCH * HEADS: "batch*n_heads", 2 * D_MLP: "2*d_mlp",
    3 * D_MODEL: "3*d_model", BATCH * (SEQ - 1): "tokens-batch",
}  # fmt: skip

_HOOKED: dict[str, dict[str, Any]] = {
    "gpt2-like": {"normalization_type": "LN", "act_fn": "gelu_new"},
    "pythia-like": {
        "normalization_type": "LN", "act_fn": "gelu", "positional_embedding_type": "rotary", "rotary_dim": 4,
        "parallel_attn_mlp": True,
    },
    "llama-like": {
        "normalization_type": "RMS", "act_fn": "silu", "positional_embedding_type": "rotary", "rotary_dim": D_HEAD,
        "gated_mlp": True, "n_key_value_heads": KV,
    },
    "gemma-2-like": {
        "normalization_type": "RMS", "act_fn": "gelu_pytorch_tanh", "positional_embedding_type": "rotary",
        "rotary_dim": D_HEAD, "gated_mlp": True, "n_key_value_heads": KV, "attn_scores_soft_cap": 50.0,
        "output_logits_soft_cap": 30.0, "use_normalization_before_and_after": True,
    },
    "qwen3-like": {
        "normalization_type": "RMS", "act_fn": "silu", "positional_embedding_type": "rotary", "rotary_dim": D_HEAD,
        "gated_mlp": True, "n_key_value_heads": KV, "use_qk_norm": True,
    },
}  # fmt: skip
_SWITCHES = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")

_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_inner": D_MLP, "n_positions": N_CTX,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "GPTNeoX": {"intermediate_size": D_MLP},
    "Llama": {"intermediate_size": D_MLP, "num_key_value_heads": KV},
    "Qwen3": {"intermediate_size": D_MLP, "num_key_value_heads": KV, "head_dim": D_HEAD},
}  # fmt: skip
_COMMON = {
    "hidden_size": D_MODEL, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": N_CTX
}  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _shape(tensor: Any) -> str:
    if tensor.dtype.is_floating_point is False and tensor.dtype.is_complex is False and tensor.element_size() == 8:
        return f"{tensor.ndim}-d index"  # how many indices there are may depend on the data
    sizes = ", ".join(SYMBOLS.get(size, str(size)) for size in tensor.shape)
    return f"[{sizes}] {str(tensor.dtype).removeprefix('torch.')}"


def _saved(model: Any, loss: Callable[[], Any]) -> dict[str, int]:
    """What autograd saves for the backward pass of `loss()`: shape -> how many distinct storages, weights left out."""
    import torch

    held = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    seen: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        key = tensor.untyped_storage()._cdata
        if key not in held:
            seen.setdefault(key, tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return dict(sorted(Counter(_shape(tensor) for tensor in seen.values()).items()))


def hooked_tables() -> dict[str, Any]:
    """Of HookedTransformer: cached hooks by family, buffers, and saved tensors, for each kind of model and switch."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    tables: dict[str, Any] = {}
    tokens = torch.zeros(BATCH, SEQ, dtype=torch.long)
    for kind, more in _HOOKED.items():
        config = HookedTransformerConfig(
            n_layers=LAYERS, d_model=D_MODEL, n_heads=HEADS, d_head=D_HEAD, d_mlp=D_MLP, d_vocab=VOCAB, n_ctx=N_CTX,
            device="cpu", seed=0, **more,
        )  # fmt: skip
        model = HookedTransformer(config)
        table: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
        table["buffers"] = dict(sorted(Counter(_shape(buffer) for buffer in model.buffers()).items()))
        table["hooks"] = _hooks(model, tokens)
        table["saved"] = _saved(model, lambda model=model: model(tokens, return_type="loss"))
        for switch in _SWITCHES:
            getattr(model, f"set_{switch}")(True)
            hooks = _hooks(model, tokens)
            table[switch] = {name: hook for name, hook in hooks.items() if table["hooks"].get(name) != hook}
            getattr(model, f"set_{switch}")(False)
        tables[kind] = table
    return tables


def _hooks(model: Any, tokens: Any) -> dict[str, str]:
    import torch

    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    families: dict[str, Any] = {}
    for name, tensor in cache.items():
        families.setdefault(re.sub(r"^blocks\.\d+\.", "blocks.i.", name), []).append(tensor)
    return {family: f"{len(tensors)} x {_shape(tensors[0])}" for family, tensors in families.items()}


def transformers_tables() -> dict[str, Any]:
    """Of transformers models in eval mode: parameters and saved tensors, eager and sdpa."""
    import torch
    import transformers

    tables: dict[str, Any] = {}
    ids = torch.zeros(BATCH, SEQ, dtype=torch.long)
    for kind, more in _TRANSFORMERS.items():
        sizes = more if kind == "GPT2" else _COMMON | more
        config = getattr(transformers, f"{kind}Config")(vocab_size=VOCAB, **sizes)
        for attention in ("eager", "sdpa"):
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
            tables[f"{kind} {attention}"] = {
                "parameters": sum(p.numel() for p in model.parameters()),
                "saved": _saved(model.eval(), lambda model=model: model(ids, labels=ids, use_cache=False).loss),
            }
    return tables


def sae_tables() -> dict[str, Any]:
    """Of every training SAE that SAELens registers: parameters, and the shapes that autograd saves in one step."""
    import torch
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
    from sae_lens.saes.sae import TrainStepInput

    tables: dict[str, Any] = {}
    for name, (sae_class, config_class) in sorted(SAE_TRAINING_CLASS_REGISTRY.items()):
        more: dict[str, Any] = {"k": 5} if "k" in config_class.__dataclass_fields__ else {}
        if "d_out" in config_class.__dataclass_fields__:
            more["d_out"] = D_MODEL
        if "matryoshka_widths" in config_class.__dataclass_fields__:
            more["matryoshka_widths"] = [17, VOCAB]
        try:
            runs = []
            for seed in (0, 1):
                torch.manual_seed(seed)
                sae = sae_class(config_class(d_in=D_MODEL, d_sae=VOCAB, dtype="float32", device="cpu", **more))
                step = TrainStepInput(
                    sae_in=torch.randn(BATCH, D_MODEL), coefficients=dict.fromkeys(sae.get_coefficients(), 1.0),
                    dead_neuron_mask=None, n_training_steps=0, is_logging_step=False,
                )  # fmt: skip
                runs.append(sorted(_saved(sae, lambda sae=sae, step=step: sae.training_forward_pass(step).loss)))
            table: dict[str, Any] = {
                "parameters": {key: _shape(p) for key, p in sae.named_parameters()},
                # Slices of other widths come and go with the data.
                "saved": sorted(s for s in {*runs[0]} & {*runs[1]} if not re.search(r", \d", s)),
            }
        except Exception as error:  # a release may ask for other arguments: that too is a change to look at
            table = {"refused": f"{type(error).__name__}: {str(error)[:120]}"}
        tables[name] = json.loads(json.dumps(table).replace("d_model", "d_in").replace("d_vocab", "d_sae"))
    return tables


DERIVE: dict[str, Callable[[], dict[str, Any]]] = {
    "transformer-lens": hooked_tables,
    "transformers": transformers_tables,
    "sae-lens": sae_tables,
}


def derive() -> dict[str, Any]:
    """The tables of every library that is installed, with its version."""
    found: dict[str, Any] = {}
    for library, make in DERIVE.items():
        try:
            installed = version(library)
        except PackageNotFoundError:
            continue
        with _quiet():
            try:
                found[library] = {"version": installed, "tables": make()}
            except ImportError as error:
                found[library] = {"version": installed, "tables": {}, "refused": str(error)[:200]}
    return found


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each leaf that differs, by its path."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            where = f"{path} / {key}" if path else str(key)
            if key not in new:
                lines.append(f"{where}: gone (was {json.dumps(old[key])[:100]})")
            elif key not in old:
                lines.append(f"{where}: new, {json.dumps(new[key])[:100]}")
            else:
                lines += differences(old[key], new[key], where)
        return lines
    return [] if old == new else [f"{path}: {json.dumps(old)[:80]} -> {json.dumps(new)[:80]}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables instead of comparing")
    given = parser.parse_args()
    found = derive()
    if not found:
        parser.error(f"none of {', '.join(DERIVE)} is installed beside {sys.executable}")
    committed = json.loads(TABLES.read_text(encoding="utf-8")) if TABLES.exists() else {}
    if given.write:
        for library, now in found.items():
            if "refused" in now:
                print(f"{library} {now['version']}: not derived, its tables stay: {now['refused']}")
        # what is not installed here, or cannot be derived, keeps its tables
        kept = committed | {library: now for library, now in found.items() if "refused" not in now}
        TABLES.parent.mkdir(exist_ok=True)
        TABLES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8", newline="\n")
        return 0
    changed = 0
    for library, now in found.items():
        before = committed.get(library, {"version": "none", "tables": {}})
        if "refused" in now:
            print(f"{library} {before['version']} -> {now['version']}: not derived: {now['refused']}")
            changed += 1
            continue
        lines = differences(before["tables"], now["tables"])
        changed += len(lines)
        print(f"{library} {before['version']} -> {now['version']}: {len(lines) or 'no'} differences")
        for line in lines:
            print(f"  {line}")
    for library in DERIVE.keys() - found.keys():
        print(f"{library}: not installed here, not looked at")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
