"""The probe as one script: what runs on a machine where this program is not installed.

The script is this package's own `hardware/probe/` with the two modules and the tables it needs, as plain text that a
person can read before running it. It runs on any Python 3.8 or newer from standard input or in a notebook cell,
writes nothing to disk, and prints the report as one line of JSON between two marks, because a login shell may print
greetings around it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

BEGIN, END = "<<compute-awareness report>>", "<<end of report>>"

_PACKAGE = "compute_awareness"
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

_LOADER = '''
import importlib.abc, importlib.machinery, json, sys

class _Held(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of MODULES from memory."""

    def find_spec(self, name, path=None, target=None):
        if name not in MODULES:
            return None
        package = any(other.startswith(name + ".") for other in MODULES)
        return importlib.machinery.ModuleSpec(name, self, is_package=package)

    def exec_module(self, module):
        module.__file__ = "<compute-awareness probe>/" + module.__name__
        exec(compile(MODULES[module.__name__], module.__file__, "exec"), module.__dict__)

def _report():
    before = sys.dont_write_bytecode, dict(sys.modules)
    sys.dont_write_bytecode = True
    held = _Held()
    sys.meta_path.insert(0, held)
    try:
        from compute_awareness.hardware.probe import embedded
        embedded.EMBEDDED.update(TEXTS)
        from compute_awareness.hardware.probe.examine import report_json
        return report_json()
    finally:
        sys.meta_path.remove(held)
        sys.dont_write_bytecode = before[0]
        for name in MODULES:
            sys.modules.pop(name, None)
            if name in before[1]:
                sys.modules[name] = before[1][name]

print(BEGIN + _report() + END, flush=True)
'''


@cache
def probe_script() -> str:
    """The text of the script. It takes no arguments; its answer is for `compute.as_compute` after `report_in`."""
    modules = {_PACKAGE: "", f"{_PACKAGE}.hardware": ""}
    for name in ("errors", "units"):
        modules[f"{_PACKAGE}.{name}"] = (_HERE.parent / f"{name}.py").read_text(encoding="utf-8")
    texts = {}
    for path in sorted((_HERE / "probe").rglob("*.py")):
        parts = path.relative_to(_HERE / "probe").with_suffix("").parts
        dotted = ".".join((_PACKAGE, "hardware", "probe", *(part for part in parts if part != "__init__")))
        modules[dotted] = texts[path.name] = path.read_text(encoding="utf-8")
    programs = ("nvml_reader.py", "probe_torch.py")
    texts = {name: texts[name] for name in programs}
    for name in programs:
        del modules[f"{_PACKAGE}.hardware.probe.{name[:-3]}"]
    texts |= embedded_tables()
    lines = [
        "# What compute is here? Made by compute-awareness; standard library only, writes no file, starts nvidia-smi,",
        "# the experiment's Python and the like for a few seconds, and prints one line of JSON.",
        f"BEGIN, END = {BEGIN!r}, {END!r}",
        "MODULES = {",
        *(f"{name!r}: {_literal(text)}," for name, text in modules.items()),
        "}",
        "TEXTS = {",
        *(f"{name!r}: {_literal(text)}," for name, text in texts.items()),
        "}",
        _LOADER,
    ]
    return "\n".join(lines)


def report_in(output: str) -> object | None:
    """The decoded JSON of the report within a machine's output; None where there is none or it is cut."""
    start = output.rfind(BEGIN)
    end = output.find(END, start)
    if start < 0 or end < 0:
        return None
    try:
        return json.loads(output[start + len(BEGIN) : end])
    except (ValueError, RecursionError):
        return None


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
    """A Python literal of `text` that stays readable: one line of the text a line of the script."""
    if "\\" not in text and "'''" not in text and not text.endswith("'"):
        return f"'''{text}'''"
    if "'''" not in text and not text.endswith(("'", "\\")):
        return f"r'''{text}'''"
    return repr(text)
