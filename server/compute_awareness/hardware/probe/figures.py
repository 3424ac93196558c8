"""Figures out of text that other programs wrote: what is not plainly one is no figure."""

from __future__ import annotations

import re

_MOST = 1 << 63
# Kubernetes' resource quantities; k8s.io/apimachinery/pkg/api/resource.
_UNITS = {
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
}  # fmt: skip


def whole(text: str) -> int | None:
    """The whole number that `text` is, below 2^63; None for a sign, a point, other scripts' digits or no number."""
    word = text.strip(" \t\r\n")
    if not word.isascii() or not word.isdigit() or len(word) > 19:
        return None
    number = int(word)
    return number if number < _MOST else None


def amount(text: str) -> int | None:
    """Bytes of a quantity as Kubernetes writes it: `15Gi`, `512M`, or plain bytes. None where it is none."""
    found = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,3}))?(Ki|Mi|Gi|Ti|k|K|M|G|T)?B?", text.strip())
    if found is None or (found[3] is None and found[2]):
        return None
    thousandths = int(found[1]) * 1000 + int((found[2] or "0").ljust(3, "0"))
    size = thousandths * (_UNITS[found[3]] if found[3] else 1) // 1000
    return size if 0 < size < _MOST else None
