"""Where a model's weights are while it runs: on the card, or in RAM or on disk with accelerate's hooks.

All of them wait with `accelerate.cpu_offload` or a device_map that says "disk". With `device_map="auto"` and
`max_memory={0: "10GiB", "cpu": "64GiB"}` transformers fills the card first, then the RAM, then the disk, in the order
of the model's modules: `infer_auto_device_map` of transformers 5.23 (integrations/accelerate.py), done again here. A
decoder layer is not split (`_no_split_modules`); the room of the card and of the RAM is smaller by the largest module
that is not placed yet, for which there must always be room; a tied head goes with its embedding and counts nothing;
buffers count with their module, but are on the card wherever their module is. Without "cpu" in `max_memory` there is no
RAM for weights, and what is left goes to the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ...errors import InputError
from ...models.spec import ModelSpec
from ...units import gib
from .. import weights
from .offload import visiting
from .outputs import layout
from .parts import Waiting

Where = Literal["card", "cpu", "disk"]

_HEAD_LAST = ("embed", "positions", "input", "layers", "norm", "rotary", "lm_head")
_ORDERS: dict[str, tuple[str, ...]] = {
    "OPTForCausalLM": ("embed", "positions", "norm", "layers", "lm_head"),
    "PhiForCausalLM": ("embed", "layers", "rotary", "norm", "lm_head"),
}
"""Order of the modules, where it is not that of the rest. What has neither parameters nor buffers is left out."""


@dataclass(frozen=True)
class Placement:
    """Where each module's weights are."""

    ends: Mapping[str, Where]
    """Of the modules outside the layers, by role (`outputs.Layout.ends`)."""
    layers: Sequence[Where]

    @property
    def layers_on_card(self) -> int:
        return self.layers.count("card")


@dataclass(frozen=True)
class Weights:
    """Bytes of weights by where they are."""

    held: Mapping[Where, int]
    """Each once."""
    crossing: Mapping[Where, int]
    """What comes to the card in one pass; a tied head comes a second time."""


def all_of(spec: ModelSpec, where: Where) -> Placement:
    """All weights in one place; but the last norm's stay on the card where the others are on disk, as the advice's
    code has it: accelerate takes the device of what is not offloaded for that of the computing."""
    ends: dict[str, Where] = dict.fromkeys(layout(spec).ends.values(), where)
    if where == "disk" and "norm" in ends:
        ends["norm"] = "card"
    return Placement(ends, (where,) * spec.n_layers)


@lru_cache(maxsize=256)
def within(spec: ModelSpec, width: int, card: int, ram: int | None) -> Placement:
    """What `device_map="auto"` makes of `max_memory` with `card` bytes for the card and `ram` for the RAM.

    Args:
        width: bytes per number of the model's dtype.
        ram: None = `max_memory` has no "cpu".
    Raises:
        InputError: not even the first module goes to the card; transformers then runs all of it on the CPU.
    """
    found = _fill(_modules(spec, width), card, ram)
    if isinstance(found, int):
        raise InputError(
            f"max_memory: {gib(card)} for the card leave no room there for the embedding, so transformers would run "
            f"the whole model on the CPU; at least {gib(found)} ({found} bytes): the embedding, and room for the "
            "largest module that waits (a number without a unit is bytes)"
        )
    ends: dict[str, Where] = {role: found.get(role, "card") for role in layout(spec).ends.values()}
    if spec.tied_embeddings:
        ends["lm_head"] = ends["embed"]
    return Placement(ends, tuple(found[f"layers.{i}"] for i in range(spec.n_layers)))


def room_for(spec: ModelSpec, width: int, n_layers: int) -> tuple[int, int]:
    """(the least bytes for the card with which `n_layers` layers and no more are there, how many are too many).

    All other modules wait that come behind the layers. `n_layers` is below the model's.
    """
    modules = _modules(spec, width)
    leaves = [leaf for module in modules for leaf in module.leaves]
    first = next(at for at, leaf in enumerate(leaves) if leaf.name == "layers.0")
    before = sum(leaf.bytes for leaf in leaves[: first + n_layers])
    layer = leaves[first].bytes

    def least(count: int) -> int:
        rest = leaves[first + count :]
        held = before + (count - n_layers) * layer
        return held + max((leaf.bytes for leaf in rest), default=0)

    return least(n_layers), least(n_layers + 1)


def room_in_ram(spec: ModelSpec, width: int, n_layers: int) -> int:
    """Bytes for "cpu" in `max_memory` with which all is in RAM that waits beside `n_layers` layers on the card."""
    leaves = [leaf for module in _modules(spec, width) for leaf in module.leaves]
    first = next(at for at, leaf in enumerate(leaves) if leaf.name == "layers.0")
    rest = [leaf.bytes for leaf in leaves[first + n_layers :]]
    return sum(rest) + max(rest, default=0)


def weights_of(spec: ModelSpec, width: int, placement: Placement, stored_width: int) -> Weights:
    """Bytes of weights by where they are, at `width` bytes per number, on disk at `stored_width`."""
    numbers = visiting(spec, 1)
    known = layout(spec)
    one_layer = sum(numbers.get(role, 0) for role in set(known.inside.values()))
    held: dict[Where, int] = dict.fromkeys(("card", "cpu", "disk"), 0)
    crossing = dict(held)
    for where in placement.layers:
        held[where] += one_layer
        crossing[where] += one_layer
    for role, where in placement.ends.items():
        tied = role == "lm_head" and spec.tied_embeddings
        held[where] += 0 if tied else numbers.get(role, 0)
        crossing[where] += numbers.get(role, 0)
    crossing["card"] = 0
    widths: dict[Where, int] = {"card": width, "cpu": width, "disk": stored_width}
    return Weights(
        {where: count * widths[where] for where, count in held.items()},
        {where: count * widths[where] for where, count in crossing.items()},
    )


def waiting(spec: ModelSpec, width: int, placement: Placement, read_width: int = 0) -> Waiting:
    """What comes to the card for its module alone; `read_width` as `offload.visiting` takes it, for what is on disk."""
    known = layout(spec)
    by_place: dict[Where, dict[str, int]] = {
        "card": {}, "cpu": visiting(spec, width), "disk": visiting(spec, width, read_width)
    }  # fmt: skip
    inside = set(known.inside.values())
    layers = {where: {r: n for r, n in by.items() if r in inside} for where, by in by_place.items()}
    ends = {role: by_place[where].get(role, 0) for role, where in placement.ends.items()}
    return Waiting(ends, [layers[where] for where in placement.layers])


@dataclass(frozen=True)
class _Module:
    """A module as it is placed: one that can be split has children."""

    name: str
    bytes: int
    children: tuple[_Module, ...] = ()

    @property
    def leaves(self) -> tuple[_Module, ...]:
        return tuple(leaf for child in self.children for leaf in child.leaves) if self.children else (self,)


def _around(name: str, *children: _Module) -> _Module:
    return _Module(name, sum(child.bytes for child in children), children)


def _modules(spec: ModelSpec, width: int) -> list[_Module]:
    """The model's children, with bytes of parameters and buffers, tied ones once."""
    numbers, buffers = visiting(spec, width), weights.hf_buffer_bytes(spec, width)
    inside = {role: nbytes for role, nbytes in numbers.items() if role in layout(spec).inside.values()}
    per_layer = buffers // spec.n_layers if spec.architecture in ("GPTNeoForCausalLM", "GPTJForCausalLM") else 0
    rotary = spec.positional == "rotary" and not per_layer
    scale = buffers % (8 * ((spec.rotary_dim or 0) // 2)) if rotary else 0  # Gemma's; frequencies come in float32 pairs
    layer = sum(inside.values()) + per_layer
    sizes = {role: numbers.get(role, 0) for role in ("positions", "input", "norm", "lm_head")}
    sizes |= {"embed": numbers["embed"] + scale, "rotary": buffers - scale - per_layer * spec.n_layers}
    blocks = _around("layers", *(_Module(f"layers.{i}", layer) for i in range(spec.n_layers)))
    order = _ORDERS.get(spec.architecture, _HEAD_LAST)
    parts = {name: _Module(name, nbytes) for name, nbytes in sizes.items()} | {"layers": blocks}
    base = _around("base", *(parts[name] for name in order if name != "lm_head" and parts[name].bytes))
    return [base] if spec.tied_embeddings else [base, parts["lm_head"]]


def _fill(modules: list[_Module], card: int, ram: int | None) -> dict[str, Where] | int:
    """Where each leaf goes; or, where none goes to the card, the bytes that the first of them needs there."""
    rooms: list[tuple[Where, int | None]] = [("card", card), ("disk", None)]
    if ram is not None:
        rooms.insert(1, ("cpu", ram))
    found: dict[str, Where] = {}
    pending = list(modules)
    largest, names = _largest(pending)
    (where, room), used = rooms.pop(0), 0
    while pending:
        module = pending.pop(0)
        names -= {leaf.name for leaf in module.leaves}
        if not names:
            largest, names = _largest(pending)
        if room is None or used + module.bytes <= room - largest:
            used += module.bytes
            found |= dict.fromkeys((leaf.name for leaf in module.leaves), where)
        elif module.children:
            pending = [*module.children, *pending]
            largest, names = _largest(pending)
        elif where == "card" and not found:
            return module.bytes + largest
        else:
            pending = [module, *pending]
            (where, room), used = rooms.pop(0), 0
    return found


def _largest(modules: list[_Module]) -> tuple[int, set[str]]:
    """Bytes of the largest leaf, and the names of those that are as large."""
    leaves = [leaf for module in modules for leaf in module.leaves]
    largest = max((leaf.bytes for leaf in leaves), default=0)
    return largest, {leaf.name for leaf in leaves if leaf.bytes == largest}
