"""`nvidia-smi -q -x` of the same machines: it must lead to the same cards as NVML does."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_machines import cards_of, load, machine_names, write_files

from compute_awareness.hardware.probe.nvidia import probe_nvidia
from compute_awareness.hardware.probe.nvidia_cards import NvidiaReport
from compute_awareness.hardware.probe.nvidia_smi import read_capabilities, read_slices, read_topology, read_xml
from compute_awareness.units import MIB

MODES = {None: "N/A", 0: "Default", 2: "Prohibited", 3: "Exclusive_Process"}
VIRTUALIZATION = {None: "N/A", 0: "None", 1: "Pass-Through", 2: "VGPU"}


def on(value: Any) -> str:
    return "N/A" if value is None else "Enabled" if value else "Disabled"


def memory(card: dict[str, Any]) -> str:
    sizes = card.get("memory_mib")
    if sizes is None:
        return "<fb_memory_usage><total>N/A</total><used>N/A</used><free>N/A</free></fb_memory_usage>"
    total, reserved, used = (sizes.get(key, 0) for key in ("total", "reserved", "used"))
    cells = {"total": total, "reserved": reserved, "used": used, "free": total - reserved - used}
    return f"<fb_memory_usage>{''.join(f'<{k}>{v} MiB</{k}>' for k, v in cells.items())}</fb_memory_usage>"


def xml(machine: dict[str, Any]) -> str:
    """What nvidia-smi of driver 550 prints of `machine`, as far as it is read (with its whitespace)."""
    driver = machine.get("driver", {})
    cuda = driver.get("cuda", 12040)
    parts = [
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>',
        "<timestamp>Thu Nov 26 09:00:00 2026</timestamp>",
        f"<driver_version>{driver.get('version', '550.54.15')}</driver_version>",
        f"<cuda_version>{cuda // 1000}.{cuda % 1000 // 10}</cuda_version>",
    ]
    for card in cards_of(machine):
        slices = "".join(
            f"<mig_device><index>{i}</index><gpu_instance_id>{part['gpu_instance']}</gpu_instance_id>"
            f"<compute_instance_id>{part['compute_instance']}</compute_instance_id>{memory(part)}</mig_device>"
            for i, part in enumerate(card.get("slices", []))
        )
        processes = "".join(map(process, card.get("processes", [])))
        parts.append(
            f'<gpu id="{card["pci"]}">\n\t\t<product_name>{escape(card["name"])}</product_name>'
            f"<persistence_mode>{on(card.get('persistence'))}</persistence_mode>"
            f"<mig_mode>\n<current_mig>{on(card.get('mig'))}</current_mig></mig_mode>"
            f"<mig_devices>{slices or 'None'}</mig_devices>"
            f"<uuid>{card['uuid']}</uuid>"
            "<gpu_virtualization_mode><virtualization_mode>"
            f"{VIRTUALIZATION[card.get('virtualization')]}</virtualization_mode></gpu_virtualization_mode>"
            f"{memory(card)}<compute_mode>{MODES[card.get('compute_mode')]}</compute_mode>"
            f"<ecc_mode><current_ecc>{on(card.get('ecc'))}</current_ecc></ecc_mode>"
            f"<processes>\n{processes}</processes></gpu>"
        )
    return "\n".join([*parts, "</nvidia_smi_log>\n"])


def process(told: dict[str, Any]) -> str:
    letters = told.get("type", "C").replace("M", "M+C")
    used = f"{told['used_mib']} MiB" if "used_mib" in told else "N/A"
    return (
        f"<process_info><pid>{told['pid']}</pid><type>{letters}</type><process_name>/usr/bin/x</process_name>"
        f"<used_memory>{used}</used_memory></process_info>"
    )


def listing(machine: dict[str, Any]) -> str:
    lines = []
    for index, card in enumerate(cards_of(machine)):
        lines.append(f"GPU {index}: {card['name']} (UUID: {card['uuid']})")
        for position, part in enumerate(card.get("slices", [])):
            profile = part["name"].split(" MIG ")[1]
            lines.append(f"  MIG {profile}     Device  {position}: (UUID: {part['uuid']})")
    return "\n".join(lines)


def matrix(machine: dict[str, Any]) -> str:
    """`nvidia-smi topo -m` of a machine, with a network card and affinities, as a terminal shows it."""
    words = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
    count = len(cards_of(machine))
    names = [f"GPU{i}" for i in range(count)]
    lines = ["\t" + "\t".join([f"\x1b[4m{names[0]}", *names[1:], "NIC0", "CPU Affinity", "NUMA Affinity\x1b[0m"])]
    for i in range(count):
        cells = []
        for j in range(count):
            pair = f"{min(i, j)}-{max(i, j)}"
            link = next((k for k in machine.get("links", []) if pair in k.get("pairs", pair).split()), None)
            lanes = link and link.get("nvlinks")
            cells.append("X" if i == j else "?" if link is None else f"NV{lanes}" if lanes else words[link["level"]])
        lines.append("\t".join([names[i], *cells, "SYS", "0-31", "0"]))
    return "\n".join(
        [*lines, "NIC0\t" + "\t".join(["SYS"] * count), "", "Legend:", "  X    = Self", "  NV#  = NVLinks"]
    )


def with_smi(machine: dict[str, Any], folder: Path) -> dict[str, str]:
    """Variables of a machine whose only NVIDIA program is nvidia-smi."""
    capable = "\n".join(f"{c['pci']}, {c['capability']}" for c in cards_of(machine) if "capability" in c)
    slices = listing(machine) if slices_named(machine) else ""
    path = folder / "nvidia-smi"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in\n"-q -x") printf %s {shlex.quote(xml(machine))};;\n'
        f'"-L") printf %s {shlex.quote(slices)};;\n'
        f'"topo -m") printf %s {shlex.quote(matrix(machine) if machine.get("cards") else "")};;\n'
        f'"--query-gpu=pci.bus_id,compute_cap --format=csv,noheader") printf %s {shlex.quote(capable)};;\n'
        "*) exit 2;;\nesac\n"
    )
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.defpath}", **machine.get("environ", {})}


def slices_named(machine: dict[str, Any]) -> bool:
    return all(" MIG " in part["name"] for card in machine.get("cards", []) for part in card.get("slices", []))


def healthy(name: str) -> bool:
    machine = load(name)
    broken = machine.get("driver", {}).get("calls") or any("calls" in card for card in machine.get("cards", []))
    return bool(machine.get("cards")) and slices_named(machine) and not broken


def test_most_machines_are_compared():
    assert sum(map(healthy, machine_names())) >= 50


@pytest.mark.parametrize("name", [n for n in machine_names() if healthy(n)])
def test_the_same_cards_as_by_nvml(name, with_driver, tmp_path):
    machine = load(name)
    files = {path: text.replace("OWN", str(os.getuid())) for path, text in machine.get("files", {}).items()}
    write_files({"files": files}, tmp_path)
    by_nvml = probe_nvidia(with_driver(machine, **machine.get("environ", {})), tmp_path)
    by_smi = probe_nvidia(with_smi(machine, tmp_path), tmp_path)
    assert by_smi.cards == by_nvml.cards
    # The matrix does not tell a switch from a cable, nor two chips of one board from a switch between them.
    alike = {"nvswitch": "nvlink", "board": "pcie_switch"}
    by_matrix = [replace(link, link=alike.get(link.link, link.link)) for link in by_nvml.links]
    assert by_smi.links == by_matrix
    assert [p.reason for p in by_smi.problems] == [p.reason for p in by_nvml.problems]
    assert (by_smi.driver_version, by_smi.driver_cuda_version) == (by_nvml.driver_version, by_nvml.driver_cuda_version)


def test_an_old_nvidia_smi_does_not_know_the_capability(tmp_path):
    machine = load("colab-t4")
    del machine["cards"][0]["capability"]
    (card,) = probe_nvidia(with_smi(machine, tmp_path), tmp_path).cards
    assert card.compute_capability == "7.5"  # by the table
    machine["cards"][0]["name"] = "Tesla Unheard"
    (card,) = probe_nvidia(with_smi(machine, tmp_path), tmp_path).cards
    assert card.compute_capability is None


def test_a_slice_without_listing_still_has_its_memory(tmp_path):
    (_, part) = probe_nvidia(with_smi(load("mig-h100-compute-instance"), tmp_path), tmp_path).cards
    assert (part.name, part.mig_profile, part.uuid) == ("NVIDIA H100 80GB HBM3 MIG slice", None, None)
    assert (part.total_bytes, part.mig_instance) == (40448 * MIB, "2/1")


def test_entities_are_refused():
    gpu = "<gpu><product_name>&a;</product_name></gpu>"
    bomb = f'<!DOCTYPE x [<!ENTITY a "aaaa">]><nvidia_smi_log>{gpu}</nvidia_smi_log>'
    assert read_xml(bomb, NvidiaReport()) == []


@settings(deadline=None)
@given(st.text(max_size=300) | st.tuples(st.integers(0, 2500), st.integers(0, 2500), st.text(max_size=8)))
def test_any_xml_is_survived_without_made_up_numbers(what):
    if isinstance(what, tuple):
        text = xml(load("mig-a100-two-slices"))
        start, end = sorted((what[0] % len(text), what[1] % len(text)))
        text = text[:start] + what[2] + text[end:]
    else:
        text = what
    for line in read_xml(text, NvidiaReport()):
        for part in (line, *line["slices"]):
            for key in ("total", "reserved", "used", "free"):
                assert part[key] is None or f">{part[key] // MIB} MiB<" in text
            if part["free"] is not None:
                assert part["free"] <= part["total"]


@settings(deadline=None)
@given(st.text(alphabet="GPU MIG0123456789:(.)-,/\nabcdUIDevice\tXNVSY", max_size=300))
def test_any_text_is_survived(text):
    for capability in read_capabilities(text).values():
        assert capability in text
    for one, other, _, _ in read_topology(text):
        assert str(one) in text and one < other
    for slices in read_slices(text).values():
        assert all(name in text and uuid in text for name, uuid in slices)
