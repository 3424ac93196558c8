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
from ..runtime.flops import forward_flops
from ..versions import parse
from ..workload.fields import Task
from . import configs
from .extrapolate import NotLinear, Trace, extend
from .run import LIMIT_S, run_worker

LIBRARIES = {"transformers": "transformers", "transformer_lens": "transformer-lens"}
"""What is traced, and the name of its distribution."""
TASKS = {
    "transformers": ("inference", "training"),
    "transformer_lens": ("inference", "activation_cache", "training"),
}
_COMPONENTS = {
    "parameters": "weights", "buffers": "buffers", "gradients": "gradients", "optimizer_state": "optimizer_state",
    "logits": "logits", "kv_cache": "kv_cache", "cache": "activation_cache",
}  # fmt: skip
_JOB_FIELDS = (
    "attention", "kv_cache", "output_hidden_states", "output_attentions", "names_filter", "layers", "stop_at_layer",
    "with_gradients", "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in",
    "gradient_checkpointing",
)  # fmt: skip
_OPTIMIZERS = ("adamw", "adam", "sgd", "sgd_momentum")
# Switches of workloads that a trace on the CPU cannot show or the worker does not set, and the values that are fine.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "cache_device": (None,),
    "quantization": (None,),
    "compatibility_mode": (False,),
    "autocast": (False, None, "none"),
    "trainable": (None, "all"),
}


def traced(
    workload: Task,
    capability: str | None,
    python: str | None,
    *,
    config: dict[str, Any] | None = None,
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
    if config is not None and library != "transformers":
        raise InputError("config: a Hugging Face config is traced with library 'transformers' only")
    spec = None if config is not None else resolve(given["model"])
    job: dict[str, Any] = {name: given.get(name) for name in ("library", "task", "batch_size", "seq_len", "dtype")}
    job |= {name: given[name] for name in _JOB_FIELDS if given.get(name) is not None}
    if task == "training":
        job["optimizer"] = given.get("optimizer") or "adamw"
    if spec is None:
        job["config"] = config
    elif library == "transformers":
        job["config"] = configs.hf_config(spec)
    else:
        job["config"] = configs.hooked_config(spec, folded=not given.get("no_processing"))
    answer = run_worker(job, python, environ=environ, limit_s=limit_s)
    try:
        trace = extend(answer["traces"], answer.get("n_layers"))
    except NotLinear:
        answer = run_worker(job | {"whole": True}, python, environ=environ, limit_s=limit_s)
        trace = extend(answer["traces"], answer.get("n_layers"))
    return _estimate(given, spec, capability, trace, answer)


def _refuse(given: dict[str, Any], library: str, task: str) -> None:
    if library not in TASKS:
        raise InputError(f"library: {library!r} is not traced yet; traced: {', '.join(TASKS)}")
    if task not in TASKS[library]:
        raise InputError(f"task {task!r} of {library} is not traced yet; traced: {', '.join(TASKS[library])}")
    for name, fine in _REFUSED.items():
        if name in given and given[name] not in fine:
            raise InputError(f"{name} {given[name]!r} is not traced yet")
    if task == "training" and given.get("optimizer") not in (None, *_OPTIMIZERS):
        raise InputError(f"optimizer {given['optimizer']!r} is not traced; traced: {', '.join(_OPTIMIZERS)}")


def _estimate(
    given: dict[str, Any], spec: ModelSpec | None, capability: str | None, trace: Trace, answer: dict[str, Any]
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
    elif not given.get("with_gradients"):
        assumptions.append("run under torch.no_grad(), in eval mode")
    flops, counted = _flops(given, spec, trace)
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
    no_grad = task != "training" and not given.get("with_gradients")
    estimate = assemble(
        given | {"model": repeatable(given.get("model"), spec)},
        at_peak,
        largest,
        details,
        capability,
        precision="close" if no_grad and dtype == "float32" else "rough",
        verified_on=f"{with_versions} (a trace; no GPU measurement)",
        download_bytes=download_bytes(spec) if spec else None,
        flops=flops,
        assumptions=assumptions,
        warnings=warnings,
    )
    estimate.method = "trace"
    return estimate


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
    return phase if phase == "optimizer" else f"{phase}, {where}"


def _flops(given: dict[str, Any], spec: ModelSpec | None, trace: Trace) -> tuple[int, str]:
    times = 3 if given["task"] == "training" else 1
    if spec is not None:
        return times * forward_flops(spec, given["batch_size"], given["seq_len"]), "operations counted from its shapes"
    tokens = given["batch_size"] * given["seq_len"]
    return (
        times * 2 * trace.parameters * tokens,
        "operations taken as 2 per parameter and token: attention scores are left out, idle experts counted",
    )


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
