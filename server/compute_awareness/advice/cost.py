"""What a run costs where somebody is paid by the hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..hardware.compute import Compute
from ..memory.estimate import Estimate
from ..runtime.duration import estimate_time
from .answers import PlatformChoice
from .gpu_table import all_gpus
from .place import Place
from .platforms import cheapest

# Layers of the environment whose hours a platform of the table charges for, and its id there.
_CHARGED_BY = {
    "colab": "colab", "kaggle": "kaggle", "modal": "modal", "runpod_pod": "runpod", "runpod_serverless": "runpod",
    "vast": "vast", "lambda_cloud": "lambda", "paperspace_gradient": "paperspace", "hf_job": "hf_jobs",
    "lightning_studio": "lightning_ai",
}  # fmt: skip


@dataclass(frozen=True)
class Price:
    """A price with its origin: `what` is the GPU or machine, `where` who is paid, `date` when it was read or said."""

    usd_per_hour: float
    what: str
    where: str
    date: str


@dataclass(frozen=True)
class Cost:
    """The upper end of what a run costs, in USD: hours times a dated price."""

    usd: float
    price: Price


def run_cost(
    estimate: Estimate,
    hours: float,
    place: Place,
    compute: Compute | None,
    told: Price | None,
    rentals: Sequence[PlatformChoice],
    no_gpu: bool,
) -> Cost | None:
    """What the run costs at most; None where nobody is known to charge for it, as for hardware of one's own.

    By the price that was `told` for the machine, else by that of the platform in sight for its card, both for `hours`;
    else, where the place is open, by the cheapest of `rentals`, for the hours on its card.

    Args:
        hours: upper end, on the place.
        told: the profile's price of the machine that is counted with.
        rentals: places that rent a GPU that fits, cheapest first.
        no_gpu: the caller says that there is no GPU, so none is rented.
    """
    if told is not None:
        return Cost(hours * told.usd_per_hour, told)
    if place.kind in ("gpu", "mps"):
        price = None if place.named else _price_in_sight(place, compute)
        return None if price is None else Cost(hours * price.usd_per_hour, price)
    choice = next((choice for choice in rentals if choice.usd_per_hour is not None), None)
    if choice is None or choice.usd_per_hour is None or no_gpu:
        return None
    card = next((gpu for gpu in all_gpus() if gpu.name == choice.gpu.split(" x ")[-1]), None)
    seconds = estimate_time(estimate.work, card, "gpu", None).high
    price = Price(choice.usd_per_hour, choice.gpu, choice.platform, choice.price_date)
    return Cost(seconds / 3600 * price.usd_per_hour, price)


def _price_in_sight(place: Place, compute: Compute | None) -> Price | None:
    """The price of the machine in sight, where its environment shows a platform that charges for it.

    A platform that offers the card at several prices counts with the lowest: which was taken is not seen from inside.
    """
    if compute is None or place.gpu is None:
        return None
    layers = [layer.id for layer in compute.environment.layers if layer.confidence != "low"]
    platform = next((_CHARGED_BY[layer] for layer in layers if layer in _CHARGED_BY), None)
    if platform is None:
        return None
    alike = [card for card in compute.accelerators if card.gpu_id == place.gpu.id and card.mig_of is None]
    deal = cheapest([place.gpu.id], max(1, len(alike)), among=[platform])
    return None if deal is None else Price(deal.usd_per_hour, place.gpu.name, deal.platform.name, deal.offer.date)
