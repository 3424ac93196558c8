"""Sweeps: the figures are those of the runs one by one, and what shares a card really fits it."""

from __future__ import annotations

import re

import pytest

from compute_awareness.advice.gpus import find_gpu
from compute_awareness.advice.place import named_place, needed
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.hardware.compute import Accelerator, Compute, Environment, EnvironmentLayer, Host
from compute_awareness.sweep.answers import Sweep
from compute_awareness.sweep.grid import points_of
from compute_awareness.sweep.sweep import sweep
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

SAE = {
    "task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "training_tokens": 200_000_000,
}  # fmt: skip
GRID = {"hook_layer": list(range(12)), "expansion_factor": [8, 16, 32]}
CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "seq_len": 1024}
RUN = "python train.py --layer {hook_layer} --factor {expansion_factor}"


def with_a_4090() -> Compute:
    """A machine with one RTX 4090 of which 20 GiB are free."""
    card = Accelerator(
        kind="cuda", index=0, name="NVIDIA GeForce RTX 4090", gpu_id="rtx4090", total_bytes=24 * GIB,
        free_bytes=20 * GIB, compute_capability="8.9",
    )  # fmt: skip
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["x"])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=[card],
    )


@pytest.fixture(scope="module")
def on_a100() -> Sweep:
    return sweep(SAE, GRID, gpu="A100-80GB")


def test_each_run_is_its_own_estimate(on_a100: Sweep) -> None:
    place = named_place(find_gpu("A100-80GB"))
    points = points_of(SAE, GRID)
    assert on_a100.count == len(on_a100.points) == 36
    for told, point in list(zip(on_a100.points, points, strict=True))[::7]:
        result = estimate(point.workload, place.compute_capability)
        expected, _, high = needed(result, place)
        assert (told.values, told.needed_bytes, told.high_bytes) == (point.values, expected, high)
        assert told.status == verdict_at(result, place).status == "fits"
    assert on_a100.smallest.needed_bytes == min(point.needed_bytes for point in on_a100.points)
    assert on_a100.largest.needed_bytes == max(point.needed_bytes for point in on_a100.points)


def test_runs_side_by_side_together_fit(on_a100: Sweep) -> None:
    beside, free = on_a100.side_by_side, on_a100.free_bytes
    assert beside is not None and free is not None
    sizes = [point.high_bytes for point in on_a100.points]
    for group in beside.groups:
        assert sum(sizes[at] for at in group) <= free
    assert sorted(at for group in beside.groups for at in group) == list(range(36))
    assert sum(sorted(sizes)[-beside.any :]) <= free < sum(sorted(sizes)[-beside.any - 1 :])
    assert sum(sorted(sizes)[: beside.most]) <= free < sum(sorted(sizes)[: beside.most + 1])


def test_every_process_beside_others_has_a_context_of_its_own() -> None:
    tiny = {"task": "sae_training", "d_in": 16, "expansion_factor": 2}
    answer = sweep(tiny, {"train_batch_size_tokens": list(range(1, 201))}, gpu="RTX 4090")
    (context,) = [
        term.high for term in estimate(points_of(tiny, {"k": [1]})[0].workload, "8.9").overheads
        if term.name == "cuda_context"
    ]  # fmt: skip
    assert answer.largest.needed_bytes < 1 * GIB and answer.fits == 200
    assert answer.side_by_side is not None and answer.free_bytes is not None
    # The tensors are some KiB: contexts alone are what fills the card.
    assert 10 < answer.side_by_side.any <= answer.side_by_side.most <= answer.free_bytes // context


def test_hours_add_up_and_sharing_a_card_promises_no_gain(on_a100: Sweep) -> None:
    for end in (0, 1):
        assert on_a100.gpu_hours[end] == pytest.approx(sum(point.hours[end] for point in on_a100.points))
    assert on_a100.hours == on_a100.gpu_hours
    beside = on_a100.side_by_side
    assert beside is not None
    assert beside.hours[1] == pytest.approx(on_a100.gpu_hours[1])
    assert beside.hours[0] < on_a100.gpu_hours[0]
    assert "share its arithmetic" in on_a100.summary


def test_the_price_is_dated_and_for_the_hours_of_the_cards(on_a100: Sweep) -> None:
    assert on_a100.usd is not None and re.search(r"\(20\d\d(-\d\d){0,2}\)$", on_a100.price)
    rate = float(on_a100.price.split()[0])
    assert on_a100.usd == tuple(round(rate * hours, 2) for hours in on_a100.gpu_hours)
    four = sweep(SAE, GRID, gpu="4xA100-80GB")
    # Four cards are four times as dear and take a quarter of the time, or a little more.
    assert four.usd == on_a100.usd and four.cards == 4
    assert on_a100.gpu_hours[1] / 4 <= four.hours[1] <= on_a100.gpu_hours[1] / 4 + max(p.hours[1] for p in four.points)


def test_which_runs_fit_and_which_do_not() -> None:
    answer = sweep(CACHE, {"batch_size": [1, 2, 4, 16]}, gpu="A100-80GB")
    fits = [point.status for point in answer.points]
    assert fits[0] == "fits" and fits[-1] == "does_not_fit"
    assert answer.fits == fits.count("fits") and answer.does_not_fit == fits.count("does_not_fit")
    # What cannot run costs no hours.
    assert answer.gpu_hours[1] == pytest.approx(sum(p.hours[1] for p in answer.points if p.status != "does_not_fit"))
    assert answer.side_by_side is not None
    assert sorted(at for group in answer.side_by_side.groups for at in group) == list(range(answer.fits))


def test_without_a_card_the_cheapest_that_holds_every_run() -> None:
    answer = sweep(CACHE, {"batch_size": [1, 4]})
    assert answer.does_not_fit == 0 and answer.fits == 2
    assert any("cheapest for these runs" in note for note in answer.notes)
    with pytest.raises(InputError, match="no single card of the table holds the largest run"):
        sweep(CACHE, {"batch_size": [1, 400]})


def test_a_card_that_is_there_costs_nothing_here() -> None:
    answer = sweep(SAE, {"expansion_factor": [8, 16]}, compute=with_a_4090())
    assert answer.device == "NVIDIA GeForce RTX 4090" and answer.usd is None and answer.price == ""
    assert answer.free_bytes == 20 * GIB


def test_a_machine_without_a_gpu_is_counted_only_where_that_is_said() -> None:
    laptop = with_a_4090().model_copy(update={"accelerators": []})
    grid = {"expansion_factor": [8, 16]}
    answer = sweep(SAE, grid, compute=laptop)
    assert (
        answer.notes[0] == "this machine has no GPU that can be used" and "cheapest for these runs" in answer.notes[1]
    )
    on_cpu = sweep(SAE, grid, gpu="none", compute=laptop)
    assert on_cpu.device == "the CPU (RAM)" and on_cpu.free_bytes == 60 * GIB and on_cpu.usd is None


def test_a_grid_given_as_one_workload_says_where_it_belongs() -> None:
    with pytest.raises(InputError, match="sweep is a grid of runs, not a field of one"):
        parse_workload(SAE | {"expansion_factor": 8, "sweep": {"k": [1, 2]}})


def test_warnings_come_once_with_the_number_of_their_runs() -> None:
    answer = sweep(
        SAE | {"expansion_factor": 8}, {"train_batch_size_tokens": [1024, 2048, 4096], "k": [1, 2]}, gpu="T4"
    )
    (stops,) = [warning for warning in answer.warnings if "Buffer size must be" in warning]
    assert stops.startswith("2 of 6 runs: ")


def test_a_point_that_cannot_be_says_which() -> None:
    with pytest.raises(InputError, match="at hook_layer=12: hook_name: block 12 is outside"):
        sweep(SAE | {"expansion_factor": 8}, {"hook_layer": [11, 12]})


@pytest.mark.parametrize(
    ("launch", "run", "gpu", "says"),
    [
        ("slurm", None, None, "launch and run go together"),
        (None, RUN, None, "launch and run go together"),
        ("modal", RUN, None, "written for slurm or skypilot, not for modal"),
        ("slrm", RUN, None, "nearest: slurm"),
        ("slurm", RUN, "none", "a task file is for a card"),
        ("skypilot", RUN, "M2 Max 64GB", "skypilot is not known to offer"),
    ],
)
def test_launching_that_is_refused(launch: str | None, run: str | None, gpu: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        sweep(SAE, GRID, gpu=gpu, launch=launch, run=run)


def test_a_file_has_at_most_a_thousand_runs() -> None:
    with pytest.raises(InputError, match="the sweep has 1,001 runs; a task file is written for at most 1,000"):
        sweep(
            SAE | {"expansion_factor": 8, "model": None, "hook_name": None, "d_in": 768},
            {"train_batch_size_tokens": list(range(1, 1002))}, gpu="T4", launch="slurm", run="x {index}",
        )  # fmt: skip


def test_what_does_not_fit_is_left_out_of_the_file() -> None:
    answer = sweep(CACHE, {"batch_size": [1, 400]}, gpu="A100-80GB", launch="slurm", run="python a.py {batch_size}")
    assert answer.launch is not None
    assert "#SBATCH --array=0-0%1\n" in answer.launch.text and "python a.py 400" not in answer.launch.text
    assert answer.launch.notes == ["left out, as they do not fit: batch_size=400"]


def test_runs_that_cost_next_to_nothing_are_not_said_to_cost_0_to_0_usd() -> None:
    answer = sweep({"task": "inference", "model": "gpt2"}, {"batch_size": [1, 2]}, gpu="RTX 3090")
    assert answer.usd == (0.0, 0.0) and f"Less than a cent at {answer.price}." in answer.summary
