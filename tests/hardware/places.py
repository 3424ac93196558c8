"""Machines as descriptions: variables, files and kernel of every place in the table, of nested ones and of false
friends. Names of variables and files are those that the places really have (`facts/env_signals.json`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DMI = "/sys/class/dmi/id/"
HEX = "0123456789abcdef01234567"
KVM_FLAGS = "processor\t: 0\nflags\t\t: fpu vme sse2 hypervisor lahf_lm\n"


@dataclass
class Machine:
    """What one machine shows, and what must be said of it: the layers in their order, the first the primary."""

    name: str
    layers: list[str]
    environ: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # path -> text
    sure: str = "high"  # confidence of the first layer
    clear: bool = True
    details: dict[str, str] = field(default_factory=dict)  # of the first layer, hostname apart
    system: tuple[str, str] = ("Linux", "x86_64")

    def build(self, root: Path) -> Path:
        for name, text in self.files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root


PLACES = [
    Machine(
        "Colab Enterprise", ["colab_enterprise", "colab"],
        {"VERTEX_PRODUCT": "COLAB_ENTERPRISE", "COLAB_RELEASE_TAG": "r", "GOOGLE_CLOUD_PROJECT": "p"},
    ),
    Machine(
        "a Kaggle notebook with two T4", ["kaggle", "docker"],
        {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "KAGGLE_URL_BASE": "https://www.kaggle.com", "COLAB_GPU": ""},
        {"/kaggle/working/a": "", "/kaggle/input/b": "", "/.dockerenv": ""}, details={"mode": "Interactive"},
    ),
    Machine(
        "a Kaggle kernel whose run type is empty", ["kaggle"],
        {"KAGGLE_KERNEL_RUN_TYPE": "", "KAGGLE_DATA_PROXY_TOKEN": "x"}, {"/kaggle/working/a": ""}, "medium",
    ),
    Machine(
        "Kaggle, known by its address", ["kaggle"], {"KAGGLE_URL_BASE": "x"}, {"/kaggle/working/a": ""}, "medium",
    ),
    Machine(
        "Kaggle, known by its secrets", ["kaggle"],
        {"KAGGLE_USER_SECRETS_TOKEN": "x"}, {"/kaggle/working/a": ""}, "medium",
    ),
    Machine(
        "Colab", ["colab", "docker", "cloud_vm_gcp"],
        {"COLAB_RELEASE_TAG": "release-colab_20261101", "COLAB_GPU": "1", "TBE_RUNTIME_ADDR": "172.28.0.1:8011"},
        {"/.dockerenv": "", "/content/a": "", DMI + "product_name": "Google Compute Engine",
         DMI + "sys_vendor": "Google"},
        details={"release": "release-colab_20261101"},
    ),
    Machine("an old Colab", ["colab"], {"COLAB_BACKEND_VERSION": "next", "COLAB_GPU": "0"}),
    Machine(
        "a Modal function", ["modal", "gvisor"],
        {"MODAL_TASK_ID": "ta-01", "MODAL_IS_REMOTE": "1", "MODAL_CLOUD_PROVIDER": "aws", "MODAL_REGION": "us-east-1"},
        {"/proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"},
        details={"task_id": "ta-01", "kind": "function", "cloud": "aws", "region": "us-east-1"},
    ),
    Machine(
        "a Modal sandbox", ["modal", "gvisor"], {"MODAL_TASK_ID": "sb-2"},
        {"/proc/version": "Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016"},
        details={"task_id": "sb-2", "kind": "sandbox"},
    ),
    Machine(
        "a RunPod worker", ["runpod_serverless", "runpod_pod"],
        {"RUNPOD_ENDPOINT_ID": "e1", "RUNPOD_POD_ID": "p", "RUNPOD_GPU_COUNT": "1"},
        details={"endpoint": "e1", "gpu_count": "1"},
    ),
    Machine(
        "a RunPod worker without a pod's name", ["runpod_serverless"],
        {"RUNPOD_ENDPOINT_ID": "e1", "RUNPOD_WEBHOOK_GET_JOB": "https://x"}, sure="medium", details={"endpoint": "e1"},
    ),
    Machine(
        "a RunPod pod", ["runpod_pod", "docker"],
        {"RUNPOD_POD_ID": "abc", "RUNPOD_GPU_COUNT": "2", "RUNPOD_DC_ID": "EU-RO-1", "RUNPOD_VOLUME_ID": "v9"},
        {"/.dockerenv": "", "/etc/rp_environment": "export RUNPOD_POD_ID=abc"},
        details={"pod_id": "abc", "gpu_count": "2", "datacentre": "EU-RO-1", "network_volume": "v9"},
    ),
    Machine(
        "Vast.ai", ["vast", "docker"],
        {"VAST_CONTAINERLABEL": "C.123", "CONTAINER_ID": "123", "PUBLIC_IPADDR": "203.0.113.7",
         "VAST_TCP_PORT_22": "1"},
        {"/.dockerenv": ""}, details={"instance": "123"},
    ),
    Machine(
        "Vast.ai without its label", ["vast"], {"CONTAINER_ID": "123", "VAST_UDP_PORT_70001": "1"}, sure="medium",
        details={"instance": "123"},
    ),
    Machine(
        "Vast.ai by its files", ["vast"],
        {}, {"/.vast_containerlabel": "C.1", "/etc/vastai_kaalia/x": ""}, "medium",
    ),
    Machine(
        "a Lightning Studio", ["lightning_studio"],
        {"LIGHTNING_CLOUD_SPACE_ID": "s1", "LIGHTNING_CLOUDSPACE_HOST": "h"},
        {"/teamspace/studios/this_studio/a": ""}, details={"studio": "s1"},
    ),
    Machine(
        "a Space on ZeroGPU", ["hf_space", "kubernetes"],
        {"SPACE_ID": "a/b", "SPACE_HOST": "a-b.hf.space", "ACCELERATOR": "zero-a10g", "CPU_CORES": "8",
         "MEMORY": "64Gi", "SPACES_ZERO_GPU": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        details={"flavor": "zero-a10g", "cpus": "8", "memory": "64Gi"},
    ),
    Machine("a Space of an author", ["hf_space"], {"SPACE_ID": "a/b", "SPACE_AUTHOR_NAME": "a"}),
    Machine(
        "a Space with cores only", ["hf_space"], {"SPACE_ID": "a/b", "CPU_CORES": "2"}, sure="medium",
        details={"cpus": "2"},
    ),
    Machine(
        "a Hugging Face job", ["hf_job"],
        {"JOB_ID": HEX, "ACCELERATOR": "a100-large", "CPU_CORES": "12", "MEMORY": "142Gi"}, sure="medium",
        details={"flavor": "a100-large", "cpus": "12", "memory": "142Gi"},
    ),
    Machine(
        "SageMaker training", ["sagemaker_training"],
        {"SM_TRAINING_ENV": "{}", "SM_NUM_GPUS": "8", "SM_CURRENT_INSTANCE_TYPE": "ml.p4d.24xlarge",
         "SM_HOSTS": '["algo-1", "algo-2"]'},
        details={"instance_type": "ml.p4d.24xlarge", "gpus": "8", "hosts": "2"},
    ),
    Machine("SageMaker training by its ARN", ["sagemaker_training"], {"TRAINING_JOB_ARN": "arn:aws:sagemaker:x"}),
    Machine(
        "SageMaker training without the toolkit", ["sagemaker_training"], {"TRAINING_JOB_NAME": "t"},
        {"/opt/ml/input/config/resourceconfig.json": "{}"}, "medium",
    ),
    Machine(
        "SageMaker Studio", ["sagemaker_studio"], {"SAGEMAKER_APP_TYPE": "jupyterlab"},
        {"/opt/ml/metadata/resource-metadata.json": '{"ResourceName": "default"}'}, details={"app": "jupyterlab"},
    ),
    Machine(
        "a SageMaker notebook", ["sagemaker_notebook"], {},
        {"/opt/ml/metadata/resource-metadata.json": '{"ResourceArn": "arn:aws:x", "ResourceName": "probe-7"}'},
        details={"instance": "probe-7"},
    ),
    Machine("a Vertex training job", ["vertex_training"], {"CLOUD_ML_JOB_ID": "7", "AIP_MODEL_DIR": "gs://x"}),
    Machine("an Azure ML job", ["azureml_job"], {"AZUREML_RUN_ID": "r", "AZUREML_ARM_WORKSPACE_NAME": "w"}),
    Machine(
        "an Azure ML compute instance", ["azureml_compute_instance", "cloud_vm_azure"],
        {"AZUREML_FRAMEWORK": "PyTorch"},
        {"/mnt/azmnt/a": "", DMI + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "medium",
    ),
    Machine(
        "a Databricks cluster", ["databricks"], {"DATABRICKS_RUNTIME_VERSION": "16.4"},
        {"/databricks/DBR_VERSION": "16.4"},
        details={"runtime": "16.4"},
    ),
    Machine(
        "Databricks serverless GPU", ["databricks"], {"DATABRICKS_ENV_VERSION": "4", "DATABRICKS_ACCELERATOR": "A10"},
        details={"kind": "serverless GPU", "accelerator": "A10"},
    ),
    Machine("Databricks by its file", ["databricks"], {}, {"/databricks/DBR_VERSION": "15.1"}, "medium"),
    Machine(
        "a Paperspace notebook", ["paperspace_gradient"], {"PAPERSPACE_NOTEBOOK_REPO_ID": "r"},
        {"/storage/a": "", "/notebooks/b": ""}, "medium",
    ),
    Machine(
        "a Paperspace workload", ["paperspace_gradient"],
        {"PAPERSPACE_METRIC_WORKLOAD_ID": "w", "PAPERSPACE_CLUSTER_ID": "c"}, sure="medium",
    ),
    Machine("Paperspace by its domain", ["paperspace_gradient"], {"PAPERSPACE_FQDN": "x"}, sure="medium"),
    Machine(
        "Paperspace by its host name", ["paperspace_gradient"], {},
        {"/proc/sys/kernel/hostname": "n1.paperspacegradient.com\n"}, "medium",
    ),
    Machine(
        "a codespace", ["codespaces", "docker"], {"CODESPACES": "true", "CODESPACE_NAME": "n"}, {"/.dockerenv": ""},
        clear=False,
    ),
    Machine(
        "Vertex Workbench", ["vertex_workbench", "cloud_vm_gcp"], {"DL_ANACONDA_HOME": "/opt/conda"},
        {"/opt/deeplearning/metadata/env_version": "m1", DMI + "product_name": "Google Compute Engine"}, "medium",
    ),
    Machine(
        "Lambda Cloud with its agent", ["lambda_cloud", "cloud_vm_other"], {},
        {"/etc/lambda/guest-agent/systemd/x": "", "/usr/lib/lambda-stack/y": "", DMI + "sys_vendor": "QEMU"}, "medium",
    ),
    Machine(
        "Lambda Cloud with a filesystem", ["lambda_cloud"], {}, {"/usr/lib/lambda-stack/y": "", "/lambda/nfs/z": ""},
        "medium",
    ),
    Machine(
        "Lambda Cloud as a plain instance", ["lambda_cloud", "cloud_vm_other"], {},
        {"/usr/lib/lambda-stack/y": "", "/home/ubuntu/z": "", DMI + "sys_vendor": "QEMU"}, "medium",
    ),
    Machine(
        "a SLURM job", ["slurm"],
        {"SLURM_JOB_ID": "12", "SLURM_JOB_PARTITION": "gpu", "SLURM_GPUS_ON_NODE": "3", "SLURM_MEM_PER_NODE": "64000",
         "SLURM_JOB_END_TIME": "1795402993", "CUDA_VISIBLE_DEVICES": "0,1,2"},
        details={"job_id": "12", "partition": "gpu", "gpus": "3", "mem_mib": "64000", "end_time": "1795402993"},
    ),
    Machine("a SLURM job by its older name", ["slurm"], {"SLURM_JOBID": "12"}, details={"job_id": "12"}),
    Machine(
        "a node of a SLURM job entered by ssh", ["slurm", "ssh_session"], {"SSH_CONNECTION": "10.0.0.9 1 10.0.0.1 22"},
        {"/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_12/step_extern/user/task_0"}, "medium",
    ),
    Machine(
        "a node of a SLURM job entered by ssh, cgroup v1", ["slurm"], {},
        {"/proc/self/cgroup": "9:memory:/slurm/uid_1000/job_12/step_0\n4:cpu,cpuacct:/slurm/uid_1000/job_12\n"},
        "medium",
    ),
    Machine(
        "an interactive PBS job", ["pbs"],
        {"PBS_JOBID": "3.head", "PBS_ENVIRONMENT": "PBS_INTERACTIVE", "PBS_NODEFILE": "/x"},
        details={"job_id": "3.head", "kind": "PBS_INTERACTIVE"},
    ),
    Machine(
        "an LSF job", ["lsf"], {"LSB_JOBID": "5", "LSB_QUEUE": "gpu", "LSB_HOSTS": "n1"},
        details={"job_id": "5", "queue": "gpu"},
    ),
    Machine(
        "an SGE job", ["sge"], {"JOB_ID": "77", "SGE_ROOT": "/opt/sge", "QUEUE": "gpu.q", "NSLOTS": "4"}, sure="medium",
        details={"job_id": "77", "queue": "gpu.q"},
    ),
    Machine("a Flux job", ["flux_htcondor_oar"], {"FLUX_JOB_ID": "f1"}, sure="medium", details={"job_id": "f1"}),
    Machine("an HTCondor job", ["flux_htcondor_oar"], {"_CONDOR_JOB_AD": "/x"}, sure="medium"),
    Machine("an OAR job", ["flux_htcondor_oar"], {"OAR_JOB_ID": "9"}, sure="medium", details={"job_id": "9"}),
    Machine(
        "GitHub Actions", ["github_actions"],
        {"GITHUB_ACTIONS": "true", "CI": "true", "RUNNER_ENVIRONMENT": "self-hosted"},
        clear=False, details={"runner": "self-hosted"},
    ),
    Machine("GitLab CI", ["gitlab_ci"], {"GITLAB_CI": "true", "CI": "true"}, clear=False),
    Machine(
        "JupyterHub on a machine", ["jupyterhub"],
        {"JUPYTERHUB_SERVICE_PREFIX": "/user/someone/", "JUPYTERHUB_USER": "someone"}, clear=False,
    ),
    Machine(
        "Binder", ["binder"], {"BINDER_REPO_URL": "https://example.org/a/b", "BINDER_REQUEST": "v2"}, sure="medium",
        clear=False, details={"repository": "https://example.org/a/b"},
    ),
    Machine(
        "SkyPilot on AWS", ["skypilot", "cloud_vm_aws"],
        {"SKYPILOT_TASK_ID": "s", "SKYPILOT_NUM_GPUS_PER_NODE": "4",
         "SKYPILOT_CLUSTER_INFO": '{"cluster_name": "c", "cloud": "aws", "region": "us-east-1", "zone": null}'},
        {DMI + "sys_vendor": "Amazon EC2", DMI + "product_name": "g5.12xlarge"},
        details={"gpus": "4", "cloud": "aws", "region": "us-east-1"},
    ),
    Machine(
        "a dstack run", ["dstack"], {"DSTACK_RUN_NAME": "r", "DSTACK_GPUS_PER_NODE": "1"}, sure="medium",
        details={"gpus": "1"},
    ),
    Machine("a Ray worker", ["ray"], {"RAY_JOB_ID": "01000000", "CUDA_VISIBLE_DEVICES": ""}, sure="medium"),
    Machine(
        "a SLURM login node", ["slurm_login_node", "ssh_session"],
        {"PATH": "/usr/bin:/opt/slurm/bin", "SSH_CONNECTION": "10.0.0.9 1 10.0.0.1 22"},
        {"/opt/slurm/bin/sinfo": "", "/etc/slurm/slurm.conf": ""}, "medium", clear=False,
    ),
    Machine(
        "a SLURM login node reached by ssh", ["slurm_login_node", "ssh_session"],
        {"PATH": "/usr/bin", "SSH_CONNECTION": "10.0.0.9 1 10.0.0.1 22"}, {"/usr/bin/sinfo": ""}, "medium", clear=False,
    ),
    Machine(
        "a SLURM login node with its configuration elsewhere", ["slurm_login_node"],
        {"PATH": "/usr/bin", "SLURM_CONF": "/cm/slurm.conf"}, {"/usr/bin/sinfo": ""}, "medium", clear=False,
    ),
    Machine(
        "a pod", ["kubernetes"], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"/var/run/secrets/kubernetes.io/serviceaccount/token": "t",
         "/var/run/secrets/kubernetes.io/serviceaccount/namespace": "lab"},
        clear=False, details={"namespace": "lab"},
    ),
    Machine(
        "a pod without service variables", ["kubernetes"], {},
        {"/var/run/secrets/kubernetes.io/serviceaccount/token": "t"}, "medium", clear=False,
    ),
    Machine(
        "a pod without a service account, cgroup v1", ["kubernetes"], {},
        {"/proc/1/cgroup": "9:memory:/kubepods/burstable/pod1/abc"}, "medium", clear=False,
    ),
    Machine(
        "Apptainer", ["apptainer"], {"APPTAINER_CONTAINER": "/x/lab.sif", "APPTAINER_NAME": "lab.sif"},
        {"/.singularity.d/runscript": ""}, clear=False, details={"image": "/x/lab.sif"},
    ),
    Machine(
        "Singularity", ["apptainer"],
        {"SINGULARITY_CONTAINER": "/y.sif"}, clear=False, details={"image": "/y.sif"},
    ),
    Machine("Apptainer with a clean environment", ["apptainer"], {}, {"/.singularity.d/x": ""}, "medium", clear=False),
    Machine("Podman", ["podman"], {}, {"/run/.containerenv": ""}, clear=False),
    Machine("Podman with a volume on /run", ["podman"], {"container": "podman"}, clear=False),
    Machine(
        "Podman, entered by another way", ["podman"], {}, {"/proc/1/environ": "HOME=/root\0container=podman\0"},
        "medium",
        clear=False,
    ),
    Machine("Docker", ["docker"], {}, {"/.dockerenv": "", "/proc/1/cgroup": "0::/"}, clear=False),
    Machine(
        "containerd, cgroup v1", ["docker"], {}, {"/proc/1/cgroup": "5:memory:/docker/0abc\n"}, "medium", clear=False,
    ),
    Machine(
        "gVisor alone", ["gvisor"], {}, {"/proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"},
        "medium", clear=False,
    ),
    Machine(
        "a newer gVisor alone", ["gvisor"], {}, {"/proc/version": "Linux version 4.19.0-gvisor #1 SMP"}, clear=False,
    ),
    Machine("LXC", ["lxc_nspawn"], {}, {"/run/systemd/container": "lxc"}, "medium", clear=False),
    Machine(
        "systemd-nspawn, known to its first process only", ["lxc_nspawn"], {},
        {"/proc/1/environ": "container=systemd-nspawn\0"}, "medium", clear=False,
    ),
    Machine(
        "WSL", ["wsl2"], {"WSL_DISTRO_NAME": "Ubuntu-24.04"},
        {"/proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n", "/dev/dxg": "",
         "/proc/cpuinfo": KVM_FLAGS},
        clear=False, details={"distro": "Ubuntu-24.04"},
    ),
    Machine(
        "an EC2 machine", ["cloud_vm_aws"], {}, {DMI + "sys_vendor": "Amazon EC2", DMI + "product_name": "p5.48xlarge"},
        clear=False, details={"instance_type": "p5.48xlarge"},
    ),
    Machine("an old EC2 machine", ["cloud_vm_aws"], {}, {DMI + "bios_vendor": "Amazon EC2"}, "medium", clear=False),
    Machine(
        "an EC2 machine by its tag", ["cloud_vm_aws"], {},
        {"/sys/devices/virtual/dmi/id/board_asset_tag": "i-0123456789abcdef0\n"}, "medium", clear=False,
    ),
    Machine(
        "a Google VM", ["cloud_vm_gcp"], {},
        {DMI + "product_name": "Google Compute Engine", DMI + "sys_vendor": "Google"}, clear=False,
    ),
    Machine(
        "an Azure VM", ["cloud_vm_azure"], {},
        {DMI + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77", DMI + "sys_vendor": "Microsoft Corporation"},
        clear=False,
    ),
    Machine(
        "a Hetzner VM", ["cloud_vm_other"], {}, {DMI + "sys_vendor": "Hetzner"}, "medium", clear=False,
        details={"vendor": "Hetzner"},
    ),
    Machine(
        "an Oracle VM", ["cloud_vm_other"], {},
        {DMI + "chassis_asset_tag": "OracleCloud.com", DMI + "sys_vendor": "QEMU"}, "medium", clear=False,
        details={"vendor": "QEMU"},
    ),
    Machine(
        "some KVM machine", ["cloud_vm_other"], {}, {DMI + "sys_vendor": "QEMU"}, "low", clear=False,
        details={"vendor": "QEMU"},
    ),
    Machine("a microVM without DMI", ["cloud_vm_other"], {}, {"/proc/cpuinfo": KVM_FLAGS}, "low", clear=False),
    Machine(
        "an ARM VM without DMI", ["cloud_vm_other"], {}, {"/proc/device-tree/hypervisor/compatible": "linux,kvm"},
        "low",
        clear=False,
    ),
    Machine(
        "a box reached by ssh", ["ssh_session"],
        {"SSH_CONNECTION": "192.0.2.1 50000 198.51.100.2 22", "SSH_CLIENT": "192.0.2.1", "SSH_TTY": "/dev/pts/0"},
        clear=False, details={"terminal": "yes"},
    ),
    Machine(
        "a box reached through a tunnel", ["ssh_session"], {"SSH_CONNECTION": "127.0.0.1 50000 127.0.0.1 22"},
        clear=False,
        details={"through": "loopback or a tunnel"},
    ),
    Machine("ssh by its older name", ["ssh_session"], {"SSH_CLIENT": "192.0.2.1 5 22"}, sure="medium", clear=False),
    Machine(
        "ssh by its terminal", ["ssh_session"], {"SSH_TTY": "/dev/pts/3"}, sure="medium", clear=False,
        details={"terminal": "yes"},
    ),
    Machine("a Jetson", ["jetson", "local"], {}, {"/etc/nv_tegra_release": "# R36"}, clear=False),
    Machine(
        "a Jetson with a newer kernel", ["jetson", "local"],
        {}, {"/sys/class/tegra-firmware/x": ""}, "medium", False,
    ),
    Machine("a Mac", ["apple_silicon", "local"], system=("Darwin", "arm64"), clear=False),
    Machine(
        "a TPU VM", ["tpu_vm", "local"],
        {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_ID": "0", "TPU_TOPOLOGY": "2x4"}, {"/dev/accel0": ""},
        "medium", clear=False, details={"type": "v5litepod-8", "topology": "2x4"},
    ),
    Machine("a TPU VM by its name", ["tpu_vm", "local"], {"TPU_NAME": "t"}, {"/dev/accel0": ""}, "low", clear=False),
    Machine("a laptop", ["local"], {}, {"/sys/class/power_supply/BAT0/type": "Battery"}, "medium", clear=False),
    Machine(
        "a laptop whose battery is the second", ["local"],
        {}, {"/sys/class/power_supply/BAT1/type": "x"}, "medium", False,
    ),
    Machine("a laptop without its battery", ["local"], {}, {DMI + "chassis_type": "10\n"}, "medium", clear=False),
    Machine(
        "a workstation", ["local"], {},
        {DMI + "chassis_type": "3", DMI + "sys_vendor": "Dell Inc.",
         "/proc/cpuinfo": "flags\t: fpu vme sse2 lahf_lm\n"},
        "low", clear=False,
    ),
]  # fmt: skip

NESTED = [
    Machine(
        "laptop, ssh, login node, sbatch, Apptainer", ["slurm", "apptainer", "ssh_session"],
        {"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22", "SLURM_JOB_ID": "7", "APPTAINER_CONTAINER": "/x.sif"},
        details={"job_id": "7"},
    ),
    Machine(
        "a RunPod pod reached by ssh", ["runpod_pod", "docker", "ssh_session"],
        {"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22"},
        {"/.dockerenv": "", "/proc/1/environ": "PATH=/usr/bin\0RUNPOD_POD_ID=abc\0"}, "medium",
        details={"pod_id": "abc"},
    ),
    Machine(
        "a RunPod pod reached by ssh, from its start script", ["runpod_pod", "ssh_session"],
        {"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22"}, {"/etc/rp_environment": 'export RUNPOD_POD_ID="abc"\n'},
        "medium", details={"pod_id": "abc"},
    ),
    Machine(
        "Vast.ai reached by ssh", ["vast", "ssh_session"], {"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22"},
        {"/etc/environment": "VAST_CONTAINERLABEL=C.77\nCONTAINER_ID=77\n"}, "medium", details={"instance": "77"},
    ),
    Machine(
        "SkyPilot on RunPod", ["runpod_pod", "skypilot"], {"SKYPILOT_TASK_ID": "s", "RUNPOD_POD_ID": "p"},
        details={"pod_id": "p"},
    ),
    Machine(
        "JupyterHub on Kubernetes on Google", ["jupyterhub", "kubernetes", "cloud_vm_gcp"],
        {"JUPYTERHUB_SERVICE_PREFIX": "/user/x/", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {DMI + "product_name": "Google Compute Engine"}, clear=False,
    ),
    Machine(
        "Docker Desktop on Windows", ["docker", "wsl2"], {},
        {"/.dockerenv": "", "/proc/sys/kernel/osrelease": "5.15.0-microsoft-standard-WSL2", "/proc/cpuinfo": KVM_FLAGS},
        clear=False,
    ),
    Machine(
        "JupyterHub on SLURM", ["slurm", "jupyterhub"], {"SLURM_JOB_ID": "7", "JUPYTERHUB_SERVICE_PREFIX": "/user/x/"},
        details={"job_id": "7"},
    ),
    Machine(
        "Docker on a rented Lambda machine, by ssh", ["lambda_cloud", "docker", "cloud_vm_other", "ssh_session"],
        {"SSH_CONNECTION": "192.0.2.1 5 198.51.100.2 22"},
        {"/.dockerenv": "", "/etc/lambda/guest-agent/x": "", DMI + "sys_vendor": "QEMU"}, "medium",
    ),
]  # fmt: skip

# Machines that are nothing but somebody's own, whatever lies about on them.
FALSE_FRIENDS = [
    Machine("a folder called /content", ["local"], {}, {"/content/sample_data/a.csv": ""}),
    Machine("folders of other platforms", ["local"], {}, {
        "/kaggle/working/a": "", "/kaggle/input/b": "", "/opt/ml/model/c": "", "/storage/d": "", "/notebooks/e": "",
        "/teamspace/studios/this_studio/f": "", "/workspace/g": "", "/mnt/azmnt/h": "",
    }),
    Machine("COLAB_GPU exported by hand", ["local"], {"COLAB_GPU": "1"}),
    Machine("Modal's client", ["local"], {
        "MODAL_TOKEN_ID": "x", "MODAL_TOKEN_SECRET": "y", "MODAL_PROFILE": "me", "MODAL_ENVIRONMENT": "dev",
    }),
    Machine("Kaggle's client", ["local"], {"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k", "KAGGLE_API_TOKEN": "t"}),
    Machine(
        "RunPod's and Vast's clients", ["local"],
        {"RUNPOD_API_KEY": "k", "VAST_API_KEY": "k", "CONTAINER_API_KEY": "k"},
    ),
    Machine("Lightning's client", ["local"], {
        "LIGHTNING_CLOUD_URL": "u", "LIGHTNING_USER_ID": "u", "LIGHTNING_API_KEY": "k",
    }),
    Machine("Databricks' client", ["local"], {
        "DATABRICKS_HOST": "h", "DATABRICKS_TOKEN": "t", "DATABRICKS_CONFIG_PROFILE": "p",
    }),
    Machine("Ray's client", ["local"], {"RAY_ADDRESS": "auto"}),
    Machine("Google's and Hugging Face's clients", ["local"], {
        "GOOGLE_CLOUD_PROJECT": "p", "HF_TOKEN": "t", "VERTEX_PRODUCT": "WORKBENCH",
    }),
    Machine("AWS Lambda is another product", ["local"], {"AWS_LAMBDA_FUNCTION_NAME": "f"}, {"/etc/lambda/other": ""}),
    Machine("JOB_ID alone", ["local"], {"JOB_ID": "12", "MEMORY": "1Gi", "CPU_CORES": "2", "ACCELERATOR": "none"}),
    Machine("an SGE submit host", ["local"], {"SGE_ROOT": "/opt/sge"}),
    Machine("CI set by hand", ["local"], {"CI": "1", "GITHUB_ACTIONS": "0", "CODESPACES": "false"}),
    Machine("a Chromebook", ["local"], {}, {DMI + "sys_vendor": "Google", DMI + "product_name": "Eve"}),
    Machine(
        "a Surface laptop", ["local"],
        {}, {DMI + "sys_vendor": "Microsoft Corporation", DMI + "product_name": "Surface"},
    ),
    Machine("devices passed through to other machines", ["local"], {}, {"/dev/vfio/12": "", "/dev/accel/accel0": ""}),
    Machine("variables that are set to nothing", ["local"], {
        "MODAL_TASK_ID": "", "SLURM_JOB_ID": "", "RUNPOD_POD_ID": "", "COLAB_RELEASE_TAG": "", "SSH_CONNECTION": "",
    }),
    Machine("another process's variables", ["local"], {}, {"/proc/1/environ": "MODAL_TASK_ID=x\0SLURM_JOB_ID=1\0"}),
]  # fmt: skip
