"""The platform table and where a run can be rented."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import compute_awareness
from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.advice.platforms import Needs, all_platforms, cheapest, platform, where_to_rent
from compute_awareness.errors import InputError
from compute_awareness.units import GIB

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
    assert not any("5 min" in text for text in short.gotchas)


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


def test_the_cheapest_run_comes_first_not_the_cheapest_hour() -> None:
    """A card that is twice as dear and ten times as fast is the cheaper one."""
    hours = {"t4": (20.0, 40.0), "h100-sxm": (1.0, 2.0)}

    def seconds(gpu_id: str) -> tuple[float, float]:
        low, high = hours[gpu_id]
        return low * 3600, high * 3600

    places = where_to_rent(list(hours), seconds, limit=20)
    assert [place.usd_high for place in places] == sorted(place.usd_high for place in places)
    assert places[0].gpu == "H100 SXM5" and places[0].usd_per_hour is not None
    assert places[0].usd_low == pytest.approx(places[0].usd_per_hour, abs=0.01)
    assert places[0].usd_high == pytest.approx(2 * places[0].usd_per_hour, abs=0.01)
    assert not {"Modal", "Google Colab", "Kaggle Notebooks"} & {p.platform for p in places if p.gpu == "Tesla T4"}


def test_a_run_that_takes_most_of_a_session_needs_checkpoints() -> None:
    def kaggle(hours: float) -> list[str]:
        return next(p.gotchas for p in where_to_rent(["t4"], hours * 3600, limit=20) if p.platform.startswith("Kaggle"))

    assert "checkpoints" in kaggle(9)[0] and "of the 12.0 h" in kaggle(9)[0]
    assert not any("checkpoints" in text for text in kaggle(3))


def test_only_gotchas_that_matter_for_the_run_are_told() -> None:
    def told(platform: str, gpu: str, hours: float = 1, **needs: Any) -> str:
        places = where_to_rent([gpu], hours * 3600, limit=20, needs=Needs(**needs))
        return " | ".join(next(place.gotchas for place in places if place.platform == platform))

    assert "bfloat16" not in told("Kaggle Notebooks", "t4")
    assert "no bfloat16" in told("Kaggle Notebooks", "t4", dtype="bfloat16")
    assert "two cards of 15 GiB" in told("Kaggle Notebooks", "t4")
    assert "preemptible" in told("Modal", "l4", 2) and "preemptible" not in told("Modal", "l4", 0.1)
    assert "may be served" in told("Modal", "a100-80gb-sxm") and "may be served" not in told("Modal", "l4")
    assert "unattended" in told("Google Colab", "t4", 5) and "unattended" not in told("Google Colab", "t4", 1)
    assert "HF_HOME" in told("Google Colab", "t4", download_bytes=2 * GIB)
    assert "HF_HOME" not in told("Google Colab", "t4")


def test_every_gotcha_of_the_table_can_matter_or_is_for_readers() -> None:
    for place in all_platforms():
        cards = {offer.gpu_id for offer in place.offers}
        for gotcha in place.gotchas:
            assert gotcha.gpus is None or set(gotcha.gpus) <= GPU_IDS, gotcha.text
            assert not gotcha.tiers or {offer.tier for offer in place.offers} & set(gotcha.tiers), gotcha.text
            assert not gotcha.gpus or cards & set(gotcha.gpus) or place.id == "paperspace", gotcha.text
