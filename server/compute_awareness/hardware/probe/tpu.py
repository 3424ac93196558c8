"""Google's TPUs: chips on the PCI bus, or device files where a container has no PCI bus to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ...units import GIB
from .gpu_table import gpu_row
from .report import Accelerator, ProbeProblem
from .sysfs import entries, read
from .visible import leading_int

NOT_COVERED = "not covered: no estimate is made of memory on TPUs (torch_xla)"
# PCI device ids of vendor 0x1ae0, jax 0.8 jax/_src/hardware_utils.py.
_CHIPS = {
    "0x0027": "v3", "0x005e": "v4", "0x0062": "v5p", "0x0063": "v5e", "0x006f": "v6e", "0x0076": "v7x",
}  # fmt: skip
_TYPES = {
    "v2": "v2", "v3": "v3", "v4": "v4", "v5litepod": "v5e", "v5lite": "v5e", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e",
    "tpu7x": "v7x", "v7x": "v7x",
}  # fmt: skip


def probe_tpu(environ: Mapping[str, str], root: Path = Path("/")) -> tuple[list[Accelerator], list[ProbeProblem]]:
    """The TPU chips of this machine, by generation.

    Memory is the seller's figure from the table (bytes); what is free of it only a program on the TPU can tell. The
    variable TPU_ACCELERATOR_TYPE (`v5litepod-8`) names the generation where PCI does not, and alone proves no chip.
    """
    named = environ.get("TPU_ACCELERATOR_TYPE", "")
    by_name = _TYPES.get(named.lower().rsplit("-", 1)[0])
    chips: list[str | None] = []
    for device in entries(root / "sys/bus/pci/devices"):
        if read(device / "vendor") == "0x1ae0":
            chip = _CHIPS.get(read(device / "device"))
            if chip is not None:
                chips.append("v2" if chip == "v3" and by_name == "v2" else chip)
    if not chips and named:
        # `/dev/accel0` is the TPU's; `/dev/accel/accel0`, in a folder, belongs to other makers.
        chips = [by_name for path in entries(root / "dev") if re.fullmatch(r"accel\d{1,3}", path.name)]
        if not chips:
            chips = [by_name for path in entries(root / "dev/vfio") if path.name.isdigit()]
    problems = []
    if named and not chips:
        why = f"TPU_ACCELERATOR_TYPE is set{f' to {by_name}' if by_name else ''}, but no TPU is here (PCI, /dev/accel*)"
        problems.append(ProbeProblem(probe="tpu", reason=why))
    shown = environ.get("TPU_VISIBLE_CHIPS") or environ.get("TPU_VISIBLE_DEVICES")
    visible = {leading_int(entry.strip()) for entry in shown.split(",")} if shown else None
    return [_card(i, chip, visible is None or i in visible) for i, chip in enumerate(chips)], problems


def _card(index: int, chip: str | None, visible: bool) -> Accelerator:
    row = gpu_row(f"tpu-{chip}")
    sold = row.get("sold_as_gb")
    return Accelerator(
        index=index,
        kind="tpu",
        name=f"TPU {chip}" if chip else "TPU",
        gpu_id=row.get("id"),
        total_bytes=max(sold) * GIB if sold else None,
        visible=visible,
        problem=NOT_COVERED,
    )
