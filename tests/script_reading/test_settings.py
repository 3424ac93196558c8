"""Settings files of the project: YAML, JSON and TOML that a script loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compute_awareness.script_reading.reading import read_file
from compute_awareness.script_reading.values import Known, Unknown
from compute_awareness.script_reading.yaml_text import UNREAD, parse_yaml

YAML = """\
# an experiment
model: gpt2   # small
data:
  batch_size: 8
  seq: 64
  paths: [a, 'b, c', 3]
  more: {x: 1, y: null}
lr: 1e-4
flag: true
name: "quoted: # text"
empty:
layers:
  - 3
  - 5
runs:
  - id: one
    size: 2
  - id: two
text: |
  two
  lines
anchored: &a 5
"""


def test_the_subset_of_yaml() -> None:
    assert parse_yaml(YAML) == {
        "model": "gpt2", "data": {"batch_size": 8, "seq": 64, "paths": ["a", "b, c", 3], "more": {"x": 1, "y": None}},
        "lr": 1e-4, "flag": True, "name": "quoted: # text", "empty": None, "layers": [3, 5],
        "runs": [{"id": "one", "size": 2}, {"id": "two"}], "text": UNREAD, "anchored": UNREAD,
    }  # fmt: skip


STRANGE = [
    "a: b: c", "\t- x", "- - -", "{", "a: [1, [2]", "? x\n: y", "%TAG ! x", "a\nb", "&a *a", "[" * 500,
    "\n".join(" " * i + "a:" for i in range(200)), "a: *b", "<<: *x", "- a\nb: 1",
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_other_yaml_is_not_guessed(text: str) -> None:
    result = parse_yaml(text)
    assert result is UNREAD or isinstance(result, dict | list | str)


def model_and_batch(folder: Path, code: str) -> tuple[Any, Any]:
    (folder / "pyproject.toml").write_text("[tool.run]\nbatch = 8\n", encoding="utf-8")
    head = "import torch, json, yaml, tomllib\nfrom transformer_lens import HookedTransformer\n"
    run = "m = HookedTransformer.from_pretrained(name)\nm.run_with_cache(torch.zeros((batch, 4)).long())\n"
    script = folder / "run.py"
    script.write_text(head + code + run, encoding="utf-8")
    events = read_file(script).events
    return events[0].fields["model"], events[1].fields["batch_size"]


@pytest.mark.parametrize(
    "code",
    [
        'cfg = yaml.safe_load(open("cfg.yaml"))\nname, batch = cfg["model"], cfg["data"]["batch_size"]\n',
        'with open("conf/cfg.json") as f:\n    cfg = json.load(f)\nname, batch = cfg["model"], cfg["batch"]\n',
        'with open("cfg.yaml", "r") as f:\n    c = yaml.load(f, Loader=yaml.FullLoader)\n'
        'name, batch = c["model"], c["data"]["batch_size"]\n',
        'from omegaconf import OmegaConf\nc = OmegaConf.load("cfg.yaml")\nname, batch = c.model, c.data.batch_size\n',
        'name = "gpt2"\nbatch = tomllib.load(open("pyproject.toml", "rb"))["tool"]["run"]["batch"]\n',
        'from pathlib import Path\nc = json.loads((Path("conf") / "cfg.json").read_text())\n'
        'name, batch = c["model"], c["batch"]\n',
    ],
)  # fmt: skip
def test_values_of_a_settings_file(tmp_path: Path, code: str) -> None:
    (tmp_path / "cfg.yaml").write_text(YAML, encoding="utf-8")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "cfg.json").write_text('{"model": "gpt2", "batch": 8}', encoding="utf-8")
    name, batch = model_and_batch(tmp_path, code)
    assert isinstance(name, Known) and name.value == "gpt2"
    assert isinstance(batch, Known) and batch.value == 8
    assert batch.source.kind == "default" and "." in batch.source.note


def test_files_outside_the_project_and_broken_ones_stay_unknown(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "cfg.json").write_text('{"model": "gpt2", "batch": 8}', encoding="utf-8")
    (project / "bad.json").write_text("{", encoding="utf-8")
    for path in ("../cfg.json", str(tmp_path / "cfg.json"), "bad.json", "missing.json"):
        code = f'cfg = json.load(open({path!r}))\nname, batch = cfg["model"], cfg["batch"]\n'
        name, batch = model_and_batch(project, code)
        assert isinstance(name, Unknown) and isinstance(batch, Unknown), path
