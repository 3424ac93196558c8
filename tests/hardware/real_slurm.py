"""A real SLURM on this machine: munged, slurmctld and five slurmd in the foreground, in one temporary folder.

The cards are fake (plain files named in gres.conf); everything that is asked and answered is SLURM's own.
Nothing outside the folder is written, every daemon is a child of this process, and all ports are free ones.
Written for SLURM 22.05 to 25.11.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sinfo", "scontrol", "squeue", "sbatch", "scancel")
PACKAGES = "slurm-wlm munge"
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
NODES = {
    "gpu-a1": "CPUs=64 RealMemory=512000 Gres=gpu:a100:4 Feature=a100_80gb,nvlink,ib",
    "gpu-a2": "CPUs=64 RealMemory=512000 Gres=gpu:a100:4 Feature=a100_80gb,nvlink,ib",
    "gpu-h1": "CPUs=128 RealMemory=2000000 Gres=gpu:h100:8 Feature=h100",
    "gpu-w1": "CPUs=32 RealMemory=256000 Gres=gpu:rtx_a6000:2,shard:rtx_a6000:8",
    "cpu-1": "CPUs=32 RealMemory=128000",
    "gpu-dead": 'CPUs=64 RealMemory=512000 Gres=gpu:a100:4 State=DOWN Reason="bad_gpu"',
}
# (name, type, cards) of gres.conf; gpu-dead never starts a slurmd.
_CARDS = {"gpu-a1": ("a100", 4), "gpu-a2": ("a100", 4), "gpu-dead": ("a100", 4), "gpu-h1": ("h100", 8),
          "gpu-w1": ("rtx_a6000", 2)}  # fmt: skip
_PARTITIONS = """
PartitionName=gpu Nodes=gpu-a[1-2],gpu-dead Default=YES MaxTime=2-00:00:00 DefaultTime=01:00:00 State=UP
PartitionName=h100 Nodes=gpu-h1 MaxTime=12:00:00 State=UP
PartitionName=interactive Nodes=gpu-w1,cpu-1 MaxTime=04:00:00 State=UP
PartitionName=all Nodes=gpu-a[1-2],gpu-h1,gpu-w1,cpu-1 MaxTime=UNLIMITED State=UP AllowAccounts=physics
PartitionName=closed Nodes=gpu-h1 MaxTime=12:00:00 State=DOWN
"""


def missing_programs() -> list[str]:
    """The programs of SLURM and munge that this machine lacks."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@dataclass
class RealSlurm:
    """A running cluster. `environ` is what a user's shell on it would have."""

    folder: Path
    environ: dict[str, str]
    version: tuple[int, int]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, *argv: str, text: str | None = None) -> str:
        """What one of SLURM's programs prints. Raises AssertionError with its words where it fails."""
        done = subprocess.run(argv, env=self.environ, input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}{done.stdout}"
        return done.stdout

    def submit(self, *options: str) -> str:
        """Submit a job that lasts until the cluster is stopped, and give its id."""
        script = f'#!/bin/sh\nwhile [ -e "{self.folder}/jobs-may-run" ]; do sleep 0.2; done\n'
        quiet = ("--parsable", "-o", "/dev/null", "-e", "/dev/null", f"--chdir={self.folder}")
        return self.ask("sbatch", *quiet, *options, text=script).strip()

    def wait(self, what: str, argv: tuple[str, ...], until, limit_s: float = 45.0) -> str:
        """Ask again until `until(output)`. Raises AssertionError with the last answer and the daemons' logs."""
        end = time.monotonic() + limit_s
        while True:
            done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=60)
            if done.returncode == 0 and until(done.stdout):
                return done.stdout
            dead = [str(one.args) for one in self.daemons if one.poll() is not None]
            assert not dead, f"ended by itself: {dead}\n{self.logs()}"
            assert time.monotonic() < end, f"waited {limit_s:g} s for {what}\n{done.stdout}{done.stderr}{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        parts = [f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in self.folder.glob("*.log")]
        return "\n".join(parts)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held open together, so they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
        return ports


def _write_conf(folder: Path, version: tuple[int, int], cluster: str) -> None:
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    ports = _free_ports(1 + len(NODES))
    for name in ("state", "spool", "cards"):
        (folder / name).mkdir()
    for number in range(8):
        (folder / "cards" / f"nvidia{number}").touch()
    lines = [
        f"ClusterName={cluster}", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmUser={user}", f"SlurmdUser={user}",
        "AuthType=auth/munge", f"AuthInfo=socket={folder}/munge.socket", "CredType=cred/munge", "MpiDefault=none",
        "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "ReturnToService=2",
        f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmdSpoolDir={folder}/spool/%n", f"StateSaveLocation={folder}/state", f"SlurmctldPort={ports[0]}",
        f"SlurmctldLogFile={folder}/slurmctld.log", f"SlurmdLogFile={folder}/slurmd-%n.log",
        "SchedulerType=sched/backfill", "SchedulerParameters=bf_interval=1,sched_interval=1",
        "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core_Memory", "SlurmdParameters=config_overrides",
        "GresTypes=gpu,shard", "DefMemPerCPU=1000", "KillWait=1",
    ]  # fmt: skip
    if version < (23, 11):
        lines += ["SwitchType=switch/none", "JobAcctGatherType=jobacct_gather/none"]
    # slurmd wants cgroups although nothing here uses them, and a container may have none: 22.05 knows no `disabled`
    # but is content with version 1 and a mount point that it is told not to mount.
    no_cgroup = "CgroupPlugin=disabled\n"
    if version < (23, 2):
        no_cgroup = f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}\nCgroupAutomount=no\n"
    (folder / "cgroup.conf").write_text(no_cgroup)
    for (name, rest), port in zip(NODES.items(), ports[1:], strict=True):
        lines.append(f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {rest}")
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n" + _PARTITIONS)
    cards = [
        f"NodeName={name} Name=gpu Type={kind} File={folder}/cards/nvidia[0-{count - 1}]"
        for name, (kind, count) in _CARDS.items()
    ]
    cards = ["AutoDetect=off", *cards, "NodeName=gpu-w1 Name=shard Type=rtx_a6000 Count=8"]
    (folder / "gres.conf").write_text("\n".join(cards) + "\n")


def _start(folder: Path, cluster: str) -> RealSlurm:
    environ = {"PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}", "SLURM_CONF": f"{folder}/slurm.conf",
               "HOME": str(folder), "USER": getpass.getuser()}  # fmt: skip
    said = subprocess.run(["slurmctld", "-V"], env=environ, capture_output=True, text=True, timeout=60).stdout
    year, month = re.findall(r"\d+", said)[:2]
    slurm = RealSlurm(folder, environ, (int(year), int(month)))
    _write_conf(folder, slurm.version, cluster)
    (folder / "jobs-may-run").touch()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)

    def daemon(name: str, *argv: str) -> None:
        with (folder / f"{name}.out.log").open("wb") as log:
            slurm.daemons.append(
                subprocess.Popen(argv, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    try:
        daemon(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", "--num-threads=2",
        )  # fmt: skip
        end = time.monotonic() + 20
        while not (folder / "munge.socket").exists():
            assert time.monotonic() < end and slurm.daemons[0].poll() is None, f"munged did not start\n{slurm.logs()}"
            time.sleep(0.05)
        daemon("slurmctld", "slurmctld", "-D", "-c", "-f", f"{folder}/slurm.conf")
        for name in NODES:
            if name != "gpu-dead":
                daemon(f"slurmd-{name}", "slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", name)
        alive = len(NODES) - 1
        nodes = ("sinfo", "-h", "-N", "-p", "gpu,h100,interactive", "-O", "NodeList:20,StateComplete:60")
        slurm.wait("the nodes", nodes, lambda out: len(re.findall(r"\bidle\s*$", out, re.M)) == alive)
    except BaseException:
        _stop(slurm)
        raise
    return slurm


def _stop(slurm: RealSlurm) -> None:
    (slurm.folder / "jobs-may-run").unlink(missing_ok=True)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        for argv in (["scancel", "--user", getpass.getuser()],):
            subprocess.run(argv, env=slurm.environ, capture_output=True, timeout=10)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            left = subprocess.run(["squeue", "-h"], env=slurm.environ, capture_output=True, text=True, timeout=10)
            if left.returncode or not left.stdout.strip():
                break
            time.sleep(0.1)
    for process in reversed(slurm.daemons):
        process.terminate()
    for process in reversed(slurm.daemons):
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running_slurm(folder: Path, cluster: str = "fake") -> Iterator[RealSlurm]:
    """A cluster whose nodes are all idle (gpu-dead is down); stopped at the end, whatever happens.

    `folder` must be new and its path short: a socket's path may have 107 characters.
    """
    for attempt in range(3):
        tried = folder / str(attempt)
        tried.mkdir()
        try:
            slurm = _start(tried, cluster)
            break
        except AssertionError as error:
            # A port that was free when it was picked may be taken by the time a daemon binds it.
            if attempt == 2 or "ddress already in use" not in str(error):
                raise
    try:
        yield slurm
    finally:
        _stop(slurm)
