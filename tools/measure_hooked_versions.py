"""Measure what a release of TransformerLens allocates, and add it to tests/truth/data/hooked_versions.json.

The tests run one release of TransformerLens only; figures for older ones are held against this record. Run it once in
an environment with each release (torch, transformers, transformer-lens, pydantic; for 2.x transformers 4):

    python tools/measure_hooked_versions.py [model ...]

What it measures is real: small models on the CPU, live storages followed by tests/truth/meters.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "truth" / "data" / "hooked_versions.json"
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests" / "truth")]

import builders  # noqa: E402  # pyright: ignore[reportMissingImports]
import meters  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
import transformer_lens  # noqa: E402

from compute_awareness.memory.hooked.versions import missing  # noqa: E402
from compute_awareness.models.catalogue import find  # noqa: E402
from compute_awareness.models.spec import ModelSpec  # noqa: E402

MODELS = (
    "gpt2", "pythia-70m", "llama-2-7b", "llama-3.2-1b", "mistral-7b", "gemma-2-2b", "qwen2.5-0.5b", "phi-2",
    "gpt-neo-125m", "gpt-j-6b", "opt-125m", "bloom-560m", "solu-1l", "attn-only-2l",
)  # fmt: skip
LOADED = ("gpt2", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "qwen2.5-0.5b")
WORKLOADS: tuple[dict[str, Any], ...] = (
    {"task": "inference", "batch_size": 3, "seq_len": 48},
    {"task": "activation_cache", "batch_size": 2, "seq_len": 40},
    {"task": "activation_cache", "batch_size": 1, "seq_len": 33, "no_processing": True},
    {"task": "activation_cache", "batch_size": 2, "seq_len": 24, "names_filter": ["*resid_post", "*hook_pattern"]},
    {"task": "activation_cache", "batch_size": 2, "seq_len": 24, "use_attn_result": True, "stop_at_layer": 1},
    {"task": "activation_cache", "batch_size": 2, "seq_len": 24, "use_split_qkv_input": True, "use_hook_mlp_in": True},
)


def small(name: str) -> ModelSpec | None:
    """The catalogue's model with few narrow layers; its kind of attention, norms and positions stays."""
    spec = find(name)
    if spec is None:
        return None
    d_head = 16 if spec.architecture in ("LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM") else 24
    rotary_dim = None
    if spec.rotary_dim is not None:
        rotary_dim = d_head if spec.rotary_dim == spec.d_head else 8
    shape = {
        "name": f"{name}-small", "n_layers": 3, "d_model": 96, "n_heads": 4, "d_head": d_head, "d_vocab": 500,
        "n_kv_heads": 2 if spec.n_kv_heads < spec.n_heads else 4, "d_mlp": 384 if spec.d_mlp else 0, "n_ctx": 128,
        "n_ctx_tl": 128, "rotary_dim": rotary_dim, "window": 20 if spec.window else None,
    }  # fmt: skip
    return spec.model_copy(update=shape)


def config(spec: ModelSpec, dtype: str, folded: bool) -> Any:
    """The release's own HookedTransformerConfig, with the fields it knows."""
    known = transformer_lens.HookedTransformerConfig
    fields = {field.name for field in dataclasses.fields(known)} if dataclasses.is_dataclass(known) else set()
    fields |= set(inspect.signature(known).parameters)
    original = transformer_lens.HookedTransformerConfig
    transformer_lens.HookedTransformerConfig = lambda **given: original(
        **{name: value for name, value in given.items() if name in fields}
    )
    try:
        return builders.tl_config(spec, "cpu", dtype, folded=folded)
    finally:
        transformer_lens.HookedTransformerConfig = original


def forward(spec: ModelSpec, dtype: str, workload: dict[str, Any]) -> dict[str, int]:
    """Peak above weights and buffers, and distinct bytes of the cache, of one call."""
    cfg = config(spec, dtype, not workload.get("no_processing", False))
    with builders.quiet():
        model = transformer_lens.HookedTransformer(cfg).eval()
    for switch in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in"):
        if workload.get(switch):
            getattr(model, f"set_{switch}")(True)
    tokens = torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long)
    held = builders.held_tensors(model)

    def run() -> Any:
        if workload["task"] == "inference":
            return model(tokens), {}
        chosen = workload.get("names_filter", ["*"])
        stop = {"stop_at_layer": workload["stop_at_layer"]} if "stop_at_layer" in workload else {}
        return model.run_with_cache(
            tokens, names_filter=lambda name: any(fnmatch(name, pattern) for pattern in chosen), **stop
        )

    with builders.quiet(), torch.no_grad():
        measured = meters.measure_peak(run, [*held, tokens])
    return {
        "weights": meters.distinct_bytes(model.parameters()),
        "buffers": meters.distinct_bytes(held) - meters.distinct_bytes(model.parameters()),
        "peak": measured.bytes + 8 * tokens.numel(),
        "cache": meters.distinct_bytes(measured.result[1].values()),
    }


def loading(spec: ModelSpec, dtype: str, no_processing: bool) -> int:
    """Peak of from_pretrained, the Hugging Face model that it loads included."""
    cfg = config(spec, dtype, not no_processing)
    source: Any = importlib.import_module("transformer_lens.loading_from_pretrained")

    class Hub:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            loaded = builders.hf_model(spec, "cpu", dtype)
            if spec.architecture == "GPTNeoXForCausalLM" and not hasattr(loaded, "embed_out"):
                loaded.embed_out = loaded.lm_head  # renamed in transformers 5.14; older releases ask for it
            return loaded

    kept = {name: getattr(source, name) for name in ("get_pretrained_model_config", "get_official_model_name")}
    hub = source.AutoModelForCausalLM
    source.get_pretrained_model_config = lambda *_, **__: cfg
    source.get_official_model_name = lambda name: name
    source.AutoModelForCausalLM = Hub
    model = transformer_lens.HookedTransformer
    load = model.from_pretrained_no_processing if no_processing else model.from_pretrained
    try:
        with builders.quiet():
            return meters.profiler_peak(lambda: load("gpt2", dtype=builders.torch_dtype(dtype), device="cpu")).bytes  # pyright: ignore[reportArgumentType]
    finally:
        source.AutoModelForCausalLM = hub
        for name, value in kept.items():
            setattr(source, name, value)


def measure(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        spec = small(name)
        if spec is None or missing(spec, version("transformer-lens")):
            continue
        for dtype in ("float32", "bfloat16"):
            for workload in WORKLOADS:
                if workload.get("use_hook_mlp_in") and not spec.d_mlp:
                    workload = {key: value for key, value in workload.items() if key != "use_hook_mlp_in"}
                yield {"model": name, "dtype": dtype, "workload": workload, **forward(spec, dtype, workload)}
            for no_processing in (False, True) if name in LOADED else ():
                peak = loading(spec, dtype, no_processing)
                yield {"model": name, "dtype": dtype, "no_processing": no_processing, "loading_peak": peak}


def main() -> None:
    release = version("transformer-lens")
    record = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"models": {}, "releases": {}}
    cases = list(measure(sys.argv[1:] or MODELS))
    for name in {case["model"] for case in cases}:
        spec = small(name)
        assert spec is not None
        record["models"][name] = spec.model_dump(
            mode="json", exclude_defaults=True, exclude={"source", "aliases", "hf_id", "tl_name"}
        )
    record["releases"][release] = {
        "torch": torch.__version__, "transformers": version("transformers"), "cases": cases,
    }  # fmt: skip
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(written(record), encoding="utf-8")
    print(f"{release}: {len(cases)} cases")


def written(record: dict[str, Any]) -> str:
    """The record as JSON, one model and one case a line."""
    models = ",\n".join(f"  {json.dumps(name)}: {json.dumps(spec)}" for name, spec in sorted(record["models"].items()))
    releases = []
    for name, entry in sorted(record["releases"].items()):
        head = json.dumps({key: value for key, value in entry.items() if key != "cases"})[:-1]
        cases = ",\n   ".join(json.dumps(case) for case in entry["cases"])
        releases.append(f'  {json.dumps(name)}: {head}, "cases": [\n   {cases}\n  ]}}')
    return f'{{\n "models": {{\n{models}\n }},\n "releases": {{\n' + ",\n".join(releases) + "\n }\n}\n"


if __name__ == "__main__":
    main()
