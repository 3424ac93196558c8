"""What the estimates around an SAE share: the hooked language model, its number of features, its options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from .. import hook_names
from ..errors import InputError
from ..memory import weights
from ..memory.hooked import transformer as hooked_transformer
from ..memory.hooked.autocast import call_under_autocast
from ..memory.hooked.transformer import Run
from ..memory.sae import training as sae
from ..memory.sae.matching_pursuit import Pursuit
from ..memory.sae.step import INDEX
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..workload import SaeTraining
from ..workload.sae_inference import SaeInference
from .hooked_training import standing_buffers


@dataclass(frozen=True)
class HookedModel:
    """The language model of an SAE task: the call that reaches the hook, what it takes, the hook's width."""

    spec: ModelSpec
    run: Run
    width_of_hook: int

    @cached_property
    def played(self) -> hooked_transformer.Forward:
        return hooked_transformer.forward(self.run)

    @property
    def weights(self) -> int:
        """Bytes."""
        return weights.tl_params(self.spec, False) * self.run.width

    @property
    def buffers(self) -> int:
        """Bytes."""
        return weights.tl_buffer_bytes(self.spec, self.run.width)

    @property
    def _tokens(self) -> int:
        """Bytes of the input tokens, which the call's tape begins with and the store counts itself."""
        return INDEX * self.run.batch_size * self.run.seq_len

    @property
    def part(self) -> sae.LanguageModelPart:
        """Weights, buffers and the call, as the activation store sees them. Bytes."""
        return sae.LanguageModelPart(
            weights=self.weights,
            buffers=self.buffers,
            forward_peak=self.played.tape.peak - self._tokens,
            retained=self.played.tape.by_component["activation_cache"],
        )

    def part_under_autocast(self, *, cpu: bool = False) -> sae.LanguageModelPart:
        """The same with the call under torch.autocast, after the first: ALiBi's biases and longer rotary tables are
        there. `cpu`: also what only torch's CPU kernels allocate."""
        call = call_under_autocast(replace(self.run, autocast=True), cpu)
        return replace(
            self.part,
            buffers=standing_buffers(self.spec, self.run),
            forward_peak=call.peak - self._tokens,
            retained=call.retained,
        )


def hooked_model(
    model: str | dict[str, Any], hook_name: str, batch_size: int, seq_len: int, width: int, d_in: int | None
) -> HookedModel:
    """The model run up to the block of `hook_name`, which is cached, loaded with from_pretrained_no_processing.

    Raises:
        InputError: unknown model or hook, a hook that is no vector per token, a d_in that is not its width.
    """
    spec = resolve(model)
    layer = hook_names.layer_of(hook_name)
    run = Run(
        spec, batch_size, seq_len, width, folded=False,
        selects=hook_names.only(hook_name),
        stop_at_layer=None if layer is None else layer + 1,
    )  # fmt: skip
    if layer is not None and layer >= spec.n_layers:
        raise InputError(f"hook_name: block {layer} is outside the {spec.n_layers} blocks of {spec.name}")
    if not _fires(replace(run, batch_size=1, seq_len=1)):
        raise InputError(hook_names.no_such_hook(hook_name, run))
    width_of_hook = hook_names.hook_width(spec, hook_name)
    if width_of_hook is None:
        raise InputError(f"hook_name: {hook_name} is not an activation an SAE can be trained on")
    if d_in is not None and d_in != width_of_hook:
        raise InputError(f"d_in: {d_in} given, but {hook_name} of {spec.name} is {width_of_hook} wide")
    return HookedModel(spec, run, width_of_hook)


@lru_cache(maxsize=64)
def _fires(run: Run) -> bool:
    """Whether the call has the hook that it caches."""
    return bool(hooked_transformer.forward(run).hook_counts)


def features(d_sae: int | None, expansion_factor: float | None, d_in: int, warnings: list[str]) -> int:
    """d_sae, from itself or the expansion factor; adds a warning where it looks mistaken.

    Raises:
        InputError: no feature at all, or the two given do not agree.
    """
    size = d_sae or round((expansion_factor or 0) * d_in)
    if size < 1:
        raise InputError(f"expansion_factor {expansion_factor} of d_in {d_in} makes no feature")
    if d_sae and expansion_factor and d_sae != round(expansion_factor * d_in):
        raise InputError(f"d_sae {d_sae} and expansion_factor {expansion_factor} x d_in {d_in} differ")
    if size > 256 * d_in:
        warnings.append(f"d_sae is {size / d_in:.0f} times d_in; was expansion_factor given the hidden size?")
    return size


def pursuit(workload: SaeTraining | SaeInference, d_in: int) -> Pursuit | None:
    """How a matching pursuit SAE iterates, every iteration that is allowed among them; None for the others."""
    if workload.architecture != "matching_pursuit":
        return None
    return Pursuit(workload.max_iterations or d_in, workload.stop_on_duplicate_support, workload.residual_threshold > 0)


def widths(workload: SaeTraining, d_sae: int) -> tuple[int, ...]:
    """matryoshka_widths as SAELens completes them (_validate_matryoshka_config)."""
    if not workload.matryoshka_widths:
        return ()
    rising = list(workload.matryoshka_widths)
    if rising[-1] != d_sae:
        rising.append(d_sae)
    if sorted(set(rising)) != rising:
        raise InputError(f"matryoshka_widths: {workload.matryoshka_widths} must rise strictly and end at d_sae {d_sae}")
    return tuple(rising)
