"""A warm `estimate()` of one workload of every kind: milliseconds of CPU time, against a loop of the same Python.

    python benchmarks/estimate.py [--rounds 60] [--only WORDS] [--profile]

No torch, no network, one thread. The warm-up fills what is kept between calls (facts, names, the catalogue) and is not
counted. Every round asks for another shape (one token per sequence less, or one per training batch), as a solver does:
what was kept for a shape is of no use. Ratios are to a loop of 10,000 additions timed in the same rounds, which
depend less on the machine than milliseconds do. Aim: below a millisecond for every closed form. Playing its tensors to
the caching allocator comes on top, for what `nvidia-smi` shows: `form` is the same without that.

The first call for a model and its options plays what the library allocates, the second records it as formulas of the
shape, and those that follow fill them in (`memory.recorded`). Both are given beside the warm ones.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import platform
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from timing import interleave

from compute_awareness.estimates import assemble, generation, sae_training
from compute_awareness.estimator import estimate
from compute_awareness.memory.hooked import edges as hooked_edges
from compute_awareness.memory.hooked import patching as hooked_patching
from compute_awareness.memory.hooked import training as hooked_training
from compute_awareness.memory.recorded.recall import forget
from compute_awareness.memory.tape import Tape
from compute_awareness.workload import AnyWorkload, parse_workload

LOOP = "loop of 10,000 additions"
SHAPE = {"batch_size": 4, "seq_len": 512, "dtype": "bfloat16"}
STORE = {"model": "gpt2", "hook_name": "blocks.6.hook_resid_pre"}
EDGES = {"task": "patching", "method": "eap", "use_attn_result": True, "use_split_qkv_input": True,
         "use_hook_mlp_in": True}  # fmt: skip


def _on(model: str, task: str, library: str = "transformer_lens", **more: Any) -> dict[str, Any]:
    return {"task": task, "library": library, "model": model} | SHAPE | more


def _training(model: str, library: str = "transformers", **more: Any) -> dict[str, Any]:
    return _on(model, "training", library, **more)


CASES: dict[str, dict[str, Any]] = {
    "forward, HookedTransformer, llama-2-7b": _on("llama-2-7b", "inference"),
    "run_with_cache, gpt2": _on("gpt2", "activation_cache"),
    "run_with_cache, llama-2-7b": _on("llama-2-7b", "activation_cache"),
    "run_with_cache with gradients, gpt2": _on("gpt2", "activation_cache", with_gradients=True),
    "filtered cache, gemma-2-2b": _on("gemma-2-2b", "activation_cache", names_filter=["*hook_resid_post"]),
    "cache, TransformerBridge, llama-2-7b": _on("llama-2-7b", "activation_cache", "transformer_bridge"),
    "forward, transformers, llama-2-7b": _on("llama-2-7b", "inference", "transformers"),
    "cache, nnsight, llama-2-7b": _on(
        "llama-2-7b", "activation_cache", "nnsight", names_filter=["model.layers.*.mlp"]
    ),
    "forward with gradients, transformers, gpt2": _on(
        "gpt2", "activation_cache", "transformers", with_gradients=True, names_filter=["transformer.h.*"]
    ),
    "generate, transformers, llama-2-7b": _on("llama-2-7b", "generation", "transformers", new_tokens=64),
    "generate, HookedTransformer, llama-2-7b": _on("llama-2-7b", "generation", new_tokens=64),
    "training, transformers, llama-2-7b": _training("llama-2-7b"),
    "training, checkpointing, gemma-2-2b": _training("gemma-2-2b", gradient_checkpointing=True),
    "training, LoRA, llama-2-7b": _training("llama-2-7b", trainable="lora"),
    "training, autocast, gpt2": _training("gpt2", dtype="float32", autocast="bfloat16"),
    "training, HookedTransformer, gpt2": _training("gpt2", "transformer_lens"),
    "activation patching, llama-2-7b": _on("llama-2-7b", "patching", method="activation_patching"),
    "attribution patching, gpt2": _on("gpt2", "patching", method="attribution_patching"),
    "eap, gpt2": _on("gpt2", **EDGES),
    "eap, llama-2-7b": _on("llama-2-7b", **EDGES),
    "SAE in use, spliced": {"task": "sae_inference", "architecture": "topk", "d_sae": 24576, "splice": True} | STORE,
    "SAE training, topk": {"task": "sae_training", "architecture": "topk", "d_sae": 24576} | STORE,
    "SAE training, gated, no model": {"task": "sae_training", "architecture": "gated", "d_in": 768, "d_sae": 24576},
    "SAE training, dictionary_learning": {
        "task": "sae_training", "library": "dictionary_learning", "architecture": "batchtopk", "model": "gpt2",
        "submodule": "transformer.h.6", "d_sae": 24576,
    },
}  # fmt: skip


def _shapes(given: dict[str, Any], count: int) -> Iterator[AnyWorkload]:
    """The workload, and then with one token less each time."""
    name, most = ("seq_len", 512) if "seq_len" in given else ("train_batch_size_tokens", 4096)
    if given["task"] == "sae_inference":
        name, most = "seq_len", 512
    return iter([parse_workload(given | {name: most - number}) for number in range(count)])


def _timed(run: Callable[[], Any]) -> Callable[[], float]:
    def seconds() -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    return seconds


def _estimates(workloads: Iterator[AnyWorkload]) -> Callable[[], float]:
    def seconds() -> float:
        workload = next(workloads)
        begin = time.process_time()
        estimate(workload)
        return time.process_time() - begin

    return seconds


def _first_two(given: dict[str, Any], times: int = 5) -> tuple[float, float]:
    """Seconds of the first call for a model and its options, and of the second, with all else warm."""
    first, second = [], []
    for _ in range(times):
        forget()
        run = _estimates(_shapes(given, 2))
        first.append(run())
        second.append(run())
    return min(first), min(second)


@contextlib.contextmanager
def _without_the_allocator() -> Iterator[None]:
    """Nothing is played to the simulated allocator, nor is a list of requests made that is for it alone."""
    with contextlib.ExitStack() as patched:
        for module in (assemble, sae_training):
            patched.enter_context(patch.object(module, "reserved_by", lambda *_: 0))
        for module, name in (
            (generation, "taken_by"), (hooked_edges, "edge_requests"), (hooked_patching, "attribution_requests")
        ):  # fmt: skip
            patched.enter_context(patch.object(module, name, lambda *_: None))
        patched.enter_context(patch.object(hooked_training, "requests", lambda *_: Tape()))
        yield


def _loop() -> None:
    total = 0
    for number in range(10_000):
        total += number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="at most 400")
    parser.add_argument("--only", default="", help="cases whose name has these words")
    parser.add_argument("--profile", action="store_true", help="where the time of each case goes, by function")
    args = parser.parse_args()
    cases = {name: _estimates(_shapes(given, args.rounds + 2)) for name, given in CASES.items() if args.only in name}
    if args.profile:
        for name, run in cases.items():
            print(name, file=sys.stderr)
            _profile(run, args.rounds)
        return
    seconds = interleave({LOOP: _timed(_loop)} | cases, args.rounds)
    with _without_the_allocator():
        forms = interleave({name: _estimates(_shapes(CASES[name], args.rounds + 2)) for name in cases}, args.rounds)
    _report(seconds, forms, {name: _first_two(CASES[name]) for name in cases})


def _report(
    seconds: dict[str, list[float]], forms: dict[str, list[float]], cold: dict[str, tuple[float, float]]
) -> None:
    """A table on stderr, one JSON document on stdout."""
    loop, middle = min(seconds[LOOP]), statistics.median(seconds[LOOP])
    rows: dict[str, dict[str, float]] = {}
    print(
        f"{'':46}{'min ms':>8}{'median':>8}{'x min':>8}{'x med':>8}{'form':>8}{'first':>8}{'second':>8}",
        file=sys.stderr,
    )
    for name, times in seconds.items():
        least, median = min(times), statistics.median(times)
        rows[name] = {
            "min_ms": round(least * 1e3, 3), "median_ms": round(median * 1e3, 3),
            "ratio_of_minima": round(least / loop, 2), "ratio_of_medians": round(median / middle, 2),
        }  # fmt: skip
        line = f"{name:46}{least * 1e3:8.2f}{median * 1e3:8.2f}{least / loop:8.1f}{median / middle:8.1f}"
        if name in cold:
            first, second = (round(taken * 1e3, 3) for taken in cold[name])
            form = round(min(forms[name]) * 1e3, 3)
            rows[name] |= {"form_min_ms": form, "first_ms": first, "second_ms": second}
            line += f"{form:8.2f}{first:8.1f}{second:8.1f}"
        print(line, file=sys.stderr)
    system = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    print(json.dumps({"what": "a warm estimate()", "cases": rows} | system, indent=2))


def _profile(run: Callable[[], Any], rounds: int) -> None:
    run()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(rounds):
        run()
    profile.disable()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
