"""The estimate of what no closed form covers: the experiment's own library is run without weights, and watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..estimates.assemble import assemble, download_bytes, millions, repeatable
from ..memory.estimate import Estimate
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..versions import parse
from ..workload.fields import Task
from . import configs
from .extrapolate import NotLinear, Trace, extend
from .run import LIMIT_S, run_worker
from .work import work_of

LIBRARIES = {
    "transformers": "transformers", "transformer_lens": "transformer-lens", "transformer_bridge": "transformer-lens",
}  # fmt: skip
"""What is traced, and the name of its distribution."""
TASKS = {
    "transformers": ("inference", "generation", "training"),
    "transformer_lens": ("inference", "activation_cache", "generation", "training", "patching"),
    "transformer_bridge": ("inference", "activation_cache", "generation", "training", "patching"),
}
_COMPONENTS = {
    "parameters": "weights", "buffers": "buffers", "gradients": "gradients", "optimizer_state": "optimizer_state",
    "logits": "logits", "kv_cache": "kv_cache", "cache": "activation_cache",
}  # fmt: skip
_JOB_FIELDS = (
    "attention", "kv_cache", "output_hidden_states", "output_attentions", "names_filter", "layers", "stop_at_layer",
    "with_gradients", "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in",
    "gradient_checkpointing", "new_tokens", "compatibility_mode", "no_processing", "parameter_gradients",
)  # fmt: skip
_OPTIMIZERS = ("adamw", "adam", "sgd", "sgd_momentum")
# Switches of workloads that a trace on the CPU cannot show or the worker does not set, and the values that are fine.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "cache_device": (None,),  # on the CPU a copy to the CPU is none
    "quantization": (None,),
    "autocast": (False, None, "none"),
    "trainable": (None, "all"),
    "gradient_accumulation": (None, 1),
    "n_devices": (None, 1),
    "offload": (None,),
    "max_memory": (None,),
}


def traced(
    workload: Task,
    capability: str | None,
    python: str | None,
    *,
    config: dict[str, Any] | None = None,
    only_version: bool = False,
    environ: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Estimate:
    """What the workload takes, by a trace in the experiment's Python (5 to 30 s, most of it imports).

    Args:
        workload: a forward pass, a run with a cache, or a training step of transformers or HookedTransformer.
        capability: compute capability of the card, for the context; None = a typical card.
        python: path, folder or command of the experiment's Python; None = found as `choose_python` does.
        config: decoded Hugging Face `config.json` of a model that has no ModelSpec; None = `workload.model` is
            resolved. Only model classes of the installed transformers are built; no repository code is run.
        only_version: refuse a Python whose library is not the `library_version` that was asked for.
        environ: variables the child starts with; None = this process's.
        limit_s: seconds until the child is killed.

    Returns:
        The estimate with method "trace"; bytes as integers. In float32 the traced tensors are those of a run on the
        CPU, to the byte for the models of tests/trace (transformers 5.23.0, transformer-lens 3.9.0, torch 2.13).
    Raises:
        InputError: no such Python, libraries missing there, or code that decides by the contents of tensors.
    """
    given = workload.model_dump()
    library, task = given.get("library", ""), given["task"]
    _refuse(given, library, task)
    if config is not None and library == "transformer_lens":
        raise InputError(
            "HookedTransformer has no model for it; trace it with library transformers or transformer_bridge"
        )
    spec = None if config is not None else resolve(given["model"])
    job: dict[str, Any] = {name: given.get(name) for name in ("library", "task", "batch_size", "seq_len", "dtype")}
    job |= {name: given[name] for name in _JOB_FIELDS if given.get(name) is not None}
    if task == "training":
        job["optimizer"] = given.get("optimizer") or "adamw"
    if task == "patching":
        job |= {"method": given["method"], "patches": _patches(given, _depth(spec, config))}
    if spec is None:
        job["config"] = config
    elif library == "transformer_lens":
        job["config"] = configs.hooked_config(spec, folded=not given.get("no_processing"))
    else:
        job["config"] = configs.hf_config(spec)
    answer = run_worker(job, python, environ=environ, limit_s=limit_s)
    wanted, found = given.get("library_version"), answer["versions"].get(LIBRARIES[library])
    if only_version and wanted and found and parse(wanted) != parse(found):
        raise InputError(f"{answer['interpreter']!r} has {LIBRARIES[library]} {found}, not {wanted}")
    try:
        trace = extend(answer["traces"], answer.get("n_layers"))
    except NotLinear:
        answer = run_worker(job | {"whole": True}, python, environ=environ, limit_s=limit_s)
        trace = extend(answer["traces"], answer.get("n_layers"))
    return _estimate(given, spec, _depth(spec, config), capability, trace, answer)


def _patches(given: dict[str, Any], n_layers: int) -> int:
    """Patched passes of one sweep over layers and positions, each of which leaves a number; 0 of other tasks."""
    if given["task"] != "patching":
        return 0
    return len(given.get("layers") or range(n_layers)) * (given.get("positions") or given["seq_len"])


def _depth(spec: ModelSpec | None, config: dict[str, Any] | None) -> int:
    """The number of layers; 1 where a config does not say it under a name that is known."""
    if spec is not None:
        return spec.n_layers
    said = ((config or {}).get(name) for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"))
    return next((n for n in said if isinstance(n, int) and not isinstance(n, bool) and n > 0), 1)


def _refuse(given: dict[str, Any], library: str, task: str) -> None:
    if library not in TASKS:
        raise InputError(f"library: {library!r} is not traced yet; traced: {', '.join(TASKS)}")
    if task not in TASKS[library]:
        raise InputError(f"task {task!r} of {library} is not traced yet; traced: {', '.join(TASKS[library])}")
    for name, fine in _REFUSED.items():
        if name in given and given[name] not in fine:
            raise InputError(f"{name} {given[name]!r} is not traced yet")
    if given.get("method") in ("eap", "eap_ig"):
        raise InputError(f"method {given['method']!r} is not traced yet; traced: activation and attribution patching")
    if given.get("gradient_checkpointing") and library != "transformers":
        raise InputError(f"gradient_checkpointing: {library} has none; use library transformers")
    if task == "training" and given.get("optimizer") not in (None, *_OPTIMIZERS):
        raise InputError(f"optimizer {given['optimizer']!r} is not traced; traced: {', '.join(_OPTIMIZERS)}")


def _estimate(
    given: dict[str, Any],
    spec: ModelSpec | None,
    depth: int,
    capability: str | None,
    trace: Trace,
    answer: dict[str, Any],
) -> Estimate:
    task, library, dtype = given["task"], given["library"], given["dtype"]
    at_peak, retained = _components(trace.at_peak), _components(trace.retained)
    largest = Counter({name: max(at_peak[name], retained[name]) for name in at_peak | retained})
    largest["activations"] = at_peak["activations"]
    first = answer["traces"][0]
    versions = answer["versions"]
    with_versions = f"{LIBRARIES[library]} {versions.get(LIBRARIES[library], '?')}, torch {versions.get('torch', '?')}"
    n_layers = answer.get("n_layers")
    depths = [t["n_layers"] for t in answer["traces"]]
    how = "at its full depth"
    if len(depths) > 1:
        how = f"at {', '.join(map(str, depths[:-1]))} and {depths[-1]} layers, extended to {n_layers}"
    assumptions = [
        f"traced with {with_versions} in {answer['interpreter']} {how}: {first['class']} on fake CPU tensors, no GPU",
        f"worst moment: {_moment(trace.section)}",
    ]
    if library == "transformers":
        assumptions.append(f"attention implementation: {first.get('attention')}")
    if task == "training":
        assumptions.append(
            "second step of a plain loop in train mode, foreach optimizer; the model's output object is kept until the "
            "next step"
        )
    elif task != "patching" and not given.get("with_gradients"):
        assumptions.append("run under torch.no_grad(), in eval mode")
    assumptions += _said(given, library, depth)
    if given.get("reads"):
        assumptions.append("reads is not held against the hooks of a traced model")
    parts, counted = work_of(given, trace, _patches(given, depth))
    assumptions.append(counted)
    warnings = _warnings(given, answer)
    details = {
        "weights": f"{millions(trace.parameters)} parameters in {dtype}",
        "buffers": "rotary tables, masks and the like",
        "activation_cache": "storages that the returned activations keep alive",
        "activations": "everything else alive at the peak: intermediate results, what autograd saved, inputs",
        "kv_cache": "keys and values (or states) the pass returns",
        "gradients": "of the parameters, as far as they stand at the peak",
        "optimizer_state": f"of {given.get('optimizer') or 'adamw'}",
    }
    graph = task == "training" or given.get("with_gradients") or given.get("method") == "attribution_patching"
    estimate = assemble(
        given | {"model": repeatable(given.get("model"), spec)},
        at_peak,
        largest,
        details,
        capability,
        precision="close" if not graph and dtype == "float32" else "rough",
        verified_on=f"{with_versions} (a trace; no GPU measurement)",
        download_bytes=download_bytes(spec) if spec else None,
        work=parts,
        assumptions=assumptions,
        warnings=warnings,
    )
    estimate.method = "trace"
    return estimate


def _said(given: dict[str, Any], library: str, n_layers: int) -> list[str]:
    """What a reader must know of how the task was run."""
    task, said = given["task"], []
    if task == "generation":
        how = "greedy" if library == "transformers" else "default sampling"
        said.append(f"one call of generate ({how}), prompts without padding, every new token is made")
    if task == "patching" and given["method"] == "activation_patching":
        said.append(
            f"one patched pass after the other under torch.no_grad(), {_patches(given, n_layers)} of them per batch "
            "(layers x positions); the clean cache and its logits are kept"
        )
    elif task == "patching":
        said.append(
            "activations and gradients of the corrupted run are cached by hooks; a metric of one logit per prompt, "
            "then backward()"
        )
    if library == "transformer_bridge":
        mode = "plain"
        if given.get("compatibility_mode"):
            mode = "compatibility mode" + (" without processing" if given.get("no_processing") else "")
        said.append(f"loaded with TransformerBridge.boot_transformers, {mode}")
    return said


def _components(kinds: Mapping[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, nbytes in kinds.items():
        found[_COMPONENTS.get(kind, "activations")] += nbytes
    return found


def _moment(section: str) -> str:
    phase, _, place = section.partition(":")
    where = {"before": "at its beginning", "after": "after the layers"}.get(place)
    if phase == "backward":
        where = {"before": "at its end", "after": "at its beginning, near the loss"}.get(place)
    if where is None:
        side = "first" if place.startswith("layer+") else "last"
        where = f"in the {side} layers"
    phase = {
        "prompt": "the prompt's pass", "second": "the step after the prompt", "next": "a step of decoding",
        "last": "the last step of decoding", "clean": "the clean run", "patched": "a patched run",
        "scores": "the scores",
    }.get(phase, phase)  # fmt: skip
    return phase if phase in ("optimizer", "the scores") else f"{phase}, {where}"


def _warnings(given: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    warnings = []
    wanted = given.get("library_version")
    found = answer["versions"].get(LIBRARIES[given["library"]])
    if wanted and found and parse(wanted) != parse(found):
        warnings.append(f"library_version {wanted} was asked for, the trace ran {found}")
    if given["dtype"] != "float32":
        warnings.append(
            f"traced as on the CPU: in {given['dtype']} it converts before a float32 softmax, which CUDA does in one "
            "kernel; the figure can be high by that copy"
        )
    if given["task"] == "training":
        warnings.append("dropout masks are counted as the CPU keeps them (as floats); CUDA keeps one byte each")
    if "mamba" in answer["traces"][0]["class"].lower():
        warnings.append("a state-space model without its CUDA kernels (mamba-ssm, causal-conv1d); with them it differs")
    return warnings
