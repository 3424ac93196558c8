"""RAM, CPUs and disk under the limits of containers and batch jobs, from trees of /proc and /sys made here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.probe.cgroup import cpu_quota, memory_limit
from compute_awareness.hardware.probe.host import free_disk, hugging_face_cache, probe_host, usable_cpus
from compute_awareness.units import GIB, MIB

V1_NONE = "9223372036854771712"


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 50331648 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def v2(root: Path, folder: str, **files: object) -> Path:
    where = f"sys/fs/cgroup{folder}".rstrip("/")
    return tree(root, {f"{where}/{name.replace('_', '.')}": text for name, text in files.items()})


def test_no_limit(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "0::/"})
    v2(tmp_path, "/", memory_max="max", cpu_max="max 100000", memory_current=5)
    host = probe_host({}, tmp_path)
    assert (host.ram_total_bytes, host.ram_available_bytes) == (64 * GIB, 48 * GIB)
    assert host.ram_limited_by is None
    assert memory_limit(tmp_path) is None and cpu_quota(tmp_path) is None


def test_v2_takes_the_tightest_level_on_the_way_up(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "0::/jobs/one/step"})
    v2(tmp_path, "/jobs", memory_max=20 * GIB, memory_current=19 * GIB, cpu_max="150000 100000")
    v2(
        tmp_path,
        "/jobs/one",
        memory_max=16 * GIB,
        memory_current=6 * GIB,
        memory_stat=f"anon 1\ninactive_file {4 * GIB}",
    )
    v2(tmp_path, "/jobs/one/step", memory_max="max", memory_current=GIB, cpu_max="max 100000")
    host = probe_host({}, tmp_path)
    assert host.ram_total_bytes == 16 * GIB
    # 16 - (6 - 4) = 14 GiB are left in the job, but its parent has 1 GiB left.
    assert host.ram_available_bytes == 1 * GIB
    assert host.ram_limited_by == "cgroup v2 /sys/fs/cgroup/jobs/one/memory.max"
    assert cpu_quota(tmp_path) == 1.5


def test_v2_inside_a_namespace_and_with_a_path_of_the_host(tmp_path):
    for line in ("0::/", "0::/kubepods/pod1/abc", "0::/../../other"):
        root = tmp_path / str(abs(hash(line)))
        tree(root, {"proc/self/cgroup": line})
        v2(root, "/", memory_max=8 * GIB, memory_current=GIB, memory_stat=f"inactive_file {GIB // 2}")
        host = probe_host({}, root)
        assert (host.ram_total_bytes, host.ram_available_bytes) == (8 * GIB, 8 * GIB - GIB // 2)


def test_v2_memory_high_counts(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "0::/a"})
    v2(tmp_path, "/a", memory_max=8 * GIB, memory_high=6 * GIB, memory_current=0)
    assert probe_host({}, tmp_path).ram_limited_by == "cgroup v2 /sys/fs/cgroup/a/memory.high"


def test_v1(tmp_path):
    base = "sys/fs/cgroup"
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc",
            f"{base}/memory/memory.limit_in_bytes": V1_NONE,
            f"{base}/memory/docker/abc/memory.limit_in_bytes": 4 * GIB,
            f"{base}/memory/docker/abc/memory.usage_in_bytes": 3 * GIB,
            f"{base}/memory/docker/abc/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GIB}",
            f"{base}/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": 50000,
            f"{base}/cpu,cpuacct/docker/abc/cpu.cfs_period_us": 100000,
            f"{base}/cpu,cpuacct/cpu.cfs_quota_us": -1,
            f"{base}/cpu,cpuacct/cpu.cfs_period_us": 100000,
        },
    )
    host = probe_host({}, tmp_path)
    assert (host.ram_total_bytes, host.ram_available_bytes) == (4 * GIB, 3 * GIB)
    assert host.ram_limited_by == "cgroup v1 /sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"
    assert host.cpus == 0.5


def test_hybrid_reads_both(tmp_path):
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/slurm/job_7\n0::/slurm/job_7",
            "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": 10 * GIB,
            "sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes": 0,
            "sys/fs/cgroup/unified/slurm/job_7/cpu.max": "300000 100000",
        },
    )
    assert probe_host({}, tmp_path).ram_total_bytes == 10 * GIB
    assert cpu_quota(tmp_path) == 3.0


def test_a_limit_above_the_ram_is_none(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "0::/"})
    v2(tmp_path, "/", memory_max=500 * GIB, memory_current=0)
    host = probe_host({}, tmp_path)
    assert (host.ram_total_bytes, host.ram_available_bytes, host.ram_limited_by) == (64 * GIB, 48 * GIB, None)


def test_broken_files_are_no_limit(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "nonsense\n0::/\n7:memory"})
    v2(tmp_path, "/", memory_max="lots", cpu_max="5 0", memory_current="")
    assert probe_host({}, tmp_path).ram_total_bytes == 64 * GIB
    assert cpu_quota(tmp_path) is None


@given(limits=st.lists(st.integers(1, 64), min_size=1, max_size=4), used=st.integers(0, 70))
def test_available_is_never_above_the_limit_nor_below_zero(tmp_path_factory, limits, used):
    root = tmp_path_factory.mktemp("cgroup")
    names = [f"level{i}" for i in range(len(limits))]
    tree(root, {"proc/self/cgroup": "0::/" + "/".join(names)})
    for depth, limit in enumerate(limits):
        v2(root, "/" + "/".join(names[: depth + 1]), memory_max=limit * GIB, memory_current=used * GIB)
    host = probe_host({}, root)
    assert host.ram_total_bytes == min(limits) * GIB
    assert host.ram_available_bytes == min(48, max(0, min(limits) - used)) * GIB


@pytest.mark.parametrize(
    ("variables", "mib"),
    [
        ({"SLURM_MEM_PER_NODE": "8000"}, 8000),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "3"}, 6000),
        ({"SLURM_MEM_PER_NODE": "0"}, 65536),
    ],
)
def test_slurm_limits_bind_inside_a_job_only(tmp_path, variables, mib):
    tree(tmp_path, {})
    assert probe_host({"SLURM_JOB_ID": "1", **variables}, tmp_path).ram_total_bytes == mib * MIB
    assert probe_host(variables, tmp_path).ram_total_bytes == 64 * GIB


def test_slurm_cpus(tmp_path):
    tree(tmp_path, {})
    everything = usable_cpus({}, tmp_path)
    assert usable_cpus({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "1"}, tmp_path) == 1
    assert usable_cpus({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "9999"}, tmp_path) == everything


def test_affinity_counts(tmp_path):
    assert usable_cpus({}, tmp_path) == len(os.sched_getaffinity(0))


def test_real_machine():
    import psutil

    host = probe_host(os.environ)
    assert 0 < host.ram_available_bytes <= host.ram_total_bytes <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/h", "HF_HOME": "~/hf"}, "/h/hf/hub"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        (
            {"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$SCRATCH/new", "SCRATCH": "/s"},
            "/s/new",
        ),
        ({"HF_HUB_CACHE": "${NOWHERE}/a"}, "${NOWHERE}/a"),
    ],
)
def test_where_models_go(variables, folder):
    assert str(hugging_face_cache(variables)) == folder


def test_disk_of_a_folder_not_made_yet(tmp_path):
    import shutil

    free = free_disk(tmp_path / "not" / "yet" / "made")
    assert abs(free - shutil.disk_usage(tmp_path).free) < 2 * GIB
