"""Weights offloaded by accelerate's own hooks: what is on the card meanwhile, against the played pass.

The card is the CPU. There a copy to the card is none, so what holds the weights gives out copies, as the bus would; the
meter sees each of them until the hook lets it go. A disk is one: the weights are written, and read module by module.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload
from accelerate.utils.offload import OffloadedWeightsLoader
from builders import held_tensors, hf_model, quiet
from hooked_models import inline
from judge import judge
from meters import Card, distinct_bytes
from offloading import Bus
from pydantic import ValidationError
from test_transformers_inference import WIDTH, attentions
from test_transformers_training import NAMES, small

from compute_awareness.advice.attempt import patched
from compute_awareness.advice.changes_further import further
from compute_awareness.advice.code import parts
from compute_awareness.advice.place import Place
from compute_awareness.advice.solver import combinations
from compute_awareness.advice.strategies import changes
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.errors import InputError
from compute_awareness.estimates import transformers_pass
from compute_awareness.estimator import estimate
from compute_awareness.memory import weights
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.huggingface.forward import keeping
from compute_awareness.memory.huggingface.offload import visiting
from compute_awareness.memory.huggingface.outputs import layout, select
from compute_awareness.memory.huggingface.placement import all_of, waiting, weights_of
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import AnyWorkload, Inference, parse_workload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def check(
    spec: ModelSpec, model: Any, attention: Any, b: int, s: int, kept: tuple[str, ...] = (), dtype: str = "float32"
) -> None:
    width = WIDTH[dtype]
    keeps = select(spec, kept, None, False).keeps if kept else None
    played = keeping(spec, b, s, width, attention, True, False, keeps, waiting(spec, width, all_of(spec, "cpu")))
    cache: dict[str, torch.Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if name in kept:
            handles.append(module.register_forward_hook(lambda m, a, out, name=name: cache.update({name: _first(out)})))
    ids = torch.zeros(b, s, dtype=torch.long)
    standing = [t for t in held_tensors(model) if t.device.type != "meta"]
    with torch.no_grad(), Card(1 << 60, [*standing, ids]) as card:  # what is on meta is not on the card
        output = model(ids)
    for handle in handles:
        handle.remove()
    assert output.logits.shape == (b, s, spec.d_vocab) and len(cache) == len(kept)
    fixed = distinct_bytes([*standing, ids])
    judge(
        "transformers", transformers.__version__, "inference_offload", spec.architecture, f"{dtype} {attention}",
        played.tape.peak - distinct_bytes([ids]) + fixed, card.peak, 0.005,
        (spec.name, b, s, card.peak_op, card.at_peak()[:6]),
    )  # fmt: skip


def offloaded(spec: ModelSpec, dtype: str, attention: str) -> tuple[Any, Bus]:
    with quiet():
        model = hf_model(spec, "cpu", dtype, attention)
        bus = Bus(model.state_dict())
        cpu_offload(model, execution_device=torch.device("cpu"), state_dict=bus)
    return model, bus


@pytest.mark.parametrize("name", NAMES)
def test_one_modules_weights_at_a_time(name: str) -> None:
    """A vocabulary that makes the head the worst moment, and one that makes a layer so; short and long."""
    for vocabulary in (503, 5000):
        spec = small(name, 3, d_vocab=vocabulary)
        for attention in attentions(spec):
            model, bus = offloaded(spec, "float32", attention)
            for b, s in ((1, 2), (2, 40), (1, 120)):
                bus.crossed = 0
                check(spec, model, attention, b, s)
                assert bus.crossed == weights_of(spec, 4, all_of(spec, "cpu"), 4).crossing["cpu"]


@pytest.mark.parametrize("name", NAMES)
def test_one_modules_weights_in_16_bits(name: str) -> None:
    spec = small(name, 3, d_vocab=2000)
    for attention in attentions(spec):
        model, bus = offloaded(spec, "bfloat16", attention)
        check(spec, model, attention, 2, 40, dtype="bfloat16")
        assert bus.crossed == weights_of(spec, 2, all_of(spec, "cpu"), 2).crossing["cpu"]


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "gemma-2-2b", "olmo-1b", "gpt-j-6b", "bloom-560m"])
def test_in_16_bits_and_with_activations_kept(name: str) -> None:
    spec = small(name, 3, d_vocab=2000)
    known = layout(spec)
    kept = (f"{known.layers}.0", f"{known.layers}.2", *(path for path, role in known.ends.items() if role == "norm"))
    for dtype in ("float32", "bfloat16"):
        model, _ = offloaded(spec, dtype, "eager")
        for s in (2, 64):
            check(spec, model, "eager", 2, s, kept, dtype)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weights that were read from disk."""
    names: list[str] = []
    original = OffloadedWeightsLoader.__getitem__

    def reading(self: OffloadedWeightsLoader, name: str) -> torch.Tensor:
        names.append(name)
        return original(self, name)

    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", reading)
    return names


def on_disk(spec: ModelSpec, folder: Path, stored: str = "float32") -> Any:
    """The model of the advice's own code, which transformers loads from real files in `stored`."""
    with quiet():
        hf_model(spec, "cpu", stored, "eager").save_pretrained(folder / "model")
    workload = Inference(model=inline(spec), library="transformers", attention="eager", batch_size=2, offload="disk")
    code = parts(workload, workload, device="cpu")["load"]
    code = code.replace('offload_folder="offload"', f'offload_folder="{(folder / "offload").as_posix()}"')

    def from_pretrained(_: str, **given: Any) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(folder / "model", **given)

    scope: dict[str, Any] = {"torch": torch, "AutoModelForCausalLM": SimpleNamespace(from_pretrained=from_pretrained)}
    with quiet():
        exec(compile(code, "<advice>", "exec"), scope)
    return scope["model"]


@pytest.mark.parametrize(
    "name", ["gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "olmo-1b", "gpt-j-6b", "opt-125m", "bloom-560m"]
)
def test_the_code_that_offloads_to_disk(name: str, tmp_path: Path, read: list[str]) -> None:
    """What is read from a file is a storage of its own, which the meter sees until the hook lets it go."""
    spec = small(name, 3, d_vocab=2000)
    model = on_disk(spec, tmp_path)
    waiting = {name for name, tensor in model.named_parameters() if tensor.device.type == "meta"}
    staying = [tensor for tensor in model.parameters() if tensor.device.type != "meta"]
    assert distinct_bytes(staying) == 4 * weights.norm_params(spec, spec.d_model)
    for s in (2, 64):
        read.clear()
        check(spec, model, "eager", 2, s)
        assert waiting <= {*read}


def test_weights_on_disk_are_converted_on_the_card(tmp_path: Path) -> None:
    """Both dtypes of one tensor at once; the estimate has both of a module's, beside its output too."""
    spec = small("llama-3-8b", 3, d_vocab=2000)
    model = on_disk(spec, tmp_path, "bfloat16")
    ids = torch.zeros(2, 16, dtype=torch.long)
    fixed = [tensor for tensor in held_tensors(model) if tensor.device.type != "meta"]
    with torch.no_grad(), Card(1 << 60, [*fixed, ids]) as card:
        model(ids)
    played = keeping(spec, 2, 16, 4, "eager", True, False, None, waiting(spec, 4, all_of(spec, "disk"), 2))
    ours = played.tape.peak + distinct_bytes(fixed)
    logits = 4 * 2 * 16 * spec.d_vocab
    assert card.peak <= ours <= card.peak + logits
    converted = visiting(spec, 4, 2)["lm_head"] - visiting(spec, 4)["lm_head"]
    assert card.peak > ours - converted, "the copy in the file's dtype is on the card"


def answer(**given: Any) -> Estimate:
    fields = {"model": "pythia-2.8b", "library": "transformers", "attention": "eager", "batch_size": 1, "seq_len": 64}
    return estimate(parse_workload({"task": "inference"} | fields | given), "8.0")


def test_an_estimate_is_called_what_offloading_has_earned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformers_pass, "earned", lambda library, task, *_: "rough" if "offload" in task else "exact"
    )
    assert answer(offload="cpu").precision == "rough"
    assert answer().precision == "exact"


def test_an_estimate_says_where_the_weights_are() -> None:
    spec = resolve("pythia-2.8b")
    whole, in_ram, disk = answer(), answer(offload="cpu"), answer(offload="disk")
    held = 4 * weights.hf_params(spec)
    head = 4 * spec.d_vocab * spec.d_model
    assert in_ram.precision == "exact" and disk.precision == "close"  # stored in float16, converted on the card
    assert next(c.bytes for c in in_ram.components if c.name == "weights" and c.where == "device") == head
    assert next(c.bytes for c in in_ram.components if c.where == "host") == in_ram.host_bytes == held
    assert head < in_ram.peak.tensors < whole.peak.tensors - held + 2 * head < disk.peak.tensors + head
    assert in_ram.loading_device_bytes < 2**20 and in_ram.loading_host_bytes == whole.loading_host_bytes
    assert disk.host_bytes == 0 and disk.loading_host_bytes < whole.loading_host_bytes / 10
    assert sum(c.bytes_at_peak for c in in_ram.components if c.where == "device") == in_ram.peak.tensors
    last_norm = 4 * weights.norm_params(spec, spec.d_model)  # stays on the card where the rest is on disk
    assert in_ram.work[0].crossing_bytes == held == 2 * disk.work[0].crossing_bytes + last_norm
    assert in_ram.time and whole.time and in_ram.time.high - whole.time.high == pytest.approx(held / 3e9)
    assert "GB/s from cpu (assumed)" in in_ram.time.basis and "assumed)" not in whole.time.basis
    kept = answer(task="activation_cache", offload="cpu", cache_device="cpu")
    assert kept.host_bytes == held + sum(family.bytes for family in kept.hooks)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"library": "transformer_lens"}, "offload is of transformers"),
        ({"library": "nnsight"}, "offload is of transformers"),
        ({"n_devices": 2}, "n_devices 2 is not covered"),
        ({"quantization": "fp8"}, "quantised"),
        ({"task": "activation_cache", "with_gradients": True}, "autograd would keep every weight"),
        ({"method": "trace"}, "offload"),
        ({"offload": "nvme"}, "cpu"),
    ],
)
def test_what_is_not_covered_says_why(given: dict[str, Any], words: str) -> None:
    given = {"offload": "cpu", "attention": None} | given
    with pytest.raises((ValidationError, InputError), match=words):
        answer(**given)


def least_that_fits(workload: AnyWorkload, ram: int) -> int:
    """Free bytes of the smallest card that the workload is green on, to a MiB."""
    made, least, enough = estimate(workload, "8.0"), 0, 16 << 10
    while enough - least > 1:
        middle = (least + enough) // 2
        fits = verdict_at(made, Place("gpu", "a card", middle << 20, "8.0", host_free_bytes=ram)).status == "fits"
        least, enough = (least, middle) if fits else (middle, enough)
    return enough << 20


def test_it_is_offered_where_the_ram_holds_the_weights_and_else_the_disk() -> None:
    """All of them on a card that has no room for the embedding beside the rest; on a larger one as many as must."""
    workload = parse_workload({"task": "inference", "model": "pythia-2.8b", "library": "transformers", "seq_len": 64})
    held = answer(offload="cpu").host_bytes
    for ram, wanted in ((2 * held, "cpu"), (held // 2, "disk")):
        for free in (least_that_fits(patched(workload, {"offload": wanted}), ram), 6 << 30):
            place = Place("gpu", "a card", free, "8.0", host_free_bytes=ram)
            best = combinations(workload, estimate(workload, "8.0"), place)[0]
            if free < 3 << 30:
                assert best.patch.get("offload") == wanted or best.title.startswith("0 of 32 layers"), best.title
            else:
                assert ("cpu" in best.patch["max_memory"]) == (wanted == "cpu")
            assert best.effect == "equivalent" and best.slowdown > 2
            assert verdict_at(estimate(patched(workload, best.patch), "8.0"), place).status == "fits"
    on_cpu = Place("cpu", "the CPU", held // 2, host_free_bytes=held // 2)
    tried = [*changes(workload, estimate(workload), on_cpu), *further(workload, estimate(workload), on_cpu)]
    assert not [change for change in tried if {"offload", "max_memory"} & {*change.patch}]
