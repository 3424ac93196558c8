"""Green means it runs: what the advice offers is run, from its own code, on a card with no byte more than the budget.

The real libraries on the CPU, under a meter of live tensor bytes that raises. For every workload and budget here: the
original runs out of memory, every change and every combination that is offered as fitting finishes, the largest batch
or length finishes and one more dies. What is run is the text of `Change.code`, with small random models under the names
of published ones.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import hf_model
from hooked_models import inline, small
from metered_runs import Experiment, by_record, program, run
from meters import OverBudget

from compute_awareness.advice.answers import Change
from compute_awareness.advice.attempt import patched
from compute_awareness.advice.changes_further import further
from compute_awareness.advice.code import code_of
from compute_awareness.advice.place import Place, needed
from compute_awareness.advice.solver import combinations, largest_sizes
from compute_awareness.advice.strategies import changes
from compute_awareness.estimator import estimate
from compute_awareness.memory.card.device import cpu_process_bytes
from compute_awareness.memory.huggingface.placement import room_for
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import AnyWorkload, parse_workload

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SCALARS = 800
"""Bytes of losses and counters, of 4 and 8 each, that torch's CPU keeps in tensors and no estimate counts."""

CACHE = {"task": "activation_cache", "batch_size": 6, "seq_len": 40}
SAE = {
    "task": "sae_training", "hook_name": "blocks.1.hook_resid_pre", "d_sae": 256, "train_batch_size_tokens": 256,
    "context_size": 32, "n_batches_in_buffer": 64, "store_batch_size_prompts": 16, "evaluation": False,
}  # fmt: skip
FEATURES = {
    "task": "sae_inference",
    "hook_name": "blocks.1.hook_resid_pre",
    "d_sae": 256,
    "batch_size": 6,
    "seq_len": 40,
}
# What is run, on which model; shares of the original's peak that the card has.
WIDE = {"d_model": 64, "d_head": 16, "d_mlp": 256}
"""Of transformers' models: bitsandbytes' kernels take no less."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cache": ("gpt2", CACHE),
    "cache grouped": ("llama-3.2-1b", CACHE | {"no_processing": True}),
    "cache graph": ("pythia-70m", CACHE | {"with_gradients": True}),
    "cache layers": ("gemma-2-2b", CACHE | {"layers": [0, -2], "names_filter": ["*.hook_z", "blocks.*.hook_resid_*"]}),
    "cache names": ("gpt2", CACHE | {"names_filter": ["*attn.hook_pattern*", "*.hook_?", "blocks.0.*"]}),
    "cache early": ("gpt2", CACHE | {"names_filter": ["blocks.0.attn.hook_pattern", "blocks.0.hook_resid_post"]}),
    "cache switches": ("gpt2", CACHE | {"use_attn_result": True, "use_split_qkv_input": True}),
    "bridge cache": ("gpt2", CACHE | {"library": "transformer_bridge"}),
    "hooks": ("gpt2", CACHE | {"library": "transformers"}),
    "hooks graph": ("llama-3.2-1b", CACHE | {"library": "transformers", "with_gradients": True, "layers": [0, 1],
                                             "names_filter": ["*.mlp"], "attention": "eager"}),
    "forward": ("gpt2", CACHE | {"task": "inference"}),
    "bridge forward": ("gpt2", CACHE | {"task": "inference", "library": "transformer_bridge"}),
    "hf forward": ("llama-3.2-1b", CACHE | {"task": "inference", "library": "transformers"}),
    "hidden states": ("gpt2", CACHE | {"task": "inference", "library": "transformers", "output_hidden_states": True}),
    "generation": ("gpt2", {"task": "generation", "batch_size": 6, "seq_len": 30, "new_tokens": 6}),
    "hooked generation": ("gpt2", {"task": "generation", "library": "transformer_lens", "batch_size": 6, "seq_len": 30,
                                   "new_tokens": 6}),
    "training": ("pythia-70m", CACHE | {"task": "training", "attention": "eager"}),
    "lora": ("llama-3.2-1b", CACHE | {"task": "training", "trainable": "lora", "attention": "eager"}),
    "hooked training": ("gpt2", CACHE | {"task": "training", "library": "transformer_lens"}),
    "attribution": ("gpt2", CACHE | {"task": "patching", "method": "attribution_patching"}),
    "patching": ("pythia-70m", CACHE | {"task": "patching"}),
    "sae": ("gpt2", SAE),
    "features": ("gpt2", FEATURES),
    "features splice": ("gpt2", FEATURES | {"splice": True}),
    "features of many": ("gpt2", FEATURES | {"n_saes": 4}),
    "features alone": ("", {"task": "sae_inference", "d_in": 64, "d_sae": 512, "batch_size": 6, "seq_len": 40}),
}  # fmt: skip


def spec_of(name: str) -> ModelSpec | None:
    model, data = CASES[name]
    if not model:
        return None
    hf = parse_workload(data | {"model": "gpt2"}).library == "transformers"
    return small(model).model_copy(update=WIDE if hf else {})


def card(budget: int) -> Place:
    """A card with nothing on it but tensors."""
    return Place("gpu", "the meter", budget, "8.9", host_free_bytes=1 << 50, counts="tensors")


def needs(workload: AnyWorkload) -> int:
    return needed(estimate(workload, "8.9"), card(0))[2]


def inputs(workload: Any) -> int:
    """Bytes of ids, or activations, that an estimate counts; here they are outside of the meter."""
    if workload.task == "sae_training":
        return 0
    each = 8 if workload.model is not None else 4 * workload.d_in
    return each * workload.batch_size * workload.seq_len


def runs(name: str, workload: AnyWorkload, whole: AnyWorkload, budget: int) -> int:
    """The peak in bytes of the code of `workload`. Raises OverBudget."""
    by_layer = getattr(workload, "layers", None) is not None and getattr(whole, "layers", None) is None
    waits = getattr(workload, "offload", None) or getattr(workload, "max_memory", None)
    on_host = getattr(workload, "cache_device", None) == "cpu" and not waits
    experiment = Experiment(whole, workload, spec_of(name), "meta" if on_host else "cpu")
    return run(experiment, program(workload, whole, by_layer), budget)


def uncounted(workload: Any) -> int:
    """Bytes of the estimate that the advice's code does not keep: SAELens' users take the logits, it drops them."""
    if workload.task != "sae_inference" or workload.model is None or workload.stop_after_hook:
        return 0
    return 4 * workload.batch_size * workload.seq_len * workload.model["d_vocab"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_offered_runs_and_the_original_dies(name: str) -> None:
    _, data = CASES[name]
    spec = spec_of(name)
    whole = parse_workload(data | ({"model": inline(spec)} if spec else {}))
    peak = needs(whole)
    assert runs(name, whole, whole, peak + SCALARS) <= peak + SCALARS
    done: set[str] = set()
    offers = 0
    for share in shares(name):
        budget = int(share * peak)
        place = card(budget)
        with pytest.raises(OverBudget):
            runs(name, whole, whole, budget - inputs(whole))
        before = estimate(whole, "8.9")
        solutions = combinations(whole, before, place)
        assert all(change.fits for change in solutions)
        single = [*changes(whole, before, place), *further(whole, before, place)]
        for change in [*solutions, *(change for change in single if change.applies and change.patch)]:
            offers += bool(change.fits)
            if change.code not in done:  # what ran on the smaller card runs on the larger one
                done.add(change.code)
                check(name, change, whole, budget)
        for field, value in largest_sizes(whole, place).items():
            sized, more = (parse_workload(whole.model_dump() | {field: n}) for n in (value, value + 1))
            runs(name, sized, sized, budget + SCALARS)
            if needs(more) - budget > SCALARS + uncounted(more):
                with pytest.raises(OverBudget):
                    runs(name, more, more, budget - inputs(more))
    assert offers, "nothing that fits was offered at any budget"


def shares(name: str) -> list[float]:
    """Of the original's peak, what the card has: drawn, and the same in every run."""
    draw = Random(name)
    drawn = [draw.uniform(0.45, 0.75), draw.uniform(0.8, 0.95)]
    return drawn if name.startswith("cache") else drawn[:1]  # for the time it takes


def check(name: str, change: Change, whole: AnyWorkload, budget: int) -> None:
    """The change's code is that of the changed workload, and runs within what it is said to need."""
    workload = patched(whole, change.patch)
    by_layer = getattr(workload, "layers", None) is not None and getattr(whole, "layers", None) is None
    assert change.code == code_of(whole, workload, by_layer=by_layer)
    assert change.peak_after == needed(estimate(workload, "8.9"), card(budget))[0]
    said = needs(workload)
    assert change.fits is (said <= budget)
    if getattr(workload, "act_store_device", None) == "cpu":
        said *= 2  # the store's host is the card here: what it leaves cannot be told from what it keeps
    if getattr(workload, "gradient_checkpointing", False):
        said += 3 * torch.get_rng_state().nbytes  # one a layer, in RAM
    if getattr(workload, "quantization", None):
        said *= 2  # bitsandbytes' kernels for the CPU unpack more at once than those for CUDA
    in_16_bits = getattr(workload, "dtype", "float32") != "float32" or getattr(workload, "autocast", None)
    if in_16_bits and by_record(workload):
        said += said // 25  # in 16 bits the CPU's kernels cast and pack what CUDA's do not
    try:
        # Of a pass before, what is as long as its ids may still be there.
        runs(name, workload, whole, said + SCALARS + 3 * inputs(whole))
    except OverBudget as error:
        raise AssertionError(f"{change.title} does not run: {error}\n{change.code}") from None


# What cannot be run here is held against what it calls: the arguments of dictionary_learning 0.1.0 (which pins an old
# nnsight) and the modules of the real model that an nnsight trace reads (run with nnsight 0.8.1 when it was written).
BUFFER = {
    "data", "model", "submodule", "d_submodule", "io", "n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size",
    "device", "remove_bos",
}  # fmt: skip


class Traced:
    """nnsight's LanguageModel as far as the advice's code calls it, over the modules of a real model."""

    def __init__(self, real: torch.nn.Module) -> None:
        self.real, self.read = real, []

    def trace(self, ids: torch.Tensor) -> Any:
        assert ids.dtype == torch.long
        return contextlib.nullcontext()

    def get(self, path: str) -> Any:
        assert isinstance(self.real.get_submodule(path), torch.nn.Module)
        self.read.append(path)
        return SimpleNamespace(output=(torch.zeros(1),))


NNSIGHT = CACHE | {"library": "nnsight"}


@pytest.mark.parametrize(
    "data",
    [NNSIGHT, NNSIGHT | {"names_filter": ["*.mlp", "transformer.ln_f"], "with_gradients": True},
     NNSIGHT | {"task": "inference"}, NNSIGHT | {"reads": ["transformer.h.1", "transformer.ln_f"]}],
    ids=["cache", "names graph", "forward", "reads"],
)  # fmt: skip
def test_the_code_for_nnsight(data: dict[str, Any]) -> None:
    spec = small("gpt2")
    whole = parse_workload(data | {"model": inline(spec)})
    place = card(needs(whole) // 2)
    before = estimate(whole, "8.9")
    single = [*changes(whole, before, place), *further(whole, before, place)]
    offered = [c for c in single if c.applies and c.code] + combinations(whole, before, place)
    assert any(change.costless for change in offered) == ("reads" in data)
    for change in offered:
        model = Traced(hf_model(spec, "meta"))
        scope = {
            "torch": torch, "model": model, "input_ids": torch.ones(6, 40, dtype=torch.long),
            "nnsight": SimpleNamespace(save=lambda kept: kept),
            "LanguageModel": lambda name, dtype, device_map, model=model: model,
        }  # fmt: skip
        exec(compile(change.code, "<advice>", "exec"), scope)
        assert bool(model.read) == ("model.get(" in change.code)
        if change.costless:
            assert model.read == data["reads"]


def test_the_code_for_dictionary_learning() -> None:
    whole = parse_workload(
        {"task": "sae_training", "library": "dictionary_learning", "model": "gpt2", "submodule": "transformer.h.6",
         "d_sae": 6144, "n_saes": 3, "n_ctxs": 500}
    )  # fmt: skip
    before = estimate(whole, "8.9")
    called: list[str] = []

    def buffer(*yours: Any, **given: Any) -> None:
        assert yours == (...,) and given.keys() <= BUFFER
        called.extend(given)

    for share in (0.5, 0.9):
        place = card(int(share * needs(whole)))
        found = [*changes(whole, before, place), *further(whole, before, place), *combinations(whole, before, place)]
        for change in [c for c in found if c.applies]:
            scope = {
                "torch": torch, "buffer": None, "ActivationBuffer": buffer, "steps": 1, "trainer_configs": [{}],
                "trainSAE": lambda data, trainer_configs, steps: called.append("trainSAE"),
                "LanguageModel": lambda name, torch_dtype, device_map, dispatch: called.append("LanguageModel"),
            }  # fmt: skip
            exec(compile(change.code, "<advice>", "exec"), scope)
    assert {"n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size", "trainSAE", "LanguageModel"} <= {*called}


def test_offloaded_weights_run_with_what_the_estimate_has() -> None:
    """Alone and with the cache in RAM, on a card for no byte more than the estimate; with weights alone on it, dies."""
    offers = {}
    for name in ("hf forward", "hooks"):
        spec = spec_of(name)
        assert spec is not None
        whole = parse_workload(CASES[name][1] | {"model": inline(spec)})
        peak, before = needs(whole), estimate(whole, "8.9")
        place = card(peak // 2)
        found = [*changes(whole, before, place), *further(whole, before, place)]
        offers[name] = next(change for change in found if change.patch.get("offload") == "cpu")
        for also in ({}, {"cache_device": "cpu"})[: 1 + (name == "hooks")]:
            workload = patched(whole, offers[name].patch | also)
            said = needs(workload)
            assert said < peak and runs(name, workload, whole, said) <= said
            with pytest.raises(OverBudget):
                runs(name, workload, whole, said - inputs(whole) - 64)
    assert all("cpu_offload(model" in change.code for change in offers.values())


def test_a_part_of_the_weights_runs_with_what_the_estimate_has() -> None:
    """On cards that hold more and more of the layers, and where the RAM is too small: from real files."""
    counts = set()
    for name in ("hf forward", "hooks"):
        spec = spec_of(name)
        assert spec is not None
        as_saved = {"n_layers": 6, "rotary_dim": spec.rotary_dim and spec.d_head, "checkpoint_dtype": "float32"}
        spec = spec.model_copy(update=as_saved)
        whole = parse_workload(CASES[name][1] | {"model": inline(spec), "batch_size": 2, "seq_len": 16})
        peak, before = needs(whole), estimate(whole, "8.9")
        least = needs(patched(whole, {"max_memory": {"0": room_for(spec, 4, 0)[0], "cpu": "1GiB"}}))
        draw = Random(name)
        for ram in (1 << 50, cpu_process_bytes(200_000)):  # for all; for less than one layer, so the disk has the rest
            for share in (draw.uniform(0, 0.4), draw.uniform(0.5, 1)):
                budget = least + int(share * (peak - 1 - least))
                place = replace(card(budget), host_free_bytes=ram)
                found = [*changes(whole, before, place), *further(whole, before, place)]
                change = next(change for change in found if change.patch.get("max_memory"))
                limits = change.patch["max_memory"]
                assert change.fits and 'device_map="auto"' in change.code and ("cpu" in limits) == (ram == 1 << 50)
                counts.add((name, change.title))
                for also in ({}, {"cache_device": "cpu"})[: 1 + (name == "hooks")]:
                    workload = patched(whole, change.patch | also)
                    said = needs(workload)
                    assert said <= budget
                    experiment = Experiment(whole, workload, spec, "cpu")
                    assert run(experiment, program(workload, whole), said) <= said
                    with pytest.raises(OverBudget):
                        experiment = Experiment(whole, workload, spec, "cpu")
                        run(experiment, program(workload, whole), said - inputs(whole) - 64)
    assert len(counts) >= 6, counts
