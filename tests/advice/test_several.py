"""Several cards: offered where the place has them and a library can use them, and each offer is an estimate."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations as subsets
from typing import Any

import pytest

from compute_awareness.advice.changes_further import further
from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.advice.place import Place, needed
from compute_awareness.advice.solver import MOST_CHANGES, combinations
from compute_awareness.advice.strategies import changes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.mcp_server.next_steps import after_preflight
from compute_awareness.preflight import preflight, recommend
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

FORWARD = {"task": "inference", "library": "transformers", "model": "pythia-6.9b", "batch_size": 4, "seq_len": 512}
KEPT = {"task": "activation_cache", "library": "nnsight", "model": "pythia-6.9b", "batch_size": 2, "seq_len": 256}
TRAINING = {"task": "training", "model": "gpt2-xl", "batch_size": 16, "seq_len": 512}
HOOKED = {"task": "activation_cache", "model": "pythia-6.9b", "batch_size": 4, "seq_len": 512}


def place(share: float, workload: dict[str, Any], count: int) -> Place:
    """Cards with `share` of what the workload needs at the high end on one."""
    one = Place("gpu", "a card", GIB, "8.9", host_free_bytes=512 * GIB)
    high = needed(estimate(parse_workload(workload), "8.9"), one)[2]
    return replace(one, name=f"{count} x a card", free_bytes=int(share * high), count=count)


def offered(workload: dict[str, Any], at: Place) -> list[Any]:
    parsed = parse_workload(workload)
    before = estimate(parsed, at.compute_capability)
    return [c for c in further(parsed, before, at) if c.strategy == "several_gpus"]


@pytest.mark.parametrize("workload", [FORWARD, KEPT, TRAINING], ids=lambda w: f"{w['task']}")
@pytest.mark.parametrize("count", [2, 4])
def test_an_offer_is_an_estimate_of_one_card(workload: dict[str, Any], count: int) -> None:
    at = place(0.95, workload, count)
    found = offered(workload, at)
    assert [change.patch.get("parallel") for change in found] == ([None, "fsdp"] if workload is TRAINING else [None])
    for change in found:
        after = estimate(parse_workload(workload | change.patch), at.compute_capability)
        assert change.patch["n_devices"] == count and change.effect == "equivalent"
        assert change.applies and change.peak_after == needed(after, at)[0] < change.peak_before
        assert change.fits == (verdict_at(after, at).status == "fits")
        assert change.code and change.cost and change.effect_detail
        if workload is TRAINING:
            assert change.patch["batch_size"] * count == workload["batch_size"]


@pytest.mark.parametrize("workload", [FORWARD, TRAINING], ids=lambda w: w["task"])
@pytest.mark.parametrize("share", [0.95, 0.75, 0.5])
def test_nothing_that_changes_less_was_missed(workload: dict[str, Any], share: float) -> None:
    """As in test_solver: every set of the first moves, several cards among them."""
    at = place(share, workload, 2)
    parsed = parse_workload(workload)
    before = estimate(parsed, at.compute_capability)
    found = combinations(parsed, before, at)
    for change in found:
        after = estimate(parse_workload(workload | change.patch), at.compute_capability)
        assert verdict_at(after, at).status == "fits" and change.peak_after == needed(after, at)[0]
    moves = [c for c in [*changes(parsed, before, at), *further(parsed, before, at)] if c.applies and c.patch]
    worst = {"equivalent": 0, "numerically_different": 1, "different_experiment": 2}
    fitting = []
    for n in range(1, MOST_CHANGES):
        for chosen in subsets(moves, n):
            if len({field for c in chosen for field in c.patch}) < sum(len(c.patch) for c in chosen):
                continue
            patch = {name: value for c in chosen for name, value in c.patch.items()}
            try:
                after = estimate(parse_workload(workload | patch), at.compute_capability)
            except InputError:
                continue
            if verdict_at(after, at).status == "fits":
                fitting.append(max(worst[c.effect] for c in chosen))
    if fitting:
        assert found and min(worst[c.effect] for c in found) <= min(fitting)


def test_not_offered_where_there_is_one_card_or_nobody_can_split() -> None:
    assert not offered(FORWARD, place(0.8, FORWARD, 1))
    assert not offered(FORWARD | {"n_devices": 2}, place(0.8, FORWARD, 2))
    assert not offered(HOOKED, place(0.8, HOOKED, 2))
    assert not offered(TRAINING | {"batch_size": 15}, place(0.8, TRAINING, 2))


def test_two_cards_given_by_name_are_used() -> None:
    alone = preflight(parse_workload(FORWARD), gpu="2xRTX 4090")
    assert alone.verdict.status == "does_not_fit" and "n_devices 2" in alone.verdict.why
    assert any("n_devices" in change.patch for change in alone.advice.solutions)
    split = preflight(parse_workload(FORWARD | {"n_devices": 2}), gpu="2xRTX 4090")
    assert split.verdict.status == "fits"
    assert split.verdict.needed_bytes < alone.verdict.needed_bytes
    many = preflight(parse_workload(FORWARD | {"n_devices": 4}), gpu="2xRTX 4090").verdict
    assert many.status == "does_not_fit" and "are 2" in many.why


def test_a_split_that_may_only_just_do_is_told_of_all_the_same() -> None:
    """Two cards of 80 GB for a model of 132 GB in bfloat16: not surely enough, but the first thing to look at."""
    big = FORWARD | {"model": "llama-3-70b", "dtype": "bfloat16", "batch_size": 1, "seq_len": 1024}
    found = preflight(parse_workload(big), gpu="2xA100-80GB")
    split = next(change for change in found.advice.changes if change.patch == {"n_devices": 2})
    assert split.applies and split.fits is False
    first = after_preflight(found, big | {"gpu": "2xA100-80GB"})[0]
    assert first.arguments["n_devices"] == 2
    assert preflight(parse_workload(big | {"n_devices": 2}), gpu="2xA100-80GB").verdict.status == "tight"
    assert "one of 2 x A100 SXM4 80GB has 79.1 GiB free" in found.asking.text
    assert "2 x A100 SXM4 80GB (79.1 GiB free on each)" in found.summary
    assert "\n- layers split over 2 cards (device_map): 69.5 GiB (it may only just fit)\n" in found.asking.text
    assert "split over" not in found.asking.text.splitlines()[-1], "nothing that may fail is gone on with unasked"
    assert not any("n_devices" in one.patch for one in preflight(parse_workload(big), gpu="2xT4").advice.changes)


def test_training_does_not_fit_two_cards_where_it_does_not_fit_one() -> None:
    verdict = preflight(parse_workload(TRAINING | {"batch_size": 1, "model": "pythia-2.8b"}), gpu="2xRTX 4090").verdict
    assert verdict.status == "does_not_fit" and "DistributedDataParallel keeps the whole model" in verdict.why


def test_cards_recommended_hold_the_fullest_share() -> None:
    """Of a model that no single card holds: each choice is the real estimate on that many cards."""
    big = FORWARD | {"model": "llama-2-70b", "batch_size": 8, "seq_len": 4096}
    choices = recommend(parse_workload(big)).advice.gpus
    assert choices and all(choice.count > 1 for choice in choices)
    by_id = {gpu.id: gpu for gpu in all_gpus()}
    for choice in choices:
        card = by_id[choice.gpu_id]
        after = estimate(parse_workload(big | {"n_devices": choice.count}), card.compute_capability)
        high = needed(after, Place("gpu", card.name, None, card.compute_capability, card))[2]
        assert choice.headroom_bytes == card.usable_bytes - high >= 0
        assert "device_map" in choice.note and "rough: Hooked" not in choice.note
    assert recommend(parse_workload(TRAINING | {"model": "llama-2-70b"})).advice.gpus == []


def test_a_workload_of_several_cards_is_recommended_as_many() -> None:
    choices = recommend(parse_workload(TRAINING | {"n_devices": 4})).advice.gpus
    assert choices and {choice.count for choice in choices} == {4}
