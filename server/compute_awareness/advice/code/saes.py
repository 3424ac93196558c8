"""Code of sparse autoencoders: SAELens' and dictionary_learning's arguments, and the use of a trained SAE."""

from __future__ import annotations

from textwrap import indent
from typing import Any

from ...hook_names import layer_of
from ...models.resolve import resolve
from ...workload import AnyWorkload, SaeInference, SaeTraining
from .common import FOR_YOU, in_batches, no_grad

_SAELENS = (
    "model_dtype", "context_size", "train_batch_size_tokens", "n_batches_in_buffer", "store_batch_size_prompts",
    "eval_batch_size_prompts", "act_store_device",
)  # fmt: skip


def training(workload: SaeTraining, whole: AnyWorkload) -> dict[str, str]:
    """The library's arguments that are not those of `whole`; the others stay as the experiment has them."""
    if workload.library == "dictionary_learning":
        return _dictionary_learning(workload, whole)
    said = _changed(workload, whole, _SAELENS)
    if "model_dtype" in said:
        said["model_from_pretrained_kwargs"] = {"dtype": said.pop("model_dtype")}
    return {"config": _call("LanguageModelSAERunnerConfig", said)}


def _dictionary_learning(workload: SaeTraining, whole: AnyWorkload) -> dict[str, str]:
    said = _changed(workload, whole, ("train_batch_size_tokens", "n_ctxs", "ctx_len", "refresh_batch_size"))
    if "train_batch_size_tokens" in said:
        said["out_batch_size"] = said.pop("train_batch_size_tokens")
    if workload.model is None:
        size = said.get("out_batch_size")
        return {"config": f"data = (part for batch in data for part in batch.split({size}))" if size else ""}
    loading = ""
    if _changed(workload, whole, ("model_dtype",)):
        spec = resolve(workload.model)
        name = spec.hf_id or spec.name
        loading = (
            f'model = LanguageModel("{name}", torch_dtype=torch.{workload.model_dtype}, device_map="cuda", '
            "dispatch=True)"
        )
    run = ""
    if isinstance(whole, SaeTraining) and workload.n_saes < whole.n_saes:
        run = "for trainer_config in trainer_configs:\n    trainSAE(buffer, [trainer_config], steps=steps)"
    return {"load": loading, "config": _call("ActivationBuffer", said), "run": run}


def _changed(workload: SaeTraining, whole: AnyWorkload, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(workload, name) for name in names if getattr(workload, name) != getattr(whole, name)}


def _call(name: str, said: dict[str, Any]) -> str:
    """A call with these arguments and those that it has already; "" where there are none."""
    lines = "".join(f"    {key}={value!r},\n".replace("'", '"') for key, value in said.items())
    return f"{name}(\n    ...,  # your other arguments\n{lines})" if said else ""


def inference(workload: SaeInference, whole: AnyWorkload, device: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if workload.model is not None:
        spec = resolve(workload.model)
        name = spec.tl_name or spec.name
        found["load"] = (
            f'model = HookedSAETransformer.from_pretrained("{name}", dtype=torch.{workload.model_dtype}, '
            f'device="{device}")'
        )
    loaded = f'SAE.from_pretrained(release, sae_id, device="{device}", dtype="{workload.dtype}")'
    run = _use(workload, whole)
    if workload.n_saes > 1:
        found["sae"] = f"saes = [{loaded} for sae_id in sae_ids]"
    elif isinstance(whole, SaeInference) and whole.n_saes > 1:
        run = f"for sae_id in sae_ids:\n{indent(f'sae = {loaded}{chr(10)}{run}{chr(10)}del sae', '    ')}"
    else:
        found["sae"] = f"sae = {loaded}"
    return found | {"run": run}


def _use(workload: SaeInference, whole: AnyWorkload) -> str:
    end = f"\n{FOR_YOU}  # keep the features that are active\ndel features"
    if workload.model is None:
        encode = "sae.encode(batch)" if workload.n_saes == 1 else "[sae.encode(batch) for sae in saes]"
        return no_grad(in_batches(workload, whole, "activations", f"features = {encode}{end}"))
    if workload.splice:
        error = ", use_error_term=True" * workload.use_error_term
        kept = f'names_filter="{workload.hook_name}.hook_sae_acts_post"'
        body = f"features = model.run_with_cache_with_saes(\n    batch, saes=[sae], {kept}{error}\n)[1]{end}"
        if not workload.keep_features:
            body = f"output = model.run_with_saes(batch, saes=[sae]{error})\n{FOR_YOU}\ndel output"
        return no_grad(in_batches(workload, whole, "tokens", body))
    hook = workload.hook_name
    assert hook is not None
    layer = layer_of(hook)
    stop = f", stop_at_layer={layer + 1}" if workload.stop_after_hook and layer is not None else ""
    body = f'cache = model.run_with_cache(batch, names_filter="{hook}"{stop})[1]\n'
    encode = f'features = sae.encode(cache["{hook}"])'
    if workload.n_saes > 1:
        encode = f'features = [sae.encode(cache["{hook}"]) for sae in saes]'
    return no_grad(in_batches(workload, whole, "tokens", f"{body}{encode}{end}, cache"))
