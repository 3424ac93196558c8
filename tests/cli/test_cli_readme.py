"""The README, the examples and .ci/run say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from compute_awareness.cli.commands import EXIT_OF_STATUS, program
from compute_awareness.workload import TASKS, load_workload

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def _marked(name: str) -> str:
    found = re.findall(rf"<!-- ci:{name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_ci_runs_the_two_commands_of_the_readme():
    assert _marked("main").startswith("python -m pip install . && compute-awareness preflight examples/")
    assert _marked("test") == "python -m pip install '.[test]' && python -m pytest"
    assert "$(readme main)" in CI
    assert "$(readme test)" in CI
    # Nothing beside them installs the project or starts its tests.
    assert not re.search(r"pip install[^\n]* \.|\bpytest\b", CI)


def test_the_example_of_the_first_command_is_there():
    name = re.search(r"examples/\S+\.json", _marked("main"))
    assert name is not None
    workload = load_workload((ROOT / name[0]).read_text(encoding="utf-8"))
    assert workload.model_dump(include={"model", "batch_size", "seq_len"}) == {
        "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024,
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda p: p.stem)
def test_every_example_has_an_estimate(cli, path):
    ran = cli("estimate", str(path), "--json")
    assert ran.code == 0, ran.err
    given = json.loads(path.read_text(encoding="utf-8"))
    assert {name: ran.document["workload"][name] for name in given if name != "model"} == {
        name: value for name, value in given.items() if name != "model"
    }


def test_the_readme_names_every_command_exit_code_and_task():
    for name in program.commands:
        assert re.search(rf"^compute-awareness .*\b{name}\b", README, re.MULTILINE)
    for code in {*EXIT_OF_STATUS.values(), 2, 70}:
        assert f"\n| {code} | " in README
    for task in TASKS:
        assert f"`{task}`" in README
