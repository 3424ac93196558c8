"""Labels of SAELens idioms, written before the reader."""

from __future__ import annotations

from labels import UNKNOWN, Case, Unknown, load

TOP = "import torch\nfrom sae_lens import *\n"


def sae(**fields: object) -> dict[str, object]:
    return {"task": "sae_training", "library": "sae_lens", **fields}


def use(**fields: object) -> dict[str, object]:
    return {"task": "sae_inference", "library": "sae_lens", **fields}


RUNNER = """
from sae_lens import LanguageModelSAERunnerConfig, SAETrainingRunner, StandardTrainingSAEConfig, LoggingConfig
steps = 30_000
batch_size = 4096
cfg = LanguageModelSAERunnerConfig(
    model_name="tiny-stories-1L-21M",
    hook_name="blocks.0.hook_mlp_out",
    sae=StandardTrainingSAEConfig(d_in=1024, d_sae=16 * 1024),
    train_batch_size_tokens=batch_size,
    context_size=512,
    n_batches_in_buffer=64,
    training_tokens=steps * batch_size,
    store_batch_size_prompts=16,
    logger=LoggingConfig(log_to_wandb=False),
    device="cuda",
)
"""

CASES = [
    Case(
        "runner",
        RUNNER + "SAETrainingRunner(cfg).run()",
        [
            sae(
                model="tiny-stories-1L-21M",
                hook_name="blocks.0.hook_mlp_out",
                d_in=1024,
                d_sae=16384,
                train_batch_size_tokens=4096,
                context_size=512,
                n_batches_in_buffer=64,
                training_tokens=122_880_000,
                store_batch_size_prompts=16,
                architecture="standard",
                evaluation=False,
            )
        ],
    ),
    Case("runner_not_run", RUNNER, []),
    Case(
        "runner_lm",
        RUNNER + "from sae_lens import LanguageModelSAETrainingRunner as R\nR(cfg).run()",
        [sae(d_sae=16384)],
    ),
    Case(
        "defaults",
        TOP
        + """
cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=TopKTrainingSAEConfig(d_in=768, d_sae=24576, k=64))
LanguageModelSAETrainingRunner(cfg).run()
""",
        [
            sae(
                model="gpt2",
                architecture="topk",
                k=64,
                d_in=768,
                d_sae=24576,
                train_batch_size_tokens=4096,
                context_size=128,
                n_batches_in_buffer=20,
                store_batch_size_prompts=32,
                evaluation=True,
            )
        ],
    ),
    Case(
        "jumprelu",
        TOP
        + """
runner_cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=JumpReLUTrainingSAEConfig(d_in=768, d_sae=768 * 8, dtype="float32"), autocast=True, autocast_lm=True,
    act_store_device="cpu", eval_batch_size_prompts=8)
LanguageModelSAETrainingRunner(runner_cfg).run()
""",
        [
            sae(
                architecture="jumprelu",
                d_sae=6144,
                autocast=True,
                autocast_lm=True,
                act_store_device="cpu",
                eval_batch_size_prompts=8,
            )
        ],
    ),
    Case(
        "gated",
        TOP
        + """
LanguageModelSAETrainingRunner(cfg=LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=GatedTrainingSAEConfig(d_in=768, d_sae=3072))).run()
""",
        [sae(architecture="gated", d_sae=3072)],
    ),
    Case(
        "batchtopk",
        TOP
        + """
LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=BatchTopKTrainingSAEConfig(d_in=768, d_sae=3072, k=20))).run()
""",
        [sae(architecture="batchtopk", d_sae=3072, k=20)],
    ),
    Case(
        "matryoshka",
        TOP
        + """
LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=MatryoshkaBatchTopKTrainingSAEConfig(d_in=768, d_sae=3072, k=20, matryoshka_widths=[512, 1024]))).run()
""",
        [sae(architecture="matryoshka_batchtopk", matryoshka_widths=[512, 1024])],
    ),
    Case(
        "flat_v5",
        TOP
        + """
cfg = LanguageModelSAERunnerConfig(model_name="gpt2-small", hook_name="blocks.8.hook_resid_pre", hook_layer=8, d_in=768,
    expansion_factor=4, context_size=1024, n_batches_in_buffer=64, store_batch_size_prompts=16,
    train_batch_size_tokens=4096, training_tokens=409_600_000, log_to_wandb=True, dtype="float32")
sparse_autoencoder = SAETrainingRunner(cfg).run()
""",
        [
            sae(
                model="gpt2-small",
                d_in=768,
                expansion_factor=4,
                context_size=1024,
                n_batches_in_buffer=64,
                architecture="standard",
                training_tokens=409_600_000,
            )
        ],
    ),
    Case(
        "flat_v5_architecture",
        TOP
        + """
SAETrainingRunner(LanguageModelSAERunnerConfig(architecture="gated", model_name="gpt2",
    hook_name="blocks.8.hook_resid_pre",
    d_in=768, d_sae=1536)).run()
""",
        [sae(architecture="gated", d_sae=1536)],
    ),
    Case(
        "model_dtype",
        TOP
        + """
LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=3072), model_from_pretrained_kwargs={"dtype": "bfloat16"})).run()
""",
        [sae(model_dtype="bfloat16")],
    ),
    Case(
        "unknown_width",
        TOP
        + """
import sys
LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=int(sys.argv[1])))).run()
""",
        [sae(d_sae=UNKNOWN, d_in=768)],
    ),
    Case(
        "sweep",
        TOP
        + """
for exp in [4, 8]:
    cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
        sae=StandardTrainingSAEConfig(d_in=768, d_sae=768 * exp))
    LanguageModelSAETrainingRunner(cfg).run()
""",
        [sae(d_sae=3072), sae(d_sae=6144)],
    ),
    Case(
        "config_dict",
        TOP
        + """
opts = dict(model_name="gpt2", hook_name="blocks.6.hook_resid_pre", context_size=256)
cfg = LanguageModelSAERunnerConfig(sae=StandardTrainingSAEConfig(d_in=768, d_sae=3072), **opts)
LanguageModelSAETrainingRunner(cfg).run()
""",
        [sae(context_size=256, d_sae=3072)],
    ),
    Case(
        "override_model",
        """
from sae_lens import *
from transformer_lens import HookedTransformer
model = HookedTransformer.from_pretrained("gpt2")
cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=3072))
LanguageModelSAETrainingRunner(cfg, override_model=model).run()
""",
        [load("gpt2"), sae(d_sae=3072)],
    ),
    Case(
        "pretrained_encode",
        """
import torch
from sae_lens import SAE
sae = SAE.from_pretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre", device="cuda")
acts = torch.zeros((4, 128, 768))
feats = sae.encode(acts)
""",
        [use(d_in=768, batch_size=4, seq_len=128, d_sae=UNKNOWN)],
    ),
    Case(
        "pretrained_tuple",
        """
import torch
from sae_lens import SAE
torch.set_grad_enabled(False)
sae, cfg_dict, sparsity = SAE.from_pretrained(release="gpt2-small-res-jb", sae_id="blocks.8.hook_resid_pre")
x = sae.encode(torch.zeros((2, 10, 768)))
""",
        [use(batch_size=2, seq_len=10, d_sae=UNKNOWN)],
    ),
    Case(
        "built_sae",
        """
import torch
from sae_lens import SAE, StandardSAE, StandardSAEConfig
torch.set_grad_enabled(False)
sae = StandardSAE(StandardSAEConfig(d_in=768, d_sae=24576))
x = sae.encode(torch.zeros((2, 10, 768)))
""",
        [use(d_in=768, d_sae=24576, batch_size=2, seq_len=10, architecture="standard")],
    ),
    Case(
        "spliced",
        """
import torch
from sae_lens import SAE, HookedSAETransformer
torch.set_grad_enabled(False)
model = HookedSAETransformer.from_pretrained("gpt2-small")
sae = SAE.from_pretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
_, cache = model.run_with_cache_with_saes(torch.zeros((2, 10)).long(), saes=[sae])
""",
        [
            load("gpt2-small"),
            use(
                model="gpt2-small",
                splice=True,
                keep_features=True,
                batch_size=2,
                seq_len=10,
                hook_name="blocks.8.hook_resid_pre",
                d_sae=UNKNOWN,
            ),
        ],
    ),
    Case(
        "cache_then_encode",
        """
import torch
from sae_lens import SAE
from transformer_lens import HookedTransformer
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2-small")
sae = SAE.from_pretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
_, cache = model.run_with_cache("Hello", names_filter=["blocks.8.hook_resid_pre"])
f = sae.encode(cache["blocks.8.hook_resid_pre"])
""",
        [
            load("gpt2-small"),
            {"task": "activation_cache", "model": "gpt2-small", "batch_size": 1, "seq_len": Unknown(6)},
            use(batch_size=1, seq_len=Unknown(6), d_sae=UNKNOWN),
        ],
    ),
    Case(
        "width_in_the_id",
        """
import torch
from sae_lens import SAE
sae = SAE.from_pretrained("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical", device="cuda")
f = sae.encode(torch.zeros((4, 128, 2304)))
""",
        [use(d_in=2304, d_sae=16384, batch_size=4, seq_len=128)],
    ),
    Case(
        "width_of_a_million",
        """
import torch
from sae_lens import SAE
sae = SAE.from_pretrained("gemma-scope-2b-pt-res", "layer_5/width_1m/average_l0_107")
f = sae.encode(torch.zeros((1, 8, 2304)))
""",
        [use(d_in=2304, d_sae=1048576, batch_size=1, seq_len=8)],
    ),
]
