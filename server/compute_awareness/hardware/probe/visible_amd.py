"""Which AMD GPUs an experiment will see: ROCR_VISIBLE_DEVICES first, then HIP_ or CUDA_VISIBLE_DEVICES of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .report import Accelerator
from .visible import Visible, leading_int


def visible_amd(cards: Sequence[Accelerator], environ: Mapping[str, str]) -> Visible:
    """Apply the three variables to `cards` (KFD's order).

    ROCR_VISIBLE_DEVICES is read by ROCm's runtime, which then shows HIP the cards that are left, numbered from 0
    anew. Of those HIP shows the ones of HIP_VISIBLE_DEVICES, or of CUDA_VISIBLE_DEVICES where that is not set (torch
    2.13 torch/cuda/__init__.py `_parse_visible_devices`; the lists are read as in `visible.py`).
    """
    order = list(range(len(cards)))
    doubts: list[str] = []
    if not cards:
        return Visible([], [])
    first = environ.get("ROCR_VISIBLE_DEVICES")
    if first is not None:
        order = _chosen("ROCR_VISIBLE_DEVICES", first, order, cards, doubts)
    name = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in environ else "CUDA_VISIBLE_DEVICES"
    second = environ.get(name)
    if second is not None:
        left = _chosen(name, second, order, cards, doubts)
        if order and not left and first and second:
            doubts.append(
                f"ROCR_VISIBLE_DEVICES leaves {len(order)} card{'s' * (len(order) > 1)}, which HIP numbers from 0 "
                f"again; {name} then names none of them: unset one of the two"
            )
        order = left
    return Visible(order, doubts)


def _chosen(
    variable: str, value: str, order: Sequence[int], cards: Sequence[Accelerator], doubts: list[str]
) -> list[int]:
    """The members of `order` that `value` names, by number within it or by UUID; the first invalid entry ends it."""
    chosen: list[int] = []
    for raw in value.split(",") if value.strip() else []:
        entry = raw.strip()
        if entry.upper().startswith("GPU-"):
            hits = [i for i in order if (cards[i].uuid or "").lower().startswith(entry.lower())]
            if len(hits) != 1:
                what = "no card here" if not hits else f"{len(hits)} cards"
                doubts.append(f"{variable} names a UUID that matches {what}: that entry and all after it are ignored")
                break
            card = hits[0]
        else:
            number = leading_int(entry)
            if number < 0:
                break
            if number >= len(order):
                ignored = "that entry and all after it are ignored"
                doubts.append(f"{variable} names card {number}, but there are {len(order)}: {ignored}")
                break
            card = order[number]
        if card in chosen:
            doubts.append(f"{variable} names card {card} twice: no card is then shown at all")
            return []
        chosen.append(card)
    return chosen
