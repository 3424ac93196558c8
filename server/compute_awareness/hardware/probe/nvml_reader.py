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


def main(folder: str) -> None:
    """Write the lines `{"driver": …}`, `{"start": i}`, `{"card": i, …}`, or `{"error": code, …}`."""
    sys.path.insert(0, folder)
    import pynvml

    def say(**line: Any) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def code(error: pynvml.NVMLError) -> int | None:
        return getattr(error, "value", None)

    def ask(function: Any, *arguments: Any, **named: Any) -> Any:
        """The answer, or None where this driver or card does not give it."""
        try:
            return function(*arguments, **named)
        except pynvml.NVMLError as error:
            if code(error) == pynvml.NVML_ERROR_GPU_IS_LOST:
                raise
            return None

    def memory(handle: Any) -> dict[str, int | None]:
        # Version 2 tells the driver's own share apart; version 1 (older drivers) counts it as used.
        both = ask(pynvml.nvmlDeviceGetMemoryInfo, handle, version=pynvml.nvmlMemory_v2)
        if both is not None:
            return {"total": both.total, "reserved": both.reserved, "used": both.used, "free": both.free}
        old = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
        if old is not None:
            return {"total": old.total, "reserved": None, "used": old.used, "free": old.free}
        return {"total": None, "reserved": None, "used": None, "free": None}

    def processes(handle: Any) -> list[list[int | None]]:
        found: dict[int, int | None] = {}
        for listing in (
            pynvml.nvmlDeviceGetComputeRunningProcesses,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in ask(listing, handle) or []:
                found[process.pid] = process.usedGpuMemory or found.get(process.pid)
        return [[pid, used] for pid, used in sorted(found.items())]

    def describe(handle: Any) -> dict[str, Any]:
        capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
        return {
            "name": ask(pynvml.nvmlDeviceGetName, handle),
            "uuid": ask(pynvml.nvmlDeviceGetUUID, handle),
            "capability": capability and f"{capability[0]}.{capability[1]}",
            **memory(handle),
            "processes": processes(handle),
        }

    def slices(handle: Any) -> list[dict[str, Any]]:
        found = []
        for position in range(ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            part = ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, position)
            if part is not None:
                found.append(describe(part))
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
    driver = ask(pynvml.nvmlSystemGetDriverVersion)
    say(driver=driver, cuda=ask(pynvml.nvmlSystemGetCudaDriverVersion_v2), count=count)
    for index in range(count):
        say(start=index)
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            card = describe(handle)
            mode = ask(pynvml.nvmlDeviceGetMigMode, handle)
            mig = bool(mode and mode[0])
            say(card=index, mig=mig, slices=slices(handle) if mig else [], **card)
        except pynvml.NVMLError as error:
            say(card=index, error=code(error), text=str(error))
    # No nvmlShutdown: the process ends here, and on a sick driver that call is one more that may hang.


if __name__ == "__main__":
    main(sys.argv[1])
