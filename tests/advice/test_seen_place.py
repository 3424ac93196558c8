"""Which card of a machine an experiment is counted to run on."""

from __future__ import annotations

import pytest

from compute_awareness.advice.place import seen_place
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    Host,
    Interpreter,
    Supports,
    TorchBuild,
)
from compute_awareness.units import GIB


def machine(*cards: Accelerator, torch: TorchBuild | None = None, ram: int = 64 * GIB) -> Compute:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["x"])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=ram, ram_available_bytes=ram // 2),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=list(cards),
        python=Interpreter(path="/p", source="PATH", torch=torch) if torch else None,
    )


def card(kind, name, free, **more) -> Accelerator:
    return Accelerator(index=0, kind=kind, name=name, total_bytes=free, free_bytes=free, **more)


NVIDIA = card("cuda", "NVIDIA GeForce RTX 3090", 23 * GIB, gpu_id="rtx3090", compute_capability="8.6")
AMD = card("rocm", "AMD Radeon RX 7900 XTX", 24 * GIB, gpu_id="rx7900xtx", arch="gfx1100")


@pytest.mark.parametrize(
    ("torch", "name"),
    [
        (None, AMD.name),
        (TorchBuild(version="2.13.0+cu130", cuda_build="13.0"), NVIDIA.name),
        (TorchBuild(version="2.13.0+rocm7.0"), AMD.name),
        (TorchBuild(version="2.13.0+cpu"), AMD.name),
    ],
)
def test_the_card_that_torch_is_built_for(torch, name):
    assert seen_place(machine(NVIDIA, AMD, torch=torch)).name == name


def test_an_amd_card_alone_stays_the_place_whatever_the_build():
    torch = TorchBuild(version="2.13.0+cu130", cuda_build="13.0")
    assert seen_place(machine(AMD, torch=torch)).name == AMD.name


def test_a_chip_that_no_table_has_says_itself_whether_it_has_bfloat16():
    old = Supports(bf16=False, fp8=False, flash_attention=False)
    assert not seen_place(machine(card("rocm", "x", GIB, arch="gfx1030", supports=old))).has_bfloat16
    assert seen_place(machine(card("rocm", "x", GIB))).has_bfloat16


def test_a_mac_has_the_row_of_its_ram():
    chip = card("mps", "Apple M2 Max", 42 * GIB, gpu_id="apple-m2-max", unified=True)
    place = seen_place(machine(chip, ram=64 * GIB))
    assert place.kind == "mps" and place.gpu is not None and place.gpu.id == "apple-m2-max-64gb"
    old = card("mps", "Apple M1", 10 * GIB, gpu_id="apple-m1", unified=True)
    place = seen_place(machine(old, ram=16 * GIB))
    assert place.gpu is not None and place.gpu.id == "apple-m1-16gb" and not place.has_bfloat16
