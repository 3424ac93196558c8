"""CUDA_VISIBLE_DEVICES, held against torch's own parser."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.compute import Accelerator
from compute_awareness.hardware.probe.nvidia import probe_nvidia
from compute_awareness.hardware.probe.visible import leading_int, visible_cards

UUIDS = ["GPU-aaaa1111-0000", "GPU-aaaa2222-0000", "GPU-bbbb3333-0000"]


def cards(names=("A", "A", "A")) -> list[Accelerator]:
    return [
        Accelerator(index=i, kind="cuda", name=name, uuid=UUIDS[i], total_bytes=1, free_bytes=1)
        for i, name in enumerate(names)
    ]


def by_torch(value: str) -> list[int]:
    """What torch's parser makes of `value` on a machine of three equal cards."""
    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": value}):
        listed = torch.cuda._parse_visible_devices()
    if listed and isinstance(listed[0], str):
        listed = torch.cuda._transform_uuid_to_ordinals(listed, UUIDS)
    kept = []
    for number in listed:
        if number >= 3:
            break
        kept.append(number)
    return kept


entry = st.one_of(
    st.integers(-2, 4).map(str),
    st.sampled_from(["1gpu2", "+2", " 0", "", "x", "0x1", *UUIDS, "GPU-aaaa", "GPU-b", "GPU-zzz"]),
)


@given(st.lists(entry, max_size=4).map(",".join))
def test_same_as_torch(value):
    assert visible_cards(cards(), {"CUDA_VISIBLE_DEVICES": value}).order == by_torch(value)


@pytest.mark.parametrize(
    ("value", "order"),
    [("", []), ("1", [1]), ("2,0", [2, 0]), ("0,-1,1", [0]), ("0,0", []), ("7", []), ("GPU-b", [2]), ("GPU-a", [])],
)
def test_examples(value, order):
    assert visible_cards(cards(), {"CUDA_VISIBLE_DEVICES": value}).order == order


def test_unset_means_all():
    assert visible_cards(cards(), {}).order == [0, 1, 2]


def test_numbers_are_doubtful_on_a_machine_of_different_cards():
    mixed = cards(("A", "B", "A"))
    assert "fastest first" in visible_cards(mixed, {"CUDA_VISIBLE_DEVICES": "0"}).doubts[0]
    assert visible_cards(mixed, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).doubts == []
    assert visible_cards(mixed, {"CUDA_VISIBLE_DEVICES": "0,1,2"}).doubts == []
    assert visible_cards(cards(), {"CUDA_VISIBLE_DEVICES": "0"}).doubts == []
    assert visible_cards(mixed, {"CUDA_VISIBLE_DEVICES": UUIDS[1]}) == ([1], [])


def test_out_of_range_is_told():
    assert "there are 3" in visible_cards(cards(), {"CUDA_VISIBLE_DEVICES": "0,5,1"}).doubts[0]


def test_the_old_name_of_a_single_slice():
    part = Accelerator(index=1, kind="cuda", name="A MIG", uuid="MIG-77", mig_of=1)
    found = visible_cards([*cards()[:2], part], {"CUDA_VISIBLE_DEVICES": "MIG-GPU-aaaa2222-0000/1/0"})
    assert found.order == [2]


def test_the_old_name_of_one_of_several_slices():
    parts = [
        Accelerator(index=1, kind="cuda", name="A MIG", uuid=f"MIG-{i}", mig_of=1, mig_instance=f"{i}/0")
        for i in (1, 2)
    ]
    found = visible_cards([*cards()[:2], *parts], {"CUDA_VISIBLE_DEVICES": "MIG-GPU-aaaa2222-0000/2/0"})
    assert found.order == [3]


def test_by_uuid_through_the_driver(with_driver):
    environ = with_driver({"cards": [{"name": "A", "times": 3}]}, CUDA_VISIBLE_DEVICES="GPU-2,GPU-0")
    assert [card.visible for card in probe_nvidia(environ).cards] == [True, False, True]


def test_numbers_that_overflow():
    assert leading_int("9" * 5000) > 10**9
    assert leading_int("٣") == -1
    assert leading_int("-") == -1  # torch 2.13 itself raises here
