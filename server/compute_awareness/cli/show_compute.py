"""The report of a machine, and the doctor's findings, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from ..hardware.compute import Accelerator, Cluster, Compute, GpuProcess, TorchBuild
from ..units import duration, gib
from .show import bullets, heading, pairs, say, screen, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..hardware.finding import Finding

SEVERITY = {"error": ("ERROR", "bold red"), "warning": ("WARNING", "bold yellow"), "info": ("note", "dim")}

_HIDES = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "ROCR_, HIP_ or CUDA_VISIBLE_DEVICES",
    "xpu": "ZE_AFFINITY_MASK",
    "mps": "the environment",
    "tpu": "TPU_VISIBLE_CHIPS",
}


def show_compute(compute: Compute, to: Console | None = None) -> None:
    """The whole report; by default on standard output."""
    to = to or screen()
    if compute.summary:
        say(to, compute.summary, "bold")
    _show_environment(to, compute)
    _show_cards(to, compute)
    _show_host(to, compute)
    _show_python(to, compute)
    for cluster in compute.clusters:
        _show_cluster(to, cluster)
    if compute.problems:
        heading(to, "Probes that failed")
        bullets(to, (f"{p.probe}: {p.reason}" for p in compute.problems), "!", "bold yellow")


def _show_cluster(to: Console, cluster: Cluster) -> None:
    version = f" {cluster.version}" if cluster.version else ""
    heading(to, f"{cluster.scheduler}{version}: {cluster.name or 'no name told'}")
    if cluster.summary:
        say(to, f"  {cluster.summary}")
    rows = []
    for pool in cluster.pools:
        least, most = pool.memory_bytes, pool.memory_most_bytes
        memory = "?" if least is None else gib(least) if most in (None, least) else f"{gib(least)} to {gib(most)}"
        part = next((part for part in cluster.partitions if part.name == pool.partition), None)
        limit = "" if part is None else "unlimited" if part.unlimited_time else _hours(part.max_time_s)
        why = ", ".join(f"{count} {reason}" for reason, count in pool.not_free.items())
        free = "?" if pool.free is None else pool.free
        use = "" if part is None or part.access == "unknown" else part.access
        rows.append((pool.partition or "", pool.type or pool.resource, memory, free, pool.total, why, limit, use))
    if rows:
        columns = ("partition", "GPU", "memory", "free", "of", "not free", "longest", "yours")
        table(to, columns, rows, right=(3, 4))
    bullets(to, cluster.problems, "!", "bold yellow")


def _hours(seconds: int | None) -> str:
    return "?" if seconds is None else duration(seconds)


def show_doctor(compute: Compute, findings: Sequence[Finding], model: str | None, download: int | None) -> None:
    """The report, then what is wrong with it, worst first; `download` is in bytes, None = not known."""
    show_compute(compute)
    to = screen()
    if model is not None:
        heading(to, f"Download of {model}")
        say(to, "  size not known" if download is None else f"  {gib(download)}")
    heading(to, "Diagnosis")
    if not findings:
        say(to, "  Nothing is wrong that can be seen from here.", "green")
    for finding in sorted(findings, key=lambda f: list(SEVERITY).index(f.severity)):
        word, style = SEVERITY[finding.severity]
        to.print(text(f"  {word}", style).append(text(f"  {finding.message}")), soft_wrap=not to.is_terminal)
        if finding.cure:
            say(to, f"      {finding.cure}")


def _show_environment(to: Console, compute: Compute) -> None:
    environment = compute.environment
    heading(to, f"Environment: {environment.primary}" + ("" if environment.clear else " (not clear)"))
    rows = [(layer.id, layer.layer, layer.confidence, ", ".join(layer.evidence)) for layer in environment.layers]
    table(to, ("what", "layer", "sure", "seen by"), rows)
    for layer in environment.layers:
        if layer.details:
            say(to, f"  {layer.id}: " + ", ".join(f"{name} {value}" for name, value in layer.details.items()))
    bullets(
        to, (f"{layer.id}, {about}: {says}" for layer in environment.layers for about, says in layer.implies.items())
    )


def _show_cards(to: Console, compute: Compute) -> None:
    heading(to, "Accelerators")
    if compute.driver_version:
        cuda = f", CUDA up to {compute.driver_cuda_version}" if compute.driver_cuda_version else ""
        say(to, f"  NVIDIA driver {compute.driver_version}{cuda}")
    if not compute.accelerators:
        say(to, "  none seen")
        return
    rows = [
        (a.index, a.name, _size(a.total_bytes), _size(a.used_bytes), _size(a.free_bytes), _remark(a))
        for a in compute.accelerators
    ]
    table(to, ("", "card", "total", "used", "free", "remarks"), rows, right=(0, 2, 3, 4))
    for link in compute.links:
        lanes = f" ({link.lanes} links)" if link.lanes else ""
        pairs_of = "every pair of cards" if link.pairs == ["all"] else f"cards {', '.join(link.pairs)}"
        say(to, f"  {pairs_of}: {link.link.replace('_', ' ')}{lanes}")


def _size(n: int | None) -> str:
    return "?" if n is None else gib(n)


def _remark(card: Accelerator) -> str:
    said = [
        card.problem,
        f"compute capability {card.compute_capability}" if card.compute_capability else card.arch,
        _abilities(card),
        None if card.visible else f"hidden by {_HIDES[card.kind]}",
        None if card.mig_of is None else f"MIG slice of card {card.mig_of}",
        {"vgpu": "a vGPU: a share of a card", "passthrough": "handed to this virtual machine"}.get(card.virtual or ""),
        "MPS daemon" if card.mps else None,
        "one process at a time" if card.compute_mode == "exclusive_process" and not card.mps else None,
        f"{_size(card.reserved_bytes)} kept by the driver" if card.reserved_bytes else None,
        f"{_size(card.ecc_lost_bytes)} taken by ECC" if card.ecc_lost_bytes else None,
        *(_holds(p) for p in card.processes[:4]),
        f"and {more} more processes" if (more := len(card.processes[4:]) + card.processes_left_out) else None,
        f"{_size(card.free_without_others_bytes)} free without others" if card.free_without_others_bytes else None,
        None if card.processes_told else "its processes are not told",
    ]
    return "; ".join(s for s in said if s)


def _abilities(card: Accelerator) -> str | None:
    can = card.supports
    if can is None:
        return None
    missing = [name for name, there in (("bf16", can.bf16), ("flash attention", can.flash_attention)) if not there]
    return f"no {' and no '.join(missing)}" if missing else None


def _holds(process: GpuProcess) -> str:
    whose = "your own " if process.own else f"{process.user}'s " if process.user else ""
    name = f" ({process.name})" if process.name else ""
    return f"{whose}pid {process.pid}{name} holds {_size(process.used_bytes)}"


def _show_host(to: Console, compute: Compute) -> None:
    host = compute.host
    limit = f" (limited by {host.ram_limited_by})" if host.ram_limited_by else ""
    disk = f"{gib(host.disk_free_bytes)} free at {host.disk_path}" if host.disk_free_bytes is not None else None
    if disk and host.disk_filesystem:
        disk += f" ({host.disk_filesystem}{f', {host.disk_kind}' if host.disk_kind else ''})"
    if disk and host.disk_limited_by:
        disk += f", limited by {host.disk_limited_by}"
    heading(to, "Host")
    pairs(
        to,
        [
            ("system", f"{host.os} {host.hostname}".strip()),
            ("CPUs", f"{host.cpus:g}"),
            ("RAM", f"{gib(host.ram_available_bytes)} available of {gib(host.ram_total_bytes)}{limit}"),
            ("disk", disk),
            ("shared memory", _shm(compute)),
            ("ulimits", _ulimits(compute)),
            ("job", _job(compute)),
            ("seen from", compute.seen_from if compute.seen_from != "this machine" else None),
        ],
    )


def _shm(compute: Compute) -> str | None:
    limits = compute.limits
    if limits is None or limits.shm_total_bytes is None:
        return None
    return f"{_size(limits.shm_free_bytes)} free of {gib(limits.shm_total_bytes)} at /dev/shm"


def _ulimits(compute: Compute) -> str | None:
    limits = compute.limits
    if limits is None:
        return None
    said = [
        f"address space {gib(limits.address_space_bytes)}" if limits.address_space_bytes is not None else None,
        f"{limits.processes} processes" if limits.processes is not None else None,
        f"{limits.open_files} open files" if limits.open_files is not None else None,
    ]
    return ", ".join(s for s in said if s) or None


def _job(compute: Compute) -> str | None:
    job = compute.limits.job if compute.limits else None
    if job is None:
        return None
    said = [
        job.source,
        f"{gib(job.memory_bytes)} RAM" if job.memory_bytes is not None else None,
        f"{job.cpus:g} CPUs" if job.cpus is not None else None,
        f"ends in {duration(job.seconds_left)}" if job.seconds_left is not None else None,
        "shares a GPU with others" if job.gpu_shares else None,
    ]
    return ", ".join(s for s in said if s)


def _show_python(to: Console, compute: Compute) -> None:
    python = compute.python
    heading(to, "The experiment's Python")
    if python is None:
        say(to, "  none found; name one with --python")
        return
    torch = python.torch
    on_gpu = None
    if torch is not None:
        backends = [n for n, there in _backends(torch) if there]
        builds = (("CUDA", torch.cuda_build), ("ROCm (HIP)", torch.hip_build), ("XPU", torch.xpu_build))
        build = next((f"built for {name} {of}" for name, of in builds if of), "CPU-only build")
        on_gpu = f"{torch.version}, {build}, available: {', '.join(backends) or 'cpu only'}"
    held = None
    if torch is not None and torch.allocated_bytes is not None:
        held = f"{gib(torch.allocated_bytes)} allocated, {gib(torch.reserved_bytes or 0)} reserved"
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(python.libraries.items()))
    pairs(
        to,
        [
            ("path", f"{python.path} ({python.source})"),
            ("version", python.version),
            ("torch", on_gpu or ("not installed" if python.problem is None else None)),
            ("torch memory", held),
            ("libraries", libraries),
            ("problem", python.problem),
            ("not sure", python.doubt),
        ],
    )
    _show_other_pythons(to, compute)


def _backends(torch: TorchBuild) -> list[tuple[str, bool]]:
    gpu = "rocm" if torch.hip_build else "cuda"
    return [(gpu, torch.cuda_available), ("mps", torch.mps_available), ("xpu", torch.xpu_available)]


def _show_other_pythons(to: Console, compute: Compute) -> None:
    others = [entry for entry in compute.interpreters if not entry.chosen]
    if not others:
        return
    heading(to, "Other Pythons at hand (not started; choose one with --python)")
    rows = []
    for entry in others:
        torch = {True: entry.torch or "yes", False: "none", None: "?"}[entry.has_torch]
        rows.append((entry.path, entry.kind, entry.version or "?", torch, "; ".join([entry.source, *entry.also])))
    table(to, ("Python", "kind", "version", "torch", "offered by"), rows)
