"""Names of a TransformerBridge's hooks: which fire, and the second name that some of them have.

Read off transformer_lens 3.9.0, model_bridge/bridge.py (hook_aliases, run_with_cache) and supported_architectures/*.py.
A Bridge names its hooks after its own modules (`attn.q.hook_out`); most names of HookedTransformer (`attn.hook_q`)
are aliases of the same HookPoint, and run_with_cache keeps an entry for every name that a filter lets through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

from ...errors import InputError
from ...models.spec import ModelSpec

TOP = {"embed.hook_out": "hook_embed", "pos_embed.hook_out": "hook_pos_embed", "unembed.hook_out": "hook_unembed"}
KEEP_THEIR_NAME = {"hook_in": "hook_resid_pre", "hook_out": "hook_resid_post"}
"""Compatibility mode renames the HookPoints that have an alias to it, except these."""
MIRRORED = {"mlp.in.hook_in": "mlp.hook_in", "mlp.out.hook_out": "mlp.hook_out"}
"""Further names in OPT from TransformerLens 4.0 on (`mirror_placeholder_hooks`)."""
_BLOCK = {
    "ln2.hook_in": "hook_resid_mid", "attn.q.hook_out": "attn.hook_q", "attn.k.hook_out": "attn.hook_k",
    "attn.v.hook_out": "attn.hook_v", "attn.o.hook_in": "attn.hook_z", "mlp.out.hook_in": "mlp.hook_post",
}  # fmt: skip


def aliases(spec: ModelSpec) -> dict[str, str]:
    """The alias of each hook that has one; hooks of a block without the `blocks.i.` prefix."""
    names = TOP | KEEP_THEIR_NAME | _BLOCK
    names["mlp.gate.hook_out" if spec.gated_mlp else "mlp.in.hook_out"] = "mlp.hook_pre"
    if spec.gated_mlp:
        names["mlp.in.hook_out"] = "mlp.hook_pre_linear"
    around = spec.norm_placement == "both"
    names["ln1_post.hook_out" if around else "attn.hook_out"] = "hook_attn_out"
    if spec.architecture == "OPTForCausalLM":
        names["mlp.out.hook_out"] = "hook_mlp_out"
    else:
        names["ln2_post.hook_out" if around else "mlp.hook_out"] = "hook_mlp_out"
    if spec.parallel_attn_mlp:
        del names["ln2.hook_in"]
    return names


def selector(
    spec: ModelSpec, names_filter: list[str] | None, layers: list[int] | None, compatibility_mode: bool
) -> Callable[[str], bool]:
    """names_filter and layers as one predicate on full hook names, aliases among them.

    Globs are taken as the function that run_with_cache accepts, which sees every name. Names without wildcards are
    taken as its list: then the name that the HookPoint goes by is kept beside an alias that was asked for. In
    compatibility mode the HookPoint goes by the legacy name.

    Raises:
        InputError: an empty filter, layers outside the model.
    """
    wanted = None if names_filter is None else tuple(names_filter)
    return _selector(spec, wanted, None if layers is None else tuple(layers), compatibility_mode)


@lru_cache(maxsize=64)
def _selector(
    spec: ModelSpec, names_filter: tuple[str, ...] | None, layers: tuple[int, ...] | None, compatibility_mode: bool
) -> Callable[[str], bool]:
    """The same predicate for the same hooks, so that what was played with it is found again (`recall`)."""
    chosen: Callable[[str], bool] = lambda name: True  # noqa: E731
    if names_filter is not None:
        if not names_filter:
            raise InputError("names_filter: an empty list keeps nothing; leave it out to keep every hook")
        patterns = list(names_filter)
        if not any(set(pattern) & set("*?[") for pattern in patterns):
            canonical = {legacy: own for own, legacy in aliases(spec).items()}
            if compatibility_mode:
                canonical = {own: legacy for own, legacy in aliases(spec).items() if own not in KEEP_THEIR_NAME}
                canonical |= {legacy: own for own, legacy in KEEP_THEIR_NAME.items()}
            patterns += [_in_its_place(name, canonical) for name in names_filter]
        matches = re.compile("|".join(translate(pattern) for pattern in patterns)).match
        chosen = lambda name: bool(matches(name))  # noqa: E731
    if layers is None:
        return chosen
    blocks = set()
    for layer in layers:
        if not -spec.n_layers <= layer < spec.n_layers:
            raise InputError(f"layers: {layer} is outside the {spec.n_layers} blocks of {spec.name}")
        blocks.add(layer % spec.n_layers)
    prefixes = tuple(f"blocks.{layer}." for layer in sorted(blocks))
    return lambda name: name.startswith(prefixes) and chosen(name)


def _in_its_place(name: str, other: dict[str, str]) -> str:
    """`name` with the hook behind its `blocks.i.` exchanged for its other name, if it has one."""
    match = re.match(r"(blocks\.\d+\.)?(.*)$", name)
    assert match is not None
    prefix, hook = match.group(1) or "", match.group(2)
    return prefix + other.get(hook, hook)


def family(name: str) -> str:
    """A hook's name without its block number: `blocks.3.attn.hook_z` -> `attn.hook_z`."""
    return re.sub(r"^blocks\.\d+\.", "", name)
