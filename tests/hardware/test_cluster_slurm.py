"""SLURM's text: recorded answers of three versions, and programs that misbehave."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_parts import fuzzed
from fake_programs import answers, environ_of, posix_only, put_program
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.cluster import slurm
from compute_awareness.hardware.cluster.access import access_to, parse_bars
from compute_awareness.hardware.cluster.probe import probe_cluster
from compute_awareness.hardware.cluster.report import Cluster, ClusterUser
from compute_awareness.hardware.cluster.slurm import read_slurm
from compute_awareness.hardware.cluster.slurm_nodes import (
    NODE_COLUMNS,
    gpus_of,
    parse_nodes,
    parts_of,
    why_no_jobs,
)
from compute_awareness.hardware.cluster.slurm_text import (
    JOB_COLUMNS,
    Gres,
    columns,
    gpus_in_tres,
    moment,
    number,
    parse_config,
    parse_gres,
    parse_jobs,
    parse_pairs,
    parse_test_only,
    seconds,
    waiting_by_partition,
)
from compute_awareness.units import MIB

RECORDED = Path(__file__).with_name("data") / "slurm"
VERSIONS = ("22.05.8", "24.11.5", "26.05.5")


def recorded(name: str, version: str) -> str:
    return (RECORDED / f"{name}.{version}.txt").read_text()


def fake_slurm(folder: Path, version: str, **others: str) -> dict[str, str]:
    """PATH of a machine whose SLURM gives the recorded answers; `others` replaces programs by scripts."""

    def file(name: str) -> Path:
        return RECORDED / f"{name}.{version}.txt"

    scripts = {
        "sinfo": answers({"GresUsed": file("sinfo_nodes")}),
        "scontrol": answers({"show config": file("config"), "show partition": file("partition")}),
        "squeue": answers({"--me": file("squeue_own"), "PENDING": file("squeue_pending")}),
        "sacctmgr": "exit 1",
    }
    for name, script in {**scripts, **others}.items():
        put_program(folder / "bin", name, script)
    return environ_of(folder / "bin")


def only(clusters: list[Cluster]) -> Cluster:
    (cluster,) = clusters
    return cluster


@posix_only
@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_cluster(tmp_path, version):
    cluster = only(read_slurm(fake_slurm(tmp_path, version), 30))
    assert (cluster.scheduler, cluster.name, cluster.version) == ("slurm", "fake", version)
    assert cluster.problems == []
    assert {(p.partition, p.type): (p.nodes, p.total, p.free) for p in cluster.pools if p.features != []} == {
        ("gpu", "a100"): (2, 8, 1),
        ("all", "a100"): (2, 8, 1),
        ("h100", "h100"): (1, 8, 6),
        ("all", "h100"): (1, 8, 6),
        ("closed", "h100"): (1, 8, 6),
    }
    # Each node once, whatever partitions it is in; the drained and the dead node have none that is free.
    assert {t.type: (t.total, t.free, t.not_free) for t in cluster.totals} == {
        "a100": (12, 1, {"in use": 3, "drained": 4, "down": 4}),
        "h100": (8, 6, {"in use": 2}),
        "rtx_a6000": (2, 1, {"in use in parts": 1}),
    }
    used = None if version.startswith("22") else 2  # 22.05 prints cards where it should print shards
    assert [(s.kind, s.type, s.total, s.used) for s in cluster.shared if s.partition == "interactive"] == [
        ("shard", "rtx_a6000", 8, used)
    ]


@posix_only
@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_partitions_and_own_jobs(tmp_path, version):
    cluster = only(read_slurm(fake_slurm(tmp_path, version), 30))
    parts = {part.name: part for part in cluster.partitions}
    assert [name for name, part in parts.items() if part.default] == ["gpu"]
    assert (parts["gpu"].max_time_s, parts["gpu"].default_time_s) == (2 * 86400, 3600)
    assert (parts["h100"].max_time_s, parts["h100"].default_time_s) == (12 * 3600, None)
    assert (parts["all"].max_time_s, parts["all"].unlimited_time) == (None, True)
    assert parts["gpu"].node_states == {"mixed": 1, "drained": 1, "down": 1}
    assert (parts["closed"].access, parts["closed"].access_why) == ("no", "its state is DOWN")
    assert parts["all"].allow_accounts == ["physics"]
    assert parts["all"].access == "yes" and "not enforced" in parts["all"].access_why
    # The held job for two partitions waits in both; an array of four counts once.
    assert {name: part.pending_jobs for name, part in parts.items()} == {
        "gpu": 2, "h100": 2, "interactive": 0, "all": 0, "closed": 0,
    }  # fmt: skip
    user = cluster.user
    assert user is not None and (user.running, user.pending, user.enforced) == (3, 3, False)
    jobs = {job.id: job for job in user.jobs}
    assert [jobs[i].gpus for i in "123456"] == [3, 2, 0, 1, None, 4]
    assert jobs["4"].reason == "JobHeldUser" and jobs["4"].start is None
    assert jobs["1"].time_left_s is not None and jobs["1"].start is not None


@posix_only
def test_user_settings_do_not_change_what_is_asked(tmp_path):
    seen = tmp_path / "seen"
    environ = fake_slurm(tmp_path, "24.11.5", sinfo=f"env > {seen}; cat {RECORDED}/sinfo_nodes.24.11.5.txt")
    own = {"SINFO_FORMAT": "%N", "SQUEUE_FORMAT": "%i", "SLURM_TIME_FORMAT": "relative", "SLURM_CLUSTERS": "other"}
    assert only(read_slurm({**environ, **own, "SLURM_CONF": "/my/slurm.conf"}, 30)).problems == []
    told = seen.read_text()
    assert not any(name in told for name in own)
    assert "SLURM_CONF=/my/slurm.conf" in told


def test_no_slurm_no_cluster(tmp_path):
    assert read_slurm({"PATH": str(tmp_path)}, 5) == []
    assert probe_cluster({"PATH": str(tmp_path), "RAY_TMPDIR": str(tmp_path)}, 5) == []


@posix_only
def test_slurms_package_without_a_cluster_is_none(tmp_path):
    """As 22.05 and later say it on a machine with the package and no slurm.conf."""
    script = (
        "echo 'sinfo: error: fetch_config: DNS SRV lookup failed' >&2; "
        "echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1"
    )
    assert read_slurm(fake_slurm(tmp_path, "24.11.5", sinfo=script), 20) == []


@posix_only
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1", "Unable to contact slurm controller"),
        ("sleep 60", "did not answer"),
        ("exec head -c 80000000 /dev/zero", "more than 64 MiB"),
        ("exit 3", "exit code 3"),
    ],
    ids=["down", "hangs", "floods", "silent"],
)
def test_a_controller_that_does_not_answer(tmp_path, script, words):
    start = time.monotonic()
    cluster = only(read_slurm(fake_slurm(tmp_path, "24.11.5", sinfo=script), 3 if "sleep" in script else 60))
    assert words in " ".join(cluster.problems)
    assert cluster.pools == [] and "does not answer" in cluster.summary
    assert time.monotonic() - start < 55


@posix_only
def test_a_program_that_fails_leaves_the_rest(tmp_path):
    environ = fake_slurm(tmp_path, "24.11.5", squeue="echo 'squeue: error: boom' >&2; exit 1", scontrol="sleep 60")
    cluster = only(read_slurm(environ, 4))
    assert {total.type for total in cluster.totals} == {"a100", "h100", "rtx_a6000"}
    assert any("scontrol: did not answer" in problem for problem in cluster.problems)
    assert cluster.user is not None and cluster.user.running is None
    # Nothing about limits was told, so nothing is claimed.
    assert {part.access for part in cluster.partitions} == {"unknown"}
    assert {part.max_time_s for part in cluster.partitions} == {None}
    assert {part.pending_jobs for part in cluster.partitions} == {None}


@posix_only
def test_garbage_is_no_cluster_of_gpus(tmp_path):
    environ = fake_slurm(tmp_path, "24.11.5", sinfo="head -c 20000 /dev/urandom; echo; echo 'gpu:a100:8 idle'")
    cluster = only(read_slurm(environ, 30))
    assert cluster.pools == [] and cluster.totals == []
    assert any("could not be read" in problem for problem in cluster.problems)


@posix_only
def test_accounts_and_qos(tmp_path):
    other = {"Type": "accounting_storage/slurmdbd", "Enforce": "associations,limits,qos"}
    config = "ClusterName = fake\n" + "".join(f"AccountingStorage{key} = {value}\n" for key, value in other.items())
    (tmp_path / "config").write_text(config)
    partition = (RECORDED / "partition.24.11.5.txt").read_text().replace("QoS=N/A", "QoS=short", 2)
    (tmp_path / "partition").write_text(partition)
    sacctmgr = answers(
        {
            "show assoc": RECORDED / "sacctmgr_assoc.22.05.8.txt",
            "show user": RECORDED / "sacctmgr_user.22.05.8.txt",
            "show qos": RECORDED / "sacctmgr_qos.22.05.8.txt",
        }
    )
    scontrol = answers({"show config": tmp_path / "config", "show partition": tmp_path / "partition"})
    cluster = only(read_slurm(fake_slurm(tmp_path, "24.11.5", scontrol=scontrol, sacctmgr=sacctmgr), 30))
    assert cluster.problems == []
    user = cluster.user
    assert user is not None and user.enforced is True
    assert (user.accounts, user.default_account) == (["biology", "physics"], "biology")
    assert user.qos == ["normal", "short"]
    assert {limit.source: (limit.max_wall_s, limit.gpus_per_job, limit.gpus_per_user) for limit in user.limits} == {
        "account biology": (86400, None, 8),
        "QoS short": (4 * 3600, 2, 4),
    }
    assert [part.qos for part in cluster.partitions] == ["short", "short", None, None, None]
    (open_to_physics,) = [part for part in cluster.partitions if part.name == "all"]
    assert (open_to_physics.access, open_to_physics.account) == ("yes", "physics")


ABOUT = {"PartitionName": "p", "State": "UP", "AllowGroups": "ALL", "AllowAccounts": "ALL", "AllowQos": "ALL"}


@pytest.mark.parametrize(
    ("changed", "user", "uid", "groups", "verdict"),
    [
        ({}, None, 1000, ["a"], "yes"),
        ({"State": "DRAIN"}, None, 0, [], "no"),
        ({"State": ""}, None, 0, [], "unknown"),
        ({"RootOnly": "YES"}, None, 1000, [], "no"),
        ({"RootOnly": "YES"}, None, 0, [], "yes"),
        ({"DisableRootJobs": "YES"}, None, 0, [], "no"),
        ({"AllowGroups": "lab,other"}, None, 1000, ["lab"], "yes"),
        ({"AllowGroups": "lab"}, None, 1000, ["none_of_it"], "no"),
        ({"AllowGroups": "lab"}, None, 1000, None, "unknown"),
        ({"AllowGroups": "lab"}, None, 0, [], "yes"),
        ({"ReqResv": "YES"}, None, 1000, [], "unknown"),
        ({"AllowAccounts": "physics"}, None, 1000, [], "unknown"),
        ({"AllowAccounts": "physics"}, ClusterUser("u", ["physics"], enforced=True), 1000, [], "yes"),
        ({"AllowAccounts": "physics"}, ClusterUser("u", ["biology"], enforced=True), 1000, [], "no"),
        ({"AllowAccounts": "physics"}, ClusterUser("u", ["biology"], enforced=False), 1000, [], "yes"),
        ({"DenyAccounts": "physics"}, ClusterUser("u", ["physics"], enforced=True), 1000, [], "no"),
        ({"DenyAccounts": "physics"}, ClusterUser("u", ["biology"], enforced=True), 1000, [], "yes"),
        ({"AllowQos": "long"}, ClusterUser("u", ["a"], qos=["short"], enforced=True), 1000, [], "no"),
        ({"AllowQos": "long"}, ClusterUser("u", ["a"], qos=["long"], enforced=True), 1000, [], "yes"),
        ({"AllowQos": "long"}, ClusterUser("u", enforced=True), 1000, [], "unknown"),
    ],
)
def test_who_may_use_a_partition(changed, user, uid, groups, verdict):
    assert access_to({**ABOUT, **changed}, user, uid, groups)[0] == verdict


def test_an_account_that_must_be_named():
    user = ClusterUser("u", ["biology", "physics"], default_account="biology", enforced=True)
    assert access_to({**ABOUT, "AllowAccounts": "physics"}, user, 1000, [])[2] == "physics"
    assert access_to({**ABOUT, "AllowAccounts": "physics,biology"}, user, 1000, [])[2] is None


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("gpu:a100:4", [Gres("gpu", "a100", 4)]),
        ("gpu:4", [Gres("gpu", None, 4)]),
        ("gpu:a100:4(S:0-1)", [Gres("gpu", "a100", 4, "S:0-1)")]),
        ("gpu:a100:3(IDX:0-1,3)", [Gres("gpu", "a100", 3, "IDX:0-1,3)")]),
        ("gpu:a100_3g.20gb:2,gpu:a100:1", [Gres("gpu", "a100_3g.20gb", 2), Gres("gpu", "a100", 1)]),
        ("gpu:1080ti:no_consume:2K", [Gres("gpu", "1080ti", 2048)]),
        ("gres:gpu:a100:3", [Gres("gpu", "a100", 3)]),
        ("gres/gpu:a100=3", [Gres("gpu", "a100", 3)]),
        ("gpu:a100", [Gres("gpu", "a100", None)]),
        ("gpu:(null):2(IDX:0-1)", [Gres("gpu", None, 2, "IDX:0-1)")]),
        ("shard:rtx:2(2/4,0/4),mps:100", [Gres("shard", "rtx", 2, "2/4,0/4)"), Gres("mps", None, 100)]),
        ("no_consume", [Gres("no_consume", None, None)]),
        ("(null)", []),
        ("N/A", []),
        ("", []),
    ],
)
def test_gres(text, items):
    assert parse_gres(text) == items


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("idle", None),
        ("mixed", None),
        ("mixed+cloud", None),
        ("allocated", None),
        ("mixed+completing", None),
        ("idle+drain", "drained"),
        ("drained", "drained"),
        ("mixed+drain", "drained"),
        ("down", "down"),
        ("down*", "not responding"),
        ("idle*", "not responding"),
        ("down+drain+not_responding", "not responding"),
        ("idle+maintenance+reserved", "maintenance"),
        ("idle+reserved", "reserved"),
        ("mixed+planned", "planned for a waiting job"),
        ("mixed-", "planned for a waiting job"),
        ("idle~", "powered down"),
        ("idle+cloud+powered_down", "powered down"),
        ("idle#", "starting"),
        ("idle@", "rebooting"),
        ("inval", "inval"),
        ("perfctrs", "perfctrs"),
        ("a_word_of_slurm_30", "a_word_of_slurm_30"),
        ("", "state not told"),
    ],
)
def test_states_under_which_a_node_takes_jobs(state, why):
    assert why_no_jobs(state) == why


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2-00:00:00", 172800), ("4:00:00", 14400), ("30:00", 1800), ("0:05", 5), ("1-12:30:15", 131415),
        ("UNLIMITED", None), ("INVALID", None), ("NONE", None), ("30", None), ("", None), ("1:60", None),
        ("1-25:00:00", None), ("1:99:00", None), ("²:00", None),
    ],
)  # fmt: skip
def test_durations(text, value):
    assert seconds(text) == value


def node_line(partition="gpu", state="idle", gres="gpu:a100:4", used="gpu:a100:0(IDX:N/A)", cpus="0/64/0/64",
              memory="512000", allocated="0", features="(null)", name="n1", reason="none"):  # fmt: skip
    """A line as sinfo prints it: each column padded, or cut, to its width."""
    cells = (name, partition, state, gres, used, cpus, memory, allocated, features)
    padded = [cell[:width].ljust(width) for cell, (_, width) in zip(cells, NODE_COLUMNS, strict=True)]
    return "".join(padded) + reason[:60].ljust(60)


def one_card(**cells):
    rows, unread = parse_nodes(node_line(**cells))
    assert unread == 0
    cards = gpus_of(rows[0])
    assert cards is not None
    (card,) = cards
    return card


def test_a_node_with_free_gpus_and_no_cpu_or_ram_has_none_to_give():
    assert (one_card().free, one_card().not_free) == (4, {})
    card = one_card(used="gpu:a100:1(IDX:0)", cpus="64/0/0/64", state="allocated")
    assert (card.free, card.not_free) == (0, {"in use": 1, "no CPU left beside them": 3})
    card = one_card(memory="512000", allocated="512000")
    assert (card.free, card.not_free) == (0, {"no RAM left beside them": 4})


@pytest.mark.parametrize(
    ("cells", "free"),
    [
        ({"used": "(null)"}, 4),  # 24.11 where nothing is in use
        ({"used": "gpu:0,shard:0"}, 4),  # 22.05 the same
        ({"used": "gpu:2(IDX:0-1)"}, 2),  # untyped use on a node with one type
        ({"used": "gpu:a100:x"}, None),
        ({"used": "gpu:a100:9"}, None),  # more than there are
        ({"used": "shard:a100:2"}, None),  # on which cards is not said
        ({"used": "shard:a100:2(2/4,0/4)"}, 3),
        ({"used": "shard:a100:1(IDX:0,2-3)"}, 1),
        ({"used": "mps:a100:50(IDX:1)"}, 3),
        ({"used": "gpu:v100:2"}, None),  # of a type that the node does not have
        ({"gres": "gpu:a100:4,gpu:t4:2", "used": "gpu:t4:1(IDX:0)"}, 4),
        ({"gres": "gpu:a100:4,gpu:t4:2", "used": "gpu:1(IDX:0)"}, None),  # of which type is not said
        ({"state": "idle+drain", "used": "gpu:a100:x"}, 0),  # none can be had, whatever is in use
    ],
)
def test_free_is_counted_or_unknown(cells, free):
    rows, _ = parse_nodes(node_line(**cells))
    cards = gpus_of(rows[0])
    assert cards is not None
    (card,) = [card for card in cards if card.type == "a100"]
    assert card.free == free


def test_untyped_gpus():
    assert one_card(gres="gpu:4(S:0-1)", used="gpu:(null):3(IDX:0-2)").free == 1
    assert one_card(gres="gpu:4", used="gpu:a100:3(IDX:0-2)").free == 1


def test_a_cut_column_is_unknown_and_not_a_smaller_number():
    """sinfo cuts without a mark: `gpu:a100:16` of a column one too narrow reads `gpu:a100:1`."""
    padding = "gpu:" + "x" * 245 + ":16"
    assert len(padding) == 252
    for extra in range(8):
        text = "gpu:" + "x" * (245 + extra) + ":16"
        rows, unread = parse_nodes(node_line(gres=text))
        if len(text) < 256:
            assert [(card.total) for card in gpus_of(rows[0]) or []] == [16]
        else:
            assert (unread, gpus_of(rows[0])) == (0, None)
    rows, _ = parse_nodes(node_line(used="gpu:a100:1(" + "IDX:0," * 60 + ")"))
    (card,) = gpus_of(rows[0]) or []
    assert (card.total, card.free) == (4, None)


@posix_only
def test_nodes_that_cannot_be_read_are_said(tmp_path):
    (tmp_path / "nodes").write_text(
        node_line(name="good") + "\n" + node_line(name="bad", gres="gpu:a100:x") + "\nshort\n"
    )
    cluster = only(read_slurm(fake_slurm(tmp_path, "24.11.5", sinfo=f"cat {tmp_path}/nodes"), 30))
    assert [(total.type, total.total) for total in cluster.totals] == [("a100", 4)]
    assert any("1 lines could not be read" in problem for problem in cluster.problems)
    assert any("GRES of 1 nodes" in problem and "bad" in problem for problem in cluster.problems)


def test_test_only_answers():
    for version in VERSIONS:
        start, why = parse_test_only(recorded("test_only", version))
        assert start is not None and start.startswith("2026-11-26T10:0") and why is None
        refused = parse_test_only(recorded("test_only_refused", version))
        assert refused == (None, "Requested node configuration is not available")
    assert parse_test_only("") == (None, "sbatch gave no answer")
    assert parse_test_only("sbatch: error: invalid partition specified: nope")[1] is not None


# Text that looks like SLURM's: its own separators and words among anything else.
slurm_like = st.lists(
    st.one_of(
        st.sampled_from([
            "gpu", "shard", "mps", "a100", ":", ",", "(", ")", "IDX:", "S:", "0-3", "/", "+", "*", "~", "idle", "mixed",
            "drain", "(null)", "N/A", "=", "|", " ", "\n", "-", "UNLIMITED", "K", "9" * 30, "²", "٣", "\x00", "T",
            "gres/", "gres:", "no_consume", "PartitionName=", "MaxTime=", "State=", "to start at ",
        ]),
        st.integers(0, 10**12).map(str),
        st.text(max_size=4),
    ),
    max_size=30,
).map("".join)  # fmt: skip


def digits_in(text: str, value: int | None) -> bool:
    return value is None or str(value) in text.replace("\n", " ")


@fuzzed
@given(slurm_like)
def test_gres_counts_are_numbers_of_the_text(text):
    for item in parse_gres(text):
        scaled = [item.count, *(item.count / scale for scale in (1024, 1024**2, 1024**3))] if item.count else []
        assert item.count in (None, 0) or any(int(n) == n and str(int(n)) in text for n in scaled)
        assert item.name in text


@fuzzed
@given(slurm_like)
def test_no_text_makes_a_parser_fail_or_invent(text):
    for value in (number(text), gpus_in_tres(text)):
        assert value is None or digits_in(text.lstrip("0"), value) or value == 0
    assert moment(text) in (None, text)
    duration = seconds(text)
    assert duration is None or (duration >= 0 and ":" in text)
    assert why_no_jobs(text) is None or isinstance(why_no_jobs(text), str)
    for job in parse_jobs(text):
        assert job.id in text and digits_in(text, job.gpus)
    assert sum(waiting_by_partition(text).values()) <= text.count(",") + len(text.splitlines())
    parse_config(text)
    parse_pairs(text)
    assert all(len(row) == 3 for row in parse_bars(text, 3))
    start, why = parse_test_only(text)
    assert (start is None) != (why is None)
    assert start is None or start in text
    rows, unread = parse_nodes(text)
    assert len(rows) + unread <= len(text.splitlines())


@fuzzed
@given(st.text(alphabet="abc+*~#!%$@^-idlemxr_", max_size=30))
def test_only_known_words_let_a_node_take_jobs(state):
    known = {"idle", "mixed", "mix", "allocated", "alloc", "completing", "comp", "cloud", "dynamic_norm"}
    if why_no_jobs(state) is None:
        assert {word for word in state.split("+") if word} <= known


def check_sound(cluster_rows) -> None:
    """What holds of every count, whatever the text was."""
    pools, totals = slurm.pools(cluster_rows), slurm.totals(cluster_rows)
    for one in (*pools, *totals):
        assert one.total > 0
        assert all(count > 0 for count in one.not_free.values())
        if one.free is None:
            assert sum(one.not_free.values()) <= one.total
        else:
            assert one.free >= 0 and one.free + sum(one.not_free.values()) == one.total
    for pool in pools:
        assert 0 < pool.most_on_a_node <= pool.total
        if pool.most_free_on_a_node is not None:
            assert 0 <= pool.most_free_on_a_node <= pool.most_on_a_node
    for shares in slurm.shared(cluster_rows):
        assert shares.used is None or 0 <= shares.used <= shares.total


gres_text = st.lists(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["gpu", "shard", "mps", "tmpdisk"]),
        st.sampled_from(["", ":a100", ":t4", ":a100_3g.20gb", ":no_consume"]),
        st.integers(0, 12).map(":{}".format) | st.sampled_from(["", ":x", ":-3", ":1e3", ":99999999999999999999"]),
        st.sampled_from(["", "(S:0-1)", "(IDX:0-1)", "(IDX:N/A)", "(2/4,0/4)", "(IDX:9-0)", "(", ")", "(1/2/3)"]),
    ),
    max_size=5,
).map(",".join)
node_lines = st.builds(
    node_line,
    name=st.sampled_from(["n1", "n2", "n3"]),
    partition=st.sampled_from(["gpu*", "all", "x y"]),
    state=st.sampled_from(["idle", "mixed", "idle+drain", "down*", "mixed+planned", "", "allocated", "?"]),
    gres=gres_text,
    used=gres_text,
    cpus=st.sampled_from(["0/64/0/64", "64/0/0/64", "N/A", "1/2/3", "/////", "9999999999999999999/1/1/1"]),
    memory=st.sampled_from(["512000", "", "N/A", "-1", "0"]),
    allocated=st.sampled_from(["0", "512000", "600000", "x"]),
    features=st.sampled_from(["(null)", "a100_80gb,ib", "ü" * 10, "a," * 200]),
    reason=st.text(max_size=80),
)


@fuzzed
@given(st.lists(node_lines, max_size=12).map("\n".join))
def test_counts_are_sound_for_any_nodes(text):
    rows, _ = parse_nodes(text)
    check_sound(rows)
    for row in rows:
        for kind in ("shard", "mps"):
            for total, used in parts_of(row, kind).values():
                assert used is None or 0 <= used <= total


@fuzzed
@given(st.data())
def test_counts_are_sound_for_damaged_answers(data):
    """Real answers with some characters dropped, doubled or replaced."""
    text = recorded("sinfo_nodes", data.draw(st.sampled_from(VERSIONS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 200)) :] + " "
    rows, _ = parse_nodes(text)
    check_sound(rows)


@fuzzed
@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_round_trip(days, hours, minutes, secs):
    assert seconds(f"{days}-{hours:02}:{minutes:02}:{secs:02}") == ((days * 24 + hours) * 60 + minutes) * 60 + secs


@fuzzed
@given(st.integers(0, 500), st.sampled_from(["", "a100", "rtx_a6000", "a100_3g.20gb", "1080ti"]))
def test_gres_round_trips(count, kind):
    text = ":".join(word for word in ("gpu", kind, str(count)) if word)
    assert parse_gres(text) == [Gres("gpu", kind or None, count)]


def test_a_job_line_cut_in_its_gpus_has_an_unknown_number():
    cells = ["7", "gpu", "PENDING", "1", "gres/gpu:" + "x" * 300, "N/A", "N/A", "N/A", "1:00:00", "N/A", "None"]
    line = "".join(cell[:width].ljust(width) for cell, (_, width) in zip(cells, JOB_COLUMNS, strict=True))
    (job,) = parse_jobs(line)
    assert (job.id, job.gpus, job.time_left_s) == ("7", None, 3600)
    assert columns(line, [24, 10_000]) is None


def test_memory_left_is_what_slurm_has_not_given_away():
    rows, _ = parse_nodes(node_line(memory="512000", allocated="64000"))
    assert rows[0].ram_left_bytes == 448000 * MIB
    rows, _ = parse_nodes(node_line(memory="N/A"))
    assert rows[0].ram_left_bytes is None


READERS = sorted(p.stem for p in Path(slurm.__file__).parent.glob("*.py") if p.stem not in ("cards", "shortest"))


@pytest.mark.parametrize("name", READERS)
def test_readers_run_on_a_bare_python_3_8(name):
    """They are also sent to machines with an old Python and nothing installed."""
    source = Path(slurm.__file__).with_name(f"{name}.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    allowed = sys.stdlib_module_names
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inside = node.level == 1 or (node.level == 2 and node.module == "probe.child")
            assert inside or (node.level == 0 and (node.module or "").split(".")[0] in allowed), ast.unparse(node)
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] in allowed for alias in node.names)


@posix_only
@pytest.mark.parametrize(
    ("programs", "variables", "read"),
    [
        ((), {}, set()),
        (("sinfo",), {}, {"slurm"}),
        (("kubectl",), {}, {"kubectl"}),
        (("ray",), {}, {"ray_status"}),
        ((), {"RAY_ADDRESS": "h:1"}, {"ray_status"}),
        (("sinfo", "kubectl"), {}, {"slurm", "kubectl"}),
    ],
)
def test_only_the_reader_of_a_program_at_hand_is_imported(tmp_path, programs, variables, read):
    for name in programs:
        put_program(tmp_path, name, "exit 1")
    code = (
        "import json, os, sys\n"
        "from compute_awareness.hardware.cluster.probe import probe_cluster\n"
        "probe_cluster(json.loads(sys.argv[1]), 20)\n"
        "print(*[name for name in ('slurm', 'kubectl', 'ray_status') "
        "if f'compute_awareness.hardware.cluster.{name}' in sys.modules])\n"
    )
    environ = json.dumps({"PATH": str(tmp_path), "RAY_TMPDIR": str(tmp_path)} | variables)
    done = subprocess.run([sys.executable, "-c", code, environ], capture_output=True, text=True)
    assert (done.returncode, set(done.stdout.split())) == (0, read), done.stderr
