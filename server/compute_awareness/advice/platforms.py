"""Where GPUs can be rented: the platform table, prices with their dates, and what fits a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, nearest
from ..units import duration
from .answers import PlatformChoice
from .gpu_table import all_gpus

Tier = Literal["free", "community", "secure", "on_demand", "marketplace", "spot"]
Count = Annotated[int, Field(ge=1)]


class Offer(BaseModel):
    """One GPU at one price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_id: str = Field(description="Key of the GPU table")
    usd_per_gpu_hour: float = Field(ge=0, description="USD per GPU and hour, without tax; 0 = free")
    date: str = Field(description="When the price was read: year, year-month or year-month-day; or live, with the time")
    tier: Tier
    count: Count = Field(description="GPUs in the smallest machine of this offer")
    max_count: Count = Field(description="GPUs in the largest")
    request: str = Field(description="What the platform calls it")
    note: str = ""
    session_limit_hours: float | None = Field(None, description="Longest run of this offer; null = the platform's")


class Platform(BaseModel):
    """One place that rents GPUs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    kind: str
    billing: str
    session_limit_hours: float | None = Field(description="Longest run; null = none that is known")
    default_timeout_hours: float | None = Field(description="A run ends after this unless another limit is given")
    how: str = Field(description="How to start a run there; {request} stands for the platform's name of the GPU")
    limits: dict[str, str]
    launch: dict[str, str]
    gotchas: tuple[str, ...]
    sources: tuple[str, ...]
    offers: tuple[Offer, ...]


@dataclass(frozen=True)
class Deal:
    """An offer taken for a number of GPUs. `usd_per_hour` is for the whole machine that must be rented."""

    platform: Platform
    offer: Offer
    gpus: int
    usd_per_hour: float

    @property
    def session_limit_hours(self) -> float | None:
        limits = [h for h in (self.offer.session_limit_hours, self.platform.session_limit_hours) if h is not None]
        return min(limits, default=None)


@cache
def all_platforms() -> tuple[Platform, ...]:
    """Every platform of the table, in its order."""
    rows = json.loads((Path(__file__).parents[1] / "facts" / "platforms.json").read_text(encoding="utf-8"))
    return tuple(Platform.model_validate(row) for row in rows["platforms"])


_PRICES: ContextVar[tuple[Platform, ...] | None] = ContextVar("prices", default=None)


def current_platforms() -> tuple[Platform, ...]:
    """The platforms with the prices that count now: the table's, or within `prices_of` those given there."""
    return _PRICES.get() or all_platforms()


@contextmanager
def prices_of(platforms: tuple[Platform, ...]) -> Iterator[None]:
    """Within it these platforms' prices count, in this thread and task only."""
    token = _PRICES.set(platforms)
    try:
        yield
    finally:
        _PRICES.reset(token)


def platform(name: str) -> Platform:
    """The platform of that id or name, in any case.

    Raises:
        InputError: unknown; lists the nearest names, or all of them.
    """
    wanted = _plain(name)
    for one in current_platforms():
        if wanted in (_plain(one.id), _plain(one.name)):
            return one
    ids = {p.id: p.id for p in all_platforms()} | {p.name: p.id for p in all_platforms()}
    close = list(dict.fromkeys(ids[hit] for hit in nearest(name, ids)))
    hint = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(p.id for p in all_platforms())}"
    raise InputError(f"unknown platform {name[:80]!r}; {hint}")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _deals(gpu_ids: Sequence[str], count: int, seconds: float) -> list[Deal]:
    wanted = set(gpu_ids)
    deals: list[Deal] = []
    for place in current_platforms():
        for offer in place.offers:
            if offer.gpu_id not in wanted or count > offer.max_count:
                continue
            # A machine of eight is paid in full even if the run uses one of its cards.
            rented = max(count, offer.count)
            deal = Deal(place, offer, rented, round(offer.usd_per_gpu_hour * rented, 4))
            limit = deal.session_limit_hours
            if limit is None or seconds <= limit * 3600:
                deals.append(deal)
    return sorted(deals, key=lambda d: d.usd_per_hour)


def cheapest(
    gpu_ids: Sequence[str], count: int = 1, among: Sequence[str] | None = None, *, paid: bool = False
) -> Deal | None:
    """The cheapest known way to have `count` of any of these GPUs in one machine, or None.

    Demo quotas, whose sessions are shorter than an hour, are left out; session limits are not looked at otherwise.
    `among`: ids of the platforms that are considered; None = all. `paid` leaves out what is free.
    """
    for deal in _deals(gpu_ids, count, 3600):
        if (among is None or deal.platform.id in among) and not (paid and deal.usd_per_hour == 0):
            return deal
    return None


def where_to_rent(gpu_ids: Sequence[str], seconds_high: float, limit: int = 3, count: int = 1) -> list[PlatformChoice]:
    """Places to run `seconds_high` seconds on `count` of any of these GPUs, cheapest first, each place once.

    A place whose longest session is shorter than the run is left out, as are quotas of less than a quarter of an hour.
    Prices are for the whole machine, with their dates; nothing is asked online here.
    """
    choices: dict[str, PlatformChoice] = {}
    for deal in _deals(gpu_ids, count, max(seconds_high, 900)):
        if deal.platform.id not in choices:
            choices[deal.platform.id] = _as_choice(deal, seconds_high)
    return list(choices.values())[:limit]


def _as_choice(deal: Deal, seconds: float) -> PlatformChoice:
    place, offer = deal.platform, deal.offer
    names = {gpu.id: gpu.name for gpu in all_gpus()}
    gotchas = list(place.gotchas)
    if offer.note:
        gotchas.insert(0, offer.note)
    default = place.default_timeout_hours
    if default is not None and seconds > default * 3600:
        gotchas.insert(0, f"the run may take {duration(seconds)}, the timeout is {duration(default * 3600)} unless set")
    longest = deal.session_limit_hours
    return PlatformChoice(
        platform=place.name,
        gpu=(f"{deal.gpus} x " if deal.gpus > 1 else "") + names[offer.gpu_id],
        usd_per_hour=deal.usd_per_hour,
        price_date=offer.date,
        session_limit=f"at most {duration(longest * 3600)}" if longest is not None else "",
        how=place.how.replace("{request}", offer.request),
        gotchas=gotchas,
    )
