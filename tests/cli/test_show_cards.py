"""The cards of a report, for a person."""

from __future__ import annotations

from compute_awareness.cli.show_compute import show_compute
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    GpuLinks,
    GpuProcess,
    Host,
    Supports,
)
from compute_awareness.units import GIB


def shown(capsys, *cards: Accelerator, links: list[GpuLinks] | None = None) -> str:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["x"])
    compute = Compute(
        host=Host(os="Linux", cpus=1, ram_total_bytes=GIB, ram_available_bytes=GIB),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=list(cards),
        links=links or [],
    )
    show_compute(compute)
    return " ".join(capsys.readouterr().out.split())


def test_modes_and_processes(capsys):
    card = Accelerator(
        index=0, kind="cuda", name="NVIDIA V100", compute_capability="7.0", total_bytes=16 * GIB, free_bytes=4 * GIB,
        free_without_others_bytes=9 * GIB, mps=True, ecc_lost_bytes=GIB, virtual="vgpu", processes_left_out=3,
        processes=[
            GpuProcess(pid=7, used_bytes=5 * GIB, user="bob", own=False, name="python"),
            GpuProcess(pid=8, used_bytes=GIB, user="me", own=True),
        ],
        supports=Supports(bf16=False, fp8=False, flash_attention=False),
    )  # fmt: skip
    text = shown(capsys, card)
    for words in (
        "compute capability 7.0",
        "no bf16 and no flash attention",
        "a vGPU: a share of a card",
        "MPS daemon",
        "1.00 GiB taken by ECC",
        "bob's pid 7 (python) holds 5.00 GiB",
        "your own pid 8 holds 1.00 GiB",
        "and 3 more processes",
        "9.00 GiB free without others",
    ):
        assert words in text, words


def test_links_and_hidden_cards(capsys):
    cards = [Accelerator(index=i, kind="cuda", name="A6000", visible=i == 0) for i in range(4)]
    links = [GpuLinks(link="nvlink", pairs=["0-1", "2-3"], lanes=4), GpuLinks(link="between_sockets", pairs=["0-2"])]
    text = shown(capsys, *cards, links=links)
    assert "cards 0-1, 2-3: nvlink (4 links)" in text and "cards 0-2: between sockets" in text
    assert "hidden by CUDA_VISIBLE_DEVICES" in text
    amd = Accelerator(index=0, kind="rocm", name="MI300X", arch="gfx942", visible=False)
    text = shown(capsys, amd, links=[GpuLinks(link="xgmi", kind="rocm", pairs=["all"])])
    assert "gfx942" in text and "hidden by ROCR_, HIP_ or CUDA_VISIBLE_DEVICES" in text
    assert "every pair of cards: xgmi" in text
