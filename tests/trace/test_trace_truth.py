"""Traces without weights against real runs of the same models on the CPU, and shallow traces against deep ones.

All jobs go through the worker's `work` in one child process, so that the libraries are imported there once. The real
runs are measured by the profiler's record of the CPU allocator; a training step too, where a dispatch mode alone would
read up to 8 % high. They agree to some bytes (the profiler sees scalars that Python made before an operator).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from builders import quiet
from flop_meter import counted
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak
from test_traffic import watched
from traces import operations, ours, run_jobs

from compute_awareness.trace.extrapolate import extend

pytestmark = pytest.mark.filterwarnings("ignore")

HEADS = {"num_attention_heads": 4, "hidden_size": 64, "vocab_size": 900}
GROUPED = {**HEADS, "num_key_value_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 1000},
    "bert": {
        "model_type": "bert", "num_hidden_layers": 2, "intermediate_size": 160, "architectures": ["BertForMaskedLM"],
        **HEADS,
    },
    "mamba": {"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 900},
    "mixtral": {
        "model_type": "mixtral", "num_hidden_layers": 2, "intermediate_size": 128, "num_local_experts": 4, **GROUPED,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "num_hidden_layers": 2, "moe_intermediate_size": 32, "num_experts": 8,
        "num_experts_per_tok": 2, "head_dim": 16, **GROUPED,
    },
    "t5": {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "num_layers": 2, "d_model": 64, "d_kv": 16,
        "num_heads": 4, "d_ff": 128, "vocab_size": 700, "decoder_start_token_id": 0, "pad_token_id": 0,
    },
}  # fmt: skip
HOOKED = {
    "n_layers": 2, "d_model": 48, "n_heads": 4, "d_head": 12, "d_mlp": 160, "d_vocab": 700, "n_ctx": 64,
    "act_fn": "gelu", "normalization_type": "LNPre",
}  # fmt: skip
DEEP = {
    "gemma2": {
        "model_type": "gemma2", "num_hidden_layers": 18, "intermediate_size": 96, "head_dim": 16, "sliding_window": 8,
        "attn_implementation": "eager", **GROUPED,
    },
    "neox": {"model_type": "gpt_neox", "num_hidden_layers": 14, "intermediate_size": 256, **HEADS},
}  # fmt: skip
FORWARD = {"library": "transformers", "task": "inference", "dtype": "float32", "batch_size": 2, "seq_len": 24}
TRAINING = {**FORWARD, "task": "training"}
CACHE = {**FORWARD, "library": "transformer_lens", "task": "activation_cache", "config": HOOKED}

JOBS: dict[str, dict[str, Any]] = {
    **{name: {**FORWARD, "config": config} for name, config in CONFIGS.items()},
    "mamba": {**FORWARD, "config": CONFIGS["mamba"], "seq_len": 8},  # its slow path runs token by token
    "bfloat16": {**FORWARD, "config": CONFIGS["qwen3_moe"], "dtype": "bfloat16"},
    "outputs": {
        **FORWARD, "config": CONFIGS["gpt2"], "attention": "eager", "output_hidden_states": True,
        "output_attentions": True, "kv_cache": False,
    },
    **{f"{name} training": {**TRAINING, "config": CONFIGS[name]} for name in ("gpt2", "mixtral", "t5")},
    "checkpointing": {**TRAINING, "config": CONFIGS["gpt2"], "gradient_checkpointing": True, "optimizer": "sgd"},
    "cache": CACHE,
    "filtered": {**CACHE, "names_filter": ["*hook_resid_post", "*hook_z"], "layers": [0], "stop_at_layer": 1},
    "flags": {**CACHE, "use_attn_result": True, "use_split_qkv_input": True, "use_hook_mlp_in": True},
    "graph": {**CACHE, "with_gradients": True},
    "hooked training": {**CACHE, "task": "training", "optimizer": "adam"},
    **{
        f"{name} {how}": {**base, "config": DEEP[name], "whole": how == "whole"}
        for name, base in (("gemma2", FORWARD), ("neox", TRAINING)) for how in ("whole", "shallow")
    },
    "hooked whole": {**CACHE, "config": HOOKED | {"n_layers": 14}, "whole": True},
    "hooked shallow": {**CACHE, "config": HOOKED | {"n_layers": 14}},
    "unknown": {**FORWARD, "config": {"model_type": "nosuch"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, Any]:
    return run_jobs(JOBS, tmp_path_factory.mktemp("jobs"))


def transformers_run(job: dict[str, Any], **how: Any) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """(the run, the tensors that are there before it)"""
    given = dict(job["config"])
    config = transformers.CONFIG_MAPPING[given.pop("model_type")](**given)
    named = given.get("architectures", [None])[0]
    with quiet():
        of_config = transformers.AutoModelForCausalLM._model_mapping
        kind = getattr(transformers, named) if named else of_config[type(config)]
        asked = {"attn_implementation": job["attention"]} if job.get("attention") else {}
        model = kind._from_config(config, dtype=getattr(torch, job["dtype"]), **asked, **how)
    ids = torch.randint(0, 500, (job["batch_size"], job["seq_len"]))
    model.train(job["task"] == "training")
    if job.get("gradient_checkpointing"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wanted = {name: True for name in ("output_hidden_states", "output_attentions") if job.get(name)}
    if job.get("kv_cache") is False:
        wanted["use_cache"] = False
    if config.is_encoder_decoder:
        wanted["decoder_input_ids"] = ids

    def forward() -> Any:
        with torch.no_grad():
            return model(input_ids=ids, **wanted)

    def train() -> None:
        parameters = list(model.parameters())
        kind = job.get("optimizer", "adamw")
        optimizer = (torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)(parameters, lr=1e-4, foreach=True)
        for _ in range(2):
            out = model(input_ids=ids, labels=ids)
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return train if job["task"] == "training" else forward, [*model.parameters(), *model.buffers(), ids]


def hooked_run(job: dict[str, Any]) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with quiet():
        model = HookedTransformer(HookedTransformerConfig(**job["config"], device="cpu"))
    for flag in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in"):
        if job.get(flag):
            getattr(model, f"set_{flag}")(True)
    ids = torch.randint(0, 500, (job["batch_size"], job["seq_len"]))
    keeps = None
    if "names_filter" in job:
        keeps = lambda name: name in ("blocks.0.hook_resid_post", "blocks.0.attn.hook_z")  # noqa: E731

    def cached() -> Any:
        with torch.enable_grad() if job.get("with_gradients") else torch.no_grad():
            return model.run_with_cache(ids, names_filter=keeps, stop_at_layer=job.get("stop_at_layer"))

    def train() -> None:
        optimizer = torch.optim.Adam(model.parameters(), foreach=True)
        for _ in range(2):
            loss = model(ids, return_type="loss")
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return train if job["task"] == "training" else cached, [*model.parameters(), *model.buffers(), ids]


MEASURED = [name for name in JOBS if not any(word in name for word in ("whole", "shallow", "unknown"))]


@pytest.mark.parametrize("name", MEASURED)
def test_the_trace_is_what_a_real_run_allocates(name, answers):
    job, answer = JOBS[name], answers[name]
    hooked = job["library"] == "transformer_lens"
    run, standing = hooked_run(job) if hooked else transformers_run(job)
    truth = distinct_bytes(standing)
    # 16-bit kernels of the CPU have scratch of their own (4 % here), which is no tensor on any device.
    with quiet():
        truth += (profiler_peak(run) if job["dtype"] == "float32" else measure_peak(run, standing)).bytes
    library = "transformer-lens" if hooked else "transformers"
    judge(
        job["library"], answer["versions"][library], job["task"], answer["traces"][0]["class"], f"trace {name}",
        ours(answer), truth, 0.0002, job,
    )  # fmt: skip


@pytest.mark.parametrize("name", MEASURED)
def test_operations_are_those_of_a_real_run(name, answers):
    """To the last one. FlopCounterMode does not know grouped products: there every expert runs by itself."""
    job = JOBS[name]
    how = {"experts_implementation": "eager"} if "expert" in str(job["config"]) else {}
    run, _ = hooked_run(job) if job["library"] == "transformer_lens" else transformers_run(job, **how)
    steps = 2 if job["task"] == "training" else 1
    assert steps * operations(job, answers[name]) == counted(run)


@pytest.mark.parametrize("name", ["gpt2", "cache"])
def test_kernels_are_those_of_a_real_run(name, answers):
    run, _ = hooked_run(JOBS[name]) if name == "cache" else transformers_run(JOBS[name])
    assert answers[name]["traces"][0]["work"]["forward"]["kernels"] == watched(run).kernels


@pytest.mark.parametrize("case", ["gemma2", "neox", "hooked"])
def test_shallow_traces_extend_to_the_deep_one_to_the_byte(case, answers):
    shallow, whole = answers[f"{case} shallow"], answers[f"{case} whole"]
    assert len(shallow["traces"]) == 3
    assert len(whole["traces"]) == 1
    extended, direct = (extend(answer["traces"], answer["n_layers"]) for answer in (shallow, whole))
    assert extended.at_peak.total() == direct.at_peak.total()
    assert extended.at_peak == direct.at_peak
    assert extended.retained == direct.retained
    assert extended.parameters == direct.parameters
    assert extended.work == direct.work
    assert sum(part["flops"] for part in extended.work.values()) > 0


def test_layers_that_alternate_are_traced_by_whole_periods(answers):
    answer = answers["gemma2 shallow"]
    assert answer["pattern"] == [0, 2]
    assert [trace["n_layers"] for trace in answer["traces"]] == [4, 6, 8]
    assert [trace["n_layers"] for trace in answers["neox shallow"]["traces"]] == [2, 3, 4]


def test_what_the_cache_and_the_output_keep_is_named(answers):
    retained = answers["outputs"]["traces"][0]["retained"]
    tokens = 2 * 24
    # Four hidden states (the last one is normed) and three patterns.
    assert retained["cache"] == 4 * tokens * 64 * 4 + 3 * 2 * 4 * 24 * 24 * 4
    assert retained["logits"] == tokens * 1000 * 4
    assert "kv_cache" not in retained
    assert answers["gpt2"]["traces"][0]["retained"]["kv_cache"] == 3 * 2 * tokens * 64 * 4


def test_an_unknown_model_type_is_refused(answers):
    assert answers["unknown"]["error"]["kind"] == "unknown_model"
    assert "nosuch" in answers["unknown"]["error"]["message"]
