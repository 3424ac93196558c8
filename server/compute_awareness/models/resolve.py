"""Whatever a caller calls a model, as a `ModelSpec`: catalogue name, file, Hugging Face id, or plain numbers."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import InputError, nearest, shown
from ..workload import explain
from . import catalogue, checkpoint, hub
from .families import FAMILIES, with_family
from .spec import TOY, ModelSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_MAX_CONFIG_BYTES = 4 * 1024**2


def resolve(ref: str | dict[str, Any]) -> ModelSpec:
    """The model that `ref` means.

    In this order: a catalogue name, alias or Hugging Face id (any case); a path to a `config.json` or to a folder
    with one; a Hugging Face id, whose config is read from the local cache or fetched; an object, either a Hugging
    Face config or `ModelSpec` fields of which `n_layers`, `d_model`, `d_vocab` and `n_heads` (or `d_head`) are
    needed. A name without a slash never touches the network.

    Raises:
        InputError: one line, with the nearest names where the name is unknown.
    """
    if isinstance(ref, dict):
        return _from_object(ref)
    if not isinstance(ref, str) or not ref.strip():
        raise InputError("model: give a catalogue name, a Hugging Face id, a path or an object of numbers")
    name = ref.strip()
    if len(name) > 4096 or not name.isprintable():
        raise InputError("model: not a name, an id or a path")
    known = catalogue.find(name)
    if known is not None:
        return known
    if _is_path(name):
        return _from_path(name)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise InputError(
        f"unknown model {_quoted(name)}{hub.hint(name)}; give a catalogue name, a Hugging Face id (organisation/name), "
        "a path of a config.json or an object of numbers"
    )


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _is_path(name: str) -> bool:
    if name.endswith(".json") or name.startswith((".", "~", "/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return True
    # `checkpoints/mine` looks like a Hugging Face id; a folder of that name here is meant.
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def _from_path(name: str) -> ModelSpec:
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            path = path / "config.json"
        if not path.is_file():
            raise InputError(f"model: no file {_quoted(str(path))}")
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(f"model: {_quoted(str(path))} is too large for a config")
        text = path.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise InputError(f"model: cannot read {_quoted(name)}: {reason}") from None
    folder = path.resolve().parent if path.name == "config.json" else None
    label = folder.name if folder else path.stem
    spec = _from_text(text, label or "local", None, f"local file {path.name}", f"model {_quoted(name)}")
    return _with_checkpoint(spec, checkpoint.from_folder(folder) if folder else None)


def _from_text(text: str, name: str, hf_id: str | None, source: str, where: str) -> ModelSpec:
    from .hf_config import Uncovered, spec_from_config

    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f" at line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{where}: not valid JSON{at}") from None
    try:
        return spec_from_config(config, name, hf_id, source)
    except Uncovered as error:
        raise Uncovered(f"{where}: {error}", error.config, name) from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _from_hub(repo: str) -> ModelSpec:
    where = f"model {_quoted(repo)}"
    path = hub.config_file(repo, where)
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(f"{where}: its config.json is too large for a config")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{where}: its config.json cannot be read") from None
    spec = _from_text(text, repo.split("/")[-1].lower(), repo, "config.json of the repository", where)
    return _with_checkpoint(spec, _stored(repo))


@cache
def _stored(repo: str) -> checkpoint.Checkpoint | None:
    """Asked once per process: a preflight resolves its model many times."""
    return hub.stored(repo)


def _with_checkpoint(spec: ModelSpec, found: checkpoint.Checkpoint | None) -> ModelSpec:
    """The spec with what its files really hold."""
    if found is None:
        return spec
    update: dict[str, Any] = {"checkpoint": found}
    if spec.checkpoint_dtype is None and found.dtype is not None:
        update["checkpoint_dtype"] = found.dtype
    return spec.model_copy(update=update)


# Which architecture plain numbers mean, by what they say; the first that holds. Others are Llama-like.
_TELLS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"d_mlp": 0}, TOY),
    ({"positional": "alibi"}, "BloomForCausalLM"),
    ({"positional": "learned"}, "GPT2LMHeadModel"),
    ({"parallel_attn_mlp": True, "parallel_shared_norm": True}, "PhiForCausalLM"),
    ({"parallel_attn_mlp": True}, "GPTNeoXForCausalLM"),
    ({"norm_placement": "both"}, "Gemma2ForCausalLM"),
    ({"norm_placement": "post"}, "Olmo2ForCausalLM"),
    ({"qk_norm": "head"}, "Qwen3ForCausalLM"),
    ({"qkv_bias": True, "gated_mlp": True}, "Qwen2ForCausalLM"),
    ({"gated_mlp": False}, "GPT2LMHeadModel"),
    ({"norm": "layernorm"}, "GPT2LMHeadModel"),
)
_NOT_GIVEN = ("source", "checkpoint")
_INLINE_FIELDS = [name for name in ModelSpec.model_fields if name not in _NOT_GIVEN]


def _from_object(given: dict[str, Any]) -> ModelSpec:
    from .hf_config import spec_from_config

    if "model_type" in given or "architectures" in given:
        return spec_from_config(given, "inline", source="given by the caller")
    given = {key: value for key, value in given.items() if not (key in _NOT_GIVEN and value is None)}
    for key in given:
        if key not in _INLINE_FIELDS:
            close = nearest(str(key)[:80], _INLINE_FIELDS, 1)
            hint = f"; nearest: {close[0]}" if close else ""
            raise InputError(f"model: unknown field {_quoted(str(key))}{hint}; accepted: {', '.join(_INLINE_FIELDS)}")
    fields = {key: value for key, value in given.items() if value is not None}
    for key in ("n_layers", "d_model", "d_vocab"):
        if key not in fields:
            raise InputError(f"model: {key!r} is missing; needed: n_layers, d_model, d_vocab and n_heads or d_head")
    for key in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp", "d_vocab", "n_ctx"):
        value = fields.get(key, 1)
        floor = 0 if key == "d_mlp" else 1
        if isinstance(value, bool) or not isinstance(value, int) or not floor <= value <= 10_000_000:
            raise InputError(f"model: {key} must be a whole number from {floor} to 10000000, not {shown(value)}")
    d_model = fields["d_model"]
    if "n_heads" not in fields and "d_head" not in fields:
        raise InputError("model: 'n_heads' is missing; needed: n_layers, d_model, d_vocab and n_heads or d_head")
    one, other = ("n_heads", "d_head") if "n_heads" in fields else ("d_head", "n_heads")
    if other not in fields:
        if d_model % fields[one]:
            raise InputError(f"model: d_model {d_model} is not a multiple of {one} {fields[one]}; give {other} too")
        fields[other] = d_model // fields[one]
    architecture = fields.get("architecture")
    if architecture is None:
        says = (arch for tell, arch in _TELLS if all(fields.get(k) == v for k, v in tell.items()))
        architecture = next(says, "LlamaForCausalLM")
    elif not isinstance(architecture, str) or architecture not in FAMILIES:
        close = nearest(str(architecture)[:80], FAMILIES, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        raise InputError(
            f"model: architecture {shown(architecture)} is not covered{hint}; one of: {', '.join(FAMILIES)}"
        )
    fields["architecture"] = architecture
    fields = {
        "name": "inline", "n_kv_heads": fields["n_heads"], "d_mlp": 4 * d_model, "n_ctx": 2048,
        "source": "given by the caller",
    } | fields  # fmt: skip
    try:
        return ModelSpec(**with_family(fields))
    except ValidationError as error:
        raise InputError(f"model: {explain(error, ModelSpec)}") from None
    except (TypeError, OverflowError):
        raise InputError("model: an object of plain numbers and words is needed") from None
