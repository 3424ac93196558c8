"""Where this process runs, as independent layers, each with the signals that show it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from .embedded import table
from .report import Accelerator, Environment, EnvironmentLayer

# What a container's entry process knows and an ssh session into the container does not.
_ENTRY_ONLY = re.compile(r"RUNPOD_|VAST_|CONTAINER_ID$|container$")
_PLACELESS = ("hardware", "fallback")
_READ_CAP = 100_000
_PLAIN = re.compile(r"[\w.:/@+,= -]{1,100}")
_TOKENISH = re.compile(
    r"(?<![A-Za-z0-9])(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|ASIA|AIza|eyJ|rpa_|[aw][ks]-\w{16})"
    r"|[A-Za-z0-9_]{32,}"
)


def harmless(value: str) -> bool:
    """Whether a variable's value may be shown: short, of plain characters, and with nothing like a token in it."""
    return bool(_PLAIN.fullmatch(value)) and not _TOKENISH.search(value)


@dataclass
class _Machine:
    """What the signals are read from."""

    environ: Mapping[str, str]
    root: Path
    system: tuple[str, str]  # system and processor, e.g. ("Darwin", "arm64")
    fallback: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (value, where it was found)

    def variable(self, name: str) -> tuple[str, str]:
        """(value, where from: empty for the process itself); an empty value means not set."""
        if self.environ.get(name):
            return self.environ[name], ""
        return self.fallback.get(name, ("", ""))

    def place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        return _start_of(self.place(path)).strip("\x00\n ")

    def exists(self, path: str) -> bool:
        try:
            return self.place(path).exists()
        except OSError:
            return False

    def first_match(self, pattern: str) -> str:
        """The first path that `pattern` matches, as the machine calls it; empty where none does."""
        folder, _, name = pattern.rpartition("/")
        try:
            names = sorted(entry.name for entry in self.place(folder).iterdir() if fnmatchcase(entry.name, name))
        except OSError:
            return ""
        return f"{folder}/{names[0]}" if names else ""


def _start_of(path: Path) -> str:
    """The first characters of a text file; empty where it cannot be read."""
    try:
        with path.open(errors="replace") as file:
            return file.read(_READ_CAP)
    except OSError:
        return ""


def probe_environment(
    environ: Mapping[str, str], root: Path = Path("/"), system: tuple[str, str] | None = None
) -> Environment:
    """Every environment of `facts/env_signals.json` that shows itself, the primary first by that file's order.

    `clear` says that a layer makes it plain that experiments run here (a rented GPU box, a batch job). Evidence
    holds names of variables and paths; values only of variables known to hold no secret. `system` is the system
    and the processor (by default this machine's, where `root` is its own).
    """
    if system is None:
        system = (platform.system(), platform.machine()) if root == Path("/") else ("", "")
    machine = _Machine(environ, root, system, _entry_variables(environ, root))
    layers: list[EnvironmentLayer] = []
    clear = False
    for entry in _signals():
        if entry["layer"] == "fallback" and any(layer.layer not in _PLACELESS for layer in layers):
            continue
        if any(layer.id in entry.get("unless", []) for layer in layers):
            continue
        layer = _layer(entry, machine)
        if layer is not None:
            _imply(layer, entry, machine, layers)
            layers.append(layer)
            clear = clear or (entry["compute"] and layer.confidence != "low")
    places = [layer for layer in layers if layer.layer != "hardware"]
    # A scheduler's programs alone, as on many laptops, name the place only where nothing else does.
    surer = [layer for layer in places if layer.layer != "scheduler" or layer.confidence != "low"]
    return Environment(primary=(surer or places)[0].id, layers=layers, clear=clear)


def tell_accelerators(environment: Environment, cards: Sequence[Accelerator], certain: bool) -> None:
    """Put what the other probes saw into the layers that tell a place: `has_gpu`, by the cards a process can use.

    `certain` is false where the probes could not look; without a usable card nothing is then said. No variable
    is asked (COLAB_GPU is set on runtimes without a GPU). Under Rosetta only the GPU shows that a Mac is Apple's.
    """
    usable = any(card.visible and card.problem is None for card in cards)
    for layer in environment.layers:
        if layer.layer in ("platform", "access", "fallback") and (usable or certain):
            layer.details["has_gpu"] = "true" if usable else "false"
    known = {layer.id for layer in environment.layers}
    if any(card.kind == "mps" for card in cards) and "apple_silicon" not in known:
        entry = next(entry for entry in _signals() if entry["id"] == "apple_silicon")
        implied = {row["about"]: row["says"] for row in entry["implies"]}
        layer = EnvironmentLayer(
            id=entry["id"], layer=entry["layer"], confidence="high", evidence=["an Apple GPU"], implies=implied
        )
        environment.layers.append(layer)


def _layer(entry: dict[str, Any], machine: _Machine) -> EnvironmentLayer | None:
    confidence: Literal["high", "medium", "low"] | None = None
    evidence: list[str] = []
    for rule in entry["rules"]:
        seen = [_seen(signal, machine) for signal in rule["all"]]
        if all(found is not None for found in seen):
            confidence = rule["confidence"]
            evidence = [found for found in seen if found]
            break
    if confidence is None:
        if entry["layer"] != "fallback":
            return None
        confidence, evidence = "low", ["nothing shows anything else"]
    for signal in entry.get("supporting", []):
        found = _seen(signal, machine)
        if found and found not in evidence:
            evidence.append(found)
    if confidence == "high" and any(" in /" in line for line in evidence[:1]):
        confidence = "medium"  # the variable is another process's
    details = {}
    for label, source in entry.get("details", {}).items():
        value = _detail(source, machine)
        if harmless(value):
            details[label] = value
    if entry["layer"] in ("access", "fallback") and harmless(platform.node()):
        details["hostname"] = platform.node()
    return EnvironmentLayer(
        id=entry["id"], layer=entry["layer"], confidence=confidence, evidence=evidence, details=details
    )


def _imply(
    layer: EnvironmentLayer, entry: dict[str, Any], machine: _Machine, before: Sequence[EnvironmentLayer]
) -> None:
    """Fill `layer.implies`. A platform's word on a subject stands for the container under it, and a job's for the
    ssh session it was started from, so only notes are said twice. A guess implies nothing."""
    said = {about for other in before for about in other.implies if about != "note"}
    for row in entry.get("implies", []) if layer.confidence != "low" else []:
        if row["about"] not in said and _all_seen(row.get("all", []), machine):
            layer.implies.setdefault(row["about"], row["says"])


def _detail(source: Any, machine: _Machine) -> str:
    """The value that `source` of the table's `details` leads to; empty where there is none."""
    if isinstance(source, list):
        return next((value for value in (_detail(one, machine) for one in source) if value), "")
    if isinstance(source, str):
        return machine.variable(source)[0]
    if "says" in source:
        return source["says"] if _all_seen(source["all"], machine) else ""
    text = machine.text(source["file"]) if "file" in source else machine.variable(source["env"])[0]
    if "key" not in source and "count" not in source:
        return text
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if "count" in source:
        return str(len(held)) if isinstance(held, list) else ""
    value = held.get(source["key"]) if isinstance(held, dict) else None
    return value if isinstance(value, str) else ""


def _all_seen(signals: Sequence[dict[str, Any]], machine: _Machine) -> bool:
    return all(_seen(signal, machine) is not None for signal in signals)


def _seen(signal: dict[str, Any], machine: _Machine) -> str | None:
    """What to write down if `signal` is there (empty for something that is rightly absent), else None."""
    if "env" in signal:
        value, where = machine.variable(signal["env"])
        if not value or not _accepts(signal, value):
            return None
        return f"env {signal['env']}" + (f" in {where}" if where else "")
    if "env_regex" in signal:
        names = sorted(n for n in {*machine.environ, *machine.fallback} if re.search(signal["env_regex"], n))
        return f"env {names[0]}" if names else None
    if "no_env" in signal:
        return None if machine.variable(signal["no_env"])[0] else ""
    if "path" in signal:
        return f"path {signal['path']}" if machine.exists(signal["path"]) else None
    if "no_path" in signal:
        return None if machine.exists(signal["no_path"]) else ""
    if "glob" in signal:
        found = machine.first_match(signal["glob"])
        return f"path {found}" if found else None
    if "text" in signal:
        value = machine.text(signal["text"])
        if not value or not _accepts(signal, value):
            return None
        what = signal.get("word") or signal.get("contains") or signal["matches"]
        return f"text {signal['text']} has {what}"
    if "program" in signal:
        folders = [folder for folder in machine.environ.get("PATH", "").split(":") if folder.startswith("/")]
        found = any(machine.exists(f"{folder}/{signal['program']}") for folder in folders)
        return f"program {signal['program']} on PATH" if found else None
    wanted = tuple(signal["platform"])
    return f"platform {' '.join(wanted)}" if machine.system == wanted else None


def _accepts(signal: dict[str, Any], value: str) -> bool:
    if "equals" in signal:
        return value == signal["equals"]
    if "contains" in signal:
        return signal["contains"].lower() in value.lower()
    if "matches" in signal:
        return re.search(signal["matches"], value, re.IGNORECASE | re.MULTILINE) is not None
    return True


def _entry_variables(environ: Mapping[str, str], root: Path) -> dict[str, tuple[str, str]]:
    """Variables of a rented container that this process was not given, with the file they stand in."""
    found: dict[str, tuple[str, str]] = {}
    for path, separator in (("/etc/rp_environment", "\n"), ("/etc/environment", "\n"), ("/proc/1/environ", "\0")):
        for line in _start_of(root / path.lstrip("/")).split(separator):
            name, equals, value = re.sub("^export ", "", line.strip()).partition("=")
            if equals and _ENTRY_ONLY.match(name) and name not in environ:
                found.setdefault(name, (value.strip("'\""), path))
    return found


def _signals() -> list[dict[str, Any]]:
    return table("env_signals.json")["environments"]
