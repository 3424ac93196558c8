"""Limits that bind beside the card: ulimits, shared memory, the job's, quotas, and where the cache lies."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compute_awareness.hardware.compute import Compute
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.diagnose import diagnose
from compute_awareness.hardware.probe import examine, ram
from compute_awareness.hardware.probe.figures import amount
from compute_awareness.hardware.probe.host import existing, free_inodes, probe_host, usable_cpus
from compute_awareness.hardware.probe.job import job_cpus, job_memory, probe_job, time_left
from compute_awareness.hardware.probe.limits import probe_limits
from compute_awareness.hardware.probe.mounts import Mount, mount_of, parse_mounts, read_mounts
from compute_awareness.hardware.probe.quota import probe_quota, quota_lines
from compute_awareness.hardware.probe.report import Accelerator, Environment, EnvironmentLayer, Host, JobLimits, Limits
from compute_awareness.units import GIB, KIB, MIB

ULIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max processes             4096                 96365                processes
Max open files            1024                 524288               files
Max address space         {}          unlimited            bytes
Max realtime timeout      unlimited            unlimited            us
"""
MOUNTS = r"""/dev/nvme0n1p2 / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw,size=65536k 0 0
nas:/export/home /home nfs4 rw,vers=4.2 0 0
mds@o2ib:/scratch /scratch lustre rw,flock 0 0
/dev/sdb1 /mnt/my\040disk xfs rw 0 0
overlay /var/lib/containers overlay rw 0 0
me@box:/data /home/me/remote fuse.sshfs rw 0 0
share /mnt/host 9p rw 0 0
tmpfs /mnt/twice tmpfs rw 0 0
/dev/sdc1 /mnt/twice btrfs rw 0 0
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def program(folder: Path, name: str, body: str) -> dict[str, str]:
    """Variables of a machine on whose PATH is `name`, a shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.defpath}"}


def shm(total: int, free: int) -> Any:
    return lambda folder: SimpleNamespace(f_blocks=total // 4096, f_bavail=free // 4096, f_frsize=4096)


def compute_with(limits: Limits | None = None, place: str = "local", card: int | None = None, **host: Any) -> Compute:
    cards = [Accelerator(index=0, kind="cuda", name="NVIDIA A100", total_bytes=card, free_bytes=card)] if card else []
    machine = Host(os="Linux 6.8 x86_64", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB, **host)
    where = Environment(primary=place, layers=[], clear=True)
    return Compute(host=machine, environment=where, accelerators=cards, limits=limits)


def found_ids(compute: Compute) -> list[str]:
    return [finding.id for finding in diagnose(compute)]


# ulimits and /dev/shm


def test_soft_ulimits(tmp_path: Path) -> None:
    found = probe_limits(write(tmp_path, {"proc/self/limits": ULIMITS.format("unlimited")}))
    assert (found.address_space_bytes, found.processes, found.open_files) == (None, 4096, 1024)
    found = probe_limits(write(tmp_path, {"proc/self/limits": ULIMITS.format("17179869184")}))
    assert found.address_space_bytes == 16 * GIB
    assert found.shm_total_bytes is None, "there is no /dev/shm under this root"


@pytest.mark.parametrize(
    ("membership", "files", "processes"),
    [
        ("0::/a/b", {"a/pids.max": "512", "a/b/pids.max": "max"}, 512),
        ("0::/a", {"a/pids.max": "9000"}, 4096),
        ("3:pids:/a\n0::/a", {"pids/a/pids.max": "100", "unified/a/cpu.max": "max 100000"}, 100),
        ("0::/a", {"a/pids.max": "plenty"}, 4096),
    ],
)
def test_processes_are_limited_by_the_cgroup_too(
    tmp_path: Path, membership: str, files: dict[str, str], processes: int
) -> None:
    write(tmp_path, {"proc/self/limits": ULIMITS.format("unlimited"), "proc/self/cgroup": membership})
    write(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert probe_limits(tmp_path).processes == processes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimits")
def test_ulimits_of_this_process() -> None:
    import resource

    found = probe_limits()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found.open_files == (None if soft == resource.RLIM_INFINITY else soft)


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v of a child is read from /proc")
def test_ulimit_v_of_a_real_child() -> None:
    import subprocess

    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30));"
        "from compute_awareness.hardware.probe.limits import probe_limits; print(probe_limits().address_space_bytes)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(examine.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60)
    assert done.stdout.strip() == str(3 * GIB), done.stderr


def test_shared_memory(tmp_path: Path) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    found = probe_limits(tmp_path, shm(64 * MIB, 60 * MIB))
    assert (found.shm_total_bytes, found.shm_free_bytes) == (64 * MIB, 60 * MIB)
    assert probe_limits(tmp_path, shm(0, 0)).shm_total_bytes is None, "a tmpfs without a size"

    def broken(folder: Path) -> None:
        raise PermissionError

    assert probe_limits(tmp_path, broken).shm_total_bytes is None


def test_address_space_below_the_card_is_an_error() -> None:
    findings = diagnose(compute_with(Limits(address_space_bytes=40 * GIB), card=80 * GIB))
    (finding,) = [f for f in findings if f.id == "address_space_too_small"]
    assert finding.severity == "error" and "40.0 GiB" in finding.message and "80.0 GiB" in finding.message
    for fine in (Limits(address_space_bytes=200 * GIB), Limits(), None):
        assert "address_space_too_small" not in found_ids(compute_with(fine, card=80 * GIB))
    assert "address_space_too_small" not in found_ids(compute_with(Limits(address_space_bytes=40 * GIB)))


@pytest.mark.parametrize(
    ("total", "free", "told"),
    [(64, 64, True), (64, 0, True), (8192, 8000, False), (8192, 10, True), (128, 100, False), (None, None, False)],
)
def test_dockers_shared_memory_is_a_finding(total: int | None, free: int | None, told: bool) -> None:
    limits = Limits(
        shm_total_bytes=None if total is None else total * MIB, shm_free_bytes=None if free is None else free * MIB
    )
    assert ("small_shm" in found_ids(compute_with(limits))) is told


# Jobs


@pytest.mark.parametrize(
    ("variables", "memory", "cpus"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "64000", "SLURM_CPUS_ON_NODE": "8"}, 64000 * MIB, 8),
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "3"}, 6000 * MIB, 3),
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_GPU": "16000", "SLURM_GPUS_ON_NODE": "2"}, 32000 * MIB, None),
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_GPU": "16000"}, None, None),
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "0"}, None, None),
        ({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "lots", "SLURM_CPUS_ON_NODE": "²"}, None, None),
        ({"SLURM_MEM_PER_NODE": "64000", "SLURM_CPUS_ON_NODE": "8"}, None, None),
        ({"SPACE_ID": "a/b", "SPACE_HOST": "h", "MEMORY": "15Gi", "CPU_CORES": "3.5"}, 15 * GIB, 3.5),
        ({"JOB_ID": "a" * 24, "ACCELERATOR": "x", "MEMORY": "142Gi", "CPU_CORES": "12"}, 142 * GIB, 12),
        ({"JOB_ID": "a" * 24, "ACCELERATOR": "x", "MEMORY": "15", "CPU_CORES": "many"}, None, None),
        ({"JOB_ID": "77", "ACCELERATOR": "x", "MEMORY": "15Gi", "CPU_CORES": "4"}, None, None),
        ({"SPACE_ID": "a/b", "MEMORY": "15Gi", "CPU_CORES": "4"}, None, None),
        ({"MEMORY": "15Gi", "CPU_CORES": "4"}, None, None),
    ],
)
def test_what_a_job_may_take(variables: dict[str, str], memory: int | None, cpus: float | None) -> None:
    told = job_memory(variables)
    assert (told[0] if told else None) == memory
    assert job_cpus(variables) == cpus


def test_a_space_binds_ram_and_cpus(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 50331648 kB\n"})
    space = {"SPACE_ID": "a/b", "SPACE_HOST": "h", "MEMORY": "15Gi", "CPU_CORES": "0.5"}
    host = probe_host(space, tmp_path)
    assert (host.ram_total_bytes, host.ram_limited_by) == (15 * GIB, "MEMORY")
    assert usable_cpus(space, tmp_path) == 0.5


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("15Gi", 15 * GIB), ("512Mi", 512 * MIB), ("1.5Gi", 3 * GIB // 2), ("16GB", 16 * 10**9), ("16GiB", 16 * GIB),
        ("2T", 2 * 10**12), ("1048576", MIB), ("", None), ("Gi", None), ("-1Gi", None), ("1e9", None), ("1.5", None),
        ("15 Gi", None), ("9" * 15 + "Ti", None), ("0Gi", None),
    ],
)  # fmt: skip
def test_amounts(text: str, size: int | None) -> None:
    assert amount(text) == size


def test_the_end_of_a_slurm_job() -> None:
    job = probe_job({"SLURM_JOB_ID": "12", "SLURM_JOB_END_TIME": "1795402993"}, now=1795402993 - 5400)
    assert job == JobLimits(source="SLURM job 12", seconds_left=5400)
    assert probe_job({"SLURM_JOB_ID": "12", "SLURM_JOB_END_TIME": "1795402993"}, now=1795402993 + 9) == JobLimits(
        source="SLURM job 12", seconds_left=0
    )
    far = probe_job({"SLURM_JOB_ID": "12", "SLURM_JOB_END_TIME": "1795402993"}, now=1795402993 - 365 * 86400)
    assert far is not None and far.seconds_left is None, "a job without a limit ends in a year, on paper"
    assert probe_job({"SLURM_JOB_END_TIME": "1795402993"}, now=0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784), ("12:00:00", 43200), ("59:59", 3599), ("0:00", 0), ("UNLIMITED", None),
        ("NOT_SET", None), ("INVALID", None), ("", None), ("-1:00", None), ("1-2", None), ("٣:٠٠", None),
    ],
)  # fmt: skip
def test_time_left(text: str, seconds: int | None) -> None:
    assert time_left(text) == seconds


@pytest.mark.skipif(os.name != "posix", reason="SLURM is of Unix")
@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('[ "$*" = "-h -j 12 -o %L" ] && echo 1:30:00', 5400),
        ("echo UNLIMITED", None),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", None),
        ("echo 1:00:00; echo 2:00:00", None),
        ("sleep 60", None),
    ],
)
def test_an_older_slurm_is_asked(tmp_path: Path, body: str, seconds: int | None) -> None:
    environ = {**program(tmp_path / "bin", "squeue", body), "SLURM_JOB_ID": "12"}
    job = probe_job(environ, limit_s=5.0 if "sleep" not in body else 0.5)
    assert job is not None and job.seconds_left == seconds


def test_a_jobs_id_is_no_command(tmp_path: Path) -> None:
    environ = {**program(tmp_path / "bin", "squeue", f"touch {tmp_path}/ran; echo 1:00"), "SLURM_JOB_ID": "1 --all"}
    job = probe_job(environ)
    assert job == JobLimits(source="SLURM job") and not (tmp_path / "ran").exists()


def test_findings_of_a_job() -> None:
    limits = Limits(job=JobLimits(source="SLURM job 12", seconds_left=720, gpu_shares=2))
    findings = {finding.id: finding for finding in diagnose(compute_with(limits))}
    assert findings["shared_gpu"].severity == "warning" and "2 shares" in findings["shared_gpu"].message
    assert findings["job_time"].message == "SLURM job 12 is ended in 12 min"
    job = probe_job({"SLURM_JOB_ID": "1", "SLURM_SHARDS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0"})
    assert job is not None and job.gpu_shares == 2


@pytest.mark.parametrize(
    ("place", "confidence", "told"),
    [("slurm_login_node", "medium", True), ("slurm_login_node", "low", False), ("slurm", "high", False)],
)
def test_a_login_node_is_no_place_to_run(place: str, confidence: Any, told: bool) -> None:
    compute = compute_with(place=place)
    compute.environment.layers = [EnvironmentLayer(id=place, layer="scheduler", confidence=confidence)]
    assert ("login_node" in found_ids(compute)) is told


# The disk of the cache


@pytest.mark.parametrize(
    ("path", "filesystem", "kind"),
    [
        ("/root/.cache", "ext4", "disk"),
        ("/home/me/.cache/huggingface", "nfs4", "network"),
        ("/home/me/remote/hub", "fuse.sshfs", "network"),
        ("/homework", "ext4", "disk"),
        ("/scratch", "lustre", "network"),
        ("/mnt/my disk/hf", "xfs", "disk"),
        ("/dev/shm/hf", "tmpfs", "memory"),
        ("/var/lib/containers/x", "overlay", "overlay"),
        ("/mnt/host/hf", "9p", None),
        ("/mnt/twice/hf", "btrfs", "disk"),
    ],
)
def test_the_mount_of_a_folder(path: str, filesystem: str, kind: str | None) -> None:
    mount = mount_of(Path(path), parse_mounts(MOUNTS))
    assert mount is not None and (mount.filesystem, mount.kind) == (filesystem, kind)


def test_no_mounts() -> None:
    assert mount_of(Path("/home"), []) is None
    assert read_mounts(Path("/nowhere")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_mounts_of_this_machine() -> None:
    mounts = read_mounts()
    assert mount_of(Path("/proc"), mounts) == next(m for m in reversed(mounts) if m.point == "/proc")


def test_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "not" / "made"
    assert existing(inside) == tmp_path
    if hasattr(os, "statvfs"):
        there = os.statvfs(tmp_path)
        told = free_inodes(inside)
        assert told is None if not there.f_files else told is not None and abs(told - there.f_favail) < 100_000
        monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_favail=0, f_files=0))
        assert free_inodes(inside) is None, "btrfs counts none"


@pytest.mark.parametrize(
    ("host", "told", "severity"),
    [
        ({"disk_kind": "memory", "disk_filesystem": "tmpfs on /tmp"}, "cache_in_memory", "warning"),
        ({"disk_kind": "overlay", "disk_filesystem": "overlay on /"}, "cache_in_container", "info"),
        ({"disk_free_inodes": 3}, "no_inodes", "error"),
    ],
)
def test_findings_of_the_cache(host: dict[str, Any], told: str, severity: str) -> None:
    findings = [f for f in diagnose(compute_with(disk_path="/x/hub", **host)) if f.id == told]
    assert [f.severity for f in findings] == [severity] and "/x/hub" in findings[0].message
    calm = compute_with(disk_path="/x/hub", disk_kind="network", disk_free_inodes=10**6)
    assert told not in found_ids(calm)


# Quotas


QUOTA = """\
Disk quotas for user me (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
nas:/export/home 41943040  47185920 52428800       0  120000       0       0       0
/dev/nvme0n1p2     100       0       0       0      10     500     600       0
/dev/sdb1     9000*   8000    9000 1795402993      10       0       0       0
"""


def test_lines_of_quota() -> None:
    assert list(quota_lines(QUOTA)) == [
        ("nas:/export/home", 40 * GIB, 50 * GIB),
        ("/dev/sdb1", 9000 * KIB, 9000 * KIB),
    ]
    assert list(quota_lines("Disk quotas for user root (uid 0): none")) == []


def test_lines_of_lustre() -> None:
    text = """\
        /lustre7 982177580       0 1000000000       - 443208230 0       0       -
 /fred [1041408]  5242880 6291456       -     [0]       0       0       -
/a/very/long/mount/point/of/a/project
                 308*  256       0  6d23h12m       5       0       0       -
uid 6215 is using default block quota setting
"""
    assert list(quota_lines(text)) == [
        ("/lustre7", 982177580 * KIB, 1000000000 * KIB),
        ("/fred", 1041408 * KIB, 6291456 * KIB),
        ("", 308 * KIB, 256 * KIB),
    ]


HOME = Mount("nas:/export/home", "/home", "nfs4")
posix = pytest.mark.skipif(os.name != "posix", reason="quotas are asked for on Unix")


@posix
def test_what_a_quota_leaves(tmp_path: Path) -> None:
    body = f'[ "$4" = -u ] && cat <<END\n{QUOTA}\nEND\n[ "$4" = -u ] || exit 0; exit 1'
    environ = program(tmp_path / "bin", "quota", body)
    assert probe_quota(tmp_path, HOME, environ, 5) == (10 * GIB, "user quota on /home")
    assert probe_quota(tmp_path, Mount("/dev/sdb1", "/data", "xfs"), environ, 5) == (0, "user quota on /data")
    assert probe_quota(tmp_path, Mount("/dev/sda1", "/", "ext4"), environ, 5) is None
    assert probe_quota(tmp_path, None, environ, 5) is None
    assert probe_quota(tmp_path, HOME, {"PATH": str(tmp_path)}, 5) is None


@posix
def test_the_groups_quota_is_asked_for_the_group_of_new_files(tmp_path: Path) -> None:
    body = f'[ "$4 $5" = "-g {os.getgid()}" ] && echo "nas:/export/home 90 0 100 0 1 0 0 0"'
    environ = program(tmp_path / "bin", "quota", body)
    assert probe_quota(tmp_path, HOME, environ, 5) == (10 * KIB, "group quota on /home")


@posix
def test_lustre_is_asked_in_its_own_way(tmp_path: Path) -> None:
    body = f'[ "$*" = "quota -q -u {os.getuid()} /scratch" ] && echo "/scratch 100 0 300 - 1 0 0 -"'
    environ = program(tmp_path / "bin", "lfs", body)
    mount = Mount("mds@o2ib:/scratch", "/scratch", "lustre")
    assert probe_quota(tmp_path, mount, environ, 5) == (200 * KIB, "user quota on /scratch")


@posix
@pytest.mark.parametrize("body", ["sleep 60", "yes 'nas:/export/home 1 0 9 0 1 0 0 0'", "exit 127", "kill -9 $$"])
def test_a_quota_program_that_fails_gives_no_figure(tmp_path: Path, body: str) -> None:
    environ = program(tmp_path / "bin", "quota", body)
    assert probe_quota(tmp_path, HOME, environ, 0.5) is None


@posix
def test_the_disk_figure_is_what_the_quota_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "probe_quota", lambda folder, mount, environ: (5 * MIB, "user quota on /home"))
    compute = detect(environ={"PATH": os.defpath}, cwd=tmp_path, with_python=False)
    assert (compute.host.disk_free_bytes, compute.host.disk_limited_by) == (5 * MIB, "user quota on /home")
    (finding,) = [f for f in diagnose(compute, download_bytes=GIB) if f.id == "disk_too_small"]
    assert "5 MiB free (user quota on /home)" in finding.message
    monkeypatch.setattr(examine, "probe_quota", lambda folder, mount, environ: (1 << 62, "user quota on /home"))
    assert detect(environ={"PATH": os.defpath}, cwd=tmp_path, with_python=False).host.disk_limited_by is None


# RAM where there is no /proc


def test_vm_stat() -> None:
    text = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                    1000.
Pages active:                                774260.
Pages inactive:                                2000.
Pages speculative:                              500.
Pages throttled:                                  0.
"""
    assert ram.vm_stat_available(text) == 3500 * 16384
    assert ram.vm_stat_available(text.replace("inactive", "lazy")) is None
    assert ram.vm_stat_available("") is None


def test_windows_structure() -> None:
    def answer(status: Any) -> int:
        held = status._obj
        assert held.length == ctypes.sizeof(held) == 64
        held.total, held.available = 16 * GIB, 9 * GIB
        return 1

    assert ram.windows_ram(answer) == (16 * GIB, 9 * GIB)
    assert ram.windows_ram(lambda status: 0) is None


def test_a_mac_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(argv: list[str], environ: Any, limit_s: float) -> Any:
        text = "Pages free: 1000.\nPages inactive: 1000.\nPages speculative: 0.\n"
        out = f"{32 * GIB}\n" if "hw.memsize" in argv else f"(page size of 16384 bytes)\n{text}"
        return SimpleNamespace(out=out)

    monkeypatch.setattr(ram, "run_child", answer)
    monkeypatch.setattr(ram, "_by_psutil", lambda: None)
    monkeypatch.setattr(ram.sys, "platform", "darwin")
    assert ram.machine_ram(Path("/nowhere")) == (32 * GIB, 2000 * 16384)


def test_nothing_tells_the_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram, "_by_psutil", lambda: None)
    monkeypatch.setattr(ram.sys, "platform", "plan9")
    with pytest.raises(OSError, match="does not tell its RAM"):
        ram.machine_ram(Path("/nowhere"))


def test_the_report_carries_the_limits(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/limits": ULIMITS.format("unlimited")})
    variables = {"PATH": os.defpath, "SLURM_JOB_ID": "3", "SLURM_MEM_PER_NODE": "100", "SLURM_SHARDS_ON_NODE": "1"}
    limits = detect(environ=variables, cwd=tmp_path, root=tmp_path, with_python=False).limits
    assert limits is not None and (limits.processes, limits.open_files) == (4096, 1024)
    assert limits.job == JobLimits(source="SLURM job 3", memory_bytes=100 * MIB, gpu_shares=1)
