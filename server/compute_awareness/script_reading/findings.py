"""What to change in a script: each finding has its line, its cause, the bytes before and after, and an edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..advice.place import Place, needed
from ..errors import InputError
from ..hardware.compute import Compute
from ..units import GIB
from . import edits, findings_activations, findings_models, findings_sizes
from .answer import Finding, Found
from .events import Event
from .moments import Estimates, Moment, with_others
from .reading import Reading
from .source import Script
from .workloads import changed

_OF_A_MOMENT = (
    findings_activations.full_cache, findings_activations.not_kept, findings_models.float32,
    findings_activations.attn_result, findings_models.twice, findings_sizes.buffer, findings_sizes.batch,
    findings_sizes.evaluation, findings_models.no_gpu,
)  # fmt: skip
_OF_THE_SCRIPT = (findings_activations.gradients, findings_activations.growing, findings_models.disk)


@dataclass
class Findings:
    """Collects what is found in one script."""

    WORTH: ClassVar[int] = GIB // 4
    """A saving smaller than this is not worth a line, unless the script does not fit."""

    reading: Reading
    place: Place
    compute: Compute | None
    estimates: Estimates
    scripts: dict[str, Script]
    pairs: list[tuple[Moment, Found]]
    found: list[Finding] = field(default_factory=list)

    def collect(self) -> list[Finding]:
        """All findings, the worst first, then by line."""
        for moment, one in self.pairs:
            if moment.event.free or moment.problem:
                continue
            for rule in _OF_A_MOMENT:
                rule(self, moment, one)
        for rule in _OF_THE_SCRIPT:
            rule(self)
        rank = {"error": 0, "warning": 1, "note": 2}
        return sorted(self.found, key=lambda one: (rank[one.severity], one.file, one.line))[:20]

    def bytes_with(self, moment: Moment, at: int = 0, **fields: Any) -> int | None:
        """Device bytes at the moment with these fields of the workload; None where there is no such estimate.

        `at` 0: expected, 2: at the most, what comes late in the run with it.
        """
        base = moment.workload or moment.most_workload or moment.least_workload
        if base is None:
            return None
        try:
            made = self.estimates.of(changed(base, **fields))
        except InputError:
            return None
        return needed(with_others(made, self.estimates.beside_with(moment, made)), self.place)[at]

    def now(self, moment: Moment) -> int | None:
        return self.bytes_with(moment)

    def add(
        self, identity: str, severity: Any, event: Event, cause: str, *, now: int | None = None,
        after: int | None = None, changes: list[edits.Edit] | None = None, effect: str = "", line: int | None = None,
    ) -> None:  # fmt: skip
        script = self.scripts.get(event.file)
        at = line or event.line
        shown = edits.diff(script, changes) if script and changes else ""
        finding = Finding(
            id=identity, severity=severity, file=event.file, line=at, end_line=max(at, event.end_line),
            place=script.place(at) if script else f"line {at}", cause=cause, bytes_now=now, bytes_after=after,
            diff=shown, effect=effect,
        )  # fmt: skip
        finding.edits().extend(changes or [])
        self.found.append(finding)

    def worth(self, one: Found, now: int | None, after: int | None) -> bool:
        if now is None or after is None or after >= now:
            return False
        large = now - after >= max(self.WORTH, now // 100)  # 1 GiB of 500 is not what helps
        return large or (one.status not in ("fits", None) and now - after >= now // 100)
