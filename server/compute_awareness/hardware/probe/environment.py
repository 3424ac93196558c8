"""Where this process runs, as independent layers, each with the signals that show it."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .embedded import table
from .report import Environment, EnvironmentLayer

# What a container's entry process knows and an ssh session into the container does not.
_ENTRY_ONLY = re.compile(r"RUNPOD_|VAST_|CONTAINER_ID$")
_PLACELESS = ("hardware", "fallback")
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
    fallback: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (value, where it was found)

    def variable(self, name: str) -> tuple[str, str]:
        """(value, where from: empty for the process itself); an empty value means not set."""
        if self.environ.get(name):
            return self.environ[name], ""
        return self.fallback.get(name, ("", ""))

    def place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        try:
            return self.place(path).read_text(errors="replace")[:100_000].strip("\x00\n ")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        try:
            return self.place(path).exists()
        except OSError:
            return False


def probe_environment(environ: Mapping[str, str], root: Path = Path("/")) -> Environment:
    """Every environment of `facts/env_signals.json` that shows itself, the primary first by that file's order.

    `clear` says that a layer makes it plain that experiments run here (a rented GPU box, a batch job). Evidence
    holds names of variables and paths; values only of variables known to hold no secret.
    """
    machine = _Machine(environ, root, _entry_variables(environ, root))
    layers: list[EnvironmentLayer] = []
    clear = False
    for entry in _signals():
        if entry["layer"] == "fallback" and any(layer.layer not in _PLACELESS for layer in layers):
            continue
        if any(layer.id in entry.get("unless", []) for layer in layers):
            continue
        layer = _layer(entry, machine)
        if layer is not None:
            layers.append(layer)
            clear = clear or (entry["compute"] and layer.confidence != "low")
    primary = next(layer.id for layer in layers if layer.layer != "hardware")
    return Environment(primary=primary, layers=layers, clear=clear)


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
        is_file = source.startswith("file:")
        value = machine.text(source[len("file:") :]) if is_file else machine.variable(source)[0]
        if harmless(value):
            details[label] = value
    if entry["id"] == "ssh_session" and harmless(platform.node()):
        details["hostname"] = platform.node()
    return EnvironmentLayer(
        id=entry["id"], layer=entry["layer"], confidence=confidence, evidence=evidence, details=details
    )


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
    if "text" in signal:
        value = machine.text(signal["text"])
        if not value or not _accepts(signal, value):
            return None
        what = signal.get("contains") or signal["matches"]
        return f"text {signal['text']} has {what}"
    if "program" in signal:
        folders = [folder for folder in machine.environ.get("PATH", "").split(":") if folder.startswith("/")]
        found = any(machine.exists(f"{folder}/{signal['program']}") for folder in folders)
        return f"program {signal['program']} on PATH" if found else None
    system, hardware = signal["platform"]
    real = machine.root == Path("/") and (platform.system(), platform.machine()) == (system, hardware)
    return f"platform {system} {hardware}" if real else None


def _accepts(signal: dict[str, Any], value: str) -> bool:
    if "equals" in signal:
        return value == signal["equals"]
    if "contains" in signal:
        return signal["contains"].lower() in value.lower()
    if "matches" in signal:
        return re.search(signal["matches"], value, re.IGNORECASE) is not None
    return True


def _entry_variables(environ: Mapping[str, str], root: Path) -> dict[str, tuple[str, str]]:
    """Variables of a rented container that this process was not given, with the file they stand in."""
    found: dict[str, tuple[str, str]] = {}
    for path, separator in (("/etc/rp_environment", "\n"), ("/etc/environment", "\n"), ("/proc/1/environ", "\0")):
        try:
            text = (root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            continue
        for line in text.split(separator):
            name, equals, value = re.sub("^export ", "", line.strip()).partition("=")
            if equals and _ENTRY_ONLY.match(name) and name not in environ:
                found.setdefault(name, (value.strip("'\""), path))
    return found


def _signals() -> list[dict[str, Any]]:
    return table("env_signals.json")["environments"]
