"""Workloads from JSON: what is accepted, and the one line for what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.workload import TASKS, field_names, load_workload, parse_workload

CACHE = {"task": "activation_cache", "model": "gpt2"}
SAE = {"task": "sae_training", "d_in": 768, "expansion_factor": 8}


def test_the_contract_example_is_accepted() -> None:
    workload = load_workload(
        '{"task": "activation_cache", "model": "pythia-2.8b", "library": "transformer_lens", "batch_size": 4,'
        ' "seq_len": 1024, "dtype": "float32", "names_filter": ["*resid_post"], "layers": [3, 4]}'
    )
    assert workload.model_dump()["layers"] == [3, 4]


@pytest.mark.parametrize("spelling", ["bf16", "BF16", "torch.bfloat16", "bfloat16"])
def test_dtypes_in_every_spelling(spelling: str) -> None:
    assert parse_workload(CACHE | {"dtype": spelling}).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "activation_cach"}, "unknown task 'activation_cach' (nearest: activation_cache)"),
        ({"task": "trainin"}, "unknown task 'trainin' (nearest: training)"),
        ({"task": None}, "'task' is missing"),
        ({"batchsize": 4}, "unknown field 'batchsize'; nearest: batch_size"),
        ({"new_tokens": 4}, "unknown field 'new_tokens' of activation_cache (a field of generation); accepted: "),
        (
            {"task": "generation", "n_devices": 2},
            "unknown field 'n_devices' of generation (a field of inference, activation_cache, training)",
        ),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, not 0"),
        ({"batch_size": -3}, "batch_size"),
        ({"batch_size": 10**12}, "batch_size: input should be less than or equal to 1000000"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"seq_len": "long"}, "seq_len"),
        ({"dtype": "int8"}, "dtype: 'int8' is not accepted; accepted: float32, bfloat16, float16"),
        ({"library": "nnsigt"}, "library: 'nnsigt' is not accepted; accepted: transformer_lens"),
        ({"names_filter": 3.5}, "names_filter"),
        ({"cache_device": "cuda:1"}, "cache_device"),
    ],
)
def test_one_clear_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_workload(CACHE | change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"task": "sae_training", "expansion_factor": 8}, "give d_in, or model and hook_name"),
        ({"task": "sae_training", "d_in": 768}, "give d_sae or expansion_factor"),
        ({"task": "sae_training", "model": "gpt2", "expansion_factor": 8}, "hook_name is needed"),
        (SAE | {"architecture": "matryoshka"}, "architecture"),
        (SAE | {"library": "dictionary_learning", "context_size": 64}, "context_size is for library sae_lens"),
        ({"task": "patching", "model": "gpt2", "method": "eap", "reads": "*hook_z"}, "reads are not of method eap"),
        ({"task": "inference", "model": "gpt2", "attention": "sdpa"}, "HookedTransformer always computes the scores"),
        ({"task": "inference", "model": "gpt2", "library": "transformers", "no_processing": True}, "no_processing"),
    ],
)
def test_fields_that_belong_together(workload: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_workload(workload)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "nul", '{"task": "inference"', "[" * 100_000])
def test_broken_json_is_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        load_workload(text)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(st.sampled_from(sorted(TASKS)), st.dictionaries(st.sampled_from(field_names()), JSON, max_size=6))
def test_any_json_is_a_workload_or_one_line(task: str, fields: dict[str, Any]) -> None:
    try:
        parse_workload(fields | {"task": task})
    except InputError as error:
        assert "\n" not in str(error) or any("\n" in str(value) for value in fields.values())
        assert len(str(error)) < 1500
