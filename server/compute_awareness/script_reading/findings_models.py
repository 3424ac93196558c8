"""Findings about models: the dtype they load in, loading twice, `cuda` where there is none, downloads."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from ..units import GIB, gib
from . import edits
from .answer import Found
from .events import Event
from .idioms.models import Model
from .moments import Moment
from .values import Known, Lib
from .workloads import changed, plain

if TYPE_CHECKING:
    from .findings import Findings

_ROUNDING = "figures differ in the third significant digit"


def float32(to: Findings, moment: Moment, one: Found) -> None:
    """Weights in float32 because nothing else was asked for."""
    event = moment.event
    dtype = event.fields.get("dtype")
    if event.kind != "load" or not isinstance(dtype, Known) or not isinstance(event.node, ast.Call):
        return
    if dtype.source.kind != "library_default" or dtype.value != "float32" or one.low_bytes is None:
        return
    if isinstance(event.subject, Model) and event.subject.trained:
        return
    half = "bfloat16" if to.place.has_bfloat16 else "float16"
    if plain(event.fields.get("library")) not in ("transformer_lens", "transformer_bridge"):
        return
    saving = _saved_by(to, moment, half)
    if saving <= 0 or (saving < GIB and one.status in ("fits", None)):
        return
    module = next((m for m in to.reading.modules.values() if m.script.path == event.file), None)
    has_torch = module is not None and module.names.get("torch") == Lib("torch")
    keyword = f"dtype=torch.{half}" if has_torch else f'dtype="{half}"'
    to.add(
        "float32_by_default", "warning" if one.status == "does_not_fit" else "note", event,
        "no dtype is given: the weights are loaded in float32", now=one.low_bytes, after=one.low_bytes - saving,
        changes=edits.with_keyword(to.scripts[event.file], event.node, keyword), effect=_ROUNDING,
    )  # fmt: skip


def _saved_by(to: Findings, moment: Moment, dtype: str) -> int:
    """Bytes that weights in `dtype` save; on a CPU loading decides, and 16 bit are loaded through float32."""
    if to.place.kind == "cpu":
        whole, less = to.now(moment), to.bytes_with(moment, dtype=dtype)
        return 0 if whole is None or less is None else whole - less
    base = moment.workload
    if base is None:
        return 0
    held = [
        sum(c.bytes for c in to.estimates.of(one).components if c.name in ("weights", "buffers"))
        for one in (base, changed(base, dtype=dtype))
    ]
    return held[0] - held[1]


def twice(to: Findings, moment: Moment, one: Found) -> None:
    """The same model is loaded while it is there already."""
    event = moment.event
    if event.kind != "load" or not isinstance(event.subject, Model):
        return
    for other in event.alive:
        if not isinstance(other, Model) or other is event.subject or other.load is None:
            continue
        mine = (plain(event.subject.name), plain(event.subject.dtype))
        same = mine[0] is not None and mine == (plain(other.name), plain(other.dtype))
        if not same or other.load.file != event.file or other.library != event.subject.library:
            continue
        left = next((one.bytes for one in moment.left if one.line == other.load.line), 0)
        script = to.scripts[event.file]
        first = edits.statement_of(script, other.load.line, other.load.column)
        changes = None
        if (
            isinstance(first, ast.Assign)
            and isinstance(first.targets[0], ast.Name)
            and isinstance(event.node, ast.Call)
        ):
            changes = edits.replaced(script, event.node, first.targets[0].id)
        now = one.low_bytes
        to.add(
            "loaded_twice", "warning", event,
            f"{plain(other.name)} is loaded again; line {other.load.line} has loaded it and it is still there",
            now=now, after=None if now is None else now - left, changes=changes,
        )  # fmt: skip
        return


def no_gpu(to: Findings, moment: Moment, one: Found) -> None:
    """`cuda` is written down and there is none."""
    event = moment.event
    device = event.fields.get("device")
    if to.place.kind != "cpu" or event.kind not in ("load", "load_sae") or not isinstance(device, Known):
        return
    name = str(device.value)
    if not name.startswith("cuda") or device.source.kind in ("assumed", "library_default"):
        return
    script = to.scripts[event.file]
    literal = edits.literal_at(script, device.source.line, name)
    module = next((m for m in to.reading.modules.values() if m.script.path == event.file), None)
    has_torch = module is not None and module.names.get("torch") == Lib("torch")
    choice = f'"{name}" if torch.cuda.is_available() else "cpu"'
    to.add(
        "no_cuda_here", "error", event, f"{name!r} is written down and {to.place.name} has no CUDA",
        changes=edits.replaced(script, literal, choice) if literal and has_torch else None,
        line=device.source.line or None,
    )  # fmt: skip


def disk(to: Findings) -> None:
    """Weights to download that the disk has no room for."""
    host = to.compute.host if to.compute is not None else None
    free = getattr(host, "disk_free_bytes", None)
    sizes: dict[str, int] = {}
    first: Event | None = None
    for moment, _ in to.pairs:
        name = plain(moment.event.fields.get("model"))
        if moment.least is not None and moment.least.download_bytes and isinstance(name, str):
            sizes[name] = moment.least.download_bytes
            first = first or moment.event
    total = sum(sizes.values())
    if first is not None and free is not None and total > free:
        to.add(
            "download", "error", first, f"its models are about {gib(total)} to download and the disk has {gib(free)}"
        )
