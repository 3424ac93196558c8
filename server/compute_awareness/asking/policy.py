"""When compute is worth a word to the user: the conditions and their numbers. `triggers.py` evaluates them.

The rule behind the table: ask when the answer would change what to do, tell when it would not, and say nothing
about a run that any laptop can do.

| what is known of the place            | the run fits                     | barely fits       | does not fit |
|---------------------------------------|----------------------------------|-------------------|--------------|
| a laptop would do (see `small`)       | silent                           | tell              | tell         |
| the card (seen, or named)             | tell if a trigger fired          | tell              | ask: choice  |
| the caller says there is no GPU       | tell                             | tell              | ask: choice  |
| no GPU seen, runs are plainly here    | tell if quick, ask if a trigger  | ask if a trigger  | ask: place   |
| no GPU seen, runs may be elsewhere    | tell if quick on the CPU         | ask: place        | ask: place   |
| the place is not known                | ask: place                       |                   |              |

A known card that barely suffices is told, not asked about: memory peaks in the first steps, so a failure costs a
retry and no decision, and the words name the change that gives air.
"""

from __future__ import annotations

from typing import NamedTuple

from ..units import GIB
from .question import Trigger

LARGE_MODEL_PARAMS = 6_500_000_000
"""The 7B class begins here: Llama-2-7B has 6.74 billion, Pythia-6.9B 6.86, OLMo-7B 6.89; GPT-J-6B stays below."""

FULL_CACHE_TOKENS = 512
"""From this length on, attention scores and patterns (tokens squared) rival the rest of a full cache."""

FULL_CACHE_BLOCKS = 0.5
"""A cache that stops early still counts as full if it keeps more than this share of the blocks."""

LONG_HOURS = 2.0
"""Above this a run is long: past a coffee break, past what one leaves a free notebook open for, and real money on a
rented card. A run of exactly two hours is not."""

SMALL_DEVICE_BYTES = 4 * GIB
"""Below this (at the upper end of the estimate) any laptop holds the run."""

SMALL_HOST_BYTES = 12 * GIB
"""RAM for loading, and for what is kept beside the device, that a 16 GiB laptop can spare."""

QUICK_CPU_HOURS = 0.25
"""A CPU is good enough when it takes no longer than this."""

LAPTOP_FLOPS = 5e10
"""Floating-point operations per second that any laptop CPU sustains in float32 matrix products: a deliberately low
figure (four cores with AVX2 reach two to six times as much), so that 'quick' errs towards asking."""

LAPTOP_HALF_FLOPS = 1e9
"""The same in bfloat16 or float16. Without instructions for it 0.1 to 1.3 of these were measured on a core: a model in
16 bits that fits the RAM is no reason to run it there."""


class Condition(NamedTuple):
    """One trigger: when it fires and why that matters to the user."""

    trigger: Trigger
    when: str
    why: str


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        "does_not_fit",
        "the run does not fit the memory that is free on the known device",
        "it would end in out-of-memory, and only the user can say what to give up",
    ),
    Condition(
        "large_model",
        f"the language model is of the 7B class or larger (from {LARGE_MODEL_PARAMS / 1e9:.1f} billion parameters)",
        "its weights alone decide which cards can run it",
    ),
    Condition(
        "sae_training",
        "an SAE is trained",
        "optimizer state, gradients and the activation store come on top of both models, for the whole run",
    ),
    Condition(
        "full_activation_cache",
        f"every hook is cached for {FULL_CACHE_TOKENS} tokens or more",
        "the cache grows with the square of the length and is often several times the model",
    ),
    Condition(
        "long_running",
        f"the run may take more than {LONG_HOURS:g} hours on the device in question",
        "it costs somebody's time or money",
    ),
    Condition(
        "unclear_environment",
        "where the run will be is not known: no usable GPU is seen here, and it is not plain that runs are here",
        "the hardware of another place cannot be seen from here",
    ),
)
"""Strongest first: the order in which fired triggers are reported."""
