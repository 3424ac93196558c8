"""From a message and a workload to the tensor, the cause and the cure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.oom.explain import OomReport, explain_oom
from compute_awareness.oom.message import read_message
from compute_awareness.oom.tensors import Candidate, matches
from compute_awareness.preflight import preflight
from compute_awareness.units import GIB, MIB, gib
from compute_awareness.workload import parse_workload

CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}


def oom(
    requested: str, capacity: float = 23.65, free: str = "210.00 MiB", process: float = 23.4, tensors: float = 22.9,
    cached: str = "60.50 MiB", extra: str = "",
) -> str:  # fmt: skip
    return (
        f"CUDA out of memory. Tried to allocate {requested}. GPU 0 has a total capacity of {capacity} GiB of which "
        f"{free} is free. {extra}Including non-PyTorch memory, this process has {process} GiB memory in use. Of the "
        f"allocated memory {tensors} GiB is allocated by PyTorch, and {cached} is reserved by PyTorch but unallocated."
    )


def explained(text: str, workload: dict[str, Any] | None = None) -> OomReport:
    return explain_oom(text, None if workload is None else parse_workload(workload))


def test_the_tensor_the_cause_and_a_cure_that_fits() -> None:
    report = explained(oom("512.00 MiB"), CACHE)
    match = report.matches[0]
    assert match.tensor == "one layer's attention scores or pattern" and match.instead == {}
    assert match.product == "4 x 32 x 1024 x 1024 x 4 bytes" and match.bytes == 512 * MIB
    assert "needs about" in report.findings[0].cause
    assert report.changes and all(change.fits for change in report.changes)
    assert all(change.peak_after < (report.available_bytes or 0) for change in report.changes)
    assert "attention" in report.summary and report.changes[0].title in report.summary


def test_on_a_named_card_the_figures_are_those_of_the_preflight() -> None:
    for gpu, capacity in (("RTX 4090", 23.65), ("T4", 14.56), ("A100-40GB", 39.39)):
        report = explain_oom(oom("512.00 MiB", capacity), parse_workload(CACHE), gpu=gpu)
        checked = preflight(parse_workload(CACHE), gpu=gpu)
        assert report.changes[0].peak_before == checked.verdict.needed_bytes == checked.estimate.peak.device
        assert f"about {gib(checked.verdict.needed_bytes)} on {checked.verdict.device} and" in report.findings[0].cause
        dtypes = {change.patch.get("dtype") for change in report.changes} - {None}
        assert dtypes <= ({"float16"} if gpu == "T4" else {"bfloat16"})
    unnamed = explained(oom("512.00 MiB"), CACHE)
    assert "on the card, with a typical CUDA context (give gpu for its own), and" in unnamed.findings[0].cause
    assert explain_oom(oom("512.00 MiB"), parse_workload(CACHE), gpu="unknown") == unnamed
    with pytest.raises(InputError, match="RTX 4090"):
        explain_oom(oom("512.00 MiB"), gpu="RTX 4099")


def test_a_size_that_only_another_batch_explains() -> None:
    report = explained(oom("48.00 MiB"), {"task": "activation_cache", "model": "gpt2", "seq_len": 512})
    assert report.matches[0].instead == {"batch": 4}
    assert report.matches[0].product == "4 x 12 x 512 x 512 x 4 bytes"


@pytest.mark.parametrize(
    ("workload", "size", "tensor", "shape"),
    [
        (
            {"task": "sae_inference", "model": "gpt2", "hook_name": "blocks.2.hook_resid_post", "d_sae": 24576,
             "dtype": "bfloat16", "batch_size": 24, "seq_len": 512},
            24 * 512 * 24576 * 2, "the SAE's features of one batch", "[tokens 12288, d_sae 24576] 16-bit",
        ),
        (
            {"task": "inference", "library": "transformers", "model": "gpt2-medium", "batch_size": 16, "seq_len": 1000},
            16 * 1000 * 3072 * 4, "one layer's queries, keys and values in one",
            "[batch 16, seq 1000, n_heads + 2 * n_kv_heads 48, d_head 64] float32",
        ),
        (
            {"task": "inference", "library": "transformers", "model": "pythia-6.9b", "batch_size": 2, "seq_len": 100},
            4096 * 12288 * 4, "the matrix of queries, keys and values in one",
            "[d_model 4096, n_heads + 2 * n_kv_heads 96, d_head 128] float32",
        ),
    ],
    ids=["features", "c_attn", "query_key_value"],
)  # fmt: skip
def test_features_of_16_bits_and_projections_in_one(
    workload: dict[str, Any], size: int, tensor: str, shape: str
) -> None:
    rounded = -(-size // (2 * MIB)) * 2
    text = f"CUDA out of memory. Tried to allocate {rounded}.00 MiB. GPU 0 has a total capacity of 23.65 GiB"
    first = explained(text, workload).matches[0]
    assert (first.tensor, first.shape, first.bytes, first.instead) == (tensor, shape, size, {})


def test_a_small_request_names_no_tensor() -> None:
    for requested in ("2.00 MiB", "20.00 MiB"):
        assert explained(oom(requested), CACHE).matches == []


def test_other_processes_and_fragmentation_are_told_apart() -> None:
    shared = explained(oom("512.00 MiB", process=10.0, tensors=9.5, extra="Process 77 has 13.00 GiB memory in use. "))
    assert "Other processes hold 13.0 GiB" in shared.findings[0].cause and "77" in shared.findings[0].cause
    assert shared.available_bytes is not None and shared.available_bytes < 11 * GIB
    torn = explained(oom("512.00 MiB", tensors=19.0, cached="3.90 GiB"))
    assert "fragmentation" in torn.findings[0].cause and "expandable_segments" in torn.findings[0].cure
    whole = explained(oom("128.00 GiB"))
    assert "more than the whole card" in whole.findings[0].cause
    full = explained(oom("512.00 MiB"))
    assert "full" in full.findings[0].cause and not full.changes


def test_more_alive_than_the_workload_holds() -> None:
    report = explained(oom("512.00 MiB"), {"task": "inference", "model": "gpt2", "seq_len": 128})
    assert any("something else is kept" in finding.cause for finding in report.findings)


def test_nothing_is_said_to_make_fit_what_fits() -> None:
    """A small run beside 22.9 GiB that something else keeps: bfloat16 would cure nothing."""
    report = explained(oom("512.00 MiB"), {"task": "training", "model": "gpt2", "batch_size": 1, "seq_len": 128})
    assert report.changes == [] and "makes it fit" not in report.summary
    assert "Cure: del what earlier iterations returned" in report.summary


def test_a_process_that_was_killed_is_told_what_loading_takes() -> None:
    report = explained("Killed", {"task": "inference", "model": "llama-2-70b"})
    assert report.summary.startswith("RAM ran out. The process was killed or refused. Cure: loading needs about ")
    expected = preflight(parse_workload({"task": "inference", "model": "llama-2-70b"}), gpu="unknown").estimate
    assert f"loading needs about {gib(expected.loading_host_bytes)} in RAM" in report.summary
    assert "loading needs several times the weights" in explained("Killed").summary


def test_memory_seen_by_no_one() -> None:
    report = explained(
        "CUDA out of memory. Tried to allocate 36.00 MiB (GPU 0; 7.93 GiB total capacity; 130.35 MiB already "
        "allocated; 47.06 MiB free; 188.00 MiB reserved in total by PyTorch)"
    )
    assert "7.70 GiB of the card is held outside this process" in report.findings[0].cause


def test_sae_training() -> None:
    workload = {"task": "sae_training", "d_in": 2304, "d_sae": 65536, "train_batch_size_tokens": 4096}
    report = explained(oom("1.00 GiB"), workload)
    assert report.matches[0].tensor == "the SAE's features of one batch"
    step = explained(oom("576.00 MiB"), workload)
    assert step.matches[0].tensor.startswith("the SAE's encoder or decoder")


def test_a_tensor_above_metals_largest_buffer_is_not_cured_by_lifting_the_cap() -> None:
    told = explained("RuntimeError: Invalid buffer size: 24.00 GiB")
    assert "must become smaller" in told.findings[0].cause and "batch_size" in told.findings[0].cure
    assert "WATERMARK" not in told.summary


def test_metal_and_ram_have_their_own_cures() -> None:
    metal = explained(
        "MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"
    )
    assert metal.available_bytes is not None and any("Metal" in f.cause for f in metal.findings)
    ram = explained("DefaultCPUAllocator: can't allocate memory: you tried to allocate 402653184 bytes.", CACHE)
    assert "RAM ran out" in ram.summary


SIZES = st.integers(1, 64)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(SIZES, SIZES, st.sampled_from([64, 128, 512, 1000, 1024, 2048]), st.sampled_from([2, 4]))
def test_a_tensor_is_found_by_the_size_torch_prints(batch: int, heads: int, seq: int, width: int) -> None:
    """Print the request as c10's format_size does, read it back, find the tensor."""
    candidate = Candidate("scores", (("batch", batch), ("n_heads", heads), ("seq", seq), ("seq", seq)), width)
    if candidate.bytes < 20 * MIB:
        return
    rounded = -(-candidate.bytes // (2 * MIB)) * 2 * MIB
    shown = f"{rounded / GIB:.2f} GiB" if rounded >= GIB else f"{rounded / MIB:.2f} MiB"
    message = read_message(oom(shown))
    assert message.requested_bytes is not None
    found = matches(message.requested_bytes, message.requested_step, "cuda", [candidate])
    assert [match.tensor for match in found] == [candidate]


@pytest.mark.parametrize("given_batch", [1, 2, 8])
def test_the_batch_is_found_whatever_was_given(given_batch: int) -> None:
    candidate = Candidate("logits", (("batch", given_batch), ("seq", 1024), ("d_vocab", 50304)), 4)
    found = matches(4 * 1024 * 50304 * 4, 10486, "cuda", [candidate])
    assert [match.instead for match in found] == [{"batch": 4}]
