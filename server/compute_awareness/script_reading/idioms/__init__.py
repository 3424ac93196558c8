"""What libraries do, as far as it matters for memory: one module per library, each registers what it knows.

A function is known by the end of its dotted path (`HookedTransformer.from_pretrained`), whatever name it was imported
as. A method is known by its name where the object that it is called on is not known. Modules of libraries that a script
does not name are not imported: `register_for` sees to those that it does.
"""

from __future__ import annotations

from importlib import import_module

# What every script needs.
from . import options, own_sae, python, sae_lens, tokens, torch_modes, torch_tensors, transformer_lens
from .registry import FUNCTIONS, LIBRARY_NAMES, function_of, method_of

_WORDS = {
    "circuit_tracer": ("circuit_tracer", "ReplacementModel"),
    "configs": ("Config(",),
    "dictionary_learning": ("trainSAE", "ActivationBuffer"),
    "eap": ("eap", "Graph"),
    "einops": ("einops", "rearrange"),
    "nnsight": ("nnsight", "LanguageModel", "nnterp", "StandardizedTransformer", "UnifiedTransformer"),
    "peft": ("peft", "Lora", "Peft"),
    "settings": ("open(", "load(", "loads(", "Path"),
    "sparsify": ("sparsify",),
    "torch_training": ("optim", "backward", "Adam", "SGD", "schedule"),
    "trainers": ("Trainer", "TrainingArguments", "SFTConfig", "Accelerator"),
    "transformers": ("transformers", "ForCausalLM", "LMHeadModel", "Model.from_pretrained", ".generate(", "pipeline"),
    "vllm": ("vllm", "LLM("),
}
"""Modules by words without which a script cannot use what they know."""
_registered: set[str] = set()


def register_for(text: str) -> None:
    """Import the modules of the libraries that the text names."""
    for name, words in _WORDS.items():
        if name not in _registered and any(word in text for word in words):
            _registered.add(name)
            import_module(f".{name}", __package__)


MODULES = (options, own_sae, python, sae_lens, tokens, torch_modes, torch_tensors, transformer_lens)
__all__ = ["FUNCTIONS", "LIBRARY_NAMES", "MODULES", "function_of", "method_of", "register_for"]
