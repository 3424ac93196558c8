"""Libraries that do not fit each other: what their metadata asks for, and what is known beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.hardware.compute import Accelerator, Interpreter, TorchBuild, UnmetRequirement
from compute_awareness.hardware.finding import Finding
from compute_awareness.hardware.library_findings import library_findings, within
from compute_awareness.hardware.probe.interpreter import LIBRARIES, probe_python
from compute_awareness.hardware.probe.pythons.choose import Choice
from compute_awareness.units import GIB

TABLE = json.loads(
    (Path(__file__).parents[2] / "server/compute_awareness/facts/library_conflicts.json").read_text(encoding="utf-8")
)["conflicts"]


def card(kind: str = "cuda", capability: str | None = None, **more) -> Accelerator:
    return Accelerator(
        index=0, kind=kind, name=kind, compute_capability=capability, total_bytes=GIB, free_bytes=GIB, **more
    )


def findings(*cards: Accelerator, unmet=(), build: TorchBuild | None = None, **libraries: str) -> list[Finding]:
    from compute_awareness.hardware.compute import Compute, Environment, Host

    named = {name.replace("_", "-"): version for name, version in libraries.items()}
    python = Interpreter(path="/env/bin/python", source="x", torch=build, libraries=named, unmet=list(unmet))
    host = Host(os="Linux 6 x86_64", cpus=1, ram_total_bytes=1, ram_available_bytes=1)
    environment = Environment(primary="local", layers=[], clear=False)
    return library_findings(Compute(host=host, environment=environment, accelerators=list(cards), python=python))


def ids(*cards: Accelerator, **libraries: str) -> list[str]:
    return [finding.id for finding in findings(*cards, **libraries)]


@pytest.mark.parametrize(
    ("version", "span", "held"),
    [
        ("2.13.0+cu130", ">=2.6", True),
        ("2.9", ">=2.8,<2.9", False),
        ("2.8.0", ">=2.8,<2.9", True),
        ("2.10.0", ">2.9,<=2.10", True),
        ("4.0.0rc1", ">=4", True),
        ("3.9.0", "==3.9", True),
        ("v3.9.1", "==3.9", False),
        ("1!0.5", "<1", True),
        ("nightly", ">=0", False),
        ("", "<9", False),
    ],
)
def test_within(version, span, held):
    assert within(version, span) is held


def test_a_span_that_is_none_is_a_fault_of_the_table():
    with pytest.raises(ValueError, match=r"expected e\.g\. '>=2\.8'"):
        within("1.0", "~=2.8")


@given(st.text(max_size=30))
def test_no_version_breaks_the_comparison(version):
    assert within(version, ">=0") or not within(version, "<999999999")


def test_the_table_can_be_checked():
    for row in TABLE:
        assert set(row["when"]) <= set(LIBRARIES), row["id"]
        assert all(within("999", span) in (True, False) for span in row["when"].values())
        assert row["severity"] in ("error", "warning", "info") and row["source"] and row["message"]
        assert set(row) <= {"id", "severity", "when", "device", "below", "cards", "message", "cure", "source"}
        assert row.get("device") in (None, "none", "mps", "cuda")
    assert len({row["id"] for row in TABLE}) == len(TABLE)


def test_hooked_transformer():
    (finding,) = findings(transformer_lens="4.0.1")
    assert finding.id == "no_hooked_transformer" and finding.message.startswith("transformer-lens 4.0.1: ")
    assert ids(transformer_lens="3.9.0") == []


def test_numpy_2_with_a_torch_compiled_for_numpy_1():
    assert ids(numpy="2.0.1", torch="2.2.2") == ["numpy_2_with_old_torch"]
    assert ids(numpy="1.26.4", torch="2.2.2") == ids(numpy="2.0.1", torch="2.3.0") == ids(numpy="2.0.1") == []


def test_the_torch_that_is_imported_counts():
    build = TorchBuild(version="2.2.2+cu121")
    assert [f.id for f in findings(build=build, numpy="2.4.0")] == ["numpy_2_with_old_torch"]


def test_conflicts_of_a_device():
    assert ids(card("mps"), torch="2.8.0") == ["torch_2_8_on_mps"]
    assert ids(card("cuda"), torch="2.8.0") == ids(card("mps"), torch="2.9.0") == ids(torch="2.8.0") == []
    assert ids(bitsandbytes="0.45.1") == ["bitsandbytes_without_cuda"]
    assert ids(card("cuda", visible=False), bitsandbytes="0.45.1") == ["bitsandbytes_without_cuda"]
    assert ids(card("cuda"), bitsandbytes="0.45.1") == ids(bitsandbytes="0.46.0") == []


def test_flash_attn_on_a_turing_card():
    assert ids(card("cuda", "7.5"), flash_attn="2.8.3") == ["flash_attn_on_old_card"]
    assert ids(card("cuda", "12.0"), flash_attn="2.8.3") == ids(card("cuda"), flash_attn="2.8.3") == []
    assert ids(card("cuda", "7.5"), flash_attn="1.0.9") == []


def test_layers_over_several_cards():
    assert "n_devices_unreliable" in ids(card(), card(), transformer_lens="3.0.0")
    assert "n_devices_unreliable" not in ids(card(), transformer_lens="3.0.0")
    assert "n_devices_unreliable" in ids(card(), card(), transformer_lens="3.9.0")
    assert "n_devices_unreliable" not in ids(card(), card(), transformer_lens="4.0.0")


@pytest.mark.parametrize(
    ("libraries", "found"),
    [
        ({"transformer_lens": "3.3.0"}, {"bridge_cache_moves_model", "masks_of_n_ctx"}),
        ({"transformer_lens": "3.4.0"}, {"masks_of_n_ctx"}),
        ({"transformer_lens": "2.18.0"}, {"masks_of_n_ctx"}),
        ({"transformer_lens": "3.5.0"}, set()),
        ({"sae_lens": "6.27.2"}, {"sae_buffer_of_prompts"}),
        ({"sae_lens": "6.27.3"}, {"sae_buffer_below_batch"}),
        ({"transformers": "4.45.2"}, {"float32_by_default", "logits_in_float32"}),
        ({"transformers": "4.57.3"}, {"float32_by_default"}),
        ({"transformers": "5.0.0"}, {"checkpoint_dtype_by_default"}),
        (
            {"transformers": "5.23.0", "circuit_tracer": "0.5.0"},
            {"checkpoint_dtype_by_default", "circuit_tracer_apart"},
        ),
        ({"transformers": "4.57.3", "circuit_tracer": "0.5.0"}, {"float32_by_default"}),
    ],
)
def test_versions_that_behave_otherwise(libraries, found):
    assert set(ids(**libraries)) == found


def test_unmet_requirements_are_told_and_bounded():
    first = UnmetRequirement("sae-lens 6.54.12", "transformer-lens<4.0.0,>=2.16.1", "4.3.0")
    second = UnmetRequirement("sae-lens 6.54.12", "nltk<4.0.0,>=3.8.1")
    found = findings(unmet=[first, second])
    assert [f.message for f in found] == [
        "sae-lens 6.54.12 needs transformer-lens<4.0.0,>=2.16.1, but 4.3.0 is installed",
        "sae-lens 6.54.12 needs nltk<4.0.0,>=3.8.1, which is not installed",
    ]
    assert found[0].cure == "" and "-m pip check" in found[1].cure
    many = findings(unmet=[second] * 30)
    assert len(many) == 9 and many[-1].message == "22 more requirements are not met"


def site_with(folder: Path, **packages: tuple[str, list[str]]) -> Path:
    """A folder of packages that are only metadata: name -> (version, requirements)."""
    for name, (version, needs) in packages.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")
    return folder


def asked(tmp_path: Path, site: Path) -> Interpreter:
    """What is found in a Python whose packages are those in `site`."""
    python = tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    return probe_python(Choice(python, "x"), {"PATH": os.defpath})


def test_the_child_reads_what_the_packages_ask_for(tmp_path):
    import packaging

    site = site_with(
        tmp_path / "site",
        sae_lens=("6.54.12", [
            "transformer-lens (>=2.16.1,<4.0.0)", "nltk>=3.8.1", 'mamba; extra == "mamba"',
            'numpy>=9; python_version < "3"', "safetensors", "a requirement that is none (", "datasets>=3.1.0",
        ]),
        transformer_lens=("4.3.0", ["torch>=2.6"]),
        datasets=("5.0.0.dev0", []),
        torch=("2.7.0+cpu", []),
        safetensors=("not a version", []),
    )  # fmt: skip
    shutil.copytree(Path(packaging.__file__).parent, site / "packaging")
    found = asked(tmp_path, site)
    assert [(u.by, u.needs, u.found) for u in found.unmet] == [
        ("sae-lens 6.54.12", "transformer-lens<4.0.0,>=2.16.1", "4.3.0"),
        ("sae-lens 6.54.12", "nltk>=3.8.1", None),
    ]


def test_without_packaging_nothing_is_said_of_requirements(tmp_path):
    site = site_with(tmp_path / "site", transformer_lens=("3.9.0", ["torch>=99"]))
    found = asked(tmp_path, site)
    assert found.unmet == [] and found.libraries == {"transformer-lens": "3.9.0"} and found.problem is None


def test_this_environment_is_judged_as_pip_check_does():
    found = probe_python(Choice(Path(sys.executable), "--python", explicit=True), os.environ)
    mine = {(u.by.split(" ")[0], u.needs.split("<")[0].split(">")[0].split("=")[0].lower()) for u in found.unmet}
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=120)
    theirs = set()
    for line in done.stdout.splitlines():
        words = line.split()
        if "has requirement" in line:
            theirs.add((words[0], words[4].split("<")[0].split(">")[0].split("=")[0].split(";")[0].rstrip(",").lower()))
        elif "requires" in line:
            theirs.add((words[0], words[3].rstrip(",").lower()))
    assert mine == {(by, needs) for by, needs in theirs if by in LIBRARIES}
