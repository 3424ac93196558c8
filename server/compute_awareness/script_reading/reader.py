"""The state of a reading: names and scopes, what modes are on, how often the current line runs, what was found.

The reader follows the text as Python would run it, with values that may be unknown. It runs nothing: a call of a
library is looked up in `idioms`, a function of the text is followed, everything else is unknown. Steps, depth, files
and loops are bounded.
"""

from __future__ import annotations

import ast
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .events import Event
from .source import Script
from .values import Args, Dict, Items, Known, Lib, Source, Thing, Unknown, known, parts, same

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_STEPS = 100_000
"""Syntax nodes looked at in one reading, repeats included: about a second."""
MADE_A_STEP, WALKED_A_STEP, TEXT_A_STEP = 8, 32, 1000
"""Items that are made or looked through and characters cost steps, or lines that copy long lists would take minutes and
gigabytes within the bound."""
NAMES_A_STEP = 64
"""A branch that may or may not run costs steps by the names that have to be kept."""
UNROLL_STEPS = 40_000
"""Beyond these loops are no longer followed round by round."""
MOST_DEPTH = 60
MOST_CALLS = 14
"""Calls inside calls that are followed."""
MOST_ROUNDS = 64
MOST_EVENTS = 400
MOST_ALIVE = 4000


_LEAVES = frozenset((type(None), str, Known, Unknown, Lib, Source))
"""What holds nothing."""


class OutOfSteps(Exception):
    """The bound of the reading is reached; what was found until then stands."""


@dataclass(eq=False)
class Module:
    """A file that is being read, or was."""

    script: Script
    names: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Grown:
    """Something that a list collects in a loop."""

    script: str
    node: ast.Call
    value: Any
    times: int | None
    loops: list[tuple[str, int, int]]


@dataclass(eq=False)
class Frame:
    """A function being followed, or a module."""

    module: Module
    names: dict[str, Any]
    closure: tuple[dict[str, Any], ...] = ()
    returned: list[Any] = field(default_factory=list)
    yielded: list[Any] = field(default_factory=list)
    yields_more: bool = False
    global_names: set[str] = field(default_factory=set)
    home: Any = None
    owner: Any = None


class Reader:
    """One reading. The parts that follow expressions, statements and calls are subclasses."""

    def __init__(self, root: Path | None, folder: Path | None, *, has_gpu: bool = True) -> None:
        self.root = root
        """Nothing outside it is read; None = no other file is."""
        self.folder = folder
        self.has_gpu = has_gpu
        self.modules: dict[Path, Module] = {}
        self.frames: list[Frame] = []
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.steps = 0
        self.depth = 0
        self.calls: list[Any] = []
        self.gradients: list[bool] = [True]
        self.autocast: list[str | None] = [None]
        self.times: list[int | None] = [1]
        self.conditional = 0
        self.called = True
        self.entered: set[int] = set()
        """ids of the function nodes that were followed."""
        self.made: set[int] = set()
        self.commands: list[Any] = []
        """Functions that a command-line library starts."""
        self.arguments: list[str] = []
        """Words of the command line that the script is started with, as far as the caller says."""
        self.complete = False
        """Whether all that runs was read; where it was not, nothing can be called a fit."""
        self.loops: list[tuple[str, int, int]] = []
        """The loops that are being followed, the outermost first: file, first and last line."""
        self.grown: dict[tuple[str, int, int], Grown] = {}
        """What lists collect in loops, by the place of the `append`."""
        self.counted: dict[int, list[str]] = {}
        """By the id of a loop's body the names that it counts with; the trees live as long as the reading."""
        self.imports: dict[tuple[str, str, int], Module | None] = {}
        self.imported = 0
        """Characters of imported modules that were read."""
        self.tokenized: list[Any] = []
        """How many tokens the tokenizers made of a text, call by call."""
        self.traces: list[Any] = []
        """Traces of nnsight that are open."""
        self._by_place: dict[tuple[Any, ...], list[Event]] = {}

    # What the subclasses do.
    def evaluate(self, node: ast.expr | None) -> Any:
        raise NotImplementedError

    def execute(self, body: list[ast.stmt]) -> str | None:
        raise NotImplementedError

    def call(self, function: Any, args: Args) -> Any:
        raise NotImplementedError

    def call_method(self, owner: Any, name: str, args: Args) -> Any:
        raise NotImplementedError

    def attribute(self, owner: Any, name: str, line: int = 0) -> Any:
        raise NotImplementedError

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        raise NotImplementedError

    def items_of(self, value: Any) -> Items:
        raise NotImplementedError

    def assign(self, target: ast.expr, value: Any) -> None:
        raise NotImplementedError

    def block_of_unknown(self, index: Items) -> Any:
        raise NotImplementedError

    def module_named(self, name: str, level: int) -> Module | None:
        raise NotImplementedError

    # Steps and depth.
    def step(self, count: int = 1) -> None:
        """Raises OutOfSteps."""
        self.steps = min(self.steps + count, MOST_STEPS + 1)
        if self.steps > MOST_STEPS:
            raise OutOfSteps

    def charge(self, value: Any, items: int = MADE_A_STEP) -> Any:
        """The same value; one that is large costs a step for so many items. Raises OutOfSteps."""
        kind = type(value)
        if kind is Items or kind is Dict:
            if len(value.items) > items:
                self.step(len(value.items) // items)
        elif kind is Known and type(value.value) is str and len(value.value) > TEXT_A_STEP:
            self.step(len(value.value) // TEXT_A_STEP)
        return value

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    @property
    def with_gradients(self) -> bool:
        return self.gradients[-1]

    @contextmanager
    def repeated(self, times: int | None) -> Iterator[None]:
        """What is read inside runs so many times."""
        outer = self.times[-1]
        self.times.append(None if times is None or outer is None else min(outer * times, 10**12))
        try:
            yield
        finally:
            self.times.pop()

    @contextmanager
    def perhaps(self) -> Iterator[None]:
        """What is read inside may not run."""
        self.conditional += 1
        try:
            yield
        finally:
            self.conditional -= 1

    def note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < 20:
            self.notes.append(text)

    # Names.
    def look_up(self, name: str) -> Any:
        """The value of a name; None where no scope has it."""
        frame = self.frame
        if name in frame.names and name not in frame.global_names:
            return frame.names[name]
        for scope in reversed(frame.closure):
            if name in scope:
                return scope[name]
        return frame.module.names.get(name)

    def store(self, name: str, value: Any) -> None:
        frame = self.frame
        (frame.module.names if name in frame.global_names else frame.names)[name] = value

    # What was found.
    def record(self, kind: Any, call: str, args: Args, fields: dict[str, Any], **more: Any) -> Event | None:
        """Write down a call that takes memory. The same call with the same values again only counts."""
        node, times = args.node, self.times[-1]
        if node is None or len(self.events) >= MOST_EVENTS:
            return None
        path = self.frame.module.script.path
        place = (path, node.lineno, node.col_offset, kind)
        for event in self._by_place.get(place, ()):
            before = event.recorded
            if before.keys() == fields.keys() and all(same(v, fields[k]) for k, v in before.items()):
                event.times = None if event.times is None or times is None else event.times + times
                event.alive = self.alive()
                event.subject = more.get("subject", event.subject)
                event.conditional = event.conditional and self.conditional > 0
                return event
        event = Event(
            kind, call, path, node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0,
            fields, times, called=self.called, conditional=self.conditional > 0, alive=self.alive(),
            recorded=dict(fields), node=node, **more,
        )  # fmt: skip
        self.events.append(event)
        self._by_place.setdefault(place, []).append(event)
        return event

    def alive(self) -> list[Thing]:
        """The things that some name still leads to."""
        waiting: list[Any] = []
        for module in self.modules.values():
            waiting += module.names.values()
        for frame in self.frames:
            waiting += frame.names.values()
            waiting.append(frame.owner)
            for scope in frame.closure[1:]:
                waiting += scope.values()
        seen: set[int] = set()
        found: list[Thing] = []
        while waiting and len(seen) < MOST_ALIVE:
            value = waiting.pop()
            if type(value) in _LEAVES or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, Thing):
                found.append(value)
            waiting += [part for part in parts(value) if type(part) not in _LEAVES]
        return found

    def given(self, name: str, value: Any) -> str:
        """Words for a value that is not known."""
        return f"{name}: {value.why}" if isinstance(value, Unknown) and value.why else name

    def plain(self, value: Any) -> Any:
        return known(value)
