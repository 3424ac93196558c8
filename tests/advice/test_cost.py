"""What a run costs: whose price counts, and where nobody charges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compute_awareness.advice.cost import Price, run_cost
from compute_awareness.advice.gpus import find_gpu
from compute_awareness.advice.place import UNKNOWN, named_place, seen_place
from compute_awareness.advice.platforms import cheapest, where_to_rent
from compute_awareness.estimator import estimate
from compute_awareness.hardware.compute import Accelerator, Compute, Environment, EnvironmentLayer, Host
from compute_awareness.memory.estimate import Estimate
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload


@pytest.fixture(scope="module")
def long_sae() -> Estimate:
    return estimate(parse_workload({"task": "sae_training", "d_in": 2304, "d_sae": 73728, "training_tokens": 10**9}))


def machine(environment: str, cards: int = 1, confidence: Any = "high") -> Compute:
    card = Accelerator(
        index=0, kind="cuda", name="NVIDIA A100-SXM4-80GB", gpu_id="a100-80gb-sxm", total_bytes=80 * GIB,
        free_bytes=79 * GIB, compute_capability="8.0",
    )  # fmt: skip
    layer = EnvironmentLayer(id=environment, layer="platform", confidence=confidence, evidence=[])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB),
        environment=Environment(primary=environment, layers=[layer], clear=True),
        accelerators=[replace(card, index=index) for index in range(cards)],
    )


def test_the_price_that_was_told_goes_before_all(long_sae: Estimate) -> None:
    told = Price(4.0, "2xH100", "lab-cloud", "2026-11-01")
    place = named_place(find_gpu("2xH100"))
    cost = run_cost(long_sae, 10, place, machine("runpod_pod"), told, [], False)
    assert cost is not None and (cost.usd, cost.price) == (40.0, told)


@pytest.mark.parametrize("cards", [1, 4])
def test_a_platform_in_sight_charges_for_the_whole_machine(long_sae: Estimate, cards: int) -> None:
    compute = machine("runpod_pod", cards)
    cost = run_cost(long_sae, 10, seen_place(compute), compute, None, [], False)
    deal = cheapest(["a100-80gb-sxm"], cards, among=["runpod"])
    assert cost is not None and deal is not None
    assert cost.usd == pytest.approx(10 * deal.usd_per_hour)
    assert (cost.price.where, cost.price.date) == (deal.platform.name, deal.offer.date)


@pytest.mark.parametrize(("environment", "confidence"), [("local", "high"), ("docker", "high"), ("runpod_pod", "low")])
def test_hardware_that_nobody_is_seen_to_charge_for_costs_nothing(
    long_sae: Estimate, environment: str, confidence: str
) -> None:
    compute = machine(environment, confidence=confidence)
    assert run_cost(long_sae, 10, seen_place(compute), compute, None, [], False) is None


def test_a_named_card_may_be_ones_own(long_sae: Estimate) -> None:
    rentals = where_to_rent(["h100-sxm"], 3600)
    assert run_cost(long_sae, 10, named_place(find_gpu("H100")), machine("runpod_pod"), None, rentals, False) is None


def test_where_the_place_is_open_the_cheapest_rental_counts_for_the_hours_on_its_card(long_sae: Estimate) -> None:
    slow, fast = where_to_rent(["t4"], 60), where_to_rent(["h100-sxm"], 60)
    paid = [choice for choice in slow if choice.usd_per_hour]
    on_slow = run_cost(long_sae, 1, UNKNOWN, None, None, paid, False)
    on_fast = run_cost(long_sae, 1, UNKNOWN, None, None, fast, False)
    assert on_slow is not None and on_fast is not None
    hours = [cost.usd / cost.price.usd_per_hour for cost in (on_slow, on_fast)]
    assert hours[0] > 3 * hours[1] > 3
    assert on_fast.price.usd_per_hour == fast[0].usd_per_hour


def test_a_free_offer_costs_nothing_and_no_gpu_is_not_rented(long_sae: Estimate) -> None:
    free = where_to_rent(["t4"], 60)
    assert free[0].usd_per_hour == 0
    cost = run_cost(long_sae, 1, UNKNOWN, None, None, free, False)
    assert cost is not None and cost.usd == 0
    compute = machine("local", 0)
    assert run_cost(long_sae, 1, seen_place(compute), compute, None, free, True) is None
    assert run_cost(long_sae, 1, UNKNOWN, None, None, [], False) is None
