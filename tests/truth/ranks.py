"""Processes that torch.distributed joins: real ones over gloo on loopback, or one that only believes to have others."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.testing._internal.distributed.fake_pg import FakeStore

LIMIT_S = 900
"""After which a process that waits for another in vain says where, and ends."""


@contextmanager
def alone(n: int) -> Iterator[None]:
    """This process as the first of `n` that are not there: collectives return at once and leave their tensors as they
    are. In one thread, so torch's profiler can watch; it must not where gloo's threads allocate."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _rank(rank: int, n: int, folder: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(Path(folder) / "store").as_uri(), rank=rank, world_size=n)
    torch.save(fn(*args), Path(folder) / str(rank))
    dist.barrier()
    faulthandler.cancel_dump_traceback_later()
    dist.destroy_process_group()


def in_ranks(n: int, folder: Path, fn: Callable[..., Any], *args: Any) -> list[Any]:
    """What `fn(*args)` returns in each of `n` processes, by rank. `fn` is a function of a module.

    Raises what torch.multiprocessing does where a process fails.
    """
    mp.start_processes(_rank, (n, str(folder), fn, args), nprocs=n, start_method="spawn")
    return [torch.load(folder / str(rank)) for rank in range(n)]
