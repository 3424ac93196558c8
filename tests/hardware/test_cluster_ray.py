"""Ray: the recorded answer of `ray status -v`, and programs that misbehave."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster_parts import fuzzed
from fake_programs import environ_of, posix_only, put_program
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.ray_status import NodeUse, parse_status, pools, read_ray
from compute_awareness.hardware.cluster.report import Cluster

DATA = Path(__file__).with_name("data") / "ray"
RECORDED = (DATA / "status_v.2.60.0.txt").read_text()
PLAIN = DATA / "status.2.60.0.txt"


def only(clusters: list[Cluster]) -> Cluster:
    (cluster,) = clusters
    return cluster


def with_ray(folder: Path, script: str, **variables: str) -> dict[str, str]:
    put_program(folder / "bin", "ray", script)
    return {**environ_of(folder / "bin"), "RAY_TMPDIR": str(folder), **variables}


@posix_only
def test_recorded_cluster(tmp_path):
    """2 A100 of which a task holds half of one and a placement group one more, 4 H100 of which 3 are held."""
    environ = with_ray(
        tmp_path, f'echo "$*" > {tmp_path}/asked; cat {DATA}/status_v.2.60.0.txt', RAY_ADDRESS="10.0.0.1:6379"
    )
    cluster = only(name_cards(read_ray(environ, 20)))
    assert (cluster.scheduler, cluster.name, cluster.problems) == ("ray", "10.0.0.1:6379", [])
    assert {(p.type, p.total, p.free) for p in cluster.pools} == {("A100", 2, 0), ("H100", 4, 1)}
    by_type = {p.type: p for p in cluster.pools}
    assert by_type["A100"].not_free == {"in use": 2} and by_type["H100"].not_free == {"in use": 3}
    assert "h100-sxm" in by_type["H100"].gpu_ids
    assert (tmp_path / "asked").read_text() == "status -v\n"


@posix_only
def test_a_cluster_started_on_this_machine(tmp_path):
    environ = with_ray(tmp_path, f'echo "$RAY_ADDRESS" > {tmp_path}/asked; cat {DATA}/status_v.2.60.0.txt')
    assert read_ray(environ, 20) == []
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6399")
    assert only(read_ray(environ, 20)).name == "127.0.0.1:6399"
    assert (tmp_path / "asked").read_text() == "127.0.0.1:6399\n"


@posix_only
def test_the_short_answer_tells_no_types(tmp_path):
    cluster = only(read_ray(with_ray(tmp_path, f"cat {PLAIN}", RAY_ADDRESS="h:1"), 20))
    assert [(p.type, p.total, p.free) for p in cluster.pools] == [(None, 6, 1)]
    assert any("which types" in problem for problem in cluster.problems)


@posix_only
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sleep 60", "did not answer"),
        ("echo 'ConnectionError: Could not find any running Ray instance' >&2; exit 1", "Could not find any running"),
        ("exec head -c 80000000 /dev/zero", "more than 64 MiB"),
        ("head -c 5000 /dev/urandom", "no resources that could be read"),
    ],
    ids=["hangs", "gone", "floods", "garbage"],
)
def test_a_ray_that_does_not_answer(tmp_path, script, words):
    start = time.monotonic()
    limit = 1 if "sleep" in script else 60
    cluster = only(read_ray(with_ray(tmp_path, script, RAY_ADDRESS="h:1"), limit))
    assert cluster.pools == [] and words in " ".join(cluster.problems)
    assert time.monotonic() - start < 55


def test_what_ray_status_cannot_ask(tmp_path):
    assert "not on the PATH" in only(read_ray({"PATH": str(tmp_path), "RAY_ADDRESS": "h:1"}, 5)).problems[0]


@posix_only
@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_addresses_of_other_services(tmp_path, address):
    cluster = only(read_ray(with_ray(tmp_path, "exit 7", RAY_ADDRESS=address), 20))
    assert "address of the head node" in cluster.problems[0] and cluster.pools == []


def test_parts_of_cards_are_in_use():
    (pool,) = pools([NodeUse("n", "A100", used=0.1, total=4.0)])
    assert (pool.total, pool.free) == (4, 3)
    (pool,) = pools([NodeUse("n", "A100", used=5.0, total=4.0)])
    assert (pool.free, pool.not_free) == (None, {})
    (pool,) = pools([NodeUse("n", "A100", 0.0, 4.0, mixed=True)])
    assert pool.type is None


ray_like = st.lists(
    st.one_of(
        st.sampled_from([
            "GPU", "CPU", "accelerator_type:", "A100", "Node: ", "\n", " ", "/", ".", "0.5/2.0 GPU", "Usage:", "inf",
            "nan", "(0.0 used of 1.0 reserved in placement groups)", "1e9", "-1.0/2.0 GPU", "9" * 40,
        ]),
        st.integers(0, 10**6).map(str),
        st.text(max_size=4),
    ),
    max_size=30,
).map("".join)  # fmt: skip


def check_sound(text: str) -> None:
    nodes, whole = parse_status(text)
    for node in nodes:
        assert node.total > 0 and node.used >= 0
    for pool in pools(nodes):
        assert pool.free is None or (pool.free >= 0 and pool.free + sum(pool.not_free.values()) == pool.total)
        assert pool.type is None or pool.type in text
    if whole is not None:
        assert "GPU" in text


@fuzzed
@given(ray_like)
def test_any_text_is_read_soundly(text):
    check_sound(text)


@fuzzed
@given(st.data())
def test_damaged_answers_are_read_soundly(data):
    text = RECORDED
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 60)) :] + " "
    check_sound(text)
