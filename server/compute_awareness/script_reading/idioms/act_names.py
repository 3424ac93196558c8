"""Hook names of TransformerLens: the short forms of caches and of `get_act_name`, written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..values import Args, Items, Known, Source, Unknown, is_none, known, number
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader

_ATTENTION = ("k", "v", "q", "z", "rot_k", "rot_q", "result", "pattern", "attn_scores")
_MLP = ("pre", "post", "mid", "pre_linear")
_ALIASES = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v",
            "mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post"}  # fmt: skip
_LAYER_TYPES = {"a": "attn", "m": "mlp", "b": "", "block": "", "blocks": "", "attention": "attn"}


def hook_name(index: Any) -> str | None:
    """The full hook name of `cache["resid_post", 3]` or `cache[name]`; None where it is not known."""
    if isinstance(index, Known) and isinstance(index.value, str):
        return act_name(index.value, None, None) if "hook" not in index.value else index.value
    if isinstance(index, Items):
        plain = [known(item) for item in index.items]
        if plain and isinstance(plain[0], str) and len(plain) > 1:
            layer = number(index.items[1])
            kind = plain[2] if len(plain) > 2 and isinstance(plain[2], str) else None
            return act_name(plain[0], layer, kind) if layer is not None else None
    return None


def act_name(name: str, layer: int | None, kind: str | None) -> str:
    """`get_act_name` of TransformerLens (3.9.0, utils.py): short forms to full hook names."""
    if "." in name and "hook_" in name:
        return name
    short = _ALIASES.get(name, name)
    kind = _LAYER_TYPES.get(kind, kind) if kind else None
    if short in _ATTENTION:
        kind = "attn"
    elif short in _MLP:
        kind = "mlp"
    norm = f"{kind}." if short in ("scale", "normalized") and kind else ""
    inside = norm or (f"{kind}." if kind and short in (*_ATTENTION, *_MLP) else "")
    if layer is None:
        final = "ln_final." if short in ("scale", "normalized") and not kind else inside
        return f"{final}hook_{short}"
    return f"blocks.{layer}.{inside}hook_{short}"


@function("utils.get_act_name", "get_act_name", "tl.utils.get_act_name", "tl_utils.get_act_name")
def _get_act_name(reader: Reader, args: Args, path: str) -> Any:
    name, kind = known(args.get(0, "name")), known(args.get(2, "layer_type"))
    layer = args.get(1, "layer")
    if not isinstance(name, str) or not (is_none(layer) or number(layer) is not None):
        return Unknown("a hook name of what is not known", line=args.line)
    return Known(act_name(name, number(layer) if layer is not None else None, kind), Source("computed", args.line))
