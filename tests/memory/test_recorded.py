"""What was recorded for one shape against what is played for another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness import hook_names
from compute_awareness.errors import InputError
from compute_awareness.memory.bridge import forward as bridge
from compute_awareness.memory.bridge.run import Run as BridgeRun
from compute_awareness.memory.card.passes import as_requests
from compute_awareness.memory.card.staging import THREADS, Kernels
from compute_awareness.memory.hooked import edges, patching
from compute_awareness.memory.hooked import generate as hooked_generate
from compute_awareness.memory.hooked import training as hooked_training
from compute_awareness.memory.hooked import transformer as hooked
from compute_awareness.memory.hooked.run import Run
from compute_awareness.memory.huggingface import forward as huggingface
from compute_awareness.memory.huggingface import generate as huggingface_generate
from compute_awareness.memory.huggingface import graph_pass, outputs, training
from compute_awareness.memory.recorded.program import Program
from compute_awareness.memory.recorded.recall import forget, recall
from compute_awareness.memory.recorded.size import Recording, applied
from compute_awareness.memory.sae import dictionary_learning, dictionary_learning_run
from compute_awareness.memory.sae import training as sae
from compute_awareness.memory.sae.activation_buffer import ActivationBuffer
from compute_awareness.memory.sae.activation_store import LanguageModelPart, Refill, refills, worst_refills
from compute_awareness.memory.sae.inference import INFERENCE_VECTORS, Use
from compute_awareness.memory.sae.matching_pursuit import Pursuit
from compute_awareness.memory.sae.splice import Splice, play_with_sae, with_sae
from compute_awareness.memory.sae.temporal import Temporal
from compute_awareness.memory.tape import Tape, Tensor
from compute_awareness.models.catalogue import find, names
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import ActivationCache

PLAIN = settings(derandomize=True, deadline=None, database=None)
SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5000)), min_size=4, max_size=8)
WIDTHS = st.sampled_from([2, 4])

Number = Any
"""An int, or a Size in place of one."""


def _no_formula(*numbers: int) -> int:
    return sum(number.bit_count() for number in numbers)


def _formulas(a: Number, b: Number, c: Number) -> list[Number]:
    """Whatever the transcriptions compute with sizes, and every comparison."""
    padded = -(-b // 128) * 128
    numbers = [
        a + b, 3 * a - b, a - 7, 7 - a, a * b * c, (a + b) * (a - c), -a, a**2, 4 * a * b // (2 * a), a * b // 2,
        (6 * a + b) // 3, padded, padded * a + c, (a * b - a) // (b - 1 or 1), b % 8, 1000 // a, 1000 % a,
        applied(_no_formula, a, b * c, 7), applied(_no_formula, 5, a - b),
        (a - b) // 5, max(a, b), max(1, a - b), min(a, c), sum([a, b, c]), sorted([b, a, c])[1],
    ]  # fmt: skip
    asked = [a < b, a <= b, a > 3, a >= c, a == b, a != 1, 2 * a == b, bool(a - b), a * b == b, a in (b, c)]
    return [*numbers, *map(int, asked)]


@settings(PLAIN, max_examples=300)
@given(st.lists(st.tuples(*[st.integers(1, 300)] * 3), min_size=2, max_size=12))
def test_formulas_are_what_numbers_would_be(shapes: list[tuple[int, int, int]]) -> None:
    recording = Recording(shapes[0])
    program = Program(recording, _formulas(*recording.symbols), with_log=False)
    assert program.at(shapes[0]) == (_formulas(*shapes[0]),)
    for shape in shapes[1:]:
        found = program.at(shape)
        assert found is None or found == (_formulas(*shape),)


def test_what_has_the_same_answers_is_not_recorded_again() -> None:
    recording = Recording((4, 512))
    b, s = recording.symbols
    program = Program(recording, _formulas(b, s, 10_000), with_log=False)
    assert program.at((4, 511)) == (_formulas(4, 511, 10_000),)
    assert program.at((4, 3)) is None, "b is the larger here"


def test_a_tape_that_was_recorded_goes_on_as_one_that_was_played() -> None:
    def played(b: Number) -> Tape:
        tape = Tape()
        tape.new(8 * b)
        tape.drop(tape.new(4 * b))
        return tape

    forget()
    played_anew, _, recorded = (recall("a tape that goes on", (5,), played, with_log=True) for _ in range(3))
    for tape in (played_anew, recorded):
        tape.drop(tape.new(100))
    assert recorded.log == played_anew.log == [40, 20, ~1, 100, ~2]


def test_what_no_formula_can_say_is_refused() -> None:
    (size,) = Recording((4,)).symbols
    for wrong in (lambda: f"{size}", lambda: range(size), lambda: size / 2, lambda: size * 0.5, lambda: int(size)):  # pyright: ignore
        with pytest.raises(TypeError):
            wrong()


def test_a_comparison_that_every_shape_answers_alike_is_no_guard() -> None:
    recording = Recording((4, 512))
    b, s = recording.symbols
    assert b * s * 768 >= s
    assert b + s > 1
    assert b * s != -1
    assert b * s
    assert not recording.guards
    assert b * s * 768 != 768 * s
    assert list(recording.guards) == [((((), -1), ((0,), 1)), "==")], "b == 1, in the fewest words"


@settings(PLAIN, max_examples=100)
@given(st.data())
def test_the_peak_of_any_tape(data: st.DataObject) -> None:
    """Allocations, frees and sections at random, of sizes that grow differently with the shape."""
    steps = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=40))
    shapes = data.draw(SHAPES)

    def play(b: Number, s: Number) -> Tape:
        sizes = [b * s, s * s, 1000, b * s * 3, b * 40_000, 0]
        tape, section, held = Tape(), Tape(), list[tuple[Tape, Tensor]]()
        for what, which in steps:
            on = section if what % 2 else tape
            if what < 6:
                held.append((on, on.new(sizes[which], f"kind {which % 3}")))
            elif what < 8 and held:
                owner, tensor = held.pop(which % len(held))
                owner.drop(tensor)
            elif what == 8:
                tape.append(section.closed(), which)
            elif held:
                owner, tensor = held[which % len(held)]
                owner.book(tensor, "booked")
        return tape.closed()

    _same(lambda *shape: recall(("tape", tuple(steps)), shape, play, with_log=True), play, shapes, with_log=True)


def _same(
    recalled: Callable[..., Any], played: Callable[..., Any], shapes: list[tuple[int, ...]], with_log: bool = False
) -> None:
    forget()
    for shape in [shapes[0], *shapes]:
        assert _plain(recalled(*shape), with_log) == _plain(played(*shape), with_log), shape


def _plain(part: Any, with_log: bool) -> Any:
    """What an outcome says, to be compared."""
    if isinstance(part, Tape):
        said = part.live, +part.by_component, part.peak, +part.at_peak, part.worst_phase
        return (*said, part.requests()) if with_log else said
    if isinstance(part, Tensor):
        return part.bytes
    if isinstance(part, tuple | list):
        return [_plain(member, with_log) for member in part]
    if hasattr(part, "__dict__"):
        return {name: _plain(member, with_log) for name, member in vars(part).items()}
    return part


def _spec(draw: Callable[..., Any]) -> ModelSpec:
    spec = find(draw(st.sampled_from(names())))
    assert spec is not None
    return spec.model_copy(update={"n_layers": min(spec.n_layers, 5)})


@settings(PLAIN, max_examples=14)
@given(st.data())
def test_a_training_step_of_transformers(data: st.DataObject) -> None:
    draw = data.draw
    spec = _spec(draw)
    if spec.architecture not in training.ARCHITECTURES:
        return
    adapters = training.Lora(draw(st.integers(1, 16)), None) if draw(st.booleans()) else None
    step = training.Step(
        spec, 0, 0, draw(WIDTHS), huggingface.default_attention(spec), *draw(st.sampled_from([(0.0, 0.0), (0.1, 0.1)])),
        gradient_checkpointing=draw(st.booleans()), accumulation=draw(st.integers(1, 2)), lora=adapters,
        math_kernel=draw(st.booleans()), bucket_views=draw(st.booleans()), cpu=draw(st.booleans()),
    )  # fmt: skip
    if step.width == 4 and draw(st.booleans()):
        step = replace(step, autocast="cuda")

    def of(play: Callable[..., Any], *given: object) -> Callable[..., Any]:
        return lambda b, s: play(replace(step, batch_size=b, seq_len=s), *given)

    how = draw(st.sampled_from(["sgd", "adamw"]))
    _same(of(training.play, how), of(training.play_anew, how), draw(SHAPES), with_log=True)


@settings(PLAIN, max_examples=8)
@given(st.data())
def test_a_hooked_transformer_with_gradients(data: st.DataObject) -> None:
    draw = data.draw
    spec = _spec(draw)
    if spec.positional == "shortformer":
        return
    flags: dict[str, Any] = {
        name: draw(st.booleans()) for name in ("use_attn_result", "use_split_qkv_input", "folded", "trainable")
    }
    run = Run(spec, 0, 0, draw(WIDTHS), gradients=True, use_hook_mlp_in=spec.d_mlp > 0, **flags)
    shapes = [(b, min(s, spec.context_tl)) for b, s in draw(SHAPES)]
    cpu = draw(st.booleans())

    def of(play: Callable[..., Any], run: Run, *given: object) -> Callable[..., Any]:
        return lambda b, s: play(replace(run, batch_size=b, seq_len=s), *given)

    if draw(st.booleans()):
        batches = draw(st.integers(1, 3))
        trained = replace(run, trainable=True, autocast=run.width == 4 and draw(st.booleans()))
        _same(
            of(hooked_training.step, trained, "adamw", batches, cpu),
            of(hooked_training.play_anew, trained, "adamw", batches, cpu),
            shapes,
        )
        adam, capability = draw(st.sampled_from(["adam", "sgd"])), draw(st.sampled_from([None, "7.5", "9.0"]))
        _same(
            of(hooked_training.requests, trained, adam, batches, capability),
            of(_requests_played_anew, trained, adam, batches, capability),
            shapes,
            with_log=True,
        )
    wanted = draw(st.sampled_from([None, ["*hook_resid_post"], ["*hook_z", "*mlp_out"], ["*hook_pattern"]]))
    cached = replace(run, selects=hook_names.selector(ActivationCache(model="gpt2", names_filter=wanted), spec))
    attribution = patching.attribution_patching, patching.play_attribution_patching
    _same(of(attribution[0], cached, cpu), of(attribution[1], cached, cpu), shapes)
    given = draw(st.sampled_from([None, "7.5", "9.0"]))
    _same(
        of(patching.attribution_requests, cached, given),
        of(_attribution_played_anew, cached, given),
        shapes,
        with_log=True,
    )
    _same(
        lambda b, s: patching.activation_patching(replace(cached, batch_size=b, seq_len=s), b * 12),
        lambda b, s: patching.play_activation_patching(replace(cached, batch_size=b, seq_len=s), b * 12),
        shapes,
    )
    edged = replace(run, use_attn_result=True, use_split_qkv_input=True)
    integrated = draw(st.booleans()) or not run.trainable
    _same(
        of(edges.edge_attribution, edged, 2, integrated, cpu),
        of(edges.play_edge_attribution, edged, 2, integrated, cpu),
        shapes,
    )
    _same(
        of(edges.edge_requests, edged, 2, integrated, given),
        of(
            lambda run: as_requests(*edges.edges_in_order(run, 2, integrated, Kernels(given, handles=("main",)))),
            edged,
        ),
        shapes,
        with_log=True,
    )


def _requests_played_anew(run: Run, name: Any, batches: int, capability: str | None) -> Tape:
    return as_requests(*hooked_training.play_in_order(run, name, batches, Kernels(capability, handles=THREADS)))


def _attribution_played_anew(run: Run, capability: str | None) -> Tape:
    tape, _, back = patching.attribution_in_order(run, Kernels(capability, handles=("main",)))
    return as_requests(tape, back)


@settings(PLAIN, max_examples=20)
@given(st.data())
def test_a_pass_without_gradients(data: st.DataObject) -> None:
    """Of every library, with the order of its allocations; and with a graph that is kept."""
    draw = data.draw
    spec = _spec(draw)
    width, shapes = draw(WIDTHS), draw(SHAPES)
    wanted = draw(st.sampled_from([None, ["*hook_resid_post"], ["*hook_z", "*mlp_out"], ["*hook_scale"]]))
    selects = hook_names.selector(ActivationCache(model="gpt2", names_filter=wanted), spec)
    gradients = draw(st.booleans())

    def of(play: Callable[..., Any], run: Any) -> Callable[..., Any]:
        return lambda b, s: play(replace(run, batch_size=b, seq_len=s))

    run = Run(spec, 0, 0, width, selects=draw(st.sampled_from([None, selects])), gradients=gradients)
    _same(of(hooked.forward, run), of(hooked.play_anew, run), shapes, with_log=True)
    if not spec.has_hf_model:
        return
    attention, cached = huggingface.default_attention(spec), draw(st.booleans())
    keeps = outputs.select(spec, None, draw(st.sampled_from([None, [0, -1]])), on_host=draw(st.booleans())).keeps
    how = width, attention, cached, draw(st.booleans())
    _same(
        lambda b, s: huggingface.keeping(spec, b, s, *how, keeps),
        lambda b, s: huggingface.play_anew(spec, b, s, *how, keeps, {}),
        shapes,
        with_log=True,
    )

    def with_graph(b: int, s: int) -> huggingface.Played:
        played = graph_pass.play_anew(spec, b, s, *how, keeps, cpu=False)
        return huggingface.Played(played.tape.closed(), played.sizes)

    _same(lambda b, s: graph_pass.keeping_graph(spec, b, s, *how, keeps), with_graph, shapes, with_log=True)
    try:
        bridge.check_covered(spec)
    except InputError:
        return
    bridged = BridgeRun(spec, 0, 0, width, selects=selects, after_another=draw(st.booleans()))
    _same(of(bridge.forward, bridged), of(bridge.play_anew, bridged), shapes, with_log=True)


@settings(PLAIN, max_examples=30)
@given(st.data())
def test_generation(data: st.DataObject) -> None:
    draw = data.draw
    spec = _spec(draw)
    width, shapes, cached = draw(WIDTHS), draw(SHAPES), draw(st.booleans())
    new_tokens = draw(st.sampled_from([1, 2, 3, 64, 2047, 3000]))

    def of(play: Callable[..., Any], run: Any) -> Callable[..., Any]:
        return lambda b, s: play(replace(run, batch_size=b, seq_len=s))

    if spec.positional != "shortformer":
        run = hooked_generate.Generate(spec, 0, 0, new_tokens, width, kv_cache=cached)
        _same(of(hooked_generate.generate, run), of(hooked_generate.play_anew, run), [*shapes, (2, 2048), (2, 2047)])
    if spec.has_hf_model:
        run = huggingface_generate.Generate(
            spec, 0, 0, new_tokens, width, huggingface.default_attention(spec), kv_cache=cached
        )
        shapes = [*shapes, (2, spec.window or 64), (3, (spec.window or 64) + 1)]
        _same(of(huggingface_generate.generate, run), of(huggingface_generate.play_anew, run), shapes)


@settings(PLAIN, max_examples=40)
@given(st.data())
def test_the_training_of_an_sae(data: st.DataObject) -> None:
    draw = data.draw
    architecture = draw(st.sampled_from(sorted(sae.VECTORS)))
    pursuit = Pursuit(draw(st.integers(1, 9)), draw(st.booleans()), draw(st.booleans()))
    shape = sae.Shape(
        architecture, 64, draw(st.sampled_from([128, 4096])), 16, 0, width=draw(WIDTHS), dead=draw(st.booleans()),
        matryoshka_widths=(32, 128) if architecture.startswith("matryoshka") else (), autocast=draw(st.booleans()),
        pursuit=pursuit if architecture == "matching_pursuit" else None,
    )  # fmt: skip
    lm = draw(st.sampled_from([None, LanguageModelPart(10**8, 10**5, 10**9, 10**7)]))
    sizes = st.integers(1, 5000)
    stores = st.tuples(sizes, sizes, st.integers(0, 5000), st.integers(1, 3))

    def of(fit: Callable[..., sae.Fit]) -> Callable[..., Any]:
        def fitted(batch: int, before: int, left: int, batches: int) -> list[Any]:
            refill = None if lm is None else Refill(before, left, batches, 512)
            fit_ = fit(replace(shape, batch=batch), lm, refill, None)
            return [fit_.tape, {name: size for name, size in fit_.largest.items() if size}]

        return fitted

    _same(of(sae.fit), of(sae.fit_anew), draw(st.lists(stores, min_size=3, max_size=6)))


@settings(PLAIN, max_examples=40)
@given(st.data())
def test_the_trainers_of_dictionary_learning(data: st.DataObject) -> None:
    draw = data.draw
    architecture = draw(st.sampled_from(sorted(dictionary_learning.TRAINERS)))
    shape = sae.Shape(
        architecture, 64, draw(st.sampled_from([128, 4096])), 16, 0, dead=draw(st.booleans()),
        matryoshka_widths=(32, 128) if architecture.startswith("matryoshka") else (),
    )  # fmt: skip
    behind = draw(st.booleans())
    buffer = ActivationBuffer(draw(st.sampled_from([2, 300])), 16, 8, 0, 64, draw(WIDTHS))
    lm = LanguageModelPart(10**8, 10**5, 10**7, 10**6)

    def of(train: Callable[..., sae.Fit]) -> Callable[..., Any]:
        def trained(batch: int, out: int) -> list[Any]:
            drawn = replace(buffer, out_batch_size=out) if behind else None
            of_it = train(replace(shape, batch=drawn.batch if drawn else batch), 2, drawn, lm if behind else None)
            return [of_it.tape, {name: size for name, size in of_it.largest.items() if size}]

        return trained

    _same(of(dictionary_learning_run.train), of(dictionary_learning_run.train_anew), draw(SHAPES))


@settings(PLAIN, max_examples=60)
@given(st.data())
def test_an_sae_spliced_in(data: st.DataObject) -> None:
    draw = data.draw
    spec = find("gpt2")
    assert spec is not None
    architecture = draw(st.sampled_from(sorted(INFERENCE_VECTORS)))
    use = Use(
        architecture, 768, draw(st.sampled_from([1024, 24_576])), 768, 16, 0, width=draw(WIDTHS),
        input_width=draw(WIDTHS), pursuit=Pursuit(20) if architecture == "matching_pursuit" else None,
        temporal=Temporal(0, 0, active=draw(st.sampled_from([None, 16]))) if architecture == "temporal" else None,
    )  # fmt: skip
    reads, hook_name = draw(st.sampled_from([("resid_pre",) * 2, ("resid_mid", "mlp_out"), ("resid_post",) * 2]))
    names = {name: f"blocks.3.hook_{name}" for name in (reads, hook_name)}
    run = Run(spec.model_copy(update={"n_layers": 5}), 0, 0, use.input_width)
    splice = Splice(run, names[hook_name], use, names[reads], draw(st.booleans()), draw(st.booleans()))
    _same(
        lambda b, s: with_sae(splice.at(b, s)), lambda b, s: play_with_sae(splice.at(b, s)), draw(SHAPES), with_log=True
    )


@settings(PLAIN, max_examples=300)
@given(st.integers(1, 5000), st.integers(0, 20_000), st.integers(1, 6000))
def test_the_worst_refills_of_all(batch: int, more: int, per_batch: int) -> None:
    """Followed in runs, against one by one."""
    every = list(refills(batch + more, batch, per_batch))
    joined = [r.before + 2 * r.after - (per_batch if r.batches > 1 else r.after) for r in every]
    shuffled, kept = [r.before + 2 * r.after for r in every], [r.before + r.after for r in every]
    worst = [every[heights.index(max(heights))] for heights in (joined, shuffled, kept)]
    assert worst_refills(batch + more, batch, per_batch) == list(dict.fromkeys(worst))
