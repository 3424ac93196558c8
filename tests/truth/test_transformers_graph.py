"""A transformers pass without torch.no_grad(): the played graph against the real model, with forward hooks on modules.

Real widths on the meta device, in float32 and bfloat16 (where the CPU's matrix products allocate scratch that CUDA has
not); narrow models on the CPU, where the allocator's own events are counted.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from builders import held_tensors, quiet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge
from meters import Measured, distinct_bytes, measure_peak, profiler_peak
from test_transformers_inference import attentions, spec_of
from test_transformers_outputs import WIDTH, as_on_a_real_device, meta_model, paths_of, run
from test_transformers_training import NAMES, model_of, small

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory.huggingface.forward import Keeps
from compute_awareness.memory.huggingface.graph_pass import keeping_graph, play_anew
from compute_awareness.memory.huggingface.outputs import layout, select
from compute_awareness.models import catalogue
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import ActivationCache

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VERSION = transformers.__version__


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    """One thread, whose scratch is played; and garbage of the imports need not be looked at every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    meta_model.cache_clear()
    model_of.cache_clear()
    torch.set_num_threads(before)


def compare(
    spec: ModelSpec, measured: Measured, tokens: int, b: int, s: int, dtype: str, attention: Any, kv_cache: bool,
    keeps: Keeps, cpu: bool,
) -> None:  # fmt: skip
    """Peak, what is left with the caller, and what the hooks kept of it. Scalars that a graph saves are not played.

    CUDA has an attention kernel of its own for float32 and masks, which neither the CPU nor the meta device runs.
    """
    shape = spec, b, s, WIDTH[dtype]
    played = keeping_graph(*shape, attention, kv_cache, False, keeps, cpu=cpu, flash_only=True)
    tape, truth = played.tape, measured.bytes + tokens
    case = (spec.name, spec.n_layers, dtype, attention, kv_cache, b, s, keeps, measured.peak_op)
    judge(
        "transformers", VERSION, "activation_cache", spec.architecture, f"{attention} {dtype} graph", tape.peak, truth,
        0.0005 + 64 / truth, case,
    )  # fmt: skip
    scalars = 64 * spec.n_layers
    assert -scalars <= tape.live - measured.left - tokens <= 0, f"left {tape.live} != {measured.left + tokens}: {case}"
    assert sum(tape.at_peak.values()) == tape.peak
    kept = [] if keeps.on_host else measured.result[1]
    assert tape.by_component["activation_cache"] == distinct_bytes(kept), case
    if "lm_head" not in keeps.ends:
        assert tape.by_component["logits"] == WIDTH[dtype] * b * s * spec.d_vocab


def on_meta(
    name: str, n_layers: int, b: int, s: int, dtype: str, attention: Any, kv_cache: bool, globs: list[str] | None,
    layers: list[int] | None = None,
) -> None:  # fmt: skip
    spec = spec_of(name, n_layers)
    model = meta_model(name, n_layers, dtype, attention)
    ids = torch.zeros(b, s, dtype=torch.long, device="meta")
    known = layout(spec)
    if globs is None:
        inside, ends = [""], list[str]()
        chosen = select(spec, None, layers, False)
    else:
        inside, ends = [g for g in globs if g in known.inside], [g for g in globs if g in known.ends]
        paths = [".".join(filter(None, (known.layers, "*", local))) for local in inside]
        chosen = select(spec, paths + ends, layers, False)
    hooked = paths_of(spec, sorted(layers) if layers is not None else list(range(n_layers)), inside)
    hooked += ends if layers is None else []
    with torch.enable_grad(), as_on_a_real_device(attention == "sdpa"):
        measured = measure_peak(lambda: run(model, ids, hooked, kv_cache), [*held_tensors(model), ids])
    compare(spec, measured, distinct_bytes([ids]), b, s, dtype, attention, kv_cache, chosen.keeps, cpu=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_family(name: str) -> None:
    """A hook on every layer, as it is kept by default."""
    for attention in attentions(spec_of(name, 3)):
        for dtype, b, s, kv_cache in (("float32", 2, 90, True), ("bfloat16", 1, 200, False)):
            on_meta(name, 3, b, s, dtype, attention, kv_cache, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_the_tables(name: str) -> None:
    """Hooks on all modules that return a tensor of their own: the roles are those of the pass without gradients."""
    known = layout(spec_of(name, 2))
    on_meta(name, 2, 2, 9, "float32", "eager", True, [*known.inside, *known.ends])


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_hooks(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    n = data.draw(st.sampled_from((1, 4)))
    known = layout(spec_of(name, n))
    attention = data.draw(st.sampled_from(attentions(spec_of(name, n))))
    globs = data.draw(st.lists(st.sampled_from(sorted(known.inside)), min_size=1, max_size=4, unique=True))
    globs += data.draw(st.lists(st.sampled_from(sorted(known.ends)), max_size=2, unique=True))
    layers = data.draw(st.one_of(st.none(), st.lists(st.integers(0, n - 1), min_size=1, unique=True)))
    b, s = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 150))
    dtype, kv_cache = data.draw(st.sampled_from(sorted(WIDTH))), data.draw(st.booleans())
    on_meta(name, n, b, s, dtype, attention, kv_cache, globs, layers)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_cpu(name: str) -> None:
    """Real tensors and the allocator's events, hooks that keep and hooks that copy to the host."""
    spec = small(name, 3)
    for attention in attentions(spec):
        model = model_of(name, 3, "float32", attention).eval()
        for on_host in (False, True):
            chosen = select(spec, None, None, on_host)
            paths = [] if on_host else paths_of(spec, [0, 1, 2], [""])

            def once(model: Any = model, paths: list[str] = paths) -> tuple[Any, list[torch.Tensor], torch.Tensor]:
                tokens = torch.zeros(2, 60, dtype=torch.long)
                return (*run(model, tokens, paths, True), tokens)

            with quiet():
                once()
                measured = profiler_peak(once)
            compare(spec, measured, 0, 2, 60, "float32", attention, True, chosen.keeps, cpu=True)
        model.train()


def made(**changes: Any) -> Any:
    given: dict[str, Any] = {"model": "gpt2", "library": "transformers", "batch_size": 2, "seq_len": 64}
    return estimate(ActivationCache(**(given | changes)))


def test_estimates() -> None:
    """The graph is counted beside what is kept, and the answer says what it hangs on."""
    plain, graph = made(), made(with_gradients=True)

    def of(result: Any, name: str) -> int:
        return sum(c.bytes for c in result.components if c.name == name and c.where == "device")

    assert of(graph, "activation_cache") == of(plain, "activation_cache") == 12 * 4 * 2 * 64 * 768
    assert of(graph, "activations") > 3 * of(plain, "activation_cache")
    assert sum(c.bytes_at_peak for c in graph.components if c.where == "device") == graph.peak.tensors
    assert any("autograd graph" in text for text in graph.assumptions)
    assert any("torch.no_grad()" in text for text in plain.assumptions)
    host = made(with_gradients=True, cache_device="cpu")
    assert host.host_bytes == of(plain, "activation_cache")
    assert host.peak.tensors > graph.peak.tensors - of(graph, "activation_cache")
    assert any("detach()" in warning for warning in host.warnings)
    deep = made(model="llama-3.1-405b", seq_len=8, with_gradients=True, dtype="bfloat16")
    assert deep.peak.tensors > made(model="llama-3.1-405b", seq_len=8, dtype="bfloat16").peak.tensors


def test_what_is_refused() -> None:
    spec = catalogue.find("llama-3-8b")
    assert spec is not None
    numbers = spec.model_dump(exclude_none=True, exclude={"source", "checkpoint"})
    with pytest.raises(InputError, match="with_gradients: not covered yet for a quantised model"):
        made(model=numbers | {"quantization": "bitsandbytes_4bit"}, with_gradients=True)
    with pytest.raises(InputError, match="has no sdpa"):
        made(model="bloom-560m", attention="sdpa", with_gradients=True)


def test_the_graph_goes_with_what_holds_it() -> None:
    """What the played pass hands out holds the graph; let go of, nothing is left on the tape."""
    spec = small("gpt2", 4)
    played = play_anew(spec, 1, 8, 4, "eager", True, False, Keeps([frozenset()] * 4), cpu=False)
    tape = played.tape
    assert tape.live > 0
    del played
    assert tape.live == 0
