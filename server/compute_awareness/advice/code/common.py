"""What the code of several tasks has in common: how a model is loaded, and the loop over smaller batches."""

from __future__ import annotations

import json
import re
from textwrap import indent
from typing import Any

from ...memory.huggingface.outputs import layout
from ...models.resolve import resolve
from ...models.spec import ModelSpec
from ...versions import parse
from ...workload import AnyWorkload

FOR_YOU = "..."
"""Stands in the code where the experiment's own lines go."""


def load(workload: Any, device: str) -> str:
    """The line that loads the language model. Arguments that have the library's default are left out."""
    spec = resolve(workload.model)
    name = spec.hf_id or spec.name
    dtype = f", dtype=torch.{workload.dtype}"
    if getattr(workload, "n_devices", 1) > 1 and workload.task != "training":
        device = "auto"
    match workload.library:
        case "transformers":
            return _transformers(workload, name, device)
        case "nnsight":
            return f'model = LanguageModel("{name}", dtype=torch.{workload.dtype}, device_map="{device}")'
        case "transformer_bridge":
            lines = f'model = TransformerBridge.boot_transformers("{name}"{dtype}, device="{device}")'
            if workload.compatibility_mode:
                lines += f"\nmodel.enable_compatibility_mode({'no_processing=True' * workload.no_processing})"
            return lines
    loader = "from_pretrained_no_processing" if workload.no_processing else "from_pretrained"
    return f'model = HookedTransformer.{loader}("{spec.tl_name or spec.name}"{dtype}, device="{device}")'


def _transformers(workload: Any, name: str, device: str) -> str:
    # It is called dtype from 4.56 on; torch_dtype is the older name.
    old = workload.library_version is not None and parse(workload.library_version) < (4, 56, 0)
    word = "torch_dtype" if old else "dtype"
    said = [f'"{name}"', f"{word}=torch.{workload.dtype}"]
    if workload.attention is not None:
        said.append(f'attn_implementation="{workload.attention}"')
    quantization = getattr(workload, "quantization", None) or ""
    if quantization.startswith("bitsandbytes_"):
        bits = quantization.removeprefix("bitsandbytes_").removesuffix("bit")
        said.append(f"quantization_config=BitsAndBytesConfig(load_in_{bits}bit=True)")
        said.append(f'device_map="{device}"')
        imports = "from transformers import BitsAndBytesConfig\n"
        return f"{imports}model = AutoModelForCausalLM.from_pretrained(\n    {', '.join(said)}\n)"
    if getattr(workload, "parallel", None) == "fsdp":  # which moves it to the card block by block
        return f"model = AutoModelForCausalLM.from_pretrained({', '.join(said)})"
    where = getattr(workload, "offload", None)
    if where == "disk":
        said += [f"device_map={_on_disk(resolve(workload.model), device)}", 'offload_folder="offload"']
        return f"model = AutoModelForCausalLM.from_pretrained(\n    {', '.join(said)}\n)"
    if where == "cpu":
        return (
            f"from accelerate import cpu_offload\nmodel = AutoModelForCausalLM.from_pretrained({', '.join(said)})\n"
            f'cpu_offload(model, execution_device="{device}")'
        )
    if limits := getattr(workload, "max_memory", None):
        written = ", ".join(f"{0 if on == '0' else json.dumps(on)}: {json.dumps(size)}" for on, size in limits.items())
        said += ['device_map="auto"', f"max_memory={{{written}}}", 'offload_folder="offload"']
        return f"model = AutoModelForCausalLM.from_pretrained(\n    {', '.join(said)}\n)"
    if device == "auto":
        return f'model = AutoModelForCausalLM.from_pretrained({", ".join(said)}, device_map="auto")'
    return f'model = AutoModelForCausalLM.from_pretrained({", ".join(said)}).to("{device}")'


def _on_disk(spec: ModelSpec, device: str) -> str:
    """A device_map with all weights on disk but the last norm's: accelerate takes the device of what is not offloaded
    for that of the computing."""
    known = layout(spec)
    places = dict.fromkeys([*(path for path, role in known.ends.items() if role in _HELD), known.layers], "disk")
    places |= {path: device for path, role in known.ends.items() if role == "norm"}
    if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM":
        places[f"{known.layers.split('.')[0]}.rotary_emb"] = device
    return "{" + ", ".join(f'"{path}": "{place}"' for path, place in places.items()) + "}"


_HELD = ("embed", "positions", "input", "lm_head")
"""Roles of the modules outside the layers that can have weights, beside the last norm."""


def in_batches(workload: AnyWorkload, whole: AnyWorkload, inputs: str, body: str) -> str:
    """`body` over `batch`: all of `inputs` at once, or a loop where the batch is smaller than the whole one.

    `inputs` [whole batch, seq_len] are cut where the sequences are to be shorter.
    """
    size, length = getattr(workload, "batch_size", 1), getattr(workload, "seq_len", None)
    if length is not None and length < getattr(whole, "seq_len", length):
        inputs = f"{inputs}[:, :{length}]"
    if size >= getattr(whole, "batch_size", size):
        return re.sub(r"\bbatch\b", inputs, body)
    return f"for batch in {inputs}.split({size}):\n{indent(body, '    ')}"


def no_grad(body: str, on: bool = True) -> str:
    """`body` without an autograd graph."""
    return f"with torch.no_grad():\n{indent(body, '    ')}" if on else body
