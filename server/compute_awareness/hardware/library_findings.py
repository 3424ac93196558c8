"""Whether the libraries of the experiment's Python fit each other and the cards."""

from __future__ import annotations

import json
import operator
import re
from functools import cache
from pathlib import Path
from typing import Any

from .compute import Compute
from .finding import Finding

_UNMET_TOLD = 8
_SIGNS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "<": operator.lt, ">": operator.gt}


def library_findings(compute: Compute) -> list[Finding]:
    """Requirements that are not met, by the libraries' own metadata, and conflicts that are known beside them."""
    if compute.python is None:
        return []
    return [*_unmet(compute), *_known(compute)]


def within(version: str, span: str) -> bool:
    """Whether the release of `version` lies in `span`, e.g. `>=2.8,<2.9`. False for a version that is none.

    Only the numbers of the release count: a pre-release is taken for the release it leads to, because that is how
    the libraries' sources differ.
    """
    release = _release(version)
    if release is None:
        return False
    for part in span.split(","):
        found = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*([\d.]+)\s*", part)
        bound = _release(found[2]) if found else None
        if found is None or bound is None:
            raise ValueError(f"{part!r} is not a part of a span; expected e.g. '>=2.8'")
        width = max(len(release), len(bound))
        ours, theirs = (numbers + (0,) * (width - len(numbers)) for numbers in (release, bound))
        sign = found[1]
        held = {
            ">=": ours >= theirs,
            "<=": ours <= theirs,
            "==": ours == theirs,
            "<": ours < theirs,
            ">": ours > theirs,
        }
        if not held[sign]:
            return False
    return True


def _unmet(compute: Compute) -> list[Finding]:
    python = compute.python
    if python is None or not python.unmet:
        return []
    findings = []
    for unmet in python.unmet[:_UNMET_TOLD]:
        if unmet.found is None:
            message = f"{unmet.by} needs {unmet.needs}, which is not installed"
        else:
            message = f"{unmet.by} needs {unmet.needs}, but {unmet.found} is installed"
        findings.append(Finding(id="requirement_not_met", severity="warning", message=message))
    left = len(python.unmet) - _UNMET_TOLD
    if left > 0:
        text = f"{left} more requirements are not met"
        findings.append(Finding(id="requirement_not_met", severity="warning", message=text))
    findings[-1].cure = f"Run '{python.path} -m pip check', or install the libraries together in a fresh environment."
    return findings


def _known(compute: Compute) -> list[Finding]:
    installed = dict(compute.python.libraries) if compute.python else {}
    if compute.python and compute.python.torch:
        # What is imported counts, also where it is no distribution (a module of a cluster, a nightly build).
        installed["torch"] = compute.python.torch.version
    findings = []
    for row in _conflicts():
        if all(within(installed.get(name, ""), span) for name, span in row["when"].items()) and _holds(row, compute):
            named = " with ".join(f"{name} {installed[name]}" for name in row["when"])
            findings.append(Finding(
                id=row["id"], severity=row["severity"], message=f"{named}: {row['message']}", cure=row["cure"]
            ))  # fmt: skip
    return findings


def _holds(row: dict[str, Any], compute: Compute) -> bool:
    """Whether the cards are those that the conflict is about."""
    usable = [card for card in compute.accelerators if card.visible and card.problem is None]
    device = row.get("device")
    if device == "none" and usable:
        return False
    if device not in (None, "none") and not any(card.kind == device for card in usable):
        return False
    below = _release(row.get("below", ""))
    if below and not any(below > (_release(card.compute_capability or "") or below) for card in usable):
        return False
    return len(usable) >= row.get("cards", 0)


def _release(version: str) -> tuple[int, ...] | None:
    """The numbers of the release: (2, 13, 0) of `2.13.0+cu130`, (4, 0) of `4.0rc1`."""
    found = re.match(r"\s*v?(?:\d+!)?(\d{1,9}(?:\.\d{1,9})*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else None


@cache
def _conflicts() -> list[dict[str, Any]]:
    path = Path(__file__).parent.parent / "facts" / "library_conflicts.json"
    return json.loads(path.read_text(encoding="utf-8"))["conflicts"]
