"""Calls that are not estimated as a whole: the least that they take is said, and decides where it can."""

from __future__ import annotations

import pytest

from compute_awareness.script_reading.answer import ScriptReport
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.source import parse_script
from compute_awareness.units import GIB

TRACER = """\
import torch
from circuit_tracer import ReplacementModel, attribute
model = ReplacementModel.from_pretrained("{name}", "gemma", dtype=torch.bfloat16)
graph = attribute("The capital of Texas is", model, batch_size=256)
"""
SPARSIFY = """\
import torch
from sparsify import SaeConfig, Trainer, TrainConfig
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("{name}", device_map={{"": "cuda"}}, torch_dtype=torch.bfloat16)
Trainer(TrainConfig(SaeConfig(expansion_factor=32, k=32), batch_size=16), data, model).fit()
"""
QLORA = """\
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb, device_map="auto")
model = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"]))
args = TrainingArguments("out", per_device_train_batch_size=2, bf16=True, gradient_checkpointing=True)
Trainer(model=model, args=args, train_dataset=data).train()
"""


def report(code: str, gpu: str) -> ScriptReport:
    return check_script(parse_script(code, "script.py"), gpu=gpu)


@pytest.mark.parametrize("code", [TRACER, SPARSIFY])
def test_the_model_alone_decides_where_it_can(code: str) -> None:
    small = report(code.format(name="google/gemma-2-2b"), "RTX 4090")
    assert small.status == "unknown"
    assert 4 * GIB < (small.found[-1].low_bytes or 0) < 8 * GIB and small.found[-1].high_bytes is None
    assert any("the model alone is counted" in note for note in small.found[-1].notes)
    assert "at least" in small.found[-1].words
    assert report(code.format(name="google/gemma-2-27b"), "RTX 4090").status == "does_not_fit"


def test_a_model_that_is_not_known_stays_so() -> None:
    answer = report("import sys\n" + TRACER.replace('"{name}"', "sys.argv[1]"), "RTX 4090")
    assert answer.status == "unknown" and answer.found[0].low_bytes is None


def test_autocast_over_weights_of_its_dtype_is_rough() -> None:
    training = report(QLORA, "RTX 4090").found[-1]
    assert training.kind == "training" and training.precision == "rough"
    assert training.low_bytes is not None and training.low_bytes < 24 * GIB


@pytest.mark.parametrize(("given", "evaluated"), [("", False), (', eval_strategy="steps"', True)])
def test_an_evaluation_between_the_steps_is_a_moment_of_its_own(given: str, evaluated: bool) -> None:
    code = f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from datasets import load_dataset
tok = AutoTokenizer.from_pretrained("gpt2")
model = AutoModelForCausalLM.from_pretrained("gpt2", dtype="float32")
rows = load_dataset("imdb").map(lambda row: tok(row["text"], truncation=True, padding="max_length", max_length=512))
args = TrainingArguments("o", per_device_train_batch_size=2, per_device_eval_batch_size=128{given})
Trainer(model, args, train_dataset=rows["train"], eval_dataset=rows["test"]).train()
"""
    answer = report(code, "RTX 4090")
    assert [one.call for one in answer.found[1:]] == ["Trainer.train", "Trainer.evaluate"][: 1 + evaluated]
    assert answer.status == ("does_not_fit" if evaluated else "fits")
    if evaluated:  # what log_softmax makes of logits that are in float32 already
        assert sum(left.bytes for left in answer.found[2].beside) == 4 * 128 * 512 * 50257
