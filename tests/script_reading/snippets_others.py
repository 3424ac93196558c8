"""Labels of nnsight, dictionary_learning, circuit-tracer, sparsify and notebooks, written before the reader."""

from __future__ import annotations

from labels import UNKNOWN, Case, Unknown, cache, forward, generate, load

NNSIGHT = "import torch\nfrom nnsight import LanguageModel\n"
DL = "import torch\nfrom nnsight import LanguageModel\nfrom dictionary_learning import ActivationBuffer\n" + (
    "from dictionary_learning.training import trainSAE\nfrom dictionary_learning.trainers import StandardTrainer\n"
)


def nn(model: object, dtype: object = "auto", **more: object) -> dict[str, object]:
    return load(model, dtype, library="nnsight", **more)


CASES = [
    Case(
        "nn_load",
        NNSIGHT + 'm = LanguageModel("openai-community/gpt2", device_map="auto", dispatch=True)',
        [nn("openai-community/gpt2", device="auto")],
    ),
    Case(
        "nn_load_dtype",
        NNSIGHT + 'm = LanguageModel("gpt2", device_map="cuda:0", torch_dtype=torch.bfloat16)',
        [nn("gpt2", "bfloat16", device="cuda:0")],
    ),
    Case(
        "nn_trace",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with torch.no_grad(), m.trace("The Eiffel Tower"):
    h = m.transformer.h[5].output[0].save()
""",
        [
            nn("gpt2"),
            cache("gpt2", 1, Unknown(18), library="nnsight", names_filter=["transformer.h.5"], with_gradients=False),
        ],
    ),
    Case(
        "nn_trace_graph",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with m.trace(torch.zeros((2, 10)).long()):
    a = m.transformer.h[0].mlp.output.save()
    b = m.transformer.h[1].mlp.output.save()
""",
        [
            nn("gpt2"),
            cache("gpt2", 2, 10, names_filter=["transformer.h.0.mlp", "transformer.h.1.mlp"], with_gradients=True),
        ],
    ),
    Case(
        "nn_trace_loop",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
kept = []
with torch.no_grad():
    with m.trace(["One", "Two"]) as tracer:
        for layer in m.transformer.h:
            kept.append(layer.output[0].save())
""",
        [nn("gpt2"), cache("gpt2", 2, Unknown(5), names_filter=[f"transformer.h.{i}" for i in range(12)])],
    ),
    Case(
        "nn_trace_logits",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with torch.no_grad(), m.trace("Hello"):
    logits = m.lm_head.output.save()
""",
        [nn("gpt2"), cache("gpt2", 1, Unknown(7), names_filter=["lm_head"])],
    ),
    Case(
        "nn_trace_nothing_saved",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with torch.no_grad(), m.trace("Hello"):
    m.transformer.h[3].output[0][:] = 0
""",
        [nn("gpt2"), forward("gpt2", 1, Unknown(7), library="nnsight")],
    ),
    Case(
        "nn_remote",
        NNSIGHT
        + """
m = LanguageModel("meta-llama/Llama-3.1-405B")
with m.trace("Hello", remote=True):
    h = m.model.layers[5].output[0].save()
""",
        [nn("meta-llama/Llama-3.1-405B", free=True), cache("meta-llama/Llama-3.1-405B", 1, UNKNOWN, free=True)],
    ),
    Case(
        "nn_invoke",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with torch.no_grad(), m.trace() as tracer:
    with tracer.invoke("Hello"):
        h = m.transformer.h[3].output[0].save()
""",
        [nn("gpt2"), cache("gpt2", 1, Unknown(7), names_filter=["transformer.h.3"])],
    ),
    Case(
        "nn_generate",
        NNSIGHT
        + """
m = LanguageModel("gpt2", device_map="cuda")
with m.generate("Hello", max_new_tokens=12):
    out = m.generator.output.save()
""",
        [nn("gpt2"), generate("gpt2", 1, Unknown(7), 12)],
    ),
    Case(
        "dl_buffer",
        DL
        + """
model = LanguageModel("EleutherAI/pythia-70m-deduped", device_map="cuda:0")
submodule = model.gpt_neox.layers[1].mlp
buffer = ActivationBuffer(data=texts, model=model, submodule=submodule, d_submodule=512, n_ctxs=30000, device="cuda:0")
cfg = {"trainer": StandardTrainer, "activation_dim": 512, "dict_size": 16 * 512, "lr": 1e-3, "steps": 1000}
trainSAE(data=buffer, trainer_configs=[cfg])
""",
        [
            nn("EleutherAI/pythia-70m-deduped"),
            {
                "task": "sae_training",
                "library": "dictionary_learning",
                "model": "EleutherAI/pythia-70m-deduped",
                "submodule": "gpt_neox.layers.1.mlp",
                "d_in": 512,
                "d_sae": 8192,
                "n_ctxs": 30000,
                "ctx_len": 128,
                "refresh_batch_size": 512,
                "train_batch_size_tokens": 8192,
                "n_saes": 1,
                "architecture": "standard",
            },
        ],
    ),
    Case(
        "dl_sweep",
        DL
        + """
from dictionary_learning.trainers import TopKTrainer
model = LanguageModel("gpt2", device_map="cuda:0")
buffer = ActivationBuffer(iter(texts), model, model.transformer.h[3], d_submodule=768, n_ctxs=512, ctx_len=256,
    refresh_batch_size=32, out_batch_size=2048, device="cuda")
configs = [{"trainer": TopKTrainer, "activation_dim": 768, "dict_size": 3072, "k": k} for k in (16, 16, 16)]
trainSAE(buffer, configs)
""",
        [
            nn("gpt2"),
            {
                "task": "sae_training",
                "library": "dictionary_learning",
                "submodule": "transformer.h.3",
                "d_sae": 3072,
                "k": 16,
                "n_saes": 3,
                "ctx_len": 256,
                "train_batch_size_tokens": 2048,
                "architecture": "topk",
                "refresh_batch_size": 32,
                "n_ctxs": 512,
            },
        ],
    ),
    Case(
        "dl_unknown",
        DL
        + """
trainSAE(data=load(), trainer_configs=[{"trainer": StandardTrainer, "activation_dim": 768, "dict_size": size()}])
""",
        [{"task": "sae_training", "library": "dictionary_learning", "d_in": 768, "d_sae": UNKNOWN}],
    ),
    Case(
        "circuit_tracer",
        """
import torch
from circuit_tracer import ReplacementModel, attribute
model = ReplacementModel.from_pretrained("google/gemma-2-2b", "gemma", dtype=torch.bfloat16, backend="transformerlens")
graph = attribute(prompt="The capital of", model=model, max_n_logits=10, batch_size=256, max_feature_nodes=8192,
    offload="cpu")
""",
        [
            load("google/gemma-2-2b", "bfloat16", library="circuit_tracer"),
            {"task": "attribution", "model": "google/gemma-2-2b", "batch_size": 256, "max_feature_nodes": 8192},
        ],
    ),
    Case(
        "vllm",
        """
from vllm import LLM, SamplingParams
llm = LLM(model="meta-llama/Llama-3.1-8B-Instruct", dtype="bfloat16", max_model_len=4096)
out = llm.generate(["One prompt", "Two"], SamplingParams(max_tokens=256))
""",
        [
            load("meta-llama/Llama-3.1-8B-Instruct", "bfloat16", library="vllm"),
            generate("meta-llama/Llama-3.1-8B-Instruct", 2, Unknown(12), 256, library="vllm"),
        ],
    ),
    Case(
        "sparsify",
        """
import torch
from transformers import AutoModelForCausalLM
from sparsify import SaeConfig, Trainer, TrainConfig
gpt = AutoModelForCausalLM.from_pretrained("EleutherAI/pythia-160m", device_map={"": "cuda"},
    torch_dtype=torch.bfloat16)
cfg = TrainConfig(SaeConfig(expansion_factor=64, k=16), batch_size=8, layers=[3, 4])
trainer = Trainer(cfg, tokenized, gpt)
trainer.fit()
""",
        [
            load("EleutherAI/pythia-160m", "bfloat16", library="transformers"),
            {
                "task": "sae_training",
                "library": "sparsify",
                "model": "EleutherAI/pythia-160m",
                "expansion_factor": 64,
                "k": 16,
                "batch_size": 8,
                "n_saes": 2,
            },
        ],
    ),
]
