"""Grids: what a range means, what is refused and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.sweep.commands import commands_of
from compute_awareness.sweep.grid import axes_of_flags, axes_of_json, joined, points_of

SAE = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre"}
CACHE = {"task": "activation_cache", "model": "gpt2", "batch_size": 4, "seq_len": 64}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k=0..3", [0, 1, 2, 3]),
        ("k=0..10..4", [0, 4, 8]),
        ("k=8, 16,32", [8, 16, 32]),
        ("k=1..2,8", [1, 2, 8]),
        ("k=0.5,1e2", [0.5, 100.0]),
        ("k=true,null,topk", [True, None, "topk"]),
        ("k=NaN", ["NaN"]),
    ],
)
def test_values(text: str, values: list[object]) -> None:
    assert axes_of_flags([text]) == {"k": values}
    assert axes_of_json({"k": text.removeprefix("k=")}) == {"k": values}


def test_names_are_written_with_hyphens_as_well() -> None:
    assert axes_of_flags(["hook-layer=0..1"]) == {"hook_layer": [0, 1]}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        (["k"], "give FIELD=VALUES"),
        (["=1"], "give FIELD=VALUES"),
        (["k=1", "k=2"], "given twice"),
        (["k=1,,2"], "an empty value"),
        (["k=3..1"], "is empty; a range rises"),
        (["k=1..3..0"], "is empty; a range rises"),
        (["k=0..999999999999999"], "more than 10,000 values"),
    ],
)
def test_flags_that_are_refused(over: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        axes_of_flags(over)


@pytest.mark.parametrize("data", [[1], {"k": 3}, {"k": []}, {"k": {"from": 1}}])
def test_json_that_is_refused(data: object) -> None:
    with pytest.raises(InputError, match="sweep: "):
        axes_of_json(data)


def test_flag_and_file_must_agree() -> None:
    assert joined({"k": [1, 2]}, {"k": [1, 2], "d_sae": [3]}) == {"k": [1, 2], "d_sae": [3]}
    with pytest.raises(InputError, match="contradicts"):
        joined({"k": [1, 2]}, {"k": [1]})


@pytest.mark.parametrize(
    ("base", "axes", "says"),
    [
        (SAE, {}, "needs a grid"),
        (SAE, {"task": ["training"]}, "task cannot vary"),
        (SAE, {"expansion_facto": [8]}, "no field 'expansion_facto'; nearest: expansion_factor; accepted: "),
        (CACHE, {"hook_layer": [1]}, "activation_cache has no field 'hook_layer'"),
        (SAE, {"expansion_factor": [8, 8]}, "has 8 twice"),
        (SAE, {"k": list(range(1, 102)), "expansion_factor": list(range(1, 101))}, r"10,100 points \(101 x 100\)"),
        (SAE, {"expansion_factor": [8, -1]}, "at expansion_factor=-1: expansion_factor: "),
        (SAE, {"expansion_factor": [8], "hook_layer": ["x"]}, "is a block number, not 'x'"),
        (SAE | {"hook_name": "hook_embed"}, {"expansion_factor": [8], "hook_layer": [1]}, "does not have just one"),
        ({"task": "sae_training", "d_in": 768}, {"expansion_factor": [8], "hook_layer": [1]}, "give hook_name"),
        ({"task": "sea_training"}, {"k": [1]}, "nearest: sae_training"),
        ({}, {"k": [1]}, "'task' is missing"),
    ],
)
def test_grids_that_are_refused(base: dict[str, object], axes: dict[str, list[object]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        points_of(base, axes)


def test_every_combination_the_last_field_fastest() -> None:
    points = points_of(SAE, {"hook_layer": [0, 11], "expansion_factor": [8, 16]})
    assert [tuple(point.values.values()) for point in points] == [(0, 8), (0, 16), (11, 8), (11, 16)]
    assert points[2].workload.hook_name == "blocks.11.hook_resid_pre"  # pyright: ignore[reportAttributeAccessIssue]
    torn = {
        "task": "sae_training",
        "library": "dictionary_learning",
        "model": "gpt2",
        "submodule": "transformer.h.6.mlp",
    }
    (point,) = points_of(torn, {"hook_layer": [3], "expansion_factor": [8]})
    assert point.workload.submodule == "transformer.h.3.mlp"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_swept_field_takes_the_place_of_the_files() -> None:
    assert [point.workload.batch_size for point in points_of(CACHE, {"batch_size": [1, 2]})] == [1, 2]  # pyright: ignore


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_the_count_is_the_product(lists: list[list[int]]) -> None:
    axes: dict[str, list[int]] = dict(zip(("batch_size", "seq_len", "layers"), lists, strict=False))
    axes["layers"] = [value % 12 for value in axes.get("layers", [0])]
    axes["layers"] = list(dict.fromkeys(axes["layers"]))
    points = points_of(CACHE, axes)
    count = 1
    for values in axes.values():
        count *= len(values)
    assert len(points) == count == len({str(point.values) for point in points})


def test_commands_are_quoted_and_other_braces_stay() -> None:
    points = [{"hook_layer": 3, "model": "a b", "layers": [1, 2]}]
    run = "awk '{print}' ${HOME}/{hook_layer} {model} {layers} {index} ${A:-${B}}"
    assert commands_of(run, points) == ["awk '{print}' ${HOME}/3 'a b' '[1, 2]' 0 ${A:-${B}}"]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("x {hook_laye}", r"nearest: \{hook_layer\}"),
        ("x {batch_size} {hook_layer}", r"\{batch_size\} is not swept"),
        ("x", r"does not name \{hook_layer\}"),
        ("", "run is empty"),
    ],
)
def test_commands_that_are_refused(run: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        commands_of(run, [{"hook_layer": 1}, {"hook_layer": 2}])
