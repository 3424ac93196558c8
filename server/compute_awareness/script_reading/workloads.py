"""From what a script does to the workloads that are estimated: fields with their values, and which are not known."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InputError
from ..models.catalogue import find
from ..models.spec import ModelSpec
from ..workload import TASKS, AnyWorkload, parse_workload
from .events import Event
from .values import Choice, Items, Known, Unknown, bound

_IN_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
RANGED = ("batch_size", "seq_len", "new_tokens")
"""Fields that need not be known: memory grows with them, so the bounds of them bound it."""
_LONGEST = 1_000_000
_NOT_ESTIMATED = {"vllm": "vLLM takes gpu_memory_utilization (0.9 by default) of the card, whatever the model needs"}
AT_LEAST = {
    "circuit_tracer": "circuit-tracer's transcoders and graphs are not estimated yet: the model alone is counted",
    "sparsify": "sparsify's trainings are not estimated yet: the model alone is counted",
}
"""Libraries of which only the model is counted, which is the least that a call takes."""


def plain(value: Any) -> Any:
    """A value as the workload's field has it; None where it is not known."""
    if isinstance(value, Known):
        return value.value
    if isinstance(value, Items) and not value.more:
        items = [plain(item) for item in value.items]
        return None if any(item is None for item in items) else items
    return None


def unknown_fields(event: Event) -> dict[str, Unknown]:
    """The fields of the call that are not known, with why and at most how much."""
    found: dict[str, Unknown] = {}
    for name, value in event.fields.items():
        if isinstance(value, Unknown):
            found[name] = value
        elif isinstance(value, Choice):
            shown = ", ".join(str(plain(option)) for option in value.options if plain(option) is not None)
            found[name] = Unknown(f"one of {shown}" if shown else "one of several", bound(value))
        elif plain(value) is None and not isinstance(value, Known):
            found[name] = Unknown("not known")
    return found


def task_of(event: Event) -> str:
    """The task that is estimated for it."""
    if event.kind == "load":
        return "inference"
    if event.kind == "patching" and plain(event.fields.get("method")) == "activation_patching":
        return "inference"  # a patched pass beside the caches that are alive, which are counted on their own
    # A pass with a graph that nobody goes back through is a cache of one hook with its graph.
    if event.kind == "inference" and _graph(event) and library_of(event) != "nnsight":
        return "activation_cache"
    return event.kind


def _graph(event: Event) -> bool:
    return plain(event.fields.get("with_gradients")) is True


def library_of(event: Event) -> str:
    return str(plain(event.fields.get("library")) or "")


def workload_fields(event: Event) -> dict[str, Any]:
    """The known fields of the call, as `parse_workload` takes them; those of `RANGED` may be missing."""
    task = task_of(event)
    accepted = TASKS[task].model_fields
    fields = {name: plain(value) for name, value in event.fields.items() if name in accepted}
    fields = {name: value for name, value in fields.items() if value is not None}
    fields["task"] = task
    library = fields.get("library", "")
    if library == "own":
        copies = plain(event.fields.get("copies")) or 1
        fields |= {"library": "sae_lens", "architecture": "standard", "d_in": (fields.get("d_in") or 1) * copies}
        fields.pop("optimizer", None)
    if event.kind == "load":
        fields |= {"seq_len": 1, "batch_size": 1}
    if task == "activation_cache" and event.kind == "inference":
        fields["names_filter"] = _embedding(library)
        fields["with_gradients"] = True
    if fields.get("dtype") == "auto" or (
        event.kind != "sae_training" and "dtype" not in fields and library != "sae_lens"
    ):
        model = fields.get("model")
        spec = find(model) if isinstance(model, str) else None
        fields["dtype"] = (spec.checkpoint_dtype if spec else None) or "float32"
    if casts_nothing(fields):
        fields.pop("autocast")
    if task == "sae_inference" and fields.get("model") is None:
        fields.pop("hook_name", None)
    if event.kind == "patching" and task == "inference":
        fields.pop("method", None)  # of patching it is the kind, elsewhere how the estimate is made
    if task == "patching" and fields.get("method") in ("eap", "eap_ig"):
        fields.pop("names_filter", None)
    if library.startswith("transformer_") and not library.endswith("lens"):
        for name in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in"):
            if fields.get(name) is False:
                fields.pop(name)
    return fields


def _embedding(library: str) -> list[str]:
    """The smallest thing of a model to keep, by its name in the library."""
    return ["hook_embed"] if library.startswith("transformer_") else ["*embed*", "*wte"]


def read_of(event: Event) -> list[str] | None:
    """The hooks that the script reads of the cache that the call makes, by name; None where it may read any, or where
    nobody can say which it keeps."""
    from .idioms.activation_cache import Cache

    caches = [one for one in event.result or [] if isinstance(one, Cache)]
    if event.kind != "activation_cache" or not isinstance(event.fields.get("names_filter"), Known):
        return None
    if any(cache.read_all for cache in caches):
        return None
    return sorted({name for cache in caches for name in cache.read}) or None


def as_globs(names: list[str], spec: ModelSpec | None) -> list[str]:
    """The names with one glob for what is read of every block: a list of all blocks says less in more words."""
    blocks: dict[str, set[str]] = {}
    for name in names:
        if (match := _IN_BLOCK.match(name)) is not None:
            blocks.setdefault(match.group(2), set()).add(match.group(1))
    # A glob of a Bridge's block hooks would match those of its parts, too.
    whole = {
        hook for hook, found in blocks.items()
        if spec is not None and len(found) == spec.n_layers > 1 and hook not in ("hook_in", "hook_out")
    }  # fmt: skip
    return list(dict.fromkeys(_IN_BLOCK.sub(r"blocks.*.\2", name) if _of(name) in whole else name for name in names))


def _of(name: str) -> str:
    return _IN_BLOCK.sub(r"\2", name)


def casts_nothing(fields: dict[str, Any]) -> bool:
    """Whether autocast is on over weights that have its dtype already: what is left is rough, some sums in float32."""
    return fields.get("autocast") is not None and fields["autocast"] == fields.get("dtype")


def blocking(event: Event, unknown: dict[str, Unknown]) -> list[str]:
    """Fields without which there is no estimate at all."""
    needed = {"model"} if event.kind not in ("sae_inference", "sae_training", "load_sae") else set()
    accepted = TASKS[task_of(event)].model_fields if task_of(event) in TASKS else {}
    skipped = {"device", "names_filter", "training_tokens", "evaluation", "device_map", *RANGED}
    names = [name for name in unknown if name in accepted and name not in skipped]
    names += [name for name in needed if name in unknown and name not in names]
    if event.kind in ("sae_training", "sae_inference") and "d_sae" in unknown and "d_sae" not in names:
        names.append("d_sae")
    return names


def variants(event: Event) -> tuple[AnyWorkload | None, AnyWorkload | None, AnyWorkload | None]:
    """The workload at the least, as stated, and at the most; `None` where the text does not give it.

    All three are the same where every field is known.

    Raises:
        InputError: a field that the workload does not accept, or one that must be known and is not.
    """
    if (why := _NOT_ESTIMATED.get(library_of(event))) is not None:
        raise InputError(why)
    unknown = unknown_fields(event)
    if library_of(event) in AT_LEAST:
        return _model_alone(event), None, None
    missing = blocking(event, unknown)
    if missing:
        raise InputError(", ".join(f"{name} is not known ({unknown[name].why})" for name in missing))
    fields = workload_fields(event)
    ranged = [] if event.kind == "load" else [
        name for name in RANGED if name in unknown and name in TASKS[task_of(event)].model_fields]  # fmt: skip
    filter_unknown = "names_filter" in unknown and event.kind == "activation_cache"
    if not ranged and not filter_unknown:
        exact = parse_workload(fields)
        return exact, exact, exact
    least, most = dict(fields), dict(fields)
    for name in ranged:
        least[name] = 1
        top = unknown[name].at_most
        most[name] = min(top, _LONGEST) if top is not None and top >= 1 else None
    if filter_unknown:
        least["names_filter"] = _embedding(library_of(event))
    whole = None if any(value is None for value in most.values()) else parse_workload(most)
    return parse_workload(least), None, whole


def _model_alone(event: Event) -> AnyWorkload:
    """A pass of one token through the model that the call runs, as transformers holds it. Raises InputError."""
    name, dtype = plain(event.fields.get("model")), plain(event.fields.get("dtype"))
    if name is None:
        raise InputError("model is not known")
    if dtype is None:
        dtype = plain(getattr(event.subject, "dtype", None))
    spec = find(name) if isinstance(name, str) else None
    if dtype in (None, "auto"):
        dtype = (spec.checkpoint_dtype if spec else None) or "bfloat16"
    return parse_workload({
        "task": "inference", "model": name, "library": "transformers", "dtype": dtype, "batch_size": 1, "seq_len": 1,
    })  # fmt: skip


def changed(workload: AnyWorkload, **fields: Any) -> AnyWorkload:
    return parse_workload(workload.model_dump() | fields)
