"""What a launch file asks a SLURM cluster in sight for, on clusters made up; test_real_slurm.py has a real one."""

from __future__ import annotations

import pytest

from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.report import Cluster, GpuPool, Partition
from compute_awareness.hardware.compute import Compute, Environment, EnvironmentLayer, Host
from compute_awareness.launch.launch_file import launch_file
from compute_awareness.sweep.sweep import sweep
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

SMALL = {"task": "inference", "library": "transformers", "model": "gpt2", "seq_len": 256}
SAE = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "expansion_factor": 8}


def pool(kind: str, partition: str, free: int = 2, *features: str) -> GpuPool:
    in_use = {"in use": 4 - free} if free < 4 else {}
    return GpuPool(
        partition, kind, "gpu", 1, 4, free, in_use, most_on_a_node=4, most_free_on_a_node=free, features=list(features)
    )


def part(name: str, **more) -> Partition:
    return Partition(name, False, "UP", 1, **({"access": "yes", "max_time_s": 48 * 3600} | more))


def login_node(pools: list[GpuPool], partitions: list[Partition]) -> Compute:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["x"])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=[],
        clusters=name_cards([Cluster("slurm", "hpc", pools=pools, partitions=partitions)]),
    )


def options(text: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_partition_account_constraint_and_time_are_the_clusters():
    seen = login_node(
        [pool("a100", "long", 2, "a100_80gb"), pool("a100", "long", 2, "a100_40gb")], [part("long", account="physics")]
    )
    cache = parse_workload({"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 3, "seq_len": 1024})
    file = launch_file(cache, "slurm", "python a.py", compute=seen)
    asked = options(file.text)
    assert {"--partition=long", "--gres=gpu:a100:1", "--account=physics", "--constraint=a100_80gb"} <= set(asked)
    assert f"--time=0{file.limit_seconds // 3600}:00:00" in asked and f"--mem={file.ram_gib}G" in asked
    assert sum(option.startswith(("--gres", "--mem", "--time")) for option in asked) == 3
    assert "partition long of cluster hpc" in file.text and file.gpu.startswith("A100")


def test_a_card_that_is_free_goes_before_one_that_is_not_and_a_named_one_before_both():
    seen = login_node([pool("t4", "a", 0), pool("l40s", "b"), pool("h100", "c")], [part("a"), part("b"), part("c")])
    small = parse_workload(SMALL)
    assert "--partition=b" in options(launch_file(small, "slurm", "x", compute=seen).text)
    file = launch_file(small, "slurm", "x", gpu="2xH100", compute=seen)
    assert "--partition=c" in options(file.text) and "--gres=gpu:h100:2" in options(file.text)


@pytest.mark.parametrize(
    ("pools", "partitions", "says"),
    [
        ([pool("l40s", "p")], [part("p", max_time_s=600)], "a job may run 00:10:00 at most"),
        ([pool("l40s", "p")], [part("p", access="no", access_why="only for group x")], "only for group x"),
        ([pool("mystery", "p")], [part("p")], "not known to be a card of the table"),
    ],
)
def test_where_no_partition_takes_it_the_file_says_why(pools, partitions, says):
    file = launch_file(parse_workload(SMALL), "slurm", "x", compute=login_node(pools, partitions))
    assert not any(option.startswith("--partition") for option in options(file.text))
    assert f"no partition of cluster hpc takes it as it is (p, {pools[0].type}" in file.text and says in file.text


def test_other_engines_do_not_ask_the_cluster():
    seen = login_node([pool("l40s", "p")], [part("p")])
    assert launch_file(parse_workload(SMALL), "skypilot", "x", compute=seen) == launch_file(
        parse_workload(SMALL), "skypilot", "x"
    )


def test_an_array_asks_for_a_card_that_holds_its_largest_run_and_time_for_its_longest():
    seen = login_node([pool("t4", "small"), pool("l40s", "large")], [part("small"), part("large")])
    grid = {"batch_size": [1, 2]}
    cache = {"task": "activation_cache", "model": "pythia-2.8b", "seq_len": 512}
    answer = sweep(cache, grid, compute=seen, launch="slurm", run="python a.py {batch_size}")
    assert answer.device == "L40S" and answer.fits == 2 and answer.launch is not None
    assert {"--partition=large", "--array=0-1%1", "--gres=gpu:l40s:1"} <= set(options(answer.launch.text))
    # What does not fit the named card does not decide for those that do.
    named = sweep(
        cache, {"batch_size": [1, 400]}, gpu="L40S", compute=seen, launch="slurm", run="python a.py {batch_size}"
    )
    assert named.launch is not None and "--partition=large" in options(named.launch.text)
