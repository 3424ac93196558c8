"""Which card the profile says a run will have, so that nobody is asked twice."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from ..advice.cost import Price
from ..errors import InputError
from ..hardware.compute import Compute
from .profile import Machine, Profile, age


class Known(NamedTuple):
    """The card to count with (a `--gpu` value; None = what is detected), and what to say about where it is from."""

    gpu: str | None
    notes: list[str]


def card_by_name(gpu: str | None, profile: Profile, today: datetime.date) -> Known:
    """`gpu` with a machine of the profile replaced by its card.

    Raises:
        InputError: a machine whose card the profile does not know.
    """
    found = None if gpu is None else profile.machine(gpu)
    if found is None:
        return Known(gpu, [])
    name, machine = found
    if machine.gpu is None:
        raise InputError(
            f"the profile does not say which GPU {name!r} has; add it with "
            f'`compute-awareness profile set {name} --gpu "RTX 4090"`'
        )
    return Known(machine.gpu, [_from(name, machine, today)])


def card_by_default(gpu: str | None, compute: Compute | None, profile: Profile, today: datetime.date) -> Known:
    """The default machine's card where no card is known otherwise; a contradiction where one is seen.

    `gpu` is None or "unknown"; `compute` is what was seen on this machine, None if nothing was looked at.
    """
    found = profile.default_machine()
    if found is None:
        return Known(gpu, [])
    name, machine = found
    card = machine.gpu
    if card is None:
        return Known(gpu, [])
    seen = compute.usable() if compute is not None and gpu is None else []
    if not seen:
        return Known(card, [_from(name, machine, today)])
    if machine.host or machine.where:
        return Known(gpu, [])  # another machine: what is seen here says nothing about it
    if _same_card(card, seen[0].gpu_id, len(seen)):
        return Known(gpu, [])
    said = f"the profile says {name} has {card} ({age(machine.saved, today)}), but {seen[0].name} is seen here"
    return Known(gpu, [f"{said}: what is seen is counted with; correct it with `compute-awareness profile`"])


def price_told(asked_for: str | None, counted: str | None, profile: Profile) -> Price | None:
    """What the profile says an hour costs on the machine that is counted with; None where it says nothing.

    `asked_for` is the caller's `gpu`, `counted` the card that came of it and of the profile.
    """
    machine = None if asked_for is None else profile.machine(asked_for)
    if machine is None and counted is not None and counted != asked_for:
        machine = profile.default_machine()
    if machine is None or machine[1].usd_per_hour is None:
        return None
    name, told = machine
    return Price(told.usd_per_hour or 0.0, told.gpu or name, name, told.saved.isoformat())


def _same_card(said: str, gpu_id: str | None, count: int) -> bool:
    from ..advice.gpus import find_gpu

    try:
        request = find_gpu(said)
    except InputError:
        return False
    return gpu_id is None or (request.gpu.id == gpu_id and request.count <= count)


def _from(name: str, machine: Machine, today: datetime.date) -> str:
    return f"{name} has {machine.gpu}: from the profile, {age(machine.saved, today)}"
