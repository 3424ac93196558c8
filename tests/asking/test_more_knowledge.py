"""Properties of the decision that hold for any workload, need and machine."""

from __future__ import annotations

import dataclasses
import re

import pytest
from asking_situations import Case, Where, ask_about, cache, forward, sae
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.asking.table import policy_table

ASKS_WHICH_GPU = re.compile(r"(what|which)\b[^?]*\bGPU\b[^?]*\?|GPU do you have", re.IGNORECASE)

WORKLOADS = st.one_of(
    st.builds(forward, st.sampled_from(["gpt2", "pythia-1b", "gpt-j-6b", "llama-2-7b"]), st.integers(1, 64)),
    st.builds(cache, st.sampled_from(["gpt2", "pythia-2.8b"]), st.integers(1, 8), st.sampled_from([128, 512, 2048])),
    st.builds(cache, names_filter=st.just("*resid_post"), stop_at_layer=st.sampled_from([None, 2, -1])),
    st.builds(sae, st.sampled_from([None, "gpt2", "mistral-7b"]), st.sampled_from([10_000, 2_000_000, 10**9])),
)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "loading_host_bytes": st.sampled_from([0, 2**31, 2**36]),
        "host_bytes": st.sampled_from([0, 2**34]),
        "flops": st.sampled_from([0, 10**12, 10**16]),
        "high": st.sampled_from([0.0, 3.9, 70.0]),
    },
)
MORE_KNOWN = {
    "others": st.sampled_from([None, 0.5, 5, 100]),
    "download": st.sampled_from([None, 0.5, 30]),
    "disk": st.sampled_from([None, 0.1, 20, 500]),
    "torch": st.sampled_from([None, "cpu", "cuda", "old driver"]),
    "ram": st.sampled_from([8, 512]),
    "usd": st.sampled_from([None, 0, 3, 60]),
    "hours_allowed": st.sampled_from([None, 0.1, 5, 1000]),
    "usd_allowed": st.sampled_from([None, 1, 50, 1000]),
}
OF_A_CASE = {
    "id": st.just("drawn"),
    "workload": WORKLOADS,
    "need": st.floats(0.01, 200),
    "where": st.just("elsewhere"),
    "free": st.none(),
    "hours": st.one_of(st.none(), st.floats(0, 500)),
    "extra": EXTRAS,
}
PLAIN = st.builds(Case, **OF_A_CASE)
CASES = st.builds(Case, **OF_A_CASE, **MORE_KNOWN)
FREE = st.floats(0.05, 300)

# Each pair: what is known, and what is known after one more thing has been learnt. A report that shows no GPU is
# refined by learning that runs are here, or that there is none; it is contradicted, not refined, by a named card.
REFINEMENTS: list[tuple[Where, Where]] = [
    ("elsewhere", "unclear"), ("elsewhere", "no_gpu"), ("elsewhere", "none_named"), ("elsewhere", "card_seen"),
    ("elsewhere", "card_named"), ("no_report", "card_seen"), ("no_report", "unclear"), ("unclear", "no_gpu"),
    ("unclear", "none_named"), ("no_gpu", "none_named"), ("card_seen", "card_named"), ("elsewhere", "login_node"),
]  # fmt: skip


WHERE = st.sampled_from(["elsewhere", "unclear", "no_gpu", "none_named", "card_seen", "card_named", "login_node"])


@pytest.mark.parametrize(("less", "more"), REFINEMENTS)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(case=CASES, free=FREE)
def test_more_knowledge_never_adds_a_question(less: Where, more: Where, case: Case, free: float) -> None:
    if less == "elsewhere" and (case.others, case.disk, case.torch) != (None, None, None):
        case = dataclasses.replace(case, others=None, disk=None, torch=None)  # said of a machine that does not count
    before = ask_about(dataclasses.replace(case, where=less, free=free))
    # Nobody rents a GPU for a run that is said to have none.
    after = ask_about(dataclasses.replace(case, where=more, free=free, usd=None if more == "none_named" else case.usd))
    if before.decision != "ask":
        assert after.decision != "ask", (before, after)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(case=CASES, where=WHERE, free=FREE, usd=st.floats(0, 500), more=st.floats(0, 500))
def test_a_budget_only_silences(case: Case, where: Where, free: float, usd: float, more: float) -> None:
    """A limit below the table's is the user's wish to be asked sooner; any other, and any higher one, is knowledge."""
    case = dataclasses.replace(case, where=where, free=free, usd=usd)
    limits = {trigger.id: trigger.when.limits for trigger in policy_table().triggers}
    usd_limit, hours_limit = limits["costs_money"]["usd_above"], limits["long_running"]["hours_above"]
    budgets = [
        (None, None), (usd_limit, hours_limit), (usd_limit + more, hours_limit), (usd_limit + more, hours_limit + more),
    ]  # fmt: skip
    asked = [
        ask_about(dataclasses.replace(case, usd_allowed=dollars, hours_allowed=hours)).decision == "ask"
        for dollars, hours in budgets
    ]
    assert asked == sorted(asked, reverse=True) or not asked[0]
    assert asked[1:] == sorted(asked[1:], reverse=True)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(case=CASES, where=WHERE, free=FREE)
def test_an_answered_question_is_not_asked_again(case: Case, where: Where, free: float) -> None:
    """Whatever was open: a card that holds it, and leave to spend the time and the money, end the questions."""
    case = dataclasses.replace(case, where=where, free=free)
    hours, usd = 1000.0, 1000.0
    need = 1.2 * max(case.need, case.extra.get("high", 0))
    answered = dataclasses.replace(
        case, where="card_named", free=need + free, hours_allowed=max(hours, case.hours or 0), usd_allowed=usd
    )
    assert ask_about(answered).decision != "ask", ask_about(case)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(case=PLAIN, where=st.sampled_from(["none_named", "card_seen", "card_named"]), free=FREE)
def test_a_known_device_is_never_asked_for(case: Case, where: Where, free: float) -> None:
    question = ask_about(dataclasses.replace(case, where=where, free=free))
    assert not ASKS_WHICH_GPU.search(question.text)
    assert {field.name for field in question.fields} <= {"choice"}
    if question.decision == "ask":
        assert question.triggers[0] == "does_not_fit"
        assert len(question.fields[0].options) >= 1


@settings(max_examples=150, derandomize=True, deadline=None)
@given(case=CASES, where=st.sampled_from(["none_named", "card_seen", "card_named"]), free=FREE)
def test_whatever_else_is_wrong_a_known_device_is_not_asked_for(case: Case, where: Where, free: float) -> None:
    question = ask_about(dataclasses.replace(case, where=where, free=free))
    assert not any(ASKS_WHICH_GPU.search(line) for line in question.text.split("\n"))
    assert {field.name for field in question.fields} <= {"choice", "spend", "download_to", "torch_build"}


@settings(max_examples=400, derandomize=True, deadline=None)
@given(case=CASES, where=WHERE, free=FREE)
def test_every_text_is_whole(case: Case, where: Where, free: float) -> None:
    case = dataclasses.replace(case, where=where, free=free)
    question = ask_about(case)
    assert question == ask_about(case)
    if question.decision == "silent":
        assert (question.text, question.fields, question.triggers) == ("", [], [])
        return
    assert re.search(r"\d GiB", question.text)
    assert "None" not in question.text
    assert "  " not in question.text
    assert not re.search(r" [.,;:](?!\.)", question.text)
    assert "{" not in question.text
    assert question.text.count("?") <= 3
    assert len(question.fields) <= 3
    if question.decision == "tell":
        assert "\n" not in question.text
        assert "?" not in question.text


@settings(max_examples=100, derandomize=True, deadline=None)
@given(case=PLAIN, free=FREE)
def test_a_run_that_fits_the_known_card_is_never_asked_about(case: Case, free: float) -> None:
    need = max(case.need, case.extra.get("high", 0))
    case = dataclasses.replace(case, where="card_named", free=1.2 * need + free)
    assert ask_about(case).decision != "ask"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(case=CASES, free=FREE)
def test_a_run_over_four_gib_that_does_not_fit_is_always_asked_about(case: Case, free: float) -> None:
    case = dataclasses.replace(case, where="card_named", need=max(4.0, free * 1.05), free=free)
    if case.need <= free:
        free = case.need / 1.05
        case = dataclasses.replace(case, free=free)
    question = ask_about(case)
    assert question.decision == "ask"
    assert "does_not_fit" in question.triggers
