"""Weights partly on the card: where transformers' own `device_map="auto"` puts them, and what runs then.

Placement is compared on the meta device over drawn limits. Runs are transformers' own `from_pretrained` with
`max_memory`, the CPU standing for the card (`offloading`), under the meter of live tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import transformers
from builders import held_tensors, hf_config, hf_model, quiet
from hooked_models import inline
from judge import judge
from meters import Card, distinct_bytes
from offloading import Bus, ram_beside_the_card
from pydantic import ValidationError
from test_transformers_inference import WIDTH, attentions
from test_transformers_training import NAMES, small
from transformers.integrations.accelerate import _get_device_map

from compute_awareness.advice.attempt import patched
from compute_awareness.advice.place import Place
from compute_awareness.advice.solver import combinations
from compute_awareness.advice.verdict import verdict_at
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.memory import weights
from compute_awareness.memory.huggingface.forward import keeping
from compute_awareness.memory.huggingface.outputs import layout, select
from compute_awareness.memory.huggingface.placement import Placement, room_for, waiting, weights_of, within
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import Inference, parse_workload
from compute_awareness.workload.max_memory import memory_bytes, size_between

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LAYERS = 5
PLENTY = 10**12


def placed_by_transformers(model: Any, spec: ModelSpec, card: int, ram: int | None) -> Placement | None:
    """Its own device_map; None where nothing is on the card."""
    limits: dict[Any, Any] = {0: card} | ({} if ram is None else {"cpu": ram})
    with quiet():
        found = _get_device_map(model, "auto", limits, None)
    if 0 not in found.values():
        return None
    known = layout(spec)

    def where(path: str) -> Any:
        device = found[max((name for name in found if f"{path}.".startswith(f"{name}.") or not name), key=len)]
        return "card" if device == 0 else device

    ends = {role: where(path) for path, role in known.ends.items()}
    return Placement(ends, tuple(where(f"{known.layers}.{layer}") for layer in range(spec.n_layers)))


@pytest.mark.parametrize("name", NAMES)
def test_modules_go_where_transformers_puts_them(name: str) -> None:
    draw, partly = Random(name), 0
    for vocabulary, dtype in ((503, "float32"), (503, "bfloat16"), (5000, "float32")):
        spec, width = small(name, LAYERS, d_vocab=vocabulary), WIDTH[dtype]
        with quiet(), torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(hf_config(spec), dtype=getattr(torch, dtype))
        total = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        for _ in range(30):
            card = int(draw.uniform(0.02, 1.6) * total)
            ram = draw.choice([None, PLENTY, int(draw.uniform(0.05, 1) * total)])
            theirs = placed_by_transformers(model, spec, card, ram)
            if theirs is None:
                with pytest.raises(InputError, match="no room there for the embedding") as refused:
                    within(spec, width, card, ram)
                enough = int(str(refused.value).split(" bytes)")[0].rsplit("(", 1)[1])
                assert placed_by_transformers(model, spec, enough, ram) is not None
                assert placed_by_transformers(model, spec, enough - 1, ram) is None
                continue
            ours = within(spec, width, card, ram)
            assert ours.layers == theirs.layers, (card, ram)
            held, crossing = ([weights_of(spec, width, p, width).__dict__[k] for p in (ours, theirs)] for k in KINDS)
            assert held[0] == held[1] and crossing[0] == crossing[1], (card, ram, theirs)  # what weighs nothing may lie
            partly += any(crossing[0].values())
    assert partly > 20


KINDS = ("held", "crossing")


@pytest.mark.parametrize("name", NAMES)
def test_the_room_for_so_many_layers(name: str) -> None:
    for vocabulary in (503, 5000):
        spec = small(name, LAYERS, d_vocab=vocabulary)
        for count in range(LAYERS):
            least, too_much = room_for(spec, 4, count)
            if least == too_much:  # room for all but one, and for one beside them, is room for all
                continue
            assert within(spec, 4, least, PLENTY).layers_on_card == count
            assert within(spec, 4, too_much - 1, PLENTY).layers_on_card == count
            assert within(spec, 4, too_much, PLENTY).layers_on_card > count
            held, less = (on_card(spec, room) for room in (least, least - 1))
            assert less < held, "a byte less, and a module less is there"


@pytest.fixture
def beside() -> Iterator[None]:
    with ram_beside_the_card():
        yield


def on_card(spec: ModelSpec, room: int) -> int:
    try:
        return weights_of(spec, 4, within(spec, 4, room, PLENTY), 4).held["card"]
    except InputError:
        return -1


def saved(spec: ModelSpec, folder: Path, dtype: str, attention: str) -> None:
    with quiet():
        hf_model(spec, "cpu", dtype, attention).save_pretrained(folder)


def loaded(folder: Path, card: int, ram: int | None, dtype: str, attention: str) -> Any:
    limits: dict[Any, Any] = {0: card} | ({} if ram is None else {"cpu": ram})
    Bus.last = None
    with quiet():
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention, device_map="auto", max_memory=limits,
            offload_folder=folder / "offload",
        )  # fmt: skip


def check(spec: ModelSpec, model: Any, placement: Placement, attention: Any, dtype: str, b: int, s: int,
          kept: tuple[str, ...] = ()) -> None:  # fmt: skip
    width = WIDTH[dtype]
    keeps = select(spec, kept, None, False).keeps if kept else None
    played = keeping(spec, b, s, width, attention, True, False, keeps, waiting(spec, width, placement))
    cache: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda m, a, out, name=name: cache.update({name: out[0] if isinstance(out, tuple) else out})
        )
        for name, module in model.named_modules()
        if name in kept
    ]
    ids = torch.zeros(b, s, dtype=torch.long)
    standing = [tensor for tensor in held_tensors(model) if tensor.device.type != "meta"]
    with torch.no_grad(), Card(1 << 60, [*standing, ids]) as card:
        output = model(ids)
    for handle in handles:
        handle.remove()
    assert output.logits.shape == (b, s, spec.d_vocab) and len(cache) == len(kept)
    fixed = distinct_bytes(standing)
    on_card = weights_of(spec, width, placement, width).held["card"] + weights.hf_buffer_bytes(spec, width)
    assert fixed == on_card, placement
    judge(
        "transformers", transformers.__version__, "inference_offload", spec.architecture, f"{dtype} {attention}",
        played.tape.peak + on_card, card.peak, 0.005,
        (spec.name, placement, b, s, card.peak_op, card.at_peak()[:6]),
    )  # fmt: skip


def limits(spec: ModelSpec, width: int, draw: Random) -> list[tuple[int, int | None]]:
    """Room for some of the layers: the rest in RAM, on disk, in both."""
    counts = draw.sample(range(LAYERS - 1), 3)
    cards = [draw.randrange(*room_for(spec, width, count)) for count in counts]
    total = width * weights.hf_params(spec) + weights.hf_buffer_bytes(spec, width)
    return [(cards[0], PLENTY), (cards[1], None), (cards[2], int(draw.uniform(0.4, 0.8) * total))]


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("name", NAMES)
def test_part_of_the_weights_waits(name: str, tmp_path: Path) -> None:
    draw = Random(name)
    for vocabulary in (503, 5000):
        spec = small(name, LAYERS, d_vocab=vocabulary)
        for attention in attentions(spec):
            saved(spec, folder := tmp_path / f"{vocabulary} {attention}", "float32", attention)
            for card, ram in limits(spec, 4, draw):
                model = loaded(folder, card, ram, "float32", attention)
                placement = within(spec, 4, card, ram)
                for b, s in ((1, 2), (2, draw.randint(20, 60)), (1, 120)):
                    crossed = Bus.last.crossed if Bus.last else 0
                    check(spec, model, placement, attention, "float32", b, s)
                    crossing = weights_of(spec, 4, placement, 4).crossing["cpu"]
                    assert (Bus.last.crossed if Bus.last else 0) - crossed == crossing


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "gemma-2-2b", "olmo-1b", "gpt-j-6b", "bloom-560m"])
def test_in_16_bits_and_with_activations_kept(name: str, tmp_path: Path) -> None:
    draw, spec = Random(name), small(name, LAYERS, d_vocab=2000)
    known = layout(spec)
    kept = (f"{known.layers}.0", f"{known.layers}.4", *(path for path, role in known.ends.items() if role == "norm"))
    for dtype in ("float32", "bfloat16"):
        saved(spec, folder := tmp_path / dtype, dtype, "eager")
        for card, ram in limits(spec, WIDTH[dtype], draw)[:2]:
            model = loaded(folder, card, ram, dtype, "eager")
            for s in (2, draw.randint(30, 90)):
                check(spec, model, within(spec, WIDTH[dtype], card, ram), "eager", dtype, 2, s, kept)


def answer(**given: Any) -> Any:
    fields = {"model": "pythia-2.8b", "library": "transformers", "attention": "eager", "batch_size": 1, "seq_len": 64}
    return estimate(parse_workload({"task": "inference"} | fields | given), "8.0")


def test_an_estimate_says_what_is_where() -> None:
    whole, waits = answer(), answer(offload="cpu")
    part = answer(max_memory={0: "6GiB", "cpu": "64GiB"})
    on_card = next(c.bytes_at_peak for c in part.components if c.name == "weights" and c.where == "device")
    in_ram = next(c.bytes for c in part.components if c.where == "host")
    total = 4 * weights.hf_params(resolve("pythia-2.8b"))
    assert part.precision == "exact" and part.host_bytes == in_ram == part.loading_host_bytes
    assert waits.peak.tensors < part.peak.tensors < whole.peak.tensors
    assert in_ram < total and on_card < total and part.work[0].crossing_bytes == in_ram
    assert part.loading_device_bytes + in_ram == whole.loading_device_bytes
    assert sum(c.bytes_at_peak for c in part.components if c.where == "device") == part.peak.tensors
    assert part.time and whole.time and part.time.high - whole.time.high == pytest.approx(in_ram / 3e9)
    assert any("of 32 layers on the card" in said for said in part.assumptions)
    assert part.workload["max_memory"] == {"0": "6GiB", "cpu": "64GiB"}
    everything = answer(max_memory={"0": "40GiB", "cpu": "64GiB"})
    assert everything.peak == whole.peak and any("has room for all" in said for said in everything.assumptions)


def test_without_ram_the_rest_is_on_disk_and_beyond_it_too() -> None:
    disk, both = answer(max_memory={"0": "6GiB"}), answer(max_memory={"0": "6GiB", "cpu": "2GiB"})
    assert disk.host_bytes == 0 and any("no 'cpu'" in said for said in disk.warnings)
    assert [part.crossing_from for part in both.work] == ["cpu", "disk"]
    stored = 2  # pythia's files are in float16
    waits = answer(max_memory={"0": "6GiB", "cpu": "64GiB"}).host_bytes
    assert both.host_bytes == both.work[0].crossing_bytes < 2 << 30
    assert both.work[1].crossing_bytes == (waits - both.host_bytes) * stored // 4 and both.work[1].flops == 0
    assert disk.work[0].crossing_bytes == waits * stored // 4 and disk.precision == "close"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_memory": {"0": "1MiB", "cpu": "64GiB"}}, "leave no room there for the embedding.* at least"),
        ({"max_memory": "10GiB"}, "an object as transformers takes it"),
        ({"max_memory": {"0": "10GiB", "1": "10GiB"}}, "'1' is no device that is estimated"),
        ({"max_memory": {"cpu": "10GiB"}}, "the card, 0, is missing"),
        ({"max_memory": {"0": "10 gigabytes"}}, "is no size; accepted: '10GiB'"),
        ({"max_memory": {"0": "10Gb"}}, "is no size"),
        ({"max_memory": {"0": -1}}, "is no size"),
        ({"max_memory": {"0": "6GiB"}, "offload": "cpu"}, "exclude each other"),
        ({"max_memory": {"0": "6GiB"}, "n_devices": 2}, "max_memory with n_devices 2 is not covered"),
        ({"max_memory": {"0": "6GiB"}, "quantization": "fp8"}, "max_memory of a quantised model"),
        ({"max_memory": {"0": "6GiB"}, "library": "nnsight", "attention": None}, "max_memory is of transformers"),
        ({"max_memory": {"0": "6GiB"}, "method": "trace"}, "max_memory"),
        ({"max_memory": {"0": "6GiB"}, "task": "activation_cache", "with_gradients": True}, "every weight on the card"),
    ],
)
def test_what_is_not_covered_says_why(given: dict[str, Any], words: str) -> None:
    with pytest.raises((ValidationError, InputError), match=words):
        answer(**given)


def test_sizes_are_read_as_accelerate_reads_them() -> None:
    from accelerate.utils.modeling import convert_file_size_to_int

    for size in ("10GiB", "9.5GB", "0.25GiB", "500MiB", "7KB", "12mib", 123, 0):
        assert memory_bytes(size) == convert_file_size_to_int(size)
    draw = Random(1)
    for _ in range(300):
        least = int(10 ** draw.uniform(3, 12))
        below = least + 1 + int(least * 10 ** draw.uniform(-6, 0))
        assert least <= memory_bytes(size_between(least, below)) < below


def test_the_workload_of_a_small_model_is_what_was_run() -> None:
    spec = small("llama-3-8b", LAYERS, d_vocab=2000)
    card = room_for(spec, 4, 2)[0]
    workload = Inference(
        model=inline(spec), library="transformers", attention="eager", batch_size=2, seq_len=30,
        max_memory={"0": card, "cpu": "1GiB"},
    )  # fmt: skip
    placement = within(spec, 4, card, 1 << 30)
    assert placement.layers_on_card == 2
    played = keeping(spec, 2, 30, 4, "eager", True, False, None, waiting(spec, 4, placement))
    on_card = weights_of(spec, 4, placement, 4).held["card"] + weights.hf_buffer_bytes(spec, 4)
    assert estimate(workload).peak.tensors == played.tape.peak + on_card


@pytest.mark.parametrize("gpu_gib", [7, 10, 11])
def test_as_many_layers_as_fit_stay(gpu_gib: float) -> None:
    """One more does not fit; the time grows with what waits."""
    workload = parse_workload({"task": "inference", "model": "pythia-2.8b", "library": "transformers", "seq_len": 64})
    place = Place("gpu", "a card", int(gpu_gib * 2**30), "8.0", host_free_bytes=64 << 30)
    before = estimate(workload, "8.0")
    best = combinations(workload, before, place)[0]
    assert {*best.patch} <= {"max_memory", "kv_cache"} and best.effect == "equivalent"
    spec, after = resolve("pythia-2.8b"), patched(workload, best.patch)
    assert isinstance(after, Inference) and after.max_memory
    count = within(spec, 4, memory_bytes(after.max_memory["0"]), memory_bytes(after.max_memory["cpu"])).layers_on_card
    assert f"{count} of 32 layers" in best.title and 0 < count < 32
    more = parse_workload(after.model_dump() | {"max_memory": {"0": room_for(spec, 4, count + 1)[0], "cpu": "64GiB"}})
    statuses = [verdict_at(estimate(each, "8.0"), place).status for each in (after, more)]
    assert statuses[0] == "fits" != statuses[1]
    waits = sum(part.crossing_bytes for part in estimate(after).work)
    assert best.slowdown == pytest.approx(1 + 9 * waits / (4 * weights.hf_params(spec)))
    assert f'max_memory={{0: "{after.max_memory["0"]}", "cpu": ' in best.code and 'device_map="auto"' in best.code
    whole = next(change for change in combinations(workload, before, place) if change.patch == {"offload": "cpu"})
    assert whole.slowdown > best.slowdown and whole.peak_after < best.peak_after
