"""The probe as one script: what runs on a machine where this program is not installed.

The script is this package's own `hardware/probe/` with the two modules and the tables it needs, as plain text that a
person can read before running it. It runs on any Python 3.8 or newer from standard input, as a file or in a notebook
cell, writes nothing to disk, and prints the report as one line of JSON between two marks, because a login shell may
print greetings around it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

BEGIN, END = "<<compute-awareness report>>", "<<end of report>>"

_PACKAGE = "compute_awareness"
_AT_HOME = ("cards.py", "shortest.py")  # they need the GPU table and are of use only where the answer is read
_HERE = Path(__file__).parent
_GPU_FIELDS = {
    "nvidia": (
        "id", "kind", "compute_capability", "nvml_names", "nvml_total_mib", "nvml_total_mib_other_ecc", "sold_as_gb",
    ),
    "amd": ("id", "name", "arch", "pci_ids"),
    "intel": ("id", "name", "pci_ids"),
    "google": ("id", "sold_as_gb"),
}  # fmt: skip
"""What the probe reads of each row; of Apple's chips it reads nothing."""

_HEAD = """\
# What compute is here? Made by `compute-awareness detect --script`.
#
# Standard library only, any Python 3.8 or newer. It looks at the GPUs, the RAM, the limits and the environment, starts
# nvidia-smi, the experiment's Python and the like for a few seconds, writes no file, and prints one line of JSON:
#
#   over ssh       ssh gpu-box python3 - < probe.py        (or: compute-awareness detect --host gpu-box)
#   a notebook     paste all of this into one cell and run it (Colab, Kaggle, Jupyter)
#   a SLURM job    srun --gres=gpu:1 python3 probe.py      (or sbatch; the answer is in the job's output)
#
# Give what it prints, greetings around it and all, to `compute-awareness preflight ... --compute FILE`, or to the
# tools of the MCP server as `compute`.

# The experiment's Python, where it is not the one that is found, e.g. "/home/me/venv/bin/python". None: in a notebook
# the notebook's own, in a virtual environment its own, else the active environment, .venv, or the first on PATH.
"""

_LOADER = '''
def _compute_awareness_probe(python):
    import sys

    # Read from standard input, Python looks for modules in the working folder first: a json.py there is not meant.
    on_path = sys.path[:]
    if sys.argv[:1] == ["-"] and sys.path[:1] == [""]:
        del sys.path[0]
    import importlib.abc, importlib.machinery, json

    class Held(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        """Imports the modules of PROBE_MODULES from memory."""

        def find_spec(self, name, path=None, target=None):
            if name not in PROBE_MODULES:
                return None
            package = any(other.startswith(name + ".") for other in PROBE_MODULES)
            return importlib.machinery.ModuleSpec(name, self, is_package=package)

        def exec_module(self, module):
            module.__file__ = "<compute-awareness probe>/" + module.__name__
            exec(compile(PROBE_MODULES[module.__name__], module.__file__, "exec"), module.__dict__)

    def ours():
        return [name for name in sys.modules if name.partition(".")[0] == "compute_awareness"]

    # Where compute-awareness itself is installed and in use, its modules come back as they were.
    installed = {name: sys.modules.pop(name) for name in ours()}
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    held = Held()
    sys.meta_path.insert(0, held)
    try:
        if sys.version_info < (3, 8):
            raise RuntimeError("the probe needs Python 3.8 or newer, this is %d.%d" % sys.version_info[:2])
        from compute_awareness.hardware.probe import embedded
        embedded.EMBEDDED.update(PROBE_TEXTS)
        from compute_awareness.hardware.probe.examine import report_json
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        running = shell is not None or sys.prefix != sys.base_prefix
        text = report_json(python, running=running)
    except Exception as error:
        known = type(error).__name__ in ("InputError", "RuntimeError")
        text = json.dumps({"error": str(error) if known else "%s: %s" % (type(error).__name__, error)})
    finally:
        sys.meta_path.remove(held)
        sys.dont_write_bytecode = bytecode
        for name in ours():
            del sys.modules[name]
        sys.modules.update(installed)
        sys.path[:] = on_path
    # So no value in it can look like a mark.
    print(PROBE_MARKS[0] + text.replace("<", "\\\\u003c") + PROBE_MARKS[1], flush=True)
    # A notebook's variables stay as they were.
    for name in ("PROBE_PYTHON", "PROBE_MARKS", "PROBE_MODULES", "PROBE_TEXTS", "_compute_awareness_probe"):
        globals().pop(name, None)

_compute_awareness_probe(PROBE_PYTHON)
'''


@cache
def probe_script(python: str | None = None) -> str:
    """The text of the script; its answer is for `reading.compute_in`.

    Args:
        python: the experiment's Python on the machine that will run it; None = found there by the usual signs.
    """
    modules = {_PACKAGE: "", f"{_PACKAGE}.hardware": ""}
    for name in ("errors", "units"):
        modules[f"{_PACKAGE}.{name}"] = (_HERE.parent / f"{name}.py").read_text(encoding="utf-8")
    texts = {}
    for path in sorted((_HERE / "probe").rglob("*.py")):
        parts = path.relative_to(_HERE / "probe").with_suffix("").parts
        dotted = ".".join((_PACKAGE, "hardware", "probe", *(part for part in parts if part != "__init__")))
        modules[dotted] = texts[path.name] = path.read_text(encoding="utf-8")
    for path in sorted((_HERE / "cluster").glob("*.py")):
        if path.name not in _AT_HOME:
            name = "" if path.stem == "__init__" else f".{path.stem}"
            modules[f"{_PACKAGE}.hardware.cluster{name}"] = path.read_text(encoding="utf-8")
    programs = ("nvml_reader.py", "probe_torch.py")
    texts = {name: texts[name] for name in programs}
    for name in programs:
        del modules[f"{_PACKAGE}.hardware.probe.{name[:-3]}"]
    texts |= embedded_tables()
    lines = [
        f"{_HEAD}PROBE_PYTHON = {python!a}",
        "",
        f"PROBE_MARKS = {BEGIN!r}, {END!r}",
        "PROBE_MODULES = {",
        *(f"{name!r}: {_literal(text)}," for name, text in modules.items()),
        "}",
        "PROBE_TEXTS = {",
        *(f"{name!r}: {_literal(text)}," for name, text in texts.items()),
        "}",
        _LOADER,
    ]
    return "\n".join(lines)


def embedded_tables() -> dict[str, str]:
    """The tables of the script as JSON by file name, cut to what the probe reads of them."""
    return {name: json.dumps(table, separators=(",", ":")) for name, table in _tables().items()}


def _tables() -> dict[str, object]:
    facts = _HERE.parent / "facts"
    signals = json.loads((facts / "env_signals.json").read_text(encoding="utf-8"))["environments"]
    gpus = json.loads((facts / "gpus.json").read_text(encoding="utf-8"))["gpus"]
    for entry in signals:
        for told in ("sources", "source_date", "notes"):
            entry.pop(told, None)
        for implied in entry.get("implies", []):
            del implied["source"]
    rows = [
        {name: row[name] for name in _GPU_FIELDS[row["vendor"]] if row.get(name) is not None}
        for row in gpus
        if row["vendor"] in _GPU_FIELDS
    ]
    wheels = json.loads((facts / "torch_wheels.json").read_text(encoding="utf-8"))["wheels"]
    return {
        "env_signals.json": {"environments": signals},
        "gpus.json": {"gpus": rows},
        "torch_wheels.json": {"wheels": wheels},
    }


def _literal(text: str) -> str:
    """A Python literal of `text` in ASCII that stays readable: one line of the text a line of the script."""
    if text.isascii() and "'''" not in text and not text.endswith(("'", "\\")):
        raw = "r" if "\\" in text else ""
        return f"{raw}'''{text}'''"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").encode("ascii", "backslashreplace").decode()
    return f"'''{escaped}'''"
