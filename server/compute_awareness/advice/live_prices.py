"""Live prices through gpuhunt, an optional extra (`pip install 'compute-awareness[prices]'`), and only where asked for.

Written for gpuhunt 0.1.34 (gpuhunt/_internal/catalog.py): `Catalog.load` fetches what its maintainers publish of each
provider several times a day; nothing of the run is sent. It is asked in a child process, which is ended after a limit:
gpuhunt itself has none. Whatever goes wrong, the table's dated prices stand, and the reason is said.

What a card is called there is what dstack calls it, which is built on gpuhunt: `facts/launchers.json` has the names.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..hardware.probe.child import run_child
from .platforms import Offer, Platform, all_platforms, prices_of

LIMIT_S = 20.0
# gpuhunt's providers that the table of platforms has; of others we do not know how a run is started there.
_PLATFORM_OF = {"runpod": "runpod", "lambdalabs": "lambda", "nebius": "nebius", "gcp": "gcp"}
_MOST_USD = 10_000.0  # an hour; anything above is a slip of the catalog

_ASK = """
import json, os, sys
try:
    import gpuhunt
except ImportError as error:
    print(json.dumps({"error": "gpuhunt cannot be imported (%s): pip install 'compute-awareness[prices]'" % error}))
    sys.exit()
providers, found = json.loads(sys.argv[1]), {}
try:
    catalog = gpuhunt.Catalog(auto_reload=False)
    folder = os.environ.get("GPUHUNT_CATALOG_DIR")
    if folder is None:
        catalog.load()
        providers = [name for name in providers if name in catalog.catalog]
    else:
        providers = [name for name in providers if os.path.isfile(os.path.join(folder, name + ".csv"))]
    items = catalog.query(provider=providers, min_gpu_count=1, spot=False) if providers else []
    for item in items:
        key = (item.provider, item.gpu_name, item.gpu_memory, item.gpu_count)
        if item.price > 0 and (key not in found or item.price < found[key][0]):
            found[key] = (item.price, item.instance_name, item.location)
except Exception as error:
    print(json.dumps({"error": ": ".join(str(one) for one in (error, error.__cause__) if one)}))
else:
    times = {}
    if folder is not None:
        times = {name: os.path.getmtime(os.path.join(folder, name + ".csv")) for name in providers}
    offers = [[*key, *found[key]] for key in found]
    print(json.dumps({"offers": offers, "read": providers, "times": times}))
"""


@dataclass(frozen=True)
class Prices:
    """The platforms with whatever prices could be had, and what to say about them."""

    platforms: tuple[Platform, ...]
    note: str


@contextmanager
def live_prices(wanted: bool, **how: Any) -> Iterator[str]:
    """Within it every price is live where one can be had; gives what is to be said of them. Nothing where not wanted.

    `how` as for `ask`.
    """
    if not wanted:
        yield ""
        return
    prices = ask(**how)
    with prices_of(prices.platforms):
        yield prices.note


def ask(
    python: str | None = None,
    environ: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
    run: Callable[..., Any] = run_child,
) -> Prices:
    """The platforms with live prices, within `limit_s` seconds. Never raises: the reason is in the note.

    Args:
        python: an interpreter that has gpuhunt; None = this one.
        environ: GPUHUNT_CATALOG_URL (another place of publication) and GPUHUNT_CATALOG_DIR (a folder of catalogs, which
            are then dated, not live) are gpuhunt's own.
    """
    argv = [python or sys.executable, "-P", "-c", _ASK, json.dumps(list(_PLATFORM_OF))]
    try:
        done = run(argv, os.environ if environ is None else environ, limit_s, cap=8 << 20)
    except OSError as error:
        return _dated(f"gpuhunt cannot be started: {error.strerror or error}")
    if done.timed_out:
        return _dated(f"no answer within {limit_s:g} s")
    try:
        answer = json.loads(done.out)
        if "error" in answer:
            return _dated(str(answer["error"]))
        return _merged(answer, datetime.datetime.now(datetime.UTC))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        last = (done.err.strip().splitlines() or ["nothing was printed"])[-1]
        return _dated(f"gpuhunt's answer could not be read: {last}")


def _dated(reason: str) -> Prices:
    why = " ".join(reason.split())[:300]
    return Prices(all_platforms(), f"live prices could not be had ({why}): prices are the table's, each with its date")


def _merged(answer: Mapping[str, Any], now: datetime.datetime) -> Prices:
    """The table with the catalog's offers in the place of its own for the same platform and card.

    Raises:
        ValueError, TypeError, KeyError: an answer of another shape.
    """
    when = {
        provider: f"{datetime.datetime.fromtimestamp(answer['times'][provider], datetime.UTC):%Y-%m-%d}"
        if provider in answer["times"] else f"live, {now:%Y-%m-%d %H:%M} UTC"
        for provider in answer["read"]
    }  # fmt: skip
    offers: dict[str, list[Offer]] = {}
    for provider, gpu, memory, count, price, instance, location in answer["offers"]:
        place = _PLATFORM_OF[provider]
        known = {offer.gpu_id: offer for table in all_platforms() if table.id == place for offer in table.offers}
        gpu_id = _card(gpu, memory, known)
        usd = float(price) / int(count)
        if gpu_id is None or not math.isfinite(usd) or not 0 < usd <= _MOST_USD:
            continue
        offers.setdefault(place, []).append(
            Offer(
                gpu_id=gpu_id,
                usd_per_gpu_hour=usd,
                date=when[provider],
                tier="on_demand",
                count=count,
                max_count=count,
                request=known[gpu_id].request if gpu_id in known else str(instance),
                note=f"{instance} in {location}",
                session_limit_hours=None,
            )
        )
    if not offers:
        return _dated("the catalog has no offer of a platform and card of the table")
    told = [platform.name for platform in all_platforms() if platform.id in offers]
    dates = " and ".join(dict.fromkeys(when.values()))
    return Prices(
        tuple(_with(platform, offers.get(platform.id, [])) for platform in all_platforms()),
        f"prices of {', '.join(told)} by gpuhunt ({dates}); all others are the table's, each with its date",
    )


def _with(platform: Platform, live: Sequence[Offer]) -> Platform:
    """Spot and free offers stay: the catalog was not asked for them."""
    cards = {offer.gpu_id for offer in live}
    kept = [offer for offer in platform.offers if offer.gpu_id not in cards or offer.tier in ("spot", "free")]
    return platform.model_copy(update={"offers": (*live, *kept)})


def _card(name: str | None, memory: float | None, known: Mapping[str, Offer]) -> str | None:
    """The card of the table that is called so; of several forms (SXM, PCIe) the one that the platform is known for."""
    if name is None or memory is None:
        return None
    ids = _cards_called().get(f"{name}:{float(memory):g}GB", [])
    return next((gpu_id for gpu_id in ids if gpu_id in known), ids[0] if ids else None)


@cache
def _cards_called() -> dict[str, list[str]]:
    path = Path(__file__).parents[1] / "facts" / "launchers.json"
    named: dict[str, list[str]] = {}
    for gpu_id, names in json.loads(path.read_text(encoding="utf-8"))["cards"].items():
        if "dstack" in names:
            named.setdefault(names["dstack"], []).append(gpu_id)
    return named
