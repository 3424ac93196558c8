"""What the solver offers fits, and one step more does not; held against trying everything."""

from __future__ import annotations

from itertools import combinations as subsets
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compute_awareness.advice.changes_further import further
from compute_awareness.advice.place import UNKNOWN, Place, needed
from compute_awareness.advice.solver import (
    MOST_CHANGES,
    combinations,
    largest_sizes,
    largest_that_fits,
    slowdown,
    worst_effect,
)
from compute_awareness.advice.strategies import changes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

CACHE = {"task": "activation_cache", "model": "gpt2-xl", "batch_size": 8, "seq_len": 512}
TRAINING = {"task": "training", "model": "gpt2-xl", "batch_size": 8, "seq_len": 512}
FORWARD = {"task": "inference", "library": "transformers", "model": "pythia-6.9b", "batch_size": 16, "seq_len": 1024}
SAE = {
    "task": "sae_training", "model": "gpt2-xl", "hook_name": "blocks.24.hook_resid_pre", "expansion_factor": 16,
    "n_batches_in_buffer": 256,
}  # fmt: skip
PATCHING = {"task": "patching", "model": "gpt2-xl", "method": "attribution_patching", "batch_size": 8, "seq_len": 256}
ALL = [CACHE, TRAINING, FORWARD, SAE, PATCHING]


def card(gib: float) -> Place:
    return Place("gpu", f"a card with {gib:g} GiB", int(gib * GIB), "8.9", host_free_bytes=512 * GIB)


def tried(workload: dict[str, Any], place: Place):
    parsed = parse_workload(workload)
    return parsed, estimate(parsed, place.compute_capability)


@pytest.mark.parametrize("workload", ALL, ids=lambda w: w["task"])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.35, 0.2])
def test_whatever_is_offered_fits_and_is_an_estimate(workload, share):
    _, free = tried(workload, card(1))
    place = card(share * needed(free, card(1))[2] / GIB)
    parsed, before = tried(workload, place)
    offered = combinations(parsed, before, place)
    assert len(offered) <= 3
    for change in offered:
        _, after = tried(workload | change.patch, place)
        assert verdict_at(after, place).status == "fits"
        assert change.fits is True
        assert change.peak_before == needed(before, place)[0]
        assert change.peak_after == needed(after, place)[0]
        assert change.saving == change.peak_before - change.peak_after
        assert change.code and change.title and change.effect_detail
    ranked = [
        (("equivalent", "numerically_different", "different_experiment").index(c.effect), c.slowdown) for c in offered
    ]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("workload", [CACHE, FORWARD], ids=lambda w: w["task"])
@pytest.mark.parametrize("share", [0.7, 0.4, 0.25, 0.15, 0.05])
def test_nothing_that_changes_less_was_missed(workload, share):
    """Every set of up to three of the first moves, as it stands: none that fits is better than what is offered."""
    _, free = tried(workload, card(1))
    place = card(share * needed(free, card(1))[2] / GIB)
    parsed, before = tried(workload, place)
    offered = combinations(parsed, before, place)
    moves = [c for c in [*changes(parsed, before, place), *further(parsed, before, place)] if c.applies and c.patch]
    fitting = []
    for count in range(1, MOST_CHANGES + 1):
        for chosen in subsets(moves, count):
            fields = [field for change in chosen for field in change.patch]
            if len(fields) != len(set(fields)):
                continue
            patch = {field: value for change in chosen for field, value in change.patch.items()}
            try:
                _, after = tried(workload | patch, place)
            except InputError:
                continue
            if verdict_at(after, place).status == "fits":
                fitting.append((worst_effect(chosen), slowdown(chosen)))
    assert bool(offered) >= bool(fitting)
    if fitting:
        best = offered[0]
        rank = ("equivalent", "numerically_different", "different_experiment").index(best.effect)
        assert (rank, best.slowdown) <= min(fitting)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(ALL), st.floats(0.02, 1.2), st.data())
def test_the_largest_fits_and_one_more_does_not(workload, share, data):
    _, free = tried(workload, card(1))
    place = card(share * needed(free, card(1))[2] / GIB)
    parsed = parse_workload(workload)
    fields = [name for name in ("batch_size", "seq_len", "train_batch_size_tokens") if hasattr(parsed, name)]
    field = data.draw(st.sampled_from(fields))

    def fits(value: int) -> bool:
        try:
            return verdict_at(tried(workload | {field: value}, place)[1], place).status == "fits"
        except InputError:
            return False

    largest = largest_that_fits(parsed, place, field)
    if largest is None:
        assert not fits(1) or fits(1 << 20)
    else:
        assert fits(largest) and not fits(largest + 1)


DRAWN: dict[str, dict[str, Any]] = {
    "activation_cache": {"library": ["transformer_lens", "transformers"], "with_gradients": [False, True],
                         "names_filter": [None, ["*.mlp", "*hook_z"]]},
    "inference": {"library": ["transformer_lens", "transformers", "nnsight"]},
    "generation": {"library": ["transformer_lens", "transformers"], "new_tokens": [1, 200]},
    "training": {"library": ["transformer_lens", "transformers"], "optimizer": ["adamw", "sgd"],
                 "gradient_accumulation": [1, 4]},
    "patching": {"method": ["activation_patching", "attribution_patching"], "parameter_gradients": [True, False]},
    "sae_inference": {"hook_name": ["blocks.1.hook_resid_pre"], "d_sae": [512, 65536], "splice": [False, True]},
}  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.data(), st.sampled_from(sorted(DRAWN)), st.floats(0.1, 0.98))
def test_drawn_workloads_fit_and_one_step_more_does_not(data, task, share):
    """Whatever is offered for whatever workload fits; with one more of the size that it gives, all else alike, it does
    not."""
    model = data.draw(st.sampled_from(["gpt2", "pythia-410m", "llama-3.2-1b", "gemma-2-2b"]))
    workload = {"task": task, "model": model}
    workload |= {"batch_size": data.draw(st.integers(1, 40)), "seq_len": data.draw(st.integers(2, 900))}
    workload |= {name: data.draw(st.sampled_from(values)) for name, values in DRAWN[task].items()}
    try:
        before = tried(workload, card(1))[1]
    except InputError:
        assume(False)
        raise
    place = card(share * needed(before, card(1))[2] / GIB)
    parsed, before = tried(workload, place)
    for change in combinations(parsed, before, place):
        made = parse_workload(parsed.model_dump() | change.patch)
        assert verdict_at(estimate(made, place.compute_capability), place).status == "fits"
        sizes = [name for name in ("batch_size", "seq_len") if name in change.patch]
        if len(sizes) == 1:
            more = parse_workload(made.model_dump() | {sizes[0]: change.patch[sizes[0]] + 1})
            assert verdict_at(estimate(more, place.compute_capability), place).status != "fits"


def test_what_is_read_comes_first_alone_and_in_combinations():
    told = CACHE | {"reads": ["*hook_resid_post", "*attn.hook_pattern"]}
    names = {"names_filter": told["reads"]}
    parsed, before = tried(told, card(1))
    _, filtered = tried(told | names, card(1))
    with_room = card(needed(filtered, card(1))[2] / GIB)
    first = combinations(parsed, before, with_room)[0]
    assert first.patch == names and first.costless
    offered = combinations(parsed, before, card(12))
    both = [change for change in offered if change.strategy == "combination" and names.items() <= change.patch.items()]
    assert both and not any(change.costless for change in both)
    unsaid = combinations(*tried(CACHE, with_room), with_room)
    assert not any(change.costless for change in unsaid)


def test_nothing_is_offered_where_it_fits_or_nothing_is_known():
    for place in (card(500), UNKNOWN):
        parsed, before = tried(CACHE, place)
        assert combinations(parsed, before, place) == []
    assert largest_that_fits(parse_workload(CACHE), UNKNOWN, "batch_size") is None


def test_no_combination_holds_another():
    parsed, before = tried(CACHE, card(6))
    sets = [frozenset(change.patch) for change in combinations(parsed, before, card(6))]
    assert sets
    assert not any(one < other for one in sets for other in sets)


def test_sizes_that_are_asked_for():
    assert set(largest_sizes(parse_workload(CACHE), card(24))) <= {"batch_size", "seq_len"}
    with pytest.raises(InputError, match="'layers' is no size of this workload; accepted: batch_size, seq_len"):
        largest_that_fits(parse_workload(CACHE), card(24), "layers")
