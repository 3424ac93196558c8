"""Every row and every rule of `facts/env_signals.json` on a machine built for it; nested places; false friends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from places import FALSE_FRIENDS, NESTED, PLACES, Machine

from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe import environment, examine
from compute_awareness.hardware.probe.environment import probe_environment
from compute_awareness.hardware.probe.report import Environment

ROWS: list[dict[str, Any]] = json.loads((Path(environment.__file__).parents[2] / "facts/env_signals.json").read_text())[
    "environments"
]
NAMED = {machine.name: machine for machine in [*PLACES, *NESTED, *FALSE_FRIENDS]}
# The order in which the reference tests places; rows it leaves open stand where they do no harm.
ORDER = [
    "colab_enterprise", "kaggle", "colab", "modal", "runpod_serverless", "runpod_pod", "vast", "lightning_studio",
    "hf_space", "hf_job", "sagemaker_training", "sagemaker_studio", "sagemaker_notebook", "vertex_training",
    "azureml_job", "azureml_compute_instance", "databricks", "paperspace_gradient", "codespaces",
    "vertex_workbench", "lambda_cloud", "slurm", "pbs", "lsf", "sge", "jupyterhub", "binder", "skypilot", "dstack",
    "ray", "kubernetes", "apptainer", "podman", "docker", "wsl2", "cloud_vm_aws", "cloud_vm_gcp", "cloud_vm_azure",
    "cloud_vm_other", "ssh_session", "local",
]  # fmt: skip


def seen(machine: Machine, root: Path) -> Environment:
    return probe_environment(machine.environ, machine.build(root), machine.system)


def row(name: str) -> dict[str, Any]:
    return next(entry for entry in ROWS if entry["id"] == name)


def test_the_order_is_the_references() -> None:
    assert [entry["id"] for entry in ROWS if entry["id"] in ORDER] == ORDER


def test_names_of_machines_are_their_own() -> None:
    assert len(NAMED) == len(PLACES) + len(NESTED) + len(FALSE_FRIENDS)


@pytest.mark.parametrize("name", [machine.name for machine in [*PLACES, *NESTED]])
def test_a_place_is_seen(tmp_path: Path, name: str) -> None:
    machine = NAMED[name]
    found = seen(machine, tmp_path)
    expected = sorted(machine.layers, key=[entry["id"] for entry in ROWS].index)
    assert [layer.id for layer in found.layers] == expected
    first = next(layer for layer in found.layers if layer.id == machine.layers[0])
    assert first.confidence == machine.sure
    assert found.clear is machine.clear
    told = {label: value for label, value in first.details.items() if label != "hostname"}
    assert told == machine.details
    assert all(layer.evidence for layer in found.layers)
    if row(first.id)["layer"] != "hardware":
        assert found.primary == first.id


@pytest.mark.parametrize("machine", FALSE_FRIENDS, ids=lambda machine: machine.name)
def test_a_false_friend_is_not(tmp_path: Path, machine: Machine) -> None:
    found = seen(machine, tmp_path)
    assert [layer.id for layer in found.layers] == ["local"]
    assert not found.clear and found.layers[0].implies == {}


def test_every_row_has_a_machine() -> None:
    built = {layer for machine in [*PLACES, *NESTED] for layer in machine.layers[:1]}
    assert built == {entry["id"] for entry in ROWS}


def test_every_rule_has_a_machine(tmp_path: Path) -> None:
    """Each rule is the one that tells some machine's place, except the guesses a false friend shares."""
    used: set[tuple[str, int]] = set()
    for number, machine in enumerate([*PLACES, *NESTED, *GUESSES]):
        root = machine.build(tmp_path / str(number))
        whole = environment._Machine(
            machine.environ, root, machine.system, environment._entry_variables(machine.environ, root)
        )
        for entry in ROWS:
            for position, rule in enumerate(entry["rules"]):
                if environment._all_seen(rule["all"], whole):
                    used.add((entry["id"], position))
                    break
    rules = {(entry["id"], position) for entry in ROWS for position in range(len(entry["rules"]))}
    assert used == rules


# Weak signs: reported as a guess, never as plain, and nothing follows from them.
GUESSES = [
    Machine("RUNPOD_ENDPOINT_ID alone, maybe a client's", ["runpod_serverless"], {"RUNPOD_ENDPOINT_ID": "e"}),
    Machine("SPACE_ID alone", ["hf_space"], {"SPACE_ID": "a/b"}),
    Machine("TRAINING_JOB_NAME alone", ["sagemaker_training"], {"TRAINING_JOB_NAME": "t"}),
    Machine("a workstation with Lambda's packages", ["lambda_cloud"], {}, {"/usr/lib/lambda-stack/x": ""}),
    Machine(
        "a workstation with Lambda's package source", ["lambda_cloud"], {},
        {"/etc/apt/sources.list.d/lambda-repository.list": ""},
    ),
    Machine(
        "a workstation with Lambda Stack from dpkg", ["lambda_cloud"], {},
        {"/var/lib/dpkg/info/lambda-stack-cuda.list": ""},
    ),
    Machine("a laptop with SLURM's programs", ["slurm_login_node"], {"PATH": "/usr/bin"}, {"/usr/bin/sinfo": ""}),
    Machine("a folder /lambda/nfs", ["lambda_cloud"], {}, {"/lambda/nfs/x": ""}),
]  # fmt: skip


@pytest.mark.parametrize("machine", GUESSES, ids=lambda machine: machine.name)
def test_a_guess_is_told_as_one(tmp_path: Path, machine: Machine) -> None:
    found = seen(machine, tmp_path)
    assert [layer.id for layer in found.layers] == machine.layers
    assert (found.layers[0].confidence, found.layers[0].implies, found.clear) == ("low", {}, False)


def test_slurm_sets_the_variables_of_every_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM 22.05 and 24.11 set these together for any gpu GRES: none of them is a sign of AMD or Intel."""
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL")
    variables = {"PATH": os.defpath, "SLURM_JOB_ID": "1", **dict.fromkeys(names, "0")}
    monkeypatch.setattr(examine, "probe_apple", lambda environ: [])  # a Mac that runs this test has a GPU
    compute = detect(environ=variables, cwd=tmp_path, root=tmp_path, with_python=False)
    assert [layer.id for layer in compute.environment.layers] == ["slurm"]
    assert compute.accelerators == []


T4: dict[str, Any] = {
    "cards": [{"name": "Tesla T4", "capability": "7.5", "memory_mib": {"total": 15360, "reserved": 425, "used": 0}}]
}
NOT_LOADED: dict[str, Any] = {"driver": {"calls": {"nvmlInitWithFlags": {"code": 9}}}}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"MODAL_TASK_ID": "ta-1"}, "modal"),
        ({"COLAB_RELEASE_TAG": "r", "COLAB_GPU": "1"}, "colab"),
        ({"RUNPOD_POD_ID": "p"}, "runpod_pod"),
        ({"VAST_CONTAINERLABEL": "C.1"}, "vast"),
        ({"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22"}, "ssh_session"),
        ({}, "local"),
    ],
)
def test_has_gpu_is_what_the_driver_shows(with_driver, tmp_path: Path, variables: dict[str, str], place: str) -> None:
    def has_gpu(driver: dict[str, Any] | None = None, **more: str) -> str | None:
        base = {"PATH": os.defpath} if driver is None else with_driver(driver)
        environ = {**base, **variables, **more}
        found = detect(environ=environ, cwd=tmp_path, root=tmp_path, with_python=False).environment
        assert found.primary == place
        return found.layers[0].details.get("has_gpu")

    assert has_gpu() == "false"
    assert has_gpu(T4) == "true"
    if place == "colab":
        assert has_gpu(T4, CUDA_VISIBLE_DEVICES="") == "false"
        # No permission, or a driver that is not loaded: there may be a card.
        assert has_gpu(NOT_LOADED) is None


def test_lambda_has_a_gpu_too(with_driver, tmp_path: Path) -> None:
    Machine("", [], {}, {"/etc/lambda/guest-agent/x": ""}).build(tmp_path)
    found = detect(environ=with_driver(T4), cwd=tmp_path, root=tmp_path, with_python=False).environment
    assert (found.primary, found.layers[0].details) == ("lambda_cloud", {"has_gpu": "true"})


def test_what_a_place_implies(tmp_path: Path) -> None:
    modal = seen(NAMED["a Modal function"], tmp_path / "modal").layers
    assert "5 minutes" in modal[0].implies["session"] and "modal.Volume" in modal[0].implies["keep"]
    pod = seen(NAMED["a RunPod pod"], tmp_path / "pod").layers
    assert "/workspace" in pod[0].implies["lost"]
    assert pod[1].implies == {}, "what the platform says of the container stands"
    docker = seen(NAMED["Docker"], tmp_path / "docker").layers[0].implies
    assert set(docker) == {"lost", "keep"}


def test_a_leaked_ssh_session_implies_nothing_in_a_job(tmp_path: Path) -> None:
    slurm, _, ssh = seen(NAMED["laptop, ssh, login node, sbatch, Apptainer"], tmp_path).layers
    assert "time limit" in slurm.implies["session"] and ssh.implies == {}
    alone = seen(NAMED["a box reached by ssh"], tmp_path / "box").layers[0]
    assert "nohup" in alone.implies["session"]


def test_colabs_limits_do_not_hold_on_a_local_runtime(tmp_path: Path) -> None:
    hosted = seen(NAMED["Colab"], tmp_path / "hosted").layers[0].implies
    local = seen(NAMED["an old Colab"], tmp_path / "local").layers[0].implies
    assert "note" not in hosted and "local runtime" in local["note"]


def test_a_shared_gpu_and_zerogpu_are_said(tmp_path: Path) -> None:
    shards = probe_environment({"SLURM_JOB_ID": "1", "SLURM_SHARDS_ON_NODE": "2"}, tmp_path).layers[0]
    assert shards.details["shards"] == "2" and "others may use" in shards.implies["note"]
    assert "note" not in probe_environment({"SLURM_JOB_ID": "1"}, tmp_path).layers[0].implies
    assert "@spaces.GPU" in seen(NAMED["a Space on ZeroGPU"], tmp_path).layers[0].implies["note"]


def test_no_address_and_no_user_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(("Vast.ai", "a box reached by ssh", "JupyterHub on a machine")):
        told = repr(seen(NAMED[name], tmp_path / str(number)))
        assert not any(secret in told for secret in ("203.0.113.7", "192.0.2.1", "someone"))


def test_every_implication_has_a_source() -> None:
    for entry in ROWS:
        for implied in entry.get("implies", []):
            assert implied["about"] in ("session", "lost", "keep", "note")
            assert implied["source"] and implied["says"].endswith(".")
            assert len(implied["says"]) <= 130, "one short sentence"


def test_rosetta_hides_the_processor_but_not_the_gpu() -> None:
    from compute_awareness.hardware.probe.apple import apple_gpu

    found = probe_environment({}, Path("/nowhere"), ("Darwin", "x86_64"))
    card = apple_gpu("x86_64", {"hw.optional.arm64": "1", "hw.memsize": str(1 << 34)})
    assert card is not None
    environment.tell_accelerators(found, [card], certain=True)
    assert [layer.id for layer in found.layers] == ["local", "apple_silicon"]
    assert found.layers[0].details["has_gpu"] == "true" and found.layers[1].implies["note"]
    environment.tell_accelerators(found, [card], certain=True)
    assert len(found.layers) == 2


def test_a_concise_answer_says_what_the_place_implies_in_few_words(tmp_path: Path) -> None:
    from compute_awareness.hardware.compute import Compute
    from compute_awareness.hardware.probe.report import Host, JobLimits, Limits
    from compute_awareness.mcp_server.answers import answer, concise_compute

    for number, machine in enumerate([*PLACES, *NESTED]):
        found = seen(machine, tmp_path / str(number))
        host = Host(os="Linux 6.8 x86_64", cpus=8, ram_total_bytes=1 << 36, ram_available_bytes=1 << 35)
        limits = Limits(processes=9, open_files=9, shm_total_bytes=9, job=JobLimits(source="SLURM job 1", cpus=8))
        compute = Compute(host=host, environment=found, limits=limits, summary="s")
        told = answer(concise_compute(compute), "concise")
        assert len(told.content[0].text) / 4 <= 220, machine.name
        short = told.structured_content
        assert short is not None and short["limits"] == {"job": {"source": "SLURM job 1", "cpus": 8.0}}
        for layer, whole in zip(short["environment"]["layers"], found.layers, strict=True):
            assert "evidence" not in layer and "details" not in layer
            assert layer.get("implies", {}) == (whole.implies if layer["id"] == found.primary else {})
