"""The plugin and its marketplace as Claude Code itself judges them, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("claude") is None, reason="Claude Code is not installed")
@pytest.mark.parametrize("arguments", [["plugin"], ["--profile", "directory", "plugin"], ["."]], ids=" ".join)
def test_claude_code_has_nothing_to_complain_of(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = subprocess.run(
        ["claude", "plugin", "validate", "--strict", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0 and "Validation passed" in said.stdout, said.stdout + said.stderr
