"""Kubernetes through `kubectl`: which GPUs its nodes have and how many no pod has asked for. Only `get`.

A pod asks for whole units of an extended resource (nvidia.com/gpu, amd.com/gpu, a MIG profile), and a node's free
units are its allocatable ones less those of the pods bound to it, as the scheduler counts them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..probe.child import run_child
from .asker import Asker, find_program
from .report import Cluster, GpuPool, GpuTotal

MIB = 1024**2
_GPU = re.compile(r"nvidia\.com/(gpu(\.shared)?|mig-[0-9a-z.+\-]{1,40})|amd\.com/gpu|gpu\.intel\.com/(i915|xe)")
# Labels that name the card: NVIDIA's and AMD's feature discovery, GKE, EKS, AKS.
_PRODUCT_LABELS = (
    "nvidia.com/gpu.product", "amd.com/gpu.product-name", "beta.amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator", "k8s.amazonaws.com/accelerator", "kubernetes.azure.com/accelerator",
)  # fmt: skip
_FINISHED = ("Succeeded", "Failed")


@dataclass
class NodeGpus:
    """One resource of one node. `problem` says why no pod can go there now."""

    node: str
    resource: str
    product: str | None
    memory_bytes: int | None
    replicas: int | None
    allocatable: int
    problem: str | None
    taints: list[str]


def read_kubernetes(environ: Mapping[str, str], limit_s: float, run: Callable[..., Any] = run_child) -> list[Cluster]:
    """The cluster of kubectl's current context; an empty list without kubectl or without a context.

    Inside a pod kubectl needs no context. Where the user may not list nodes or pods, a problem says so.
    """
    kubectl = find_program("kubectl", environ)
    if kubectl is None:
        return []
    asker = Asker(environ, limit_s, run)
    context, why = asker.listen([kubectl, "config", "current-context"])
    name = context.strip()[:200] or None
    in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    if name is None and not in_pod:
        if why is None or "current-context is not set" in why:
            return []
        asker.problems.append(f"kubectl: {why}")
        return [Cluster("kubernetes", None, problems=asker.problems, summary="Kubernetes: kubectl cannot be asked")]
    cluster = Cluster("kubernetes", name or "the cluster of this pod", problems=asker.problems)
    patience = f"--request-timeout={max(1, int(limit_s))}s"
    nodes = asker.ask([kubectl, "get", "nodes", "-o", "json", patience])
    if nodes is None:
        cluster.summary = f"Kubernetes {cluster.name}: its nodes could not be read"
        return [cluster]
    version, found, unread = parse_node_list(nodes)
    if unread:
        asker.problems.append(f"kubectl: {unread} nodes could not be read and are not counted")
    cluster.version = version
    used: dict[tuple[str, str], int] | None = {}
    if found:
        every = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
        pods = asker.ask([kubectl, "get", "pods", "--all-namespaces", every, "-o", "json", patience])
        used = None if pods is None else parse_pod_list(pods)
        if pods is not None and used is None:
            asker.problems.append("kubectl: the list of pods could not be read")
        if used is None:
            asker.problems.append("how many GPUs are free is not known: the pods of all namespaces could not be read")
    cluster.pools = pools(found, used)
    cluster.totals = [GpuTotal(_label(p), p.nodes, p.total, p.free, p.not_free) for p in cluster.pools]
    kinds = [f"{t.type} {'?' if t.free is None else t.free} of {t.total} free" for t in cluster.totals]
    cluster.summary = f"Kubernetes {cluster.name}: {', '.join(kinds) or 'no GPU'}"
    return [cluster]


def parse_node_list(text: str) -> tuple[str | None, list[NodeGpus], int]:
    """`kubectl get nodes -o json`: (kubelet version, GPUs by node and resource, nodes that could not be read)."""
    items = _items(text)
    if items is None:
        return None, [], 1
    version = None
    found: list[NodeGpus] = []
    unread = 0
    for item in items:
        metadata, status = _map(item, "metadata"), _map(item, "status")
        name, allocatable = metadata.get("name"), status.get("allocatable")
        if not isinstance(name, str) or not isinstance(allocatable, dict):
            unread += 1
            continue
        kubelet = _map(status, "nodeInfo").get("kubeletVersion")
        version = version or (kubelet if isinstance(kubelet, str) else None)
        labels = _map(metadata, "labels")
        for resource, value in allocatable.items():
            if not _GPU.fullmatch(resource):
                continue
            count = _whole(value)
            if count is None:
                unread += 1
            elif count > 0:
                found.append(_of_node(name, resource, count, labels, item))
    return version, found, unread


def _of_node(name: str, resource: str, count: int, labels: Mapping[str, Any], item: Mapping[str, Any]) -> NodeGpus:
    product = next((labels[key] for key in _PRODUCT_LABELS if isinstance(labels.get(key), str)), None)
    memory = _whole(labels.get("nvidia.com/gpu.memory")) if resource.startswith("nvidia.com/gpu") else None
    replicas = _whole(labels.get("nvidia.com/gpu.replicas")) if resource.startswith("nvidia.com/") else None
    ready = [
        one.get("status")
        for one in _list(_map(item, "status"), "conditions")
        if isinstance(one, dict) and one.get("type") == "Ready"
    ]
    problem = None
    if ready != ["True"]:
        problem = "not ready"
    elif _map(item, "spec").get("unschedulable") is True:
        problem = "cordoned"
    memory_bytes = memory * MIB if memory else None
    return NodeGpus(name, resource, product, memory_bytes, replicas, count, problem, _taints(item))


def _taints(item: Mapping[str, Any]) -> list[str]:
    """Taints that keep a pod away, in kubectl's spelling. Those on the GPU itself are tolerated by whoever asks for it
    (admission plugin ExtendedResourceToleration, or the device plugin's usual toleration)."""
    found = []
    for taint in _list(_map(item, "spec"), "taints"):
        key, effect = (taint.get("key"), taint.get("effect")) if isinstance(taint, dict) else (None, None)
        if isinstance(key, str) and effect in ("NoSchedule", "NoExecute") and not _GPU.fullmatch(key):
            value = taint.get("value")
            found.append(f"taint {key}{f'={value}' if isinstance(value, str) and value else ''}:{effect}")
    return found


def parse_pod_list(text: str) -> dict[tuple[str, str], int] | None:
    """`kubectl get pods -o json`: units in use by (node, resource). None where a request could not be read."""
    items = _items(text)
    if items is None:
        return None
    used: dict[tuple[str, str], int] = {}
    for item in items:
        spec = item.get("spec")
        if not isinstance(spec, dict):
            return None
        node = spec.get("nodeName")
        if not isinstance(node, str) or _map(item, "status").get("phase") in _FINISHED:
            continue
        if not isinstance(spec.get("containers"), list):
            return None
        asked = _asked(spec)
        if asked is None:
            return None
        for resource, count in asked.items():
            used[node, resource] = used.get((node, resource), 0) + count
    return used


def _asked(spec: Mapping[str, Any]) -> dict[str, int] | None:
    """A pod's units by resource: containers together, or the one init container that asks for more.

    An init container with restartPolicy Always keeps running and counts beside the others (Kubernetes 1.29).
    """
    together: dict[str, int] = {}
    alone: dict[str, int] = {}
    for key in ("initContainers", "containers"):
        for container in _list(spec, key):
            if not isinstance(container, dict):
                return None
            resources = _map(container, "resources")
            wanted = dict(_map(resources, "limits"))
            wanted.update(_map(resources, "requests"))
            for resource, value in wanted.items():
                if not _GPU.fullmatch(resource):
                    continue
                count = _whole(value)
                if count is None:
                    return None
                if key == "containers" or container.get("restartPolicy") == "Always":
                    together[resource] = together.get(resource, 0) + count
                else:
                    alone[resource] = max(alone.get(resource, 0), count)
    return {name: max(together.get(name, 0), alone.get(name, 0)) for name in (*together, *alone)}


def pools(nodes: list[NodeGpus], used: Mapping[tuple[str, str], int] | None) -> list[GpuPool]:
    """GPUs by (resource, product, memory). Free is None where it is not known what pods use."""
    grouped: dict[tuple[str, str | None, int | None, int | None], list[NodeGpus]] = {}
    for node in nodes:
        key = (node.resource, node.product, node.memory_bytes, node.replicas)
        grouped.setdefault(key, []).append(node)
    found = []
    for (resource, product, memory, replicas), members in grouped.items():
        free: int | None = 0
        most: int | None = 0
        not_free: dict[str, int] = {}
        for node in members:
            taken = None if used is None else used.get((node.node, resource), 0)
            if taken is not None and taken > node.allocatable:
                taken = None  # pods of another moment than the nodes
            if taken:
                not_free["in use"] = not_free.get("in use", 0) + taken
            left = None if taken is None else node.allocatable - taken
            if node.problem:
                closed = node.allocatable if left is None else left
                if closed:
                    not_free[node.problem] = not_free.get(node.problem, 0) + closed
                left = 0
            free = None if left is None or free is None else free + left
            most = None if left is None or most is None else max(most, left)
        pool = GpuPool(
            partition=None,
            type=product,
            resource=resource,
            nodes=len(members),
            total=sum(node.allocatable for node in members),
            free=free,
            not_free=not_free,
            most_on_a_node=max(node.allocatable for node in members),
            most_free_on_a_node=most,
            features=[taint for taint in members[0].taints if all(taint in node.taints for node in members)],
        )
        if (
            (replicas is not None and replicas > 1)
            or resource.endswith(".shared")
            or (product or "").endswith("-SHARED")
        ):
            pool.shared = "the card is time-sliced: each unit is a turn on it and none has its memory to itself"
        if memory is not None:
            pool.memory_bytes = pool.memory_most_bytes = memory
            pool.memory_basis = "label nvidia.com/gpu.memory (NVML's total)"
        found.append(pool)
    return found


def _label(pool: GpuPool) -> str:
    """Product, or for a slice product and profile: a node's slices carry the label of the whole card."""
    part = pool.resource.split("/", 1)[1] if "/mig-" in pool.resource else None
    return " ".join(word for word in (pool.type, part) if word) or pool.resource


def _items(text: str) -> list[dict[str, Any]] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        return None
    return [item if isinstance(item, dict) else {} for item in items]


def _map(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = of.get(key)
    return value if isinstance(value, dict) else {}


def _list(of: Mapping[str, Any], key: str) -> list[Any]:
    value = of.get(key)
    return value if isinstance(value, list) else []


def _whole(value: Any) -> int | None:
    """A quantity that is a whole number: "4" or 4, and Kubernetes' "1k" for a thousand."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    found = re.fullmatch(r"([0-9]{1,12})(k?)", str(value))
    return int(found[1]) * (1000 if found[2] else 1) if found else None
