"""The engine against the table of situations, and what a table cannot say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking_situations import Case, ask_about, cache, estimate, forward, machine, sae, verdict
from asking_table import (
    CASES,
    COSTS,
    DOWNLOAD,
    FULL,
    IGNORED,
    LARGE,
    LONG,
    NO_FIT,
    NOT_HERE,
    SAE,
    SHARED,
    UNCLEAR,
)

from compute_awareness.asking.decision import decide
from compute_awareness.hardware.compute import JobLimits, Limits

TRIGGERS = [NO_FIT, IGNORED, DOWNLOAD, SHARED, LARGE, SAE, FULL, COSTS, LONG, NOT_HERE, UNCLEAR]


def test_the_table_is_large_and_its_names_are_its_own() -> None:
    assert len(CASES) >= 150
    assert len({case.id for case in CASES}) == len(CASES)
    assert all(case.why for case in CASES)


def test_the_table_has_both_failures_for_every_trigger() -> None:
    """Rows where it is worth a question and rows where a known answer silences it."""
    for trigger in TRIGGERS:
        decisions = {case.decision for case in CASES if trigger in case.triggers}
        assert decisions == {"ask", "tell"}, trigger


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_decision(case: Case) -> None:
    question = ask_about(case)
    assert (question.decision, tuple(question.triggers)) == (case.decision, case.triggers)
    assert question.reason
    assert bool(question.text) == (question.decision != "silent")
    assert bool(question.fields) == (question.decision == "ask")
    assert len(question.fields) <= 3
    assert [entry.trigger for entry in question.by_trigger if entry.decision != "silent"] == question.triggers
    if question.decision == "ask":
        assert any(entry.decision == "ask" for entry in question.by_trigger)


@pytest.mark.parametrize("case", [case for case in CASES if case.where == "card_seen"], ids=lambda case: case.id)
def test_more_cards_in_sight_ask_no_more(case: Case) -> None:
    """Idle ones, ones that others use, larger and smaller ones."""
    question = ask_about(case)
    for free, held in ((80, 0), (80, 30), (2, 0), (2, 22)):
        more = ask_about(replace(case, beside=(*case.beside, (free, held))))
        assert (more.decision, more.triggers, len(more.fields)) == (
            question.decision,
            question.triggers,
            len(question.fields),
        )


def test_a_card_in_sight_does_not_count_when_the_run_is_elsewhere() -> None:
    work = cache()
    report = machine("NVIDIA H200", 139)
    question = decide(work, estimate(work, 61), report, verdict(61, None, "not known"), [], where_unknown=True)
    assert (question.decision, question.triggers) == ("ask", [FULL, NOT_HERE, UNCLEAR])


def test_without_a_gpu_the_hours_of_a_data_centre_card_do_not_count() -> None:
    work = sae("gpt2", 10**8)
    question = decide(
        work, estimate(work, 5), machine(ram=64), verdict(5, 64, "CPU (RAM)"), [], hours_high=0.3, hours_on="an A100"
    )
    assert (question.decision, question.triggers) == ("ask", [SAE, LONG])
    assert "It may take up to 11.0 days on a laptop's CPU" in question.text


def test_a_small_run_stays_small_on_a_slow_machine() -> None:
    work = forward("gpt2")
    question = decide(
        work, estimate(work, 1.6), machine(clear=False), verdict(1.6, 8, "CPU (RAM)"), [], hours_high=3, hours_on="CPU"
    )
    assert question.decision == "silent"


def test_a_share_of_a_gpu_is_a_shared_gpu() -> None:
    report = machine("NVIDIA L4", 22)
    report.limits = Limits(job=JobLimits(source="SLURM job 12", gpu_shares=4))
    work = forward()
    question = decide(work, estimate(work, 12), report, verdict(12, 22, "NVIDIA L4"), [])
    assert (question.decision, question.triggers) == ("tell", [SHARED])
    assert "The job has 4 shares of a GPU: other jobs may take its memory at any time." in question.text


def test_the_card_that_the_verdict_is_about_is_the_one_that_torch_must_use() -> None:
    """A card that the build has no code for, beside one that it has."""
    report = machine("NVIDIA Tesla P100", 16, torch="cuda")
    assert report.python is not None and report.python.torch is not None
    report.python.torch.arch_list = ["sm_75", "sm_80", "sm_90"]
    old = replace(report.accelerators[0], compute_capability="6.0")
    new = replace(report.accelerators[0], index=1, name="NVIDIA L4", free_bytes=8 * 2**30)
    report.accelerators = [old, new]
    work = sae()
    for device, ignored in (("NVIDIA Tesla P100", True), ("NVIDIA L4", False)):
        question = decide(work, estimate(work, 5), report, verdict(5, 8, device), [])
        assert (IGNORED in question.triggers) is ignored
    assert [entry.decision for entry in question.by_trigger] == ["tell"]
