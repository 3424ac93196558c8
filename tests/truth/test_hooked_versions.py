"""Older releases of TransformerLens, held against what was measured with them.

One environment holds one release, so the measurements are a record: tests/truth/data/hooked_versions.json, made by
tools/measure_hooked_versions.py (real small models on the CPU; the release, torch and transformers are in it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judge import judge

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory.hooked import loading as loading_hooked
from compute_awareness.memory.hooked import versions as hooked_versions
from compute_awareness.models.spec import ModelSpec
from compute_awareness.versions import COVERED, check, parse
from compute_awareness.workload import DTYPE_BYTES, parse_workload

RECORD = json.loads((Path(__file__).parent / "data" / "hooked_versions.json").read_text(encoding="utf-8"))
RELEASES = sorted(RECORD["releases"], key=parse)


def _cases(release: str, kind: str) -> list[dict[str, Any]]:
    """The release's measurements of a kind, without models that it builds but cannot load."""
    cases = [case for case in RECORD["releases"][release]["cases"] if kind in case]
    cases = [c for c in cases if not hooked_versions.missing(ModelSpec(**RECORD["models"][c["model"]]), release)]
    assert cases
    return cases


def _alibi(spec: dict[str, Any], workload: dict[str, Any]) -> int:
    """Bytes of the ALiBi biases that blocks build in their first forward pass, and keep."""
    if spec.get("positional") != "alibi":
        return 0
    return 4 * spec["n_heads"] * workload["seq_len"] ** 2 * workload.get("stop_at_layer", spec["n_layers"])


def test_every_span_was_measured() -> None:
    spans = COVERED["transformer_lens"].spans
    for span in spans[:-1]:  # the newest is what the other tests run
        assert any(span.oldest <= parse(release) <= span.newest for release in RELEASES), span


@pytest.mark.parametrize("release", RELEASES)
def test_forward_passes(release: str) -> None:
    for case in _cases(release, "workload"):
        spec = RECORD["models"][case["model"]]
        workload = {**case["workload"], "model": spec, "dtype": case["dtype"], "library_version": release}
        result = estimate(parse_workload(workload))
        components = {c.name: c.bytes for c in result.components if c.where == "device"}
        where = (release, case["model"], case["dtype"], case["workload"])
        assert components["weights"] == case["weights"], where
        assert components.get("buffers", 0) == case["buffers"] + _alibi(spec, case["workload"]), where
        assert components.get("activation_cache", 0) == case["cache"], where
        standing = case["weights"] + case["buffers"]
        judge(
            "transformer_lens", release, case["workload"]["task"], spec["architecture"], case["dtype"],
            result.peak.tensors, standing + case["peak"], 0.0001, where,
        )  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_loading(release: str) -> None:
    for case in _cases(release, "loading_peak"):
        spec = ModelSpec(**RECORD["models"][case["model"]])
        tape = loading_hooked.play(
            spec,
            DTYPE_BYTES[case["dtype"]],
            no_processing=case["no_processing"],
            release=hooked_versions.release(parse(release)),
        )
        variant = f"{case['dtype']} {'plain' if case['no_processing'] else 'processed'}"
        judge(
            "transformer_lens", release, "loading", spec.architecture, variant, tape.peak, case["loading_peak"], 0.01,
            case,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "changes", "said"),
    [
        ("1.19.0", {"method": "closed_form"}, "not covered yet"),
        ("2.1.0", {"model": "gemma-2-2b"}, "Gemma 2 came with 2.2"),
        ("2.2.2", {"model": "qwen2.5-0.5b"}, "came with 2.3"),
        (
            "2.18.0",
            {"task": "activation_cache", "with_gradients": True, "method": "closed_form"},
            "with_gradients: not covered yet",
        ),
        (
            "3.4.0",
            {"task": "activation_cache", "with_gradients": True, "method": "closed_form"},
            "with_gradients: not covered yet",
        ),
        ("3.4.0", {"seq_len": 2000, "method": "closed_form"}, "beyond the context"),
        ("2.15.4", {"model": "qwen3-0.6b"}, "norms of q and k came with 2.16"),
        ("2.18.0", {"model": "olmo-2-7b"}, "came with 3.0"),
        ("4.0.0", {}, "removed HookedTransformer"),
    ],
)
def test_what_is_refused(version: str, changes: dict[str, Any], said: str) -> None:
    workload = {"task": "inference", "model": "gpt2", "seq_len": 64, "library_version": version} | changes
    with pytest.raises(InputError, match=said):
        estimate(parse_workload(workload))


def test_an_older_release_is_named() -> None:
    verified, warnings = check("transformer_lens", "3.2.1")
    assert "3.4.0" in verified
    assert not warnings
