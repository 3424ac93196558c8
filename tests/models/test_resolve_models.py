"""What a caller may call a model, and what is said when nothing is meant."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from compute_awareness.errors import InputError
from compute_awareness.models import catalogue
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec

LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100,
    "max_position_embeddings": 512, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("gpt2", "gpt2"),
        ("gpt2-small", "gpt2"),
        ("GPT2_Small", "gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("gpt2-xl", "gpt2-xl"),
        ("llama-2-7b", "llama-2-7b"),
        ("Llama-2-7b-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("META-LLAMA/LLAMA-2-7B-HF", "llama-2-7b"),
        ("llama2-7b", "llama-2-7b"),
        ("Llama 2 7B", "llama-2-7b"),
        ("EleutherAI/pythia-2.8b", "pythia-2.8b"),
        ("pythia-2.7b", "pythia-2.8b"),
        ("EleutherAI/pythia-6.7b-deduped", "pythia-6.9b-deduped"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("mistral-7b-v0.1", "mistral-7b"),
        ("Meta-Llama-3-8B", "llama-3-8b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("neo-small", "gpt-neo-125m"),
        ("tiny-stories-33M", "tinystories-33m"),
        ("roneneldan/TinyStories-33M", "tinystories-33m"),
        ("gelu-2l", "gelu-2l"),
        ("NeelNanda/GELU_2L512W_C4_Code", "gelu-2l"),
        ("attn-only-2l", "attn-only-2l"),
        ("stanford-gpt2-small-a", "alias-gpt2-small-x21"),
        ("phi-1_5", "phi-1.5"),
        ("  gemma2-2b ", "gemma-2-2b"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert resolve(spelling).name == name


def test_every_name_of_a_model_means_that_model() -> None:
    for name in catalogue.names():
        spec = catalogue.find(name)
        assert spec is not None
        for spelling in (name, spec.hf_id, spec.tl_name, *spec.aliases):
            if spelling:
                assert catalogue.find(spelling) is spec, spelling
                assert catalogue.find(spelling.upper()) is spec, spelling


@pytest.mark.parametrize(
    ("wrong", "among_nearest"),
    [
        ("pythia-2.9b", "pythia-2.8b"),
        ("gpt2-huge", "gpt2-large"),
        ("lama-3-8b", "llama-3-8b"),
        ("mistal-7b", "mistral-7b"),
        ("gemma2b", "gemma-2-2b"),
    ],
)
def test_an_unknown_name_lists_the_nearest(wrong: str, among_nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(wrong)
    message = str(caught.value)
    assert message.startswith(f"unknown model '{wrong}'; nearest: ")
    assert among_nearest in message.split("nearest: ")[1].split("; ")[0].split(", ")
    assert "\n" not in message


def test_a_fork_is_not_its_original() -> None:
    assert catalogue.find("someone/gpt2") is None


@pytest.mark.parametrize(
    "wrong", ["", "   ", "a\0b", "x" * 5000, "a/b/c", "../no/such.json", "~nouser-here/x", None, 5, []]
)
def test_no_name_at_all(wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        resolve(wrong)
    assert len(str(caught.value)) < 500


def test_a_config_file_and_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "My-Model"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA_CONFIG))
    for ref in (str(path), str(folder)):
        spec = resolve(ref)
        assert (spec.name, spec.d_model, spec.n_layers, spec.n_kv_heads) == ("My-Model", 64, 3, 2)
        assert spec.checkpoint_dtype == "bfloat16"


def test_a_relative_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine" / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    monkeypatch.chdir(tmp_path)
    assert resolve("checkpoints/mine").d_model == 64


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON at line 1"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "not a model config"),
        (b'{"name": "package"}', "not a model config"),
        (b'{"d_model": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        resolve(str(path))


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        resolve(str(tmp_path))
    with pytest.raises(InputError, match="no file"):
        resolve(str(tmp_path / "nothing.json"))
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (5 * 1024**2))
    with pytest.raises(InputError, match="too large"):
        resolve(str(big))


def test_plain_numbers() -> None:
    spec = resolve({"n_layers": 2, "d_model": 64, "n_heads": 4, "d_vocab": 100})
    assert spec.architecture == "LlamaForCausalLM"
    assert (spec.n_kv_heads, spec.d_head, spec.d_mlp, spec.gated_mlp, spec.norm) == (4, 16, 256, True, "rmsnorm")


@pytest.mark.parametrize(
    ("tells", "architecture"),
    [
        ({"positional": "learned"}, "GPT2LMHeadModel"),
        ({"positional": "alibi"}, "BloomForCausalLM"),
        ({"parallel_attn_mlp": True}, "GPTNeoXForCausalLM"),
        ({"parallel_attn_mlp": True, "parallel_shared_norm": True}, "PhiForCausalLM"),
        ({"norm_placement": "both"}, "Gemma2ForCausalLM"),
        ({"qk_norm": "head"}, "Qwen3ForCausalLM"),
        ({"gated_mlp": False}, "GPT2LMHeadModel"),
        ({"d_mlp": 0}, "NeelToy"),
        ({"architecture": "OPTForCausalLM"}, "OPTForCausalLM"),
    ],
)
def test_plain_numbers_tell_the_architecture(tells: dict[str, Any], architecture: str) -> None:
    given = {"n_layers": 2, "d_model": 64, "d_head": 16, "d_vocab": 100}
    spec = resolve(given | tells)
    assert spec.architecture == architecture
    assert all(getattr(spec, field) == value for field, value in tells.items())


def test_an_inline_hugging_face_config() -> None:
    assert resolve(dict(LLAMA_CONFIG)).n_layers == 3


GOOD: dict[str, Any] = {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_vocab": 100}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "'n_layers' is missing"),
        ({"n_layers": 2, "d_model": 64, "d_vocab": 9}, "'n_heads' is missing"),
        (GOOD | {"n_layer": 2}, "unknown field 'n_layer'; nearest: n_layers"),
        (GOOD | {"gatedmlp": True}, "nearest: gated_mlp"),
        (GOOD | {"d_model": -64}, "d_model must be a whole number"),
        (GOOD | {"d_model": 0}, "d_model must be a whole number"),
        (GOOD | {"d_model": "64"}, "d_model must be a whole number"),
        (GOOD | {"n_layers": True}, "n_layers must be a whole number"),
        (GOOD | {"n_layers": 10**12}, "n_layers must be a whole number"),
        (GOOD | {"n_layers": 10**5000}, "thousands of digits"),
        (GOOD | {"d_vocab": 1e300}, "d_vocab must be a whole number"),
        (GOOD | {"n_heads": 5}, "not a multiple of n_heads 5"),
        (GOOD | {"n_kv_heads": 3}, "not a multiple of n_kv_heads 3"),
        (GOOD | {"n_layers": 1001}, "n_layers"),
        (GOOD | {"architecture": "GPT2LMHeadModel", "d_mlp": 0}, "d_mlp 0 (attention only) is of NeelToy"),
        (GOOD | {"rotary_dim": 10**4}, "rotary_dim 10000 is more than d_head"),
        (GOOD | {"norm": "batchnorm"}, "norm"),
        (GOOD | {"norm": {"a": {}}}, "norm"),
        (GOOD | {"architecture": "LlamaForCausalML"}, "nearest: LlamaForCausalLM"),
        (GOOD | {"architecture": ["x"]}, "not covered"),
        (GOOD | {"positional": [1]}, "positional"),
    ],
)
def test_objects_that_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_list_every_model_without_building_specs() -> None:
    rows = catalogue.rows()
    assert [row["name"] for row in rows] == catalogue.names() == sorted(catalogue.names())
    gpt2 = next(row for row in rows if row["name"] == "gpt2")
    assert (gpt2["n_layers"], gpt2["d_model"], gpt2["n_ctx"]) == (12, 768, 1024)
    assert "gpt2-small" in gpt2["aliases"]


def test_specs_hold_shapes_only() -> None:
    assert not [name for name in ModelSpec.model_fields if "param" in name or "byte" in name]
