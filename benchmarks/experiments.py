"""Every covered workload as a real experiment on a device: what is there beforehand, and the part to be measured.

The models are those of the truth tests (`tests/truth/builders.py`): built from the numbers of the catalogue, weights
random. Used by `accuracy.py` on the CPU and on torch's meta device, and by `gpu_truth.py` on a GPU, so that what is
tried here is what runs there. This module has the passes and generation; `experiments_steps` the gradients and SAEs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import parse_workload

TRUTH = Path(__file__).parents[1] / "tests" / "truth"
SWITCHES = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in")
# Past this many tokens the first pass of a rotary HookedTransformer lengthens tables that it then keeps.
_ROTARY_ROWS = 2048


@dataclass
class Experiment:
    """`run` is measured, after `warm_up`; `held()` is then already there (parameters, inputs, Adam's state)."""

    held: Callable[[], list[Any]]
    run: Callable[[], Any]
    warm_up: Callable[[], Any] | None = None
    gradients: bool = False
    steps: int = 1
    """Training steps in one run."""
    again: bool = True
    """`run` can be called again."""


def truth_module(name: str) -> Any:
    """A module of tests/truth."""
    if str(TRUTH) not in sys.path:
        sys.path.insert(0, str(TRUTH))
    return importlib.import_module(name)


def experiment(workload: dict[str, Any], device: str, *, many_steps: bool = False) -> Experiment:
    """The experiment that `workload` describes, ready to run on `device` ("meta", "cpu", "cuda").

    `many_steps`: an SAE is trained for some dozen steps and not for two, so that what happens once weighs little.
    """
    filled = parse_workload(workload).model_dump()
    match filled["task"], filled["library"]:
        case "activation_cache" | "inference", "transformer_lens":
            return _hooked_pass(filled, device)
        case "activation_cache" | "inference", "transformer_bridge":
            return _bridge_pass(filled, device)
        case "inference", "transformers":
            return _transformers_pass(filled, device)
        case "generation", library:
            return _generation(filled, device, library)
    return importlib.import_module("experiments_steps").experiment(filled, device, many_steps)


def tokens_of(workload: dict[str, Any], device: str) -> Any:
    """Token ids [batch_size, seq_len], int64."""
    import torch

    return torch.zeros(workload["batch_size"], workload["seq_len"], dtype=torch.long, device=device)


def kept(workload: dict[str, Any]) -> Callable[[str], bool]:
    """names_filter of run_with_cache: the globs of the workload and its blocks."""
    patterns, layers = workload.get("names_filter"), workload.get("layers")
    within = tuple(f"blocks.{layer}." for layer in layers) if layers else ("",)
    return lambda name: name.startswith(within) and (patterns is None or any(fnmatchcase(name, p) for p in patterns))


def hooked_model(workload: dict[str, Any], device: str, spec: ModelSpec | None = None) -> Any:
    """The HookedTransformer of a workload, its cfg switches set."""
    builders = truth_module("builders")
    spec = spec or resolve(workload["model"])
    model = builders.hooked_transformer(spec, device, workload["dtype"], folded=not workload["no_processing"])
    for switch in SWITCHES:
        if workload.get(switch):
            getattr(model, f"set_{switch}")(True)
    return model


def _held(*sources: Any) -> Callable[[], list[Any]]:
    held_tensors = truth_module("builders").held_tensors

    def held() -> list[Any]:
        return [t for source in sources for t in (held_tensors(source) if hasattr(source, "buffers") else [source])]

    return held


def _hooked_pass(workload: dict[str, Any], device: str) -> Experiment:
    import torch

    model, tokens = hooked_model(workload, device), tokens_of(workload, device)
    keep = kept(workload)
    stop = {} if workload.get("stop_at_layer") is None else {"stop_at_layer": workload["stop_at_layer"]}

    def run() -> Any:
        with torch.set_grad_enabled(workload.get("with_gradients", False)):
            if workload["task"] == "inference":
                return model(tokens), {}
            return model.run_with_cache(tokens, names_filter=keep, **stop)

    def lengthen() -> None:
        with torch.no_grad():
            model(tokens)

    return Experiment(_held(model, tokens), run, lengthen if workload["seq_len"] > _ROTARY_ROWS else None)


def _transformers_pass(workload: dict[str, Any], device: str) -> Experiment:
    import torch

    spec = resolve(workload["model"])
    attention = workload["attention"] or _default_attention(spec)
    model = truth_module("builders").hf_model(spec, device, workload["dtype"], attention)
    tokens = tokens_of(workload, device)
    use_cache = workload["kv_cache"] is not False
    extra = {name: True for name in ("output_hidden_states", "output_attentions") if workload[name]}

    @torch.no_grad()
    def run() -> Any:
        return model(tokens, use_cache=use_cache, **extra)

    return Experiment(_held(model, tokens), run)


def _default_attention(spec: ModelSpec) -> str:
    from compute_awareness.memory.huggingface.forward import default_attention

    return default_attention(spec)


def _bridge_pass(workload: dict[str, Any], device: str) -> Experiment:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    builders, bridges = truth_module("builders"), truth_module("test_bridge")
    spec = resolve(workload["model"])
    model = builders.hf_model(spec, device, workload["dtype"], "eager")
    model.config.output_attentions = True  # what boot_transformers asks of the config that it loads
    bridge = TransformerBridge.boot_transformers(
        spec.hf_id or spec.name, hf_model=model, device=device, dtype=builders.torch_dtype(workload["dtype"]),
        tokenizer=bridges._tokenizer(),
    )  # fmt: skip
    if workload["compatibility_mode"]:
        bridge.enable_compatibility_mode(no_processing=workload["no_processing"])
    tokens = tokens_of(workload, device)
    # What the library does without a filter is not what it does with one that keeps all.
    chosen = bridges._chosen(workload)

    @torch.no_grad()
    def run() -> Any:
        if workload["task"] == "inference":
            return bridge(tokens), {}
        return bridge.run_with_cache(tokens, names_filter=chosen)

    return Experiment(lambda: [*bridges._held(bridge), tokens], run)


def _generation(workload: dict[str, Any], device: str, library: str) -> Experiment:
    """Greedy; the end-of-sequence token lies outside the vocabulary, so every new token is made."""
    import torch

    builders = truth_module("builders")
    spec = resolve(workload["model"])
    ids = tokens_of(workload, device) + 1
    new, cached = workload["new_tokens"], workload["kv_cache"]
    if library == "transformer_lens":
        hooked = hooked_model(workload, device, spec)
        hooked.tokenizer = SimpleNamespace(padding_side="right", pad_token_id=0, bos_token_id=0, eos_token_id=10**6)
        # Under inference_mode, which generate sets, a dispatch mode does not see inside operators.
        generate = type(hooked).generate.__wrapped__

        @torch.no_grad()
        def run() -> Any:
            return generate(hooked, ids, max_new_tokens=new, use_past_kv_cache=cached, verbose=False)

        return Experiment(_held(hooked, ids), run)
    model = builders.hf_model(spec, device, workload["dtype"], workload["attention"] or _default_attention(spec))
    config = model.generation_config
    config.eos_token_id, config.pad_token_id, config.bos_token_id = model.config.vocab_size, None, None

    @torch.no_grad()
    def run() -> Any:
        return model.generate(ids, max_new_tokens=new, do_sample=False, use_cache=cached)

    return Experiment(_held(model, ids), run)


def distinct_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the distinct storages behind `tensors`."""
    return truth_module("meters").distinct_bytes(tensors)
