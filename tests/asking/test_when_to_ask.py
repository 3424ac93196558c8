"""The engine against the table of situations, and what a table cannot say."""

from __future__ import annotations

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
