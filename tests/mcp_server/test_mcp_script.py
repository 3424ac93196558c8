"""The tool that reads a script."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

pytestmark = pytest.mark.anyio

SCRIPT = """import torch
from transformer_lens import HookedTransformer
model = HookedTransformer.from_pretrained("pythia-2.8b")
logits, cache = model.run_with_cache(torch.zeros((4, 1024)).long())
x = cache["resid_post", 3]
"""


async def called(server: Any, mode: str, **arguments: Any) -> Any:
    async with Client(server, mode=mode) as client:
        return await client.call_tool("preflight_script", arguments)


async def test_text_is_read(server: Any, mode: str) -> None:
    result = await called(server, mode, text=SCRIPT, gpu="RTX 4090")
    data = result.structured_content
    assert not result.is_error and json.loads(result.content[0].text) == data
    assert data["status"] == "does_not_fit"
    assert [one["line"] for one in data["found"]] == [3, 4]
    assert {"full_cache", "gradients_kept"} <= {one["id"] for one in data["findings"]}
    assert len(result.content[0].text) / 4 <= 800
    full = (await called(server, mode, text=SCRIPT, gpu="RTX 4090", detail="full")).structured_content
    assert full["found"][1]["values"]["batch_size"]["where"] == "line 4"


async def test_a_file_inside_the_working_directory_is_read(
    server: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").write_text(SCRIPT, encoding="utf-8")
    data = (await called(server, mode, path="run.py", gpu="A100-80GB")).structured_content
    assert data["found"][1]["line"] == 4


@pytest.mark.parametrize("name", ["../outside.py", "linked.py", "/etc/passwd", "~/x.py"])
async def test_files_outside_are_refused(
    server: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "linked.py" and os.name != "posix":
        pytest.skip("links need a right on Windows")
    inside = tmp_path / "project"
    inside.mkdir()
    (tmp_path / "outside.py").write_text(SCRIPT, encoding="utf-8")
    if name == "linked.py":
        (inside / name).symlink_to(tmp_path / "outside.py")
    monkeypatch.chdir(inside)
    result = await called(server, mode, path=name, gpu="none")
    assert result.is_error and "pass its text" in result.content[0].text
    monkeypatch.setenv("COMPUTE_AWARENESS_ROOTS", str(tmp_path))
    if "outside" in name:
        assert not (await called(server, mode, path=name, gpu="A100-80GB")).is_error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({}, "one of them"), ({"path": "a.py", "text": "x"}, "one of them"), ({"text": "def ("}, "no Python")],
)
async def test_bad_input_is_one_line(server: Any, mode: str, arguments: dict[str, Any], says: str) -> None:
    result = await called(server, mode, **arguments)
    assert result.is_error and says in result.content[0].text and "\n" not in result.content[0].text
