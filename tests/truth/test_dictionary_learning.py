"""SAE training memory against dictionary_learning's real trainers, as tools/measure_dictionary_learning.py found it.

The package itself is no test dependency (it pins an old nnsight), so the truth is a record: peaks of real `update()`
calls, and of `trainSAE` on a real ActivationBuffer, on the CPU, with the versions they were measured on. So are the
operations, as FlopCounterMode counted them in the same runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judge import judge

from compute_awareness.errors import InputError
from compute_awareness.estimates.sae_training import sae_training
from compute_awareness.memory.huggingface import forward
from compute_awareness.memory.sae.dictionary_learning import TRAINERS
from compute_awareness.models import catalogue
from compute_awareness.runtime.sae import Step
from compute_awareness.workload import SaeTraining, parse_workload

RECORD = json.loads((Path(__file__).parent / "data" / "dictionary_learning.json").read_text(encoding="utf-8"))
VERSION = RECORD["versions"]["dictionary-learning"]


def workload(architecture: str, d_in: int = 64, d_sae: int = 256, **more: Any) -> SaeTraining:
    if architecture.startswith("matryoshka"):  # group_fractions 1/8, 3/8, 1/2, as measured
        more["matryoshka_widths"] = [d_sae // 8, d_sae // 2]
    given = {"task": "sae_training", "library": "dictionary_learning", "architecture": architecture, "k": 8}
    parsed = parse_workload(given | {"d_in": d_in, "d_sae": d_sae} | more)
    assert isinstance(parsed, SaeTraining)
    return parsed


def test_every_trainer_that_is_covered_was_measured() -> None:
    assert {row["architecture"] for row in RECORD["steps"]} == {*TRAINERS}
    assert any(row["n_saes"] > 1 for row in RECORD["steps"])
    assert {row["architecture"] for row in RECORD["steps"] if row["dead"]} == {n for n in TRAINERS if "topk" in n}


@pytest.mark.parametrize("row", RECORD["steps"], ids=lambda row: "-".join(str(value) for value in row.values()))
def test_update(row: dict) -> None:
    """To the byte but for single numbers; with dead latents but for vectors of the batch and the latents."""
    result = sae_training(
        workload(
            row["architecture"], row["d_in"], row["d_sae"], k=row["k"], train_batch_size_tokens=row["batch"],
            n_saes=row["n_saes"],
        ),
        None,
    )  # fmt: skip
    assert sum(component.bytes_at_peak for component in result.components) == result.peak.tensors
    ours = result.peak.tensors + (result.late_bytes if row["dead"] else 0)
    judge("dictionary_learning", VERSION, "sae_training", row["architecture"], f"float32{' dead' * row['dead']}",
          ours, row["peak"], 0.0005, row)  # fmt: skip


@pytest.mark.parametrize("row", RECORD["steps"], ids=lambda row: "-".join(str(value) for value in row.values()))
def test_operations_of_a_step(row: dict) -> None:
    """To the last one, of one update() of every trainer."""
    given = (row["architecture"], row["d_in"], row["d_sae"])
    if row["dead"]:
        step = Step(*given, row["batch"])
        assert row["n_saes"] * (step.in_dictionary_learning() + step.of_dead_latents()).flops == row["flops"]
        return
    w = workload(*given, k=row["k"], train_batch_size_tokens=row["batch"], training_tokens=row["batch"],
                 n_saes=row["n_saes"])  # fmt: skip
    assert sae_training(w, None).flops == row["flops"]


def inline(name: str) -> dict:
    spec = catalogue.find(name)
    assert spec is not None
    short = {"n_layers": RECORD["n_layers"], "d_vocab": RECORD["d_vocab"]}
    return spec.model_dump(exclude_none=True, exclude={"source", "checkpoint"}) | short


def with_buffer(row: dict) -> SaeTraining:
    measured = ("peak", "steps", "flops", "architecture", "model", "math_kernel")
    fields = {name: value for name, value in row.items() if name not in measured}
    tokens = row["steps"] * row["out_batch_size"]
    return workload(row["architecture"], model=inline(row["model"]), training_tokens=tokens, **fields)


@pytest.mark.parametrize("row", RECORD["buffers"], ids=lambda row: "-".join(str(value) for value in row.values()))
def test_with_a_language_model_and_its_buffer(row: dict) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not row["math_kernel"]:  # the CPU's kernel groups heads in float32, CUDA's do not
            patch.setattr(forward, "needs_math_kernel", lambda *_: False)
        result = sae_training(with_buffer(row), None)
    assert sum(component.bytes_at_peak for component in result.components) == result.peak.tensors
    judge("dictionary_learning", VERSION, "sae_training", row["architecture"], f"float32, {row['model_dtype']} buffer",
          result.peak.tensors, row["peak"], 0.005, row)  # fmt: skip


@pytest.mark.parametrize("row", RECORD["buffers"], ids=lambda row: "-".join(str(value) for value in row.values()))
def test_operations_of_a_run_with_a_buffer(row: dict) -> None:
    """To the last one: the steps of trainSAE, and the passes of the language model up to the submodule."""
    assert sae_training(with_buffer(row), None).flops == row["flops"]


def test_grouped_heads_in_float32_run_unfused_on_cuda() -> None:
    """What a user is told is that kernel's, within a block of the allocator."""
    on_cuda = [row for row in RECORD["buffers"] if row["math_kernel"]]
    assert len(on_cuda) == 2
    for row in on_cuda:
        assert sae_training(with_buffer(row), None).peak.tensors == pytest.approx(row["peak"], abs=512)


def test_what_is_measured_with_a_buffer_peaks_everywhere() -> None:
    phases = set()
    for row in RECORD["buffers"]:
        said = sae_training(with_buffer(row), None).assumptions
        phases |= {line.split(";")[0] for line in said if line.startswith("worst moment")}
    assert {"worst moment: refreshing the activation buffer", "worst moment: optimizer step"} <= phases


@pytest.mark.parametrize("name", ["p_anneal", "gated_anneal", "standard_april_update"])
def test_other_trainers_are_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' cannot be estimated for training: not covered yet"):
        workload(name)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "gpt2", "hook_name": "blocks.1.hook_resid_pre"}, "hook_name is for library sae_lens"),
        ({"model": "gpt2", "d_in": 768}, "submodule is needed with a model"),
        ({"model": "gpt2", "d_in": 768, "submodule": "transformer.h.1.attn"}, "is not covered yet; give one block"),
        ({"model": "gpt2", "d_in": 768, "submodule": "transformer.h.*"}, "is not covered yet; give one block"),
        ({"model": "gpt2", "d_in": 768, "submodule": "transformer.h.99"}, "submodule: .* matches no module of gpt2"),
        ({"model": "gpt2", "submodule": "transformer.h.1"}, "d_in: 64 given, but transformer.h.1 is 768 wide"),
        ({"model": "gpt2", "d_in": 768, "submodule": "transformer.h.1", "ctx_len": 2048}, "beyond the context of gpt2"),
        ({"n_ctxs": 100}, "n_ctxs is of an ActivationBuffer"),
        ({"d_submodule": 65}, "d_in 64 and d_submodule 65 are the same thing and differ"),
        ({"library": "sae_lens", "out_batch_size": 2}, "out_batch_size is for dictionary_learning, not sae_lens"),
        ({"dtype": "bfloat16"}, "built in float32"),
        ({"autocast": True}, "built in float32"),
        ({"act_store_device": "cpu"}, "is for library sae_lens"),
        ({"architecture": "abstopk"}, "has no trainer for abstopk"),
        ({"architecture": "matching_pursuit"}, "has no trainer for matching_pursuit"),
        ({"library": "sae_lens", "n_saes": 2}, "n_saes is for library dictionary_learning"),
        ({"library_version": "0.0.9"}, "older releases"),
    ],
)
def test_what_does_not_go_is_said_in_a_line(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        given: dict[str, Any] = {"architecture": "topk"} | more
        sae_training(workload(**given), None)
    assert "\n" not in str(raised.value)


def test_all_trainers_stay_in_memory() -> None:
    one, three = (sae_training(workload("standard", n_saes=n), None) for n in (1, 3))
    sizes = [{c.name: c.bytes for c in result.components} for result in (one, three)]
    assert sizes[1]["optimizer_state"] == 3 * sizes[0]["optimizer_state"]
    assert any("keeps all 3 trainers" in warning for warning in three.warnings)
    assert three.flops == 3 * one.flops
