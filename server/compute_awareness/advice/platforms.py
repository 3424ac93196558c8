"""Where GPUs can be rented: the platform table, prices with their dates, and what fits a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import InputError, nearest
from ..units import GIB, duration
from .answers import PlatformChoice
from .gpu_table import all_gpus

Tier = Literal["free", "community", "secure", "on_demand", "marketplace", "spot"]
Count = Annotated[int, Field(ge=1)]
_SETUP_S = 900
_LONG_SHARE = 0.5
"""Of a session: a run that may take longer than this should be able to go on in another."""


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


class Gotcha(BaseModel):
    """What goes wrong on a platform, and for which runs it matters: those that meet every condition given.

    In the table a plain string is a gotcha that always matters. `gpus` empty: it matters to nobody who takes a card
    from here, only to who reads about the platform.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    min_hours: float = Field(0, description="Only runs that may take longer")
    min_download_gib: float = Field(0, description="Only where as much is downloaded")
    gpus: tuple[str, ...] | None = None
    tiers: tuple[Tier, ...] | None = None
    dtypes: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return {"text": data} if isinstance(data, str) else data

    def matters(self, offer: Offer, needs: Needs, seconds: float) -> bool:
        return (
            seconds >= self.min_hours * 3600
            and needs.download_bytes >= self.min_download_gib * GIB
            and (self.gpus is None or offer.gpu_id in self.gpus)
            and (self.tiers is None or offer.tier in self.tiers)
            and (self.dtypes is None or needs.dtype in self.dtypes)
        )


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
    gotchas: tuple[Gotcha, ...]
    sources: tuple[str, ...]
    offers: tuple[Offer, ...]


@dataclass(frozen=True)
class Needs:
    """What of a run decides which gotchas matter."""

    dtype: str = "float32"
    download_bytes: int = 0


Seconds = float | Callable[[str], tuple[float, float]]
"""How long a run takes, at the least and at the most, on the card of an id; one number = so long anywhere."""


def _on(seconds: Seconds, gpu_id: str) -> tuple[float, float]:
    return seconds(gpu_id) if callable(seconds) else (seconds, seconds)


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


def _deals(gpu_ids: Sequence[str], count: int, seconds: Seconds, shortest: float = 0) -> list[Deal]:
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
            if limit is None or max(_on(seconds, offer.gpu_id)[1], shortest) <= limit * 3600:
                deals.append(deal)

    def cost(deal: Deal) -> tuple[float, float]:
        """Of a run of some minutes the price per hour decides: setting up takes as long."""
        return deal.usd_per_hour * max(_on(seconds, deal.offer.gpu_id)[1], _SETUP_S), deal.usd_per_hour

    return sorted(deals, key=cost)


def cheapest(
    gpu_ids: Sequence[str],
    count: int = 1,
    among: Sequence[str] | None = None,
    seconds: float = 3600,
    *,
    paid: bool = False,
) -> Deal | None:
    """The cheapest known way to have `count` of any of these GPUs in one machine, or None.

    Places whose sessions are shorter than `seconds`, demo quotas among them, are left out.
    `among`: ids of the platforms that are considered; None = all. `paid` leaves out what is free.
    """
    for deal in _deals(gpu_ids, count, seconds):
        if (among is None or deal.platform.id in among) and not (paid and deal.usd_per_hour == 0):
            return deal
    return None


def where_to_rent(
    gpu_ids: Sequence[str], seconds: Seconds, limit: int = 3, count: int = 1, needs: Needs | None = None
) -> list[PlatformChoice]:
    """Places for a run on `count` of any of these GPUs, the cheapest run first, each place once.

    A run costs the price of the whole machine times its duration on that card. A place whose longest session is shorter
    than the run may take is left out, as are quotas of less than a quarter of an hour. Prices have their dates;
    nothing is asked online here.
    """
    choices: dict[str, PlatformChoice] = {}
    for deal in _deals(gpu_ids, count, seconds, 900):
        if deal.platform.id not in choices:
            choices[deal.platform.id] = _as_choice(deal, _on(seconds, deal.offer.gpu_id), needs or Needs())
    return list(choices.values())[:limit]


def _as_choice(deal: Deal, seconds: tuple[float, float], needs: Needs) -> PlatformChoice:
    place, offer = deal.platform, deal.offer
    names = {gpu.id: gpu.name for gpu in all_gpus()}
    low, high = seconds
    gotchas = [gotcha.text for gotcha in place.gotchas if gotcha.matters(offer, needs, high)]
    if offer.note:
        gotchas.insert(0, offer.note)
    longest = deal.session_limit_hours
    if longest is not None and high > _LONG_SHARE * longest * 3600:
        gotchas.insert(0, f"the run may take {duration(high)} of the {duration(longest * 3600)} that a session lasts: "
                          "write checkpoints from which it can go on")  # fmt: skip
    default = place.default_timeout_hours
    if default is not None and high > default * 3600:
        gotchas.insert(0, f"the run may take {duration(high)}, the timeout is {duration(default * 3600)} unless set")
    return PlatformChoice(
        platform=place.name,
        gpu=(f"{deal.gpus} x " if deal.gpus > 1 else "") + names[offer.gpu_id],
        usd_per_hour=deal.usd_per_hour,
        price_date=offer.date,
        usd_low=round(deal.usd_per_hour * low / 3600, 2),
        usd_high=round(deal.usd_per_hour * high / 3600, 2),
        session_limit=f"at most {duration(longest * 3600)}" if longest is not None else "",
        how=place.how.replace("{request}", offer.request),
        gotchas=gotchas,
    )
