"""Every strategy is estimated again; what it promises is what the estimate says."""

from __future__ import annotations

from typing import Any

import pytest

from compute_awareness.advice.gpus import find_gpu
from compute_awareness.advice.place import UNKNOWN, Place, named_place, needed
from compute_awareness.advice.strategies import best, catalogue, changes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.estimator import estimate
from compute_awareness.workload import parse_workload

CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
FORWARD = {"task": "inference", "model": "pythia-2.8b", "batch_size": 64, "seq_len": 1024}
SAE = {
    "task": "sae_training", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "expansion_factor": 32,
    "n_batches_in_buffer": 512,
}  # fmt: skip
FIVE = {"selective_caching", "smaller_batch", "gradient_checkpointing", "mixed_precision", "offloading"}


def at(gpu: str) -> Place:
    return named_place(find_gpu(gpu))


@pytest.mark.parametrize("workload", [CACHE, FORWARD, {**FORWARD, "library": "transformers"}, SAE])
@pytest.mark.parametrize("place", [UNKNOWN, at("RTX 4090"), at("T4"), at("H200")], ids=lambda p: p.name)
def test_every_saving_is_an_estimate(workload: dict[str, Any], place: Place) -> None:
    before = estimate(parse_workload(workload), place.compute_capability)
    found = changes(parse_workload(workload), before, place)
    assert {change.strategy for change in found} == FIVE == {info.id for info in catalogue()}
    for change in found:
        assert change.peak_before == needed(before, place)[0]
        assert change.saving == change.peak_before - change.peak_after
        assert change.title
        if not change.applies:
            assert change.saving == 0
            continue
        assert change.saving > 0
        assert change.code
        assert change.effect_detail
        if change.patch:
            after = estimate(parse_workload(workload | change.patch), place.compute_capability)
            assert change.peak_after == needed(after, place)[0]
            fits = None if place.free_bytes is None else verdict_at(after, place).status == "fits"
            assert change.fits == fits


def selective(workload: dict[str, Any], place: Place = UNKNOWN) -> Any:
    parsed = parse_workload(workload)
    found = changes(parsed, estimate(parsed, place.compute_capability), place)
    return next(change for change in found if change.strategy == "selective_caching")


PATCHING = {"task": "patching", "model": "gpt2", "method": "attribution_patching", "batch_size": 4, "seq_len": 128}
MODULES = {**CACHE, "model": "gpt2", "library": "transformers"}


@pytest.mark.parametrize(
    ("workload", "reads", "code"),
    [
        (CACHE, ["*hook_resid_post"], 'names_filter=lambda name: name.endswith("hook_resid_post")'),
        (CACHE, ["blocks.3.attn.hook_z", "*hook_embed"], 'name == "blocks.3.attn.hook_z" or name.endswith('),
        ({**CACHE, "names_filter": ["*attn*"]}, ["*attn.hook_z"], 'name.endswith("attn.hook_z")'),
        (PATCHING, ["*hook_resid_mid"], 'keep = lambda name: name.endswith("hook_resid_mid")'),
        (MODULES, ["transformer.h.3"], r'register(r"transformer\.h\.3")'),
        ({**MODULES, "library": "nnsight"}, ["transformer.h.3"], "transformer.h.3"),
    ],
)
def test_what_is_read_is_the_filter_and_no_condition_is_left(
    workload: dict[str, Any], reads: list[str], code: str
) -> None:
    found = selective(workload | {"reads": reads})
    assert found.applies and found.patch == {"names_filter": reads}
    assert found.effect == "equivalent" and found.costless and found.cost == "none" and found.slowdown == 1
    assert found.title == f"cache only what is read: {', '.join(reads)} (names_filter)"
    assert code in found.code
    assert not selective(workload).costless


def test_where_all_is_read_no_filter_is_offered() -> None:
    every = selective(CACHE | {"reads": ["*"]})
    assert not every.applies and every.title.endswith("saves nothing here")
    filtered = selective(CACHE | {"reads": ["*hook_z"], "names_filter": ["*hook_z"]})
    assert not filtered.applies and filtered.title == "the cache is filtered already"
    hook = ["blocks.3.attn.hook_z"]
    early = selective(CACHE | {"reads": hook, "names_filter": hook})
    assert early.patch == {"stop_at_layer": 4}


def test_what_costs_nothing_comes_before_what_saves_more() -> None:
    place = at("H200")
    workload = parse_workload(CACHE | {"reads": ["*hook_resid_post"], "batch_size": 16})
    found = best(changes(workload, estimate(workload, place.compute_capability), place))
    assert found[0].costless and found[0].saving < max(change.saving for change in found)


@pytest.mark.parametrize("gpu", ["RTX 4090", "A100-40GB", "RTX PRO 6000"])
def test_the_largest_batch_fits_and_one_more_does_not(gpu: str) -> None:
    workload = CACHE | {"batch_size": 32, "dtype": "bfloat16"}
    place = at(gpu)
    before = estimate(parse_workload(workload), place.compute_capability)
    change = next(c for c in changes(parse_workload(workload), before, place) if c.strategy == "smaller_batch")
    batch = change.patch["batch_size"]

    def status(size: int) -> str:
        patched = parse_workload(workload | {"batch_size": size})
        return verdict_at(estimate(patched, place.compute_capability), place).status

    assert status(batch) == "fits" or batch == 1
    assert status(batch + 1) != "fits"


def test_what_changes_the_result_says_so() -> None:
    effects = {c.strategy: c.effect for c in changes(parse_workload(CACHE), estimate(parse_workload(CACHE)), UNKNOWN)}
    assert effects["mixed_precision"] == "numerically_different"
    assert effects["offloading"] == effects["smaller_batch"] == "equivalent"
    sae = {c.strategy: c.effect for c in changes(parse_workload(SAE), estimate(parse_workload(SAE)), UNKNOWN)}
    assert sae["smaller_batch"] == "different_experiment"


def test_old_cards_get_float16() -> None:
    workload = parse_workload(CACHE)
    place = at("T4")
    found = changes(workload, estimate(workload, "7.5"), place)
    change = next(c for c in found if c.strategy == "mixed_precision")
    assert change.patch == {"dtype": "float16"}
    assert "torch.float16" in change.code


def test_gradients_are_dropped_where_nothing_runs_backward() -> None:
    workload = parse_workload(CACHE | {"with_gradients": True})
    change = next(c for c in changes(workload, estimate(workload), UNKNOWN) if c.strategy == "gradient_checkpointing")
    assert change.applies
    assert change.patch == {"with_gradients": False}
    for library, words in (("transformers", "model(input_ids)"), ("nnsight", "model.trace")):
        workload = parse_workload(
            {"task": "activation_cache", "model": "gpt2", "library": library, "seq_len": 64, "with_gradients": True}
        )
        found = changes(workload, estimate(workload), UNKNOWN)
        change = next(c for c in found if c.strategy == "gradient_checkpointing")
        assert change.applies
        assert words in change.code
        assert "HookedTransformer" not in change.title


def test_the_best_come_first() -> None:
    workload = parse_workload(CACHE)
    place = at("RTX 4090")
    found = best(changes(workload, estimate(workload, "8.9"), place))
    assert len(found) <= 3
    assert [c.fits for c in found] == sorted([c.fits for c in found], key=lambda fits: fits is not True)


MORE = [
    {"task": "training", "model": "gpt2", "batch_size": 8, "seq_len": 256},
    {"task": "training", "library": "transformer_lens", "model": "pythia-70m", "batch_size": 4, "seq_len": 128},
    {"task": "training", "model": "pythia-160m", "autocast": True, "batch_size": 2, "seq_len": 64},
    {"task": "generation", "model": "llama-3.2-1b", "batch_size": 4, "seq_len": 128, "new_tokens": 64},
    {"task": "patching", "method": "attribution_patching", "model": "gpt2", "batch_size": 4, "seq_len": 24},
    {"task": "sae_inference", "d_in": 768, "d_sae": 24576, "batch_size": 8, "seq_len": 128},
    {"task": "activation_cache", "library": "transformers", "model": "gpt2", "batch_size": 4, "seq_len": 256},
    {"task": "activation_cache", "library": "nnsight", "model": "gpt2", "batch_size": 4, "seq_len": 256},
    {"task": "activation_cache", "library": "transformer_bridge", "model": "gpt2", "batch_size": 4, "seq_len": 256},
    {"task": "sae_training", "library": "dictionary_learning", "d_in": 768, "d_sae": 6144},
]


@pytest.mark.parametrize("data", MORE, ids=lambda d: f"{d['task']} {d.get('library', '')}".strip())
def test_every_task_has_changes_that_can_be_applied(data: dict[str, Any]) -> None:
    """Every strategy answers for every task; those that apply are workloads themselves, take less, and have code."""
    workload = parse_workload(data)
    before = estimate(workload)
    found = changes(workload, before, UNKNOWN)
    assert {change.strategy for change in found} == FIVE
    for change in found:
        if not change.applies:
            assert change.saving == 0 and change.title
            continue
        after = estimate(parse_workload(workload.model_dump() | change.patch))
        assert after.peak.tensors < before.peak.tensors
        assert change.code and change.saving > 0


def test_accumulated_gradients_are_counted_where_the_batch_is_sought() -> None:
    """They live through every pass but the first, so a batch that fits alone may not fit with them."""
    workload = parse_workload({"task": "training", "model": "gpt2-medium", "batch_size": 16, "seq_len": 1024})
    place = at("RTX 4090")
    change = next(
        c for c in changes(workload, estimate(workload), place) if c.strategy == "smaller_batch" and c.applies
    )
    assert change.fits and change.patch["gradient_accumulation"] >= 2
    more = change.patch | {"batch_size": change.patch["batch_size"] + 1}
    after = estimate(parse_workload(workload.model_dump() | more), place.compute_capability)
    assert verdict_at(after, place).status != "fits"
