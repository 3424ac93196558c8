"""What every operator reads and writes, and how many are started, against the bounds that the time's range rests on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest
import test_sae_training as saes
import torch
from builders import hf_model, hooked_transformer, quiet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compute_awareness.models.catalogue import find
from compute_awareness.runtime import training
from compute_awareness.runtime.duration import AGAIN
from compute_awareness.runtime.flops import Shape, forward
from compute_awareness.runtime.sae import Step
from compute_awareness.runtime.work import Work

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LAYERS = 4


class _Operators(TorchDispatchMode):
    """Counts the operators that return something else than a view, and the bytes of their operands and results."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not func.is_view and func.overloadpacket not in (torch.ops.aten.empty, torch.ops.aten.detach):
            self.kernels += 1
            if func.overloadpacket is torch.ops.aten.embedding:  # reads as many rows as it makes
                given = made
            self.moved += sum(t.numel() * t.element_size() for t in (*given, *made))
        return out


def watched(run: Callable[[], Any]) -> _Operators:
    with _Operators() as operators, quiet():
        run()
    return operators


def _within(real: _Operators, work: Work) -> None:
    """At least what we say moves at the least; at most what the high end of the time's range counts."""
    weights = work.moved - work.activations
    most = work.moved + AGAIN["activations"] * work.activations + AGAIN["weights"] * weights
    assert work.moved <= real.moved <= most
    assert work.kernels / 3 <= real.kernels <= 3 * work.kernels


@pytest.mark.parametrize("library", ["transformer_lens", "transformers"])
@pytest.mark.parametrize("name", ["gpt2", "pythia-160m", "llama-3.2-1b", "gemma-2-2b"])
def test_a_language_model(name: str, library: str) -> None:
    found = find(name)
    assert found is not None
    spec = found.model_copy(update={"n_layers": LAYERS})
    for b, s in ((4, 512), (1, 128)):
        ids = torch.zeros(b, s, dtype=torch.long, device="meta")
        hugging_face = library == "transformers"
        model = hf_model(spec, attention="eager") if hugging_face else hooked_transformer(spec)
        mask = {"use_cache": False, "attention_mask": torch.zeros(b, 1, s, s, device="meta")} if hugging_face else {}

        def logits(model: Any = model, ids: Any = ids, mask: Any = mask) -> torch.Tensor:
            out = model(ids, **mask)
            return getattr(out, "logits", out)

        with torch.no_grad():
            _within(watched(logits), forward(spec, Shape(b, s)))
        trained = watched(lambda logits=logits: logits().log_softmax(-1).mean().backward())
        _within(trained, training.step(spec, Shape(b, s)))


@pytest.mark.parametrize("architecture", saes.NAMES)
def test_an_sae_step(architecture: str) -> None:
    d_in, d_sae, batch, iterations = 256, 2048, 512, 8
    sae = saes.build_sae(architecture, d_in, d_sae, iterations)
    trainer = saes.trainer_of(sae, saes.fresh_batches(batch, d_in), batch, 1)

    def fit() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit()

    step = Step(
        architecture, d_in, d_sae, batch, saes.matryoshka(architecture, d_sae),
        iterations if architecture == "matching_pursuit" else 0,
    )  # fmt: skip
    adam = training.optimizer_step("adam", [(2 * d_in * d_sae, 4)], 16 * d_in * d_sae)
    _within(watched(fit), step.in_saelens() + adam)
