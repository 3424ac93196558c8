"""How much memory each moment of a script takes: the call itself, and what earlier lines left alive.

A call is estimated as a workload. What is alive beside it (another model, a cache, logits with their graph) is added
with the bytes that its own call was estimated to leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..advice.place import Place
from ..advice.several import splits
from ..errors import InputError, NotCovered
from ..estimator import estimate
from ..memory.estimate import Estimate, Peak
from ..models.catalogue import find
from ..models.resolve import resolve
from ..workload import ActivationCache, AnyWorkload, Inference
from .events import Event
from .idioms.activation_cache import Cache
from .idioms.models import Model
from .idioms.nnsight import Proxy
from .idioms.sae_lens import TrainedSae
from .idioms.torch_tensors import Tensor
from .idioms.transformer_lens import Logits
from .idioms.transformers import Output
from .reader import MOST_ROUNDS, Grown
from .values import bound, known, number
from .workloads import as_globs, changed, plain, read_of, variants

_ALIKE = 0.9
"""Of the largest card's free memory: a card with less gets less of the model, and how much is not counted."""


@dataclass
class Left:
    """Something that is alive beside a call."""

    what: str
    bytes: int
    file: str = ""
    line: int = 0
    most: int = 0
    """Bytes where every length is at its bound; 0: the same."""
    thing: Any = None
    """What it is, where its size may follow from the call's own fields, and how often it is there."""
    times: int = 1


@dataclass
class Moment:
    """One call with its estimates: `least` and `most` differ where the text leaves something open."""

    event: Event
    least: Estimate | None = None
    most: Estimate | None = None
    workload: AnyWorkload | None = None
    """The workload where all of it is known."""
    least_workload: AnyWorkload | None = None
    most_workload: AnyWorkload | None = None
    left: list[Left] = field(default_factory=list)
    problem: str = ""
    """Why there is no estimate."""
    endless: Left | None = None
    """What each round of a loop leaves alive, where nobody can say how many rounds there are."""

    @property
    def beside(self) -> int:
        return sum(one.bytes for one in self.left)

    @property
    def beside_at_most(self) -> int:
        return sum(max(one.bytes, one.most) for one in self.left)


class Estimates:
    """Estimates of workloads at one place, each made once."""

    def __init__(
        self, place: Place, python: str | None = None, root: Path | None = None, *, may_trace: bool = True
    ) -> None:
        self.place = place
        self.may_trace = may_trace
        self.python = python
        self.root = root
        """A model folder that a script names is looked into inside this folder only."""
        self._made: dict[str, Estimate] = {}
        self._failed: dict[str, InputError] = {}
        self._instead: tuple[Event, Estimate] | None = None

    def of(self, workload: AnyWorkload) -> Estimate:
        """Raises InputError."""
        key = workload.model_dump_json()
        model = str(workload.model)
        if model in self._failed:
            raise self._failed[model]
        if key not in self._made:
            if isinstance(workload.model, str):
                try:
                    inside(workload.model, self.root)
                    resolve(workload.model)
                except NotCovered as error:  # a trace may still do it
                    if not self.may_trace:
                        self._failed[model] = error
                        raise
                except InputError as error:  # one look at the hub for each model is enough
                    self._failed[model] = error
                    raise
            if not self.may_trace:
                method = "estimate_method" if workload.task == "patching" else "method"
                workload = workload.model_copy(update={method: "closed_form"})
            self._made[key] = estimate(workload, self.place.compute_capability, python=self.python)
        return self._made[key]

    def _spread(self, workload: AnyWorkload | None, event: Event) -> AnyWorkload | None:
        """device_map="auto" takes every card that the process sees: counted where the place has several with about as
        much memory free, and nobody else's."""
        mapped, cards = plain(getattr(event.subject, "device", None)), self.place.cards
        if not isinstance(workload, Inference | ActivationCache) or mapped not in ("auto", "balanced") or cards is None:
            return workload
        free = [card.free_bytes for card in cards.free]
        if len(free) < 2 or cards.shared or cards.others_visible or min(free) < _ALIKE * max(free):
            return workload
        return changed(workload, n_devices=len(free)) if splits(workload.model_dump()) == "estimated" else workload

    def _variants(self, event: Event) -> tuple[AnyWorkload | None, AnyWorkload | None, AnyWorkload | None]:
        """The workloads of the call, with what the script reads of its cache; without where that is no hook of the
        model, as a figure is worth more than what may be a name that was read wrongly. Raises InputError."""
        found = variants(event)
        reads = read_of(event)
        if not reads:
            return found
        spec = event.subject.spec() if isinstance(event.subject, Model) else None
        told = [None if one is None else changed(one, reads=as_globs(reads, spec)) for one in found]
        try:
            for one in told:
                if one is not None:
                    self.of(one)
        except InputError:
            return found
        return told[0], told[1], told[2]

    def _rough(self, made: Estimate, event: Event) -> Estimate:
        """What is estimated in the place of something else is rough."""
        stands_for = plain(event.fields.get("library")) == "own" or (
            plain(event.fields.get("autocast")) is not None and made.workload.get("autocast") is None
        )
        return made.model_copy(update={"precision": "rough"}) if stands_for else made

    def moment(self, event: Event) -> Moment:
        """The call's estimates and what is alive beside it."""
        moment = Moment(event)
        if event.free or event.kind == "load_sae":
            return moment
        try:
            found = (self._spread(workload, event) for workload in self._variants(event))
            moment.least_workload, moment.workload, moment.most_workload = found
            if moment.least_workload is not None:
                moment.least = self._rough(self.of(moment.least_workload), event)
            if moment.most_workload is not None:
                moment.most = self._rough(self.of(moment.most_workload), event)
        except InputError as error:
            moment.problem = str(error)
            return moment
        moment.left = self.beside(event)
        if known(event.fields.get("with_labels")) is True and (loss := _loss(event, moment.least)) is not None:
            moment.left.append(loss)
        return moment

    def collect(self, moments: list[Moment], grown: Iterable[Grown]) -> None:
        """What lists collect over loops of many rounds is alive in the last one.

        Loops that were followed round by round have it in `alive` already.
        """
        for one in grown:
            size = self.size_of(one.value)
            if not size or (one.times is not None and one.times <= MOST_ROUNDS):
                continue
            for moment in moments:
                event = moment.event
                if not any(event.file == file and first <= event.line <= last for file, first, last in one.loops):
                    continue
                what = f"what a list collects in a loop, {one.times} rounds"
                if one.times is None:
                    moment.endless = Left("what a list collects in a loop", size, one.script, one.node.lineno)
                    continue
                most = self.size_of(one.value, most=True) or size
                moment.left.append(
                    Left(what, size * one.times, one.script, one.node.lineno, most * one.times, one.value, one.times)
                )

    def beside(self, event: Event) -> list[Left]:
        """What is alive when the call runs and is not counted in its own estimate."""
        found: list[Left] = []
        counted: set[int] = {id(event.subject)}
        full_caches = {id(one.event) for one in event.alive if isinstance(one, Cache) and one.event is not None
                       and plain(one.event.fields.get("names_filter")) is None}  # fmt: skip
        for thing in event.alive:
            if id(thing) in counted or self.elsewhere(thing):
                continue
            counted.add(id(thing))
            left = None
            if isinstance(thing, Model):
                left = self._model(thing)
            elif isinstance(thing, Cache):
                left = self._component(thing.event, "activation_cache", "a cache")
                if left is not None:
                    left.thing = thing
            elif isinstance(thing, Logits):
                if id(thing.event) not in full_caches:
                    left = self._tensor(thing, thing.event)
                graph = self._graph(thing.event)
                if graph is not None and id(thing.event) not in counted:
                    counted.add(id(thing.event))
                    found.append(graph)
            elif isinstance(thing, TrainedSae):
                left = _sae(thing)
            elif type(thing) is Tensor and isinstance(known(thing.device), str):
                left = self._tensor(thing, None)
            if left is not None and left.bytes > 0:
                found.append(left)
        return found

    def size_of(self, thing: Any, *, most: bool = False) -> int | None:
        """Device bytes that a thing keeps alive by itself; None where that is not known, 0 in RAM.

        `most`: with every length at its bound, where the text does not give it.
        """
        event, size, share = None, None, 1.0
        if isinstance(thing, Cache):
            size = self._kept(thing.event, "activation_cache", most)
        elif isinstance(thing, Proxy):
            trace = thing.trace
            if trace is None or trace.event is None or trace.event.free:
                return None
            event = None if thing.detached else trace.event
            size = self._kept(trace.event, "activation_cache", most)
            size = None if size is None else size // max(1, len(trace.saved))
            share = thing.share()
        elif isinstance(thing, Tensor):
            event, size, share = thing.graph, thing.kept(), thing.share
        elif isinstance(thing, Output):
            event, size = thing.event, 0
        if self.elsewhere(thing):
            size = 0  # moving a tensor does not free the graph that it came from
        if event is not None and keeps_graph(event) and (graph := self._kept(event, "activations", most)) is not None:
            size = (size or 0) + int(graph * share)
        return size

    def beside_with(self, moment: Moment, made: Estimate) -> int:
        """What is alive beside a call where its own estimate is another one: what a loop collects of it changes too."""
        self._instead = (moment.event, made)
        try:
            sizes = [
                (self.size_of(left.thing) or 0) * left.times if left.thing is not None else left.bytes
                for left in moment.left
            ]
            return sum(sizes)
        finally:
            self._instead = None

    def _kept(self, event: Event | None, name: str, most: bool) -> int | None:
        """Device bytes of one component of a call's estimate."""
        if self._instead is not None and event is self._instead[0]:
            made: Estimate | None = self._instead[1]
        else:
            made = None if event is None else self._estimate(event, most=most)
        return None if made is None else sum(c.bytes for c in made.components if c.name == name and c.where == "device")

    def elsewhere(self, thing: Any) -> bool:
        """Whether it lies in RAM and the device is a card; without one all is in RAM."""
        return self.place.kind != "cpu" and on_host(thing)

    def _model(self, model: Model) -> Left | None:
        load = model.load
        if load is None or load.free:
            return None
        made = self._estimate(load)
        if made is None:
            return None
        size = sum(c.bytes for c in made.components if c.name in ("weights", "buffers"))
        return Left(f"{plain(model.name)}'s weights", size, load.file, load.line)

    def _component(self, event: Event | None, name: str, what: str) -> Left | None:
        made = None if event is None else self._estimate(event)
        if made is None or event is None:
            return None
        size = sum(c.bytes for c in made.components if c.name == name and c.where == "device")
        return Left(what, size, event.file, event.line)

    def _graph(self, event: Event | None) -> Left | None:
        if event is None or event.kind == "training" or plain(event.fields.get("with_gradients")) is not True:
            return None
        return self._component(event, "activations", "the graph that autograd keeps for its backward pass")

    def _tensor(self, tensor: Tensor, event: Event | None) -> Left | None:
        size = tensor.bytes()
        if size is None:
            return None
        what = "logits" if isinstance(tensor, Logits) else "a tensor"
        return Left(what, size, event.file if event else "", event.line if event else 0)

    def _estimate(self, event: Event, *, most: bool = False) -> Estimate | None:
        try:
            least, exact, whole = variants(event)
            workload = exact or (whole if most else least)
            return None if workload is None else self.of(workload)
        except InputError:
            return None


def keeps_graph(event: Event | None) -> bool:
    """Whether what a pass returns keeps its graph: no backward goes through it, which would free it."""
    return (
        event is not None and plain(event.fields.get("with_gradients")) is True
        and event.kind != "training" and "backward" not in event.fields
    )  # fmt: skip


def inside(model: str, root: Path | None) -> None:
    """A script may name a folder with a model; it is not read outside the script's project.

    Raises:
        InputError: it lies outside.
    """
    if find(model) is not None:
        return
    try:
        path = Path(model).expanduser()
        if not (model.startswith((".", "~")) or path.is_absolute() or model.endswith(".json") or path.exists()):
            return
        held = root is not None and path.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        held = False
    if not held:
        raise InputError(f"model: {model[:80]!r} is a path outside the script's project and is not read")


def with_others(made: Estimate, beside: int) -> Estimate:
    """The estimate with what else is alive on the device."""
    if not beside:
        return made
    peak = Peak(
        tensors=made.peak.tensors + beside, reserved=made.peak.reserved + beside, device=made.peak.device + beside
    )
    loading = made.loading_device_bytes + beside if made.loading_device_bytes else 0
    return made.model_copy(update={"peak": peak, "loading_device_bytes": loading})


def on_host(thing: Any) -> bool:
    """Whether it lies in RAM, as far as the script says."""
    if isinstance(thing, Cache):
        return thing.on_cpu or (thing.model is not None and on_host(thing.model))
    device = known(getattr(thing, "device", None))
    return isinstance(device, str) and device == "cpu"


def _loss(event: Event, made: Estimate | None) -> Left | None:
    """What a loss without a graph adds to a pass: the log-softmax of its logits in float32, and a copy of the logits in
    float32 where they are not (transformers 5.23, loss/loss_utils.py: `logits.float()`, then `cross_entropy`)."""
    spec = event.subject.spec() if isinstance(event.subject, Model) else None
    if spec is None or made is None:
        return None
    width = 4 * spec.d_vocab * (1 if made.workload.get("dtype") == "float32" else 2)
    batch, seq_len = (event.fields.get(name) for name in ("batch_size", "seq_len"))
    least = width * (number(batch) or 1) * (number(seq_len) or 1)
    most = width * (bound(batch) or 1) * (bound(seq_len) or 1)
    return Left("the logits in float32 that the loss makes", least, event.file, event.line, most)


def _sae(sae: TrainedSae) -> Left | None:
    d_in, d_sae = number(sae.fields.get("d_in")), number(sae.fields.get("d_sae"))
    if d_in is None or d_sae is None:
        return None
    width = {"float32": 4, "bfloat16": 2, "float16": 2}.get(str(known(sae.fields.get("dtype")) or "float32"), 4)
    return Left("an SAE", width * (2 * d_in * d_sae + d_in + d_sae))
