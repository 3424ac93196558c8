"""The shortest path to a GPU that fits, on clusters made up for it; test_real_slurm.py has the real one."""

from __future__ import annotations

import pytest
from cluster_parts import fuzzed, pool
from fake_programs import environ_of, posix_only, put_program
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.report import Cluster, ClusterUser, Limit, Partition
from compute_awareness.hardware.cluster.shortest import shortest_paths, with_expected_starts
from compute_awareness.units import GIB


def part(name, access="yes", max_time_s: int | None = 86400, **more) -> Partition:
    return Partition(name, False, "UP", 1, max_time_s=max_time_s, access=access, access_why="reason", **more)


def cluster(pools, partitions, user=None) -> Cluster:
    (found,) = name_cards([Cluster("slurm", "c", pools=list(pools), partitions=list(partitions), user=user)])
    return found


def order(found) -> list[tuple[str, str | None]]:
    return [(path.partition, path.type) for path in found.paths]


def test_the_smallest_free_card_that_is_enough_comes_first():
    made = cluster(
        [
            pool("h200", partition="p"),
            pool("t4", partition="p"),
            pool("l40s", partition="p"),
            pool("a10", partition="p"),
        ],
        [part("p")],
    )
    assert order(shortest_paths(made, 20 * GIB)) == [("p", "a10"), ("p", "l40s"), ("p", "h200")]
    assert order(shortest_paths(made, 30 * GIB)) == [("p", "l40s"), ("p", "h200")]
    assert "t4: 14.6 GiB a GPU, 20.0 GiB needed" in " ".join(shortest_paths(made, 20 * GIB).left_out)


def test_free_before_waiting_and_certain_before_doubtful():
    made = cluster(
        [
            pool("l40s", partition="busy", free=0),
            pool("h100", partition="free"),
            pool("a100", partition="either"),
            pool("mystery", partition="mystery"),
        ],
        [part("busy"), part("free"), part("either"), part("mystery")],
    )
    found = shortest_paths(made, 44 * GIB)
    assert order(found) == [("free", "h100"), ("busy", "l40s"), ("either", "a100"), ("mystery", "mystery")]
    assert [path.fits for path in found.paths] == ["yes", "yes", "maybe", "unknown"]
    assert any("may be too small" in text for text in found.paths[2].cautions)
    assert "memory not known" in found.paths[3].why


def test_what_the_user_may_not_use_is_left_out_and_the_unknown_comes_last():
    made = cluster(
        [pool("t4", partition=name) for name in ("shut", "perhaps", "open")],
        [part("shut", "no"), part("perhaps", "unknown"), part("open", account="physics")],
    )
    found = shortest_paths(made, GIB)
    assert order(found) == [("open", "t4"), ("perhaps", "t4")]
    assert found.left_out == ["shut, t4: reason"]
    assert found.paths[0].flags == ["-p", "open", "--gres=gpu:t4:1", "-A", "physics"]
    assert "whether you may use it is not known: reason" in found.paths[1].cautions


def test_time_limits():
    made = cluster(
        [pool("t4", partition=name) for name in ("short", "long", "endless")],
        [part("short", max_time_s=3600), part("long"), part("endless", max_time_s=None, unlimited_time=True)],
    )
    found = shortest_paths(made, GIB, hours=24)
    assert order(found) == [("endless", "t4"), ("long", "t4")]
    assert found.left_out == ["short, t4: a job may run 01:00:00 at most"]
    assert all(path.flags[-2:] == ["-t", "1-00:00:00"] for path in found.paths)
    assert shortest_paths(made, GIB, hours=0.51).paths[0].flags[-1] == "00:31:00"
    defaulted = cluster([pool("t4")], [part("gpu", default_time_s=600)])
    assert "without -t a job is stopped after 00:10:00" in shortest_paths(defaulted, GIB).paths[0].cautions


def test_several_gpus_are_on_one_node():
    made = cluster([pool("t4", total=4, free=2)], [part("gpu", pending_jobs=3)])
    assert shortest_paths(made, GIB, gpus=2).paths[0].free_now is True
    waiting = shortest_paths(made, GIB, gpus=4).paths[0]
    assert waiting.free_now is False and "--gres=gpu:t4:4" in waiting.flags
    assert "3 jobs wait in this partition and may come first" in waiting.cautions
    assert shortest_paths(made, GIB, gpus=5).left_out == ["gpu, t4: a node has 4 at most, 5 needed"]


def test_cards_that_do_not_come_back_by_themselves_are_no_path():
    dead = pool("t4", free=0)
    dead.not_free = {"drained": 3, "not responding": 1}
    sleeping = pool("l4", free=0)
    sleeping.not_free = {"powered down": 4}
    found = shortest_paths(cluster([dead, sleeping], [part("gpu")]), GIB)
    assert order(found) == [("gpu", "l4")]
    assert found.left_out == ["gpu, t4: out of service: 3 drained, 1 not responding"]


def test_ram_is_asked_for_and_looked_at():
    roomy, tight = pool("t4", partition="roomy"), pool("t4", partition="tight")
    roomy.free_ram_bytes, tight.free_ram_bytes = 100 * GIB, 10 * GIB
    found = shortest_paths(cluster([tight, roomy], [part("roomy"), part("tight")]), GIB, ram_bytes=20 * GIB + 1)
    assert [(path.partition, path.free_now) for path in found.paths] == [("roomy", True), ("tight", False)]
    assert found.paths[0].flags[-1] == "--mem=21G"


def test_limits_of_the_user():
    limits = [
        Limit("account a", 3600, None, 2, 1, None),
        Limit("account b", 60, 1, 1, 1, None),
        Limit("QoS strict", 7200, 1, None, None, None),
    ]
    user = ClusterUser("u", ["a", "b"], "a", ["normal", "strict"], True, limits, running=1, pending=0)
    made = cluster(
        [pool("t4", partition="free"), pool("t4", partition="bound")], [part("free"), part("bound", qos="strict")], user
    )
    found = shortest_paths(made, GIB, hours=1.5, gpus=3)
    assert order(found) == [("free", "t4")]
    assert found.left_out == ["bound, t4: its QoS strict allows 1 GPUs a job"]
    # Account b's limits do not hold for a job of the default account.
    assert found.paths[0].cautions == [
        "account a allows 2 GPUs at a time",
        "account a lets a job run 01:00:00 at most",
        "account a allows 1 running jobs and you have 1",
    ]
    user.enforced = False
    assert shortest_paths(made, GIB, hours=1.5, gpus=1).paths[0].cautions == []


def test_bad_questions():
    made = cluster([pool("t4")], [part("gpu")])
    for wrong in ({"needed_bytes": 0}, {"hours": 0}, {"hours": float("nan")}, {"hours": float("inf")}, {"gpus": 0}):
        with pytest.raises(ValueError, match="above 0"):
            shortest_paths(made, **{"needed_bytes": GIB, **wrong})
    with pytest.raises(ValueError, match="SLURM only"):
        shortest_paths(Cluster("ray", "r"), GIB)


def test_a_strange_partition_name_is_quoted():
    made = cluster([pool("t4", partition="a;b")], [part("a;b")])
    assert shortest_paths(made, GIB).paths[0].batch == "sbatch -p 'a;b' --gres=gpu:t4:1 job.sh"


@posix_only
def test_expected_starts_reorder_and_refusals_leave(tmp_path):
    script = """case "$*" in
*"-p later"*) echo 'sbatch: Job 7 to start at 2026-11-27T10:00:00' >&2 ;;
*"-p sooner"*) echo 'sbatch: Job 8 to start at 2026-11-26T10:00:00' >&2 ;;
*"-p never"*) echo 'allocation failure: Requested node configuration is not available' >&2; exit 1 ;;
esac
echo "$*" >> "$HOME/asked" """
    put_program(tmp_path / "bin", "sbatch", script)
    names = ("later", "never", "sooner", "now")
    made = cluster([pool("t4", partition=n, free=4 if n == "now" else 0) for n in names], [part(n) for n in names])
    found = with_expected_starts(shortest_paths(made, GIB), environ_of(tmp_path / "bin"), 20)
    assert [(path.partition, path.expected_start) for path in found.paths] == [
        ("now", None),
        ("sooner", "2026-11-26T10:00:00"),
        ("later", "2026-11-27T10:00:00"),
    ]
    assert found.left_out == ["never, t4: sbatch says: Requested node configuration is not available"]
    asked = (tmp_path / "bin" / "asked").read_text().splitlines()
    assert len(asked) == 2 and all(line.startswith("--test-only ") for line in asked)


@posix_only
def test_an_sbatch_that_hangs_leaves_the_paths(tmp_path):
    put_program(tmp_path / "bin", "sbatch", "sleep 60")
    made = cluster([pool("t4", free=0)], [part("gpu")])
    (path,) = with_expected_starts(shortest_paths(made, GIB), environ_of(tmp_path / "bin"), 0.5).paths
    assert path.expected_start is None and any("did not answer" in text for text in path.cautions)
    before = shortest_paths(made, GIB)
    assert with_expected_starts(before, {"PATH": str(tmp_path)}, 1) == before


pools_of_any_kind = st.lists(
    st.builds(
        pool,
        st.sampled_from([None, "t4", "a100", "mystery", "a100_3g.20gb"]),
        partition=st.sampled_from(["p", "q", "zz"]),
        free=st.sampled_from([None, 0, 1, 4]),
    ),
    max_size=6,
)  # fmt: skip


@fuzzed
@given(pools_of_any_kind, st.integers(1, 200 * GIB), st.none() | st.floats(0.01, 1000), st.integers(1, 8))
def test_every_path_fits_and_every_pool_is_answered(pools, needed, hours, gpus):
    made = cluster(pools, [part("p"), part("q", "unknown", None)])
    found = shortest_paths(made, needed, hours, gpus)
    known = [one for one in made.pools if one.partition in ("p", "q")]
    assert len(found.paths) + len(found.left_out) == len(known)
    for path in found.paths:
        assert path.fits != "yes" or (path.memory_bytes or 0) >= needed
        assert path.fits != "maybe" or (path.memory_bytes or 0) < needed <= (path.memory_most_bytes or 0)
        assert any(flag.endswith(f":{gpus}") for flag in path.flags)
