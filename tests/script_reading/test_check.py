"""A script held against a card: what is said per line, the verdict, the questions, the exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from compute_awareness.cli import run
from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.script_reading.answer import ScriptReport
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.source import parse_script
from compute_awareness.workload import parse_workload

HEAD = "import torch\nfrom transformer_lens import HookedTransformer\ntorch.set_grad_enabled(False)\n"
FULL = (
    HEAD
    + """
model = HookedTransformer.from_pretrained("pythia-2.8b")
logits, cache = model.run_with_cache(torch.zeros((4, 1024)).long())
"""
)


def report(code: str, gpu: str = "RTX 4090") -> ScriptReport:
    return check_script(parse_script(code, "script.py"), gpu=gpu)


def test_the_figure_is_the_estimators() -> None:
    found = report(FULL, "A100-80GB").found[1]
    alone = estimate(parse_workload({"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4}), "8.0")
    assert found.low_bytes == found.high_bytes
    assert abs((found.low_bytes or 0) - alone.peak.device) < 0.01 * alone.peak.device
    assert found.line == 6


def test_verdict_follows_the_card() -> None:
    assert report(FULL, "RTX 4090").status == "does_not_fit"
    assert report(FULL, "A100-80GB").status == "fits"


def test_too_large_says_how_much_fits() -> None:
    found = report(FULL.replace("(4, 1024)", "(400, 256)"), "RTX 4090").found[1]
    assert found.status == "does_not_fit"
    largest = found.largest["batch_size"]
    assert 1 <= largest < 400
    fits = FULL.replace("(4, 1024)", f"({largest}, 256)")
    assert report(fits).status == "fits"
    assert report(FULL.replace("(4, 1024)", f"({largest + 1}, 256)")).status != "fits"


def test_unknown_length_that_does_not_matter() -> None:
    code = HEAD + 'm = HookedTransformer.from_pretrained("gpt2")\nm.run_with_cache("some text")\n'
    answer = report(code)
    assert answer.status == "fits"
    assert not answer.questions
    assert answer.found[1].unknown["seq_len"].at_most == 10


def test_unknown_length_that_matters_is_asked() -> None:
    code = HEAD + 'm = HookedTransformer.from_pretrained("gpt2-xl")\nm.run_with_cache(torch.load("tokens.pt")[:16])\n'
    answer = report(code)
    assert answer.status == "unknown"
    assert len(answer.questions) == 1
    assert "seq_len" in answer.questions[0]
    assert answer.found[1].largest["seq_len"] < 1024


def test_two_models_at_once() -> None:
    one = HEAD + 'a = HookedTransformer.from_pretrained("gpt2-xl")\n'
    answer = report(one + 'b = HookedTransformer.from_pretrained("gpt2-xl")\n')
    first, second = answer.found
    assert second.beside[0].bytes > 6 * 10**9
    assert (second.low_bytes or 0) > (first.low_bytes or 0) + 6 * 10**9
    rebound = report(one + "del a\n" + 'b = HookedTransformer.from_pretrained("gpt2-xl")\n')
    assert not rebound.found[1].beside


def test_earlier_caches_count_while_they_live() -> None:
    tokens = "t = torch.zeros((2, 256)).long()\n"
    code = HEAD + 'm = HookedTransformer.from_pretrained("gpt2")\n' + tokens
    kept = report(code + "_, a = m.run_with_cache(t)\n_, b = m.run_with_cache(t)\n").found
    dropped = report(code + "m.run_with_cache(t)\nm.run_with_cache(t)\n").found
    assert kept[1].low_bytes == dropped[1].low_bytes == dropped[2].low_bytes
    assert (kept[2].low_bytes or 0) > (dropped[2].low_bytes or 0)


def test_a_loop_holds_the_last_rounds_cache() -> None:
    code = (
        HEAD
        + 'm = HookedTransformer.from_pretrained("gpt2")\n'
        + """
for step in range(1000):
    _, cache = m.run_with_cache(torch.zeros((2, 256)).long())
"""
    )
    found = report(code).found[1]
    assert found.times == 1000
    assert [left.what for left in found.beside].count("a cache") == 1


def test_sae_training_is_estimated() -> None:
    code = """
from sae_lens import *
cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre", training_tokens=10**6,
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=24576))
LanguageModelSAETrainingRunner(cfg).run()
"""
    found = report(code).found[0]
    assert found.workload is not None
    alone = estimate(parse_workload(found.workload), "8.9")
    assert found.low_bytes == alone.peak.device
    assert found.values["store_batch_size_prompts"].origin == "library_default"


GROWING = (
    HEAD
    + 'm = HookedTransformer.from_pretrained("gpt2")\nkept = []\n'
    + """
for step in {loop}:
    _, cache = m.run_with_cache(torch.zeros((8, 512)).long(), names_filter="blocks.3.hook_resid_post")
    kept.append(cache["blocks.3.hook_resid_post"]{then})
"""
)


def test_a_list_that_outgrows_the_card() -> None:
    assert report(GROWING.format(loop="range(100)", then="")).status == "fits"
    too_long = report(GROWING.format(loop="range(5000)", then=""))
    assert too_long.status == "does_not_fit"
    assert too_long.found[1].beside[-1].bytes == 5000 * 8 * 512 * 768 * 4
    assert report(GROWING.format(loop="range(5000)", then=".cpu()")).status == "fits"


def test_a_list_that_grows_for_who_knows_how_long_is_asked_about() -> None:
    answer = report(GROWING.format(loop="load_data()", then=""))
    assert answer.status == "unknown"
    assert "how many rounds" in answer.questions[0]
    assert report(GROWING.format(loop="load_data()", then=".cpu()")).status == "fits"


def test_patching_counts_the_cache_once() -> None:
    code = (
        HEAD
        + """
from transformer_lens import patching
m = HookedTransformer.from_pretrained("gpt2")
t = torch.zeros((8, 64)).long()
_, cache = m.run_with_cache(t)
patching.get_act_patch_resid_pre(m, t, cache, lambda logits: logits.mean())
"""
    )
    found = report(code).found[2]
    assert [left.what for left in found.beside] == ["a cache"]
    cache = estimate(parse_workload({"task": "activation_cache", "model": "gpt2", "batch_size": 8, "seq_len": 64}))
    forward = estimate(parse_workload({"task": "inference", "model": "gpt2", "batch_size": 8, "seq_len": 64}), "8.9")
    held = next(c.bytes for c in cache.components if c.name == "activation_cache")
    assert found.beside[0].bytes == held
    assert abs((found.low_bytes or 0) - forward.peak.device - held) < 0.1 * forward.peak.device


def test_what_could_not_be_read_to_its_end_is_no_fit() -> None:
    code = HEAD + 'm = HookedTransformer.from_pretrained("gpt2")\n'
    assert report(code).status == "fits"
    answer = report(code + "x = [1, 2, 3, 4, 5, 6, 7, 8]\n" * 12_000)
    assert answer.status == "unknown"
    assert any("too long" in note for note in answer.notes)


def test_a_loop_over_layers_is_one_row() -> None:
    code = (
        HEAD
        + 'm = HookedTransformer.from_pretrained("gpt2")\n'
        + """
for layer in range(12):
    m.run_with_cache(torch.zeros((2, 16)).long(), names_filter=f"blocks.{layer}.hook_resid_post")
"""
    )
    found = report(code).found
    assert [one.others for one in found] == [0, 11]


def test_remote_traces_take_nothing_here() -> None:
    code = """
from nnsight import LanguageModel
m = LanguageModel("meta-llama/Llama-3.1-405B")
with m.trace("Hello", remote=True):
    h = m.model.layers[5].output[0].save()
"""
    answer = report(code)
    assert answer.status == "fits"
    assert all(one.low_bytes is None and one.status is None for one in answer.found)
    assert "takes nothing here" in answer.found[1].words


def test_without_a_card_all_is_in_ram() -> None:
    code = (
        "import torch\nfrom transformers import AutoModelForCausalLM\ntorch.set_grad_enabled(False)\n"
        'a = AutoModelForCausalLM.from_pretrained("gpt2-xl", dtype=torch.float32)\n'
        'b = AutoModelForCausalLM.from_pretrained("gpt2", dtype=torch.float32)\n'
        "b(torch.zeros((2, 16)).long())\n"
    )
    machine = report(code, "none").found
    assert [left.what for left in machine[2].beside] == ["gpt2-xl's weights"]
    card = report(code, "RTX 4090")
    assert card.status == "fits"
    assert all(one.status is None for one in card.found), "nothing of it is on the card"


def test_nothing_found() -> None:
    answer = report("import numpy as np\nprint(np.zeros(3))\n")
    assert answer.status == "fits"
    assert not answer.found
    assert "nothing was found" in answer.summary


def test_what_is_never_called_counts_only_where_nothing_is() -> None:
    never = 'def f():\n    return HookedTransformer.from_pretrained("pythia-12b")\n'
    small = 'm = HookedTransformer.from_pretrained("gpt2")\n'
    assert report(HEAD + never + small).status == "fits"
    assert report(HEAD + never).status == "does_not_fit"


def test_values_say_where_they_come_from() -> None:
    code = (
        HEAD
        + """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--bs", type=int, default=8)
a = p.parse_args()
m = HookedTransformer.from_pretrained("gpt2")
m.run_with_cache(torch.zeros((a.bs, 32)).long())
"""
    )
    values = report(code).found[1].values
    assert (values["batch_size"].origin, values["batch_size"].where) == ("default", "default of --bs, line 7")
    assert (values["seq_len"].origin, values["seq_len"].where) == ("literal", "line 10")
    assert values["dtype"].origin == "library_default"


def test_notebook_places(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# title"]},
        {"cell_type": "code", "source": ["%pip install x\n", "!ls\n", *HEAD.splitlines(keepends=True)]},
        {"cell_type": "code", "source": "%%bash\nrm -r everything"},
        {"cell_type": "code", "source": 'm = HookedTransformer.from_pretrained("gpt2")\n\nm.run_with_cache("a b c")'},
    ]
    path = tmp_path / "nb.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8")
    answer = check_script(path, gpu="RTX 4090")
    assert [one.place for one in answer.found] == ["cell 4, line 1", "cell 4, line 3"]


@pytest.mark.parametrize(
    ("code", "expected"), [(FULL, 1), (FULL.replace("pythia-2.8b", "gpt2").replace("1024", "64"), 0)]
)
def test_exit_codes(tmp_path: Path, code: str, expected: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    path.write_text(code, encoding="utf-8")
    assert run(["check", str(path), "--gpu", "RTX 4090", "--json"]) == expected
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == ("does_not_fit" if expected else "fits")
    assert run(["check", str(path), "--gpu", "RTX 4090"]) == expected
    assert "line 6" in capsys.readouterr().out


def test_exit_code_of_a_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    path.write_text(HEAD + "import sys\nm = HookedTransformer.from_pretrained(sys.argv[1])\n", encoding="utf-8")
    assert run(["check", str(path), "--gpu", "RTX 4090"]) == 3
    assert "what is model" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["def broken(:\n", "print 'two'\n", "x = \0\n", "(" * 300 + ")" * 300])
def test_bad_input_is_one_line(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    path.write_text(content, encoding="utf-8")
    assert run(["check", str(path), "--gpu", "none"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


KEPT = """
kept = []
for step in range(200):
    _, cache = model.run_with_cache(torch.zeros((8, 512)).long(), names_filter="blocks.3.hook_resid_post")
    kept.append(cache["blocks.3.hook_resid_post"])
"""
FIXABLE = (
    "import torch\nfrom transformer_lens import HookedTransformer\n"
    'model = HookedTransformer.from_pretrained("gpt2-xl")\n' + KEPT
)


def test_arguments_of_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    code = (
        HEAD
        + """
import argparse
p = argparse.ArgumentParser()
p.add_argument("model")
p.add_argument("--bs", "-b", type=int, default=8)
p.add_argument("--layers", nargs="+", type=int)
p.add_argument("--half", action="store_true")
a = p.parse_args()
m = HookedTransformer.from_pretrained(a.model, dtype=torch.float16 if a.half else torch.float32)
m.run_with_cache(torch.zeros((a.bs, 32)).long(), names_filter=[f"blocks.{n}.hook_resid_post" for n in a.layers])
"""
    )
    path.write_text(code, encoding="utf-8")
    assert run(["check", str(path), "--gpu", "RTX 4090", "--json"]) == 3
    capsys.readouterr()
    words = "gpt2 --bs=16 --layers 3 5 --half"
    assert run(["check", str(path), "--gpu", "RTX 4090", "--json", "--args", words]) == 0
    values = json.loads(capsys.readouterr().out)["found"][1]["values"]
    assert values["model"]["value"] == "gpt2"
    assert values["batch_size"]["value"] == 16
    assert values["dtype"]["value"] == "float16"
    assert values["names_filter"]["value"] == ["blocks.3.hook_resid_post", "blocks.5.hook_resid_post"]
    assert run(["check", str(path), "--gpu", "RTX 4090", "--args", "'"]) == 2


def test_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    path.write_text(FIXABLE, encoding="utf-8")
    run(["check", str(path), "--gpu", "RTX 4090", "--sarif"])
    document = json.loads(capsys.readouterr().out)
    only = document["runs"][0]
    named = {rule["id"] for rule in only["tool"]["driver"]["rules"]}
    assert named == {result["ruleId"] for result in only["results"]} >= {"gradients_kept", "grows_in_a_loop"}
    grows = next(result for result in only["results"] if result["ruleId"] == "grows_in_a_loop")
    place = grows["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == 8
    assert place["artifactLocation"]["uri"].endswith("s.py")


def test_fix_shows_the_diff_and_writes_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    path = tmp_path / "s.py"
    path.write_bytes(FIXABLE.replace("\n", "\r\n").encode())
    before = path.read_bytes()
    assert run(["check", str(path), "--gpu", "RTX 4090", "--fix"]) == 130  # no answer can be read
    assert path.read_bytes() == before
    assert "+torch.set_grad_enabled(False)" in capsys.readouterr().out
    run(["check", str(path), "--gpu", "RTX 4090", "--fix", "--yes"])
    assert "+torch.set_grad_enabled(False)" in capsys.readouterr().out
    after = path.read_bytes()
    assert b"torch.set_grad_enabled(False)\r\n" in after
    assert b'kept.append(cache["blocks.3.hook_resid_post"].cpu())\r\n' in after
    answer = check_script(path, gpu="RTX 4090")
    assert not {"gradients_kept", "grows_in_a_loop"} & {one.id for one in answer.findings}


def test_missing_file() -> None:
    with pytest.raises(InputError, match="no such file"):
        check_script(Path("nowhere.py"), gpu="none")


@pytest.mark.parametrize("name", ["a\nb.py", "a\x1b[31mb.py", "a\u2028b.py", "x" * 200 + "/" + "y\n" * 3000])
def test_a_missing_file_of_any_name_is_one_line_that_says_so(name: str) -> None:
    with pytest.raises(InputError, match=r"(no such file|cannot be read: [^.]+)$") as refused:
        check_script(Path(name), gpu="none")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400
