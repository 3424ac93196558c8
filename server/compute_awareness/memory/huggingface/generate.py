"""Memory of `model.generate(input_ids, max_new_tokens=n, do_sample=False)` of Hugging Face transformers 5.23.

`generate` runs the model once over the prompt (prefill), then once per new token. The memory of these steps only
grows with the context, so three of them make the peak: the prefill; the first step after it, in which the sliding
layers still hold the whole prompt; and the last.

Sources: `generation/utils.py` (generate, _sample, _prefill, prepare_inputs_for_generation), `cache_utils.py`,
`masking_utils.py`, `models/*/modeling_*.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import InputError
from ...models.spec import ModelSpec
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .decode import Step, decode_layer
from .embedding import mask, rotary_tables, slides
from .forward import EAGER_ONLY, KEEPS_LAYER_OUTPUT, SDPA, Attention, supports_sdpa
from .forward import layer as whole_layer
from .parts import FLOAT32, INT64, norm

_SCALED_EMBEDDING = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
_TWO_MASKS = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Olmo3ForCausalLM"})
_LEARNED = frozenset({"GPT2LMHeadModel", "GPTNeoForCausalLM", "OPTForCausalLM"})


@dataclass(frozen=True)
class Generate:
    """One call of `generate`: the model, [batch_size, seq_len] prompt tokens, how many new ones, and how."""

    spec: ModelSpec
    batch_size: int
    seq_len: int
    new_tokens: int
    width: int
    """Bytes per element of weights and activations."""
    attention: Attention
    kv_cache: bool = True
    math_kernel: bool = False

    @property
    def steps(self) -> int:
        """Positions that the model has read when it made the last token; that token itself is never read."""
        return self.seq_len + self.new_tokens - 1


@dataclass(frozen=True)
class Generated:
    """A call that was played."""

    tape: Tape
    """Its live bytes: of the prompt's pass, and of those of the later ones that can be the worst. Without a cache, of
    the last pass alone."""
    prompt_entries: int
    """How many entries of the tape's log are the prompt's pass, where there is a cache."""


def generate(run: Generate) -> Generated:
    """`play_anew`, by what was recorded of another shape where that fits."""
    return recall(
        ("transformers generate", replace(run, batch_size=0, seq_len=0)),
        (run.batch_size, run.seq_len),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s)),
        with_log=True,
    )


def play_anew(run: Generate) -> Generated:
    """Live bytes above weights and buffers, from the prompt's ids on; at the end the DynamicCache still lives.

    Greedy decoding with an end-of-sequence token that never comes, no padding (transformers then drops the mask), no
    logits processors, no `return_dict_in_generate`.

    Raises:
        InputError: the architecture is not covered, or has no sdpa.
    """
    spec = run.spec
    if spec.architecture not in SDPA | EAGER_ONLY:
        raise InputError(f"{spec.name}: {spec.architecture} is not a model of transformers that is covered")
    if run.attention == "sdpa" and not supports_sdpa(spec.architecture):
        raise InputError(f"{spec.name}: {spec.architecture} has no sdpa in transformers 5.23; use attention 'eager'")
    tape, b, s = Tape(), run.batch_size, run.seq_len
    tape.new(INT64 * b * s, "activations")
    positions = 0 if spec.architecture == "BloomForCausalLM" else 1
    tape.new(positions * INT64 * b * s)  # position_ids, held by the frame of generate to the end
    tape.new(INT64 + (b > 1) + INT64 * b)  # end of sequence, whether padded on the right, unfinished sequences
    if not run.kv_cache:
        _whole_step(run, tape, run.steps, positions)
        return Generated(tape, 0)
    tape.new(INT64 * sum(slides(spec, layer) for layer in range(spec.n_layers)), "kv_cache")
    prompt_clone = tape.new(INT64 * b * s)
    stored = [s] * spec.n_layers
    logits = _call(step(run, tape, s, s), stored, prefill=True)
    tape.drop(prompt_clone)
    scores = tape.new(FLOAT32 * b * spec.d_vocab, "logits")
    tape.drop(logits)
    prompt_entries = len(tape.log)
    for total in sorted({s + 1, run.steps} - {s}) if run.new_tokens > 1 else []:
        after_first = total > s + 1
        if after_first:  # the steps between only grow the caches
            missing = 0
            for layer in range(spec.n_layers):
                length = kept(spec, layer, total - 1)
                missing += 2 * (length - stored[layer])
                stored[layer] = length
            tape.new(missing * run.width * b * spec.kv_width, "kv_cache")
        loop = [tape.new((1 + positions) * INT64 * b * total), tape.new(INT64 * (2 + positions) * b)]
        logits = _call(step(run, tape, 1, total), stored, prefill=False)
        fresh = tape.new(FLOAT32 * b * spec.d_vocab, "logits")
        tape.drop(logits, scores, *loop)
        scores = fresh
    return Generated(tape, prompt_entries)


def _whole_step(run: Generate, tape: Tape, total: int, positions: int) -> None:
    """The last step without a cache: the whole sequence again, beside the step before's scores."""
    b, spec = run.batch_size, run.spec
    if total > run.seq_len:
        tape.new((1 + positions) * INT64 * b * total + INT64 * b)  # input_ids, position_ids; the newest tokens
        tape.new(FLOAT32 * b * spec.d_vocab, "logits")
    clone = tape.new(INT64 * b * total)
    logits = _call(step(run, tape, total, total), [], prefill=True)
    tape.drop(clone)
    tape.new(FLOAT32 * b * spec.d_vocab, "logits")
    tape.drop(logits)


def step(run: Generate, tape: Tape, new: int, total: int) -> Step:
    return Step(
        run.spec, run.batch_size, new, run.width, run.attention, run.kv_cache, tape, math_kernel=run.math_kernel,
        keys=total,
    )  # fmt: skip


def kept(spec: ModelSpec, layer: int, total: int) -> int:
    """Keys that a layer's storage holds after a step that ended at `total` tokens: the window's view keeps one more
    than it shows."""
    return min(total, spec.window) if slides(spec, layer) and spec.window is not None else total


def for_layer(p: Step, sliding: bool) -> Step:
    """The step as a layer of this kind sees it."""
    window = p.spec.window if sliding else None
    masked = p.attention == "sdpa" and window is not None and p.keys >= window
    keys = p.keys if window is None or p.s > 1 else min(p.keys, window)
    return replace(p, tape=Tape(), masked=masked, keys=keys)


def _call(p: Step, stored: list[int], prefill: bool) -> Tensor:
    """One forward pass with `logits_to_keep=1`; `stored` holds each layer's cached length and is brought up to date.

    Returns the logits [b, 1, d_vocab], the one thing (beside the cache) that outlives the call.
    """
    tape, spec = p.tape, p.spec
    held, x = _embed(p)
    # The output of a layer is the next one's input, which goes when that returns. An embedding that is the first input
    # is held to the end. Of the later passes only the attention is played in order; see `decode`.
    returns = spec.architecture in KEEPS_LAYER_OUTPUT
    sections: dict[tuple[bool, int, bool, bool], Tape] = {}
    for layer in range(spec.n_layers):
        sliding = slides(spec, layer)
        before = stored[layer] if stored and not prefill else 0
        kind = sliding, before, prefill and (x is not None), prefill and returns and layer > 0
        if kind not in sections:
            q = for_layer(p, sliding)
            old = p.w * p.b * before * spec.kv_width
            sections[kind] = _chained(q, *kind[2:], returns) if prefill else decode_layer(q, old, sliding)
        tape.append(sections[kind])
        if stored and not prefill:
            stored[layer] = kept(spec, layer, p.keys)
        if layer == 0:
            x = x or (tape.adopt if prefill else tape.new)(p.X, "activations")
            if returns and not prefill:
                held.append(tape.new(p.S, "activations"))
    if prefill:
        x = tape.adopt(p.X, "activations")
        held += [tape.adopt(p.S, "activations")] * returns
    if spec.architecture == "OPTForCausalLM" and spec.norm_placement != "pre":
        final = x or tape.new(0)
    else:
        final = norm(p, p.X, p.tokens)
        tape.drop(*([x] if x else []))
    tape.drop(*held)
    size = p.w * p.b * spec.d_vocab
    logits = tape.new(size, "logits")
    for _ in range(3 * spec.logit_softcap):
        capped = tape.new(size, "logits")
        tape.drop(logits)
        logits = capped
    tape.drop(final)
    return logits


def _chained(p: Step, drops_input: bool, drops_weights: bool, returns: bool) -> Tape:
    """A layer of the prompt's pass: it leaves its output, and its input goes in the end. Where the loop over the layers
    holds all that a layer `returns`, the attention's weights are handed on like that, too."""
    section = whole_layer(replace(p, leaves_weights=returns), leaves_output=True)
    if drops_weights:
        section.drop(section.adopt(p.S, "activations"))
    if drops_input:
        section.drop(section.adopt(p.X, "activations"))
    return section


def _embed(p: Step) -> tuple[list[Tensor], Tensor | None]:
    """As `transformers_embedding.embed`, with the position ids [b, s] that `generate` passes and keys from a cache.

    Returns what the model's `forward` holds until it returns, and the residual stream where it is a tensor of its own.
    """
    tape, spec, x = p.tape, p.spec, None
    embedded = tape.new(p.X, "activations")
    if spec.architecture in _SCALED_EMBEDDING:
        scaled = tape.new(p.X, "activations")
        tape.drop(embedded)
        embedded = scaled
    held = [embedded]
    if spec.architecture == "OPTForCausalLM":
        held.append(tape.new(FLOAT32 * p.b * p.keys))
    if spec.architecture in _LEARNED:
        held.append(tape.new(p.X, "activations"))
        x = tape.new(p.X, "activations")
    if spec.architecture == "BloomForCausalLM":
        x = norm(p, p.X, p.tokens)
        held += _alibi(p)
    windows = [False, True] if spec.architecture in _TWO_MASKS else [slides(spec, 0)]
    for window in windows:
        q = for_layer(p, window)
        if p.attention == "eager" or q.masked:
            held.append(mask(p, q.keys, window))
    if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM":
        held += rotary_tables(p, p.tokens)
    return held, x


def _alibi(p: Step) -> list[Tensor]:
    """BloomModel.forward: slopes [heads], and alibi [b * heads, 1, keys] made in float32."""
    tape, heads = p.tape, p.spec.n_heads
    slopes = tape.new(FLOAT32 * heads)
    one = tape.new(FLOAT32 * heads * p.keys)
    alibi = tape.new(FLOAT32 * p.b * heads * p.keys)
    tape.drop(one)
    if p.w != FLOAT32:
        narrow = tape.new(p.w * p.b * heads * p.keys)
        tape.drop(alibi)
        alibi = narrow
    return [slopes, alibi]
