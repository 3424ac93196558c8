"""A rule-of-thumb GPU guide as a test table: each of its rows, our answer, and why where they differ.

`docs/gpu_guide.md` is this table; `python tests/advice/test_brief_guide.py` writes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.estimator import estimate
from compute_awareness.preflight import Recommendation, recommend
from compute_awareness.units import gib
from compute_awareness.workload import parse_workload

DOC = Path(__file__).parents[2] / "docs" / "gpu_guide.md"
BY_ID = {gpu.id: gpu for gpu in all_gpus()}


@dataclass(frozen=True)
class Case:
    """A row of the guide with a workload that it may mean."""

    guide: str
    minimum_gb: int
    recommended_gb: int
    words: str
    workload: dict[str, Any]
    why: str = ""
    """Why our smallest card is another than the guide's minimum; empty where it is of that size."""


def _cache(model: str, batch: int, seq: int, **more: Any) -> dict[str, Any]:
    return {"task": "activation_cache", "model": model, "batch_size": batch, "seq_len": seq, **more}


def _sae(d_sae: int, **more: Any) -> dict[str, Any]:
    return {"task": "sae_training", "d_sae": d_sae, **more}


SMALL, LARGE, SEVEN = "GPT-2-small experiments", "GPT-2-xl / Pythia-2.8B", "Pythia-6.9B / Llama-7B"
SAE8, SAE32, SAE4096 = "SAE training (8x on 768)", "SAE training (32x on 768)", "SAE training (8x on 4096)"
RESID = {"names_filter": ["*hook_resid_post"]}
GPT2_HOOK = {"model": "gpt2", "hook_name": "blocks.6.hook_resid_pre"}
LLAMA_HOOK = {"model": "llama-2-7b", "hook_name": "blocks.16.hook_resid_pre"}

CASES = (
    Case(SMALL, 8, 16, "activation patching, 8 x 128 tokens, float32",
         {"task": "patching", "model": "gpt2", "batch_size": 8, "seq_len": 128}),
    Case(SMALL, 8, 16, "every activation of 8 x 1024 tokens, float32", _cache("gpt2", 8, 1024),
         "the guide counts the model; the cache is 30 times the model here: scores and pattern of 144 heads"),
    Case(SMALL, 8, 16, "training, AdamW, 8 x 1024 tokens, float32",
         {"task": "training", "model": "gpt2", "batch_size": 8, "seq_len": 1024},
         "logits of 50257 tokens for every position, their gradients and what autograd keeps outweigh the model"),
    Case(LARGE, 16, 24, "GPT-2-xl, every activation of 512 tokens, float32", _cache("gpt2-xl", 1, 512)),
    Case(LARGE, 16, 24, "Pythia-2.8B, every activation of 512 tokens, float32", _cache("pythia-2.8b", 1, 512),
         "TransformerLens loads float32: 10.6 GiB of weights, and the cache does not fit beside them in 16 GB"),
    Case(LARGE, 16, 24, "Pythia-2.8B, a forward pass of 1024 tokens in float16 (transformers)",
         {"task": "inference", "library": "transformers", "model": "pythia-2.8b", "seq_len": 1024,
          "dtype": "float16"},
         "half precision without a cache is half of what the guide provides for"),
    Case(SEVEN, 24, 40, "Pythia-6.9B, residual stream of 512 tokens, float32",
         _cache("pythia-6.9b", 1, 512, **RESID),
         "the guide means half precision; TransformerLens loads float32 unless told otherwise, which is more than "
         "24 GB in weights alone"),
    Case(SEVEN, 24, 40, "Pythia-6.9B, residual stream of 512 tokens, bfloat16",
         _cache("pythia-6.9b", 1, 512, dtype="bfloat16", **RESID),
         "in half precision it just fits 16 GB, with little to spare; T4 and older have no bfloat16 hardware and are "
         "slow at it"),
    Case(SEVEN, 24, 40, "Llama-2-7B, residual stream of 2048 tokens, bfloat16",
         _cache("llama-2-7b", 1, 2048, dtype="bfloat16", **RESID)),
    Case(SAE8, 16, 24, "a standard SAE on GPT-2's residual stream with SAELens",
         _sae(8 * 768, **GPT2_HOOK),
         "6144 features are 9 M parameters: with Adam, activations and GPT-2 behind them they take less than 3 GiB"),
    Case(SAE32, 24, 40, "a standard SAE on GPT-2's residual stream with SAELens",
         _sae(32 * 768, **GPT2_HOOK),
         "38 M parameters and 4096 tokens a step; the guide counts a batch of whole sequences as one step"),
    Case(SAE32, 24, 40, "a gated SAE in steps of 16384 tokens, activations from disk",
         _sae(32 * 768, d_in=768, architecture="gated", train_batch_size_tokens=16384)),
    Case(SAE4096, 40, 80, "a standard SAE on Llama-2-7B (float32) with SAELens", _sae(8 * 4096, **LLAMA_HOOK)),
    Case(SAE4096, 40, 80, "the same with Llama-2-7B in bfloat16",
         _sae(8 * 4096, model_dtype="bfloat16", **LLAMA_HOOK),
         "the language model behind the store is most of it, and half as large in bfloat16"),
    Case(SAE4096, 40, 80, "the same with activations from disk", _sae(8 * 4096, d_in=4096),
         "without the language model 268 M parameters with Adam remain"),
)  # fmt: skip

# "Full activation caching: depends on seq length; add 50 % to model memory": device memory by weights, Pythia-2.8B.
LENGTHS = (128, 512, 1024, 2048)


@cache
def _answer(index: int) -> Recommendation:
    return recommend(parse_workload(CASES[index].workload))


@cache
def _factor(seq_len: int) -> float:
    """Device memory over the weights' for a full cache of Pythia-2.8B, one sequence, float32."""
    result = recommend(parse_workload(_cache("pythia-2.8b", 1, seq_len))).estimate
    return result.peak.device / sum(c.bytes for c in result.components if c.name == "weights")


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: f"{CASES[i].guide}: {CASES[i].words}")
def test_where_we_differ_the_table_says_why(index: int) -> None:
    case, answer = CASES[index], _answer(index)
    smallest = answer.advice.gpus[0]
    sizes = [card.sold_as_gb for card in all_gpus() if card.advised and card.usable_bytes == smallest.usable_bytes]
    agrees = case.minimum_gb in sizes
    assert agrees == (case.why == ""), f"{smallest.name} of {sizes} GB: {case.why or 'a reason is missing'}"
    on_it = estimate(parse_workload(case.workload), BY_ID[smallest.gpu_id].compute_capability)
    assert smallest.usable_bytes >= on_it.range.high, "green must mean that it runs"


def test_every_row_of_the_guide_is_answered() -> None:
    assert {case.guide for case in CASES} == {SMALL, LARGE, SEVEN, SAE8, SAE32, SAE4096}
    for guide in {case.guide for case in CASES}:
        assert len({(case.minimum_gb, case.recommended_gb) for case in CASES if case.guide == guide}) == 1


def test_half_as_much_again_is_no_rule_for_a_full_cache() -> None:
    factors = [_factor(seq_len) for seq_len in LENGTHS]
    assert factors == sorted(factors)
    assert factors[0] < 1.5 < factors[2], "one and a half times the model holds for one length only"
    assert factors[-1] > 5


def rendered() -> str:
    """The page, from the table above and the answers."""
    lines = [
        "# A GPU guide, row by row",
        "",
        "A rule of thumb names a card for a model. What a run takes depends on more: library, dtype, tokens at once,",
        "what is cached. For each row of a guide of that kind: workloads that it may mean, the smallest card of the",
        "table that holds the upper end of our estimate, what the run takes there, and why that is not the guide's",
        "minimum.",
        "",
        "| guide: task | minimum, recommended | workload | needs on that GPU | smallest GPU | why it differs |",
        "|---|---|---|---|---|---|",
    ]
    for index, case in enumerate(CASES):
        answer = _answer(index)
        gpu = answer.advice.gpus[0]
        size = BY_ID[gpu.gpu_id].sold_as_gb
        on_it = estimate(parse_workload(case.workload), BY_ID[gpu.gpu_id].compute_capability)
        peak, high = on_it.peak.device, on_it.range.high
        lines.append(
            f"| {case.guide} | {case.minimum_gb} GB, {case.recommended_gb} GB | {case.words} | "
            f"{gib(peak)}, at most {gib(high)} | {gpu.name} ({size:g} GB) | {case.why or 'it does not'} |"
        )
    factors = ", ".join(f"{_factor(seq_len):.1f} times at {seq_len} tokens" for seq_len in LENGTHS)
    lines += [
        "",
        "The guide's last row says to add 50 % to the model for full activation caching. For one sequence of",
        f"Pythia-2.8B in float32 the card holds {factors}: the attention pattern grows with the square of the length.",
        "",
        "Times and costs of these runs come with `compute-awareness recommend`; only those of an H100 were measured.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def test_the_page_is_this_table() -> None:
    assert DOC.read_text(encoding="utf-8") == rendered(), "run python tests/advice/test_brief_guide.py"


if __name__ == "__main__":
    DOC.write_text(rendered(), encoding="utf-8")
