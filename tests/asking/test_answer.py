"""What an answer means: cards, sizes, limits, choices, no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compute_awareness.answered import preflight_answered
from compute_awareness.asking.answer import How, keep, over_the_limit, settle
from compute_awareness.asking.profile_file import can_keep_for_project, read_profile
from compute_awareness.asking.question import FormField, Question
from compute_awareness.errors import InputError
from compute_awareness.workload import parse_workload

WHICH = Question(
    decision="ask", text="Which?", message="It needs 20 GiB.", default="I write it for 20 GiB.",
    fields=[FormField(name="gpu", label="What GPU?"), FormField(name="where", label="Where?")],
)  # fmt: skip
WAY = Question(
    decision="ask", text="Which way?", message="Too big.", default="I go on with batch size 1.",
    fields=[
        FormField(
            name="choice", label="Which way?", options=["batch size 1", "a larger GPU"],
            sets=[{"batch_size": 1}, {"gpu": "h200-sxm"}], default="batch size 1",
        )
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "gpu", "said"),
    [
        ({"gpu": "RTX 4090"}, "RTX 4090", "GPU RTX 4090"),
        ({"gpu": " 2xH100 ", "where": "Modal"}, "2xH100", "GPU 2xH100; Modal"),
        ({"gpu": "A100", "memory_gb": 80}, "A100 80 GB", "GPU A100 80 GB"),
        ({"gpu": "None (CPU only)"}, "none", "no GPU"),
        ({"gpu": "I do not know"}, None, "GPU not known"),
        ({"gpu": "I do not know", "memory_gb": 24}, "a card with 24 GB", "GPU a card with 24 GB"),
        ({"memory_gb": 24.0}, "a card with 24 GB", "GPU a card with 24 GB"),
        ({"gpu": "Voodoo 3", "memory_gb": 24}, "a card with 24 GB",
         "GPU Voodoo 3, which is not in the table: counted as a card with 24 GB"),
        ({}, None, "GPU not known"),
        ({"gpu": "T4", "max_hours": 3, "max_usd": 2.5}, "T4", "GPU T4; at most 3 h; at most 2.5 USD"),
    ],
)  # fmt: skip
def test_a_card_is_taken_as_people_write_it(given: dict[str, Any], gpu: str | None, said: str) -> None:
    settled = settle(WHICH, "accept", given)
    assert (settled.gpu, settled.said) == (gpu, f"The user answered: {said}.")
    assert settled.by_default == (gpu is None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gpu": "RTX 4091"}, "nearest: RTX 4090"),
        ({"gpu": "A100", "memory_gb": 60}, "40, 80 GB only"),
        ({"gpu": "T4", "memory_gb": 0}, "memory_gb: a number from 1 to 2048, not '0'"),
        ({"memory_gb": "much"}, "memory_gb: a number"),
        ({"memory_gb": True}, "memory_gb: a number"),
        ({"gpu": ["T4"]}, "gpu: a text, not list"),
        ({"gpu": "T4", "max_usd": float("nan")}, "max_usd: a number"),
    ],
)
def test_what_cannot_be_used_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        settle(WHICH, "accept", given)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_choice_sets_what_it_says_and_only_an_offered_one() -> None:
    assert settle(WAY, "accept", {"choice": "batch size 1"}).patch == {"batch_size": 1}
    larger = settle(WAY, "accept", {"choice": "a larger GPU"})
    assert (larger.gpu, larger.patch) == ("h200-sxm", {})
    with pytest.raises(InputError, match=r"was not offered; one of: batch size 1 \| a larger GPU"):
        settle(WAY, "accept", {"choice": "batch size 2"})


@pytest.mark.parametrize(("how", "said"), [("decline", "declined"), ("cancel", "closed the question")])
def test_no_answer_takes_the_default_and_never_another_card(how: How, said: str) -> None:
    settled = settle(WAY, how, {})
    assert settled.by_default and said in settled.said and settled.patch == {"batch_size": 1}
    larger = WAY.model_copy(update={"fields": [WAY.fields[0].model_copy(update={"default": "a larger GPU"})]})
    assert settle(larger, how, {}).gpu is None
    assert settle(WHICH, how, {}).gpu is None


def test_a_budget_is_held_against_the_cheapest_price_known() -> None:
    settled = settle(WHICH, "accept", {"gpu": "H100 SXM", "max_usd": 10, "max_hours": 100})
    price = settled.usd_per_hour()
    assert price is not None and 0.5 < price < 20
    assert (settled.max_hours, settled.max_usd) == (100, 10)
    assert over_the_limit(settled, 9 / price, "an H100") == ""
    assert f"{11:.2f} USD at {price:.2f} USD per hour, more than the 10 USD allowed." in over_the_limit(
        settled, 11 / price, "an H100"
    )
    assert "more than the 100 h allowed" in over_the_limit(settled, 101, "an H100")
    assert settle(WHICH, "accept", {"gpu": "none", "max_usd": 10}).usd_per_hour() is None
    assert over_the_limit(settle(WHICH, "accept", {"gpu": "T4"}), 1e6, "a T4") == ""


def test_the_same_is_not_asked_twice() -> None:
    work = parse_workload({"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024})
    for how, given in (("accept", {}), ("decline", {}), ("cancel", {})):
        result = preflight_answered(work, WHICH, settle(WHICH, how, given), gpu="unknown")
        assert (result.asking.decision, result.asking.text) == ("tell", WHICH.default)
        assert result.asking.fields == [] and result.asking.message == ""
    again = preflight_answered(work, WAY, settle(WAY, "accept", {"choice": "batch size 1"}), gpu="T4")
    assert again.workload["batch_size"] == 1 and again.verdict.status == "does_not_fit"
    assert (again.asking.decision, again.asking.text) == ("tell", again.verdict.why)


GIVEN = {"gpu": "RTX 4090", "where": "Another machine over SSH"}


def test_an_answer_is_kept_beside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {"COMPUTE_AWARENESS_PROFILE": str(tmp_path / "user.toml")}
    monkeypatch.setenv(*next(iter(nowhere.items())))
    assert not can_keep_for_project(nowhere, tmp_path)
    (tmp_path / ".git").mkdir()
    assert can_keep_for_project(nowhere, tmp_path)
    assert not can_keep_for_project({"COMPUTE_AWARENESS_PROFILE": ""}, tmp_path)
    said = keep(
        settle(WHICH, "accept", {"gpu": "RTX 4090", "where": "Another machine over SSH", "max_usd": 5}), tmp_path
    )
    assert "machine 'another-machine-over-ssh' and budget, in " in said
    profile = read_profile(nowhere, tmp_path)
    found = profile.default_machine()
    assert found is not None and found[1].gpu == "RTX 4090"
    assert profile.budget is not None and profile.budget.max_usd == 5
    written = (tmp_path / ".compute-awareness.toml").read_text(encoding="utf-8")
    assert "machine 'another-machine-over-ssh', in " in keep(settle(WHICH, "accept", GIVEN), tmp_path)
    assert (tmp_path / ".compute-awareness.toml").read_text(encoding="utf-8") == written, "the same again adds nothing"
    other = keep(settle(WHICH, "accept", GIVEN | {"gpu": "T4", "max_usd": 9, "max_hours": 3}), tmp_path)
    assert "machine 'another-machine-over-ssh-2' and budget, in " in other and "limit already, which stays" in other
    profile = read_profile(nowhere, tmp_path)
    machine = profile.machine("another-machine-over-ssh")
    assert machine is not None and machine[1].gpu == "RTX 4090", "what was there is as it was"
    assert (profile.default, profile.budget and profile.budget.max_usd) == ("another-machine-over-ssh", 5)
    assert profile.budget is not None and profile.budget.max_hours == 3
    assert "no card and no limit" in keep(settle(WHICH, "accept", {}), tmp_path)
    (tmp_path / ".compute-awareness.toml").write_text("not toml =", encoding="utf-8")
    assert "could not be kept: " in keep(settle(WHICH, "accept", {"gpu": "T4"}), tmp_path)
