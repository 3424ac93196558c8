"""Which card a scheduler's name means, and the memory a process can have on it.

Administrators name GRES types freely (a100, rtx_a6000, h100_80gb_hbm3, gpu). What the name leaves open stays open:
an `a100` has 40 or 80 GB unless a feature of its nodes tells (a100_80gb, gpumem80).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...advice.gpu_names import size_in, without_size, words
from .report import Cluster, GpuPool

if TYPE_CHECKING:
    from ...advice.gpu_table import Gpu

GIB = 1024**3
# Names of sites and boards that are no names of the table: Mila and the Digital Research Alliance of Canada write l
# for the larger of two sizes; the V100S exists with 32 GB only.
_ALSO_CALLED = {"a100l": "a100 80gb", "v100l": "v100 32gb", "v100s": "v100 32gb"}
_NOT_TOLD_APART = {"p100": 12}  # sizes that were sold too and are not in the table, in GB
_NO_PART_OF_THE_NAME = re.compile(r"\b(oam|shared|mig|pcie-\d+c?e?)\b")
_FORMS = frozenset(("sxm", "pcie", "nvl", "hbm3"))
_SLICE = re.compile(r"(?<![0-9])[1-7]g[._]?([0-9]{1,3})gb")
# Least share of a MIG profile's figure that a slice has: 1g.18gb of an H200 has 16.00 GiB (nvidia-smi mig -lgip).
_SLICE_LEAST = 0.88
# Least share of the seller's figure that a card has: 14.56 GiB of a T4's 16 GB (facts/gpus.json).
_SOLD_LEAST = 0.9
_SIZE_FEATURE = re.compile(r"(?:gpu|vram)[\W_]*(mem|memory|ram|vram)?[\W_]*([0-9]{1,4})(?:g|gb|gib)?", re.I)
_FEATURE_PREFIX = re.compile(r"^gpu[\W_]*(?:sku|type|model|name|card)?[\W_]+", re.I)
_PLAIN = re.compile(r"[A-Za-z0-9_.:\-]+")


def name_cards(clusters: Sequence[Cluster]) -> list[Cluster]:
    """The clusters with gpu_ids, memory and constraint filled, and pools that cannot be told apart made one.

    Pools that differ only in features that do not concern the card (racks, processors) become one. Where nodes of one
    partition and type have different cards, `constraint` names the feature that asks for these; those that no
    feature tells apart are one pool whose memory is a range.
    """
    return [replace(cluster, pools=_tell_apart([_named(pool) for pool in cluster.pools])) for cluster in clusters]


def with_cards(clusters: Sequence[Cluster]) -> list[Cluster]:
    """`name_cards`, once: clusters whose cards were named already come back as they are."""
    if any(pool.memory_basis for cluster in clusters for pool in cluster.pools):
        return list(clusters)
    return name_cards(clusters)


def _named(pool: GpuPool) -> GpuPool:
    names = [name for name in (pool.type, pool.resource if "mig-" in pool.resource else None) if name]
    cards, basis = _meant(pool.type, pool.features)
    sliced = next((found for name in names for found in [_SLICE.search(name.lower())] if found), None)
    if sliced:
        size = int(sliced[1])
        basis = f"the MIG profile's {size} GB, of which at least {_SLICE_LEAST:.0%} GiB are usable"
        ids = [gpu.id for gpu in cards]
        return _with(pool, ids, int(size * GIB * _SLICE_LEAST), size * GIB, basis)
    if pool.memory_bytes is not None:
        # A label told NVML's total: it narrows the cards, and their usable memory is below it.
        total = pool.memory_bytes
        close = [gpu for gpu in cards if gpu.nvml_total_mib and abs(gpu.nvml_total_mib * 1024**2 - total) < total / 50]
        if not close:
            return replace(pool, gpu_ids=[gpu.id for gpu in cards])
        cards = close
    if cards:
        least, most = min(g.usable_bytes for g in cards), max(g.usable_bytes for g in cards)
        for name, size in _NOT_TOLD_APART.items():
            if pool.type and words(_plain(pool.type)) == {name}:
                least, basis = min(least, int(size * GIB * _SOLD_LEAST)), f"{basis}; also sold with {size} GB"
        return _with(pool, [gpu.id for gpu in cards], least, most, basis)
    if told := _size_told(pool.features):
        basis = f"the node feature says {told} GB, of which at least {_SOLD_LEAST:.0%} GiB are usable"
        return _with(pool, [], int(told * GIB * _SOLD_LEAST), told * GIB, basis)
    return replace(pool, memory_basis=basis)


def _with(pool: GpuPool, ids: list[str], least: int, most: int, basis: str) -> GpuPool:
    return replace(pool, gpu_ids=ids, memory_bytes=least, memory_most_bytes=most, memory_basis=basis)


def _plain(name: str) -> str:
    """A scheduler's name as a person would write it: blanks for underscores, no MIG profile, no vendor's suffix."""
    text = _SLICE.sub(" ", name.lower()).replace("_", " ")
    text = _NO_PART_OF_THE_NAME.sub(" ", text)
    return " ".join(_ALSO_CALLED.get(word, word) for word in re.split(r"[\s.:/]+", text))


def _cards(name: str) -> list[Gpu]:
    """Cards of the table that the name may mean; a data center card without its form (SXM, PCIe) in every form."""
    from ...advice.gpu_table import all_gpus
    from ...advice.gpus import cards_named

    text = _plain(name)
    found = [gpu for gpu in cards_named(text) if gpu.vendor not in ("apple", "google")]
    asked = words(text)
    if not found or asked & _FORMS:
        return found
    stems = {gpu.id.split("-")[0] for gpu in found if gpu.kind == "data_center"}
    size = size_in(asked)
    return found + [
        gpu
        for gpu in all_gpus()
        if gpu.id.split("-")[0] in stems and gpu not in found and size in (None, gpu.sold_as_gb)
    ]


def _meant(kind: str | None, features: Iterable[str]) -> tuple[list[Gpu], str]:
    """The cards that a GRES type with its nodes' features may mean, and what that rests on."""
    cards, basis = (_cards(kind), f"the type {kind}") if kind else ([], "")
    typed = bool(cards)
    for feature in features:
        # A name in a feature may be that of a rack: it must hold a card's own model word.
        named = [gpu for gpu in _cards(_FEATURE_PREFIX.sub("", feature)) if _has_model_word(feature, gpu)]
        both = [gpu for gpu in cards if gpu in named]
        if not cards and named:
            cards, basis = named, f"the node feature {feature}"
        elif both and len(both) < len(cards):
            cards, basis = both, f"{basis} and the node feature {feature}"
        elif named and not both and not typed:
            cards, basis = cards + named, f"{basis} and {feature}"
    told = _size_told(features)
    sized = [gpu for gpu in cards if gpu.sold_as_gb == told]
    if sized and len(sized) < len(cards):
        cards, basis = sized, f"{basis} and a node feature saying {told} GB"
    if not cards:
        basis = f"{(kind or 'an untyped GPU')[:60]} is not a card of the GPU table, and no node feature names one"
    return cards, basis


def _has_model_word(feature: str, gpu: Gpu) -> bool:
    model = without_size(words(gpu.id) | words(gpu.name))
    letters = re.search(r"[a-z]", feature, re.I)
    mine = words(_plain(_FEATURE_PREFIX.sub("", feature)))
    return bool(letters) and any(any(c.isdigit() for c in word) and word not in _FORMS for word in mine & model)


def _size_told(features: Iterable[str]) -> int | None:
    """GB of GPU memory that a feature names (gpumem80, gpu_mem:80gb, vram80); None where two differ."""
    found = [_SIZE_FEATURE.fullmatch(feature) for feature in features]
    # "gpu80" may be a node's number; with "mem" or "gb" it is a size.
    sizes = {int(one[2]) for one in found if one and (one[1] or one[0].lower().endswith(("g", "gb", "gib")))}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else None


def _tell_apart(pools: Sequence[GpuPool]) -> list[GpuPool]:
    """Pools of the same cards made one; those of one type with different cards get the feature that tells them."""
    by_request: dict[tuple[str | None, str | None, str], list[GpuPool]] = {}
    for pool in pools:
        by_request.setdefault((pool.partition, pool.type, pool.resource), []).append(pool)
    result: list[GpuPool] = []
    for alike in by_request.values():
        by_card: dict[tuple[object, ...], list[GpuPool]] = {}
        for pool in alike:
            by_card.setdefault((*pool.gpu_ids, pool.memory_bytes, pool.memory_most_bytes, pool.shared), []).append(pool)
        if len(by_card) == 1 or alike[0].partition is None:
            result += [_joined(members) for members in by_card.values()]
            continue
        unmarked: list[GpuPool] = []
        for group in by_card.values():
            mark = _mark(group, [pool for pool in alike if not any(pool is mine for mine in group)])
            if mark is None:
                unmarked += group
            else:
                result.append(replace(_joined(group), constraint=mark))
        if unmarked:
            # Asked for without a feature, a job may also land on the marked nodes.
            rest = _joined(unmarked)
            least = [pool.memory_bytes for pool in alike]
            known = [size for size in least if size is not None]
            result.append(replace(rest, memory_bytes=min(known) if len(known) == len(least) else None))
    return result


def _mark(mine: Sequence[GpuPool], others: Sequence[GpuPool]) -> str | None:
    """A feature that all of these nodes have and none of the others, the shortest first."""
    common = set.intersection(*(set(pool.features) for pool in mine))
    foreign = {feature for pool in others for feature in pool.features}
    own = sorted((f for f in common - foreign if _PLAIN.fullmatch(f)), key=lambda f: (not _cards(f), len(f), f))
    return own[0] if own else None


def _joined(pools: Sequence[GpuPool]) -> GpuPool:
    if len(pools) == 1:
        return pools[0]
    not_free: dict[str, int] = {}
    for pool in pools:
        for reason, count in pool.not_free.items():
            not_free[reason] = not_free.get(reason, 0) + count
    best = max(pools, key=lambda pool: (pool.most_free_on_a_node or 0, pool.free_cpus or 0))
    known = all(pool.free is not None for pool in pools)
    least = [pool.memory_bytes for pool in pools]
    most = [pool.memory_most_bytes for pool in pools]
    bases = list(dict.fromkeys(pool.memory_basis for pool in pools if pool.memory_basis))
    return replace(
        best,
        nodes=sum(pool.nodes for pool in pools),
        total=sum(pool.total for pool in pools),
        free=sum(pool.free or 0 for pool in pools) if known else None,
        not_free=not_free,
        most_on_a_node=max(pool.most_on_a_node for pool in pools),
        most_free_on_a_node=max(pool.most_free_on_a_node or 0 for pool in pools) if known else None,
        features=[f for f in pools[0].features if all(f in pool.features for pool in pools)],
        gpu_ids=list(dict.fromkeys(name for pool in pools for name in pool.gpu_ids)),
        memory_bytes=None if None in least else min(size for size in least if size is not None),
        memory_most_bytes=None if None in most else max(size for size in most if size is not None),
        memory_basis="; or ".join(bases[:3]) or None,
    )
