"""Prompts, resources and completions."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
from mcp import Client
from mcp.types import PromptReference, ResourceTemplateReference

from compute_awareness.advice.gpus import all_gpus
from compute_awareness.models.catalogue import find, names
from compute_awareness.prompt_files import prompt_files
from compute_awareness.workload import TASKS, parse_workload

pytestmark = pytest.mark.anyio

EXAMPLES = {
    "after_out_of_memory": {
        "message": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB",
        "experiment": "run_with_cache",
        "gpu": "RTX 4090",
    },
    "before_full_cache": {
        "model": "pythia-2.8b", "seq_len": "1024", "batch_size": "4", "hooks": "*hook_z", "gpu": "L4",
    },
    "before_large_model": {
        "model": "llama-2-7b", "dtype": "bfloat16", "library": "transformers", "gpu": "RTX 3090",
    },
    "before_long_run": {"experiment": "300 M tokens of SAE training", "gpu": "A100 80GB", "budget": "10 USD"},
    "before_sae_training": {
        "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "architecture": "topk", "d_sae": "24576",
        "training_tokens": "300000000", "gpu": "T4",
    },
    "when_environment_unclear": {"experiment": "a script beside job.sbatch"},
    "compute_preflight": {"experiment": "cache <all> of Pythia & plot", "model": "pythia-2.8b", "gpu": "RTX 4090"},
    "phrase_compute_question": {
        "experiment": "Caching Pythia-2.8B", "needed": "61.3 GiB", "gpu": "RTX 3090", "free": "23.0 GiB",
    },
    "reduce_memory": {"experiment": "{{ 7 * 7 }} heads", "gpu": "T4"},
    "when_to_ask_about_compute": {},
}  # fmt: skip


async def prompt_text(server: Any, mode: str, name: str, arguments: dict[str, str]) -> str:
    async with Client(server, mode=mode) as client:
        result = await client.get_prompt(name, arguments)
    assert len(result.messages) == 1 and result.messages[0].role == "user"
    return result.messages[0].content.text  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_prompts_take_what_they_are_given_literally(server: Any, mode: str, name: str) -> None:
    text = await prompt_text(server, mode, name, EXAMPLES[name])
    assert all(value in text for value in EXAMPLES[name].values())
    assert "{%" not in text.replace(EXAMPLES[name].get("experiment", "-"), "")
    assert 400 < len(text) < 4_000


@pytest.mark.parametrize("name", EXAMPLES)
async def test_prompts_read_well_without_the_optional_arguments(server: Any, mode: str, name: str) -> None:
    needed = [argument.name for argument in prompt_files()[name].arguments if argument.required]
    arguments = {key: EXAMPLES[name][key] for key in needed}
    text = await prompt_text(server, mode, name, arguments)
    assert "``" not in text and '=""' not in text and "()" not in text.replace("run_with_cache()", "")
    assert "\n\n\n" not in text


CALL = re.compile(r"preflight_experiment\((.*)\)")


@pytest.mark.parametrize("name", ["before_full_cache", "before_large_model", "before_sae_training"])
@pytest.mark.parametrize("full", [True, False])
async def test_the_call_that_a_prompt_names_is_one_that_the_tool_takes(
    server: Any, mode: str, name: str, full: bool
) -> None:
    arguments = EXAMPLES[name] if full else {key: EXAMPLES[name][key] for key in EXAMPLES[name] if key == "model"}
    text = await prompt_text(server, mode, name, arguments)
    (call,) = CALL.findall(text)
    parsed = ast.parse(f"f({call})", mode="eval").body
    assert isinstance(parsed, ast.Call) and not parsed.args
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in parsed.keywords}
    fields = set(TASKS[given["task"]].model_fields)
    assert set(given) - {"gpu", "options"} <= fields and set(given.get("options", {})) <= fields
    if full:
        sizes = {**given, **given.get("options", {})}
        parse_workload({key: sizes[key] for key in sizes if key in fields and sizes[key] is not ...})
    assert "Do not ask" in text


async def test_a_known_card_changes_the_question(server: Any, mode: str) -> None:
    known = await prompt_text(server, mode, "phrase_compute_question", EXAMPLES["phrase_compute_question"])
    unknown = await prompt_text(server, mode, "phrase_compute_question", {"experiment": "Caching Pythia-2.8B"})
    assert "Which do you prefer?" in known and "What GPU will it run on" not in known
    assert "What GPU will it run on" in unknown and "GiB" in unknown


async def test_policy_is_prompt_and_resource(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        found = (await client.read_resource("compute://policy")).contents[0]
    assert found.mime_type == "text/markdown"
    prompt = await prompt_text(server, mode, "when_to_ask_about_compute", {})
    assert found.text == prompt  # pyright: ignore[reportAttributeAccessIssue]
    for trigger in ("large_model", "sae_training", "full_activation_cache", "unclear_environment", "long_running"):
        assert f"`{trigger}`" in prompt


async def read(server: Any, mode: str, uri: str) -> Any:
    async with Client(server, mode=mode) as client:
        found = (await client.read_resource(uri)).contents[0]
    assert found.mime_type == "application/json"
    return json.loads(found.text)  # pyright: ignore[reportAttributeAccessIssue]


async def test_tables(server: Any, mode: str) -> None:
    models = await read(server, mode, "compute://models")
    assert models["count"] == len(models["models"]) == len(names())
    gpus = await read(server, mode, "compute://gpus")
    assert {row["id"]: row["usable_bytes"] for row in gpus["gpus"]} == {gpu.id: gpu.usable_bytes for gpu in all_gpus()}
    strategies = await read(server, mode, "compute://strategies")
    assert {row["id"] for row in strategies} == {
        "selective_caching", "smaller_batch", "gradient_checkpointing", "mixed_precision", "offloading",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "GPT2-Small", "meta-llama%2FLlama-2-7b-hf"])
async def test_a_model_by_any_of_its_names(server: Any, mode: str, name: str) -> None:
    data = await read(server, mode, f"compute://models/{name}")
    spec = find(name.replace("%2F", "/"))
    assert spec is not None and data["name"] == spec.name and data["d_model"] == spec.d_model


async def test_a_platform(server: Any, mode: str) -> None:
    data = await read(server, mode, "compute://platforms/modal")
    assert data["id"] == "modal" and data["offers"] and all(offer["date"] for offer in data["offers"])


@pytest.mark.parametrize(
    ("ref", "argument", "typed", "expected"),
    [
        (PromptReference(name="compute_preflight"), "model", "PYTHIA-2", "pythia-2.8b"),
        (PromptReference(name="reduce_memory"), "gpu", "4090", "RTX 4090"),
        (ResourceTemplateReference(uri="compute://models/{name}"), "name", "gpt2-x", "gpt2-xl"),
        (ResourceTemplateReference(uri="compute://platforms/{name}"), "name", "mo", "modal"),
        (PromptReference(name="compute_preflight"), "task", "act", "activation_cache"),
        (PromptReference(name="compute_preflight"), "dtype", "bfl", "bfloat16"),
        (PromptReference(name="before_large_model"), "library", "trans", "transformer_bridge"),
        (PromptReference(name="before_sae_training"), "architecture", "batch", "batchtopk"),
        (PromptReference(name="before_sae_training"), "hook_name", "blocks.6.", "blocks.6.hook_resid_pre"),
        (PromptReference(name="before_full_cache"), "hooks", "pattern", "*attn.hook_pattern"),
    ],
    ids=[
        "model",
        "gpu",
        "model-address",
        "platform-address",
        "task",
        "dtype",
        "library",
        "architecture",
        "hook",
        "hooks",
    ],
)
async def test_completions(server: Any, mode: str, ref: Any, argument: str, typed: str, expected: str) -> None:
    async with Client(server, mode=mode) as client:
        found = (await client.complete(ref, {"name": argument, "value": typed})).completion
        everything = (await client.complete(ref, {"name": argument, "value": ""})).completion
    assert expected in found.values
    assert len(everything.values) <= 100 and everything.total is not None
    assert everything.has_more is (everything.total > 100)


async def test_hooks_are_those_of_the_model_that_was_given(server: Any, mode: str) -> None:
    ref = PromptReference(name="before_sae_training")
    typed = {"name": "hook_name", "value": "blocks.31."}
    async with Client(server, mode=mode) as client:
        without = (await client.complete(ref, typed)).completion
        large = (await client.complete(ref, typed, context_arguments={"model": "pythia-2.8b"})).completion
    assert without.values == []
    assert "blocks.31.hook_resid_post" in large.values


async def test_no_completions_where_there_is_no_list(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        unknown = ResourceTemplateReference(uri="compute://nothing/{name}")
        for ref, name in ((PromptReference(name="reduce_memory"), "experiment"), (unknown, "name")):
            assert (await client.complete(ref, {"name": name, "value": "a"})).completion.values == []
