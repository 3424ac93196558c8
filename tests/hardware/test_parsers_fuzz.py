"""Text that other programs and kernels write, at random: never an exception, never a figure that is not in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_awareness.hardware.probe.cgroup import cpu_quota, memory_limit, process_limit
from compute_awareness.hardware.probe.environment import probe_environment
from compute_awareness.hardware.probe.figures import amount, whole
from compute_awareness.hardware.probe.job import job_cpus, job_memory, probe_job, time_left
from compute_awareness.hardware.probe.limits import probe_limits, soft_limits
from compute_awareness.hardware.probe.mounts import mount_of, parse_mounts, read_mounts
from compute_awareness.hardware.probe.quota import quota_lines
from compute_awareness.hardware.probe.ram import meminfo, vm_stat_available
from compute_awareness.units import KIB, MIB

slow_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)

# Whatever a file may hold, and words that look nearly right.
ODD = [
    "max",
    "-1",
    "-5",
    "1_000",
    "+7",
    "1e9",
    "0x10",
    "²",
    "١٢",
    "NaN",
    "inf",
    "9" * 30,
    "9" * 5000,
    "",
    "12 34",
    "7.5",
]
numbers = st.integers(0, 1 << 70).map(str)
words = st.one_of(st.sampled_from(ODD), numbers, st.text(max_size=12))
anything = st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "replace")))


def lines_of(*starts: str) -> st.SearchStrategy[str]:
    """Texts of lines that begin as the real ones do and go on as they like."""
    line = st.builds(lambda start, rest, end: f"{start}{rest}{end}", st.sampled_from(starts), words, words)
    return st.lists(st.one_of(line, anything), max_size=8).map("\n".join)


def figures_in(text: str) -> set[int]:
    """Every whole number that stands in `text`, as a person would read it."""
    return {int(found) for found in re.findall(r"[0-9]+", text) if len(found) <= 40}


@given(words)
def test_whole(text: str) -> None:
    number = whole(text)
    assert number is None or (str(number) == (text.strip().lstrip("0") or "0") and 0 <= number < 1 << 63)


@given(st.one_of(words, st.builds(lambda a, b: a + b, words, st.sampled_from(["Gi", "Mi", "G", "B", "GiB", "Pi"]))))
def test_amount(text: str) -> None:
    size = amount(text)
    if size is not None:
        value = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)", text)
        assert value is not None and float(value[1]) <= size <= float(value[1]) * (1 << 40) + 1


@given(lines_of("MemTotal: ", "MemAvailable: ", "MemFree: ", "MemTotal:", "HugePages_Total: "))
def test_meminfo(text: str) -> None:
    found = meminfo(text)
    if found is not None:
        total, available = found
        assert 0 <= available <= total and total > 0
        assert {total // KIB, available // KIB} <= figures_in(text)


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 40), anything)
def test_meminfo_amid_noise(total: int, available: int, noise: str) -> None:
    text = f"MemTotal:       {total} kB\nMemFree: 5 kB\nMemAvailable:   {available} kB\n{noise}"
    assert meminfo(text) == (total * KIB, min(total, available) * KIB)


@given(lines_of("Pages free: ", "Pages inactive: ", "Pages speculative:", "(page size of 16384 bytes)"))
def test_vm_stat(text: str) -> None:
    found = vm_stat_available(text)
    assert found is None or found >= 0


# Half the machines are whole, so that what is read from them is put together too.
whole_lines = st.sampled_from(["0::/", "0::/a", "5:memory:/a", "4:cpu,cpuacct:/a"])
CGROUP_LINES = st.one_of(
    st.lists(whole_lines, min_size=1, max_size=3).map("\n".join),
    lines_of("0::/", "0::/a/b", "5:memory:/a", "4:cpu,cpuacct:/a/b", "0::", "0::/../..", "7:memory", "::"),
)
V2_FILES = ("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max", "pids.max")
V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us")
small = st.integers(0, 99).map(str)
contents = st.one_of(small, small, words, st.builds(lambda a, b: f"{a} {b}", words, words), anything)


@slow_disk
@given(
    membership=CGROUP_LINES,
    v2=st.fixed_dictionaries({}, optional=dict.fromkeys(V2_FILES, contents)),
    v1=st.fixed_dictionaries({}, optional=dict.fromkeys(V1_FILES, contents)),
)
def test_cgroups(
    tmp_path_factory: pytest.TempPathFactory, membership: str, v2: dict[str, str], v1: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("cgroup")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership, encoding="utf-8", errors="replace")
    base = root / "sys/fs/cgroup"
    for folder, files in ((base, v2), (base / "a", v2), (base / "memory/a", v1), (base / "cpu,cpuacct/a", v1)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8", errors="replace")
    limit = memory_limit(root)
    written = figures_in("\n".join([*v2.values(), *v1.values()]))
    if limit is not None:
        assert limit.limit_bytes in written
        assert 0 <= limit.available_bytes <= limit.limit_bytes
    assert process_limit(root) in {None, *written}
    quota = cpu_quota(root)
    if quota is not None:
        assert quota > 0
        assert any(abs(quota - a / b) <= 1e-9 * quota for a in written for b in written if b)


@given(lines_of("/dev/sda1 / ext4 rw ", "nas:/x /home nfs4 ", "tmpfs /dev/shm tmpfs ", r"/dev/sdb /a\040b xfs rw "))
def test_mounts(text: str) -> None:
    mounts = parse_mounts(text)
    assert all(mount.point.startswith("/") for mount in mounts)
    assert len(mounts) <= text.count("\n") + 1
    found = mount_of(Path("/home/me/.cache"), mounts)
    assert found is None or found in mounts
    for mount in mounts:
        assert mount.kind in ("disk", "network", "memory", "overlay", None)


QUOTA_LINES = lines_of(
    "nas:/home 1 2 3 0 5 6 7 ", "/dev/sda1 1 2 3 0 5 6 ", "Disk quotas for user me (uid 1000): ",
    "     Filesystem  blocks ",
    "/lustre 308* 256 [512] 6d23h 5 0 0 ", "uid 6215 is using default block quota ", "  ",
)  # fmt: skip


@given(QUOTA_LINES)
def test_quota(text: str) -> None:
    for filesystem, used, allowed in quota_lines(text):
        assert used >= 0 and allowed > 0 and (filesystem == "" or filesystem.split()[0] in text)
        assert {used // KIB, allowed // KIB} <= figures_in(text)


@given(lines_of("Max address space ", "Max processes     ", "Max open files", "Max address space unlimited "))
def test_proc_limits(text: str) -> None:
    found = soft_limits(text)
    assert set(found) <= {"address_space_bytes", "processes", "open_files"}
    assert set(found.values()) <= figures_in(text)


@given(st.one_of(words, anything, st.from_regex(r"\A[0-9]{1,3}-[0-9]{2}:[0-9]{2}:[0-9]{2}\Z")))
def test_time_left_of_anything(text: str) -> None:
    seconds = time_left(text)
    assert seconds is None or seconds >= 0


JOB_NAMES = [
    "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_CPUS_ON_NODE",
    "SLURM_GPUS_ON_NODE", "SLURM_JOB_END_TIME", "SLURM_SHARDS_ON_NODE", "SPACE_ID", "SPACE_HOST", "JOB_ID", "MEMORY",
    "CPU_CORES", "ACCELERATOR",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(JOB_NAMES), st.one_of(words, st.just("a" * 24)), max_size=14))
def test_variables_of_jobs(variables: dict[str, str]) -> None:
    variables = {**variables, "PATH": "/nowhere"}
    memory = job_memory(variables)
    if memory is not None:
        size, source = memory
        assert size > 0 and all(variables.get(name) for name in source.split(" x "))
        if source != "MEMORY":
            factors = [int(variables[name]) for name in source.split(" x ")]
            assert size == factors[0] * (factors[1] if len(factors) > 1 else 1) * MIB
    cpus = job_cpus(variables)
    assert cpus is None or cpus > 0
    job = probe_job(variables, now=0)
    assert job is None or (job.seconds_left is None or job.seconds_left >= 0)


ENV_FILES = (
    "etc/rp_environment",
    "etc/environment",
    "proc/1/environ",
    "proc/self/cgroup",
    "proc/cpuinfo",
    "proc/version",
)
env_text = lines_of(
    "export RUNPOD_POD_ID=", "RUNPOD_POD_ID", "VAST_CONTAINERLABEL=", "container=", "export ", "=", "MODAL_TASK_ID=",
    "0::/system.slice/slurmstepd.scope/job_", "flags : hypervisor ",
)  # fmt: skip


@slow_disk
@given(
    files=st.dictionaries(st.sampled_from(ENV_FILES), env_text),
    details=st.dictionaries(
        st.sampled_from(["SKYPILOT_TASK_ID", "SKYPILOT_CLUSTER_INFO", "SM_TRAINING_ENV", "SM_HOSTS"]),
        st.one_of(anything, st.sampled_from(["[" * 9999, "{}", "[]", "null", "7", '{"cloud": 7}', '{"cloud": {}}'])),
    ),
)
def test_files_of_variables(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], details: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("env")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", errors="replace")
    found = probe_environment(details, root)
    assert found.layers and found.primary in {layer.id for layer in found.layers}
    written = "\n".join([*files.values(), *details.values()])
    # Only what an entry process alone knows is taken from a file: nothing of Modal.
    assert "modal" not in {layer.id for layer in found.layers}
    fixed = {"hostname", "terminal", "through", "kind", "hosts"}
    for layer in found.layers:
        for label, value in layer.details.items():
            assert label in fixed or value in written


def test_binary_files_are_read_as_text(tmp_path: Path) -> None:
    for name in ("proc/self/limits", "proc/self/mounts", "proc/meminfo", "proc/self/cgroup", "etc/environment"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(range(256)) * 8)
    assert probe_limits(tmp_path).open_files is None
    assert read_mounts(tmp_path) == [] and memory_limit(tmp_path) is None and cpu_quota(tmp_path) is None
    assert probe_environment({}, tmp_path).primary == "local"
