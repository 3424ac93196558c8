"""Measures what nnsight traces hold and writes tests/truth/data/nnsight.json.

Needs nnsight 0.8.1 beside torch 2.13 and transformers 5.23, which the test extra does not have (dictionary_learning
asks for an older nnsight). Run from the repository: `PYTHONPATH=server:tests/truth python tools/measure_nnsight.py`.
Real models with random weights on the CPU, in float32; live tensors are followed by `tests/truth/meters.py`.
"""

from __future__ import annotations

import importlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from builders import held_tensors, hf_model, quiet
from meters import distinct_bytes, measure_peak
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from compute_awareness.models import catalogue

nnsight: Any = importlib.import_module("nnsight")

OUT = Path(__file__).parents[1] / "tests" / "truth" / "data" / "nnsight.json"
LAYERS, VOCABULARY = 3, 500
# model, attention, batch, tokens, modules whose outputs are saved
CASES: list[tuple[str, str, int, int, list[str]]] = [
    ("gpt2", "sdpa", 2, 48, []),
    ("gpt2", "sdpa", 2, 48, ["transformer.h.*"]),
    ("gpt2", "eager", 3, 200, ["transformer.h.*.attn", "transformer.h.*.mlp"]),
    ("pythia-70m", "sdpa", 2, 130, ["gpt_neox.layers.*"]),
    ("pythia-70m", "eager", 1, 130, ["gpt_neox.layers.*.attention", "gpt_neox.layers.*.mlp.dense_h_to_4h"]),
    ("opt-125m", "sdpa", 1, 64, ["model.decoder.layers.*"]),
    ("qwen3-0.6b", "eager", 2, 96, ["model.layers.*.self_attn", "model.norm"]),
    ("gemma-3-270m", "sdpa", 2, 77, ["model.layers.*.post_attention_layernorm", "model.layers.*.mlp"]),
    ("gemma-3-270m", "eager", 1, 150, []),
]
# The same without torch.no_grad(): the graph is built, and kept with what is saved. None with grouped heads in sdpa,
# which the CPU computes in another kernel than CUDA does in float32.
GRAPHS: list[tuple[str, str, int, int, list[str]]] = [
    ("gpt2", "sdpa", 2, 48, ["transformer.h.*"]),
    ("gpt2", "eager", 3, 100, ["transformer.h.*.attn", "transformer.h.*.mlp"]),
    ("pythia-70m", "sdpa", 2, 130, ["gpt_neox.layers.*"]),
    ("pythia-70m", "eager", 1, 130, ["gpt_neox.layers.*.attention", "gpt_neox.layers.*.mlp.dense_h_to_4h"]),
    ("opt-125m", "sdpa", 1, 64, ["model.decoder.layers.*"]),
    ("qwen3-0.6b", "eager", 2, 96, ["model.layers.*.self_attn", "model.norm"]),
    ("gemma-3-270m", "eager", 2, 77, ["model.layers.*.post_attention_layernorm", "model.layers.*.mlp"]),
    ("bloom-560m", "eager", 2, 50, ["transformer.h.*"]),
    ("phi-2", "eager", 1, 40, ["model.layers.*.mlp"]),
]


def tokenizer() -> PreTrainedTokenizerFast:
    """One word, one token."""
    words = Tokenizer(models.WordLevel({"a": 0, "[PAD]": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def first_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def envoys(model: Any, globs: list[str]) -> list[Any]:
    """nnsight's wrappers of the modules, in the order of execution: layer by layer, as a trace must read them."""
    paths = [glob.replace("*", str(i)) for i in range(LAYERS) for glob in globs if "*" in glob]
    paths += [glob for glob in globs if "*" not in glob]
    return [model.get(path) for path in paths]


def measure(name: str, attention: str, b: int, s: int, globs: list[str], graph: bool = False) -> dict[str, Any]:
    spec = catalogue.find(name)
    assert spec is not None, name
    spec = spec.model_copy(update={"n_layers": LAYERS, "d_vocab": VOCABULARY})
    real = hf_model(spec, "cpu", "float32", attention)
    model = nnsight.LanguageModel(real, tokenizer=tokenizer())
    ids = torch.zeros(b, s, dtype=torch.long)
    wanted = envoys(model, globs)

    def trace() -> Any:
        with torch.set_grad_enabled(graph), model.trace(ids):
            kept = nnsight.save([first_of(envoy.output) for envoy in wanted])
        return kept  # noqa: RET504  (a trace takes its body out of the function)

    trace()
    measured = measure_peak(trace, [*held_tensors(real), ids])
    return {
        "model": name, "attention": attention, "batch_size": b, "seq_len": s, "names_filter": globs,
        "with_gradients": graph, "peak_bytes": measured.bytes + distinct_bytes([ids]),
        "saved_bytes": distinct_bytes(measured.result),
    }  # fmt: skip


def main() -> None:
    with quiet():
        cases = [measure(*case) for case in CASES] + [measure(*case, graph=True) for case in GRAPHS]
    versions = {package: version(package) for package in ("nnsight", "torch", "transformers")}
    said = {"versions": versions, "n_layers": LAYERS, "d_vocab": VOCABULARY, "dtype": "float32", "cases": cases}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
