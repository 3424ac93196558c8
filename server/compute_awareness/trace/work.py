"""The work of a traced run, from what its meter counted in each part of it: passes, steps of decoding, patched runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from ..memory.estimate import WorkPart
from ..memory.optimizer import state_bytes
from ..runtime import training
from ..runtime.work import NOTHING, Work, part
from ..workload.fields import DTYPE_BYTES
from .extrapolate import Trace

COUNTED = "operations counted in the trace, as FlopCounterMode counts them"
BETWEEN = "the steps between the traced ones are taken to lie on straight lines"

Counts = Mapping[str, Counter[str]]
"""What each part of the run did: flops, moved, activations and kernels."""


def work_of(given: Mapping[str, Any], trace: Trace, patches: int) -> tuple[list[WorkPart], str]:
    """What the run does, and a word on how it was counted.

    Args:
        given: the workload's fields.
        patches: patched passes of one batch of activation patching.
    """
    task, dtype, counts = given["task"], given["dtype"], trace.work
    if task == "generation" and counts:
        return _generation(counts, given["new_tokens"], dtype)
    if counts:
        once, counted = _once(given, counts, patches), COUNTED
    else:
        once, counted = _by_parameters(given, trace, patches)
    if task == "training":
        per_pass = given["batch_size"] * given["seq_len"]
        passes, steps, said = training.length(given.get("training_tokens"), per_pass, 1)
        how = given.get("optimizer") or "adamw"
        elements = [(trace.parameters, DTYPE_BYTES[dtype])]
        update = training.optimizer_step(how, elements, state_bytes(how, elements))
        optimizer = part("optimizer step", update, dtype, steps)
        return [part(training.PASS, once, dtype, passes), optimizer], f"{counted}; {said}"
    if task == "patching":
        batches = -(-(given.get("n_prompts") or given["batch_size"]) // given["batch_size"])
        return [part(f"{given['method'].replace('_', ' ')} of a batch of prompts", once, dtype, batches)], counted
    return [part("forward pass", once, dtype)], counted


def _once(given: Mapping[str, Any], counts: Counts, patches: int) -> Work:
    """One pass, one step without its optimizer, or one batch of patching."""
    if given["task"] == "training":  # the second of two steps
        return _added([counts["forward 2"], counts["backward 2"]])
    if given.get("method") == "activation_patching":  # the last traced patched run stands for all
        last = max(name for name in counts if name.startswith("patched "))
        return _added([counts["clean"]]) + _added([counts[last]]) * patches
    return _added(counts.values())


def _by_parameters(given: Mapping[str, Any], trace: Trace, patches: int) -> tuple[Work, str]:
    """The rule of 2 operations per parameter and token, where the worker's torch cannot count."""
    tokens = given["batch_size"] * (given["seq_len"] + given.get("new_tokens", 0))
    read = trace.parameters * DTYPE_BYTES[given["dtype"]]
    times = {"training": 3, "patching": 4}.get(given["task"], 1)
    if given.get("method") == "activation_patching":
        times = 1 + patches
    reads = times * max(1, given.get("new_tokens", 0))
    return Work(times * 2 * trace.parameters * tokens, reads * read), (
        "operations taken as 2 per parameter and token: attention scores are left out, idle experts counted"
    )


def _added(counts: Iterable[Counter[str]]) -> Work:
    works = (Work(one["flops"], one["moved"], one["activations"], one["kernels"]) for one in counts)
    return sum(works, NOTHING)


def _generation(counts: Counts, new_tokens: int, dtype: str) -> tuple[list[WorkPart], str]:
    """One call of generate, and how it was counted: the prompt's pass, and a pass for each further token.

    The worker traces the first steps and the last ones, without a cache the last ones alone.
    """
    steps = {int(name.removeprefix("step ")): one for name, one in counts.items() if name.startswith("step ")}
    first, smooth = _figures(steps, 1, 1)
    parts = [part("the prompt's pass", first, dtype)]
    if new_tokens > 1:
        cached = {number: one for number, one in steps.items() if number > 1}
        rest, smooth = _figures(cached if 1 in steps else steps, 2, new_tokens)
        parts.append(part(f"{new_tokens - 1} passes, one for each further token", rest, dtype))
    return parts, COUNTED if smooth else f"{COUNTED}; {BETWEEN}"


def _figures(steps: Mapping[int, Counter[str]], first: int, last: int) -> tuple[Work, bool]:
    """The work of the steps from `first` to `last`, and whether the operations of all lie on one curve."""
    sums: Counter[str] = Counter()
    smooth = False
    for name in ("kernels", "activations", "moved", "flops"):
        sums[name], smooth = series({number: one[name] for number, one in steps.items()}, first, last)
    return _added([sums]), smooth


def series(known: Mapping[int, int], first: int, last: int) -> tuple[int, bool]:
    """The sum of a figure over the steps from `first` to `last`, and whether all that is known lies on one curve.

    The curve is a parabola: of passes over the whole sequence, whose scores are its square; a line where only keys
    grow. Else two lines that meet in a step (where windows of one size get full; two sizes look the same from both
    ends), or straight lines between the known steps.
    """
    numbers = sorted(known)
    if all(number in known for number in range(first, last + 1)):
        return sum(known[number] for number in range(first, last + 1)), True
    curve = _parabola(known, numbers[-1] - 2)
    if all(curve(number) == value for number, value in known.items()):
        start, rise = curve(first), curve(first + 1) - curve(first)
        bend = curve(first + 2) - 2 * curve(first + 1) + start
        n = last - first + 1
        return n * start + n * (n - 1) // 2 * rise + n * (n - 1) * (n - 2) // 6 * bend, True
    low, high = numbers[0], numbers[-1]
    rises = known[low + 1] - known[low], known[high] - known[high - 1]
    if low <= first and rises[0] != rises[1]:
        meets, rest = divmod(known[high] - known[low] + rises[0] * low - rises[1] * high, rises[0] - rises[1])
        corner = known[low] + rises[0] * (meets - low)
        if (
            not rest
            and low <= meets <= high
            and all(value == corner + rises[number > meets] * (number - meets) for number, value in known.items())
        ):
            return _between({**known, meets: corner}, first, last), False
    before = {first: known[low] - rises[0] * (low - first)} if first < low else {}
    return _between({**known, **before}, first, last), False


def _parabola(known: Mapping[int, int], at: int) -> Callable[[int], int]:
    """The integer curve through the three values from step `at` on."""
    start, rise = known[at], known[at + 1] - known[at]
    bend = known[at + 2] - 2 * known[at + 1] + start

    def value(number: int) -> int:
        steps = number - at
        return start + steps * rise + steps * (steps - 1) // 2 * bend

    return value


def _between(known: Mapping[int, int], first: int, last: int) -> int:
    """The sum over the steps from `first` to `last` on straight lines between known ones, which hold both ends."""
    numbers = sorted(number for number in known if first <= number <= last)
    total = known[numbers[0]]
    for before, after in pairwise(numbers):
        steps = after - before
        total += (known[before] * (steps - 1) + known[after] * (steps + 1)) // 2
    return total
