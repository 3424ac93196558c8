"""A preflight and a recommendation for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel

from ..advice.answers import Advice, Change, GpuChoice, PlatformChoice
from ..asking.question import Question
from ..picture_of import STATUS as STATUS_WORDS
from ..picture_of import workload_line
from ..units import gib, span
from .memory_bar import show_memory
from .show import bullets, code, heading, put, say, screen, table, text
from .show_estimate import show_notes, time_words

if TYPE_CHECKING:
    from ..preflight import Preflight, Recommendation

_COLOUR = {"fits": "green", "tight": "yellow", "does_not_fit": "red", "unknown": "magenta"}
STATUS = {status: (word, f"bold {_COLOUR[status]}") for status, word in STATUS_WORDS.items()}
EFFECT = {
    "equivalent": "same result",
    "numerically_different": "other rounding",
    "different_experiment": "another experiment",
}
DECISION = {"ask": "Ask the user", "tell": "Tell the user, and go on", "silent": "No need to ask"}

_WORTH_A_PRICE_S = 600
"""Of a shorter run nobody asks for time and cost."""


def show_preflight(answer: Preflight) -> None:
    to = screen()
    verdict = answer.verdict
    word, style = STATUS[verdict.status]
    say(to, workload_line(answer.estimate.workload), "bold")
    to.print(text(word, style).append(text(f"  {verdict.why}")), soft_wrap=not to.is_terminal)
    for known in answer.known:
        say(to, known)
    heading(to, "Memory at the peak")
    show_memory(to, answer.estimate, verdict.needed_bytes, verdict.free_bytes, verdict.device)
    if took := time_words(answer.estimate):
        say(to, f"  Time: {took}")
    show_notes(to, answer.estimate)
    show_advice(to, answer.advice)
    to.print()
    show_question(to, answer.asking)


def show_recommendation(answer: Recommendation) -> None:
    to = screen()
    say(to, workload_line(answer.estimate.workload), "bold")
    say(to, answer.summary)
    show_advice(to, answer.advice)
    if answer.prices:
        say(to, f"  {answer.prices}")


def show_advice(to: Console, advice: Advice) -> None:
    if advice.solutions:
        heading(to, "What makes it fit, the least change first")
        rows = [(c.title, gib(c.peak_after), _longer(c), EFFECT[c.effect]) for c in advice.solutions]
        table(to, ("change", "then", "time", "effect"), rows, right=(1,))
        _show_code(to, advice.solutions[:1])
    if advice.largest:
        values = " or ".join(f"{name} {value}" for name, value in advice.largest.items())
        say(to, f"  All else as it is, the largest that fits: {values}.")
    useful = [c for c in advice.changes if c.applies]
    if useful:
        heading(to, "Changes that save memory")
        rows = [
            (c.title, gib(c.saving), gib(c.peak_after), {True: "yes", False: "no", None: "?"}[c.fits], EFFECT[c.effect])
            for c in useful
        ]
        table(to, ("change", "saves", "then", "fits", "effect"), rows, right=(1, 2))
        if not advice.solutions:
            _show_code(to, useful)
    if advice.paths:
        heading(to, "On this cluster, the shortest way first")
        for path in advice.paths:
            say(to, f"  {path.interactive}")
            bullets(to, [path.why, *path.cautions])
    long = any((choice.seconds_high or 0) > _WORTH_A_PRICE_S for choice in advice.gpus)
    if advice.gpus:
        heading(to, "GPUs that fit")
        columns = ("GPU", "usable", "to spare", "price", "run")[: 5 if long else 4]
        table(to, columns, (_gpu_row(choice)[: len(columns)] for choice in advice.gpus), right=(1, 2))
        bullets(to, (f"{g.count} x {g.name}: {g.note}" for g in advice.gpus if g.count > 1 and g.note))
    if advice.platforms:
        heading(to, "Where to rent one")
        columns = ("platform", "GPU", "USD/h", "price of", "limits", "run, USD")[: 6 if long else 5]
        table(to, columns, (_platform_row(choice)[: len(columns)] for choice in advice.platforms), right=(2,))
        bullets(to, (f"{p.platform}: {p.how}" for p in advice.platforms if p.how))
        if long:
            bullets(to, (f"{p.platform}: {gotcha}" for p in advice.platforms for gotcha in p.gotchas), "!")


def _longer(change: Change) -> str:
    return "as before" if change.slowdown == 1 else f"about {change.slowdown:.3g} times"


def _show_code(to: Console, changes: list[Change]) -> None:
    """The code of the change to make first: one that makes it fit and keeps the result, else the nearest to that."""
    best = min(changes, key=lambda c: (not c.fits, c.effect != "equivalent", 0 if c.fits else -c.saving))
    if best.code:
        heading(to, f"{best.title}:")
        code(to, best.code)
    details = [d for d in (best.effect_detail, best.cost and f"cost: {best.cost}") if d]
    bullets(to, details)


def _gpu_row(choice: GpuChoice) -> tuple[object, ...]:
    price = "no price known"
    if choice.usd_per_hour is not None:
        price = f"{choice.usd_per_hour:.2f} USD/h, {choice.price_platform} ({choice.price_date})"
    name = choice.name if choice.count == 1 else f"{choice.count} x {choice.name}"
    return name, gib(choice.usable_bytes), gib(choice.headroom_bytes), price, _run(choice)


def _run(choice: GpuChoice) -> str:
    """How long the run takes on the card, and what that costs where it is more than cents."""
    if choice.seconds_low is None or choice.seconds_high is None:
        return ""
    cost = f", {choice.usd_low:.2f} to {choice.usd_high:.2f} USD" if choice.usd_low and choice.usd_high else ""
    return f"{span(choice.seconds_low, choice.seconds_high)}{cost}"


def _platform_row(choice: PlatformChoice) -> tuple[object, ...]:
    price = "?" if choice.usd_per_hour is None else f"{choice.usd_per_hour:.2f}"
    return choice.platform, choice.gpu, price, choice.price_date, choice.session_limit, _cost(choice)


def _cost(choice: PlatformChoice) -> str:
    if choice.usd_high < 0.01:
        return "free" if choice.usd_per_hour == 0 else "under 0.01"
    return f"{choice.usd_low:.2f} to {choice.usd_high:.2f}"


def show_question(to: Console, asking: Question) -> None:
    """The decision, and in a frame the words to use."""
    title = DECISION[asking.decision]
    if asking.text:
        put(to, Panel(text(asking.text), title=text(title, "bold"), title_align="left", expand=True))
    else:
        say(to, title, "bold")
    because = f"{asking.reason} [{', '.join(asking.triggers)}]" if asking.triggers else asking.reason
    if because:
        say(to, because, "dim")
