"""Every model of the catalogue, rebuilt from its numbers with the real libraries and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import hf_config, hf_model, hooked_transformer, quiet, tl_config
from meters import distinct_bytes

from compute_awareness.memory.weights import hf_buffer_bytes, hf_params, tl_buffer_bytes, tl_params
from compute_awareness.models import catalogue
from compute_awareness.models.hf_config import spec_from_config
from compute_awareness.models.spec import ModelSpec

PUBLISHED: dict[str, int] = json.loads(Path(__file__).with_name("published_totals.json").read_text())
NAMING = {"name", "hf_id", "tl_name", "aliases", "source", "gated_repo", "checkpoint_dtype"}


def _specs() -> list[ModelSpec]:
    return [spec for name in catalogue.names() if (spec := catalogue.find(name)) is not None]


def _shape(spec: ModelSpec) -> str:
    """Equal for models that differ in nothing but names."""
    return spec.model_dump_json(exclude=NAMING)


SPECS = _specs()
DISTINCT = list({_shape(spec): spec for spec in reversed(SPECS)}.values())[::-1]
ONE_PER_FAMILY = list({spec.architecture: spec for spec in sorted(SPECS, key=lambda s: -s.d_model)}.values())


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("spec", DISTINCT, ids=lambda spec: spec.name)
def test_parameters_and_buffers_of_the_rebuilt_model(spec: ModelSpec) -> None:
    if spec.has_hf_model:
        model = hf_model(spec)
        assert _count(model) == hf_params(spec)
        assert distinct_bytes(model.buffers()) == hf_buffer_bytes(spec, 4)
    folded = hooked_transformer(spec)
    assert _count(folded) == tl_params(spec)
    assert distinct_bytes(folded.buffers()) == tl_buffer_bytes(spec, 4)
    # Norms are the same in every block, so two blocks say all about the unfolded model.
    short = spec.model_copy(update={"n_layers": min(2, spec.n_layers)})
    assert _count(hooked_transformer(short, folded=False)) == tl_params(short, folded=False)


def test_the_catalogue_covers_what_people_use() -> None:
    assert len(SPECS) >= 100
    assert len(DISTINCT) >= 100
    known = {spec.name for spec in SPECS}
    assert {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "llama-2-7b", "llama-2-13b", "mistral-7b"} <= known
    assert {f"pythia-{size}" for size in ["70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"]} <= known


@pytest.mark.parametrize("hf_id", PUBLISHED)
def test_parameters_equal_the_published_total(hf_id: str) -> None:
    spec = catalogue.find(hf_id)
    assert spec is not None
    assert hf_params(spec) == PUBLISHED[hf_id]


@pytest.mark.parametrize("spec", ONE_PER_FAMILY, ids=lambda spec: spec.architecture)
def test_bytes_follow_the_dtype(spec: ModelSpec) -> None:
    """All parameters take the model's dtype; buffers do where `*_buffer_bytes` says so."""
    spec = spec.model_copy(update={"n_layers": min(8, spec.n_layers)})
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        if spec.has_hf_model:
            model = hf_model(spec, dtype=dtype)
            assert distinct_bytes(model.parameters()) == hf_params(spec) * width
            assert distinct_bytes(model.buffers()) == hf_buffer_bytes(spec, width)
        for folded in (True, False):
            hooked = hooked_transformer(spec, dtype=dtype, folded=folded)
            assert distinct_bytes(hooked.parameters()) == tl_params(spec, folded) * width
            assert distinct_bytes(hooked.buffers()) == tl_buffer_bytes(spec, width)


@pytest.mark.parametrize("seq_len", [1, 2048, 2049, 4095, 4097, 5000])
@pytest.mark.parametrize("n_ctx", [5000, 40_000])
def test_rotary_tables_grow_with_the_sequence(seq_len: int, n_ctx: int) -> None:
    spec = ModelSpec(
        name="small", architecture="LlamaForCausalLM", n_layers=2, d_model=8, n_heads=2, n_kv_heads=1, d_head=4,
        d_mlp=8, d_vocab=16, n_ctx=n_ctx, rotary_dim=4, gated_mlp=True, norm="rmsnorm", act_fn="silu",
    )  # fmt: skip
    model = hooked_transformer(spec, dtype="bfloat16")
    with torch.no_grad():
        model(torch.zeros(1, seq_len, dtype=torch.long, device="meta"))
    assert distinct_bytes(model.buffers()) == tl_buffer_bytes(spec, 2, seq_len)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """TransformerLens' own converter, fed with our config in place of the hub's."""
    import transformer_lens.loading_from_pretrained as loading

    def convert(spec: ModelSpec, fold_ln: bool) -> Any:
        config = hf_config(spec)
        if spec.architecture == "PhiForCausalLM":
            # transformers 5 moved this into rope_parameters, TransformerLens 3.9 still reads the attribute.
            factor = config.rope_parameters["partial_rotary_factor"]
            object.__setattr__(config, "partial_rotary_factor", factor)
        monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *args, **kwargs: config)
        with quiet():
            return loading.get_pretrained_model_config(spec.tl_name, fold_ln=fold_ln, device="cpu")

    return convert


IN_TL = [spec for spec in DISTINCT if spec.tl_name and spec.has_hf_model]
COMPARED = """
    n_layers d_model n_heads n_key_value_heads d_head d_mlp d_vocab n_ctx act_fn gated_mlp normalization_type attn_only
    use_normalization_before_and_after parallel_attn_mlp use_qk_norm post_embedding_ln positional_embedding_type
    rotary_dim rotary_adjacent_pairs use_attn_scale use_local_attn attn_scores_soft_cap output_logits_soft_cap
    clip_qkv original_architecture
""".split()  # noqa: SIM905


@pytest.mark.parametrize("spec", IN_TL, ids=lambda spec: spec.name)
def test_our_hooked_config_is_the_converters(spec: ModelSpec, converter: Any) -> None:
    for folded in (True, False):
        theirs, ours = converter(spec, folded), tl_config(spec, folded=folded)
        assert {k: getattr(ours, k) for k in COMPARED} == {k: getattr(theirs, k) for k in COMPARED}
        if theirs.use_local_attn:
            assert ours.window_size == theirs.window_size
            assert ours.attn_types == theirs.attn_types


@pytest.mark.parametrize("spec", [s for s in DISTINCT if s.has_hf_model], ids=lambda spec: spec.name)
def test_config_json_gives_the_catalogues_numbers(spec: ModelSpec) -> None:
    """What transformers writes for a model is read back as that model."""
    written = json.loads(hf_config(spec).to_json_string(use_diff=False))
    read = spec_from_config(written, spec.name)
    # Caps that TransformerLens sets by a model's name are not in its config.
    left_out = NAMING | {"n_ctx_tl", "local_layers"}
    assert read.model_dump(exclude=left_out) == spec.model_dump(exclude=left_out)
    layers = range(spec.n_layers)
    assert [read.is_local(layer) for layer in layers] == [spec.is_local(layer) for layer in layers]
