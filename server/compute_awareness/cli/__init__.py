"""The command line: `run` turns arguments into an exit code, never a traceback; `main` ends the process with it.

Exit codes: 0 it fits, or the command did its work; 1 it does not fit, or probably not; 2 bad input; 3 cannot say
without an answer from the user; 70 a fault of this program; 74 the output could not be written; 130 interrupted;
141 the reader of the output went away.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import InputError, one_line

EXIT_BAD_INPUT = 2
EXIT_OUR_FAULT = 70
EXIT_NOT_WRITTEN = 74
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_DEBUG = "COMPUTE_AWARENESS_DEBUG"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> NoReturn:
    """Run the command of this process's arguments and exit with its code."""
    # The process lives for one command: collecting among the long-lived objects of its imports only costs time.
    gc.disable()
    # pydantic would look through every installed distribution for plugins; nothing here wants one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Where a stream was closed by the caller nothing is to be said there, and no file of ours may get its number.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    code = run()
    # All is written and no child is left: taking the modules down would cost a sixth of a short command.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see the module's docstring).

    Args:
        args: the arguments after the program's name; None = those of this process.
    """
    import click

    from .commands import program

    for stream in (sys.stdout, sys.stderr):
        # A name outside the console's code page becomes '?' there, not a UnicodeEncodeError.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        # Not `program.main`: it ends a broken pipe with 1, which here means "does not fit".
        with program.make_context("compute-awareness", list(sys.argv[1:] if args is None else args)) as context:
            code = program.invoke(context)
        sys.stdout.flush()
        return code or 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _complain(error.format_message(), EXIT_BAD_INPUT)
    except InputError as error:
        return _complain(str(error), EXIT_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader either: the interpreter's flush at exit must find a place for it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _complain(f"the output could not be written: {error.strerror}", EXIT_NOT_WRITTEN)
        if os.environ.get(_DEBUG):
            raise
        return _complain(
            f"{type(error).__name__}: {error} (a fault of compute-awareness, not of the input; {_DEBUG}=1 shows where)",
            EXIT_OUR_FAULT,
        )


def _complain(message: str, code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code
