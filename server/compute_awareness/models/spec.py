"""What a model is, in the numbers that decide its memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .checkpoint import Checkpoint

Count = Annotated[int, Field(ge=1, le=10_000_000)]
MOST_LAYERS = 1_000
"""More than any model has. Where layers leave something behind, each is played to the simulated allocator: so many take
about a second, ten times as many minutes."""
Norm = Literal["layernorm", "rmsnorm", "none"]
Positional = Literal["learned", "rotary", "alibi", "shortformer"]
NormPlacement = Literal["pre", "post", "both"]
QKNorm = Literal["head", "full"]

TOY = "NeelToy"
"""`architecture` of models that exist only as HookedTransformer weights."""

_ALWAYS_GROUPED_TL = frozenset(
    {
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Olmo3ForCausalLM",
    }
)


class ModelSpec(BaseModel, frozen=True):
    """The architecture of one language model.

    Names follow TransformerLens (`n_layers`, `d_model`, `d_mlp`, ...). A spec holds shapes and structure only:
    parameter counts and bytes are computed from it (`memory.weights`), so that no figure is stored twice.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: str = Field(description="Short lower-case name, the key of the catalogue", examples=["pythia-2.8b"])
    hf_id: str | None = Field(default=None, description="Hugging Face repository id")
    tl_name: str | None = Field(
        default=None, description="TransformerLens official name (HookedTransformer 3.x); null if it has no such model"
    )
    aliases: tuple[str, ...] = Field(
        default=(), description="Other names that mean this model, TransformerLens' among them"
    )
    architecture: str = Field(
        description="Hugging Face model class, e.g. GPTNeoXForCausalLM; NeelToy: none, TransformerLens weights only"
    )

    n_layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)]
    d_model: Count
    n_heads: Count
    n_kv_heads: Count = Field(description="Key/value heads; equals n_heads without grouped-query attention")
    d_head: Count
    d_mlp: int = Field(ge=0, le=10_000_000, description="MLP width; 0 for attention-only models")
    d_vocab: Count = Field(description="Rows of the embedding matrix (padding rows included)")
    n_ctx: Count = Field(description="Positions the Hugging Face model supports")
    n_ctx_tl: Count | None = Field(
        default=None, description="Positions TransformerLens configures (it caps some models at 2048); null = n_ctx"
    )

    gated_mlp: bool = Field(default=False, description="Gate and up projection (SwiGLU, GeGLU): three MLP matrices")
    act_fn: str = Field(default="gelu", description="Activation function as TransformerLens names it")
    norm: Norm = "layernorm"
    norm_weights: bool = Field(default=True, description="The norms have learned weights (OLMo 1 has none)")
    norm_placement: NormPlacement = Field(
        default="pre", description="pre: before attention and MLP; post: after them (OLMo 2); both: Gemma 2 and 3"
    )
    parallel_attn_mlp: bool = Field(default=False, description="Attention and MLP both read the block's input")
    parallel_shared_norm: bool = Field(
        default=False, description="Parallel block with one norm for both branches (GPT-J, Phi)"
    )
    qk_norm: QKNorm | None = Field(
        default=None, description="head: norm per head of q and k (Qwen3, Gemma 3); full: over all heads (OLMo 2)"
    )
    embed_norm: bool = Field(default=False, description="A norm right after the embedding (BLOOM)")
    positional: Positional = "rotary"
    rotary_dim: int | None = Field(default=None, ge=2, description="Rotated part of d_head; null if not rotary")
    positions_offset: int = Field(default=0, ge=0, description="Extra rows of the learned position matrix (OPT: 2)")
    window: int | None = Field(default=None, ge=1, description="Sliding-window size of the local layers; null if none")
    local_layers: Literal["none", "all", "odd", "even", "5_of_6", "3_of_4"] = Field(
        default="none", description="Which layers attend locally (0-based parity; 5_of_6: all but every sixth)"
    )
    attn_softcap: bool = Field(default=False, description="Attention scores pass a tanh soft cap (Gemma 2)")
    logit_softcap: bool = Field(default=False, description="Logits pass a tanh soft cap (Gemma 2)")
    clip_qkv: bool = Field(default=False, description="q, k and v are clamped after projection (OLMo 1 7B)")

    tied_embeddings: bool = Field(default=False, description="The Hugging Face model shares embedding and LM head")
    qkv_bias: bool = False
    attn_out_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False

    checkpoint_dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="Dtype of the published weights, what dtype='auto' loads; null if not known"
    )
    gated_repo: bool = Field(default=False, description="The Hugging Face repository asks for a licence to be accepted")
    quantization: Literal["bitsandbytes_8bit", "bitsandbytes_4bit", "gptq_4bit", "awq_4bit", "fp8"] | None = Field(
        default=None, description="How the published weights are quantised; null = not quantised"
    )
    checkpoint: Checkpoint | None = Field(
        default=None, description="What the headers of the published weights say; null if they were not read"
    )
    source: str = Field(default="", description="Where the numbers come from")

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.positional == "rotary" and self.rotary_dim is None:
            raise ValueError("rotary_dim is needed where positional is rotary")
        if self.rotary_dim is not None and self.rotary_dim > self.d_head:
            raise ValueError(f"rotary_dim {self.rotary_dim} is more than d_head {self.d_head}")
        if self.d_mlp == 0 and self.architecture != TOY:
            raise ValueError(f"d_mlp 0 (attention only) is of {TOY}, not of {self.architecture}")
        return self

    @property
    def q_width(self) -> int:
        """n_heads * d_head."""
        return self.n_heads * self.d_head

    @property
    def kv_width(self) -> int:
        """n_kv_heads * d_head."""
        return self.n_kv_heads * self.d_head

    @property
    def context_tl(self) -> int:
        """Positions of the HookedTransformer."""
        return self.n_ctx_tl or self.n_ctx

    @property
    def has_hf_model(self) -> bool:
        """Whether transformers has a class for it; NeelNanda's toy models are HookedTransformer weights only."""
        return self.architecture != TOY

    @property
    def grouped_attention_tl(self) -> bool:
        """Whether TransformerLens builds GroupedQueryAttention, which copies k and v in each forward pass.

        Its converter (3.9.0, loading_from_pretrained.py) passes `n_key_value_heads` for some families even where
        every head has its own keys and values.
        """
        return self.n_kv_heads != self.n_heads or self.architecture in _ALWAYS_GROUPED_TL

    @property
    def folds_norms_tl(self) -> bool:
        """Whether `HookedTransformer.from_pretrained` folds the norms' weights by default.

        Not for norms after attention and MLP (OLMo 2 and 3) nor for shortformer positions (TransformerLens 3.9.0,
        loading_from_pretrained.get_pretrained_model_config).
        """
        return self.norm != "none" and self.norm_placement != "post" and self.positional != "shortformer"

    def is_local(self, layer: int) -> bool:
        """Whether attention of `layer` (0-based) is windowed."""
        match self.local_layers:
            case "none":
                return False
            case "all":
                return True
            case "odd":
                return layer % 2 == 1
            case "even":
                return layer % 2 == 0
            case "5_of_6":
                return (layer + 1) % 6 != 0
            case "3_of_4":
                return (layer + 1) % 4 != 0
