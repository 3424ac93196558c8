"""What chips can do: by compute capability and compiler target, held against the table and torch's own lists."""

from __future__ import annotations

import pytest
import torch

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.hardware.probe.capability import apple_supports, cuda_supports, rocm_supports, torch_wheels


def test_bfloat16_as_in_the_table():
    checked = 0
    for gpu in all_gpus():
        if gpu.vendor == "nvidia":
            found = cuda_supports(gpu.compute_capability)
        elif gpu.vendor == "amd":
            found = rocm_supports(gpu.arch)
        elif gpu.vendor == "apple":
            found = apple_supports(gpu.name)
        else:
            continue
        assert found is not None and found.bf16 == gpu.bf16_native, gpu.id
        checked += 1
    assert checked > 120


@pytest.mark.parametrize(
    ("capability", "fp8", "flash"),
    [("7.5", False, False), ("8.0", False, True), ("8.6", False, True), ("8.9", True, True), ("12.0", True, True)],
)
def test_fp8_and_flash(capability, fp8, flash):
    found = cuda_supports(capability)
    assert found is not None and (found.fp8, found.flash_attention) == (fp8, flash)


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ("9.0", "2.15"),
        ("12.1", "2.15"),
        ("7.0", "2.15+cu126, default wheels up to 2.10"),
        ("6.1", "2.15+cu126, default wheels up to 2.7"),
        ("3.7", "2.0"),
        ("8.7", "none of torch's own wheels"),  # Jetson runs only code made for it
    ],
)
def test_wheels(capability, words):
    assert torch_wheels(capability) == words


def test_the_release_here_is_judged_as_by_torch():
    """Where the newest wheel of the table is torch's own list of this release, its compatibility rule agrees."""
    builds = {cuda: arches["x86_64"] for cuda, arches in torch.cuda.PYTORCH_RELEASES_CODE_CC.items()}
    for card in (50, 60, 61, 70, 75, 80, 86, 89, 90, 100, 103, 120, 121):
        by_torch = any(
            torch.cuda._code_compatible_with_device(card, arch) for arches in builds.values() for arch in arches
        )
        assert by_torch == (torch_wheels(f"{card // 10}.{card % 10}") != "none of torch's own wheels")


def test_what_is_no_chip_is_not_known():
    assert cuda_supports(None) is None and cuda_supports("x") is None
    assert apple_supports("Apple silicon") is None
    assert rocm_supports(None) is None and rocm_supports("Turing") is None
