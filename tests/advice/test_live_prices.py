"""Live prices: gpuhunt itself against a catalog published on loopback, and everything that may go wrong.

`COMPUTE_AWARENESS_ENGINES_PYTHON` names a Python with gpuhunt (dstack brings it); without one those tests are skipped.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from compute_awareness.advice.live_prices import ask, live_prices
from compute_awareness.advice.platforms import all_platforms, cheapest, current_platforms, platform
from compute_awareness.hardware.probe.child import Finished
from compute_awareness.preflight import recommend
from compute_awareness.workload import parse_workload

# instance, location, price of the instance, cpus, GB of RAM, GPUs, name, GB of each, spot
RUNPOD = [
    ("NVIDIA A100 80GB PCIe", "EU-1", 1.11, 8, 117, 1, "A100", 80, False),
    ("NVIDIA A100 80GB PCIe", "US-1", 1.55, 8, 117, 1, "A100", 80, False),
    ("NVIDIA A100 80GB PCIe", "EU-1", 0.40, 8, 117, 1, "A100", 80, True),
    ("NVIDIA H100 80GB HBM3", "EU-1", 8.00, 64, 900, 4, "H100", 80, False),
    ("a card that no table has", "EU-1", 0.01, 8, 117, 1, "Z900", 80, False),
    ("cpu-only", "EU-1", 0.02, 8, 117, 0, "", "", False),
]
PROVIDERS = ("aws", "azure", "verda", "gcp", "lambdalabs", "nebius", "oci", "runpod", "cloudrift")
FIELDS = (
    "instance_name", "location", "price", "cpu", "memory", "gpu_count", "gpu_name", "gpu_memory", "spot", "disk_size",
    "gpu_vendor", "flags", "cpu_arch", "provider_data",
)  # fmt: skip


def catalog(rows: list[tuple[object, ...]]) -> str:
    """A provider's catalog in gpuhunt's format (gpuhunt/_internal/storage.py)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow([*row, "", "nvidia" if row[6] else "", "", "x86", "{}"])
    return text.getvalue()


@pytest.fixture(scope="module")
def hunter() -> str:
    """A Python that has gpuhunt."""
    named = os.environ.get("COMPUTE_AWARENESS_ENGINES_PYTHON")
    if named is None and find_spec("gpuhunt"):
        return sys.executable
    if named is None or subprocess.run([named, "-c", "import gpuhunt"], capture_output=True).returncode:
        pytest.skip("gpuhunt is not installed (pip install '.[prices]')")
    return named


@pytest.fixture
def published() -> Iterator[Callable[[str], dict[str, str]]]:
    """Catalogs on loopback, in one of several states; gives the environment that leads gpuhunt there."""
    release = threading.Event()

    class Place(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, state, provider, *rest = self.path.split("/")
            if state == "hangs":
                release.wait(60)
                return
            if state == "down" or (state == "partly" and provider != "runpod"):
                self.send_error(503, "no catalog today")
                return
            body = b"20261126-1200\n"
            if rest[-1] == "catalog.zip":
                packed = io.BytesIO()
                with zipfile.ZipFile(packed, "w") as file:
                    file.writestr(f"{provider}.csv", catalog(RUNPOD if provider == "runpod" else []))
                body = b"not a zip file" if state == "garbage" else packed.getvalue()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Place)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    base.pop("GPUHUNT_CATALOG_DIR", None)
    try:
        yield lambda state: base | {"GPUHUNT_CATALOG_URL": f"http://127.0.0.1:{server.server_port}/{state}"}
    finally:
        release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("state", ["up", "partly"])
def test_gpuhunts_prices_take_the_place_of_the_tables_and_say_that_they_are_live(hunter, published, state) -> None:
    before = cheapest(["a100-80gb-pcie"])
    with live_prices(True, python=hunter, environ=published(state)) as told:
        assert re.fullmatch(
            r"prices of RunPod by gpuhunt \(live, 20\d\d-\d\d-\d\d \d\d:\d\d UTC\); all others .*", told
        )
        deal = cheapest(["a100-80gb-pcie", "a100-80gb-sxm"])
        assert deal is not None and deal.usd_per_hour == 1.11 and deal.platform.id == "runpod"
        assert deal.offer.date.startswith("live, ") and deal.offer.note == "NVIDIA A100 80GB PCIe in EU-1"
        # The catalog's price is that of the machine; a spot price and a card of no table are left out.
        live = [one for one in platform("runpod").offers if one.date.startswith("live, ")]
        assert sorted((one.usd_per_gpu_hour, one.count) for one in live) == [(1.11, 1), (2.0, 4)]
        modal = cheapest(["a100-80gb-sxm"], among=["modal"])
        assert modal is not None and re.fullmatch(r"20\d\d-\d\d-\d\d", modal.offer.date)
    assert cheapest(["a100-80gb-pcie"]) == before and current_platforms() == all_platforms()


def test_a_recommendation_at_live_prices_says_so(hunter, published) -> None:
    workload = parse_workload({"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024})
    with live_prices(True, python=hunter, environ=published("up")):
        answer = recommend(workload)
    priced = [choice for choice in answer.advice.gpus if choice.price_platform == "RunPod"]
    assert any((choice.price_date or "").startswith("live, ") for choice in priced)
    assert "live, " in answer.summary


@pytest.mark.parametrize(
    ("state", "limit_s", "says"),
    [("down", 60, "503"), ("garbage", 60, "not a zip file"), ("hangs", 3, "no answer within 3 s")],
)
def test_without_a_catalog_the_dated_prices_stand_and_the_reason_is_said(
    hunter, published, state, limit_s, says
) -> None:
    prices = ask(hunter, published(state), limit_s)
    assert prices.platforms == all_platforms()
    assert prices.note.startswith("live prices could not be had (") and says in prices.note
    assert prices.note.endswith("prices are the table's, each with its date")


def test_a_folder_of_catalogs_is_dated_not_live(hunter, tmp_path: Path) -> None:
    file = tmp_path / "runpod.csv"
    file.write_text(catalog(RUNPOD), encoding="utf-8")
    when = datetime.datetime(2026, 3, 4, 12, tzinfo=datetime.UTC).timestamp()
    os.utime(file, (when, when))
    prices = ask(hunter, dict(os.environ) | {"GPUHUNT_CATALOG_DIR": str(tmp_path)}, 60)
    assert prices.note.startswith("prices of RunPod by gpuhunt (2026-03-04); ")
    assert "live" not in prices.note


def test_without_gpuhunt_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "gpuhunt.py").write_text("raise ImportError('No module named gpuhunt')")
    prices = ask(environ=dict(os.environ) | {"PYTHONPATH": str(tmp_path)}, limit_s=60)
    assert "pip install 'compute-awareness[prices]'" in prices.note and prices.platforms == all_platforms()


def answering(text: str) -> Callable[..., Finished]:
    return lambda *_, **__: Finished(text, "a line\nwhat went wrong", 0)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"offers": [[1]], "read": ["runpod"], "times": {}}', '{"offers": 3, "read": [], "times": {}}'],
)
def test_an_answer_of_another_shape_is_no_crash(text: str) -> None:
    prices = ask(run=answering(text))
    assert prices.platforms == all_platforms()
    assert "live prices could not be had (gpuhunt's answer could not be read: what went wrong)" in prices.note


def offer(price: object, count: int = 1, name: object = "A100", memory: object = 80) -> str:
    row = ["runpod", name, memory, count, price, "x", "y"]
    return json.dumps({"offers": [row], "read": ["runpod"], "times": {}})


@pytest.mark.parametrize("text", [offer(0), offer(-1), offer(1e9), offer(1, name=None), offer(1, memory=79)])
def test_offers_that_mean_nothing_are_left_out(text: str) -> None:
    prices = ask(run=answering(text))
    assert "has no offer of a platform and card of the table" in prices.note


def test_nothing_is_asked_unless_it_is_wanted() -> None:
    def never(*_: object, **__: object) -> Finished:
        raise AssertionError("asked")

    with live_prices(False, run=never) as told:
        assert told == "" and current_platforms() == all_platforms()


def test_a_program_that_cannot_be_started_is_a_reason(tmp_path: Path) -> None:
    prices = ask(python=str(tmp_path / "none"), limit_s=5)
    assert "gpuhunt cannot be started" in prices.note


def test_several_cards_are_priced_by_the_card() -> None:
    with live_prices(True, run=answering(offer(8.0, 4))) as told:
        assert told.startswith("prices of RunPod")
        (live,) = [one for one in platform("runpod").offers if one.date.startswith("live")]
        assert (live.usd_per_gpu_hour, live.count, live.max_count) == (2.0, 4, 4)
        deal = cheapest([live.gpu_id], 1, ["runpod"])
        assert deal is not None and (deal.gpus, deal.usd_per_hour) == (4, 8.0)
