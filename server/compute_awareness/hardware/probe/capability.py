"""What a chip can do, and which torch wheels have code for it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from .embedded import table
from .report import Supports

JETSON = frozenset({53, 62, 72, 87, 101})
# Compiler targets in the ROCm wheels of torch 2.8 to 2.10 (recalled from their build scripts; lists change with each
# release: torch.cuda.get_arch_list() of the installed one is what counts).
_ROCM_WHEELS = frozenset(
    ("gfx900", "gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1150",
     "gfx1151", "gfx1200", "gfx1201")
)  # fmt: skip


def runs_on(capability: str, arch: str, exact_only: Collection[int] = JETSON) -> bool:
    """Whether code for `arch` (`sm_86`, `sm_90a`, `compute_90`) runs on a card of compute `capability` (`8.9`).

    Machine code runs within its major from its minor on, except on Jetson's own chips (torch 2.13
    torch/cuda/__init__.py, DEVICE_REQUIREMENT); PTX (`compute_…`) is compiled for anything newer.
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)([af]?)", arch)
    parts = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if found is None or parts is None:
        return False
    card, code = int(parts.group(1)) * 10 + int(parts.group(2)), int(found.group(2))
    if found.group(3) == "a":
        return card == code
    if found.group(1) == "compute":
        return card >= code
    if card in exact_only or code in exact_only:
        return card == code or (code, card) == (101, 110)
    return card // 10 == code // 10 and card >= code


def cuda_supports(capability: str | None) -> Supports | None:
    """Of an NVIDIA chip of this compute capability; None where that is not known.

    bfloat16 from 8.0 on, fp8 from 8.9 on (torch._scaled_mm), the flash kernel of torch's
    scaled_dot_product_attention from 8.0 on (torch 2.13 aten/native/transformers/cuda/sdp_utils.cpp).
    """
    parts = re.fullmatch(r"(\d{1,3})\.(\d{1,2})", capability or "")
    if parts is None or capability is None:
        return None
    number = int(parts.group(1)), int(parts.group(2))
    return Supports(
        bf16=number >= (8, 0), fp8=number >= (8, 9), flash_attention=number >= (8, 0), torch=torch_wheels(capability)
    )


def torch_wheels(capability: str) -> str:
    """Which of torch's own wheels for Linux x86_64 have code for an NVIDIA chip, in a few words.

    `2.15` where the newest default wheel has it, `2.15+cu126, default wheels up to 2.9` where another build has.
    """
    rows = table("torch_wheels.json")["wheels"]
    fitting = [row for row in rows if any(runs_on(capability, f"sm_{sm}") for sm in row["sm"])]
    default = max((row["torch"] for row in fitting if row["default"]), key=_version, default=None)
    newest = max(fitting, key=lambda row: (_version(row["torch"]), row["default"], _version(row["cuda"])), default=None)
    if newest is None:
        return "none of torch's own wheels"
    if newest["default"]:
        return str(newest["torch"])
    other = f"{newest['torch']}+cu{newest['cuda'].replace('.', '')}"
    return f"{other}, default wheels up to {default}" if default else f"{other}, no default wheel"


def _version(text: Any) -> list[int]:
    return [int(part) for part in str(text).split(".")]


def apple_supports(chip: str) -> Supports | None:
    """Of an Apple chip by its name (`Apple M2 Max`): bfloat16 in hardware from M2 on; torch's Metal kernels have
    neither fp8 nor the flash kernel. None where the name is of no known form."""
    found = re.match(r"Apple M(\d{1,2})\b", chip)
    if found is None:
        return None
    return Supports(bf16=int(found.group(1)) >= 2, fp8=False, flash_attention=False, torch="macOS arm64 wheels")


def rocm_supports(arch: str | None) -> Supports | None:
    """Of an AMD chip by its compiler target (`gfx942`); None where that is not known.

    bfloat16 and fp8 as in the instruction sets of CDNA and RDNA; the flash kernel (AOTriton) without its
    experimental switch on gfx90a, gfx942 and gfx950 only.
    """
    found = re.fullmatch(r"gfx(\d{1,2})(\d)([0-9a-f])", arch or "")
    if found is None or arch is None:
        return None
    major = int(found.group(1))
    matrix = arch in ("gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950")
    return Supports(
        bf16=matrix or major >= 11,
        fp8=arch in ("gfx940", "gfx941", "gfx942", "gfx950") or major >= 12,
        flash_attention=arch in ("gfx90a", "gfx942", "gfx950"),
        torch="ROCm wheels" if arch in _ROCM_WHEELS else "not in the ROCm wheels",
    )
