"""A report as SARIF 2.1.0, for code review and CI."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..units import gib
from .answer import Finding, Found, ScriptReport

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    "does_not_fit": "A call needs more memory than the device has",
    "cannot_say": "Whether a call fits depends on a value that the script does not give",
    "full_cache": "Every hook is cached where few are read",
    "not_kept": "A hook is read that the call's own filter leaves out",
    "gradients_kept": "The graph for a backward pass is kept for nothing",
    "float32_by_default": "Weights are loaded in float32 because no dtype is given",
    "grows_in_a_loop": "A list collects tensors on the device over a loop",
    "attn_result": "use_attn_result is on and nothing reads per-head outputs",
    "loaded_twice": "A model is loaded again while it is still there",
    "activation_store": "An SAE's activation store is larger than what the device has left",
    "batch_too_large": "A batch cannot fit the device",
    "evaluation_batch": "The evaluation runs in larger batches than the training",
    "no_cuda_here": "CUDA is written down on a machine without it",
    "download": "The models to download are larger than the free disk",
}


def sarif(reports: list[ScriptReport]) -> dict[str, Any]:
    """One run with a result for each finding and each call that does not fit or cannot be told."""
    results = [result for report in reports for result in _results(report)]
    used = [rule for rule in RULES if any(result["ruleId"] == rule for result in results)]
    driver = {
        "name": "compute-awareness", "version": version("compute-awareness"),
        "rules": [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in used],
    }  # fmt: skip
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _results(report: ScriptReport) -> list[dict[str, Any]]:
    found = [_of_finding(one) for one in report.findings]
    for one in report.found:
        if one.status == "does_not_fit":
            found.append(_of_call(one, "does_not_fit", "error", f"{one.words}; {report.device} has not that much"))
        elif one.status == "unknown":
            found.append(
                _of_call(one, "cannot_say", "note", f"{one.words}: cannot say whether it fits {report.device}")
            )
    return found


def _of_finding(one: Finding) -> dict[str, Any]:
    sizes = [(one.bytes_now, "now"), (one.bytes_after, "after the edit")]
    shown = ", ".join(f"{gib(size)} {when}" for size, when in sizes if size is not None)
    text = one.cause + (f" ({shown})" if shown else "")
    result = _result(one.id, one.severity, text, one.file, one.line, one.end_line)
    return result | ({"properties": {"diff": one.diff}} if one.diff else {})


def _of_call(one: Found, rule: str, level: str, text: str) -> dict[str, Any]:
    return _result(rule, level, text, one.file, one.line, one.end_line)


def _result(rule: str, level: str, text: str, file: str, line: int, end_line: int) -> dict[str, Any]:
    where = {
        "artifactLocation": {"uri": Path(file).as_posix()},
        "region": {"startLine": line, "endLine": max(line, end_line)},
    }
    return {
        "ruleId": rule, "level": level, "message": {"text": text}, "locations": [{"physicalLocation": where}],
    }  # fmt: skip
