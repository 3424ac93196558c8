"""Where this is: single places, nested ones, false friends, and nothing secret in what is told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe import environment
from compute_awareness.hardware.probe.environment import harmless, probe_environment

SIGNALS = json.loads((Path(environment.__file__).parents[2] / "facts/env_signals.json").read_text())


def root_with(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def ids(found) -> set[str]:
    return {layer.id for layer in found.layers}


@pytest.mark.parametrize(
    ("environ", "files", "primary", "clear", "also"),
    [
        ({"MODAL_TASK_ID": "ta-01"}, {}, "modal", True, set()),
        ({"COLAB_RELEASE_TAG": "release-colab_2026"}, {}, "colab", True, set()),
        ({"VERTEX_PRODUCT": "COLAB_ENTERPRISE", "COLAB_RELEASE_TAG": "r"}, {}, "colab_enterprise", True, {"colab"}),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_GPU": ""}, {}, "kaggle", True, set()),
        ({"RUNPOD_POD_ID": "p"}, {"/.dockerenv": ""}, "runpod_pod", True, {"docker"}),
        ({"RUNPOD_POD_ID": "p", "RUNPOD_ENDPOINT_ID": "e"}, {}, "runpod_serverless", True, {"runpod_pod"}),
        ({"VAST_CONTAINERLABEL": "C.1"}, {"/.dockerenv": ""}, "vast", True, {"docker"}),
        ({}, {"/etc/lambda/guest-agent": ""}, "lambda_cloud", True, set()),
        ({"SLURM_JOB_ID": "7"}, {}, "slurm", True, set()),
        ({}, {"/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_12/step_0"}, "slurm", True, set()),
        (
            {"JOB_ID": "a" * 24, "ACCELERATOR": "t4-small", "CPU_CORES": "4", "MEMORY": "15Gi"},
            {},
            "hf_job",
            True,
            set(),
        ),
        ({"JOB_ID": "77", "SGE_ROOT": "/opt/sge"}, {}, "sge", True, set()),
        ({"SSH_CONNECTION": "1.2.3.4 1 5.6.7.8 22"}, {}, "ssh_session", False, set()),
        ({}, {"/.dockerenv": ""}, "docker", False, set()),
        ({}, {"/run/.containerenv": ""}, "podman", False, set()),
        ({"GITHUB_ACTIONS": "true"}, {"/.dockerenv": ""}, "github_actions", False, {"docker"}),
        ({"CODESPACES": "true"}, {"/.dockerenv": ""}, "codespaces", False, {"docker"}),
        (
            {},
            {"/sys/class/dmi/id/sys_vendor": "Amazon EC2", "/sys/class/dmi/id/product_name": "g5.xlarge"},
            "cloud_vm_aws",
            False,
            set(),
        ),
        ({}, {"/proc/sys/kernel/osrelease": "5.15-microsoft-standard-WSL2"}, "wsl2", False, set()),
        ({}, {}, "local", False, set()),
        ({}, {"/etc/nv_tegra_release": ""}, "local", False, {"jetson"}),
        # nested
        (
            {"SSH_CONNECTION": "a", "SLURM_JOB_ID": "7", "APPTAINER_CONTAINER": "/x.sif"},
            {},
            "slurm",
            True,
            {"ssh_session", "apptainer"},
        ),
        ({"SKYPILOT_TASK_ID": "s", "RUNPOD_POD_ID": "p"}, {}, "runpod_pod", True, {"skypilot"}),
        (
            {"JUPYTERHUB_SERVICE_PREFIX": "/user/x/", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            {"/sys/class/dmi/id/product_name": "Google Compute Engine"},
            "jupyterhub",
            False,
            {"kubernetes", "cloud_vm_gcp"},
        ),
        ({}, {"/.dockerenv": "", "/proc/sys/kernel/osrelease": "microsoft"}, "docker", False, {"wsl2"}),
    ],
)
def test_places(tmp_path, environ, files, primary, clear, also):
    found = probe_environment(environ, root_with(tmp_path, files))
    assert (found.primary, found.clear) == (primary, clear)
    assert ids(found) == {primary, *also}
    assert all(layer.evidence for layer in found.layers)


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        ({}, {"/content/notebook.ipynb": "", "/kaggle/working/a": "", "/kaggle/input/b": "", "/opt/ml/model": ""}),
        ({"COLAB_GPU": "1"}, {}),
        ({"MODAL_TOKEN_ID": "x", "MODAL_TOKEN_SECRET": "y", "MODAL_PROFILE": "me", "MODAL_ENVIRONMENT": "dev"}, {}),
        ({"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k", "KAGGLE_API_TOKEN": "t"}, {}),
        ({"RUNPOD_API_KEY": "k", "VAST_API_KEY": "k", "LIGHTNING_API_KEY": "k", "LIGHTNING_USER_ID": "u"}, {}),
        ({"DATABRICKS_HOST": "h", "DATABRICKS_TOKEN": "t", "RAY_ADDRESS": "auto", "HF_TOKEN": "t"}, {}),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f", "GOOGLE_CLOUD_PROJECT": "p", "CI": "1"}, {"/etc/lambda/other": ""}),
        ({"JOB_ID": "12", "MEMORY": "1Gi"}, {}),
        ({"SGE_ROOT": "/opt/sge"}, {}),
        ({"MODAL_TASK_ID": ""}, {}),
        ({"CODESPACES": "false", "GITHUB_ACTIONS": "0"}, {}),
    ],
)
def test_false_friends_are_local(tmp_path, environ, files):
    found = probe_environment(environ, root_with(tmp_path, files))
    assert ids(found) == {"local"} and not found.clear


def test_probably_lambda_is_not_plain(tmp_path):
    found = probe_environment({}, root_with(tmp_path, {"/usr/lib/lambda-stack/x": ""}))
    assert (found.primary, found.layers[0].confidence, found.clear) == ("lambda_cloud", "low", False)


def test_a_laptop_is_surer(tmp_path):
    found = probe_environment({}, root_with(tmp_path, {"/sys/class/power_supply/BAT0/type": "Battery"}))
    assert found.layers[0].confidence == "medium"


def test_login_node_and_job(tmp_path):
    root = root_with(tmp_path, {"/opt/slurm/bin/sinfo": ""})
    outside = probe_environment({"PATH": "/usr/bin:/opt/slurm/bin", "SSH_CONNECTION": "x"}, root)
    assert (outside.primary, outside.clear) == ("slurm_login_node", False)
    inside = probe_environment({"PATH": "/opt/slurm/bin", "SLURM_JOB_ID": "4"}, root)
    assert ids(inside) == {"slurm"}
    root_with(tmp_path, {"/dev/nvidia0": ""})
    assert ids(probe_environment({"PATH": "/opt/slurm/bin"}, root)) == {"local"}


@pytest.mark.parametrize(
    ("path", "text", "primary"),
    [
        ("/etc/rp_environment", 'export PATH=/x\nexport RUNPOD_POD_ID="abc"\n', "runpod_pod"),
        ("/proc/1/environ", "HOME=/root\0RUNPOD_POD_ID=abc\0", "runpod_pod"),
        ("/etc/environment", "VAST_CONTAINERLABEL=C.77\n", "vast"),
    ],
)
def test_what_only_the_entry_process_knows(tmp_path, path, text, primary):
    found = probe_environment({"SSH_CONNECTION": "a b c d"}, root_with(tmp_path, {path: text}))
    assert (found.primary, found.clear) == (primary, True)
    assert found.layers[0].confidence == "medium" and path in found.layers[0].evidence[0]


def test_another_process_lends_no_other_variables(tmp_path):
    found = probe_environment({}, root_with(tmp_path, {"/proc/1/environ": "MODAL_TASK_ID=x\0SLURM_JOB_ID=1\0"}))
    assert found.primary == "local"


def test_details(tmp_path):
    environ = {"MODAL_TASK_ID": "ta-01KABC", "MODAL_REGION": "us-east-1"}
    told = {"task_id": "ta-01KABC", "region": "us-east-1", "kind": "sandbox"}
    assert probe_environment(environ, tmp_path).layers[0].details == told
    environ = {"COLAB_RELEASE_TAG": "release-colab-external_20261101-060000_RC00"}
    assert probe_environment(environ, tmp_path).layers[0].details == {"release": environ["COLAB_RELEASE_TAG"]}
    assert "hostname" in probe_environment({"SSH_CONNECTION": "a"}, tmp_path).layers[0].details


def signals_of(entry) -> list[dict]:
    return [signal for rule in [*entry["rules"], {"all": entry.get("supporting", [])}] for signal in rule["all"]]


NAMES = sorted(
    {signal["env"] for entry in SIGNALS["environments"] for signal in signals_of(entry) if "env" in signal}
    | {
        "HF_TOKEN",
        "MODAL_TOKEN_SECRET",
        "KAGGLE_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "CUDA_VISIBLE_DEVICES",
        "HF_HUB_OFFLINE",
    }
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PREFIXES = st.sampled_from(["hf_", "sk-", "ghp_", "AKIA", "glpat-"])
tokens = st.one_of(
    st.builds("{}{}".format, PREFIXES, st.text(LETTERS, min_size=12, max_size=40)),
    st.text(LETTERS, min_size=32, max_size=64),
)


@given(variables=st.dictionaries(st.sampled_from(NAMES), tokens, min_size=1, max_size=12))
def test_nothing_like_a_token_is_told(tmp_path_factory, variables):
    told = json.dumps(asdict(probe_environment(variables, tmp_path_factory.getbasetemp() / "nowhere")))
    assert not [value for value in variables.values() if value in told]


def test_the_whole_report_tells_no_token(tmp_path):
    secret = "hf_" + "Ab1" * 11
    compute = detect(environ=dict.fromkeys(NAMES, secret), cwd=tmp_path, root=tmp_path, with_python=False)
    assert secret not in compute.model_dump_json()
    assert compute.settings["HF_HUB_OFFLINE"] == "(set)"


@pytest.mark.parametrize(
    "value", ["gpu-node-07", "release_2026-11", "GPU-1b2c3d4e-aaaa-bbbb-cccc-0123456789ab", "0,1", "has-gpu"]
)
def test_plain_values_are_told(value):
    assert harmless(value)


def test_the_table_is_whole():
    kinds = set(SIGNALS["meta"]["signals"])
    for entry in SIGNALS["environments"]:
        assert entry["sources"] and entry["rules"]
        for signal in signals_of(entry):
            assert len(kinds & set(signal)) == 1, (entry["id"], signal)
    assert len(SIGNALS["environments"]) == 49 + len({"gvisor"}) and SIGNALS["environments"][-1]["id"] == "local"


def test_a_schedulers_programs_alone_name_no_place_that_something_else_names(tmp_path):
    """Debian's SLURM package on a laptop, in a container: docker is seen for sure, the login node is a guess."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/sinfo").write_text("")
    environ = {"PATH": "/usr/bin"}
    assert probe_environment(environ, tmp_path).primary == "slurm_login_node"
    (tmp_path / ".dockerenv").write_text("")
    found = probe_environment(environ, tmp_path)
    assert (found.primary, ids(found)) == ("docker", {"docker", "slurm_login_node"})
