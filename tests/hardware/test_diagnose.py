"""What is wrong with a machine, from reports made here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    Host,
    Interpreter,
    ProbeProblem,
    TorchBuild,
)
from compute_awareness.hardware.diagnose import diagnose, runs_on
from compute_awareness.hardware.probe.nvidia import NO_DRIVER
from compute_awareness.units import GIB

NEW = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


def card(name="NVIDIA A100-SXM4-80GB", capability="8.0", **more: Any) -> Accelerator:
    return Accelerator(
        index=0,
        kind="cuda",
        name=name,
        compute_capability=capability,
        total_bytes=80 * GIB,
        free_bytes=79 * GIB,
        **more,
    )


def machine(*cards: Accelerator, build: TorchBuild | None = None, libraries=None, **more: Any) -> Compute:
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="low", evidence=["x"])
    return Compute(
        host=Host(
            os="Linux 6 x86_64",
            cpus=1,
            ram_total_bytes=1,
            ram_available_bytes=1,
            disk_path="/hf",
            disk_free_bytes=10 * GIB,
        ),
        environment=Environment(primary="local", layers=[layer], clear=False),
        accelerators=list(cards),
        python=Interpreter(path="/env/bin/python", source="VIRTUAL_ENV", torch=build, libraries=libraries or {}),
        **more,
    )


def cuda(version="2.13.0+cu130", build: str | None = "13.0", available=True, arches=()) -> TorchBuild:
    return TorchBuild(version=version, cuda_build=build, cuda_available=available, arch_list=list(arches))


def ids(compute: Compute, download: int | None = None) -> list[str]:
    return [finding.id for finding in diagnose(compute, download)]


def test_nothing_wrong():
    good = machine(card(), build=cuda(arches=NEW), driver_version="580.95.05", driver_cuda_version="13.0")
    assert diagnose(good, 5 * GIB) == []


def test_cpu_only_torch_beside_a_card():
    compute = machine(card(), build=cuda("2.13.0+cpu", None, False), driver_cuda_version="12.4")
    (finding,) = diagnose(compute)
    assert (finding.id, finding.severity) == ("cpu_only_torch", "error")
    assert "cu126" not in finding.message and "cu129" in finding.cure
    assert ids(machine(build=cuda("2.13.0+cpu", None, False))) == []
    assert ids(machine(card(), build=cuda("2.13.0+rocm6.4", None, False))) == []


def test_driver_too_old_for_the_wheel():
    compute = machine(card(), build=cuda(), driver_version="550.54.15", driver_cuda_version="12.4")
    (finding,) = diagnose(compute)
    assert finding.id == "driver_too_old"
    assert "550.54.15" in finding.message and "580" in finding.cure and "CUDA 12" in finding.cure
    assert ids(machine(card(), build=cuda("2.9.1+cu128", "12.8"), driver_cuda_version="12.4")) == []
    assert ids(machine(card(), build=cuda(), driver_version="570.1")) == ["driver_too_old"]
    assert ids(machine(card(), build=cuda(), driver_version="580.65.06")) == []


@pytest.mark.parametrize(
    ("name", "capability", "build", "found"),
    [
        ("Tesla V100-SXM2-16GB", "7.0", cuda(), ["card_too_old"]),
        ("Tesla V100-SXM2-16GB", "7.0", cuda("2.13.0+cu126", "12.6"), []),
        ("Tesla P100-PCIE-16GB", "6.0", cuda("2.8.0+cu128", "12.8"), ["card_too_old"]),
        ("NVIDIA GeForce GTX 1080", "6.1", cuda("2.13.0+cu126", "12.6"), []),
        ("NVIDIA L4", "8.9", cuda(), []),
        ("NVIDIA B300", "10.3", cuda(), []),
        ("NVIDIA B200", "10.0", cuda("2.13.0+cu126", "12.6"), ["card_too_new"]),
        (
            "NVIDIA GeForce RTX 5090",
            "12.0",
            cuda("2.5.1+cu124", "12.4", arches=["sm_50", "sm_80", "sm_90"]),
            ["card_too_new"],
        ),
        # The list that the build tells of itself counts more than the table.
        ("Tesla V100-SXM2-16GB", "7.0", cuda(arches=["sm_70"]), []),
        # A build that the table does not know is not judged.
        ("Tesla V100-SXM2-16GB", "7.0", cuda("2.99.0+cu130", "13.0"), []),
    ],
)
def test_card_and_wheel(name, capability, build, found):
    assert ids(machine(card(name, capability), build=build, driver_cuda_version="13.0")) == found


def test_the_cure_names_a_build_that_has_the_card():
    compute = machine(card("Tesla V100-SXM2-16GB", "7.0"), build=cuda(), driver_cuda_version="13.0")
    assert "cu126" in diagnose(compute)[0].cure


def test_the_rule_is_torchs_own():
    codes, cards = (
        [50, 53, 60, 62, 70, 72, 75, 80, 86, 87, 90, 100, 101, 120],
        [*range(50, 54), 60, 61, 62, 70, 72, 75, 80],
    )
    cards += [86, 87, 89, 90, 100, 101, 103, 110, 120, 121]
    for code in codes:
        for capability in cards:
            mine = runs_on(f"{capability // 10}.{capability % 10}", f"sm_{code}")
            assert mine == torch.cuda._code_compatible_with_device(capability, code), (code, capability)


def test_the_wheel_table_is_torchs_own():
    """Of the release that is installed here: what its source says each CUDA build is compiled for."""
    import json
    from pathlib import Path

    from compute_awareness.hardware import diagnose as module

    facts = Path(module.__file__).parent.parent / "facts/torch_wheels.json"
    rows = {row["cuda"]: set(row["sm"]) for row in json.loads(facts.read_text())["wheels"] if row["torch"] == "2.13"}
    assert rows == {cuda: by_arch["x86_64"] for cuda, by_arch in torch.cuda.PYTORCH_RELEASES_CODE_CC.items()}


def test_special_architectures():
    assert runs_on("9.0", "sm_90a") and not runs_on("9.1", "sm_90a")
    assert runs_on("12.0", "compute_90") and not runs_on("8.0", "compute_90")
    assert not runs_on("?", "sm_80") and not runs_on("8.0", "gfx942")


def test_no_torch():
    (finding,) = diagnose(machine(card()))
    assert finding.id == "no_torch" and "/env/bin/python" in finding.message


def test_torch_that_does_not_import():
    compute = machine(card(), build=cuda(available=False))
    assert compute.python is not None
    compute.python.problem = "importing torch failed: OSError: libcudart"
    assert "python_problem" in ids(compute)


def test_cuda_not_available_though_all_is_well():
    compute = machine(card(), build=cuda(available=False, arches=NEW), driver_cuda_version="13.0")
    assert ids(compute) == ["cuda_unavailable"]


def test_hidden_cards():
    for value in ("", "-1"):
        compute = machine(card(visible=False), build=cuda(available=False), settings={"CUDA_VISIBLE_DEVICES": value})
        (finding,) = diagnose(compute)
        assert finding.id == "hidden_gpus" and "Unset" in finding.cure


def test_disk():
    assert ids(machine(build=cuda()), 10 * GIB) == []
    (finding,) = diagnose(machine(build=cuda()), 10 * GIB + 1)
    assert finding.id == "disk_too_small" and "/hf" in finding.message


def test_library_and_offline():
    compute = machine(build=cuda(), libraries={"transformer-lens": "4.0.1"}, settings={"HF_HUB_OFFLINE": "1"})
    assert sorted(ids(compute)) == ["no_hooked_transformer", "offline"]
    compute = machine(build=cuda(), libraries={"transformer-lens": "3.9.0"}, settings={"HF_HUB_OFFLINE": "0"})
    assert ids(compute) == []


def test_probes_that_failed_are_told_and_no_card_is_no_fault():
    broken = machine(build=cuda(), problems=[ProbeProblem(probe="nvidia", reason="driver mismatch; restart")])
    assert [(f.id, f.severity) for f in diagnose(broken)] == [("probe_nvidia", "warning")]
    none = machine(build=cuda(), problems=[ProbeProblem(probe="nvidia", reason=NO_DRIVER)])
    assert [f.severity for f in diagnose(none)] == ["info"]


def test_the_worst_comes_first():
    compute = machine(
        card(problem="lost"),
        libraries={"transformer-lens": "4.0"},
        problems=[ProbeProblem(probe="nvidia", reason=NO_DRIVER)],
    )
    severities = [finding.severity for finding in diagnose(compute)]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert severities[0] == "error"
