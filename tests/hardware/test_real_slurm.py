"""A real SLURM, started here: what is reported is what it does.

COMPUTE_AWARENESS_REAL_SERVERS=1 makes these tests fail where SLURM is not installed; otherwise they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_slurm import PACKAGES, RealSlurm, missing_programs, running_slurm

from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.probe import probe_cluster
from compute_awareness.hardware.cluster.report import Cluster
from compute_awareness.hardware.cluster.shortest import shortest_paths, with_expected_starts
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.reading import compute_in
from compute_awareness.hardware.script import probe_script
from compute_awareness.launch.launch_file import launch_file
from compute_awareness.mcp_server.answers import answer, concise_compute, full_compute
from compute_awareness.preflight import preflight
from compute_awareness.sweep.sweep import sweep
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

MISSING = missing_programs()
REQUIRED = os.environ.get("COMPUTE_AWARENESS_REAL_SERVERS") == "1"
pytestmark = pytest.mark.skipif(
    bool(MISSING) and not REQUIRED,
    reason=f"no SLURM here ({', '.join(MISSING)} missing): apt-get install {PACKAGES} for these tests",
)
LIMIT_S = 60.0


@dataclass
class Lab:
    """The cluster, the jobs that run and wait in it, and what was reported of it."""

    slurm: RealSlurm
    cluster: Cluster


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    assert not MISSING, f"COMPUTE_AWARENESS_REAL_SERVERS=1 but {', '.join(MISSING)} missing: apt-get install {PACKAGES}"
    # A socket's path may have 107 characters, which pytest's own temporary folders may exceed.
    folder = Path(tempfile.mkdtemp(prefix="ca-slurm-"))
    try:
        with running_slurm(folder) as slurm:
            slurm.submit("-p", "gpu", "-w", "gpu-a1", "--gres=gpu:a100:3", "-c", "8", "-t", "30")
            slurm.submit("-p", "h100", "--gpus=2", "-t", "60")
            slurm.submit("-p", "interactive", "--gres=shard:2", "-t", "60")
            slurm.submit("-p", "gpu", "--gres=gpu:a100:1", "--hold")
            slurm.ask("scontrol", "update", "NodeName=gpu-a2", "State=DRAIN", "Reason=maintenance window")
            slurm.wait("the jobs", ("squeue", "-h", "-t", "R", "-o", "%i"), lambda out: len(out.split()) == 3)
            (cluster,) = name_cards(probe_cluster(slurm.environ, LIMIT_S))
            yield Lab(slurm, cluster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pool_of(cluster: Cluster, partition: str, kind: str, nodes: int):
    (pool,) = [p for p in cluster.pools if (p.partition, p.type, p.nodes) == (partition, kind, nodes)]
    return pool


def test_everything_is_read(lab):
    assert lab.cluster.problems == []
    assert (lab.cluster.scheduler, lab.cluster.name) == ("slurm", "fake")
    said = lab.slurm.ask("scontrol", "show", "config")
    assert lab.cluster.version and f"= {lab.cluster.version}\n" in said


def test_free_and_total(lab):
    assert {total.type: (total.total, total.free, total.not_free) for total in lab.cluster.totals} == {
        "a100": (12, 1, {"in use": 3, "drained": 4, "down": 4}),
        "h100": (8, 6, {"in use": 2}),
        "rtx_a6000": (2, 1, {"in use in parts": 1}),
    }
    for partition in ("gpu", "all"):
        pool = pool_of(lab.cluster, partition, "a100", 2)
        assert (pool.total, pool.free, pool.most_free_on_a_node, pool.most_on_a_node) == (8, 1, 1, 4)
        assert pool.free_cpus == 56
        # 8 CPUs of 1000 MB each are given away; SLURM's MB are MiB.
        assert pool.free_ram_bytes == (512000 - 8000) * 1024**2


def test_the_cards_are_named(lab):
    # The nodes that run say a100_80gb; the dead one says nothing, so its cards may have 40 or 80 GB.
    known = pool_of(lab.cluster, "gpu", "a100", 2)
    assert set(known.gpu_ids) == {"a100-80gb-sxm", "a100-80gb-pcie"}
    assert known.memory_bytes is not None and 79 * GIB < known.memory_bytes <= 80 * GIB
    assert known.constraint == "a100_80gb"
    dead = pool_of(lab.cluster, "gpu", "a100", 1)
    assert dead.memory_bytes is not None and dead.memory_most_bytes is not None
    assert dead.memory_bytes < 40 * GIB and dead.memory_most_bytes > 79 * GIB and dead.constraint is None
    assert pool_of(lab.cluster, "interactive", "rtx_a6000", 1).gpu_ids == ["rtxa6000"]


def test_partitions_and_the_user(lab):
    parts = {part.name: part for part in lab.cluster.partitions}
    assert [name for name, part in parts.items() if part.default] == ["gpu"]
    assert {name: part.max_time_s for name, part in parts.items()} == {
        "gpu": 172800, "h100": 43200, "interactive": 14400, "all": None, "closed": 43200,
    }  # fmt: skip
    assert parts["all"].unlimited_time and parts["gpu"].default_time_s == 3600
    assert parts["gpu"].pending_jobs == 1 and parts["h100"].pending_jobs == 0
    assert (parts["closed"].access, parts["gpu"].access) == ("no", "yes")
    user = lab.cluster.user
    assert user is not None and user.name == lab.slurm.environ["USER"]
    assert (user.running, user.pending) == (3, 1)
    assert sorted(job.gpus for job in user.jobs if job.gpus is not None) == [0, 1, 2, 3]
    assert {job.reason for job in user.jobs if job.state == "PENDING"} == {"JobHeldUser"}


def test_shards_are_no_gpus(lab):
    (shards,) = [one for one in lab.cluster.shared if one.partition == "interactive"]
    assert (shards.kind, shards.type, shards.total) == ("shard", "rtx_a6000", 8)
    assert shards.used == (2 if lab.slurm.version >= (24, 11) else None)


def test_a_large_need_goes_to_the_free_card_that_holds_it(lab):
    found = shortest_paths(lab.cluster, 60 * GIB, hours=4)
    best = found.paths[0]
    assert (best.type, best.fits, best.free_now) == ("a100", "yes", True)
    assert (
        best.flags[:2] == ["-p", "all"] and "--gres=gpu:a100:1" in best.flags and best.flags[-2:] == ["-t", "04:00:00"]
    )
    assert any(line.startswith("interactive, rtx_a6000: 47") for line in found.left_out)
    assert any(line == "closed, h100: its state is DOWN" for line in found.left_out)
    # The flags are ones SLURM itself accepts, and the test submits nothing.
    before = lab.slurm.ask("squeue", "-h", "-o", "%i")
    for path in found.paths:
        if path.fits == "yes":
            lab.slurm.ask("sbatch", "--test-only", *path.flags, "--wrap=true")
    assert lab.slurm.ask("squeue", "-h", "-o", "%i") == before


def test_a_small_need_goes_to_the_smallest_card(lab):
    best = shortest_paths(lab.cluster, 20 * GIB, hours=2).paths[0]
    assert (best.partition, best.type) in ((("interactive", "all"), "rtx_a6000"), ("all", "rtx_a6000"))
    # Longer than `interactive` allows: another partition with the same card, or another card.
    assert all(path.partition != "interactive" for path in shortest_paths(lab.cluster, 20 * GIB, hours=5).paths)


def test_more_gpus_than_are_free_wait_for_slurms_own_estimate(lab):
    found = shortest_paths(lab.cluster, 60 * GIB, hours=1, gpus=4)
    waiting = [path for path in found.paths if path.type == "a100"]
    assert waiting and all(path.free_now is False for path in waiting)
    assert all(path.type == "h100" for path in found.paths[:2])
    before = lab.slurm.ask("squeue", "-h", "-o", "%i")
    told = with_expected_starts(found, lab.slurm.environ, LIMIT_S)
    started = [path for path in told.paths if path.partition == "gpu"]
    # gpu-a1 is held for at most 30 minutes; the drained and the dead node do not count.
    assert started and all(path.expected_start is not None for path in started)
    assert lab.slurm.ask("squeue", "-h", "-o", "%i") == before
    impossible = shortest_paths(lab.cluster, 60 * GIB, gpus=9)
    assert impossible.paths == [] and any("a node has 8 at most, 9 needed" in line for line in impossible.left_out)


def test_a_change_is_seen_at_once(lab):
    """Drained, undrained and filled with CPU work, in turn: only what a job could get counts as free."""
    ask = lab.slurm.ask

    def h100():
        (cluster,) = probe_cluster(lab.slurm.environ, LIMIT_S)
        (total,) = [total for total in cluster.totals if total.type == "h100"]
        return total.free, total.not_free

    ask("scontrol", "update", "NodeName=gpu-h1", "State=DRAIN", "Reason=test")
    assert h100() == (0, {"in use": 2, "drained": 6})
    ask("scontrol", "update", "NodeName=gpu-h1", "State=UNDRAIN")
    # SLURM takes the node for not responding until it has answered once more.
    state = ("sinfo", "-h", "-N", "-n", "gpu-h1", "-p", "h100", "-O", "StateComplete:60")
    lab.slurm.wait("gpu-h1", state, lambda out: out.strip() == "mixed")
    assert h100() == (6, {"in use": 2})
    job = lab.slurm.submit("-p", "h100", "-n", "1", "-c", "127", "--mem=1000", "-t", "60")
    lab.slurm.wait("the CPU job", ("squeue", "-h", "-j", job, "-o", "%T"), lambda out: out.strip() == "RUNNING")
    assert h100() == (0, {"in use": 2, "no CPU left beside them": 6})
    ask("scancel", job)
    lab.slurm.wait("its end", ("squeue", "-h", "-o", "%i"), lambda out: job not in out.split())
    assert h100() == (6, {"in use": 2})


def test_a_controller_that_is_gone_is_said(lab, tmp_path):
    """The same programs with a configuration whose controller does not run."""
    text = (lab.slurm.folder / "slurm.conf").read_text()
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "\n".join("SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line for line in text.splitlines())
    )
    (tmp_path / "gres.conf").write_text((lab.slurm.folder / "gres.conf").read_text())
    (cluster,) = probe_cluster({**lab.slurm.environ, "SLURM_CONF": str(conf)}, 5)
    assert cluster.pools == [] and cluster.problems
    assert "does not answer" in cluster.summary


def test_without_a_configuration_there_is_no_cluster(lab):
    if any(Path(folder, "slurm.conf").exists() for folder in ("/etc/slurm", "/run/slurm/conf")):
        pytest.skip("this machine belongs to a SLURM cluster of its own")
    environ = {name: value for name, value in lab.slurm.environ.items() if name != "SLURM_CONF"}
    assert probe_cluster(environ, LIMIT_S) == []


def test_two_clusters_side_by_side(lab):
    folder = Path(tempfile.mkdtemp(prefix="ca-slurm-"))
    try:
        with running_slurm(folder, cluster="second") as other:
            (second,) = probe_cluster(other.environ, LIMIT_S)
            (first,) = probe_cluster(lab.slurm.environ, LIMIT_S)
            assert (first.name, second.name) == ("fake", "second")
            assert {total.type: total.free for total in second.totals} == {"a100": 8, "h100": 8, "rtx_a6000": 2}
        assert all(daemon.poll() is not None for daemon in other.daemons)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_detect_reports_the_cluster_and_preflight_the_way_to_a_card(lab, tmp_path, monkeypatch):
    for name, value in lab.slurm.environ.items():
        monkeypatch.setenv(name, value)
    seen = detect(cwd=tmp_path, with_python=False)
    (cluster,) = seen.clusters
    assert (cluster.name, cluster.problems) == ("fake", [])
    assert pool_of(cluster, "h100", "h100", 1).memory_bytes
    workload = parse_workload({"task": "inference", "library": "transformers", "model": "pythia-12b", "seq_len": 256})
    paths = preflight(workload, compute=seen).advice.paths
    assert paths and paths[0].partition in ("gpu", "h100", "all")
    assert paths[0].interactive.startswith("srun -p ") and "--gres=gpu:" in paths[0].interactive
    # The script, as on a login node reached by ssh, tells the same; its report is read as any other.
    done = subprocess.run(
        [sys.executable, "-"], input=probe_script(), env=lab.slurm.environ, cwd=tmp_path, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    told = compute_in(done.stdout, "login")
    assert [(p.partition, p.type, p.free, p.memory_bytes) for p in told.clusters[0].pools] == [
        (p.partition, p.type, p.free, p.memory_bytes) for p in cluster.pools
    ]
    assert len(answer(full_compute(seen), "full").content[0].text) / 4 < 2000
    assert len(answer(concise_compute(seen), "concise").content[0].text) / 4 < 400


def test_sbatch_takes_the_launch_file(lab, tmp_path):
    workload = parse_workload({"task": "inference", "library": "transformers", "model": "pythia-12b", "seq_len": 256})
    # Elsewhere than on the cluster, where its partitions are not known.
    file = launch_file(workload, "slurm", "python run.py --name 'a b'", gpu="A100-80GB")
    job = tmp_path / "job.sbatch"
    job.write_text(file.text, encoding="utf-8")
    done = subprocess.run(
        ["sbatch", "--test-only", "-p", "gpu", str(job)], env=lab.slurm.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def test_sbatch_takes_the_array_of_a_sweep(lab, tmp_path):
    sae = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "training_tokens": 10**6}
    grid = {"hook_layer": list(range(12)), "expansion_factor": [8, 16, 32]}
    run = "python train.py --layer {hook_layer} --factor {expansion_factor}"
    file = sweep(sae, grid, gpu="4xA100-80GB", launch="slurm", run=run).launch
    assert file is not None
    job = tmp_path / "sweep.sbatch"
    job.write_text(file.text, encoding="utf-8")
    argv = ["sbatch", "-p", "gpu", f"--chdir={tmp_path}", "-o", "/dev/null"]
    tried = subprocess.run([*argv, "--test-only", str(job)], env=lab.slurm.environ, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
    # Held, so that nothing runs: what SLURM itself made of --array.
    held = lab.slurm.ask(*argv, "--hold", "--parsable", str(job)).strip()
    try:
        said = lab.slurm.ask("squeue", "-h", "-j", held, "-o", "%i %j")
        assert said.split() == [f"{held}_[0-35%4]", "sae-training-gpt2"]
    finally:
        lab.slurm.ask("scancel", held)


def test_a_launch_file_written_on_the_cluster_asks_for_what_it_has(lab, tmp_path, monkeypatch):
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, lab.slurm.environ[name])
    small = parse_workload({"task": "inference", "library": "transformers", "model": "gpt2", "seq_len": 256})
    sae = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "training_tokens": 10**6}
    grid = {"hook_layer": [0, 6], "expansion_factor": [8, 16]}
    run = "python train.py {hook_layer} {expansion_factor}"
    files = [
        (launch_file(small, "slurm", "python run.py"), ("interactive", "all"), "rtx_a6000"),
        (launch_file(small, "slurm", "python run.py", gpu="H100"), ("h100", "all"), "h100"),
        (sweep(sae, grid, gpu="2xA100-80GB", launch="slurm", run=run).launch, ("gpu", "all"), "a100"),
        (sweep(sae, grid, launch="slurm", run=run).launch, ("interactive", "all"), "rtx_a6000"),
    ]
    for file, partitions, card in files:
        (partition,) = [name for name in partitions if f"\n#SBATCH --partition={name}\n" in file.text]
        assert f"\n#SBATCH --gres=gpu:{card}:1\n" in file.text
        assert f"partition {partition} of cluster fake" in file.text
        job = tmp_path / "job.sbatch"
        job.write_text(file.text, encoding="utf-8")
        done = subprocess.run(
            ["sbatch", "--test-only", str(job)], env=lab.slurm.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert f"in partition {partition}" in done.stderr
