"""No result is longer than it may be: 400 tokens concise, 2000 full, whatever comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from compute_awareness.hardware.compute import Compute
from compute_awareness.hardware.detect import detect
from compute_awareness.mcp_server.answers import answer, concise_compute, full_compute
from compute_awareness.mcp_server.budget import LIMIT_BYTES, STEPS, clip, drop, first, put, size, within
from compute_awareness.memory.estimate import Estimate
from compute_awareness.oom.explain import OomReport
from compute_awareness.preflight import Preflight, Recommendation

pytestmark = pytest.mark.anyio

MESSAGE = (Path(__file__).parents[2] / "examples" / "oom.txt").read_text(encoding="utf-8")
MODELS: dict[str, Any] = {
    "estimate_memory": Estimate, "recommend_compute": Recommendation, "preflight_experiment": Preflight,
}  # fmt: skip
OWN = {"n_layers": 40, "d_model": 5120, "n_heads": 40, "d_vocab": 50257, "n_ctx": 4096, "name": "x" * 3_000}
WORKLOADS: dict[str, dict[str, Any]] = {
    "forward": {"task": "inference", "model": "gpt2"},
    "cache": {"task": "activation_cache", "model": "pythia-12b", "batch_size": 8, "seq_len": 2048},
    "filtered": {"task": "activation_cache", "model": "gpt2", "layers": list(range(12)),
                 "names_filter": [f"blocks.{n}.attn.hook_{h}" for n in range(12) for h in "qkvz"]},
    "generation": {"task": "generation", "model": "llama-2-13b", "new_tokens": 2000, "batch_size": 64},
    "training": {"task": "training", "model": "llama-2-7b", "batch_size": 32, "seq_len": 2048},
    "patching": {"task": "patching", "model": "gpt2-xl", "method": "eap_ig", "seq_len": 512},
    "sae": {"task": "sae_training", "model": "pythia-2.8b", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 40960,
            "training_tokens": 2_000_000_000, "architecture": "topk"},
    "sae in use": {"task": "sae_inference", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 24576},
    "own model": {"task": "inference", "model": OWN, "batch_size": 512, "seq_len": 4096},
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("gpu", ["unknown", "T4", "none"])
async def test_results_of_workloads_stay_within_their_tokens(server: Any, name: str, gpu: str) -> None:
    async with Client(server) as client:
        for tool, model in MODELS.items():
            arguments = WORKLOADS[name] | ({} if tool == "estimate_memory" else {"gpu": gpu})
            for detail, limit in LIMIT_BYTES.items():
                result = await client.call_tool(tool, arguments | {"detail": detail})
                assert not result.is_error, result.content
                text = result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
                assert len(text.encode()) <= limit, (tool, detail)
                whole = model.model_validate(result.structured_content)
                assert whole.summary and json.loads(text) == result.structured_content
                if tool == "preflight_experiment":
                    assert bool(whole.asking.text) == (whole.asking.decision != "silent")
                    assert not whole.asking.text.endswith("..."), "the words for the user are whole"
                    assert len(whole.next_steps) <= 3


async def test_explanations_stay_within_their_tokens(server: Any) -> None:
    run = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
    noise = "\n".join(f'  File "/home/x/{"y" * 300}.py", line {n}, in f\n    model(tokens)' for n in range(300))
    async with Client(server) as client:
        for message in (MESSAGE, f"Traceback (most recent call last):\n{noise}\n{MESSAGE}"):
            for detail, limit in LIMIT_BYTES.items():
                result = await client.call_tool("explain_oom", {"message": message, "workload": run, "detail": detail})
                assert not result.is_error, result.content
                assert size(result.structured_content) <= limit
                OomReport.model_validate(result.structured_content)


def crowded() -> Compute:
    """This machine's report with sixteen cards, forty processes on each, and long words about all that went wrong."""
    data = detect(with_python=False).model_dump(mode="json")
    data["accelerators"] = [
        {
            "index": n, "kind": "cuda", "name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{n:032}", "pci": "0000:00:00.0",
            "total_bytes": 85_899_345_920, "used_bytes": 10**9, "free_bytes": 84 * 10**9, "compute_capability": "9.0",
            "processes": [{"pid": p, "used_bytes": 10**8} for p in range(40)], "problem": "z" * 200,
        }
        for n in range(16)
    ]  # fmt: skip
    pairs = [f"{a}-{b}" for a in range(16) for b in range(a)]
    data["links"] = [{"link": "nvlink", "pairs": pairs}]
    data["problems"] = [{"probe": "nvidia", "reason": "w" * 400} for _ in range(30)]
    layer = data["environment"]["layers"][0]
    data["environment"]["layers"] = [
        layer | {"evidence": ["e" * 200] * 10, "implies": {"note": "n" * 300}} for _ in range(8)
    ]
    return Compute.model_validate(data)


async def test_a_machine_may_be_crowded(server: Any) -> None:
    compute = crowded()
    full, concise = answer(full_compute(compute), "full"), answer(concise_compute(compute), "concise")
    for result, detail in ((full, "full"), (concise, "concise")):
        assert size(result.structured_content) <= LIMIT_BYTES[detail]
        seen = Compute.model_validate(result.structured_content)
        assert seen.accelerators and seen.accelerators[0].free_bytes == 84 * 10**9
    async with Client(server) as client:
        for detail, limit in LIMIT_BYTES.items():
            arguments = WORKLOADS["cache"] | {"compute": compute.model_dump(mode="json"), "detail": detail}
            result = await client.call_tool("preflight_experiment", arguments)
            assert not result.is_error and size(result.structured_content) <= limit
            Preflight.model_validate(result.structured_content)


def test_steps_touch_what_they_name_and_nothing_else() -> None:
    data: dict[str, Any] = {"a": {"b": "x" * 20, "c": [{"d": "y" * 20, "e": 1}, {"e": 2}]}, "f": ["1", "2", "3"]}
    for step in (drop("a.c.*.e", "no.such"), put("", "a.c.*.d"), clip(8, "a.b", "f"), first(2, "f", "a.c")):
        step(data)
    assert data == {"a": {"b": "xxxxx...", "c": [{"d": ""}, {}]}, "f": ["1", "2", "... 1 more"]}


def test_what_no_step_can_shorten_is_answered_at_its_length() -> None:
    data = {"summary": "", "unheard_of": "x" * 3_000}
    assert within(dict(data), "Estimate", "concise") == data
    assert {kind for kind, _ in STEPS} == {
        "Compute",
        "Estimate",
        "Recommendation",
        "Preflight",
        "OomReport",
        "ScriptReport",
    }
