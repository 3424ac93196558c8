"""Kubernetes: what `kubectl get -o json` says of GPUs, and programs that misbehave."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import fuzzed
from fake_programs import answers, environ_of, posix_only, put_program
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.kubectl import parse_node_list, parse_pod_list, pools, read_kubernetes
from compute_awareness.hardware.cluster.report import Cluster
from compute_awareness.units import GIB


def node(name: str, allocatable: dict[str, Any], labels: dict[str, str] | None = None, ready="True", **spec) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "96", "memory": "1056270148Ki", "pods": "110", **allocatable},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
            "nodeInfo": {"kubeletVersion": "v1.31.4"},
        },
    }


def pod(on: str | None, phase: str, *requests: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> dict:
    spec: dict[str, Any] = {
        "containers": [{"name": f"c{n}", "resources": {"limits": r, "requests": r}} for n, r in enumerate(requests)],
        "initContainers": list(init),
    }
    if on:
        spec["nodeName"] = on
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase}}


A100 = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    "nvidia.com/gpu.memory": "81920",
    "nvidia.com/gpu.count": "8",
}
MIG = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/mig.strategy": "mixed"}
TURNS = {"nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.memory": "15360", "nvidia.com/gpu.replicas": "4"}
GPU = "nvidia.com/gpu"
NODES = [
    node("a", {GPU: "8"}, A100),
    node("b", {GPU: "8"}, A100, ready="Unknown"),
    node("c", {GPU: "8"}, A100, unschedulable=True),
    node("m", {GPU: "0", "nvidia.com/mig-3g.20gb": "2", "nvidia.com/mig-1g.5gb": "4"}, MIG),
    node("t", {GPU: "4"}, TURNS),
    node("r", {"amd.com/gpu": "4"}, {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}),
    node("g", {GPU: "1"}, {"cloud.google.com/gke-accelerator": "nvidia-l4"}),
    node("cpu", {}),
]
PODS = [
    pod("a", "Running", {GPU: "2", "cpu": "4"}, {GPU: "1"}),
    pod("a", "Pending", {GPU: "1"}),  # bound, its image is being pulled
    pod("a", "Succeeded", {GPU: "4"}),
    pod("c", "Running", {GPU: "3"}),
    pod(None, "Pending", {GPU: "8"}),  # waits for a node
    pod("m", "Running", {"nvidia.com/mig-1g.5gb": "3"}),
    pod("g", "Running", {}, init=({"name": "i", "resources": {"limits": {GPU: "1"}}},)),
]


def fake_kubectl(
    folder: Path, nodes: Any = None, pods: Any = None, context="echo lab", **scripts: str
) -> dict[str, str]:
    (folder / "nodes.json").write_text(json.dumps({"kind": "List", "items": NODES if nodes is None else nodes}))
    (folder / "pods.json").write_text(json.dumps({"kind": "List", "items": PODS if pods is None else pods}))
    cases: dict[str, Path | str] = {
        "config current-context": context,
        "get nodes -o json --request-timeout=": scripts.get("nodes_script", folder / "nodes.json"),
        "get pods --all-namespaces": scripts.get("pods_script", folder / "pods.json"),
    }
    put_program(folder / "bin", "kubectl", f'echo "$*" >> {folder}/asked\n' + answers(cases))
    return environ_of(folder / "bin")


def only(clusters: list[Cluster]) -> Cluster:
    (cluster,) = clusters
    return cluster


@posix_only
def test_gpus_by_product_with_what_is_free(tmp_path):
    cluster = only(name_cards(read_kubernetes(fake_kubectl(tmp_path), 20)))
    assert (cluster.scheduler, cluster.name, cluster.version, cluster.problems) == ("kubernetes", "lab", "v1.31.4", [])
    found = {(p.resource, p.type): p for p in cluster.pools}
    assert len(found) == 6
    a100 = found[GPU, "NVIDIA-A100-SXM4-80GB"]
    assert (a100.nodes, a100.total, a100.free, a100.most_free_on_a_node) == (3, 24, 4, 4)
    assert a100.not_free == {"in use": 7, "not ready": 8, "cordoned": 5}
    assert a100.gpu_ids == ["a100-80gb-sxm"] and a100.memory_bytes is not None and a100.memory_bytes > 79 * GIB
    small = found["nvidia.com/mig-1g.5gb", "NVIDIA-A100-SXM4-40GB"]
    assert (small.total, small.free, small.memory_most_bytes) == (4, 1, 5 * GIB)
    assert "NVIDIA-A100-SXM4-40GB mig-3g.20gb 2 of 2 free" in cluster.summary
    turns = found[GPU, "Tesla-T4-SHARED"]
    assert turns.shared is not None and turns.gpu_ids == ["t4"] and (turns.total, turns.free) == (4, 4)
    assert found["amd.com/gpu", "AMD_Instinct_MI300X_OAM"].gpu_ids == ["mi300x"]
    l4 = found[GPU, "nvidia-l4"]
    assert (l4.gpu_ids, l4.free) == (["l4"], 0)  # taken by an init container
    # Read only: nothing but these was asked.
    verbs = {line.split()[0] for line in (tmp_path / "asked").read_text().splitlines()}
    assert verbs == {"config", "get"}


@posix_only
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'Error from server (Forbidden): nodes is forbidden: you cannot' >&2; exit 1",
            "Forbidden",
        ),
        ("echo 'The connection to the server was refused' >&2; exit 1", "refused"),
        ("sleep 60", "did not answer"),
        ("exec head -c 80000000 /dev/zero", "more than 64 MiB"),
        ("head -c 5000 /dev/urandom", "could not be read"),
        ("echo '{\"items\": 7}'", "could not be read"),
    ],
    ids=["forbidden", "refused", "hangs", "floods", "garbage", "no_list"],
)
def test_nodes_that_cannot_be_read(tmp_path, script, words):
    start = time.monotonic()
    cluster = only(read_kubernetes(fake_kubectl(tmp_path, nodes_script=script), 2 if "sleep" in script else 60))
    assert cluster.pools == [] and words in " ".join(cluster.problems)
    assert time.monotonic() - start < 55


@posix_only
@pytest.mark.parametrize("script", ["echo 'Error from server (Forbidden): pods' >&2; exit 1", "echo '{'", "sleep 60"])
def test_without_the_pods_free_is_unknown(tmp_path, script):
    cluster = only(read_kubernetes(fake_kubectl(tmp_path, pods_script=script), 3 if "sleep" in script else 20))
    assert {pool.total for pool in cluster.pools} == {24, 2, 4, 1}
    assert all(pool.free is None for pool in cluster.pools)
    assert any("how many GPUs are free is not known" in problem for problem in cluster.problems)


@posix_only
def test_no_context_no_cluster(tmp_path):
    unset = "echo 'error: current-context is not set' >&2; exit 1"
    environ = fake_kubectl(tmp_path, context=unset)
    assert read_kubernetes(environ, 20) == []
    # In a pod kubectl uses the pod's own account.
    inside = only(read_kubernetes({**environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 20))
    assert inside.name == "the cluster of this pod" and inside.pools
    broken = fake_kubectl(tmp_path, context="echo 'error: error loading config file' >&2; exit 1")
    assert "error loading config file" in only(read_kubernetes(broken, 20)).problems[0]
    assert read_kubernetes({"PATH": str(tmp_path / "nothing")}, 5) == []


def test_taints_that_all_nodes_have_are_told():
    usual = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    team = {"key": "team", "value": "vision", "effect": "NoSchedule"}
    soft = {"key": "slow", "effect": "PreferNoSchedule"}
    items = [node("a", {GPU: "2"}, A100, taints=[usual, team]), node("b", {GPU: "2"}, A100, taints=[soft, team])]
    (pool,) = pools(parse_node_list(json.dumps({"items": items}))[1], {})
    assert pool.features == ["taint team=vision:NoSchedule"]


def test_a_cluster_without_gpus_asks_for_no_pods(tmp_path):
    _, found, unread = parse_node_list(json.dumps({"items": [node("cpu", {})]}))
    assert (found, unread) == ([], 0)


def test_more_in_use_than_there_are_is_unknown():
    _, nodes, _ = parse_node_list(json.dumps({"items": [node("a", {GPU: "2"}, A100)]}))
    (pool,) = pools(nodes, {("a", GPU): 3})
    assert (pool.total, pool.free, pool.not_free) == (2, None, {})


@pytest.mark.parametrize(
    ("count", "total"),
    [("8", 8), (8, 8), ("1k", 1000), ("8.5", None), ("-1", None), (True, None), (None, None), ("8Gi", None)],
)
def test_quantities(count, total):
    _, found, unread = parse_node_list(json.dumps({"items": [node("a", {GPU: count})]}))
    assert [one.allocatable for one in found] == ([] if total is None else [total])
    assert unread == (total is None)


def test_a_request_that_cannot_be_read_makes_the_use_unknown():
    for strange in (pod("a", "Running", {GPU: "some"}), 7, {"spec": {"nodeName": "a", "containers": None}}):
        assert parse_pod_list(json.dumps({"items": [strange]})) is None
    always = {"name": "s", "restartPolicy": "Always", "resources": {"limits": {GPU: "1"}}}
    sidecar = pod("a", "Running", {GPU: "1"}, init=(always,))
    assert parse_pod_list(json.dumps({"items": [sidecar]})) == {("a", GPU): 2}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from([
            "items", "metadata", "name", "labels", "status", "allocatable", "spec", "containers", "initContainers",
            "resources", "limits", "requests", "nodeName", "phase", "conditions", "nodeInfo", "taints",
            "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.product", "nvidia.com/gpu.memory",
            "nvidia.com/gpu.replicas",
        ]),
        inner,
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


def check_sound(nodes_text: str, pods_text: str) -> None:
    _, found, unread = parse_node_list(nodes_text)
    assert unread >= 0
    for pool in pools(found, parse_pod_list(pods_text)):
        assert pool.total > 0 and all(count > 0 for count in pool.not_free.values())
        if pool.free is not None:
            assert pool.free >= 0 and pool.free + sum(pool.not_free.values()) == pool.total
        assert pool.most_free_on_a_node is None or 0 <= pool.most_free_on_a_node <= pool.most_on_a_node


@fuzzed
@given(json_values, json_values)
def test_any_json_is_read_or_said_to_be_unreadable(nodes, pods):
    check_sound(json.dumps(nodes), json.dumps(pods))
    check_sound(json.dumps({"items": [nodes]}), json.dumps({"items": [pods]}))


@fuzzed
@given(st.text(max_size=200))
def test_any_text_is_read_or_said_to_be_unreadable(text):
    assert parse_node_list(text)[1] == []
    assert parse_pod_list(text) in (None, {})


def test_deeply_nested_text_is_unreadable():
    assert parse_node_list("[" * 200_000) == (None, [], 1)


@fuzzed
@given(st.data())
def test_damaged_answers_keep_the_counts_sound(data):
    """Real shapes with parts replaced by something else."""
    lists = [json.loads(json.dumps({"items": NODES})), json.loads(json.dumps({"items": PODS}))]
    for whole in lists:
        for _ in range(data.draw(st.integers(0, 4))):
            at: Any = whole
            for _ in range(data.draw(st.integers(1, 6))):
                keys = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
                if not keys:
                    break
                key = data.draw(st.sampled_from(keys))
                if data.draw(st.booleans()) and not isinstance(at[key], (dict, list)):
                    at[key] = data.draw(json_values)
                    break
                if not isinstance(at[key], (dict, list)):
                    break
                at = at[key]
    check_sound(*map(json.dumps, lists))
