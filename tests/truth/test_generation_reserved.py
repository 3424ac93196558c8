"""What generation reserves on a card, held against the simulated allocator over what the real `generate` asks for.

The order of allocations on a card is the order of the library's calls, so it is recorded on the CPU: every storage that
an operator returns, and when it goes. cuBLAS takes its workspace with the first product of a linear layer (seen on an
H100). Wide enough here that keys and activations come from large segments.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from builders import held_tensors, hf_model, hooked_transformer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from meters import Measured
from test_generation import grouped_in_float32, hf_generate, inline, small, tl_generate, without_math_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compute_awareness.estimates.generation import generation
from compute_awareness.memory import parameters
from compute_awareness.memory.card.allocator import simulate
from compute_awareness.memory.huggingface.forward import supports_sdpa
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import DTYPE_BYTES
from compute_awareness.workload.generation import Generation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DRAWN = settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=tuple(HealthCheck),
    phases=[Phase.generate],  # a failure takes long to shrink
)
MIB = 1024 * 1024
NAMES = ("gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "opt-125m", "phi-2", "bloom-560m", "gpt-j-6b")


class Recorded(TorchDispatchMode):
    """What a run asks an allocator for, as `simulate` takes it; the tensors that are there before come first."""

    def __init__(self, standing: Sequence[int], baseline: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.requests = list(standing)
        self._made = len(self.requests)
        self._alive: dict[int, tuple[int, Any]] = {_key(tensor): (-1, None) for tensor in baseline}
        self._workspaces = {torch.ops.aten.mm.default: [32 * MIB], torch.ops.aten.addmm.default: [32 * MIB, MIB]}

    def _ask(self, nbytes: int) -> int:
        self.requests.append(nbytes)
        self._made += 1
        return self._made - 1

    def _see(self, tensor: torch.Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            number, _ = self._alive.pop(key)
            self.requests.append(~number)

        self._alive[key] = self._ask(storage.nbytes()), weakref.ref(storage, gone)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        if func in self._workspaces:
            for nbytes in self._workspaces[func]:
                self._ask(nbytes)
            self._workspaces = {}
        return out


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def wide(name: str) -> ModelSpec:
    """The model at widths whose keys are some MiB for a few hundred tokens."""
    spec = small(name, n_layers=3)
    shape: dict[str, Any] = {
        "name": f"{name}-wide", "d_head": 64, "d_model": 64 * spec.n_heads, "d_mlp": 256 * spec.n_heads,
        "d_vocab": 8192, "window": 160 if spec.window else None,
    }  # fmt: skip
    if spec.rotary_dim:
        shape["rotary_dim"] = 4 * spec.rotary_dim
    return spec.model_copy(update=shape)


def recorded(generate: Any, model: Any, w: Generation, standing: Sequence[int]) -> list[int]:
    """What the real `generate` asks for after the model's tensors."""

    def meter(run: Any) -> Measured:
        mode = Recorded(standing, held_tensors(model))
        with mode:
            run()
        return Measured(0, mode.requests)

    return generate(model, w, meter).result


@pytest.mark.parametrize("name", NAMES)
def test_transformers(name: str) -> None:
    spec = wide(name)
    # Where queries lie with heads outermost, fused kernels of CPU and CUDA lay out their output differently.
    fused = supports_sdpa(spec.architecture) and name not in ("pythia-160m", "phi-2")
    attentions = ["sdpa", "eager"] if fused else ["eager"]
    models: dict[Any, Any] = {
        (dtype, attention): hf_model(spec, "cpu", dtype, attention)
        for dtype, attention in [("float32", attentions[0]), ("bfloat16", attentions[-1])]
    }

    @DRAWN
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        pick = data.draw
        (dtype, attention), model = pick(st.sampled_from(list(models.items())))
        w = Generation(
            model=inline(spec), batch_size=pick(st.sampled_from([9, 16, 5, 1])), seq_len=pick(st.integers(70, 180)),
            new_tokens=pick(st.sampled_from([13, 2, 21, 1])), dtype=dtype, attention=attention,
            kv_cache=pick(st.sampled_from([True, False])),
        )  # fmt: skip
        ours = without_math_kernel(w) if grouped_in_float32(spec, w) else generation(w, None)
        standing = parameters.hf_tensors(spec, DTYPE_BYTES[dtype])
        real = simulate(recorded(hf_generate, model, w, standing)).peak_reserved
        error = ours.peak.reserved - real
        assert abs(error) <= 0.02 * real + 2 * MIB, (w.model_dump(exclude={"model"}), real, error)

    compare()


@pytest.mark.parametrize("name", ["gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "opt-125m"])
def test_hooked_transformer(name: str) -> None:
    spec = wide(name)
    models: dict[Any, Any] = {dtype: hooked_transformer(spec, "cpu", dtype) for dtype in ("float32", "bfloat16")}

    @DRAWN
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        pick = data.draw
        dtype = pick(st.sampled_from(list(models)))
        w = Generation(
            library="transformer_lens", model=inline(spec), batch_size=pick(st.sampled_from([9, 16, 5, 1])),
            seq_len=pick(st.integers(70, 180)), new_tokens=pick(st.sampled_from([13, 2, 21, 1])), dtype=dtype,
        )  # fmt: skip
        standing = parameters.tl_tensors(spec, DTYPE_BYTES[dtype])
        real = simulate(recorded(tl_generate, models[dtype], w, standing)).peak_reserved
        error = generation(w, None).peak.reserved - real
        assert abs(error) <= 0.02 * real + 2 * MIB, (w.model_dump(exclude={"model"}), real, error)

    compare()
