"""Nothing is run, nothing outside the project is read, and hostile input ends in a bounded time."""

from __future__ import annotations

import importlib.util
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from compute_awareness.errors import InputError
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.reader import MOST_STEPS
from compute_awareness.script_reading.reading import Reading, project_root, read_file, read_text
from compute_awareness.script_reading.source import LARGEST_SCRIPT, parse_script, read_script

LOAD = 'from transformer_lens import HookedTransformer\nm = HookedTransformer.from_pretrained("gpt2")\n'


def read(code: str) -> Reading:
    reading = read_text(parse_script(code, "script.py"))
    assert reading.steps <= MOST_STEPS + 1
    assert reading.faults == []
    return reading


def test_installed_packages_are_read_without_an_exception() -> None:
    """Every sixtieth file of what is installed; all of them were read once by hand."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    files = sorted(Path(torch.origin).parents[1].rglob("*.py"))[::60]
    assert len(files) >= 300
    for path in files:
        try:
            reading = read_text(read_script(path))
        except InputError as error:
            assert "\n" not in str(error), path
        else:
            assert reading.steps <= MOST_STEPS + 1, path
            assert reading.faults == [], path


@pytest.mark.parametrize(
    "code",
    [
        "x = " + "(" * 150 + "1" + ")" * 150,
        "x = " + "-" * 3000 + "1",
        "x = a" + ".b" * 3000,
        "x = a" + "[0]" * 2000,
        "x = a" + "()" * 2000,
        "x = " + "1 + " * 4000 + "1",
        "x = " + " if a else ".join(["b"] * 400),
        "if a: pass\n" + "elif a: pass\n" * 900,
        "\n".join("    " * depth + "if a:" for depth in range(90)) + "\n" + "    " * 90 + "pass",
        "def f():\n" + "    f()\n" * 500 + "f()\n",
        "lambda: " * 200 + "1",
        "f = lambda g: g(g)\nf(f)\n",
        "def a(n): b(n); b(n)\ndef b(n): a(n); a(n)\na(1)\n",
        "x = [[[[0] * 10**9] * 10**9] * 10**9] * 10**9",
        "x = 9 ** 9 ** 9 ** 9",
        "x = 2 ** 10 ** 9\ny = 1 << 10 ** 9\nz = 'a' * 10 ** 12\nw = f'{1:999999999999}'\nv = '%999999999d' % 1\n",
        "x = '{:99999999999}'.format(1)\ny = 'a'.replace('a', 'b' * 10**6)\nz = ','.join('a' * 10**6)\n",
        "x = list(range(10 ** 18))\nfor i in range(10 ** 18): x.append(i)\n",
        "for a in range(60):\n for b in range(60):\n  for c in range(60):\n   for d in range(60): x = a + b + c + d\n",
        "x = [0]\n" + "x = x + x\n" * 100,
        "x = {}\nx['x'] = x\ny = [x]\nx['y'] = y\ny.append(y)\nprint(y == [x], str(x))\n",
        "x = 1\nwhile x: x = x * x + 1\n",
        "\n".join(f"if a{i}: x = {i}" for i in range(2000)),
        "class A(A): pass\nclass B(A, B): pass\nB().x.y()\n",
        "x = " + "9" * 4000,
        "def g():\n while True: yield g()\nlist(g())\n",
        "a = b = c = d = [0]\n" + "a = [a, b, c, d]\nb = [a, a]\n" * 200,
        "x: " + "list[" * 150 + "int" + "]" * 150 + " = 1",
        "(x := (y := (z := 1)))\nmatch x:\n case {'a': [1, *_]} if z: pass\n case _: pass\n",
        "with a as (b, [c, *d]), e as f.g, h as i[0]: pass\n",
        "try:\n pass\nexcept* ValueError:\n pass\n",
        "x = ','.join(None)\ny = ''.join(1)\nz = ','.join()\nw = ','.split(None, None, None)\nv = 'a'.replace()\n",
    ],
)
def test_hostile_code(code: str) -> None:
    try:
        reading = read(code + "\n" + LOAD)
    except InputError as error:
        assert "\n" not in str(error)
        return
    # What stands below it is still found, unless the bound of the reading was reached first.
    assert [event.kind for event in reading.events] == ["load"] or reading.notes


@pytest.mark.parametrize(
    ("large", "copy"),
    [
        ("[0] * 20_000", "x + x"),
        ("[0] * 20_000", "x[1:]"),
        ("[0] * 20_000", "[*x, *x]"),
        ("[0] * 20_000", "list(x)"),
        ("'a ' * 40_000", "x + 'b'"),
        ("'a ' * 40_000", "f'{x}.'"),
    ],
)
def test_copies_of_what_is_large_are_bounded(large: str, copy: str) -> None:
    """Each line is a few steps and a large copy that a name keeps: by the steps of their nodes all would be made."""
    code = f"x = {large}\n" + "".join(f"y{i} = {copy}\n" for i in range(5000))
    script = parse_script(code, "script.py")
    tracemalloc.start()
    try:
        reading = read_text(script)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert any("too long" in note for note in reading.notes)
    assert held < 200 * 2**20


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').write('x')\nimport os\nos.mkdir({str(mark)!r})\nexec('1/0')\neval('1/0')\n"
    (tmp_path / "helper.py").write_text(code, encoding="utf-8")
    script = tmp_path / "script.py"
    script.write_text(code + "import helper\nfrom helper import *\n__import__('helper')\n" + LOAD, encoding="utf-8")
    assert len(read_file(script).events) == 1
    assert not mark.exists()


def test_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.py"
    path.write_bytes(b"#" * (LARGEST_SCRIPT + 1))
    with pytest.raises(InputError, match="larger than"):
        read_script(path)


def test_many_nodes_are_refused() -> None:
    with pytest.raises(InputError, match="syntax nodes"):
        parse_script("x = [" + "1," * 201_000 + "]", "large.py")


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        read_script(tmp_path)
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.py")
        with pytest.raises(InputError, match="regular"):
            read_script(tmp_path / "pipe.py")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"cells": 3}', '{"cells": [1, {"cell_type": "code"}]}', "[" * 100_000,
     '{"cells": [{"cell_type": "code", "source": 5}]}'],
)  # fmt: skip
def test_broken_notebooks(tmp_path: Path, content: str) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_text(content, encoding="utf-8")
    try:
        assert read_file(path).events == []
    except InputError as error:
        assert "\n" not in str(error)


def test_a_broken_cell_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    cells = [{"cell_type": "code", "source": "def ("}, {"cell_type": "code", "source": LOAD}]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert len(read_file(path).events) == 1


def test_imports_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from b import *\nimport a, b\nNAME = 'gpt2'\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("from a import *\nimport c\n", encoding="utf-8")
    script = tmp_path / "c.py"
    script.write_text("import a\nimport c\n" + LOAD.replace('"gpt2"', "a.NAME"), encoding="utf-8")
    assert read_file(script).events[0].fields["model"].value == "gpt2"


def test_local_modules_are_read_inside_the_project_only(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "pyproject.toml").write_text("", encoding="utf-8")
    (tmp_path / "outside.py").write_text("NAME = 'pythia-70m'\n", encoding="utf-8")
    (project / "inside.py").write_text("NAME = 'gpt2'\n", encoding="utf-8")
    script = project / "sub" / "run.py"
    assert project_root(script) == project.resolve()
    for module, found in (("inside", "gpt2"), ("outside", None), ("...outside", None), ("..inside", "gpt2")):
        script.write_text(f"from {module} import NAME\n" + LOAD.replace('"gpt2"', "NAME"), encoding="utf-8")
        value = read_file(script).events[0].fields["model"]
        assert getattr(value, "value", None) == found, module


@pytest.mark.skipif(os.name != "posix", reason="links need a right on Windows")
def test_links_do_not_lead_outside(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("", encoding="utf-8")
    (tmp_path / "secret.py").write_text("NAME = 'pythia-70m'\n", encoding="utf-8")
    (project / "linked.py").symlink_to(tmp_path / "secret.py")
    script = project / "run.py"
    script.write_text("from linked import NAME\n" + LOAD.replace('"gpt2"', "NAME"), encoding="utf-8")
    assert not hasattr(read_file(script).events[0].fields["model"], "value")


def test_hostile_names_are_no_paths(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(LOAD.replace("gpt2", "../../../etc/passwd"), encoding="utf-8")
    answer = check_script(script, gpu="RTX 4090")
    assert answer.status == "unknown"
    assert "outside the script's project" in answer.found[0].notes[0]


def test_a_script_of_many_calls_is_cut() -> None:
    code = LOAD + "\n".join(f"m.run_with_cache(torch.zeros((1, {i + 1})).long())" for i in range(500))
    answer = check_script(parse_script("import torch\n" + code, "script.py"), gpu="RTX 4090")
    assert len(answer.found) <= 60
    assert any("left out" in note for note in answer.notes)
