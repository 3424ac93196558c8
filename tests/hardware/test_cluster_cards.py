"""Which card a GRES type means, with what memory; what its nodes' features add."""

from __future__ import annotations

import pytest
from cluster_parts import fuzzed, pool
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.hardware.cluster.cards import name_cards
from compute_awareness.hardware.cluster.report import Cluster, GpuPool
from compute_awareness.units import GIB, MIB

USABLE = {gpu.id: gpu.usable_bytes for gpu in all_gpus()}


def named(*pools: GpuPool) -> list[GpuPool]:
    (cluster,) = name_cards([Cluster("slurm", "c", pools=list(pools))])
    return cluster.pools


def one(kind, *features, **more) -> GpuPool:
    (found,) = named(pool(kind, *features, **more))
    return found


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("rtx_a6000", {"rtxa6000"}),
        ("a6000", {"rtxa6000"}),
        ("nvidia_rtx_a6000", {"rtxa6000"}),
        ("h100_80gb_hbm3", {"h100-sxm"}),
        ("nvidia_h100_80gb_hbm3", {"h100-sxm"}),
        ("tesla_v100-sxm2-32gb", {"v100-32gb"}),
        ("nvidia_a100-sxm4-80gb", {"a100-80gb-sxm"}),
        ("nvidia_a100_80gb_pcie", {"a100-80gb-pcie"}),
        ("nvidia_geforce_rtx_3090", {"rtx3090"}),
        ("1080ti", {"gtx1080ti"}),
        ("rtx_2080_ti", {"rtx2080ti"}),
        ("2080", {"rtx2080"}),
        ("4090", {"rtx4090"}),
        ("quadro_rtx_6000", {"quadrortx6000"}),
        ("rtx_6000_ada", {"rtx6000ada"}),
        ("l40s", {"l40s"}),
        ("v100s", {"v100-32gb"}),
        ("v100l", {"v100-32gb"}),
        ("t4", {"t4"}),
        ("mi210", {"mi210"}),
        ("AMD_Instinct_MI300X_OAM", {"mi300x"}),
    ],
)
def test_types_that_name_one_card(kind, ids):
    found = one(kind)
    assert set(found.gpu_ids) == ids
    assert found.memory_bytes == found.memory_most_bytes == USABLE[next(iter(ids))]


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("a100", "a100-40gb-sxm", "a100-80gb-sxm"),
        ("v100", "v100-16gb", "v100-32gb"),
        ("h100", "h100-sxm", "h100-nvl"),
        ("gh200", "gh200-96gb", "gh200-144gb"),
        ("rtx3080", "rtx3080-10gb", "rtx3080-12gb"),
        ("rtx_6000", "quadrortx6000", "rtxpro6000-ws"),
    ],
)
def test_types_that_leave_a_choice_are_a_range(kind, least, most):
    found = one(kind)
    assert found.memory_bytes is not None and found.memory_most_bytes is not None
    assert found.memory_bytes <= USABLE[least] < USABLE[most] <= found.memory_most_bytes
    assert {least, most} <= set(found.gpu_ids)


@pytest.mark.parametrize("kind", ["gpu", "tesla", "k80", "mygpu", "2", "", "ä", "x" * 300])
def test_types_that_name_no_known_card(kind):
    found = one(kind)
    assert (found.gpu_ids, found.memory_bytes, found.memory_most_bytes) == ([], None, None)
    assert "not a card of the GPU table" in (found.memory_basis or "")


@pytest.mark.parametrize(
    ("kind", "features", "ids"),
    [
        ("a100", ["a100_80gb", "ib"], {"a100-80gb-sxm", "a100-80gb-pcie"}),
        ("a100", ["gpumem80"], {"a100-80gb-sxm", "a100-80gb-pcie"}),
        ("a100", ["gpu_mem:40gb"], {"a100-40gb-sxm", "a100-40gb-pcie"}),
        ("a100", ["vram40g", "sxm4"], {"a100-40gb-sxm", "a100-40gb-pcie"}),
        ("a100", ["GPU_SKU:A100_SXM4", "GPU_MEM:80GB"], {"a100-80gb-sxm"}),
        ("a100", ["gpu80"], {"a100-40gb-sxm", "a100-40gb-pcie", "a100-80gb-sxm", "a100-80gb-pcie"}),  # a node's number
        ("a100", ["h100"], {"a100-40gb-sxm", "a100-40gb-pcie", "a100-80gb-sxm", "a100-80gb-pcie"}),
        (None, ["l40s", "rack7"], {"l40s"}),
        (None, ["GPU_SKU:RTX_2080Ti", "GPU_BRD:GEFORCE"], {"rtx2080ti"}),
        (None, ["gpu-v100", "gpumem32"], {"v100-32gb"}),
        (None, ["a40", "t4"], {"a40", "t4"}),  # a node of both kinds, or one with a misleading name
        (None, ["intel", "avx512", "hbm3", "ib", "7763", "sxm"], set()),
        (None, ["m1", "m2"], set()),  # racks, not Apple's chips
    ],
)
def test_node_features_tell_more(kind, features, ids):
    assert set(one(kind, *features).gpu_ids) == ids


def test_a_size_without_a_card():
    found = one("gpu", "gpumem80")
    assert found.gpu_ids == []
    # A T4's 16 GB are 14.56 GiB: the seller's figure is never all there.
    assert found.memory_bytes == int(80 * GIB * 0.9) and found.memory_most_bytes == 80 * GIB
    assert one("gpu", "gpumem80", "gpumem40").memory_bytes is None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("a100_3g.20gb", 20),
        ("nvidia_a100_1g.5gb", 5),
        ("1g.10gb", 10),
        ("a100_80gb_4g_40gb", 40),
        ("h100_1g.10gb+me", 10),
    ],
)
def test_mig_slices(kind, size):
    found = one(kind)
    assert found.memory_most_bytes == size * GIB
    # 1g.18gb of an H200 has 16.00 GiB: the lowest share known.
    assert found.memory_bytes == int(size * GIB * 0.88) <= 16.0 / 18 * size * GIB


def test_a_mig_resource_of_kubernetes():
    found = one("NVIDIA-A100-SXM4-40GB", resource="nvidia.com/mig-3g.20gb", partition=None)
    assert found.gpu_ids == ["a100-40gb-sxm"] and found.memory_most_bytes == 20 * GIB


def test_a_label_with_nvmls_total_narrows_the_cards():
    found = one("NVIDIA-A100-SXM4-80GB", resource="nvidia.com/gpu", partition=None, memory_bytes=81920 * MIB)
    assert found.gpu_ids == ["a100-80gb-sxm"] and found.memory_bytes == USABLE["a100-80gb-sxm"]
    strange = one("NVIDIA-X9000", resource="nvidia.com/gpu", partition=None, memory_bytes=10240 * MIB)
    assert strange.gpu_ids == [] and strange.memory_bytes == 10240 * MIB


def test_nodes_with_other_racks_are_one_pool():
    (found,) = named(pool("h100", "rack1", "ib", free=1), pool("h100", "rack2", "ib", total=8, free=8))
    assert (found.nodes, found.total, found.free, found.not_free) == (2, 12, 9, {"in use": 3})
    assert (found.most_on_a_node, found.most_free_on_a_node) == (8, 8)
    assert found.features == ["ib"] and found.constraint is None


def test_nodes_with_other_cards_are_told_apart_by_a_feature():
    small, large = named(pool("a100", "a100_40gb", "ib"), pool("a100", "a100_80gb", "ib"))
    assert (small.constraint, large.constraint) == ("a100_40gb", "a100_80gb")
    assert small.memory_most_bytes == USABLE["a100-40gb-sxm"] and large.memory_bytes == USABLE["a100-80gb-pcie"]


def test_what_no_feature_tells_apart_is_a_range():
    marked, rest = named(pool("a100", "a100_80gb"), pool("a100"))
    assert marked.constraint == "a100_80gb" and rest.constraint is None
    # Without -C a job may land on either; nothing promises more than the smaller card.
    assert rest.memory_bytes == USABLE["a100-40gb-sxm"] and rest.memory_most_bytes == USABLE["a100-80gb-sxm"]


def test_an_unknown_number_stays_unknown_when_pools_become_one():
    (found,) = named(pool("h100", "rack1", free=None), pool("h100", "rack2"))
    assert (found.total, found.free, found.most_free_on_a_node) == (8, None, None)


names = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.lists(
        st.sampled_from(["a100", "h100", "rtx", "_", "-", "80gb", "sxm", "3g.20gb", "nvidia", "6000", "ada", "ti"]),
        max_size=5,
    ).map("".join),
)


@fuzzed
@given(st.lists(st.builds(pool, names, names.map(str), st.text(max_size=8)), max_size=6))
def test_any_names_keep_the_counts(pools):
    found = named(*pools)
    assert sum(p.total for p in found) == sum(p.total for p in pools)
    assert sum(p.free or 0 for p in found) == sum(p.free or 0 for p in pools)
    for one_pool in found:
        assert set(one_pool.gpu_ids) <= set(USABLE)
        if one_pool.memory_bytes is not None and one_pool.memory_most_bytes is not None:
            assert 0 <= one_pool.memory_bytes <= one_pool.memory_most_bytes
        assert one_pool.memory_basis
