"""Check a script: what is in it, what each moment takes, whether it fits, and what to ask or to change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..advice.answers import Verdict
from ..advice.cards import numbers
from ..advice.place import Place, needed
from ..advice.verdict import verdict_at
from ..asking.profile_file import read_profile
from ..errors import InputError
from ..hardware.compute import Compute
from ..memory.estimate import Estimate
from ..runtime.duration import estimate_time
from ..units import gib
from ..whereabouts import where
from .answer import AliveBeside, Found, Open, Said, ScriptReport, Status
from .events import Event
from .findings import Findings
from .moments import Estimates, Moment, on_host, with_others
from .reading import Reading, read_file, read_text
from .source import Script
from .values import Known
from .workloads import AT_LEAST, RANGED, blocking, changed, plain, unknown_fields

_RANK: dict[str, int] = {"fits": 0, "tight": 1, "unknown": 2, "does_not_fit": 3}
_ELSEWHERE = "it runs on another machine"
_QUIET = ("library", "task")
_MOST_FOUND = 60
_MOST_MOMENTS = 150
_MANY_ROUNDS = 20_000
"""A list that has room for so many rounds is not what a run dies of."""


def check_script(
    script: Path | Script,
    *,
    gpu: str | None = None,
    compute: Compute | None = None,
    python: str | None = None,
    root: Path | None = None,
    arguments: Sequence[str] = (),
    may_trace: bool = True,
    quick: bool = False,
) -> ScriptReport:
    """Read one script and hold it against a device; nothing of it is run.

    Args:
        script: a `.py` file or an `.ipynb` notebook, or one that was parsed from text.
        gpu, compute, python: as in `preflight`.
        root: nothing outside this folder is read; None = the project that the file lies in.
        arguments: the words that a script is started with, for its argparse: `["--model_path", "gpt2"]`.
        may_trace: whether a model that no closed form covers is traced in a Python of this machine.
        quick: the cards of this machine are looked at and not the experiment's Python; nothing is traced.
    Raises:
        InputError: the file cannot be read; a bad GPU name or interpreter.
    """
    place, compute, _, known = where(gpu, compute, python, read_profile(), with_python=not quick)
    has_gpu = place.kind in ("gpu", "unknown") and (gpu or "").strip().lower() != "none"
    if isinstance(script, Path):
        reading = read_file(script, root=root, has_gpu=has_gpu, arguments=arguments)
    else:
        reading = read_text(script, has_gpu=has_gpu)
    return report_of(reading, place, compute, known, python, may_trace=may_trace and not quick)


def report_of(
    reading: Reading,
    place: Place,
    compute: Compute | None,
    known: list[str],
    python: str | None,
    *,
    may_trace: bool = True,
) -> ScriptReport:
    """The report of a script that was read."""
    estimates = Estimates(place, python, reading.root, may_trace=may_trace)
    every = [estimates.moment(event) for event in reading.events[:_MOST_MOMENTS]]
    estimates.collect(every, reading.grown.values())
    scripts = {module.script.path: module.script for module in reading.modules.values()}
    moments, found = _folded([(moment, _found(moment, place, estimates, scripts)) for moment in every])
    counted = [at for at, one in enumerate(found) if one.called] or list(range(len(found)))
    judged = [at for at in counted if found[at].status is not None]
    worst = max(judged, key=lambda at: (_RANK[found[at].status or "fits"], found[at].low_bytes or 0), default=None)
    status: Status = "fits" if worst is None else found[worst].status or "fits"
    left_out = len(reading.events) - sum(1 + one.others for one in found)
    if status in ("fits", "tight") and (not reading.complete or left_out):
        status = "unknown"  # what was not read may take more
    questions = [question for at in counted if (question := _question(found[at], place))]
    problems = {moment.problem: found[at].place for at, moment in reversed(list(enumerate(moments))) if moment.problem}
    notes = [*known, *reading.notes, *(f"{place_}: {problem}" for problem, place_ in problems.items() if place_)]
    least = {why: one.place for one in reversed(found) for why in AT_LEAST.values() if why in one.notes}
    notes += [f"{place_}: {why}" for why, place_ in least.items()]
    if left_out:
        notes.append(f"{left_out} further calls are left out")
    report = ScriptReport(
        files=list(scripts), device=place.name, free_bytes=place.free_bytes, status=status, worst=worst,
        needed_bytes=found[worst].low_bytes if worst is not None else None,
        hours=_hours([moments[at] for at in counted], place), download_bytes=_download(moments), found=found,
        questions=list(dict.fromkeys(questions))[:6], notes=notes, summary="",
    )  # fmt: skip
    pairs = [(moments[at], found[at]) for at in range(len(found))]
    report.findings = Findings(reading, place, compute, estimates, scripts, pairs).collect()
    report.scripts().update(scripts)
    report.summary = summary_of(report)
    return report


def _folded(pairs: list[tuple[Moment, Found]]) -> tuple[list[Moment], list[Found]]:
    """Of one call with many values (a loop over layers) only the variant that takes most."""
    kept: dict[tuple[object, ...], tuple[Moment, Found]] = {}
    for moment, one in pairs:
        model = one.values.get("model")
        shown = str(model.value) if model is not None else ""
        key = (one.file, one.line, moment.event.column, one.kind, shown, one.status, one.called)
        held = kept.get(key)
        if held is None:
            kept[key] = (moment, one)
            continue
        more = (one.low_bytes or 0, one.high_bytes or 0) > (held[1].low_bytes or 0, held[1].high_bytes or 0)
        one.others = held[1].others = held[1].others + 1
        if more:
            kept[key] = (moment, one)
    first = list(kept.values())[:_MOST_FOUND]
    return [moment for moment, _ in first], [one for _, one in first]


def _found(moment: Moment, place: Place, estimates: Estimates, scripts: dict[str, Script]) -> Found:
    event = moment.event
    unknown = {
        name: Open(why=value.why, at_most=value.at_most)
        for name, value in unknown_fields(event).items()
        if name not in _QUIET and not (event.kind == "load" and name in RANGED)
    }
    values = {
        name: Said(value=plain(value), origin=value.source.kind, where=_where(value, scripts.get(event.file)))
        for name, value in event.fields.items()
        if isinstance(value, Known) and name not in _QUIET
    }
    script = scripts.get(event.file)
    one = Found(
        file=event.file, line=event.line, end_line=event.end_line,
        place=script.place(event.line) if script else f"line {event.line}", call=event.call, kind=event.kind,
        workload=moment.workload.model_dump(exclude_defaults=True) | {"task": moment.workload.task}
        if moment.workload else None,
        values=values, unknown=unknown, times=event.times, called=event.called, conditional=event.conditional,
        words="", notes=list(event.notes),
    )  # fmt: skip
    if event.kind == "load_sae":
        pass
    elif event.free:
        one.notes.append(f"{_ELSEWHERE} and takes nothing here")
    elif moment.problem:
        one.status = "unknown"
        one.notes.append(moment.problem)
        one.missing = blocking(event, unknown_fields(event))
    else:
        _judge(one, moment, place, estimates)
        if why := AT_LEAST.get(str(plain(event.fields.get("library")))):
            one.notes.append(why)
            one.largest.clear()
    one.words = words_of(one)
    return one


def _where(value: Known, script: Script | None) -> str:
    source = value.source
    if source.kind == "library_default":
        return f"{source.note}'s default" if source.note else "the library's default"
    at = script.place(source.line) if script and source.line else ""
    return ", ".join(part for part in (source.note, at) if part)


_SPREAD = "device_map splits the layers over "


def _judge(one: Found, moment: Moment, place: Place, estimates: Estimates) -> None:
    """Hold the call against the device, with everything that is alive then."""
    assert moment.least is not None
    if moment.event.kind != "load" and moment.event.subject is not None and on_host(moment.event.subject):
        one.notes.append("the model is on the CPU: this is RAM, not the GPU's memory")
        if place.kind == "gpu":
            one.low_bytes = moment.least.peak.tensors
            return
    if moment.event.kind == "load" and on_host(moment.event.subject) and place.kind == "gpu":
        one.low_bytes = moment.least.peak.tensors
        one.notes.append("it stays on the CPU: this is RAM, not the GPU's memory")
        return
    least = _of_load(moment, with_others(moment.least, moment.beside))
    one.beside = [AliveBeside(what=left.what, bytes=left.bytes, line=left.line) for left in moment.left]
    one.precision = moment.least.precision
    cards = least.workload.get("n_devices", 1)
    if cards > 1 and place.cards is not None:
        on = numbers(card.index for card in place.cards.of(cards))
        one.notes.append(f"{_SPREAD}{on}")
    low = verdict_at(least, place)
    one.low_bytes = needed(least, place)[0]
    if moment.most is None:
        one.status = "does_not_fit" if low.status == "does_not_fit" else "unknown"
    else:
        most = _of_load(moment, with_others(moment.most, moment.beside_at_most))
        high = verdict_at(most, place)
        one.high_bytes = max(needed(most, place)[0], one.low_bytes)
        one.status = _between(low, high, moment.workload is not None and moment.beside == moment.beside_at_most)
    endless = moment.endless
    if endless is not None and one.status in ("fits", "tight") and place.free_bytes is not None:
        rounds = max(0, place.free_bytes - (one.high_bytes or one.low_bytes)) // endless.bytes
        if rounds < _MANY_ROUNDS:
            one.status = "unknown"
            one.largest["rounds"] = rounds
            one.notes.append(f"{endless.what} (line {endless.line}) grows by {gib(endless.bytes)} each round")
    if one.status != "fits" and place.free_bytes is not None:
        _largest(one, moment, place, estimates)


def _of_load(moment: Moment, made: Estimate) -> Estimate:
    """Of a load only the weights are there, not the pass that stands for it."""
    if moment.event.kind != "load":
        return made
    held = sum(c.bytes for c in made.components if c.name in ("weights", "buffers")) + moment.beside
    return made.model_copy(update={"peak": made.peak.model_copy(update={"tensors": held}), "late_bytes": 0})


def _between(low: Verdict, high: Verdict, exact: bool) -> Status:
    if exact or low.status == high.status or low.status == "does_not_fit":
        return low.status
    return "unknown"


def _largest(one: Found, moment: Moment, place: Place, estimates: Estimates) -> None:
    """The largest value of each open or too large size with which it fits, all else as it is."""
    base = moment.workload or moment.least_workload
    if base is None:
        return
    for name in RANGED:
        if getattr(base, name, None) is None or (moment.workload is None and name not in one.unknown):
            continue
        top = one.unknown[name].at_most if name in one.unknown else getattr(base, name)

        most = top or 1 << 17

        def fits(value: int, name: str = name, most: int = most) -> bool:
            try:
                made = estimates.of(changed(base, **{name: value}))
            except InputError:
                return False
            # What a loop has collected grows with it at least in proportion: at the bound it is `beside_at_most`.
            open_ = (moment.beside_at_most - moment.beside) * (value - 1) // max(1, most - 1)
            return verdict_at(with_others(made, moment.beside + open_), place).status == "fits"

        value = _search(fits, most)
        if value is not None:
            one.largest[name] = value


def _search(fits: object, top: int) -> int | None:
    """The largest value up to `top` that fits; None where not even 1 does."""
    assert callable(fits)
    if not fits(1):
        return None
    low, high = 1, 2
    while high <= top and fits(high):
        low, high = high, high * 2
    high = min(high, top + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def words_of(one: Found) -> str:
    """`run_with_cache of gpt2, batch_size 4, seq_len 1024: 12.3 GiB`"""
    said = {name: value.value for name, value in one.values.items()}
    subject = said.get("model") or said.get("release") or ("?" if "model" in one.unknown else "")
    sizes = [f"{name} {said[name]}" for name in (*RANGED, "d_in", "d_sae", "train_batch_size_tokens") if name in said]
    sizes += [
        f"{name} {'<= ' + str(held.at_most) if held.at_most is not None else '?'}"
        for name, held in one.unknown.items() if name in (*RANGED, "d_sae")
    ]  # fmt: skip
    if one.kind == "load":
        sizes = [str(said.get("dtype") or "dtype ?")]
    if one.kind == "activation_cache":
        kept = said.get("names_filter")
        sizes.append("filter ?" if "names_filter" in one.unknown else "every hook" if kept is None else _hooks(kept))
    text = " ".join(part for part in (one.call, f"of {subject}" if subject else "") if part)
    text += f" ({', '.join(sizes)})" if sizes else ""
    if one.times != 1:
        text += f", {one.times} times" if one.times is not None else ", many times"
    if one.low_bytes is None:
        if any(_ELSEWHERE in note for note in one.notes):
            return f"{text}: takes nothing here"
        return f"{text}: " + ("cannot be estimated" if one.status == "unknown" else "counted with what uses it")
    low, high = gib(one.low_bytes), gib(one.high_bytes) if one.high_bytes is not None else None
    size = low if low == high else f"{low} to {high}" if high else f"at least {low}"
    beside = sum(left.bytes for left in one.beside)
    spread = next((note.removeprefix(_SPREAD) for note in one.notes if note.startswith(_SPREAD)), "")
    size += f" on the fullest of {spread}" if spread else ""
    return f"{text}: {size}" + (f", of it {gib(beside)} left by earlier lines" if beside > one.low_bytes // 200 else "")


def _hooks(kept: list[str]) -> str:
    return ", ".join(kept[:2]) + (f" and {len(kept) - 2} more" if len(kept) > 2 else "")


def _question(one: Found, place: Place) -> str | None:
    """What to ask where the answer decides."""
    if "rounds" in one.largest:
        return f"{one.place}: how many rounds does the loop run? A list in it has room for {one.largest['rounds']}."
    if one.status != "unknown" or not one.unknown:
        return None
    where_ = f"{one.place}: {one.call}"
    if one.low_bytes is None:
        names = one.missing
        if not names:
            return None
        return f"{where_}: what is {' and '.join(names)}? ({one.unknown[names[0]].why})"
    ranged = [name for name in one.unknown if name in RANGED]
    if place.free_bytes is None or not ranged:
        return None
    limits = [f"{name} up to {one.largest[name]}" for name in ranged if name in one.largest]
    fits = f" It fits {place.name} with {' or '.join(limits)}." if limits else ""
    return f"{where_}: how large does {' and '.join(ranged)} get?{fits}"


def _hours(moments: list[Moment], place: Place) -> tuple[float, float] | None:
    low = high = 0.0
    for moment in moments:
        event: Event = moment.event
        if moment.workload is None or moment.least is None or event.times is None or event.kind == "load":
            continue
        took = estimate_time(moment.least.work, place.gpu, place.kind, place.cpus)
        low, high = low + took.low * event.times / 3600, high + took.high * event.times / 3600
    return (round(low, 6), round(high, 6)) if high else None


def _download(moments: list[Moment]) -> int | None:
    """Weights to download, each model once; None where none is known."""
    sizes: dict[str, int] = {}
    for moment in moments:
        made, event = moment.least, moment.event
        if made is not None and made.download_bytes and isinstance(name := plain(event.fields.get("model")), str):
            sizes[name] = made.download_bytes
    return sum(sizes.values()) if sizes else None


def summary_of(report: ScriptReport) -> str:
    """One sentence."""
    if not report.found:
        return f"{report.files[0]}: nothing was found that takes a GPU's memory."
    free = f" ({gib(report.free_bytes)} free)" if report.free_bytes is not None else ""
    words = {
        "fits": f"Fits {report.device}{free}",
        "tight": f"Tight on {report.device}{free}",
        "does_not_fit": f"Does not fit {report.device}{free}",
        "unknown": f"Cannot say whether it fits {report.device}{free}",
    }[report.status]
    if report.worst is None:
        return f"{words}: nothing in it takes the GPU's memory."
    worst = report.found[report.worst]
    return f"{words}; the worst moment is {worst.place}: {worst.words}."
