"""The GPU table, the names people write, and which cards are large enough."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compute_awareness
from compute_awareness.advice.gpu_table import Gpu, all_gpus
from compute_awareness.advice.gpus import find_gpu, gpus_that_fit, smallest_that_fits, with_cost
from compute_awareness.asking.table import policy_table
from compute_awareness.errors import InputError
from compute_awareness.hardware.probe.gpu_table import gpu_id
from compute_awareness.memory.card.device import device_range
from compute_awareness.preflight import recommend
from compute_awareness.units import GIB, MIB
from compute_awareness.workload import parse_workload

FACTS = Path(compute_awareness.__file__).parent / "facts"
BY_ID = {gpu.id: gpu for gpu in all_gpus()}


def test_every_row_is_whole_and_sourced() -> None:
    table = json.loads((FACTS / "gpus.json").read_text(encoding="utf-8"))
    tags = set(table["meta"]["sources"])
    assert all(entry["date"] for entry in table["meta"]["sources"].values())
    assert len(BY_ID) == len(all_gpus()) >= 128
    for row in table["gpus"]:
        assert row["sources"] and set(row["sources"]) <= tags, row["id"]
        assert row["tensor_source"] in tags | {None}, row["id"]
        assert (row["nvml_total_mib"] is None) == (row["nvml_total_source"] is None), row["id"]
        assert "seed" not in json.dumps(row)


def test_the_sellers_figure_is_never_exceeded() -> None:
    for gpu in all_gpus():
        assert 0 < gpu.usable_bytes <= gpu.sold_as_gb * GIB, gpu.id
        if gpu.nvml_total_mib is not None:
            assert gpu.usable_bytes < gpu.nvml_total_mib * MIB, gpu.id


def test_default_reserve_lies_above_every_one_seen() -> None:
    seen = 0
    for gpu in all_gpus():
        unseen = gpu.model_copy(update={"reserved_mib_seen": None})
        if gpu.torch_total_gib_seen is not None and gpu.nvml_total_mib is not None:
            seen += 1
            kept = gpu.nvml_total_mib * MIB - gpu.torch_total_gib_seen[0] * GIB
            assert unseen.reserve_bytes >= kept - 6 * MIB, gpu.id
        if gpu.reserved_mib_seen is not None:
            assert unseen.reserve_bytes >= gpu.reserved_mib_seen[1] * MIB, gpu.id
    assert seen >= 20


@pytest.mark.parametrize(
    ("gpu_id", "low", "high"),
    [
        ("t4", 14.5, 14.6), ("rtx3070", 7.5, 7.9), ("rtx4080", 15.3, 15.8), ("rtx3090", 23.5, 23.6),
        ("rtx4090", 23.4, 23.6), ("a10", 22.0, 22.1), ("l40s", 44.3, 44.4), ("a100-40gb-sxm", 39.3, 39.4),
        ("a100-80gb-sxm", 79.1, 79.2), ("h100-sxm", 79.0, 79.2), ("h200-sxm", 139.6, 139.8),
        ("apple-m2-max-64gb", 48, 48), ("apple-m1-16gb", 10.6, 10.7), ("gb10", 117, 118),
    ],
)  # fmt: skip
def test_usable_memory_of_known_cards(gpu_id: str, low: float, high: float) -> None:
    assert low <= BY_ID[gpu_id].usable_bytes / GIB <= high


def test_what_usable_memory_rests_on_is_said() -> None:
    assert "torch" in BY_ID["rtx4090"].usable_basis
    assert "as seen" in BY_ID["rtx4080"].usable_basis
    assert "not verified" in BY_ID["rtx3070"].usable_basis
    assert "8 %" in BY_ID["mi300x"].usable_basis
    assert "Metal" in BY_ID["apple-m3-max-36gb"].usable_basis
    assert "usable_bytes" in BY_ID["t4"].model_dump()


@pytest.mark.parametrize(
    ("written", "gpu_id", "count"),
    [
        ("RTX 4090", "rtx4090", 1), ("4090", "rtx4090", 1), ("rtx4090", "rtx4090", 1), ("4090 24GB", "rtx4090", 1),
        ("GeForce RTX 4090", "rtx4090", 1), ("8x4090", "rtx4090", 8), ("4090 48GB", "rtx4090-converted-48gb", 1),
        ("A100-80GB", "a100-80gb-sxm", 1), ("A100 80 GB", "a100-80gb-sxm", 1), ("80GB A100", "a100-80gb-sxm", 1),
        ("1x A100 (80GB)", "a100-80gb-sxm", 1), ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm", 1),
        ("A100 PCIe 40G", "a100-40gb-pcie", 1), ("2 x A100-80GB", "a100-80gb-sxm", 2),
        ("2xH100", "h100-pcie", 2), ("2 H100s", "h100-pcie", 2), ("H100:8", "h100-pcie", 8),
        ("h100 sxm", "h100-sxm", 1),
        ("T4", "t4", 1), ("T4 x2", "t4", 2), ("T4x2", "t4", 2), ("Tesla T4 16GB", "t4", 1),
        ("L40S", "l40s", 1), ("2xl40s", "l40s", 2), ("A10G", "a10g", 1), ("a10", "a10", 1),
        ("RTX A6000", "rtxa6000", 1), ("6000 Ada", "rtx6000ada", 1), ("RTX PRO 6000", "rtxpro6000-ws", 1),
        ("3080ti", "rtx3080ti", 1), ("4070 Ti Super", "rtx4070tisuper", 1), ("RTX 3080 12GB", "rtx3080-12gb", 1),
        ("M2 Max 64GB", "apple-m2-max-64gb", 1), ("MacBook Pro M3 Max 36GB", "apple-m3-max-36gb", 1),
        ("TITAN RTX", "titanrtx", 1), ("7900 XTX", "rx7900xtx", 1), ("9070 XT", "rx9070xt", 1), ("MI300X", "mi300x", 1),
        ("Colab G4", "rtxpro6000-server", 1), ("DGX Spark", "gb10", 1),
    ],
)  # fmt: skip
def test_spellings(written: str, gpu_id: str, count: int) -> None:
    found = find_gpu(written)
    assert (found.gpu.id, found.count) == (gpu_id, count)


def test_every_id_and_name_is_understood() -> None:
    for gpu in all_gpus():
        for text in (gpu.id, gpu.name):
            assert find_gpu(text).gpu.id == gpu.id, text
            assert find_gpu(f"3x{text}").count == 3


@pytest.mark.parametrize(
    ("written", "taken", "also"),
    [
        ("a100", "a100-40gb-sxm", "80GB"), ("V100", "v100-16gb", "32GB"), ("3080", "rtx3080-10gb", "12 GB"),
        ("RTX 6000", "quadrortx6000", "Ada"), ("M2 Max", "apple-m2-max-32gb", "96 GB"),
    ],
)  # fmt: skip
def test_a_choice_takes_the_smaller_and_says_so(written: str, taken: str, also: str) -> None:
    found = find_gpu(written)
    assert found.gpu.id == taken
    assert also in found.note and "least memory" in found.note


def test_a_card_of_which_only_the_memory_is_known_has_no_more_than_any_of_that_size() -> None:
    for gpu in all_gpus():
        if gpu.vendor in ("nvidia", "amd"):
            found = find_gpu(f"a card with {gpu.sold_as_gb:g} GB")
            assert found.gpu.name == f"a card with {gpu.sold_as_gb:g} GB" and found.gpu.compute_capability is None
            assert 0.85 * gpu.usable_bytes < found.gpu.usable_bytes <= gpu.usable_bytes, gpu.id
    assert find_gpu("2x a card with 24 GB").count == 2
    with pytest.raises(InputError, match="say 'a card with 24 GB'"):
        find_gpu("24GB")


def test_every_card_that_a_question_offers_is_understood() -> None:
    options = policy_table().fields["gpu"].options
    offered = [name for name in options if re.search(r"\d GB", name)]
    assert len(offered) >= 8
    for name in offered:
        size = float(re.findall(r"(\d+) GB", name)[0])
        assert find_gpu(name).gpu.sold_as_gb == size, name
    assert find_gpu("A100 or H100 80 GB").note.count("80GB") and "least memory" in find_gpu("L4 or A10G 24 GB").note
    with pytest.raises(InputError, match="unknown GPU"):
        find_gpu("A100 or Foo 80 GB")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("RTX 9090", "RTX 4090"), ("foo", "e.g."), ("", "e.g."), ("24GB", "unknown"), ("ada", "unknown"),
        ("A100 60GB", "40, 80 GB"), ("0xH100", "0 GPUs"), ("5000xT4", "1 to 1024"), ("H1OO", "H100"),
        ("x" * 5000, "unknown"),
    ],
)  # fmt: skip
def test_what_is_no_card_is_an_error_in_one_short_line(written: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        find_gpu(written)
    assert says in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@given(st.text(max_size=40))
def test_any_text_is_a_card_or_an_input_error(text: str) -> None:
    try:
        found = find_gpu(text)
    except InputError:
        return
    assert found.gpu.id in BY_ID and 1 <= found.count <= 1024


def test_nvml_names() -> None:
    """Detection reads the same table: a card seen by its NVML name is the row it came from."""
    for gpu in all_gpus():
        for name in gpu.nvml_names:
            found = gpu_id(name, gpu.usable_bytes)
            assert found is not None and BY_ID[found].usable_bytes == gpu.usable_bytes, name
    assert gpu_id("NVIDIA GeForce RTX 3080", 12 * GIB) == "rtx3080-12gb"
    assert gpu_id("NVIDIA Imaginary 1", None) is None


def test_what_fits_fits_and_the_smallest_come_first() -> None:
    def needed(gpu: Gpu) -> int:
        return device_range(20 * GIB, gpu.compute_capability)[1]

    fitting = gpus_that_fit(needed)
    assert {"rtx4090", "a100-80gb-sxm"} <= {gpu.id for gpu in fitting}
    assert not {"t4", "rtx4080", "l4"} & {gpu.id for gpu in fitting}
    choices = smallest_that_fits(needed)
    assert 3 <= len(choices) <= 5
    sizes = [choice.usable_bytes for choice in choices]
    assert sizes == sorted(sizes)
    assert all(b > 1.08 * a for a, b in pairwise(sizes)), "one card for each memory class"
    for choice in choices:
        assert choice.count == 1
        assert choice.headroom_bytes == choice.usable_bytes - needed(BY_ID[choice.gpu_id]) >= 0
        assert (choice.usd_per_hour is None) == (choice.price_date is None) == (choice.price_platform is None)
    assert "RTX 4090" in choices[0].name + choices[0].note


@given(st.integers(0, 400 * GIB))
def test_the_choice_is_monotonic(needed: int) -> None:
    less, more = smallest_that_fits(needed // 2), smallest_that_fits(needed)
    if more:
        assert less[0].usable_bytes * less[0].count <= more[0].usable_bytes * more[0].count
    for choice in more:
        assert choice.headroom_bytes >= 0


def test_several_cards_are_offered_as_rough_only_where_no_single_one_fits() -> None:
    choices = smallest_that_fits(400 * GIB)
    assert choices
    for choice in choices:
        assert choice.count in (2, 4, 8)
        assert "rough" in choice.note and "n_devices" in choice.note
        assert choice.count * choice.usable_bytes > 400 * GIB
    assert smallest_that_fits(10_000 * GIB) == []


def test_the_limit_holds_and_laptops_and_old_cards_are_not_advised() -> None:
    assert len(smallest_that_fits(1, limit=2)) == 2
    advised = [gpu for gpu in all_gpus() if gpu.advised]
    assert {gpu.kind for gpu in advised} <= {"data_center", "workstation", "consumer"}
    assert all(gpu.vendor == "nvidia" and float(gpu.compute_capability or 0) >= 7.5 for gpu in advised)


def test_a_run_is_priced_where_it_may_run_so_long() -> None:
    """The free T4 ends after 12 hours: a longer run is priced where it can run, and costs its hours."""
    task = {"task": "training", "model": "gpt2", "batch_size": 1, "seq_len": 128, "dtype": "float16"}
    short, long = (
        recommend(parse_workload(task | {"training_tokens": tokens})).advice.gpus for tokens in (10**5, 3 * 10**9)
    )
    free, paid = (next(gpu for gpu in gpus if gpu.name == "Tesla T4") for gpus in (short, long))
    assert free.usd_per_hour == free.usd_high == 0 and free.seconds_high is not None and free.seconds_high < 12 * 3600
    assert paid.seconds_high is not None and paid.seconds_low is not None and paid.seconds_high > 12 * 3600
    assert paid.usd_per_hour and paid.usd_high == pytest.approx(paid.usd_per_hour * paid.seconds_high / 3600, abs=0.01)


def test_two_cards_are_no_faster_and_cost_twice() -> None:
    choice = smallest_that_fits(150 * 2**30)[0].model_copy(update={"gpu_id": "h100-sxm", "count": 1})
    one, two = (with_cost(choice.model_copy(update={"count": n}), (3600, 7200)) for n in (1, 2))
    assert one.seconds_high == two.seconds_high == 7200
    assert one.usd_high and two.usd_high and two.usd_high >= 1.99 * one.usd_high


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("cpu", "say none"),
        ("CPU", "say none"),
        ("mps", "M2 Max 64GB"),
        ("cuda", "name the card"),
        ("cuda:0", "name the card"),
        ("Colab", "unknown, if that is not known"),
    ],
)
def test_what_is_no_card_is_answered_with_what_to_say(written: str, instead: str) -> None:
    with pytest.raises(InputError, match=f"^unknown GPU '{written}'; .*{instead}"):
        find_gpu(written)
