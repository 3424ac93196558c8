"""Measure what the trainers of dictionary_learning allocate, and write tests/truth/data/dictionary_learning.json.

The tests run without the package: it pins an nnsight that current ones of the rest do not go with. Run this in an
environment that has it (dictionary-learning, its nnsight, torch):

    python tools/measure_dictionary_learning.py

What it measures is real: `update()` of real trainers on the CPU, live bytes from the allocator's events, as
tests/truth/meters.py reads them. Adam's foreach is forced, because torch chooses it on CUDA.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "truth" / "data" / "dictionary_learning.json"
sys.path[:0] = [str(ROOT / "tests" / "truth")]

import meters  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from dictionary_learning import trainers  # noqa: E402  # pyright: ignore[reportMissingImports]
from dictionary_learning.trainers.matryoshka_batch_top_k import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    MatryoshkaBatchTopKTrainer,
)

TRAINERS: dict[str, Any] = {
    "standard": trainers.StandardTrainer, "topk": trainers.TopKTrainer, "batchtopk": trainers.BatchTopKTrainer,
    "jumprelu": trainers.JumpReluTrainer, "gated": trainers.GatedSAETrainer,
    "matryoshka_batchtopk": MatryoshkaBatchTopKTrainer,
}  # fmt: skip
TOP_K = ("topk", "batchtopk", "matryoshka_batchtopk")
# d_in, d_sae, k, batch: the step's peak in the activations, in the weights, and between
SHAPES = [(64, 1024, 32, 1024), (256, 1024, 60, 4), (384, 128, 16, 1024), (96, 608, 7, 301), (128, 2048, 20, 96)]
FRACTIONS = [0.125, 0.375, 0.5]
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


def step(name: str, d_in: int, d_sae: int, k: int, batch: int, *, n_saes: int = 1, dead: bool = False) -> int:
    """Peak of update() on `n_saes` trainers in turn, the second round of it."""
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

    return before + meters.profiler_peak(rounds).bytes


def main() -> None:
    rows = []
    for name in TRAINERS:
        for d_in, d_sae, k, batch in SHAPES:
            for n_saes, dead in ((1, False), (1, True), (3, False)):
                if (dead and name not in TOP_K) or (n_saes > 1 and (d_in, batch) not in ((256, 4), (64, 1024))):
                    continue
                peak = step(name, d_in, d_sae, k, batch, n_saes=n_saes, dead=dead)
                rows.append(
                    {"architecture": name, "d_in": d_in, "d_sae": d_sae, "k": k, "batch": batch, "n_saes": n_saes,
                     "dead": dead, "peak": peak}
                )  # fmt: skip
    versions = {name: version(name) for name in ("dictionary-learning", "nnsight", "torch")}
    lines = ",\n".join(json.dumps(row) for row in rows)
    DATA.write_text(f'{{"versions": {json.dumps(versions)},\n"steps": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
