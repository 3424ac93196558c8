"""The server's process with everything it opens, starts and connects to written down.

    python watched.py LOG [arguments of compute-awareness]

The log has one JSON list a line: ["open", path, writes], ["child", program, arguments, limit] and ["connect", where].
Connections are refused, so that no test depends on a network. A child's limit is that of the one function that may
start children; null = started some other way.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn"}
_ENDS_ITS_CHILD = (os.path.join("hardware", "probe", "child.py"), "run_child")


def watch(log: str) -> None:
    """From now on. A hook cannot be taken away again, so this is for a process of its own."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    here = os.getpid()

    def write(*entry: Any) -> None:
        os.write(handle, (json.dumps(entry, default=repr) + "\n").encode("utf-8", "replace"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, int):
                writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else mode not in ("r", "rb")
                write("open", os.fsdecode(path), writes)
        elif event == "subprocess.Popen":
            write("child", os.fsdecode(arguments[0]), [os.fsdecode(part) for part in arguments[1]], _limit())
        elif event in _STARTS and os.getpid() == here and not (event == "os.posix_spawn" and _limit()):
            write("child", event, [repr(arguments)], None)
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            where = arguments[1] if event == "socket.connect" else arguments[0]
            write("connect", where)
            raise ConnectionRefusedError(f"no network here: {where}")

    sys.addaudithook(hook)


def _limit() -> float | None:
    """The seconds that the child which is being started may run."""
    frame = sys._getframe()
    while frame is not None:
        file, function = _ENDS_ITS_CHILD
        if frame.f_code.co_filename.endswith(file) and frame.f_code.co_name == function:
            return frame.f_locals["limit_s"]
        frame = frame.f_back
    return None


if __name__ == "__main__":
    watch(sys.argv.pop(1))
    from compute_awareness.__main__ import main

    sys.exit(main())
