"""Which place a run will have: the card that is named, the machine that is seen, or what the user's profile tells."""

from __future__ import annotations

import datetime

from .advice.place import UNKNOWN, Place, named_place, seen_place
from .asking.known import card_by_default, card_by_name
from .asking.profile import Profile
from .hardware.compute import Compute


def where(
    gpu: str | None, compute: Compute | None, python: str | None, profile: Profile, *, with_python: bool = True
) -> tuple[Place, Compute | None, str | None, list[str]]:
    """The place that a run will have: the one named, seen, or told by the user's profile.

    Args and errors as in `preflight`.
        with_python: whether a look at this machine looks into the experiment's Python too, which takes longer.
    Returns:
        The place, what was seen, the card's name where one is named, and what came from the profile.
    """
    today = datetime.date.today()
    gpu, known = card_by_name(gpu, profile, today)
    elsewhere = compute is not None  # a report made elsewhere is an answer already
    place, compute = place_of(gpu, compute, python, with_python=with_python)
    if not elsewhere and (gpu is None or place.kind == "unknown"):
        gpu, more = card_by_default(gpu, compute, profile, today)
        known += more
        if gpu is not None and place.kind != "gpu":
            place, compute = place_of(gpu, compute, None)
    known += [f"the profile {problem}" for problem in profile.problems]
    return place, compute, gpu, known


def place_of(
    gpu: str | None, compute: Compute | None, python: str | None, *, with_python: bool = True
) -> tuple[Place, Compute | None]:
    """The named card, or what `compute` or a look at this machine shows. Raises InputError."""
    from .advice import gpus

    choice = (gpu or "").strip().lower()
    if choice == "unknown":
        return UNKNOWN, compute
    if gpu is not None and choice != "none":
        request = gpus.find_gpu(gpu)
        if compute is None and python is not None:
            compute = _look(python)
        return named_place(request), compute
    compute = compute or _look(python, with_python)
    return seen_place(compute, use_gpu=choice != "none"), compute


def _look(python: str | None, with_python: bool = True) -> Compute:
    from .hardware.detect import detect

    return detect(python, with_python=with_python)
