"""What an experiment says it reads (`reads`), held against the caches that the real libraries return.

The code of the change to that filter is run on a card with no byte more than the estimate: everything that is read is
there. And where a warning says that a filter leaves something out, reading it raises KeyError; where it says nothing,
nothing does.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from random import Random
from typing import Any

import pytest
import torch
from builders import hf_model
from hooked_models import inline, small
from metered_runs import Experiment, program, run
from meters import OverBudget

from compute_awareness.advice.attempt import patched
from compute_awareness.advice.code import code_of
from compute_awareness.advice.place import Place, needed
from compute_awareness.advice.solver import combinations
from compute_awareness.advice.strategies import changes
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import AnyWorkload, parse_workload

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SCALARS = 800
"""As in test_green_means_it_runs.py: bytes of losses and counters."""
CACHE = {"task": "activation_cache", "batch_size": 6, "seq_len": 40}
PATCHING = CACHE | {"task": "patching"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "residual": ("gpt2", CACHE | {"reads": ["*hook_resid_post"]}),
    "names": ("llama-3.2-1b", CACHE | {"reads": ["blocks.1.attn.hook_pattern", "blocks.*.hook_mlp_out"]}),
    "a wider filter": ("pythia-70m", CACHE | {"names_filter": ["*attn*", "*resid*"], "reads": ["*.hook_z"]}),
    "layers": ("gpt2", CACHE | {"layers": [1, 2], "reads": ["*hook_resid_?re"]}),
    "graph": ("gpt2", CACHE | {"with_gradients": True, "reads": "*hook_resid_post"}),
    "bridge": ("gpt2", CACHE | {"library": "transformer_bridge", "reads": ["blocks.*.hook_mlp_out", "hook_embed"]}),
    "modules": ("gpt2", CACHE | {"library": "transformers", "names_filter": ["*.mlp*", "*.attn"], "reads": ["*.mlp"]}),
    "one layer": ("gpt2", CACHE | {"library": "transformers", "reads": ["transformer.h.1"]}),
    "attribution": ("gpt2", PATCHING | {"method": "attribution_patching", "reads": ["*hook_z", "*hook_mlp_out"]}),
    "patching": ("pythia-70m", PATCHING | {"reads": ["*hook_resid_pre"]}),
}  # fmt: skip


def card(budget: int) -> Place:
    return Place("gpu", "the meter", budget, "8.9", host_free_bytes=1 << 50, counts="tensors")


def run_and_take(
    spec: ModelSpec, workload: AnyWorkload, whole: AnyWorkload, budget: int
) -> tuple[Experiment, dict[str, Any]]:
    """The workload's code within the budget, with the experiment's line in it: what it finds in the cache by name."""
    experiment, taken = Experiment(whole, workload, spec), {}
    experiment.scope["take"] = lambda cache: taken.update(cache.items())
    code = program(workload, whole)
    holder = "kept" if workload.library == "transformers" else "cache"
    code["run"], places = re.subn(r"\.\.\.  #.*", f"take({holder})", code["run"])
    assert places == (workload.task != "patching")
    run(experiment, code, budget)
    if workload.task == "patching":  # what the experiment's own lines do with `keep`
        clean, keep = experiment.scope["clean"], experiment.scope["keep"]
        taken.update(experiment.scope["model"].run_with_cache(clean, names_filter=keep)[1].items())
    return experiment, taken


def names_of(spec: ModelSpec, experiment: Experiment, library: str) -> list[str]:
    """Every name that the library itself knows: its hook points, or its modules."""
    model = experiment.scope["model"]
    if library == "transformers":
        return [name for name, _ in model.named_modules()]
    with torch.no_grad():
        return list(model.run_with_cache(experiment.scope.get("tokens", experiment.scope["clean"]))[1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_in_the_cache_of_the_change(name: str) -> None:
    model, data = CASES[name]
    spec = small(model)
    whole = parse_workload(data | {"model": inline(spec)})
    assert not isinstance(whole.reads, str)  # type: ignore[union-attr]
    unsaid = parse_workload(whole.model_dump() | {"reads": None})
    before = estimate(whole, "8.9")
    assert (before.peak, before.components) == (estimate(unsaid, "8.9").peak, estimate(unsaid, "8.9").components)
    found = next(c for c in changes(whole, before, card(0)) if c.strategy == "selective_caching")
    assert found.applies and found.patch == {"names_filter": whole.reads} and found.effect == "equivalent"  # type: ignore[union-attr]
    workload = patched(whole, found.patch)
    assert found.code == code_of(whole, workload)
    budget = needed(estimate(workload, "8.9"), card(0))[2] + SCALARS
    place = card(budget)
    first = combinations(whole, before, place)[0]
    assert first.patch == found.patch and first.fits and "if that is all" not in first.title
    ids = 8 * 6 * 40
    with pytest.raises(OverBudget):
        run_and_take(spec, whole, whole, budget - ids)
    experiment, taken = run_and_take(spec, workload, whole, budget + 3 * ids)
    layers = getattr(whole, "layers", None)
    globs = whole.reads or []  # type: ignore[union-attr]
    read = [
        hook for hook in names_of(spec, experiment, whole.library) if any(fnmatchcase(hook, glob) for glob in globs)
        and (layers is None or any(f".{layer}." in hook for layer in layers))
    ]  # fmt: skip
    assert read and set(read) <= set(taken)
    assert set(taken) == set(read), "nothing else is kept"


FILTERS = [None, ["*hook_resid_*"], ["blocks.1.*"], ["*hook_z", "*hook_embed"], ["blocks.0.hook_resid_post"]]


@pytest.mark.parametrize("library", ["transformer_lens", "transformer_bridge", "transformers"])
def test_a_warning_is_a_key_error_and_none_is_none(library: str) -> None:
    spec = small("gpt2")
    base = CACHE | {"model": inline(spec), "library": library, "batch_size": 1, "seq_len": 4}
    modules = library == "transformers"
    filters = [None, ["*.mlp", "*.attn"], ["transformer.h.1.*"], ["*.attn", "*.mlp", "lm_head"]] if modules else FILTERS
    every = [
        f"{'transformer.h' if modules else 'blocks'}.{layer}.{rest}"
        for layer in range(spec.n_layers)
        for rest in (["mlp", "attn"] if modules else ["hook_resid_pre", "hook_resid_post", "attn.hook_z"])
    ] + (["lm_head", "transformer.h.2"] if modules else ["hook_embed", "ln_final.hook_normalized"])
    draw, warned = Random(library), []
    for at in range(24):
        data = base | {"names_filter": filters[at % len(filters)], "layers": draw.choice([None, None, [1], [0, -1]])}
        if not modules:
            data["stop_at_layer"] = draw.choice([None, None, 2, -1])
        data["reads"] = draw.sample(every, 1 + at % 2)
        workload = parse_workload(data)
        try:
            said = [one for one in estimate(workload, "8.9").warnings if one.startswith("reads: ")]
        except InputError as error:  # nothing at all is kept
            assert str(error).startswith("names_filter: ")
            continue
        _, taken = run_and_take(spec, workload, workload, 1 << 40)
        lost = [name for name in data["reads"] if name not in taken]
        assert bool(said) == bool(lost), (data, said, lost)
        if lost:
            assert re.match(rf"reads: {re.escape(lost[0])}( and 1 more are| is) read but not kept", said[0]), said
            assert ("and 1 more" in said[0]) == (len(lost) == 2) and "KeyError" in said[0]
        warned.append(bool(said))
    assert 3 < sum(warned) < len(warned) - 3


def test_the_modules_that_reads_may_name_are_those_of_the_real_model() -> None:
    spec = small("gpt2")
    real = {name for name, _ in hf_model(spec, "meta").named_modules()}
    from compute_awareness.memory.huggingface.outputs import paths

    every = paths(spec, ["*"])
    assert len(every) > 3 * 8 and set(every) <= real
    assert paths(spec, None) == [f"transformer.h.{layer}" for layer in range(3)]
    assert paths(spec, ["*.mlp"], [-1]) == ["transformer.h.2.mlp"]
