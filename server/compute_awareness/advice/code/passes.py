"""Code of one forward pass, plain or with activations kept, and of generation."""

from __future__ import annotations

import json
from textwrap import indent

from ...memory.huggingface.outputs import layout, paths, select
from ...models.resolve import resolve
from ...workload import ActivationCache, AnyWorkload, Generation, Inference
from .common import FOR_YOU, in_batches, load, no_grad
from .filters import hook_test, module_pattern, needs_fnmatch


def parts(workload: ActivationCache | Inference, whole: AnyWorkload, by_layer: bool, device: str) -> dict[str, str]:
    loading = {"load": load(workload, device)}
    if isinstance(workload, Inference):
        return loading | {"run": _plain(workload, whole)}
    if workload.library == "transformers":
        return loading | _hooked_modules(workload, whole, by_layer)
    if workload.library == "nnsight":
        return loading | {"run": _traced(workload, whole, by_layer)}
    return loading | {"run": _run_with_cache(workload, whole, by_layer)}


def _plain(workload: Inference, whole: AnyWorkload) -> str:
    if workload.library == "nnsight":
        body = f"with model.trace(batch):\n    {FOR_YOU}  # save what you need of it"
        return no_grad(in_batches(workload, whole, "input_ids", body))
    inputs, said = "tokens", []
    if workload.library == "transformers":
        inputs = "input_ids"
        if workload.kv_cache is False:
            said.append("use_cache=False")
        said += [f"{name}=True" for name in ("output_hidden_states", "output_attentions") if getattr(workload, name)]
    body = f"output = model({', '.join(['batch', *said])})\n{FOR_YOU}  # keep what you need of it\ndel output"
    return no_grad(in_batches(workload, whole, inputs, body))


def _run_with_cache(workload: ActivationCache, whole: AnyWorkload, by_layer: bool) -> str:
    spec = resolve(workload.model)
    test = hook_test(workload.names_filter, None if by_layer else workload.layers, spec)
    said = ["batch"]
    if by_layer:
        said += [
            'names_filter=lambda name: name.startswith(f"blocks.{layer}.")' + (f" and {test}" if test else ""),
            "stop_at_layer=layer + 1",
        ]
    else:
        if test:
            said.append(f"names_filter=lambda name: {test}")
        if workload.stop_at_layer is not None:
            said.append(f"stop_at_layer={workload.stop_at_layer}")
    if workload.cache_device == "cpu":
        said.append('device="cpu"')
    # [1], not a name for the logits: they would stay alive through the next pass.
    body = f"cache = model.run_with_cache({', '.join(said)})[1]"
    if workload.with_gradients:
        body = f"logits, cache = model.run_with_cache({', '.join(said)})"
        body += f"\n{FOR_YOU}  # backward, and keep what you need\ndel logits, cache"
    else:
        body += f"\n{FOR_YOU}  # keep what you need of it\ndel cache"
    if by_layer:
        body = f"for layer in range({spec.n_layers}):\n{indent(body, '    ')}"
    code = no_grad(in_batches(workload, whole, "tokens", body), not workload.with_gradients)
    return needs_fnmatch(test) + code


def _hooked_modules(workload: ActivationCache, whole: AnyWorkload, by_layer: bool) -> dict[str, str]:
    """Forward hooks on the modules that names_filter names, and the passes."""
    spec = resolve(workload.model)
    pattern = module_pattern(workload.names_filter, None if by_layer else workload.layers, spec)
    kept = "output" if workload.with_gradients and workload.cache_device is None else "output.detach()"
    if workload.cache_device == "cpu":
        kept += ".cpu()"
    hooks = (
        "import re\nkept = {}\n"
        "def keep(name):\n"
        "    def hook(module, args, output):\n"
        "        output = output[0] if isinstance(output, tuple) else output\n"
        f"        kept[name] = {kept}\n"
        "    return hook\n"
        "def register(pattern):\n"
        "    named = [pair for pair in model.named_modules() if re.fullmatch(pattern, pair[0])]\n"
        "    return [module.register_forward_hook(keep(name)) for name, module in named]"
    )
    body = f"model(batch)\n{FOR_YOU}  # keep what you need of kept\nkept.clear()"
    if workload.with_gradients:
        body = f"output = model(batch)\n{FOR_YOU}  # backward, and keep what you need\nkept.clear()\ndel output"
    run = no_grad(in_batches(workload, whole, "input_ids", body), not workload.with_gradients)
    if not by_layer:
        return {"hooks": f'{hooks}\nhandles = register(r"{pattern}")', "run": run}
    layers = layout(spec).layers.replace(".", r"\.")
    each = (
        f'handles = register(rf"(?={layers}\\.{{layer}}(\\.|$))({pattern})")\n{run}\n'
        "for handle in handles:\n    handle.remove()"
    )
    return {"hooks": hooks, "run": f"for layer in range({spec.n_layers}):\n{indent(each, '    ')}"}


def _traced(workload: ActivationCache, whole: AnyWorkload, by_layer: bool) -> str:
    """nnsight: modules by path, layer by layer, as a trace must read them."""
    spec = resolve(workload.model)
    families = select(spec, workload.names_filter, workload.layers, False).families
    layers = sorted({layer % spec.n_layers for layer in workload.layers or range(spec.n_layers)})
    inside = [path.replace("*", "{layer}") for path, _, _ in families if "*" in path]
    ends = [f'"{path}"' for path, _, _ in families if "*" not in path and not by_layer]
    every = f"range({spec.n_layers})" if len(layers) == spec.n_layers else repr(layers)
    names = ", ".join(f'f"{path}"' for path in inside)
    if by_layer:
        read = f"[{names}]"
    elif any(count < len(layers) for path, _, count in families if "*" in path):  # the filter names blocks
        read = json.dumps(paths(spec, workload.names_filter, workload.layers))
    else:
        read = f"[path for layer in {every} for path in ({names},)]" if inside else "[]"
        read += f" + [{', '.join(ends)}]" if ends else ""
    kept = "first(model.get(path).output)" + ("" if workload.with_gradients else ".detach()")
    kept += ".cpu()" if workload.cache_device == "cpu" else ""
    body = (
        f"with model.trace(batch):\n    kept = nnsight.save([{kept} for path in {read}])\n"
        f"{FOR_YOU}  # keep what you need of it\ndel kept"
    )
    if by_layer:
        body = f"for layer in range({spec.n_layers}):\n{indent(body, '    ')}"
    code = no_grad(in_batches(workload, whole, "input_ids", body), not workload.with_gradients)
    return f"first = lambda output: output[0] if isinstance(output, tuple) else output\n{code}"


def generation(workload: Generation, whole: AnyWorkload, device: str) -> dict[str, str]:
    said = [f"max_new_tokens={workload.new_tokens}"]
    if not workload.kv_cache:
        said.append("use_cache=False" if workload.library == "transformers" else "use_past_kv_cache=False")
    inputs = "input_ids" if workload.library == "transformers" else "tokens"
    body = f"texts += list(model.generate(batch, {', '.join(said)}))"
    return {"load": load(workload, device), "run": "texts = []\n" + in_batches(workload, whole, inputs, body)}
