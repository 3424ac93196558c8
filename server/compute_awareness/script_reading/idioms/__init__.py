"""What libraries do, as far as it matters for memory: one module per library, each registers what it knows.

A function is known by the end of its dotted path (`HookedTransformer.from_pretrained`), whatever name it was imported
as. A method is known by its name where the object that it is called on is not known.
"""

from __future__ import annotations

from .registry import FUNCTIONS, LIBRARY_NAMES, function_of, method_of

# Importing them registers what they know.
from . import (  # isort: skip
    circuit_tracer,
    configs,
    dictionary_learning,
    eap,
    einops,
    nnsight,
    options,
    own_sae,
    peft,
    python,
    sae_lens,
    settings,
    sparsify,
    tokens,
    torch_modes,
    torch_tensors,
    torch_training,
    trainers,
    transformer_lens,
    transformers,
    vllm,
)

MODULES = (
    circuit_tracer, configs, dictionary_learning, eap, einops, nnsight, options, own_sae, peft, python, sae_lens,
    settings, sparsify, tokens, torch_modes, torch_tensors, torch_training, trainers, transformer_lens, transformers,
    vllm,
)  # fmt: skip
__all__ = ["FUNCTIONS", "LIBRARY_NAMES", "MODULES", "function_of", "method_of"]
