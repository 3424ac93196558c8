"""The reader of the trigger table: what is shipped, what a broken table says, and that a table alone adds a trigger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asking_situations import Case, ask_about, forward

from compute_awareness.asking import decision as engine
from compute_awareness.asking import words
from compute_awareness.asking.conditions import parse_condition
from compute_awareness.asking.facts import A_TRIGGER_FIRED, FACTS
from compute_awareness.asking.table import FILE, policy_table, read_table
from compute_awareness.errors import InputError
from compute_awareness.prompt_files import prompts_folder

TEXT = (prompts_folder() / FILE).read_text("utf-8")
TEMPLATES = {path.stem for path in (prompts_folder() / "questions").glob("[a-z]*.md")}
ROOT = Path(__file__).parents[2]


def broken(old: str, new: str) -> str:
    """What the reader says when `old`, which is there, is replaced once."""
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        read_table(TEXT.replace(old, new, 1), TEMPLATES)
    return str(caught.value)


def test_the_triggers_of_the_brief_and_the_others_are_there() -> None:
    assert [trigger.id for trigger in policy_table().triggers] == [
        "does_not_fit", "no_gpu_used", "download", "shared_gpu", "large_model", "sae_training",
        "full_activation_cache", "costs_money", "long_running", "not_this_machine", "unclear_environment",
    ]  # fmt: skip


def test_each_says_when_and_why_and_is_silenced_by_some_answer() -> None:
    for trigger in policy_table().triggers:
        assert trigger.title and trigger.why and trigger.silenced_by and trigger.ask, trigger.id
        assert "{" not in trigger.title
        assert all(silencer.because for silencer in trigger.silenced_by)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("params_at_least = 6.5 }", "parms_at_least = 6.5 }",
         r"line \d+, trigger 'large_model': unknown fact 'billion_parms'; nearest: billion_params"),
        ('verdict = "does_not_fit" }\nwhy', 'verdict = "doesnt_fit" }\nwhy',
         "'does_not_fit': 'verdict': unknown verdict 'doesnt_fit'; nearest: does_not_fit"),
        ("hours_above = 2 }", "hours = 2 }", "'hours' is a number: give one of hours_at_least, hours_at_most"),
        ("hours_above = 2 }", 'hours_above = "2" }', "'hours_above': a number, not '2'"),
        ("torch_ignores_gpu = true", "torch_ignores_gpu_above = 1", "is a flag: give torch_ignores_gpu = true or fal"),
        ('task = "sae_training" }\nwhy', 'task_above = "sae_training" }\nwhy', "is a choice: give task or task_not"),
        ("when = [{ usd", "wehn = [{ usd", "trigger 'costs_money': unknown key 'wehn'; nearest: when"),
        ('why = "money is not given back"\n', "", "trigger 'costs_money': 'why' is missing"),
        ('question = "no_gpu_used"', 'question = "no_gpu_usd"', "unknown template 'no_gpu_usd'; nearest: no_gpu_used"),
        ('fields = ["torch_build"]', 'fields = ["torch_bild"]', "unknown field 'torch_bild'; nearest: torch_build"),
        ('fields = ["torch_build"]', 'fields = "torch_build"', "fields: a list of names"),
        ('fields = ["torch_build"]', "fields = []", "fields: 0 of them; a message asks for one to 3 things"),
        ('["gpu", "where", "time_budget"]', '["gpu", "where", "time_budget", "spend"]', "fields: 4 of them"),
        ('then = "silent", because = "the RAM', 'then = "quiet", because = "the RAM',
         "then: 'quiet' is not accepted; one of: tell, silent"),
        ("{hours_above}", "{hours_over}", "trigger 'long_running': title: no limit of `when` is called 'hours_over'"),
        ('id = "download"', 'id = "shared_gpu"', "trigger 'shared_gpu' is there twice"),
        ('tell = "on_cluster"', 'tell = "on_a_cluster"', "otherwise: unknown template 'on_a_cluster'; nearest"),
        ('"download", "over_budget"]', '"over_budget"]', "leads: question 'download' is missing"),
        ("laptop_flops = 5e10", 'laptop_flops = "fast"', "laptop_flops: a number above 0, not 'fast'"),
        ("quick_here = {", "quick_heer = {", "unknown fact 'quick_here'; nearest: quick_heer"),
        ("device_gib_below", "device_gb_below", "condition 'small': unknown fact 'device_gb'; nearest: device_gib"),
        ("[fields.spend]\nlabel", "[fields.spend]\nlable", "field 'spend': unknown key 'lable'; nearest: label"),
        ("when = { task", "when = [ task", "not valid TOML"),
        ('when = { task = "sae_training" }', 'when = "always"', "a condition is a table of facts"),
        ('title = "a sparse', 'title = 3 # "a sparse', "title: a text, not int"),
    ],
)  # fmt: skip
def test_a_broken_table_is_named_by_place_and_nearest(old: str, new: str, says: str) -> None:
    message = broken(old, new)
    assert re.search(says if says.startswith("line") else re.escape(says), message), message
    assert message.startswith(f"prompts/{FILE}") and "\n" not in message


def test_the_line_is_that_of_the_mistake() -> None:
    message = broken("seq_len_at_least = 512", "seqlen_at_least = 512")
    line = next(n for n, line in enumerate(TEXT.split("\n"), 1) if "seq_len_at_least = 512" in line)
    assert f"line {line}, trigger 'full_activation_cache': unknown fact 'seqlen'; nearest: seq_len" in message


def test_what_is_not_known_satisfies_nothing() -> None:
    unknown = dict.fromkeys(FACTS)
    for raw in ({"hours_above": 0}, {"hours_below": 9}, {"place_not": "cpu"}, {"login_node": False}):
        assert not parse_condition(raw).holds(unknown)


def test_a_condition_needs_all_and_a_list_any() -> None:
    both = parse_condition({"hours_above": 2, "place": ["card", "cpu"]})
    assert both.holds({"hours": 3, "place": "cpu"})
    assert not both.holds({"hours": 2, "place": "cpu"})
    assert not both.holds({"hours": 3, "place": "no_gpu"})
    assert parse_condition([{"hours_at_most": 1}, {"usd_at_least": 5}]).holds({"hours": 3, "usd": 5})


NEW_TRIGGER = """
[[trigger]]
id = "long_prompts"
title = "prompts of {seq_len_at_least} tokens or more"
when = { seq_len_at_least = 2048 }
why = "eager attention grows with the square of the length"
silenced_by = [{ if = { place_not = "card" }, then = "silent", because = "it is asked about anyway" }]
ask = [{ question = "over_budget", fields = ["spend"] }]
say = "The prompts are {{ needed }} long."
"""


def test_a_trigger_is_added_by_the_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("long prompts", forward(seq=2048), 13, "card_named", 79)
    assert ask_about(case).decision == "silent"
    table = read_table(TEXT + NEW_TRIGGER, TEMPLATES)
    monkeypatch.setattr(engine, "policy_table", lambda: table)
    monkeypatch.setattr(words, "policy_table", lambda: table)
    question = ask_about(case)
    assert (question.decision, question.triggers) == ("ask", ["long_prompts"])
    assert question.by_trigger[0].reason == "eager attention grows with the square of the length"


def test_the_documentation_names_every_fact_and_every_trigger() -> None:
    text = (ROOT / "docs" / "triggers.md").read_text("utf-8")
    named = [*FACTS, A_TRIGGER_FIRED, *(trigger.id for trigger in policy_table().triggers)]
    assert [name for name in named if f"`{name}`" not in text] == []
    assert all(fact.about in text for fact in FACTS.values())


def test_the_limits_are_in_the_table_only() -> None:
    """No module of asking compares with a number of its own."""
    for path in Path(engine.__file__).parent.glob("*.py"):
        if path.stem in ("profile", "profile_file", "words"):
            continue  # the accepted range of what a user may save; words of one figure against another
        compared = re.findall(r"[<>]=? \d[\d_.]*", path.read_text("utf-8"))
        assert [found for found in compared if found not in ("> 0", "< 0", "<= 0", "> 1")] == [], path.name
