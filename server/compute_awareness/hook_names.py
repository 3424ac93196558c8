"""Hook names: which of them a filter keeps, how wide they are, and what to say when one does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import translate
from functools import lru_cache

from .errors import InputError, nearest
from .memory.hooked.transformer import Run, family, forward
from .models.spec import ModelSpec
from .reads import not_kept
from .workload import ActivationCache


def selector(workload: ActivationCache, spec: ModelSpec) -> Callable[[str], bool]:
    """names_filter and layers as one predicate on full hook names. Raises InputError for layers outside the model."""
    if workload.names_filter is not None and not workload.names_filter:
        raise InputError("names_filter: an empty list keeps nothing; leave it out to keep every hook")
    for layer in workload.layers or ():
        if not -spec.n_layers <= layer < spec.n_layers:
            raise InputError(f"layers: {layer} is outside the {spec.n_layers} blocks of {spec.name}")
    wanted = None if workload.names_filter is None else tuple(workload.names_filter)
    blocks = None if workload.layers is None else frozenset(layer % spec.n_layers for layer in workload.layers)
    return _selects(wanted, blocks)


@lru_cache(maxsize=64)
def _selects(wanted: tuple[str, ...] | None, blocks: frozenset[int] | None) -> Callable[[str], bool]:
    """The same predicate for the same hooks, so that what it says can be remembered (`transformer.select`)."""
    matches: Callable[[str], object] = lambda name: True  # noqa: E731
    if wanted is not None:
        matches = re.compile("|".join(translate(pattern) for pattern in wanted)).match
    if blocks is None:
        return lambda name: bool(matches(name))
    prefixes = tuple(f"blocks.{layer}." for layer in sorted(blocks))
    return lambda name: name.startswith(prefixes) and bool(matches(name))


@lru_cache(maxsize=64)
def only(hook_name: str) -> Callable[[str], bool]:
    """The predicate that wants this one hook."""
    return lambda name: name == hook_name


_TRIED = 20  # each is held against every kind of hook
_SWITCH_OF = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_mlp_in": "use_hook_mlp_in",
    "hook_attn_in": "use_attn_in",
}


def no_hook(workload: ActivationCache, spec: ModelSpec, run: Run) -> str:
    """The one line for a filter that keeps nothing."""
    names = forward(run).hook_names
    wanted = workload.names_filter or ["*"]
    for pattern in wanted:
        for hook, switch in _SWITCH_OF.items():
            if re.match(translate(pattern), f"blocks.0.{hook}"):
                return f"names_filter: {pattern!r} matches {hook}, which only fires with {switch}"
    shown = ", ".join(repr(pattern) for pattern in wanted[:3])
    where = f" in the {len(names)} hooks that fire"
    where += f" (layers {workload.layers})" if workload.layers is not None else ""
    where += f" (stop_at_layer {workload.stop_at_layer})" if workload.stop_at_layer is not None else ""
    return f"names_filter: {shown} matches no hook of {spec.name}{where}; {near(wanted, names, family)}"


def near(wanted: Sequence[str], names: Iterable[str], kind: Callable[[str], str]) -> str:
    """What to filter by instead, as globs that match: `*hook_resid_post`, since a pattern is held against the full name
    of a hook. `kind` gives a hook's name without its block number."""
    globs = {kind(name): f"*{kind(name)}" if name.startswith("blocks.") else name for name in names}
    plain = [pattern.strip("*").split(".")[-1] for pattern in wanted[:_TRIED]]
    close = dict.fromkeys(globs[hit] for pattern in plain for hit in nearest(pattern, globs, 4))
    return f"near: {', '.join(close)}" if close else f"hooks: {', '.join([*globs.values()][:8])}, ..."


def unread(workload: ActivationCache, spec: ModelSpec, run: Run) -> list[str]:
    """The warning that the cache of this run lacks something that `reads` names (see `reads.not_kept`).

    Raises:
        InputError: a pattern of `reads` that no hook has.
    """
    if workload.reads is None:
        return []
    whole = replace(run, batch_size=1, seq_len=1, width=1, selects=None, stop_at_layer=None)
    every = forward(whole).hook_names
    fires = every if run.stop_at_layer is None else forward(replace(whole, stop_at_layer=run.stop_at_layer)).hook_names

    def refuse(pattern: str) -> str:
        asked = workload.model_copy(update={"names_filter": [pattern], "layers": None, "stop_at_layer": None})
        return no_hook(asked, spec, whole)

    return not_kept(workload, spec.n_layers, every, fires, selector(workload, spec), refuse)


def no_such_hook(name: str, run: Run) -> str:
    """The one line for a hook that does not exist."""
    names = forward(run).hook_names
    close = nearest(name, names, 3)
    hint = f"; nearest: {', '.join(close)}" if close else f"; e.g. {names[-1]}"
    return f"hook_name: {name[:80]!r} is no hook of {run.spec.name}{hint}"


def layer_of(hook_name: str) -> int | None:
    """The block a full hook name belongs to; None outside the blocks."""
    match = re.match(r"blocks\.(\d{1,6})\.", hook_name)
    return int(match.group(1)) if match else None


def hook_width(spec: ModelSpec, hook_name: str) -> int | None:
    """d_in of an SAE on this hook (SAELens flattens heads); None where the hook is no vector per token."""
    last = family(hook_name)
    if last in ("attn.hook_z", "attn.hook_q", "attn.hook_rot_q"):
        return spec.q_width
    if last in ("attn.hook_k", "attn.hook_v", "attn.hook_rot_k"):
        return spec.kv_width
    if last.startswith("mlp.hook_"):
        return spec.d_mlp
    if last.startswith("hook_") or last.endswith(
        ("ln1.hook_normalized", "ln2.hook_normalized", "ln_final.hook_normalized")
    ):
        return spec.d_model
    return None
