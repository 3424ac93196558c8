"""Detection of this machine, or of another one by name, as the report that the rest of the program reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from .probe.examine import examine

if TYPE_CHECKING:
    from .compute import Compute


def detect(
    python: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    root: Path = Path("/"),
    with_python: bool = True,
) -> Compute:
    """What compute there is on this machine, memory in bytes. Arguments and errors as in `probe.examine.examine`."""
    found: dict[str, Any] = {}
    failed: list[BaseException] = []

    def look() -> None:
        try:
            found.update(examine(python, environ, cwd, root, with_python))
        except BaseException as error:
            failed.append(error)

    looking = Thread(target=copy_context().run, args=(look,), daemon=True)
    looking.start()
    # pydantic's import takes as long as the look, which mostly waits for other programs.
    from .compute import Compute

    looking.join()
    if failed:
        raise failed[0]
    compute = Compute.model_construct(**found)
    if compute.clusters:
        from .cluster.cards import with_cards

        compute.clusters = with_cards(compute.clusters)
    return compute


def detect_at(host: str | None, python: str | None = None, *, stop: Event | None = None) -> Compute:
    """What compute there is on `host` (see `remote.detect_on`, also for `stop` and the errors); None = here."""
    if host is None:
        return detect(python)
    from .remote import detect_on

    return detect_on(host, python, stop=stop)
