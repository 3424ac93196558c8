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
from compute_awareness.hardware.diagnose import diagnose
from compute_awareness.hardware.probe.capability import runs_on
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
    assert ids(machine(card(), build=cuda("2.13.0+rocm6.4", None, False))) == ["no_cuda_torch"]


def amd(arch: str | None = "gfx942") -> Accelerator:
    found = Accelerator(index=0, kind="rocm", name="AMD Instinct MI300X", total_bytes=192 * GIB, free_bytes=191 * GIB)
    found.arch = arch
    return found


def rocm(available: bool, *targets: str) -> TorchBuild:
    return TorchBuild("2.9.1+rocm6.4", hip_build="6.4.43484", cuda_available=available, arch_list=list(targets))


def test_a_build_for_another_makers_cards():
    (finding,) = diagnose(machine(card(), build=rocm(False)))
    assert (finding.id, finding.severity) == ("no_cuda_torch", "error") and "ROCm" in finding.message
    # With an AMD card beside it the build was chosen for that one.
    assert ids(machine(card(), amd(), build=rocm(True, "gfx942"))) == []
    intel = Accelerator(index=0, kind="xpu", name="Intel Arc B580", total_bytes=12 * GIB, free_bytes=11 * GIB)
    assert ids(machine(intel, build=cuda("2.13.0+cpu", None, False))) == ["torch_without_xpu"]
    xpu = TorchBuild("2.13.0+xpu", xpu_build="20250300")
    assert ids(machine(intel, build=xpu)) == ["xpu_unavailable"]
    assert ids(machine(intel, build=TorchBuild("2.13.0+xpu", xpu_build="20250300", xpu_available=True))) == []
    assert ids(machine(card(), intel, build=cuda(arches=NEW))) == []


def test_amd_cards_and_the_targets_of_the_build():
    assert ids(machine(amd(), build=rocm(True, "gfx90a:sramecc+:xnack-", "gfx942:sramecc+"))) == []
    (finding,) = diagnose(machine(amd("gfx906"), build=rocm(True, "gfx90a", "gfx942")))
    assert finding.id == "rocm_without_card" and "gfx906" in finding.message and "gfx90a, gfx942" in finding.message
    assert ids(machine(amd(None), build=rocm(True, "gfx942"))) == []
    assert ids(machine(amd(), build=rocm(False, "gfx942"))) == ["rocm_unavailable"]


def test_the_default_wheel_of_windows():
    windows = machine(card(), build=cuda("2.13.0+cpu", None, False))
    windows.host.os = "Windows 11 AMD64"
    assert "CPU-only; use PyTorch's own index" in diagnose(windows)[0].cure


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


def test_the_words_name_the_build_the_card_and_the_code():
    """The sentence of the default wheel, whose version says nothing of its CUDA."""
    compute = machine(card("Tesla V100-SXM2-16GB", "7.0"), build=cuda("2.15.0", "13.2", arches=NEW))
    (finding,) = diagnose(compute)
    assert finding.message == (
        "torch 2.15.0 (CUDA 13.2) has no kernels for Tesla V100-SXM2-16GB (card 0), which is too old for it: the card "
        "has compute capability 7.0, the build has code for sm_75, sm_80, sm_86, sm_90, sm_100, sm_120"
    )
    assert finding.cure == "Install another CUDA build of torch 2.15: the cu126 build has code for this card."


def test_a_release_without_a_build_for_the_card_points_to_another():
    compute = machine(card("Tesla V100-SXM2-16GB", "7.0"), build=cuda("2.99.0", "14.0", arches=["sm_80"]))
    assert "torch 2.15: the cu126 build" in diagnose(compute)[0].cure
    compute.driver_cuda_version = "11.4"
    assert [f.id for f in diagnose(compute)] == ["driver_too_old", "card_too_old"]
    assert "torch 2.0: the cu117 build" in diagnose(compute)[1].cure
    compute.driver_cuda_version = "10.2"
    assert "build has code" not in diagnose(compute)[1].cure


def test_a_card_without_code_beside_one_that_has_it_is_a_warning():
    old, new = card("Tesla V100-SXM2-16GB", "7.0"), card("NVIDIA L4", "8.9")
    assert [(f.id, f.severity) for f in diagnose(machine(old, new, build=cuda(arches=NEW)))] == [
        ("card_too_old", "warning")
    ]
    old.visible = False
    assert ids(machine(old, new, build=cuda(arches=NEW))) == []


def test_arm_machines_have_wheels_of_their_own():
    compute = machine(card("NVIDIA GB10", "12.1"), build=cuda(available=True))
    compute.host.os = "Linux 6.11 aarch64"
    assert ids(compute) == []
    compute.accelerators = [card("Tesla T4", "7.5")]
    assert ids(compute) == ["card_too_old"]
    compute.accelerators = [card("Orin", "8.7")]
    (finding,) = diagnose(compute)
    assert "JetPack" in finding.cure
    compute.host.os = "Linux 6.11 ppc64le"
    assert ids(compute) == []


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
    table = json.loads(facts.read_text())["wheels_aarch64"]
    rows = {row["cuda"]: set(row["sm"]) for row in table if row["torch"] == "2.13"}
    assert rows == {cuda: by_arch["aarch64"] for cuda, by_arch in torch.cuda.PYTORCH_RELEASES_CODE_CC.items()}


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
