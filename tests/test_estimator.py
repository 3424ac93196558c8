"""The estimate as a whole: what is said, what is refused, what adds up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory.estimate import Estimate
from compute_awareness.models.catalogue import names
from compute_awareness.units import GIB
from compute_awareness.workload import parse_workload

CACHE = {"task": "activation_cache", "model": "gpt2-small", "seq_len": 128}
SAE = {"task": "sae_training", "model": "gpt2-small", "hook_name": "blocks.6.hook_resid_pre", "expansion_factor": 8}


def made(workload: dict[str, Any], **more: Any) -> Estimate:
    return estimate(parse_workload(workload | more))


def part(result: Estimate, name: str) -> int:
    return sum(c.bytes for c in result.components if c.name == name and c.where == "device")


def test_transformer_lens_holds_more_than_hugging_face_and_says_so() -> None:
    lens = made({"task": "inference", "model": "gpt2-small"})
    hugging = made({"task": "inference", "model": "gpt2-small", "library": "transformers"})
    assert part(lens, "weights") == 163_049_041 * 4
    assert part(hugging, "weights") == 124_439_808 * 4
    weights = next(c for c in lens.components if c.name == "weights")
    assert "163.0 M" in weights.detail
    assert "124.4 M" in weights.detail


def test_logits_are_counted_once() -> None:
    """The full cache holds the logits (unembed.hook_out); the component is then 0."""
    assert part(made(CACHE), "logits") == 0
    assert part(made(CACHE, names_filter=["*resid_post"]), "logits") == 128 * 50257 * 4
    assert part(made(CACHE, stop_at_layer=3), "logits") == 0


def test_what_is_alive_at_the_peak_adds_up() -> None:
    for workload in (CACHE, {**CACHE, "task": "inference"}, SAE, {**SAE, "architecture": "topk"}):
        result = made(workload)
        assert sum(c.bytes_at_peak for c in result.components) == result.peak.tensors
        assert result.peak.tensors < result.peak.reserved < result.peak.device
        assert result.range.low <= result.peak.device <= result.range.high


def test_layers_keep_only_their_blocks() -> None:
    result = made(CACHE, layers=[3, -1])
    assert {h.count for h in result.hooks} == {2}
    assert "hook_embed" not in {h.hook for h in result.hooks}
    assert made(CACHE, names_filter=["*resid_post"], layers=[3, 4]).hooks[0].bytes == 2 * 128 * 768 * 4


def test_a_lone_string_is_a_filter_of_one() -> None:
    assert made(CACHE, names_filter="*resid_post").hooks == made(CACHE, names_filter=["*resid_post"]).hooks


def test_names_filter_globs_do_not_cross_into_other_blocks() -> None:
    """`blocks.1.*` is block 1, not 10 and 11 as with the substring test that people write."""
    assert {h.count for h in made(CACHE, names_filter=["blocks.1.*"]).hooks} == {1}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"names_filter": ["*hook_resid_*"]}, ""),
        ({"names_filter": ["*hook_z"]}, "blocks.0.hook_resid_post and 11 more are read but not kept (names_filter)"),
        ({"layers": [3]}, ""),  # of the layers that are kept
        (
            {"reads": ["blocks.5.hook_resid_post"], "layers": [3]},
            "blocks.5.hook_resid_post is read but not kept (layers)",
        ),
        ({"reads": ["hook_embed"], "layers": [3]}, "hook_embed is read but not kept (layers)"),
        ({"reads": ["blocks.1?.*_post"], "stop_at_layer": 9}, "blocks.10.mlp.hook_post and 3 more are read"),
        ({"reads": ["*hook_z", "blocks.9.hook_resid_mid"], "stop_at_layer": 9}, "blocks.9.hook_resid_mid is read"),
    ],
)
def test_what_is_read_takes_no_byte_and_a_filter_that_misses_it_is_warned_of(more: dict[str, Any], said: str) -> None:
    told = made(CACHE, **({"reads": ["*hook_resid_post"]} | more))
    unsaid = made(CACHE, **(more | {"reads": None}))
    assert told.peak == unsaid.peak and told.components == unsaid.components and told.range == unsaid.range
    warned = [warning for warning in told.warnings if warning.startswith("reads: ")]
    assert len(warned) == bool(said) and all(said in one and "KeyError" in one for one in warned)


def test_a_context_that_is_too_long_warns_but_answers() -> None:
    assert any("beyond" in warning for warning in made(CACHE, seq_len=4096).warnings)
    assert not made(CACHE, seq_len=1024).warnings


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "gpt2-smal"}, "nearest: gpt2"),
        ({"names_filter": ["*hook_resid_pos"]}, "near: *hook_resid_post"),
        ({"names_filter": ["hook_resid_post"]}, "near: *hook_resid_post"),
        ({"names_filter": ["hook_resid_pots"], "library": "transformer_bridge"}, "near: *"),
        ({"names_filter": ["*hook_result"]}, "only fires with use_attn_result"),
        ({"names_filter": []}, "an empty list keeps nothing"),
        ({"names_filter": ["blocks.7.*"], "stop_at_layer": 3}, "stop_at_layer 3"),
        (
            {"reads": ["*hook_resid_pos"]},
            "reads: '*hook_resid_pos' matches no hook of gpt2 in the 210 hooks that fire; near",
        ),
        (
            {"reads": ["*hook_z", "*hook_result"]},
            "reads: '*hook_result' matches attn.hook_result, which only fires with",
        ),
        ({"reads": []}, "reads: an empty list reads nothing"),
        ({"reads": ["*.mpl"], "library": "transformers"}, "reads: '*.mpl' matches no module of gpt2"),
        ({"reads": ["hook_embde"], "library": "transformer_bridge"}, "near: hook_embed"),
        ({"layers": [12]}, "layers: 12 is outside the 12 blocks"),
        ({"layers": [-13]}, "outside the 12 blocks"),
        ({"stop_at_layer": 40}, "stop_at_layer: 40 is outside"),
        ({"model": "llama-3-8b", "use_attn_in": True}, "grouped-query attention"),
        ({"library_version": "1.19.0"}, "not covered yet"),
        ({"library_version": "4.1.0"}, "removed HookedTransformer"),
        ({"library_version": "latest"}, "is not a version"),
        ({"model": {"n_layers": 2}}, "model"),
    ],
)
def test_refused_with_one_line(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        made(CACHE, **more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"hook_name": "blocks.6.hook_resid_prex"}, "nearest: blocks.6.hook_resid_pre"),
        ({"hook_name": "blocks.99.hook_resid_pre"}, "block 99 is outside"),
        ({"hook_name": "blocks.2.attn.hook_pattern"}, "not an activation an SAE can be trained on"),
        ({"d_in": 512}, "is 768 wide"),
        ({"d_sae": 100, "expansion_factor": 8}, "differ"),
        ({"architecture": "topk", "k": 100_000}, "more than the"),
    ],
)
def test_sae_refused_with_one_line(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(SAE, **more)


def test_the_sae_reads_the_width_of_its_hook() -> None:
    assert made(SAE, hook_name="blocks.6.mlp.hook_post").workload["d_in"] == 3072
    assert made(SAE, hook_name="blocks.6.attn.hook_z", model="llama-3.2-1b").workload["d_in"] == 2048
    assert made(SAE, d_in=768).workload["d_sae"] == 6144


def test_the_librarys_own_defaults_are_warned_of() -> None:
    """20 x 128 tokens are fewer than a batch of 4096: SAELens raises."""
    assert any("n_batches_in_buffer" in warning for warning in made(SAE).warnings)
    assert not made(SAE, n_batches_in_buffer=64).warnings


def test_the_store_on_the_cpu_leaves_the_card() -> None:
    big = {"n_batches_in_buffer": 4096}
    on_card, on_host = made(SAE, **big), made(SAE, **big, act_store_device="cpu")
    buffer = 4096 * 128 * 768 * 4
    assert part(on_host, "activation_store") == 0
    assert on_card.peak.tensors - on_host.peak.tensors >= buffer
    assert on_host.host_bytes >= 2 * buffer


def test_half_precision_keeps_norms_in_float32() -> None:
    sizes = {h.hook: h.bytes for h in made(CACHE, dtype="bfloat16").hooks}
    assert sizes["ln1.hook_normalized"] == 12 * 128 * 768 * 4
    assert sizes["attn.hook_z"] == 12 * 128 * 768 * 2


@pytest.mark.parametrize("name", names())
def test_every_model_of_the_catalogue_answers(name: str) -> None:
    result = made({"task": "activation_cache", "model": name, "batch_size": 2, "seq_len": 64})
    assert result.workload["model"] == name
    assert result.peak.tensors > part(result, "weights") > 0


@settings(derandomize=True, deadline=None, database=None, max_examples=40)
@given(
    st.sampled_from(["gpt2", "pythia-410m", "gemma-2-2b", "llama-3-8b", "gelu-2l"]),
    st.integers(1, 64),
    st.integers(1, 1000),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_more_never_takes_less(model: str, batch_size: int, seq_len: int, dtype: str) -> None:
    base = {"task": "activation_cache", "model": model, "batch_size": batch_size, "seq_len": seq_len, "dtype": dtype}
    now = made(base).peak.tensors
    assert made(base, batch_size=batch_size + 1).peak.tensors > now
    assert made(base, seq_len=seq_len + 1).peak.tensors > now
    assert made(base, names_filter=["*resid_post"]).peak.tensors <= now
    assert made(base, with_gradients=True).peak.tensors >= now


def test_the_headline_example() -> None:
    """run_with_cache on Pythia-2.8B at 4 x 1024: the rough formula says 34 GiB; the cache alone is 56.6 GiB."""
    result = made({"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024})
    assert 56 * GIB < part(result, "activation_cache") < 57 * GIB
    assert result.precision == "exact"


def test_precision_is_that_of_the_version_that_was_measured() -> None:
    assert made(CACHE, library_version="3.9.0").precision == "exact"
    older = made(CACHE, library_version="3.6.0")
    assert older.precision == "close"
    assert any("3.6.0" in assumption for assumption in older.assumptions)


def test_the_filled_in_workload_can_be_run_again() -> None:
    inline = {"name": "mine", "n_layers": 2, "d_model": 64, "n_heads": 4, "d_vocab": 100, "n_ctx": 256}
    for workload in (CACHE, CACHE | {"model": "openai-community/gpt2"}, CACHE | {"model": inline}, SAE):
        once = made(workload)
        again = made(once.workload)
        assert again.peak == once.peak
        assert again.workload == once.workload
    assert made(CACHE).workload["model"] == "gpt2"


def test_transformers_own_default_dtype_is_said() -> None:
    workload = {"task": "inference", "model": "llama-3-8b", "library": "transformers"}
    assert any("bfloat16 unless told" in text for text in made(workload).assumptions)
    assert not any("unless told" in text for text in made(workload, dtype="float32").assumptions)
