"""The checks of a release notice what they are for; .ci/run runs them whole, with the tools they need."""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from compute_awareness.mcp_server.server import tools
from compute_awareness.picture_png import png_of

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of tools/, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.chdir(ROOT)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == TOOLS:
            del sys.modules[name]


def test_the_icon_is_drawn_from_its_source(tool: Any) -> None:
    """Of the size that the directories of bundles and plugins take. Pillow's corners may differ by a shade."""
    made = tool("build_icon")
    drawn = Image.open(io.BytesIO(png_of(made.SOURCE.read_text("utf-8"), made.PIXELS / made.SVG_PIXELS)))
    for path in made.DRAWN:
        with Image.open(path) as kept:
            assert kept.format == "PNG" and kept.size == drawn.size == (512, 512)
            apart = ImageStat.Stat(ImageChops.difference(kept.convert("RGBA"), drawn.convert("RGBA"))).mean
        assert max(apart) < 0.5, f"run: python tools/build_icon.py ({path})"
    manifest = json.loads((ROOT / "manifest.json").read_text("utf-8"))
    assert ROOT / manifest["icon"] in made.DRAWN


@pytest.fixture
def release(tool: Any, tmp_path: Path) -> Any:
    check = tool("release_check")
    return check.Release(check.versions()["pyproject.toml"], tmp_path, rehearse=False)


def test_one_version_is_stated_everywhere(tool: Any) -> None:
    stated = tool("release_check").versions()
    assert len(set(stated.values())) == 1, stated
    described = [*ROOT.glob("*.json"), *ROOT.glob(".claude-plugin/*.json"), *ROOT.glob("plugin/**/*.json")]
    with_version = {
        path.relative_to(ROOT).as_posix() for path in described if "version" in json.loads(path.read_text("utf-8"))
    }
    assert with_version == {name for name in stated if name.endswith(".json") and "," not in name}


def test_another_version_somewhere_is_noticed(tool: Any, release: Any) -> None:
    check = tool("release_check")
    other = check.Release("9.9.9", release.out, rehearse=True)
    with pytest.raises(check.Failed, match=r"9\.9\.9 in pyproject.*server\.json, packages"):
        check.version_agrees(other)


@pytest.mark.parametrize(
    ("newest", "rehearse", "refusal"),
    [
        ("{}, 2027-01-31", False, None),
        ("{}, unreleased", True, None),
        ("{}, unreleased", False, "give it the day"),
        ("{}, 31 January 2027", False, "give it the day"),
        ("0.0.9, 2027-01-31", True, "its newest entry is 0.0.9"),
    ],
)
def test_changelog(
    tool: Any, release: Any, monkeypatch: pytest.MonkeyPatch, newest: str, rehearse: bool, refusal: str | None
) -> None:
    check = tool("release_check")
    heading = newest.format(release.version)
    (release.out / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n- x\n\n## 0.0.1, 2026-01-01\n", "utf-8")
    monkeypatch.chdir(release.out)
    asked = check.Release(release.version, release.out, rehearse)
    if refusal is None:
        check.changelog(asked)
    else:
        with pytest.raises(check.Failed, match=refusal):
            check.changelog(asked)


def test_an_archive_that_lacks_a_file_is_noticed(tool: Any, tmp_path: Path) -> None:
    check = tool("release_check")
    archive = tmp_path / "x.whl"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("compute_awareness/__init__.py", "")
    check.lacks(archive, ["compute_awareness/__init__.py"])
    with pytest.raises(check.Failed, match=r"lacks 1 files: compute_awareness/cli\.py"):
        check.lacks(archive, ["compute_awareness/__init__.py", "compute_awareness/cli.py"])


def test_a_program_that_is_missing_or_fails_is_said(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = tool("release_check")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(check.Failed, match="npx was not found: install Node"):
        check.tool("npx")
    with pytest.raises(check.Failed, match=r"(?s)ended with 7.*because"):
        check.run(sys.executable, "-c", "import sys; print('because'); sys.exit(7)")


def test_the_bundle_leaves_out_nothing_of_the_package() -> None:
    """A pattern without a slash in front matches a folder of that name at any depth, so of the package too."""
    patterns = (ROOT / ".mcpbignore").read_text("utf-8").split()
    anywhere = {pattern.rstrip("/") for pattern in patterns if not pattern.startswith("/")}
    ours = [path for folder in ("server", "prompts") for path in (ROOT / folder).rglob("*")]
    names = {part for path in ours if "__pycache__" not in path.parts for part in path.relative_to(ROOT).parts}
    assert names & anywhere == set()


def test_the_bundle_is_started_as_a_host_starts_it(tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    config = {"command": "uv", "args": ["run", "--directory", "${__dirname}"], "env": {"A": "${__dirname}/a"}}
    start = tool("check_bundle").launch(config, tmp_path)
    assert (start.command, start.args) == ("uv", ["run", "--directory", str(tmp_path)])
    assert start.env["A"] == f"{tmp_path}/a" and "PYTHONPATH" not in start.env


def test_the_inspector_calls_every_tool(tool: Any) -> None:
    assert set(tool("inspector").CALLS) == {listed.name for listed in tools()}


def checks(**statuses: str) -> list[dict[str, Any]]:
    return [
        {"id": name.replace("_", "-"), "status": status, "errorMessage": "why"} for name, status in statuses.items()
    ]


@pytest.mark.parametrize(
    ("scenario", "found", "said"),
    [
        ("ping", checks(ping="SUCCESS"), []),
        ("ping", checks(ping="FAILURE"), ["ping: ping: why", "ping passes without a check of its own"]),
        ("ping", checks(ping="SUCCESS", other="WARNING"), ["ping: other: why"]),
        ("ping", checks(wire_schema_valid="SUCCESS"), ["ping passes without a check of its own"]),
        (
            "ping",
            checks(ping="SUCCESS", wire_schema_valid="FAILURE"),
            ["ping: a message does not follow the specification's schema"],
        ),
        ("of-the-suite", checks(tool="FAILURE", wire_schema_valid="SUCCESS"), []),
        ("of-the-suite", checks(tool="SUCCESS"), ["of-the-suite passes: it no longer belongs in the baseline"]),
        ("partly", checks(one="FAILURE", two="SUCCESS"), []),
        ("partly", checks(one="FAILURE", two="FAILURE"), ["partly: two: why"]),
        ("partly", checks(one="SUCCESS"), ["partly: one passes: it no longer belongs in the baseline"]),
        ("new", checks(new="SUCCESS"), ["new is new: say in tools/conformance.py whether it applies"]),
        # Without sessions there is nothing to see of them.
        ("server-session-lifecycle", checks(x="WARNING"), []),
    ],
)
def test_conformance_results_are_judged(tool: Any, scenario: str, found: list[dict[str, Any]], said: list[str]) -> None:
    suite = tool("conformance")
    run = suite.Run("2025-11-25")
    baseline = {"of-the-suite": set(), "partly": {"one"}}
    right = {name: checks(right="SUCCESS") for name in run.applies}
    assert suite.judge(run, right | {scenario: found}, baseline) == said


def test_a_scenario_that_was_not_run_is_noticed(tool: Any) -> None:
    suite = tool("conformance")
    run = suite.Run("2025-11-25", ("--sessions",))
    assert suite.judge(run, {}, {}) == [f"{name} was not run" for name in sorted(suite.APPLY["2025-11-25"])]


def test_the_baseline_excuses_no_scenario_that_applies(tool: Any) -> None:
    suite = tool("conformance")
    baseline = suite.read_baseline(suite.BASELINE)
    whole = {name for name, which in baseline.items() if not which}
    assert whole and not whole & {name for names in suite.APPLY.values() for name in names}
    assert len(baseline["server-stateless"]) == 4
    text = suite.BASELINE.read_text("utf-8")
    assert sum((which and len(which)) or 1 for which in baseline.values()) == text.count("\n  - "), "an entry is lost"
