"""einops: `rearrange`, `repeat` and `reduce` by their patterns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..values import Args, Known, Source, Unknown, known, number
from .registry import function
from .torch_tensors import Tensor, one_dimension

if TYPE_CHECKING:
    from ..reader import Reader

_TERM = re.compile(r"\(([^()]*)\)|(\S+)")


@function("einops.rearrange", "rearrange", "einops.repeat", "einops.reduce")
def _rearrange(reader: Reader, args: Args, path: str) -> Any:
    value, pattern = args.get(0, "tensor"), known(args.get(1, "pattern"))
    if not isinstance(value, Tensor) or not isinstance(pattern, str) or pattern.count("->") != 1 or "..." in pattern:
        return Tensor(None)
    left, right = (terms_of(side) for side in pattern.split("->"))
    axes: dict[str, Any] = {name: size for name, size in args.keywords.items() if number(size) is not None}
    if value.shape is not None and len(value.shape) == len(left):
        for names, dim in zip(left, value.shape, strict=True):
            fill(axes, names, dim)
    shape = [one_dimension([axes.get(name, Unknown("an axis")) for name in names]) for names in right]
    return Tensor(shape, value.dtype, value.device)


def terms_of(side: str) -> list[list[str]]:
    """`(a b) c` -> [[a, b], [c]]"""
    return [(match.group(1) or match.group(2) or "").split() for match in _TERM.finditer(side)]


def fill(axes: dict[str, Any], names: list[str], dim: Any) -> None:
    """The axis that a dimension leaves open."""
    opened = [name for name in names if name not in axes and not name.isdigit()]
    if len(opened) != 1:
        return
    rest = 1
    for name in names:
        if name != opened[0]:
            size = int(name) if name.isdigit() else number(axes.get(name))
            if not size:
                return
            rest *= size
    whole = number(dim)
    axes[opened[0]] = (
        dim if rest == 1 else Known(whole // rest, Source("computed")) if whole is not None else Unknown("")
    )
