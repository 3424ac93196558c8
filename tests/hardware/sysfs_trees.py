"""Trees of /sys and /dev as Linux writes them for AMD's GPUs and for other PCI devices."""

from __future__ import annotations

from pathlib import Path

from compute_awareness.units import GIB, MIB

CPU_NODE = "cpu_cores_count 64\nsimd_count 0\nmem_banks_count 1\ngfx_target_version 0\nvendor_id 0\ndevice_id 0\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def amd_gpu(
    root: Path,
    node: int,
    device_id: int = 0x74A1,
    gfx: int = 90402,
    vram: int | None = 192 * GIB,
    used: int = 300 * MIB,
    revision: str = "0x00",
    cpu_cores: int = 0,
    bank: int | None = None,
    gtt: int | None = None,
    product: str | None = None,
    driver: str = "amdgpu",
) -> None:
    """A GPU as KFD's node `node`, at PCI bus 0x10 + node, render node 127 + node."""
    bus = 0x10 + node
    folder = root / f"sys/class/kfd/kfd/topology/nodes/{node}"
    write(folder / "gpu_id", str(50000 + node))
    write(
        folder / "properties",
        f"cpu_cores_count {cpu_cores}\nsimd_count 1216\nmem_banks_count 1\nio_links_count 8\n"
        f"gfx_target_version {gfx}\nvendor_id 4098\ndevice_id {device_id}\nlocation_id {bus << 8}\ndomain 0\n"
        f"drm_render_minor {127 + node}\nhive_id 11638818706288400384\nunique_id {0x8F00000000000000 + node}",
    )
    size = bank or vram
    if size:
        write(folder / "mem_banks/0/properties", f"heap_type 1\nsize_in_bytes {size}\nflags 0\nwidth 8192")
    pci_gpu(root, f"0000:{bus:02x}:00.0", device_id, vram, used, revision, gtt, product, driver)
    write(root / "dev/kfd", "")
    write(root / f"dev/dri/renderD{127 + node}", "")


def pci_gpu(root, address, device_id, vram, used, revision="0x00", gtt=None, product=None, driver="amdgpu") -> None:
    device = root / "sys/bus/pci/devices" / address
    write(device / "vendor", "0x1002")
    write(device / "device", f"0x{device_id:04x}")
    write(device / "revision", revision)
    write(device / "class", "0x120000")
    if vram is not None:
        write(device / "mem_info_vram_total", str(vram))
        write(device / "mem_info_vram_used", str(used))
    if gtt is not None:
        write(device / "mem_info_gtt_total", str(gtt))
    if product is not None:
        write(device / "product_name", product)
    if driver:
        drivers = root / "sys/bus/pci/drivers" / driver
        drivers.mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(drivers)


def mi300x_box(root: Path, count: int = 8) -> None:
    for socket in (0, 1):
        write(root / f"sys/class/kfd/kfd/topology/nodes/{socket}/properties", CPU_NODE)
        write(root / f"sys/class/kfd/kfd/topology/nodes/{socket}/gpu_id", "0")
    for node in range(2, 2 + count):
        amd_gpu(root, node)
        links = root / f"sys/class/kfd/kfd/topology/nodes/{node}/io_links"
        write(links / "0/properties", f"type 2\nversion_major 0\nnode_from {node}\nnode_to 0\nweight 20")
        for position, other in enumerate(n for n in range(2, 2 + count) if n != node):
            write(links / f"{position + 1}/properties", f"type 11\nnode_from {node}\nnode_to {other}\nweight 15")


def pci(root: Path, address: str, vendor: str, device: str, driver: str = "", kind: str = "0x030000") -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, text in (("vendor", vendor), ("device", device), ("class", kind), ("revision", "0x00")):
        (folder / name).write_text(text + "\n")
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(target)
