"""The layers of transformers 5.23 models in train mode, on symbolic tensors.

Each function of the families' modules (`training_gpt`, `training_llama`, ...) is one `forward` of `models/*/modeling_
*.py`, in its order and with its names, so that what a frame still holds is held here too.
"""

from __future__ import annotations

from ..autograd.graph import Var
from .training_bloom import bloom
from .training_context import Context
from .training_gpt import gpt2, gpt_neo, gptj, neox
from .training_llama import llama
from .training_opt import opt
from .training_parts import Model, Weights
from .training_phi import phi, phi3


def layer(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    """One decoder layer of the model's family: [b, s, d_model] to the same, and the weights if it returns them."""
    out, weights = _layer(model, w, x, context)
    return w.gives("layer", out), weights


def _layer(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    match model.spec.architecture:
        case "GPT2LMHeadModel":
            return gpt2(model, w, x, context), None
        case "GPTNeoXForCausalLM":
            return neox(model, w, x, context), None
        case "PhiForCausalLM":
            return phi(model, w, x, context), None
        case "Phi3ForCausalLM":
            return phi3(model, w, x, context), None
        case "OPTForCausalLM":
            return opt(model, w, x, context), None
        case "GPTNeoForCausalLM":
            return gpt_neo(model, w, x, context)
        case "GPTJForCausalLM":
            return gptj(model, w, x, context)
        case "BloomForCausalLM":
            return bloom(model, w, x, context)
        case _:
            return llama(model, w, x, context), None
