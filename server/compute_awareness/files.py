"""Files that others read while we write them: replaced whole or left as they are, one writer of ours at a time."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_LOCK_LIMIT_S = 10.0


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """While this holds, no other process of this program writes `path`.

    Raises:
        InputError: another one still does after ten seconds.
    """
    import filelock

    try:
        with filelock.FileLock(_lock_file(path), timeout=_LOCK_LIMIT_S):
            yield
    except filelock.Timeout:
        raise InputError(f"{path} is being written by another process; try again") from None


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of the file, in UTF-8 and with its permissions.

    The new text is written beside the file and put in its place by one rename, so that a reader sees the old file
    or the new one, and a full disk leaves the old.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    path = path.resolve()  # a link to a file kept elsewhere stays a link
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            Path(name).chmod(path.stat().st_mode if path.exists() else 0o600)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _lock_file(path: Path) -> str:
    """A lock of its own for each file, outside the user's folders; it stays, since taking it away would race."""
    named = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"compute-awareness-{getpass.getuser()}-{named}.lock")
