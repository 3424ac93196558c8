"""A machine that was seen with several cards: which count, what is offered on them, and that more never hurt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_awareness.advice.cards import names, numbers
from compute_awareness.advice.place import seen_place, seen_places, takes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.estimator import estimate
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    GpuProcess,
    Host,
    Interpreter,
    JobLimits,
    Limits,
    TorchBuild,
)
from compute_awareness.preflight import Preflight, preflight
from compute_awareness.script_reading.answer import ScriptReport
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.source import parse_script
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

FORWARD = {"task": "inference", "library": "transformers", "model": "pythia-6.9b", "batch_size": 4, "seq_len": 512}
TRAINING = {"task": "training", "model": "gpt2-xl", "batch_size": 4, "seq_len": 512, "library": "transformers"}
HOOKED = {"task": "activation_cache", "model": "pythia-6.9b", "batch_size": 4, "seq_len": 512}
GROUPED = {"task": "inference", "library": "transformers", "model": "llama-3-8b", "dtype": "bfloat16", "seq_len": 2048}
KINDS = {
    "NVIDIA GeForce RTX 3090": "8.6", "NVIDIA GeForce RTX 4090": "8.9", "NVIDIA H100 80GB HBM3": "9.0",
    "Tesla V100-SXM2-32GB": "7.0",
}  # fmt: skip
A3090 = "NVIDIA GeForce RTX 3090"


def card(index: int, free: float, name: str = A3090, others: float = 0, **more: Any) -> Accelerator:
    """A card with `free` GiB, beside which other users hold `others`."""
    return Accelerator(
        index=index, kind="cuda", name=name, compute_capability=KINDS[name], free_bytes=int(free * GIB),
        free_without_others_bytes=int((free + others) * GIB) if others else None, **more,
    )  # fmt: skip


def machine(*cards: Accelerator, ram: float = 512, system: str = "Linux", **more: Any) -> Compute:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="high", evidence=["x"])
    return Compute(
        host=Host(os=system, cpus=8, ram_total_bytes=int(ram * GIB), ram_available_bytes=int(ram * GIB)),
        environment=Environment(primary="local", layers=[layer], clear=True),
        accelerators=list(cards),
        **more,
    )


def flow(workload: dict[str, Any], compute: Compute) -> Preflight:
    return preflight(parse_workload(workload), compute=compute)


def several(answer: Preflight) -> list[Any]:
    return [change for change in answer.advice.solutions if "n_devices" in change.patch]


@pytest.mark.parametrize(
    ("cards", "together", "why_not"),
    [
        ([card(0, 23), card(1, 23)], "cards 0 and 1", ""),
        ([card(0, 23), card(1, 12, others=11)], "card 0", "card 1 is used by others"),
        ([card(0, 23), card(1, 22.5, others=0.5)], "cards 0 and 1", ""),
        ([card(0, 23), card(1, 12)], "cards 0 and 1", ""),
        ([card(0, 23), card(1, 23, visible=False), card(2, 23)], "cards 0 and 2",
         "card 1 is hidden by CUDA_VISIBLE_DEVICES"),
        ([card(0, 23), card(1, 23, problem="x"), card(2, 12, others=9), card(3, 12, others=9)], "card 0",
         "cards 2 and 3 are used by others, card 1 cannot be used"),
        ([card(0, 23), card(1, 23, virtual="vgpu")], "card 0", "card 1 is a share of a card (vGPU)"),
        ([card(0, 23, unified=True)], "", "card 0 has the machine's RAM"),
    ],
)  # fmt: skip
def test_the_cards_that_count(cards, together, why_not):
    found = seen_place(machine(*cards)).cards
    assert found is not None
    assert numbers(one.index for one in found.free) == together
    assert found.not_counted(found.free) == why_not


def test_others_on_a_card_are_known_by_their_processes_where_no_sum_is_told():
    theirs = card(1, 12, processes=[GpuProcess(pid=1, used_bytes=11 * GIB, own=False)])
    mine = card(2, 12, processes=[GpuProcess(pid=2, used_bytes=11 * GIB, own=True)])
    found = seen_place(machine(card(0, 23), theirs, mine)).cards
    assert found is not None and [one.index for one in found.shared] == [1]
    assert found.not_counted(found.of(1)) == "card 1 is used by others, card 2 has only 12.0 GiB free"


def test_slices_of_mig_and_shares_of_cards_are_joined_with_nothing():
    slices = [card(0, 9, "NVIDIA H100 80GB HBM3", mig_of=0), card(1, 9, "NVIDIA H100 80GB HBM3", mig_of=0)]
    parent = card(0, 79, "NVIDIA H100 80GB HBM3", problem="MIG is on")
    place = seen_place(machine(parent, *slices))
    assert place.count == 1 and place.cards is not None and not place.cards.of(2)
    verdict = verdict_at(estimate(parse_workload(FORWARD | {"n_devices": 2, "model": "gpt2"})), place)
    assert verdict.status == "does_not_fit" and "MIG slices cannot be joined" in verdict.why
    shared_out = machine(card(0, 23), card(1, 23), limits=Limits(job=JobLimits(source="SLURM job 1", gpu_shares=4)))
    assert not several(flow(FORWARD, shared_out))


def test_the_offer_says_which_cards_and_how_a_run_gets_them():
    answer = flow(FORWARD, machine(card(0, 23), card(1, 12, others=11), card(2, 23)))
    assert answer.verdict.status == "does_not_fit"
    assert "splits the layers over cards 0 and 2; card 1 is used by others" in answer.verdict.why
    (offer,) = several(answer)
    assert offer.title == "layers split over cards 0 and 2 (device_map; card 1 is used by others)"
    assert offer.code.splitlines()[0] == "# Start it with CUDA_VISIBLE_DEVICES=0,2"
    assert "layers split over cards 0 and 2" in answer.asking.text
    done = flow(FORWARD | offer.patch, machine(card(0, 23), card(1, 12, others=11), card(2, 23)))
    assert done.verdict.status == "fits" and done.verdict.device == f"2 x {A3090}"
    assert "each of cards 0 and 2 has 23.0 GiB" in done.verdict.why
    assert done.verdict.why.endswith(" Card 1 is used by others. Start it with CUDA_VISIBLE_DEVICES=0,2.")
    assert done.verdict.needed_bytes == offer.peak_after


def test_the_fewest_cards_that_do():
    """Each offer is the estimate on its cards; on one card fewer it does not fit."""
    eight = machine(*(card(index, 23) for index in range(8)))
    for workload in (FORWARD | {"model": "pythia-12b"}, TRAINING | {"batch_size": 8}):
        offers = [c for c in several(flow(workload, eight)) if c.strategy == "several_gpus"]
        assert offers
        for offer in offers:
            count = offer.patch["n_devices"]
            assert flow(workload | offer.patch, eight).verdict.status == "fits"
            for fewer in range(2, count):
                if workload.get("batch_size", 0) % fewer and workload is not FORWARD:
                    continue
                batch = {"batch_size": workload["batch_size"] // fewer} if workload["task"] == "training" else {}
                less = flow(workload | offer.patch | {"n_devices": fewer} | batch, eight)
                assert less.verdict.status != "fits"


def test_different_cards_must_fit_the_one_with_least_room():
    workload = FORWARD | {"n_devices": 2}
    big, small = card(0, 79, "NVIDIA H100 80GB HBM3"), card(1, 23)
    _, low, high = takes(estimate(parse_workload(workload), "9.0"), seen_place(machine(small)))
    for free, status in ((high, "fits"), (low, "tight"), (low - 1, "does_not_fit")):
        verdict = flow(workload, machine(big, replace(small, free_bytes=free))).verdict
        assert verdict.status == status and verdict.free_bytes == free
        assert "card 1 (least to spare of cards 0 and 1)" in verdict.why
        assert verdict.device == f"NVIDIA H100 80GB HBM3 and {A3090}"
    # The numbers of CUDA are those of the report only in the order of the bus.
    offer = flow(workload, machine(big, small, card(2, 5))).verdict
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,1" in offer.why


def test_cards_that_others_use_count_only_where_the_workload_asks_for_them():
    two = machine(card(0, 23), card(1, 21, others=2))
    assert not several(flow(FORWARD, two))
    asked = flow(FORWARD | {"n_devices": 2}, two).verdict
    assert asked.status == "fits" and "Others use card 1 and may take more" in asked.why
    too_many = flow(FORWARD | {"n_devices": 3}, two).verdict
    assert too_many.status == "does_not_fit" and "there is cards 0 and 1" not in too_many.why
    assert "only cards 0 and 1" in too_many.why


def test_a_card_before_ampere_beside_a_newer_one_is_never_green():
    verdict = flow(GROUPED | {"n_devices": 2}, machine(card(0, 60), card(1, 60, "Tesla V100-SXM2-32GB"))).verdict
    assert verdict.status == "tight" and "before Ampere" in verdict.why
    alike = flow(GROUPED | {"n_devices": 2}, machine(card(0, 60), card(1, 60))).verdict
    assert alike.status == "fits"


def test_every_process_loads_the_model_into_the_ram():
    cards = [card(index, 47) for index in range(4)]
    workload = TRAINING | {"batch_size": 1, "n_devices": 4}
    assert flow(workload, machine(*cards)).verdict.status == "fits"
    little = flow(workload, machine(*cards, ram=24)).verdict
    assert little.status == "tight" and "in 4 processes" in little.why
    assert flow(workload | {"n_devices": 1}, machine(*cards, ram=24)).verdict.status == "fits"


def test_windows_has_no_nccl():
    two = [card(0, 23), card(1, 23)]
    assert several(flow(TRAINING, machine(*two)))
    assert not several(flow(TRAINING, machine(*two, system="Windows-11-10.0.26100")))
    assert several(flow(FORWARD, machine(*two, system="Windows-11-10.0.26100")))


def test_a_run_on_one_card_is_told_how_it_gets_that_card():
    small = FORWARD | {"model": "pythia-2.8b"}
    verdict = flow(small, machine(card(0, 5, others=18), card(1, 23))).verdict
    assert verdict.status == "fits"
    assert verdict.why.endswith("Counted on is card 1: start it with CUDA_VISIBLE_DEVICES=1.")
    assert "start it with CUDA_VISIBLE_DEVICES=1" in flow(small, machine(card(0, 5, others=18), card(1, 23))).summary
    assert "CUDA_VISIBLE_DEVICES" not in flow(small, machine(card(0, 20, others=3), card(1, 23))).verdict.why
    assert "CUDA_VISIBLE_DEVICES" not in flow(small, machine(card(0, 23))).verdict.why
    # So says the code of what makes it fit.
    changed = flow(FORWARD, machine(card(0, 5, others=18), card(1, 23))).advice.solutions
    codes = {change.title: change.code.splitlines()[0] for change in changed}
    in_part = next(title for title in codes if " of 32 layers" in title)
    assert codes[in_part] == "# Start it with CUDA_VISIBLE_DEVICES=1"


def test_why_more_cards_are_no_way():
    two = machine(card(0, 23), card(1, 12, others=11))
    answer = flow(FORWARD, two)
    for text in (answer.verdict.why, answer.summary):
        assert "No second card can be counted on: card 1 is used by others." in text
    big = flow(FORWARD | {"model": "llama-2-70b"}, machine(card(0, 23), card(1, 23))).verdict
    assert "More cards are not enough: split over cards 0 and 1" in big.why
    hooked = flow(HOOKED, machine(card(0, 47), card(1, 47))).verdict
    assert hooked.status == "does_not_fit" and "no estimate is made" in hooked.why
    for lonely in (card(0, 23), card(0, 23, unified=True)):
        assert "No second card" not in flow(FORWARD, machine(lonely)).verdict.why


def test_a_report_of_another_machine_counts_its_cards():
    answer = flow(FORWARD, machine(card(0, 23), card(1, 23), seen_from="gpubox"))
    assert several(answer)
    done = flow(FORWARD | {"n_devices": 2}, machine(card(0, 23), card(1, 23), seen_from="gpubox"))
    assert done.verdict.device == f"gpubox's 2 x {A3090}"


def test_amds_cards_have_a_variable_of_their_own():
    def amd(index: int, **more: Any) -> Accelerator:
        return Accelerator(
            index=index, kind="rocm", name="AMD Instinct MI210", arch="gfx90a", free_bytes=23 * GIB, **more
        )

    (offer,) = several(flow(FORWARD, machine(amd(0), amd(1), amd(2))))
    assert offer.code.startswith("# Start it with HIP_VISIBLE_DEVICES=0,1\n")
    # Behind ROCR_VISIBLE_DEVICES the numbers are others.
    (offer,) = several(flow(FORWARD, machine(amd(0, visible=False), amd(1), amd(2), amd(3))))
    assert not offer.code.startswith("#")


def test_a_card_that_torch_has_no_code_for_is_left_out():
    torch = TorchBuild(version="2.13.0", cuda_build="13.0", cuda_available=True, arch_list=["sm_80", "sm_86", "sm_90"])
    python = Interpreter(path="/p", source="PATH", torch=torch)
    place = seen_place(machine(card(0, 31, "Tesla V100-SXM2-32GB"), card(1, 23), python=python))
    assert place.name == A3090 and place.cards is not None
    assert place.cards.not_counted(place.cards.free) == "card 0 is not for this build of torch"


@pytest.mark.parametrize(
    ("given", "words"),
    [([], ""), ([3], "card 3"), ([2, 0], "cards 0 and 2"), ([0, 1, 3], "cards 0, 1 and 3"),
     ([0, 1, 2, 3], "cards 0 to 3"), ([0, 1, 2, 4], "cards 0, 1, 2 and 4")],
)  # fmt: skip
def test_numbers(given, words):
    assert numbers(given) == words


def test_names_end_with_the_last_cards():
    cards = seen_place(machine(card(0, 70, "NVIDIA H100 80GB HBM3"), card(1, 23), card(2, 22))).cards
    assert cards is not None
    assert names(cards.of(3)) == f"NVIDIA H100 80GB HBM3 and 2 x {A3090}"


def test_the_card_with_most_memory_is_not_always_the_best():
    """Grouped heads on a card before Ampere: all scores are computed, so it takes more there."""
    workload = GROUPED | {"batch_size": 8, "seq_len": 4096}
    old, new = card(0, 40, "Tesla V100-SXM2-32GB"), card(1, 36)
    assert flow(workload, machine(old)).verdict.status == "does_not_fit"
    assert [place.name for place in seen_places(machine(old, new))] == [old.name, new.name]
    both = flow(workload, machine(old, new))
    assert both.verdict.status == flow(workload, machine(new)).verdict.status == "fits"
    assert both.verdict.device == new.name


def test_a_small_card_of_the_same_generation_does_not_take_a_larger_ones_place():
    estimated = estimate(parse_workload(FORWARD | {"n_devices": 2}), "8.6")
    new, old, small = card(0, 40), card(1, 30, "Tesla V100-SXM2-32GB"), card(2, 8)
    before = verdict_at(estimated, seen_place(machine(new, old)))
    assert before.status == "tight" and "before Ampere" in before.why
    after = verdict_at(estimated, seen_place(machine(new, old, small)))
    assert (after.status, after.device) == (before.status, before.device)
    assert "CUDA_VISIBLE_DEVICES=0,1." in after.why


CARDS = st.builds(
    lambda name, free, others, visible: card(0, free, name, others, visible=visible),
    name=st.sampled_from(sorted(KINDS)),
    free=st.sampled_from([1, 8, 12, 14, 16, 18, 22, 23.5, 28, 29.5, 31, 47, 79]),
    others=st.sampled_from([0, 0, 0, 0.5, 2, 11]),
    visible=st.sampled_from([True, True, True, False]),
)
WORKLOADS = [
    FORWARD, FORWARD | {"n_devices": 2}, FORWARD | {"n_devices": 3}, GROUPED, GROUPED | {"n_devices": 2},
    {**HOOKED, "model": "pythia-1.4b"}, {**TRAINING, "model": "gpt2-medium"},
    {**TRAINING, "model": "gpt2-medium", "n_devices": 2, "parallel": "fsdp"},
    {"task": "inference", "model": "gpt2", "batch_size": 2, "seq_len": 128},
]  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(WORKLOADS), st.lists(CARDS, min_size=1, max_size=3), CARDS, st.data())
def test_one_more_card_never_hurts(workload, cards, more, data):
    """It fits no less, and nothing more is asked."""
    at = data.draw(st.integers(0, len(cards)))
    before = [replace(one, index=index) for index, one in enumerate(cards)]
    after = [replace(one, index=index) for index, one in enumerate([*cards[:at], more, *cards[at:]])]
    few, many = flow(workload, machine(*before)), flow(workload, machine(*after))
    if not machine(*before).usable():
        return  # without a card it is the RAM that is counted
    if few.verdict.status == "fits":
        assert many.verdict.status != "does_not_fit"
    assert len(many.asking.fields) <= len(few.asking.fields)
    assert many.asking.decision != "ask" or few.asking.decision == "ask"
    assert not few.advice.solutions or many.advice.solutions or many.verdict.status == "fits"


def test_the_words_are_of_one_card():
    two = machine(card(0, 12, others=11), card(1, 23))
    answer = flow(TRAINING | {"batch_size": 1, "n_devices": 2}, two)
    assert f"but the fullest of 2 x {A3090} has 12.0 GiB free" in answer.asking.text
    assert f"2 x {A3090} (12.0 GiB free on the fullest)" in answer.summary
    mac = Accelerator(index=0, kind="mps", name="Apple M3 Pro", free_bytes=24 * GIB, unified=True)
    alone = flow(FORWARD | {"model": "gpt2", "n_devices": 2}, machine(mac))
    assert alone.verdict.why == "It is to run on 2 cards (n_devices), and Apple M3 Pro is the only one."
    assert alone.verdict.why in alone.asking.text


SCRIPT = """
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("EleutherAI/pythia-6.9b", dtype=torch.float32, device_map="auto")
with torch.no_grad():
    out = model(torch.zeros((4, 512), dtype=torch.long))
"""


def checked(text: str, compute: Compute) -> ScriptReport:
    return check_script(parse_script(text, "script.py"), compute=compute)


def test_a_script_that_maps_its_model_over_all_cards_is_counted_on_them():
    one = checked(SCRIPT, compute=machine(card(0, 23)))
    two = checked(SCRIPT, compute=machine(card(0, 23), card(1, 23)))
    assert one.status == "does_not_fit" and two.status == "fits"
    assert [found.words.split(" on the fullest of ")[-1] for found in two.found] == ["cards 0 and 1"] * 2
    split = flow(FORWARD | {"n_devices": 2}, machine(card(0, 23), card(1, 23)))
    assert two.found[-1].low_bytes == split.verdict.needed_bytes
    # What a smaller card gets is not counted; on one card alone nothing is split.
    assert checked(SCRIPT, compute=machine(card(0, 23), card(1, 12))).status == "does_not_fit"
    assert checked(SCRIPT.replace("auto", "cuda"), compute=machine(card(0, 23), card(1, 23))).status != "fits"


def test_a_cluster_is_asked_for_as_many_cards_as_the_workload(monkeypatch):
    asked = []
    monkeypatch.setattr("compute_awareness.preflight.cluster_paths", lambda *given: asked.append(given[4]) or [])
    flow(FORWARD | {"n_devices": 2}, machine(card(0, 23), card(1, 23)))
    assert asked == [2]


def test_a_smaller_card_is_held_against_its_own_memory():
    """What a run gets by with is asked of the card that is judged, not of the roomiest one beside it."""
    workload = FORWARD | {"n_devices": 2}
    big, small = card(0, 79, "NVIDIA H100 80GB HBM3"), card(1, 23)
    _, low, high = takes(estimate(parse_workload(workload), "9.0"), seen_place(machine(small)))
    statuses = []
    for free in range(high, low, -(64 << 20)):
        verdict = flow(workload, machine(big, replace(small, free_bytes=free))).verdict
        statuses.append(verdict.status)
        by_less = "gives back what it keeps idle" in verdict.why
        assert by_less == (verdict.status == "fits" and free < high)
        assert verdict.needed_bytes is not None and (verdict.status != "fits" or verdict.needed_bytes <= free)
    assert statuses == sorted(statuses) and {*statuses} == {"fits", "tight"}, "green down to some size, then no more"
    assert statuses[1] == "fits"
