"""Lists that collect over a loop: what they keep alive beside the numbers that somebody wanted."""

from __future__ import annotations

import pytest

from compute_awareness.script_reading.answer import Finding, ScriptReport
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.source import parse_script
from compute_awareness.units import GIB

LENS = """\
import torch
from transformer_lens import HookedTransformer
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
kept = []
for i in range({rounds}):
    _, cache = model.run_with_cache(torch.zeros((8, 512)).long(), names_filter=["blocks.6.hook_resid_post"])
    kept.append({value})
"""
ENTRY = 'cache["blocks.6.hook_resid_post"]'
STATE = 8 * 512 * 768 * 4
HUGGING = """\
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("gpt2", torch_dtype=torch.float32).cuda()
kept = []
for i in range(500):
    out = model(torch.zeros((4, 256), dtype=torch.long, device="cuda"), output_hidden_states=True)
    kept.append({value})
"""
NNSIGHT = """\
import torch
from nnsight import LanguageModel
model = LanguageModel("openai-community/gpt2", device_map="cuda", dispatch=True)
kept = []
for i in range(2000):
    with model.trace({given}):
        h = model.transformer.h[6].output[0].save()
    kept.append(h)
"""


def report(code: str) -> ScriptReport:
    return check_script(parse_script(code, "script.py"), gpu="RTX 4090")


def growing(answer: ScriptReport) -> Finding:
    return next(one for one in answer.findings if one.id == "grows_in_a_loop")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (ENTRY, STATE),
        (f"{ENTRY}[:, -1]", STATE),  # a view keeps the storage of all positions
        (f"{ENTRY}[:, -1].detach()", STATE),
        (f"{ENTRY}[:, [1, 2]]", STATE // 256),  # a list of positions copies
        (f"{ENTRY}[:, -1].clone()", STATE // 512),
        (f"{ENTRY}[:, -1].float() * 2", STATE // 512),
    ],
)
def test_a_view_keeps_its_whole(value: str, size: int) -> None:
    finding = growing(report(LENS.format(value=value, rounds=40_000)))
    assert finding.bytes_now == 40_000 * size


def test_what_is_moved_does_not_grow_on_the_card() -> None:
    answer = report(LENS.format(value=f"{ENTRY}[:, -1].cpu()", rounds=40_000))
    assert answer.status == "fits"
    assert not answer.findings


@pytest.mark.parametrize(
    ("value", "edit"),
    [
        ("out.logits[:, -1]", "kept.append(out.logits[:, -1].detach().cpu())"),
        ("out.logits[:, -1].cpu()", "kept.append(out.logits[:, -1].cpu().detach())"),  # the graph stays on the card
        ("out.hidden_states[12][:, -1].cpu()", "kept.append(out.hidden_states[12][:, -1].cpu().detach())"),
    ],
)
def test_the_graph_is_kept_with_it(value: str, edit: str) -> None:
    answer = report(HUGGING.format(value=value))
    assert answer.status == "does_not_fit"
    finding = growing(answer)
    assert "the graph for a backward pass" in finding.cause and edit in finding.diff
    assert (finding.bytes_now or 0) > 400 * GIB


def test_of_a_state_only_the_blocks_before_it() -> None:
    last, first = (growing(report(HUGGING.format(value=f"out.hidden_states[{at}].cpu()"))) for at in (12, 3))
    assert abs((first.bytes_now or 0) * 4 - (last.bytes_now or 0)) < GIB


@pytest.mark.parametrize("value", ["out.logits.detach().cpu()", "out.logits.cpu().numpy()", "out.loss.item()"])
def test_no_graph_no_growth(value: str) -> None:
    answer = report(HUGGING.format(value=value))
    assert answer.status == "fits"
    assert not any(one.id == "grows_in_a_loop" for one in answer.findings)


def test_no_grad_is_said_to_help() -> None:
    [finding] = [one for one in report(HUGGING.format(value="out.logits.cpu()")).findings if one.id == "gradients_kept"]
    assert (finding.bytes_now or 0) > 400 * GIB > 10 * GIB > (finding.bytes_after or 0)


def test_saved_values_of_traces() -> None:
    long, short = (report(NNSIGHT.format(given=f"torch.zeros((1, {n}), dtype=torch.long)")) for n in (512, 2))
    assert (long.status, short.status) == ("does_not_fit", "fits")


def test_a_length_that_is_not_known_is_asked() -> None:
    answer = report(NNSIGHT.format(given="'a long text ' * 900"))
    assert answer.status == "unknown"
    [question] = answer.questions
    assert "how large does seq_len get?" in question
    fits = int(question.rsplit(" ", 1)[1].rstrip("."))
    assert 1 < fits < 200


def test_the_filter_that_stops_the_growth_says_so() -> None:
    code = LENS.replace(', names_filter=["blocks.6.hook_resid_post"]', "").format(value="cache", rounds=200)
    answer = report(code + "print([c['blocks.6.hook_resid_post'][0, -1] for c in kept])\n")
    [finding] = [one for one in answer.findings if one.id == "full_cache"]
    assert (finding.bytes_now or 0) > 100 * GIB > 5 * GIB > (finding.bytes_after or 0)
