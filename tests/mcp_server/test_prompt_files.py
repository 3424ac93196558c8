"""The loader of the Markdown prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from compute_awareness import prompt_files as module
from compute_awareness.asking.table import policy_table
from compute_awareness.prompt_files import prompt_files, prompts_folder, render


def test_the_prompts_are_there() -> None:
    assert list(prompt_files()) == [
        "after_out_of_memory", "before_full_cache", "before_large_model", "before_long_run", "before_sae_training",
        "compute_preflight", "phrase_compute_question", "reduce_memory", "when_environment_unclear",
        "when_to_ask_about_compute",
    ]  # fmt: skip
    for file in prompt_files().values():
        assert file.title and file.description and not file.body.startswith("+++")
        assert all(argument.description for argument in file.arguments)


def test_a_required_argument_is_required() -> None:
    with pytest.raises(KeyError, match="experiment"):
        prompt_files()["reduce_memory"].render({"gpu": "T4"})


def test_undefined_names_are_errors_not_blanks() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("{{ nothing }}", {})


def test_limits_are_those_of_the_trigger_table() -> None:
    limits = {trigger.id: trigger.when.limits for trigger in policy_table().triggers}
    policy = prompt_files()["when_to_ask_about_compute"].render()
    for trigger in policy_table().triggers:
        assert f"| `{trigger.id}` | {trigger.title} |" in policy
    large = prompt_files()["before_large_model"].render({"model": "x"})
    assert f"{limits['large_model']['billion_params_at_least']:g} billion parameters" in large
    assert f"{policy_table().conditions['small'].limits['device_gib_below']} GiB" in policy


def test_prompts_share_their_rule_about_asking() -> None:
    shared = (prompts_folder() / "shared" / "follow_asking.md").read_text("utf-8")
    using = [name for name, file in prompt_files().items() if "follow_asking" in file.body]
    assert len(using) == 6
    for name in using:
        file = prompt_files()[name]
        text = file.render({argument.name: "x" for argument in file.arguments})
        assert f"\n\n{shared}\nDo not ask" in text or f"\n\n{shared}\nSay the hours" in text, name


def test_nothing_is_escaped() -> None:
    assert render("{{ x }}", {"x": "<a & b>"}) == "<a & b>\n"


def test_the_installed_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "server" / "compute_awareness"
    package.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "prompt_files.py"))
    assert prompts_folder() == tmp_path / "prompts"
    (package / "prompts").mkdir()
    assert prompts_folder() == package / "prompts"


@pytest.mark.parametrize("text", ["# no front matter\n", "before\n+++\ntitle = 'x'\n+++\nbody\n"])
def test_broken_front_matter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "broken.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "prompts_folder", lambda: tmp_path)
    prompt_files.cache_clear()
    try:
        with pytest.raises(ValueError, match="broken"):
            prompt_files()
    finally:
        prompt_files.cache_clear()
