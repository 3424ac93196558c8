"""What to ask a SLURM cluster in sight for: partition, card, constraint, account and time limit of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..advice.gpu_table import Gpu, all_gpus
from ..hardware.cluster.report import Cluster
from ..hardware.cluster.shortest import GpuPath, rank, shortest_paths
from ..hardware.compute import Compute

_LIMIT_S = 10.0
_TOLD = 4
_LONG = {"-p": "--partition", "-C": "--constraint", "-A": "--account", "-t": "--time"}


@dataclass(frozen=True)
class Way:
    """The shortest way to a card that fits."""

    cluster: str
    card: Gpu
    path: GpuPath

    @property
    def options(self) -> list[str]:
        """As sbatch reads them, each on a line of its own: `--partition=gpu`."""
        flags, found = list(self.path.flags), []
        while flags:
            flag = flags.pop(0)
            found.append(f"{_LONG[flag]}={flags.pop(0)}" if flag in _LONG else flag)
        return found


def slurm_in_sight(compute: Compute | None, look_here: bool = True) -> list[Cluster]:
    """The SLURM clusters of a report; without one, and with `look_here`, the cluster that this machine can ask, read
    only, within 10 s."""
    if compute is not None:
        return [cluster for cluster in compute.clusters if cluster.scheduler == "slurm" and cluster.pools]
    if not look_here:
        return []
    from ..hardware.cluster.asker import SLURM_FOLDERS, find_program

    if find_program("sinfo", os.environ, SLURM_FOLDERS) is None:
        return []
    from ..hardware.cluster.cards import name_cards
    from ..hardware.cluster.slurm import read_slurm

    return [cluster for cluster in name_cards(read_slurm(os.environ, _LIMIT_S)) if cluster.pools]


def shortest_way(
    clusters: Sequence[Cluster],
    needed: Callable[[Gpu], int],
    seconds: Callable[[Gpu], int],
    ram_bytes: int,
    wanted: Gpu | None = None,
    count: int = 1,
) -> tuple[Way | None, list[str]]:
    """(the shortest way, why the others were left out).

    Args:
        needed: bytes of the run on a card; `seconds`: how long a job there may have to run.
        ram_bytes: what the job takes beside it.
        wanted: only this card; None = any of the table.
        count: cards on one node.
    """
    cards = {gpu.id: gpu for gpu in all_gpus()}
    ways: list[Way] = []
    left_out: list[str] = []
    for cluster in clusters:
        for pool in cluster.pools:
            label = f"{pool.partition}, {pool.type or 'GPU'}"
            meant = [cards[name] for name in pool.gpu_ids if name in cards]
            if wanted is not None:
                meant = [card for card in meant if card.id == wanted.id]
            if not meant:
                left_out.append(f"{label}: not known to be {wanted.name if wanted else 'a card of the table'}")
            elif pool.shared:
                left_out.append(f"{label}: {pool.shared}")
            else:
                # The slower and smaller of the cards that the name may mean: what holds there holds on the others.
                card = min(meant, key=lambda card: card.usable_bytes)
                alone = replace(cluster, pools=[pool])
                found = shortest_paths(alone, needed(card), seconds(card) / 3600, count, ram_bytes)
                ways += [Way(cluster.name or "SLURM", card, path) for path in found.paths]
                left_out += found.left_out
    return min(ways, key=lambda way: rank(way.path), default=None), left_out


def told(left_out: Sequence[str]) -> str:
    """Why nothing was found, in one line."""
    more = f"; and {len(left_out) - _TOLD} more" if len(left_out) > _TOLD else ""
    return "; ".join(left_out[:_TOLD]) + more
