"""Running the command line in this process; machines as files."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ran, machine

from compute_awareness.cli import run


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`cli("estimate", "x.json", stdin=b"...")` in this process."""

    def call(*args: str, stdin: bytes | None = None) -> Ran:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capfd.readouterr()
        code = run(args)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def report(tmp_path: Path) -> Callable[[float | None], str]:
    """The path of a report of `machine(free_gib)`, as `--compute` takes it."""

    def write(free_gib: float | None) -> str:
        path = tmp_path / f"report-{free_gib}.json"
        path.write_text(machine(free_gib).model_dump_json(), encoding="utf-8")
        return str(path)

    return write
