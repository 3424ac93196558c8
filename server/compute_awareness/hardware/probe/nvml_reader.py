"""Run as a program in a child process: what NVML says about this machine, one JSON object a line.

In a process of its own because a driver in trouble makes NVML calls hang or crash, and nothing inside a
process can end such a call. Every line is flushed as soon as it is known, so that a call that hangs on the
second card does not lose the first. Argument: the folder that holds `pynvml.py` (the interpreter is started
without `site`, which halves its start).
"""

from __future__ import annotations

import json
import sys
from typing import Any

# nvidia-ml-py 13.615.71 pynvml.py
_GPU_IS_LOST = 15
_MEMORY_V2 = 0x02000028
_NVLINKS_AT_MOST = 36
_SWITCH = 2
_OVER_NVLINK = 2


def main(folder: str) -> None:
    """Write the lines `{"driver": …}`, `{"start": i}`, `{"card": i, …}`, `{"links": …}`, or `{"error": code, …}`."""
    sys.path.insert(0, folder)
    import pynvml

    def say(**line: Any) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def code(error: Exception) -> int | None:
        return getattr(error, "value", None)

    def ask(function: str, *arguments: Any, **named: Any) -> Any:
        """The answer, or None where this binding, driver or card does not give it."""
        try:
            return getattr(pynvml, function)(*arguments, **named)
        except Exception as error:
            # Not NVMLError alone: an older nvidia-ml-py lacks functions and arguments, a newer one has an error of
            # its own (NVMLLibraryMismatchError) for calls that the driver is too old for.
            if code(error) == _GPU_IS_LOST:
                raise
            return None

    def memory(handle: Any) -> dict[str, int | None]:
        # Version 2 tells the driver's own share apart; version 1 (older drivers) counts it as used.
        both = ask("nvmlDeviceGetMemoryInfo", handle, version=_MEMORY_V2)
        if both is not None:
            return {"total": both.total, "reserved": both.reserved, "used": both.used, "free": both.free}
        old = ask("nvmlDeviceGetMemoryInfo", handle)
        if old is not None:
            return {"total": old.total, "reserved": None, "used": old.used, "free": old.free}
        return {"total": None, "reserved": None, "used": None, "free": None}

    def processes(handle: Any) -> list[list[Any]] | None:
        """`[pid, bytes, letter]`: C computes, G draws, M is a client of the MPS daemon. None where none is told."""
        found: dict[int, list[Any]] = {}
        told = False
        for letter, which in (("C", "Compute"), ("G", "Graphics"), ("M", "MPSCompute")):
            # Drivers before R510 know the second form of this call only.
            listed = ask(f"nvmlDeviceGet{which}RunningProcesses_v3", handle)
            if listed is None:
                listed = ask(f"nvmlDeviceGet{which}RunningProcesses_v2", handle)
            if letter == "C":
                told = listed is not None
            for process in listed or []:
                before = found.get(process.pid)
                if before is None:
                    found[process.pid] = [process.pid, process.usedGpuMemory, letter]
                elif before[1] is None:
                    before[1] = process.usedGpuMemory
        return [found[pid] for pid in sorted(found)] if told else None

    def first(answer: Any) -> Any:
        return answer[0] if answer else None

    def describe(handle: Any) -> dict[str, Any]:
        capability = ask("nvmlDeviceGetCudaComputeCapability", handle)
        return {
            "name": ask("nvmlDeviceGetName", handle),
            "uuid": ask("nvmlDeviceGetUUID", handle),
            "capability": capability and f"{capability[0]}.{capability[1]}",
            **memory(handle),
            "processes": processes(handle),
        }

    def modes(handle: Any) -> dict[str, Any]:
        pci = ask("nvmlDeviceGetPciInfo", handle)
        return {
            "pci": pci and text(pci.busId),
            "ecc": first(ask("nvmlDeviceGetEccMode", handle)),
            "persistence": ask("nvmlDeviceGetPersistenceMode", handle),
            "compute_mode": ask("nvmlDeviceGetComputeMode", handle),
            "virtualization": ask("nvmlDeviceGetVirtualizationMode", handle),
        }

    def text(value: Any) -> str:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def slices(handle: Any) -> list[dict[str, Any]]:
        found = []
        for position in range(ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            part = ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, position)
            if part is not None:
                ids = ask("nvmlDeviceGetGpuInstanceId", part), ask("nvmlDeviceGetComputeInstanceId", part)
                size = ask("nvmlDeviceGetAttributes", part)
                parts = size and [size.gpuInstanceSliceCount, size.computeInstanceSliceCount, size.memorySizeMB]
                found.append({**describe(part), "instance": None if None in ids else list(ids), "parts": parts})
        return found

    def nvlinks(handle: Any) -> tuple[dict[str, int], int]:
        """Active NVLinks by the PCI address of the card at their other end, and those that go to a switch."""
        direct: dict[str, int] = {}
        switched = 0
        for lane in range(_NVLINKS_AT_MOST):
            active = ask("nvmlDeviceGetNvLinkState", handle, lane)
            if active is None:
                break
            if not active:
                continue
            if ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, lane) == _SWITCH:
                switched += 1
                continue
            remote = ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, lane)
            if remote is not None:
                address = text(remote.busId).lower()
                direct[address] = direct.get(address, 0) + 1
        return direct, switched

    def pairs(handles: dict[int, Any], addresses: dict[int, str]) -> list[list[Any]]:
        """`[first, second, way, lanes]` of each pair; `way` is nvlink, nvswitch or NVML's level of the PCIe tree."""
        lanes = {index: nvlinks(handle) for index, handle in handles.items()}
        found: list[list[Any]] = []
        for one in sorted(handles):
            for other in sorted(handles):
                if other <= one:
                    continue
                direct = lanes[one][0].get(addresses.get(other, "?"), 0)
                both = handles[one], handles[other]
                if direct:
                    found.append([one, other, "nvlink", direct])
                elif lanes[one][1] and lanes[other][1]:
                    found.append([one, other, "nvswitch", min(lanes[one][1], lanes[other][1])])
                elif ask("nvmlDeviceGetP2PStatus", *both, _OVER_NVLINK) == 0:
                    found.append([one, other, "nvlink", None])
                else:
                    level = ask("nvmlDeviceGetTopologyCommonAncestor", *both)
                    if level is not None:
                        found.append([one, other, level, None])
        return found

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        say(error=code(error), text=str(error))
        return
    try:
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        say(error=code(error), text=str(error))
        return
    driver = ask("nvmlSystemGetDriverVersion")
    say(driver=driver, cuda=ask("nvmlSystemGetCudaDriverVersion_v2"), count=count)
    handles: dict[int, Any] = {}
    addresses: dict[int, str] = {}
    for index in range(count):
        say(start=index)
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            card = {**describe(handle), **modes(handle)}
            mode = ask("nvmlDeviceGetMigMode", handle)
            mig = bool(mode and mode[0])
            say(card=index, mig=mig, slices=slices(handle) if mig else [], **card)
            handles[index] = handle
            if card["pci"]:
                addresses[index] = card["pci"].lower()
        except pynvml.NVMLError as error:
            say(card=index, error=code(error), text=str(error))
    if len(handles) > 1:
        say(start="links")
        try:
            say(links=pairs(handles, addresses))
        except pynvml.NVMLError:
            say(links=[])
    # No nvmlShutdown: the process ends here, and on a sick driver that call is one more that may hang.


if __name__ == "__main__":
    main(sys.argv[1])
