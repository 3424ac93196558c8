"""The loader of the Markdown prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from compute_awareness import prompt_files as module
from compute_awareness.prompt_files import prompt_files, prompts_folder, render


def test_the_four_prompts_are_there() -> None:
    assert list(prompt_files()) == [
        "compute_preflight", "phrase_compute_question", "reduce_memory", "when_to_ask_about_compute",
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
