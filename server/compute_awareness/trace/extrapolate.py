"""From traces of a few shallow models to the deep one.

In a model of equal layers every figure is linear in their number, but the peak is the largest of several such lines:
a training step may be at its worst at the logits while it is shallow and in the optimizer when it is deep. So each
section of the run (before the layers, in the first ones, in the last ones, after them, in forward, backward and
optimizer) is extended by itself, and the largest is taken at the full depth. Between first and last layer a figure
is linear too, so the layers in the middle are never the worst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class NotLinear(Exception):
    """The shallow traces do not lie on a line: the model has to be traced whole."""


@dataclass(frozen=True)
class Trace:
    """A run at one depth. Bytes by kind: parameters, buffers, gradients, optimizer_state, cache, kv_cache, ..."""

    at_peak: Counter[str]
    retained: Counter[str]
    section: str
    """Where the peak is, e.g. `backward:after` or `forward:layer-1`."""
    parameters: int
    work: dict[str, Counter[str]] = field(default_factory=dict)
    """What each part of the run did: flops, moved, activations, kernels. Empty where the worker could not count."""


def extend(traces: Sequence[dict[str, Any]], n_layers: int | None) -> Trace:
    """The trace at `n_layers` layers from the worker's traces: one at the full depth, or three shallow ones.

    Raises:
        NotLinear: three were given and the middle one is not on the line through the others.
    """
    if len(traces) == 1:
        only = traces[0]
        sections = {name: Counter(kinds) for name, kinds in only["sections"].items()}
        work = {name: Counter(counts) for name, counts in only.get("work", {}).items()}
        return _worst(sections, Counter(only["retained"]), only["parameters"], work)
    assert n_layers is not None
    ordered = sorted(traces, key=lambda trace: trace["n_layers"])
    depths = [trace["n_layers"] for trace in ordered]
    names = _sections(ordered[0])
    if any(_sections(trace) != names for trace in ordered):
        raise NotLinear("the depths have different sections")
    sections = {name: _line([Counter(t["sections"][name]) for t in ordered], depths, n_layers) for name in names}
    retained = _line([Counter(t["retained"]) for t in ordered], depths, n_layers)
    parameters = _line([Counter(n=t["parameters"]) for t in ordered], depths, n_layers)["n"]
    parts = ordered[0].get("work", {})
    if any(trace.get("work", {}).keys() != parts.keys() for trace in ordered):
        raise NotLinear("the depths have different parts")
    work = {name: _line([Counter(t["work"][name]) for t in ordered], depths, n_layers) for name in parts}
    return _worst(sections, retained, parameters, work)


def _sections(trace: dict[str, Any]) -> set[str]:
    return {name for name in trace["sections"] if not name.endswith(":middle")}


def _line(values: Sequence[Counter[str]], depths: Sequence[int], n_layers: int) -> Counter[str]:
    first, last = values[0], values[-1]
    span = depths[-1] - depths[0]
    extended: Counter[str] = Counter()
    for kind in sorted(set().union(*values)):
        rise = last[kind] - first[kind]
        for value, depth in zip(values, depths, strict=True):
            if (value[kind] - first[kind]) * span != rise * (depth - depths[0]):
                raise NotLinear(f"{kind} is not linear in the number of layers")
        whole, rest = divmod(rise * (n_layers - depths[0]), span)
        if rest or first[kind] + whole < 0:
            raise NotLinear(f"{kind} does not grow by whole layers")
        extended[kind] = first[kind] + whole
    return extended


def _worst(
    sections: dict[str, Counter[str]], retained: Counter[str], parameters: int, work: dict[str, Counter[str]]
) -> Trace:
    name = max(sections, key=lambda section: sections[section].total())
    return Trace(+sections[name], +retained, name, parameters, work)
