"""Measure what the trainers of dictionary_learning allocate, and write tests/truth/data/dictionary_learning.json.

The tests run without the package: it pins an nnsight that current ones of the rest do not go with. Run this in an
environment that has it (dictionary-learning, its nnsight, torch, transformers; this package on the path):

    PYTHONPATH=server python tools/measure_dictionary_learning.py

What it measures is real: `update()` of real trainers, and `trainSAE` on a real ActivationBuffer with a language model
of random weights, on the CPU; live bytes from the allocator's events, as tests/truth/meters.py reads them. Adam's
foreach is forced, because torch chooses it on CUDA. Operations of the same runs are those of torch's FlopCounterMode.
"""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "truth" / "data" / "dictionary_learning.json"
sys.path[:0] = [str(ROOT / "tests" / "truth")]

import meters  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from builders import held_tensors, hf_model, quiet  # noqa: E402  # pyright: ignore[reportMissingImports]
from dictionary_learning import trainers  # noqa: E402  # pyright: ignore[reportMissingImports]
from dictionary_learning.buffer import ActivationBuffer  # noqa: E402  # pyright: ignore[reportMissingImports]
from dictionary_learning.trainers.matryoshka_batch_top_k import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.training import trainSAE  # noqa: E402  # pyright: ignore[reportMissingImports]
from flop_meter import counted  # noqa: E402  # pyright: ignore[reportMissingImports]
from nnsight import LanguageModel  # noqa: E402  # pyright: ignore[reportMissingImports]
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from compute_awareness.memory.huggingface.forward import default_attention  # noqa: E402
from compute_awareness.models import catalogue  # noqa: E402

TRAINERS: dict[str, Any] = {
    "standard": trainers.StandardTrainer, "topk": trainers.TopKTrainer, "batchtopk": trainers.BatchTopKTrainer,
    "jumprelu": trainers.JumpReluTrainer, "gated": trainers.GatedSAETrainer,
    "matryoshka_batchtopk": MatryoshkaBatchTopKTrainer,
}  # fmt: skip
TOP_K = ("topk", "batchtopk", "matryoshka_batchtopk")
# d_in, d_sae, k, batch: the step's peak in the activations, in the weights, and between
SHAPES = [(64, 1024, 32, 1024), (256, 1024, 60, 4), (384, 128, 16, 1024), (96, 608, 7, 301), (128, 2048, 20, 96)]
FRACTIONS = [0.125, 0.375, 0.5]
LAYERS, VOCABULARY = 3, 500
# trainer, d_sae, model, submodule, dtype, n_ctxs, ctx_len, refresh_batch_size, out_batch_size: the peak in the forward
# pass, in the copies of a refresh, and in the step. Grouped heads in float32 run in another kernel on the CPU than on
# CUDA, where only the unfused one takes them: MATH_KERNEL has them in that one.
BUFFERS = [
    ("topk", 512, "gpt2", "transformer.h.1", "float32", 24, 32, 6, 200),
    ("standard", 512, "gpt2", "transformer.h.0", "float32", 160, 16, 40, 900),
    ("standard", 2048, "pythia-70m", "gpt_neox.layers.1", "float32", 24, 32, 8, 500),
    ("jumprelu", 1024, "pythia-70m", "gpt_neox.layers.2.mlp", "float32", 40, 40, 16, 800),
    ("standard", 256, "pythia-70m", "gpt_neox.layers.0", "float16", 64, 16, 16, 200),
    ("gated", 256, "opt-125m", "model.decoder.layers.1", "float32", 60, 24, 30, 640),
    ("topk", 1024, "qwen3-0.6b", "model.layers.0.mlp", "float32", 32, 16, 16, 200),
]
MATH_KERNEL = [("topk", 256, "qwen3-0.6b", "model.layers.1.mlp", "float32", 16, 128, 16, 700), BUFFERS[-1]]
STEPS = 5000
LATE = 1001  # past threshold_start_step


def config(name: str, d_in: int, d_sae: int, k: int) -> dict[str, Any]:
    more: dict[str, Any] = {"k": k} if name in TOP_K else {}
    if name.startswith("matryoshka"):
        more["group_fractions"] = FRACTIONS
    return {
        "trainer": TRAINERS[name], "steps": STEPS, "activation_dim": d_in, "dict_size": d_sae, "layer": 0,
        "lm_name": "none", "device": "cpu", **more,
    }  # fmt: skip


def build(name: str, d_in: int, d_sae: int, k: int) -> Any:
    given = config(name, d_in, d_sae, k)
    trainer = given.pop("trainer")(**given)
    for group in trainer.optimizer.param_groups:
        group["foreach"] = True
    return trainer


def held(trainer: Any) -> list[torch.Tensor]:
    counter = getattr(trainer, "num_tokens_since_fired", None)
    return [*trainer.ae.parameters(), *([] if counter is None else [counter])]


def step(
    name: str, d_in: int, d_sae: int, k: int, batch: int, *, n_saes: int = 1, dead: bool = False
) -> tuple[int, int]:
    """Peak of update() on `n_saes` trainers in turn, the second round of it, and the operations of one round."""
    torch.manual_seed(0)
    every = [build(name, d_in, d_sae, k) for _ in range(n_saes)]
    before = meters.distinct_bytes([tensor for trainer in every for tensor in held(trainer)])
    if dead:
        for trainer in every:
            trainer.dead_feature_threshold = 0

    def rounds() -> None:
        x = torch.randn(batch, d_in)
        # not step 0: it replaces b_dec, and the allocator's events miss the end of what was there before them
        for number in (1, LATE):
            for trainer in every:
                trainer.update(number, x)

    peak = before + meters.profiler_peak(rounds).bytes
    flops, odd = divmod(counted(rounds), 2)
    assert not odd, "the two rounds differ"
    return peak, flops


def language_model(name: str, dtype: str) -> tuple[Any, Any]:
    """The transformers model with few layers and one word per token, and nnsight's wrapper of it."""
    spec = catalogue.find(name)
    assert spec is not None, name
    words = Tokenizer(models.WordLevel({"a": 0, "[PAD]": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    short = spec.model_copy(update={"n_layers": LAYERS, "d_vocab": VOCABULARY})
    real = hf_model(short, "cpu", dtype, default_attention(short))
    return real, LanguageModel(real, tokenizer=tokenizer)


def with_buffer(
    name: str, d_sae: int, model: str, path: str, dtype: str, n_ctxs: int, ctx_len: int, texts: int, batch: int
) -> dict[str, int]:
    """Peak of trainSAE over two refreshes, the language model's weights included, and the operations of the run."""
    torch.manual_seed(0)
    real, wrapped = language_model(model, dtype)
    submodule = wrapped
    for part in path.split("."):
        submodule = submodule[int(part)] if part.isdigit() else getattr(submodule, part)
    d_in = real.config.hidden_size
    given = config(name, d_in, d_sae, 8)
    kind = given.pop("trainer")

    def made(**options: Any) -> Any:
        trainer = kind(**options)
        for group in trainer.optimizer.param_groups:
            group["foreach"] = True
        return trainer

    if name == "topk":
        given["threshold_start_step"] = 0
    steps = n_ctxs * ctx_len // batch + 3  # the first fill, and at least one refresh with all that is there by then

    def run() -> None:
        buffer = ActivationBuffer(
            itertools.repeat("a " * (2 * ctx_len)), wrapped, submodule, d_submodule=d_in, n_ctxs=n_ctxs,
            ctx_len=ctx_len, refresh_batch_size=texts, out_batch_size=batch, device="cpu",
        )  # fmt: skip
        trainSAE(buffer, [given | {"trainer": made}], steps, device="cpu")

    peak = meters.distinct_bytes(held_tensors(real)) + meters.profiler_peak(run).bytes
    return {"d_in": d_in, "k": 8, "peak": peak, "steps": steps, "flops": counted(run)}


def main() -> None:
    buffers = []
    names = ("architecture", "d_sae", "model", "submodule", "model_dtype", "n_ctxs", "ctx_len", "refresh_batch_size",
             "out_batch_size")  # fmt: skip
    for math_kernel, cases in ((False, BUFFERS), (True, MATH_KERNEL)):
        for case in cases:
            with quiet(), sdpa_kernel(SDPBackend.MATH) if math_kernel else nullcontext():
                found = with_buffer(*case)
            buffers.append(dict(zip(names, case, strict=True)) | {"math_kernel": math_kernel} | found)
    rows = []
    for name in TRAINERS:
        for d_in, d_sae, k, batch in SHAPES:
            for n_saes, dead in ((1, False), (1, True), (3, False)):
                if (dead and name not in TOP_K) or (n_saes > 1 and (d_in, batch) not in ((256, 4), (64, 1024))):
                    continue
                peak, flops = step(name, d_in, d_sae, k, batch, n_saes=n_saes, dead=dead)
                rows.append(
                    {"architecture": name, "d_in": d_in, "d_sae": d_sae, "k": k, "batch": batch, "n_saes": n_saes,
                     "dead": dead, "peak": peak, "flops": flops}
                )  # fmt: skip
    versions = {name: version(name) for name in ("dictionary-learning", "nnsight", "torch", "transformers")}
    kinds = {"steps": rows, "buffers": buffers}
    lines = {kind: ",\n".join(json.dumps(row) for row in measured) for kind, measured in kinds.items()}
    parts = [f'"{kind}": [\n{text}\n]' for kind, text in lines.items()]
    header = f'"versions": {json.dumps(versions)}, "n_layers": {LAYERS}, "d_vocab": {VOCABULARY}'
    DATA.write_text("{" + ",\n".join([header, *parts]) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
