"""What older releases of TransformerLens' HookedTransformer allocate otherwise than 3.9.

Found by comparing HookedTransformer.py, components/*.py, utilities/{attention,addmm}.py and weight_processing.py of
the releases on the package index, file by file; what was found is measured with the releases themselves by
tools/measure_hooked_versions.py and held against that record in tests/truth/test_hooked_versions.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...models.spec import ModelSpec
from ...versions import parse
from .. import weights


@dataclass(frozen=True)
class Release:
    """How a release differs from 3.9. The defaults are 3.9 itself."""

    stored_masks: bool = False
    """Before 3.5 every block keeps a boolean mask of n_ctx x n_ctx, made of a float32 one."""
    whole_rotary_tables: bool = False
    """Before 3.5.1 the rotary tables have n_ctx rows from the start."""
    processes_in_dtype: bool = False
    """2.x processes the weights in the state dict itself and in the model's dtype, without float32 copies."""
    float32_scores: bool = False
    """2.x copies q and k to float32 in 16-bit models, so that scores and pattern are float32."""
    plain_products: bool = False
    """2.x multiplies by W_O, W_gate, W_in, W_out and W_U as they are; 3.0 and later by contiguous copies. It has no
    hooks in the unembedding."""
    norm_hook_on_output: bool = False
    """2.x: hook_normalized of a LayerNorm with weights sees them applied, before the cast to the model's dtype."""
    keeps_z: bool = False
    """Up to 2.17 z is held beside its flattened copy."""
    contracted_results: bool = False
    """Up to 2.9 hook_result is one contraction of z with W_O; later their product [b, s, head, d_head, d_model] is made
    and summed."""
    loads_at_once: bool = False
    """Up to 2.3 the whole state dict stays until the model is loaded from it; later each entry goes when it is."""
    added_biases: bool = False
    """Up to 2.1 every product is an einsum, and the bias is added to it in a second tensor."""
    multiplied_heads: bool = False
    """From 2.10 to 2.15 inputs per head are multiplied elementwise with the weights, [b, s, head, d_model, d_head]."""

    @property
    def newest(self) -> bool:
        """Whether it allocates like 3.9."""
        return self == NEWEST


NEWEST = Release()


def release(version: tuple[int, int, int] | None) -> Release:
    """The release `version` (None: the newest), from 2.0.0 on."""
    if version is None or version >= (3, 5, 1):
        return NEWEST
    two = version < (3, 0, 0)
    return Release(
        stored_masks=version < (3, 5, 0),
        whole_rotary_tables=True,
        processes_in_dtype=two,
        float32_scores=two,
        plain_products=two,
        norm_hook_on_output=two,
        keeps_z=version < (2, 18, 0),
        contracted_results=version < (2, 10, 0),
        loads_at_once=version < (2, 4, 0),
        added_biases=version < (2, 2, 0),
        multiplied_heads=(2, 10, 0) <= version < (2, 16, 0),
    )


def buffer_bytes(spec: ModelSpec, width: int, which: Release, seq_len: int = 0) -> int:
    """Bytes of the buffers of a HookedTransformer of that release, as `weights.tl_buffer_bytes` for 3.9."""
    total = weights.tl_buffer_bytes(spec, width, seq_len)
    if which.whole_rotary_tables and spec.positional == "rotary" and spec.rotary_dim is not None:
        per_block = 2 * spec.context_tl * spec.rotary_dim * width
        total += spec.n_layers * (per_block - weights.tl_rotary_table_bytes(spec, width, seq_len))
    if which.stored_masks:
        total += spec.n_layers * spec.context_tl**2
    return total


def missing(spec: ModelSpec, version: str) -> str:
    """Why HookedTransformer `version` cannot run `spec`, or "". Read off the components of the releases."""
    given = parse(version)
    if spec.architecture == "Gemma2ForCausalLM" and given < (2, 2, 0):
        return "Gemma 2 came with 2.2"
    if spec.architecture == "Qwen2ForCausalLM" and spec.n_kv_heads != spec.n_heads and given < (2, 3, 0):
        return "Qwen2 with grouped heads came with 2.3"
    if spec.qk_norm == "head" and given < (2, 16, 0):
        return "norms of q and k came with 2.16"
    if (spec.qk_norm == "full" or spec.norm_placement == "post") and given < (3, 0, 0):
        return "OLMo 2 and 3 came with 3.0"
    return ""
