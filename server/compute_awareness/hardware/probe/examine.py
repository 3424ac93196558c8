"""A look at this machine: every probe side by side, each under its own limit, each failing alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...units import gib
from .amd import AmdReport, probe_amd
from .apple import probe_apple
from .environment import harmless, probe_environment, tell_accelerators
from .host import existing, free_disk, free_inodes, hugging_face_cache, probe_host
from .intel import SMI_LIMIT_S as INTEL_LIMIT_S
from .intel import probe_intel
from .interpreter import ANSWER_LIMIT_S, IMPORT_LIMIT_S, probe_python
from .job import probe_job
from .limits import probe_limits
from .mounts import mount_of, read_mounts
from .nvidia import NO_DRIVER, NVML_LIMIT_S, SMI_LIMIT_S, probe_nvidia
from .nvidia_cards import NvidiaReport
from .pythons.choose import choose_python
from .pythons.listing import Candidate, doubt, offered
from .quota import QUOTA_LIMIT_S, probe_quota
from .report import (
    FORMAT,
    Accelerator,
    Environment,
    EnvironmentLayer,
    Host,
    Interpreter,
    Limits,
    ProbeProblem,
    WorkspacePython,
)
from .tpu import probe_tpu

_FILE_LIMIT_S = 5.0
_CLUSTER_LIMIT_S = 10.0  # of each scheduler
# What a child may overrun its limit by while it is being killed.
_GRACE_S = 3.0
_SETTINGS = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING",
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "ZE_AFFINITY_MASK",
    "TPU_VISIBLE_CHIPS",
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip


def examine(
    python: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    root: Path = Path("/"),
    with_python: bool = True,
    running: bool = False,
) -> dict[str, Any]:
    """What compute there is on this machine, memory in bytes: the fields of the report, by name.

    `python` is the experiment's Python (a file, a virtual environment's folder or a command); without it one is
    looked for from `environ` and `cwd` (by default this process's own). `root` is where /proc, /sys and /etc are
    read. `running`: the experiment's Python is the one that runs this, as in a notebook's kernel, where none is named.
    A probe that fails or does not end is told under `problems`; the rest of the report stands.

    Raises:
        InputError: `python` is not found, not executable or not a Python.
    """
    variables = dict(os.environ if environ is None else environ)
    folder = cwd if cwd is not None else _working_folder()
    probes: dict[str, tuple[Callable[[], Any], float]] = {
        "nvidia": (lambda: probe_nvidia(variables, root), NVML_LIMIT_S + SMI_LIMIT_S + _GRACE_S),
        "amd": (lambda: probe_amd(variables, root), _FILE_LIMIT_S),
        "intel": (lambda: probe_intel(variables, root), INTEL_LIMIT_S + _GRACE_S),
        "tpu": (lambda: probe_tpu(variables, root), _FILE_LIMIT_S),
        "apple": (lambda: probe_apple(variables), _FILE_LIMIT_S + _GRACE_S),
        "host": (lambda: probe_host(variables, root), _FILE_LIMIT_S),
        "disk": (lambda: _disk(variables, root), _FILE_LIMIT_S),
        "quota": (lambda: _quota(variables, root), 2 * QUOTA_LIMIT_S + 1.0),
        "limits": (lambda: probe_limits(root), _FILE_LIMIT_S),
        "job": (lambda: probe_job(variables), _FILE_LIMIT_S + _GRACE_S),
        "environment": (lambda: probe_environment(variables, root), _FILE_LIMIT_S),
        "clusters": (lambda: _clusters(variables), 3 * _CLUSTER_LIMIT_S + _GRACE_S),
    }
    if with_python:
        limit = 2 * ANSWER_LIMIT_S + IMPORT_LIMIT_S + _GRACE_S
        probes["python"] = (lambda: _python(python, variables, folder, root, running), limit)
    found, problems = _side_by_side(probes)

    host = found.get("host") or Host(
        os=platform.system(), cpus=float(os.cpu_count() or 1), ram_total_bytes=0, ram_available_bytes=0
    )
    if "disk" in found:
        for name, value in found["disk"].items():
            setattr(host, name, value)
    quota = found.get("quota")
    if quota is not None and (host.disk_free_bytes is None or quota[0] < host.disk_free_bytes):
        host.disk_free_bytes, host.disk_limited_by = quota
    limits: Limits | None = found.get("limits")
    if limits is not None:
        limits.job = found.get("job")
    nvidia: NvidiaReport = found.get("nvidia") or NvidiaReport()
    amd: AmdReport = found.get("amd") or AmdReport()
    tpus, tpu_problems = found.get("tpu") or ([], [])
    cards = [*nvidia.cards, *amd.cards, *found.get("intel", []), *tpus, *found.get("apple", [])]
    if "host" in found:
        for card in cards:
            _fill_from_ram(card, host)
    # A machine with another maker's card misses no NVIDIA driver.
    missed = [p for p in nvidia.problems if p.reason != NO_DRIVER or not cards]
    problems = [*missed, *amd.problems, *tpu_problems, *problems]
    interpreter: Interpreter | None
    interpreter, interpreters = found.get("python") or (None, [])
    if with_python and interpreter is None and not any(p.probe == "python" for p in problems):
        problems.append(ProbeProblem(probe="python", reason="no Python was found; name one with --python"))
    environment = found.get("environment") or _unknown_place()
    tell_accelerators(environment, cards, bool(cards) or _looked(problems))
    return {
        "host": host,
        "environment": environment,
        "accelerators": cards,
        "links": [*nvidia.links, *amd.links],
        "driver_version": nvidia.driver_version,
        "driver_cuda_version": nvidia.driver_cuda_version,
        "python": interpreter,
        "interpreters": interpreters,
        "settings": _settings(variables),
        "limits": limits,
        "clusters": found.get("clusters", []),
        "problems": problems,
        "format": FORMAT,
        "summary": summarise(host, environment, cards, interpreter),
    }


def report_json(python: str | None = None, running: bool = False) -> str:
    """The report of this machine as one line of JSON, in ASCII: what the script prints. Arguments as in `examine`."""

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        raise TypeError(f"{type(value).__name__} is no part of a report")

    return json.dumps(examine(python, running=running), default=plain, allow_nan=False)


def summarise(
    host: Host, environment: Environment, accelerators: list[Accelerator], interpreter: Interpreter | None
) -> str:
    """The report in one sentence."""
    cards = [card for card in accelerators if card.visible and card.problem is None]
    uncovered = [card for card in accelerators if card.visible and card.kind in ("xpu", "tpu")]
    hidden = len(accelerators) - len(cards) - len(uncovered)
    if cards:
        counts = Counter(_card_text(card) for card in cards)
        texts = [f"{count} x {text} each" if count > 1 else text for text, count in counts.most_common()]
        more = f" and {len(texts) - 4} other kinds or fillings" if len(texts) > 4 else ""
        gpu = "; ".join(texts[:4]) + more + (f" ({hidden} not usable or hidden)" if hidden else "")
    elif uncovered:
        gpu = f"{len(uncovered)} x {uncovered[0].name}, for which nothing is estimated"
    elif hidden:
        gpu = f"no usable GPU ({hidden} not usable or hidden)"
    else:
        gpu = "no GPU found"
    ram = "RAM unknown"
    if host.ram_total_bytes:
        ram = f"{gib(host.ram_available_bytes)} of {gib(host.ram_total_bytes)} RAM free"
    cpus = f"{host.cpus:g} CPU{'' if host.cpus == 1 else 's'}"
    python = ""
    if interpreter is not None:
        torch = interpreter.torch
        if torch is None:
            build = "torch not known" if interpreter.problem else "no torch"
        elif torch.cuda_build:
            build = f"torch {torch.version} for CUDA {torch.cuda_build}"
        elif torch.hip_build or torch.xpu_build:
            build = f"torch {torch.version} for {'ROCm' if torch.hip_build else 'XPU'}"
        else:
            build = f"torch {torch.version} without CUDA"
        python = f", {build} in {interpreter.path}"
    return f"{environment.primary}: {gpu}, {ram}, {cpus}{python}."


def _card_text(card: Accelerator) -> str:
    if card.free_bytes is None or card.total_bytes is None:
        return f"{card.name} (memory not known)"
    shared = " shared with the system" if card.unified else ""
    return f"{card.name} with {gib(card.free_bytes)} of {gib(card.total_bytes)}{shared} free"


def _side_by_side(probes: Mapping[str, tuple[Callable[[], Any], float]]) -> tuple[dict[str, Any], list[ProbeProblem]]:
    """Results by name, and a problem for each probe that failed or is not done in time. Lets InputError through.

    Daemon threads and no pool: a pool waits for its threads when the program ends, and one may hang on a dead disk.
    """
    results: dict[str, Any] = {}
    failures: dict[str, Exception] = {}

    def work(name: str, probe: Callable[[], Any]) -> None:
        try:
            results[name] = probe()
        except Exception as error:
            failures[name] = error

    started = time.monotonic()
    threads = {}
    for name, (probe, _) in probes.items():
        here = copy_context()  # with who may end it: `child.ended_by`
        threads[name] = threading.Thread(target=here.run, args=(work, name, probe), daemon=True, name=f"probe-{name}")
        threads[name].start()
    found: dict[str, Any] = {}
    problems = []
    for name, (_, limit) in probes.items():
        threads[name].join(max(0.0, started + limit - time.monotonic()))
        error = failures.get(name)
        if isinstance(error, InputError):
            raise error
        if error is not None:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            problems.append(ProbeProblem(probe=name, reason=f"could not be read ({text})"))
        elif name in results:
            found[name] = results[name]
        else:
            problems.append(ProbeProblem(probe=name, reason=f"did not end within {limit:g} s and was left behind"))
    return found, problems


def _clusters(environ: Mapping[str, str]) -> list[Any]:
    """The schedulers that can be asked from here; their readers are imported only where a program of one is at hand."""
    path = environ.get("PATH", os.defpath)
    if not any(shutil.which(program, path=path) for program in ("sinfo", "kubectl", "ray")):
        return []
    from ..cluster.probe import probe_cluster

    return probe_cluster(environ, _CLUSTER_LIMIT_S)


def _python(
    python: str | None, environ: Mapping[str, str], cwd: Path, root: Path, running: bool = False
) -> tuple[Interpreter | None, list[WorkspacePython]]:
    """The experiment's Python, and every Python at hand."""
    choice = choose_python(python, environ, cwd, running, root)
    if choice is None:
        return None, offered(environ, cwd, root)
    interpreter = probe_python(choice, environ)
    listed = offered(environ, cwd, root, Candidate(choice.path, choice.source))
    if interpreter.torch is not None:
        # What it says of itself counts more than its files.
        for entry in listed:
            if entry.chosen:
                entry.has_torch, entry.torch = True, interpreter.torch.version
    interpreter.doubt = doubt(listed, interpreter.torch is not None)
    return interpreter, listed


def _disk(environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    """The fields of Host about the disk of the model cache."""
    folder = hugging_face_cache(environ)
    mount = mount_of(existing(folder).resolve(), read_mounts(root))
    return {
        "disk_path": str(folder),
        "disk_free_bytes": free_disk(folder),
        "disk_free_inodes": free_inodes(folder),
        "disk_filesystem": f"{mount.filesystem} on {mount.point}" if mount else None,
        "disk_kind": mount.kind if mount else None,
    }


def _quota(environ: Mapping[str, str], root: Path) -> tuple[int, str] | None:
    folder = existing(hugging_face_cache(environ)).resolve()
    return probe_quota(folder, mount_of(folder, read_mounts(root)), environ)


def _fill_from_ram(card: Accelerator, host: Host) -> None:
    """A card without memory of its own can have what the RAM has; the driver gives no figure for it."""
    if not card.unified or card.problem is not None:
        return
    if card.total_bytes is None:
        card.total_bytes = host.ram_total_bytes
    if card.free_bytes is None:
        card.free_bytes = min(card.total_bytes, host.ram_available_bytes)
        card.used_bytes = card.total_bytes - card.free_bytes


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    values = {name: environ[name] for name in _SETTINGS if name in environ}
    return {name: value if not value or harmless(value) else "(set)" for name, value in values.items()}


def _looked(problems: list[ProbeProblem]) -> bool:
    """Whether no card means that there is none: a driver that is broken or hangs hides one."""
    return not any(p.probe in ("nvidia", "apple") and p.reason != NO_DRIVER for p in problems)


def _unknown_place() -> Environment:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["could not be read"])
    return Environment(primary="local", layers=[layer], clear=False)


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        return Path.home()
