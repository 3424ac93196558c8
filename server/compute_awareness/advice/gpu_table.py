"""The GPU table: what each card is and what a process can have on it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from ..units import GIB, MIB

Kind = Literal["data_center", "workstation", "consumer", "laptop", "unified", "tpu"]
_ROUNDED = 0.005  # torch prints its total in GiB with two decimals


class Gpu(BaseModel):
    """One card as torch sees it; an Apple chip appears once for every memory size it is sold with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Key of the table, e.g. rtx4090")
    name: str
    vendor: Literal["nvidia", "amd", "intel", "apple", "google"]
    kind: Kind
    arch: str
    compute_capability: str | None = Field(description="NVIDIA only, e.g. 8.9")
    aliases: tuple[str, ...] = Field(description="What else users call it")
    nvml_names: tuple[str, ...] = Field(description="The name as NVML prints it")
    pci_ids: tuple[str, ...] = Field((), description="PCI device ids (`74a1`, `744c:c8` with the revision)")
    sold_as_gb: float = Field(description="The seller's figure; used only where nothing was seen")
    nvml_total_mib: int | None = Field(description="MiB that NVML reports as total")
    nvml_total_source: str | None
    nvml_total_mib_other_ecc: int | None = Field(description="MiB with ECC not as it usually is")
    reserved_mib_seen: tuple[int, int] | None = Field(description="MiB that the driver keeps: least and most seen")
    torch_total_gib_seen: tuple[float, float] | None = Field(description="GiB of torch's total: least and most seen")
    bandwidth_gb_s: float = Field(description="Memory bandwidth, 10^9 bytes/s")
    tensor_tflops: float | None = Field(description="Dense fp16/bf16 matmul, 10^12/s; null without tensor cores")
    tensor_source: str | None
    fp32_tflops: float | None = Field(description="float32 without TF32, 10^12/s")
    bf16_native: bool
    advised: bool = Field(description="A card that people rent or own today and that may be recommended")
    sources: tuple[str, ...]
    notes: str

    @property
    def reserve_bytes(self) -> int:
        """Bytes that the driver keeps for itself: the most seen on this card, else an upper figure by size.

        200 MiB and 1.6 % of the card, at most 1110 MiB: above every reserve in the table, T4 to B200.
        """
        if self.reserved_mib_seen is not None:
            return self.reserved_mib_seen[1] * MIB
        return int(min(200 + 0.016 * (self.nvml_total_mib or 0), 1110) * MIB)

    @computed_field(description="Bytes that processes can have on an otherwise empty card")
    @property
    def usable_bytes(self) -> int:
        """The least `total_memory` that torch was seen to report; else NVML's total less the driver's reserve.

        On Apple chips the working set Metal recommends (2/3 of RAM up to 36 GB, 3/4 above); where nothing else is
        known the seller's figure less 8 %. `usable_basis` says which.
        """
        if self.torch_total_gib_seen is not None:
            return int((self.torch_total_gib_seen[0] - _ROUNDED) * GIB)
        if self.nvml_total_mib is not None:
            return self.nvml_total_mib * MIB - self.reserve_bytes
        if self.vendor == "apple":
            return int(self.sold_as_gb * GIB * (2 / 3 if self.sold_as_gb <= 36 else 3 / 4))
        return int(self.sold_as_gb * GIB * 0.92)

    @computed_field(description="What usable_bytes rests on")
    @property
    def usable_basis(self) -> str:
        if self.torch_total_gib_seen is not None:
            return "the least total that torch was seen to report"
        if self.nvml_total_mib is not None:
            known = "as seen" if self.nvml_total_source == "smi" else "recalled, not verified"
            return f"NVML's total ({known}) less the driver's reserve"
        if self.vendor == "apple":
            return "Metal's recommended working set by rule of thumb; the system uses the same RAM"
        return f"the seller's {self.sold_as_gb:g} GB less 8 %: nothing better is known"


@cache
def all_gpus() -> tuple[Gpu, ...]:
    """Every card of the table, in its order."""
    rows = json.loads((Path(__file__).parents[1] / "facts" / "gpus.json").read_text(encoding="utf-8"))["gpus"]
    cards: list[Gpu] = []
    for row in rows:
        sizes = row["sold_as_gb"]
        for size in sizes:
            one = row | {"sold_as_gb": size}
            if row["vendor"] == "apple":
                one |= {"id": f"{row['id']}-{size}gb", "name": f"{row['name']} {size} GB"}
            cards.append(Gpu.model_validate(one))
    return tuple(cards)


def card_of_size(gb: float) -> Gpu:
    """A card of which only the memory is known: no NVIDIA or AMD card of the table sold with `gb` GB has less.

    The seller's figure less 8 % and less the driver's reserve; no bfloat16, and the speed of a T4.
    """
    return Gpu(
        id=f"any-{gb:g}gb", name=f"a card with {gb:g} GB", vendor="nvidia", kind="consumer", arch="not known",
        compute_capability=None, aliases=(), nvml_names=(), pci_ids=(), sold_as_gb=gb,
        nvml_total_mib=int(gb * 1024 * 0.92), nvml_total_source=None, nvml_total_mib_other_ecc=None,
        reserved_mib_seen=None, torch_total_gib_seen=None, bandwidth_gb_s=320, tensor_tflops=None, tensor_source=None,
        fp32_tflops=8.1, bf16_native=False, advised=False, sources=(), notes="only its memory is known",
    )  # fmt: skip
