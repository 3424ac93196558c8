"""The whole flow on given machines: verdict, exit to the right question, versions read from the experiment's Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compute_awareness.errors import InputError
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    Host,
    Interpreter,
    TorchBuild,
)
from compute_awareness.preflight import Preflight, preflight, recommend
from compute_awareness.units import GIB, gib
from compute_awareness.workload import parse_workload

CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
SMALL = {"task": "activation_cache", "model": "gpt2-small", "batch_size": 2, "seq_len": 64}


def machine(
    *,
    free_gib: float | None = None,
    ram_gib: float = 64,
    installed: dict[str, str] | None = None,
    name: str = "NVIDIA L4",
) -> Compute:
    cards = []
    if free_gib is not None:
        total = int(free_gib * GIB)
        cards.append(
            Accelerator(
                index=0, kind="cuda", name=name, total_bytes=total, used_bytes=0, free_bytes=total,
                compute_capability="8.9",
            )
        )  # fmt: skip
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=[])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=int(ram_gib * GIB), ram_available_bytes=int(ram_gib * GIB)),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=cards,
        python=Interpreter(path="python", source="test", libraries=installed or {}),
    )


def flow(workload: dict[str, Any], **more: Any) -> Preflight:
    return preflight(parse_workload(workload), **more)


def test_a_card_that_suffices_is_told_not_asked() -> None:
    result = flow(CACHE, compute=machine(free_gib=139, ram_gib=512))
    assert result.verdict.status == "fits"
    assert result.asking.decision == "tell"


def test_a_card_that_does_not_suffice_offers_the_choice() -> None:
    result = flow(CACHE, compute=machine(free_gib=22))
    assert result.verdict.status == "does_not_fit"
    assert result.asking.decision == "ask"
    assert result.asking.triggers[0] == "does_not_fit"
    assert "What GPU" not in result.asking.text
    assert any(change.fits for change in result.advice.changes)


def test_an_unknown_place_asks_for_the_gpu() -> None:
    result = flow(CACHE, gpu="unknown")
    assert result.verdict.status == "unknown"
    assert result.compute is None
    assert "What GPU" in result.asking.text
    assert "GiB" in result.asking.text


def test_no_gpu_seen_counts_help_for_a_card() -> None:
    """The changes are for the card still to be named, not for this machine's RAM."""
    result = flow(CACHE, compute=machine(ram_gib=22))
    assert result.asking.decision == "ask"
    resid = next(c for c in result.advice.changes if c.strategy == "selective_caching")
    assert resid.peak_before == result.estimate.peak.device
    assert resid.peak_after < 20 * GIB


def test_small_runs_are_never_asked_about() -> None:
    for more in ({"gpu": "unknown"}, {"gpu": "none", "compute": machine()}, {"compute": machine()}, {"gpu": "T4"}):
        assert flow(SMALL, **more).asking.decision != "ask", more


def test_free_memory_counts_not_the_size_of_the_card() -> None:
    compute = machine(free_gib=139, ram_gib=512)
    compute.accelerators[0].free_bytes = 20 * GIB
    assert flow(CACHE, compute=compute).verdict.status == "does_not_fit"


def test_loading_that_does_not_fit_the_ram_is_not_green() -> None:
    result = flow(CACHE, compute=machine(free_gib=139, ram_gib=20))
    assert result.verdict.status == "tight"
    assert "loading" in result.verdict.why


def test_the_emptiest_visible_card_is_taken() -> None:
    compute = machine(free_gib=10)
    compute.accelerators.append(replace(compute.accelerators[0], index=1, free_bytes=90 * GIB))
    compute.accelerators.append(replace(compute.accelerators[0], index=2, free_bytes=100 * GIB, visible=False))
    assert flow(CACHE, compute=compute).verdict.free_bytes == 90 * GIB


def test_several_named_cards_are_never_green() -> None:
    assert flow(CACHE, gpu="H200").verdict.status == "fits"
    assert flow(CACHE, gpu="2xA100-40GB").verdict.status in ("tight", "does_not_fit")
    assert flow(CACHE, gpu="4xH100").verdict.status == "fits"


def test_the_installed_version_is_read() -> None:
    result = flow(SMALL, compute=machine(installed={"transformer-lens": "3.9.0"}))
    assert result.workload["library_version"] == "3.9.0"
    assert not result.estimate.warnings


@pytest.mark.parametrize("version", ["1.19.0", "4.3.0"])
def test_an_installed_version_that_is_not_covered_warns(version: str) -> None:
    result = flow(SMALL, compute=machine(installed={"transformer-lens": version}))
    assert any(version in warning for warning in result.estimate.warnings)


def test_bad_gpu_names_are_input_errors() -> None:
    with pytest.raises(InputError):
        flow(SMALL, gpu="RTX 9999 Ultra")


def test_recommend_names_the_smallest_gpu_with_a_dated_price() -> None:
    result = recommend(parse_workload(CACHE))
    smallest = result.advice.gpus[0]
    assert smallest.usable_bytes > result.estimate.peak.device
    assert smallest.price_date
    assert smallest.name in result.summary


def test_a_model_too_large_for_any_card() -> None:
    result = recommend(parse_workload({"task": "inference", "model": "llama-3.1-405b", "dtype": "float32"}))
    assert all(choice.count > 1 for choice in result.advice.gpus)


def test_apple_memory_is_shared_with_loading() -> None:
    """Unified memory: the weights are loaded and processed in the same RAM before they are used."""
    compute = machine(free_gib=100, ram_gib=24)
    compute.accelerators[0] = replace(compute.accelerators[0], kind="mps", compute_capability=None)
    assert flow(CACHE, compute=compute).verdict.status == "tight"


def test_what_may_come_late_counts_before_green() -> None:
    """The auxiliary loss of a top-k SAE comes once latents are dead: a card without room for it is not green."""
    workload = {"task": "sae_training", "architecture": "topk", "d_in": 768, "expansion_factor": 32}
    estimate = flow(workload, gpu="unknown").estimate
    assert estimate.late_bytes > 0
    compute = machine(free_gib=200)
    full = flow(workload, compute=compute).estimate.range.high
    compute.accelerators[0].free_bytes = full
    assert flow(workload, compute=compute).verdict.status == "fits"
    compute.accelerators[0].free_bytes = full - estimate.late_bytes // 2
    assert flow(workload, compute=compute).verdict.status == "tight"


def test_on_a_cpu_the_summary_speaks_of_ram() -> None:
    result = flow(CACHE, compute=machine(ram_gib=22))
    assert "of RAM there" in result.summary


def test_half_precision_that_fits_the_ram_is_still_asked_about() -> None:
    """A 7B model in bfloat16 fits the RAM of many machines, and takes hours on their CPUs."""
    workload = {"task": "inference", "library": "transformers", "model": "llama-2-7b", "seq_len": 2048}
    assert flow(workload | {"dtype": "bfloat16"}, compute=machine(ram_gib=64)).asking.decision == "ask"
    assert flow(workload | {"dtype": "bfloat16"}, gpu="RTX 4090").asking.decision == "tell"


def test_where_the_run_may_be_elsewhere_its_time_is_that_of_a_card() -> None:
    workload = {"task": "sae_training", "d_in": 2304, "expansion_factor": 32, "training_tokens": 500_000_000}
    asking = flow(workload, compute=machine(ram_gib=64)).asking
    assert "long_running" in asking.triggers
    assert "on an A100" in asking.text


LONG_SAE = {"task": "sae_training", "d_in": 2304, "expansion_factor": 32, "training_tokens": 10**10}


def test_the_price_of_the_platform_in_sight_counts() -> None:
    compute = machine(free_gib=79, name="NVIDIA A100-SXM4-80GB")
    compute.accelerators[0] = replace(compute.accelerators[0], gpu_id="a100-80gb-sxm")
    at_home = flow(LONG_SAE, compute=compute).asking
    assert (at_home.decision, "costs_money" in at_home.triggers) == ("tell", False)
    compute.environment.layers[0] = EnvironmentLayer(id="runpod_pod", layer="platform", confidence="high", evidence=[])
    rented = flow(LONG_SAE, compute=compute).asking
    assert (rented.decision, "costs_money" in rented.triggers) == ("ask", True)
    assert "USD per hour, RunPod" in rented.text
    assert [field.name for field in rented.fields] == ["spend"]


def test_where_the_place_is_open_the_money_is_asked_for_with_it() -> None:
    asking = flow(LONG_SAE, gpu="unknown").asking
    assert "costs_money" in asking.triggers
    assert [field.name for field in asking.fields] == ["gpu", "where", "time_budget"]
    assert "and cost up to" in asking.fields[2].label


def test_a_download_that_the_disk_has_no_room_for_is_asked_about(tmp_path: Path) -> None:
    work = {"task": "inference", "model": "pythia-2.8b", "dtype": "float16"}
    compute = machine(free_gib=22)
    compute.host.disk_path, compute.host.disk_free_bytes = str(tmp_path), 2 * GIB
    assert flow(work, compute=compute).asking.triggers == ["download"]
    snapshot = tmp_path / "models--EleutherAI--pythia-2.8b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert flow(work, compute=compute).asking.decision == "silent"


def test_a_torch_without_cuda_beside_a_card_is_asked_about() -> None:
    compute = machine(free_gib=139, ram_gib=64)
    compute.python = Interpreter(path="python", source="test", torch=TorchBuild(version="2.13.0+cpu"))
    asking = flow(CACHE, compute=compute).asking
    assert (asking.decision, asking.triggers[0]) == ("ask", "no_gpu_used")
    assert flow(SMALL, compute=compute).asking.decision == "silent"


def test_what_is_read_is_told_not_asked() -> None:
    """The same experiment with and without a word on what it reads of the cache."""
    run = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
    unsaid = preflight(parse_workload(run), gpu="RTX 4090")
    said = preflight(parse_workload(run | {"reads": ["*hook_resid_post"]}), gpu="RTX 4090")
    assert said.estimate.peak == unsaid.estimate.peak and said.verdict == unsaid.verdict
    assert (unsaid.asking.decision, said.asking.decision) == ("ask", "tell")
    first = said.advice.solutions[0]
    assert first.costless and first.patch == {"names_filter": ["*hook_resid_post"]} and "names_filter=" in first.code
    assert said.asking.text.endswith("caching only what is read, `*hook_resid_post`: 15.7 GiB, with the same result.")
    assert first.peak_after == unsaid.advice.solutions[0].peak_after
    assert "At no cost: cache only what is read" in recommend(parse_workload(run | {"reads": "*hook_z"})).summary
    assert "Largest saving: " in recommend(parse_workload(run)).summary
    wrong = preflight(parse_workload(run | {"reads": ["*hook_resid_post"], "names_filter": ["*hook_z"]}), gpu="H200")
    assert wrong.verdict.status == "fits" and "a KeyError at run time" in wrong.estimate.warnings[0]


@pytest.mark.parametrize(
    ("more", "gpu", "said"),
    [
        ({"task": "inference", "model": "gpt2-xl"}, "M2 Max", "it takes about "),
        ({"task": "inference", "model": "llama-3-70b", "dtype": "bfloat16"}, "2xA100-80GB", "loading its weights"),
        ({"task": "inference", "model": "llama-3-70b", "dtype": "bfloat16"}, "unknown", "loading its weights"),
        ({"task": "inference", "model": "gpt2-xl"}, "none", "of RAM there"),
    ],
)
def test_the_summary_names_the_figure_that_the_verdict_counts(more: dict[str, Any], gpu: str, said: str) -> None:
    result = flow(more, gpu=gpu, compute=machine(ram_gib=64) if gpu == "none" else None)
    assert gib(result.verdict.needed_bytes) in result.summary
    assert said in result.summary
    assert gib(result.estimate.peak.device) != gib(result.verdict.needed_bytes)


def test_a_run_that_gets_by_with_less_is_not_said_to_need_more_than_there_is() -> None:
    result = flow(CACHE | {"names_filter": ["*hook_resid_post"]}, compute=machine(free_gib=15.3, ram_gib=512))
    assert result.verdict.status == "fits"
    assert result.estimate.peak.device > result.verdict.needed_bytes
    assert "it gets by with" in result.summary and "with more room" in result.summary


CONTEXT = "beyond transformer_lens's context of 1024 tokens"


@pytest.mark.parametrize(
    ("workload", "clause"),
    [
        ({"task": "activation_cache", "model": "gpt2", "seq_len": 2048}, f"seq_len 2048 is {CONTEXT}."),
        (
            {"task": "generation", "model": "gpt2", "seq_len": 1000, "new_tokens": 100},
            "seq_len 1000 + new_tokens 100 is beyond transformers's context of 1024 tokens.",
        ),
        (
            {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "expansion_factor": 32},
            'SAELens will stop with "Buffer size must be greater than or equal to batch size".',
        ),
    ],
)
@pytest.mark.parametrize("gpu", ["RTX 4090", "none"])
def test_a_run_that_fails_for_another_reason_is_not_only_said_to_fit(
    workload: dict[str, Any], clause: str, gpu: str
) -> None:
    result = flow(workload, gpu=gpu, compute=machine(ram_gib=512) if gpu == "none" else None)
    assert result.verdict.status == "fits", "the verdict is of memory alone"
    assert "As given it does not run" in result.summary
    assert clause in (result.asking.text if result.asking.decision == "tell" else result.summary)


def test_a_run_that_nothing_stops_has_no_such_words() -> None:
    rotary = {"task": "inference", "model": "llama-3-8b", "library": "transformers", "dtype": "bfloat16"}
    for workload in (CACHE, rotary | {"seq_len": 9000}):
        result = flow(workload, gpu="H200")
        assert "does not run" not in result.summary + result.asking.text
    assert result.estimate.warnings, "beyond the context is still said, where positions have no end"


def test_ram_that_only_loading_needs_is_said_to_be_for_loading() -> None:
    kept = {"task": "activation_cache", "model": "pythia-2.8b", "names_filter": ["*hook_resid_post"]}
    for ram, status, words in ((21.4, "tight", "about 42.6 GiB"), (8, "does_not_fit", "approximately 42.6 GiB")):
        result = flow(kept, gpu="none", compute=machine(ram_gib=ram))
        assert result.verdict.status == status
        assert "loading its weights takes about 42.6 GiB of RAM there" in result.summary
        assert "while the weights are loaded, not the run itself" in result.verdict.why
        assert f"needs {words} to load its weights" in result.asking.text
        assert "I can bring it to" not in result.asking.text, "no change makes loading fit"
    whole = flow(CACHE, gpu="none", compute=machine(ram_gib=70))
    assert "it takes about" in whole.summary and "load" not in whole.asking.text + whole.verdict.why
