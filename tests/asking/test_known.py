"""What the profile fills in, and what it must not: a card that is seen or named, a report that is given."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from asking_situations import GIB, machine

from compute_awareness import preflight as module
from compute_awareness import whereabouts
from compute_awareness.asking.known import card_by_default, card_by_name
from compute_awareness.asking.profile import Budget, Machine, Profile
from compute_awareness.errors import InputError
from compute_awareness.workload import parse_workload

TODAY = datetime.date(2026, 11, 26)
SAE = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "expansion_factor": 32}


def told(gpu: str | None = "RTX 4090", **more) -> Machine:
    return Machine(gpu=gpu, saved=datetime.date(2026, 11, 20), **more)


BOX = Profile(machines={"gpu-box": told()})


def test_a_machines_name_means_its_card():
    known = card_by_name("GPU-box", BOX, TODAY)
    assert known.gpu == "RTX 4090"
    assert known.notes == ["gpu-box has RTX 4090: from the profile, said 6 days ago"]
    assert card_by_name("A100", BOX, TODAY) == ("A100", [])
    assert card_by_name(None, BOX, TODAY) == (None, [])


def test_a_machine_without_a_card_is_an_error():
    with pytest.raises(InputError, match="does not say which GPU 'box' has"):
        card_by_name("box", Profile(machines={"box": told(None)}), TODAY)


@pytest.mark.parametrize("gpu", [None, "unknown"])
def test_it_fills_in_what_would_be_asked(gpu):
    assert card_by_default(gpu, machine(clear=False), BOX, TODAY).gpu == "RTX 4090"
    assert card_by_default(gpu, None, BOX, TODAY).gpu == "RTX 4090"


def test_two_machines_and_no_default_decide_nothing():
    two = Profile(machines={"a": told(), "b": told("T4")})
    assert card_by_default(None, machine(), two, TODAY) == (None, [])
    assert card_by_default(None, machine(), two.model_copy(update={"default": "b"}), TODAY).gpu == "T4"


def test_what_is_seen_goes_before_what_was_said():
    seen = machine("NVIDIA GeForce RTX 3060", 12)
    seen.accelerators[0] = replace(seen.accelerators[0], gpu_id="rtx3060-12gb")
    known = card_by_default(None, seen, BOX, TODAY)
    assert known.gpu is None
    assert "but NVIDIA GeForce RTX 3060 is seen here: what is seen is counted with" in known.notes[0]
    # The same card is no contradiction, and neither is a machine that is somewhere else.
    same = Profile(machines={"here": told("RTX 3060")})
    assert card_by_default(None, seen, same, TODAY) == (None, [])
    elsewhere = Profile(machines={"gpu-box": told(host="gpu-box")})
    assert card_by_default(None, seen, elsewhere, TODAY) == (None, [])


@pytest.fixture
def with_profile(monkeypatch):
    def make(profile: Profile, seen):
        monkeypatch.setattr(module, "read_profile", lambda: profile)
        monkeypatch.setattr(whereabouts, "_look", lambda *_: seen)

    return make


def test_preflight_does_not_ask_what_the_profile_answers(with_profile):
    workload = parse_workload(SAE | {"training_tokens": 1_000_000})
    with_profile(Profile(), machine(clear=False))
    assert module.preflight(workload).asking.decision == "ask"
    with_profile(BOX, machine(clear=False))
    answer = module.preflight(workload)
    assert answer.verdict.device == "RTX 4090"
    assert answer.asking.decision == "tell"
    assert "from the profile" in answer.known[0]


def test_two_cards_of_the_profile_are_both_counted_on(with_profile):
    workload = parse_workload({"task": "inference", "library": "transformers", "model": "llama-2-70b",
                               "dtype": "bfloat16", "batch_size": 1, "seq_len": 512})  # fmt: skip
    with_profile(Profile(machines={"lab": told("2x A100 80GB")}), machine(clear=False))
    for gpu in (None, "lab"):
        answer = module.preflight(workload, gpu=gpu)
        assert answer.verdict.device.startswith("2 x A100") and answer.verdict.status == "does_not_fit"
        assert any(change.patch == {"n_devices": 2} for change in answer.advice.solutions)


def test_a_report_of_another_machine_is_an_answer_already(with_profile):
    with_profile(BOX, machine())
    report = machine("NVIDIA A100-SXM4-80GB", 79)
    answer = module.preflight(parse_workload(SAE), compute=report)
    assert answer.verdict.device == "NVIDIA A100-SXM4-80GB"
    assert answer.known == []
    bare = module.preflight(parse_workload(SAE), compute=machine(ram=64))
    assert "RAM" in bare.verdict.device


def test_hours_within_the_budget_are_not_long(with_profile):
    workload = parse_workload(SAE | {"training_tokens": 2_000_000_000})
    with_profile(BOX, machine(clear=False))
    assert "long_running" in module.preflight(workload).asking.triggers
    allowed = Budget(max_hours=5000, saved=TODAY)
    with_profile(BOX.model_copy(update={"budget": allowed}), machine(clear=False))
    assert "long_running" not in module.preflight(workload).asking.triggers


def test_a_broken_file_is_said_and_decides_nothing(with_profile):
    with_profile(Profile(problems=["/x/profile.toml: is not valid TOML"]), machine("NVIDIA A100-SXM4-80GB", 79))
    assert module.preflight(parse_workload(SAE)).known == ["the profile /x/profile.toml: is not valid TOML"]


def test_free_memory_in_gib_is_what_the_builders_say():
    assert machine("x", 3).accelerators[0].free_bytes == 3 * GIB


def test_the_price_of_a_machine_counts_against_the_budget(with_profile):
    workload = parse_workload(SAE | {"training_tokens": 10**10})
    paid = Profile(machines={"pod": told("A100 80GB", usd_per_hour=1.5)})
    with_profile(paid, machine(clear=False))
    for gpu in (None, "unknown", "pod"):
        asking = module.preflight(workload, gpu=gpu).asking
        assert "costs_money" in asking.triggers and asking.decision == "ask", gpu
        assert "A100 80GB at 1.50 USD per hour, pod, 2026-11-20" in asking.text
    assert "costs_money" not in module.preflight(workload, gpu="A100 80GB").asking.triggers
    rich = Budget(max_usd=100_000, saved=TODAY)
    with_profile(paid.model_copy(update={"budget": rich}), machine(clear=False))
    assert module.preflight(workload).asking.decision == "tell"
    poor = Budget(max_usd=1, saved=TODAY)
    with_profile(paid.model_copy(update={"budget": poor}), machine(clear=False))
    asking = module.preflight(workload).asking
    assert asking.decision == "ask"
    assert "and you allow 1.00 USD" in asking.text
