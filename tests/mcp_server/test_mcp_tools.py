"""Every tool called with real input, in both protocol eras."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult

from compute_awareness.estimator import estimate
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    Host,
    Interpreter,
    UnmetRequirement,
    WorkspacePython,
)
from compute_awareness.hardware.probe.interpreter import LIBRARIES
from compute_awareness.launch.launch_file import launch_file
from compute_awareness.mcp_server.answers import answer, concise_compute, full_compute
from compute_awareness.memory.estimate import Estimate
from compute_awareness.preflight import Preflight, Recommendation, preflight
from compute_awareness.sweep.grid import axes_of_json
from compute_awareness.sweep.sweep import sweep
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.anyio

CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
SMALL = {"task": "inference", "model": "gpt2", "seq_len": 64}
SAE = {
    "task": "sae_training", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "expansion_factor": 8,
}  # fmt: skip
CONCISE_TOKENS, FULL_TOKENS = 400, 2_000


async def call(server: Any, mode: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool(tool, arguments)
    return structured(result)


def structured(result: CallToolResult) -> dict[str, Any]:
    """The structured result, after checking that the text block says the same and that `summary` comes first."""
    text = result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert not result.is_error, text
    data = result.structured_content
    assert data is not None and json.loads(text) == data
    assert next(iter(data)) == "summary" and data["summary"]
    return data


def tokens(data: dict[str, Any]) -> float:
    return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()) / 4


async def test_detect_compute(server: Any, mode: str) -> None:
    concise = await call(server, mode, "detect_compute", {"python": sys.executable})
    report = Compute.model_validate(concise)
    assert report.host.ram_total_bytes > 0 and report.host.cpus > 0
    assert report.python is not None and report.python.version == ".".join(map(str, sys.version_info[:3]))
    assert all(layer.evidence == [] for layer in report.environment.layers)
    full = Compute.model_validate(
        await call(server, mode, "detect_compute", {"python": sys.executable, "detail": "full"})
    )
    assert [layer.id for layer in full.environment.layers] == [layer.id for layer in report.environment.layers]


def test_a_report_of_many_pythons_stays_short() -> None:
    host = Host(os="Linux 6.8.0 x86_64", cpus=8, ram_total_bytes=1, ram_available_bytes=1)
    environment = Environment(primary="local", layers=[], clear=True)
    others = [
        WorkspacePython(path=f"/home/somebody/miniforge3/envs/number{n}/bin/python", kind="conda", has_torch=True,
                        source=f"conda environment number{n}", version="3.12.4", torch="2.13.0+cu130")
        for n in range(20)
    ]  # fmt: skip
    others[15].chosen = True
    unmet = [UnmetRequirement("sae-lens 6.54.12", "transformer-lens<4.0.0,>=2.16.1", "4.3.0")] * 40
    libraries = dict.fromkeys(LIBRARIES, "10.20.30")
    python = Interpreter(path=others[15].path, source="CONDA_PREFIX", unmet=unmet, libraries=libraries, doubt="x" * 200)
    compute = Compute(host=host, environment=environment, python=python, interpreters=others)
    full, concise = answer(full_compute(compute), "full"), answer(concise_compute(compute), "concise")
    assert full.structured_content and concise.structured_content
    assert tokens(full.structured_content) <= 1_400 and tokens(concise.structured_content) <= CONCISE_TOKENS
    assert [entry["path"] for entry in full.structured_content["interpreters"] if entry["chosen"]] == [others[15].path]
    assert len(full.structured_content["interpreters"]) == 9 and "interpreters" not in concise.structured_content


async def test_estimate_memory_gives_the_cores_figures(server: Any, mode: str) -> None:
    truth = estimate(parse_workload(CACHE))
    full = Estimate.model_validate(await call(server, mode, "estimate_memory", CACHE | {"detail": "full"}))
    assert full == truth
    data = await call(server, mode, "estimate_memory", CACHE)
    concise = Estimate.model_validate(data)
    assert concise.peak == truth.peak and concise.range == truth.range
    assert {c.name: c.bytes for c in concise.components} == {c.name: c.bytes for c in truth.components if c.bytes}
    assert len(concise.hooks) < len(truth.hooks)
    assert sum(family.bytes for family in concise.hooks) == sum(family.bytes for family in truth.hooks)
    assert sum(family.count for family in concise.hooks) == sum(family.count for family in truth.hooks)
    assert tokens(data) <= CONCISE_TOKENS


async def test_null_means_the_default_of_the_task(server: Any, mode: str) -> None:
    nulls = dict.fromkeys(("names_filter", "dtype", "d_sae", "library"))
    assert await call(server, mode, "estimate_memory", CACHE | nulls) == await call(
        server, mode, "estimate_memory", CACHE
    )


async def test_a_list_may_come_as_json_text(server: Any, mode: str) -> None:
    """Some hosts send lists and objects as JSON inside a string."""
    as_text = await call(server, mode, "estimate_memory", CACHE | {"names_filter": '["*hook_resid_post"]'})
    as_list = await call(server, mode, "estimate_memory", CACHE | {"names_filter": ["*hook_resid_post"]})
    assert as_text == as_list


async def test_recommend_compute(server: Any, mode: str) -> None:
    data = await call(server, mode, "recommend_compute", CACHE)
    result = Recommendation.model_validate(data)
    needed = result.estimate.peak.device
    assert result.advice.gpus and all(choice.usable_bytes * choice.count >= needed for choice in result.advice.gpus)
    assert result.advice.changes and all(change.applies for change in result.advice.changes)
    assert tokens(data) <= CONCISE_TOKENS


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (CACHE | {"gpu": "RTX 4090"}, "does_not_fit"),
        (CACHE | {"gpu": "H200"}, "fits"),
        (CACHE | {"gpu": "unknown"}, "unknown"),
        (SAE | {"gpu": "RTX 4090"}, "fits"),
        (SMALL | {"gpu": "none"}, "fits"),
    ],
    ids=["too-small", "large-enough", "unknown", "sae", "cpu"],
)
async def test_preflight_experiment(server: Any, mode: str, arguments: dict[str, Any], status: str) -> None:
    data = await call(server, mode, "preflight_experiment", arguments)
    result = Preflight.model_validate(data)
    assert result.verdict.status == status
    assert tokens(data) <= CONCISE_TOKENS, f"{tokens(data)} tokens"
    workload = {name: value for name, value in arguments.items() if name != "gpu"}
    truth = preflight(parse_workload(workload), gpu=arguments["gpu"])
    assert result.estimate.peak == truth.estimate.peak
    assert (result.asking.decision, result.asking.text) == (truth.asking.decision, truth.asking.text)
    full = Preflight.model_validate(await call(server, mode, "preflight_experiment", arguments | {"detail": "full"}))
    offered = {"fits": [], "does_not_fit": full.advice.solutions, "unknown": full.advice.changes}[status]
    if status == "fits":
        assert result.next_steps == [] and not result.advice.changes and not result.advice.solutions
    else:
        assert len(offered) == 3 and all(change.code for change in offered)
        assert 1 <= len(result.next_steps) <= len(full.next_steps) <= 3


async def test_next_steps_are_calls_as_they_are(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        nested = CACHE | {"gpu": "RTX 4090", "options": {"names_filter": ["*"]}}
        for tool, arguments in (("preflight_experiment", nested), ("recommend_compute", CACHE | {"batch_size": 2})):
            first = structured(await client.call_tool(tool, arguments | {"detail": "full"}))
            assert 1 <= len(first["next_steps"]) <= 3
            for step in first["next_steps"]:
                assert step["when"]
                after = structured(await client.call_tool(step["tool"], step["arguments"]))
                if step["tool"] == "preflight_experiment":
                    assert after["verdict"]["status"] in ("fits", "tight"), step
        assert {step["tool"] for step in first["next_steps"]} == {"preflight_experiment"}


async def test_preflight_here(server: Any, mode: str) -> None:
    data = await call(server, mode, "preflight_experiment", SMALL | {"python": sys.executable})
    result = Preflight.model_validate(data)
    assert result.compute is not None and result.compute.host.ram_total_bytes > 0
    assert result.asking.decision == "silent"
    assert tokens(data) <= CONCISE_TOKENS, f"{tokens(data)} tokens"


def a100(index: int, free_bytes: int) -> dict[str, Any]:
    return {
        "index": index, "kind": "cuda", "name": "NVIDIA A100-SXM4-80GB", "uuid": f"GPU-{index}",
        "total_bytes": 85_899_345_920, "used_bytes": 85_899_345_920 - free_bytes, "free_bytes": free_bytes,
        "compute_capability": "8.0", "processes": [{"pid": 100 + index, "used_bytes": 10**9}],
    }  # fmt: skip


async def test_a_report_with_several_cards_is_counted_on_those_that_are_free(server: Any, mode: str) -> None:
    report = Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=2**37, ram_available_bytes=2**37, hostname="gpubox"),
        environment=Environment(primary="local", layers=[], clear=True),
        accelerators=[
            Accelerator(
                index=index, kind="cuda", name="NVIDIA GeForce RTX 3090", compute_capability="8.6",
                free_bytes=(23 - held) * 2**30, free_without_others_bytes=23 * 2**30 if held else None,
            )
            for index, held in enumerate((0, 11, 0))
        ],
    )  # fmt: skip
    work = {"task": "inference", "library": "transformers", "model": "pythia-6.9b", "batch_size": 4, "seq_len": 512}
    arguments = work | {"compute": report.model_dump(mode="json")}
    concise = await call(server, mode, "preflight_experiment", arguments)
    way = "layers split over cards 0 and 2 (device_map; card 1 is used by others)"
    assert way in concise["asking"]["text"] and tokens(concise) <= CONCISE_TOKENS
    full = await call(server, mode, "preflight_experiment", arguments | {"detail": "full"})
    assert tokens(full) <= FULL_TOKENS
    assert full["advice"]["solutions"][0]["patch"] == {"n_devices": 2}
    split = await call(server, mode, "preflight_experiment", arguments | {"n_devices": 2})
    assert split["verdict"]["device"] == "gpubox's 2 x NVIDIA GeForce RTX 3090"
    assert "Start it with CUDA_VISIBLE_DEVICES=0,2." in split["summary"]


async def test_a_report_can_be_carried_from_another_machine(server: Any, mode: str) -> None:
    report = await call(server, mode, "detect_compute", {"python": sys.executable})
    report["python"] = None  # the tests' own torch would use no card
    report["accelerators"] = [a100(index, 10_000_000_000 + index) for index in range(7)] + [a100(7, 84_000_000_000)]
    data = await call(server, mode, "preflight_experiment", CACHE | {"compute": report})
    result = Preflight.model_validate(data)
    assert result.verdict.free_bytes == 84_000_000_000
    assert result.verdict.status in ("fits", "tight")
    assert "start it with CUDA_VISIBLE_DEVICES=7" in result.summary
    assert result.compute is not None and result.compute.accelerators[0].index == 7
    assert tokens(data) <= CONCISE_TOKENS, f"{tokens(data)} tokens"


async def test_a_model_may_be_given_in_numbers(server: Any, mode: str) -> None:
    model = {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_vocab": 1000, "n_ctx": 128}
    data = await call(server, mode, "estimate_memory", {"task": "inference", "model": model, "seq_len": 16})
    assert Estimate.model_validate(data).peak.tensors > 0


GRID = {"hook_layer": "0..11", "expansion_factor": [8, 16, 32]}
SWEPT = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.0.hook_resid_pre", "training_tokens": 10**8}


async def test_a_sweep_is_the_cores_with_what_is_recommended_for_its_largest_run(server: Any, mode: str) -> None:
    data = await call(server, mode, "recommend_compute", SWEPT | {"sweep": GRID, "gpu": "2xA100-80GB"})
    result = Recommendation.model_validate(data)
    truth = sweep(SWEPT, axes_of_json(GRID), gpu="2xA100-80GB")
    told = result.sweep
    assert told is not None and told.side_by_side is not None and truth.side_by_side is not None
    assert (told.count, told.fits, told.gpu_hours, told.usd) == (36, 36, truth.gpu_hours, truth.usd)
    assert (told.side_by_side.any, told.side_by_side.most) == (truth.side_by_side.any, truth.side_by_side.most)
    assert result.summary.startswith(truth.summary)
    assert result.estimate.peak.device == truth.largest.needed_bytes
    assert tokens(data) <= CONCISE_TOKENS + 300, "a grid's figures beside those of one run"
    full = await call(server, mode, "recommend_compute", SWEPT | {"sweep": GRID, "gpu": "T4", "detail": "full"})
    assert len(full["sweep"]["points"]) == 36


async def test_a_sweeps_task_file_comes_whole(server: Any, mode: str) -> None:
    asked = {"sweep": GRID, "launch_for": "slurm", "run": "python a.py {hook_layer} {expansion_factor}"}
    data = await call(server, mode, "recommend_compute", SWEPT | asked | {"gpu": "4xA100-80GB"})
    text = data["sweep"]["launch"]["text"]
    assert "#SBATCH --array=0-35%4\n" in text and "'python a.py 11 32'" in text
    assert "Nothing was started: sbatch" in data["summary"]


async def test_a_task_file_for_one_run(server: Any, mode: str) -> None:
    data = await call(
        server, mode, "recommend_compute", SAE | {"launch_for": "modal", "run": "python train.py", "gpu": "unknown"}
    )
    truth = launch_file(parse_workload(SAE), "modal", "python train.py")
    assert data["launch"]["text"] == truth.text
    assert data["summary"].startswith(truth.summary)


async def test_live_prices_are_asked_for_on_request_only(
    server: Any, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPUHUNT_CATALOG_DIR", str(tmp_path))  # never the web
    data = await call(server, mode, "recommend_compute", SAE | {"live_prices": True})
    assert data["prices"].startswith("live prices could not be had (")
    assert "prices" not in await call(server, mode, "recommend_compute", SAE)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"launch_for": "slurm"}, "launch and run go together: launch_for is the engine"),
        ({"launch_for": "slrm", "run": "x"}, "nearest: slurm"),
        ({"sweep": {"hook_laye": [1]}}, "nearest: hook_layer"),
        ({"sweep": {"k": "1..2001"}}, "at most 2,000 are estimated"),
        ({"sweep": {}}, "a sweep needs a grid"),
    ],
)
async def test_sweeps_and_files_that_are_refused(server: Any, mode: str, more: dict[str, Any], says: str) -> None:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("recommend_compute", SWEPT | {"expansion_factor": 8} | more)
    assert result.is_error and says in result.content[0].text and "\n" not in result.content[0].text


@pytest.mark.parametrize(
    ("more", "in_thread"),
    [
        ({}, False),
        ({"task": "sae_inference", "model": None, "d_in": 768, "d_sae": 6144}, False),
        ({"python": sys.executable}, True),
        ({"names_filter": ["*"] * 65, "task": "activation_cache"}, True),
        (
            {
                "model": {
                    "architecture": "GPT2LMHeadModel",
                    "n_layers": 2,
                    "d_model": 64,
                    "n_heads": 2,
                    "d_mlp": 256,
                    "d_vocab": 99,
                    "n_ctx": 64,
                }
            },
            True,
        ),
        ({"task": "generation", "library": "transformer_bridge"}, True),
    ],
)
async def test_only_quick_arithmetic_keeps_the_event_loop(
    server: Any, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], in_thread: bool
) -> None:
    from compute_awareness.mcp_server import looking
    from compute_awareness.mcp_server.tools import estimate_memory as tool

    seen: list[str] = []

    async def noting(call: Any, doing: str) -> Any:
        seen.append(doing)
        return await looking.in_thread(call, doing)

    monkeypatch.setattr(tool, "in_thread", noting)
    monkeypatch.setattr(
        "compute_awareness.trace.estimate.traced", lambda *_, **__: estimate(parse_workload(SMALL))
    )  # a real trace takes seconds
    async with Client(server) as client:
        structured(await client.call_tool("estimate_memory", SMALL | more))
    assert bool(seen) == in_thread
