"""The platform table and where a run can be rented."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

import compute_awareness
from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.advice.platforms import all_platforms, cheapest, platform, where_to_rent
from compute_awareness.errors import InputError

GPU_IDS = {gpu.id for gpu in all_gpus()}
TABLE = Path(compute_awareness.__file__).parent / "facts" / "platforms.json"


def test_every_offer_names_a_known_card_and_dates_its_price() -> None:
    made = date.fromisoformat(json.loads(TABLE.read_text(encoding="utf-8"))["meta"]["made"])
    offers = [(place, offer) for place in all_platforms() for offer in place.offers]
    assert len(offers) >= 80
    for place, offer in offers:
        assert offer.gpu_id in GPU_IDS, (place.id, offer.gpu_id)
        assert re.fullmatch(r"20\d\d(-[01]\d(-[0-3]\d)?)?", offer.date), (place.id, offer.date)
        assert int(offer.date[:4]) <= made.year and (len(offer.date) < 10 or date.fromisoformat(offer.date) <= made)
        assert offer.count <= offer.max_count
        assert offer.request, (place.id, offer.gpu_id)
        assert (offer.usd_per_gpu_hour == 0) == (offer.tier == "free"), (place.id, offer.gpu_id)


def test_every_platform_has_sources_and_a_way_to_start() -> None:
    assert len({place.id for place in all_platforms()}) == len(all_platforms())
    for place in all_platforms():
        assert place.sources and place.how and place.gotchas, place.id


@pytest.mark.parametrize("name", ["modal", "Modal", "HF Jobs", "hf-jobs", "Vast.ai", "google colab"])
def test_names(name: str) -> None:
    assert platform(name).offers


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(InputError, match="runpod"):
        platform("run pods")
    with pytest.raises(InputError, match="known: modal"):
        platform("zzz")


def test_cheapest_first_each_place_once_always_dated() -> None:
    places = where_to_rent(["a100-80gb-sxm", "a100-80gb-pcie", "h100-sxm"], 3600, limit=10)
    prices = [place.usd_per_hour for place in places if place.usd_per_hour is not None]
    assert len(prices) == len(places) >= 5 and prices == sorted(prices)
    assert len({place.platform for place in places}) == len(places)
    assert all(place.price_date and place.how and "{" not in place.how for place in places)


def test_free_tiers_come_first_where_the_card_suffices() -> None:
    names = [place.platform for place in where_to_rent(["t4"], 3600)]
    assert names[:2] == ["Google Colab", "Kaggle Notebooks"]
    assert where_to_rent(["t4"], 3600)[0].usd_per_hour == 0


def test_session_limits_are_respected() -> None:
    hour = 3600
    assert "Kaggle Notebooks" in [p.platform for p in where_to_rent(["t4"], 11 * hour, limit=9)]
    long = where_to_rent(["t4"], 13 * hour, limit=9)
    assert "Kaggle Notebooks" not in [p.platform for p in long]
    colab = next(p for p in long if p.platform == "Google Colab")
    assert colab.usd_per_hour and colab.usd_per_hour > 0, "the free tier ends after 12 hours"
    beyond = [p.platform for p in where_to_rent(["t4"], 30 * hour, limit=9)]
    assert beyond and not {"Modal", "Google Colab", "Kaggle Notebooks"} & set(beyond)


def test_a_default_timeout_that_would_end_the_run_is_said_first() -> None:
    (modal,) = [p for p in where_to_rent(["l4"], 3600, limit=9) if p.platform == "Modal"]
    assert "timeout" in modal.gotchas[0] and "5 min" in modal.gotchas[0]
    (short,) = [p for p in where_to_rent(["l4"], 60, limit=9) if p.platform == "Modal"]
    assert "5 min" not in short.gotchas[0]


def test_a_demo_quota_is_no_place_for_an_experiment() -> None:
    assert all(p.platform != "Hugging Face ZeroGPU" for p in where_to_rent(["rtxpro6000-server"], 0, limit=20))


def test_a_machine_of_eight_is_paid_in_full() -> None:
    one = cheapest(["v100-16gb"])
    assert one is not None and one.platform.id == "paperspace", "eight V100 at 0.79 each cost more than one at 2.30"
    two = cheapest(["h100-sxm"], 2)
    assert two is not None and two.gpus == 2
    assert two.usd_per_hour == pytest.approx(2 * two.offer.usd_per_gpu_hour)
    assert cheapest(["h100-sxm"], 16) is None
    assert cheapest([], 1) is None
    (pair,) = where_to_rent(["h100-sxm"], 60, limit=1, count=2)
    assert pair.gpu.startswith("2 x ")
