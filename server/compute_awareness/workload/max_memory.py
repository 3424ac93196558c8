"""`max_memory` of transformers' `device_map="auto"`: what may be on the card, and what in RAM."""

from __future__ import annotations

import re
from math import ceil
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"gib": 2**30, "mib": 2**20, "kib": 2**10, "gb": 10**9, "mb": 10**6, "kb": 10**3}
_SIZE = re.compile(r"\s*(\d{1,12}(?:\.\d{0,12})?)\s*([a-zA-Z]{2,3})\s*")
_MOST_BYTES = 2**60
_EXAMPLE = '{"0": "10GiB", "cpu": "64GiB"}'


def memory_bytes(size: int | str) -> int:
    """Bytes of one of its sizes, as accelerate 1.15 reads it (utils/modeling.py, convert_file_size_to_int): a number
    of bytes, or "10GiB", "9.5GB", "500MiB".

    Raises:
        ValueError: anything else; "10Gb" too, which are bits there.
    """
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MOST_BYTES:
        return size
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    unit = match[2].lower() if match else ""
    if match is None or unit not in _UNITS or (len(unit) == 2 and match[2].endswith("b")):
        raise ValueError(f"{size!r:.40} is no size; accepted: '10GiB', '9.5GB', '500MiB', or a number of bytes")
    return min(int(float(match[1]) * _UNITS[unit]), _MOST_BYTES)


def size_between(least: int, below: int) -> int | str:
    """The shortest way to write a size of at least `least` bytes and less than `below`."""
    for unit, name, digits in ((2**30, "GiB", 0), (2**30, "GiB", 1), (2**30, "GiB", 2), (2**20, "MiB", 0)):
        size = f"{ceil(least * 10**digits / unit) / 10**digits:g}{name}"
        if least <= memory_bytes(size) < below:
            return size
    return least


def _as_given(value: Any) -> Any:
    """{0: "10GiB", "cpu": "64GiB"} with strings for keys."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"it is an object as transformers takes it, {_EXAMPLE}")
    sizes = {str(device).removeprefix("cuda:"): size for device, size in value.items()}
    if unknown := [device for device in sizes if device not in ("0", "cpu")]:
        raise ValueError(f"{unknown[0]!r:.40} is no device that is estimated; accepted: 0, the only card, and 'cpu'")
    if "0" not in sizes:
        raise ValueError(f"the card, 0, is missing: {_EXAMPLE}")
    for size in sizes.values():
        memory_bytes(size)
    return sizes


MaxMemory = Annotated[
    dict[str, int | str] | None,
    BeforeValidator(_as_given),
    Field(
        description="transformers: limits for device_map='auto'; weights beyond come module by module; no 'cpu' = disk",
        examples=[{"0": "10GiB", "cpu": "64GiB"}],
    ),
]
