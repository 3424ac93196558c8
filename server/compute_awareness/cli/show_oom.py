"""An explained out-of-memory message for a person."""

from __future__ import annotations

from ..advice.answers import Advice
from ..oom.explain import OomReport
from ..units import gib
from .show import bullets, heading, pairs, say, screen, table
from .show_preflight import show_advice


def show_oom(report: OomReport) -> None:
    to = screen()
    say(to, report.summary, "bold")
    message = report.message
    heading(to, "What the message says")
    sizes = [
        ("asked for", message.requested_bytes),
        ("capacity", message.capacity_bytes),
        ("free", message.free_bytes),
        ("this process", message.process_bytes),
        ("cap", message.allowed_bytes),
        ("live tensors", message.allocated_bytes),
        ("reserved, unused", message.cached_bytes),
        ("beside torch", message.other_bytes),
    ]
    rows: list[tuple[str, object]] = [(name, gib(size)) for name, size in sizes if size is not None]
    rows += [(f"process {process.pid}", gib(process.used_bytes)) for process in message.processes]
    if message.phase != "unknown":
        rows.append(("phase", message.phase.replace("_", " ")))
    if message.user_frame:
        rows.append(("your line", f"{message.user_frame.file}:{message.user_frame.line}"))
    if report.expected_bytes is not None:
        rows.append(("expected tensors", f"{gib(report.expected_bytes)} at the workload's peak"))
    pairs(to, rows)
    heading(to, "Why")
    bullets(to, [f"{f.cause} {'Cure: ' + f.cure + '.' if f.cure else ''}".rstrip() for f in report.findings])
    if report.matches:
        heading(to, "Tensors of that size")
        table(
            to,
            ("tensor", "shape", "if"),
            [
                (m.tensor, m.shape, ", ".join(f"{k} is {v}" for k, v in m.instead.items()) or "as given")
                for m in report.matches
            ],
        )
    show_advice(to, Advice(changes=report.changes))
