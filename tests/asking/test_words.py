"""The words: the example of the brief, the choice on a card that is too small, the templates."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from asking_situations import GIB, Case, ask_about, cache, change, forward, sae, usual_changes
from asking_table import CASES

from compute_awareness.advice.answers import GpuChoice
from compute_awareness.asking.table import policy_table
from compute_awareness.asking.words import amount, question_files, useful_changes
from compute_awareness.workload import AnyWorkload, parse_workload


def parsed(**fields: object) -> AnyWorkload:
    return parse_workload(fields)


EXAMPLE = Case("the example", cache(), 61.3, "elsewhere")


def test_the_example_reads_like_the_good_phrasing_of_the_brief() -> None:
    question = ask_about(EXAMPLE)
    lines = question.text.split("\n")
    assert lines[0] == (
        "This experiment (caching every activation of pythia-2.8b, 4 x 1024 tokens, float32) needs approximately "
        "61.3 GiB of GPU memory, most of it the weights. Before I write it:"
    )
    assert lines[1] == "- What GPU do you have access to?"
    assert lines[2] == "- Are you running locally or on a cloud platform (Colab, RunPod, Modal, ...)?"
    assert lines[3] == ""
    assert lines[4].startswith("If the card is small, for example a free Colab one, I can make the run smaller: 15.3")
    assert lines[4].endswith(
        " Where less is free, it ends in out-of-memory. "
        "Without an answer I write it with batch size 1, its sizes easy to change."
    )
    assert len(lines) == 5
    assert [field.name for field in question.fields] == ["gpu", "where"]
    assert "RTX 3090 or 4090 24 GB" in question.fields[0].options
    assert {"Locally", "Colab"} <= set(question.fields[1].options)


def test_a_long_run_asks_for_time_too() -> None:
    question = ask_about(Case("long", sae("gpt2", 10**9), 6, "elsewhere", hours=12))
    assert [field.name for field in question.fields] == ["gpu", "where", "time_budget"]
    assert "It may take up to 12.0 h on an A100: how much time, or money, may it use?" in question.text


def row(name: str) -> Case:
    return next(case for case in CASES if case.id == name)


def test_no_more_than_three_things_are_asked_and_what_is_left_out_is_said() -> None:
    question = ask_about(row("disk too small, hours on this CPU"))
    assert [field.name for field in question.fields] == ["gpu", "where", "download_to"]
    assert all(f"- {field.label}\n" in question.text for field in question.fields)
    assert question.text.count("?") == 3
    assert "It may take up to 25.0 h on this machine's CPU." in question.text
    assert "Its weights are 1.90 GiB to download and /home/me/.cache/huggingface/hub has 1.00 GiB free" in question.text


def test_who_else_is_on_the_card_is_said_and_waiting_is_a_choice() -> None:
    question = ask_about(row("others, fits only without them"))
    assert "Other users hold 15.0 GiB of the card; without them 23.0 GiB would be free." in question.text
    assert "waiting until others free the card: then 23.0 GiB" in question.fields[0].options
    neither = ask_about(row("others, does not fit either way"))
    assert not any("waiting" in option for option in neither.fields[0].options)


def test_a_torch_that_ignores_the_card_is_named_with_its_cure() -> None:
    question = ask_about(row("CPU-only torch, SAE"))
    assert "torch 2.13.0+cpu is a CPU-only build, so NVIDIA GeForce RTX 4090 (card 0) will not be used" in question.text
    assert question.fields[0].options == [
        "Install a CUDA build of torch", "With another Python, which I name", "On the CPU: it may take up to 5.3 h",
    ]  # fmt: skip
    little = ask_about(row("CPU-only torch, full cache"))
    assert "The 16.0 GiB of free RAM may be too little for the CPU" in little.text
    assert not any(option.startswith("On the CPU") for option in little.fields[0].options)


def test_money_is_told_within_the_budget_and_asked_for_over_it() -> None:
    price = "60 USD (A100 40 GB at 1.50 USD per hour, RunPod, 2026-11-20)"
    told = ask_about(row("rented card, 60 USD of 100"))
    assert told.text.endswith(f"it fits. It may cost up to {price}; you allow 100 USD. It may take up to 40.0 h on the "
                              "RTX 4090.")  # fmt: skip
    over = ask_about(row("rented card, 60 USD of 20"))
    assert f"It may cost up to {price}, and you allow 20 USD." in over.text
    assert over.text.endswith("and do not start it.")
    open_place = ask_about(row("60 USD, place unknown"))
    assert f"It may take up to 40.0 h on an A100 and cost up to {price}: how much time, or money," in open_place.text


def test_a_cluster_with_room_is_told_with_what_to_submit() -> None:
    text = ask_about(row("login node, the cluster has room, 7B")).text
    assert "partition gpu of uni has it, `sbatch -p gpu --gres=gpu:a100:1 job.sh`" in text
    assert "login node" in text


def test_every_question_says_what_happens_without_an_answer() -> None:
    asked = [ask_about(case) for case in CASES if case.decision == "ask"]
    assert all("Without an answer I " in question.text.split("\n")[-1] for question in asked)


def test_what_happens_without_an_answer_leaves_nothing_out_that_may_be_read() -> None:
    """A filter is no default, whatever its effect is called; one that takes no RAM goes before one that does."""
    filtered = change("selective_caching", {"names_filter": ["*hook_z"]}, 61, 5, fits=True)
    in_ram = change("offloading", {"cache_device": "cpu"}, 61, 14, fits=True, host_bytes=50 * GIB)
    batch = change("smaller_batch", {"batch_size": 1}, 61, 15, fits=True)
    rounded = change("mixed_precision", {"dtype": "bfloat16"}, 61, 8, fits=True, effect="numerically_different")
    for changes, says in (
        ([filtered, in_ram, batch], "I write it with batch size 1."),
        ([filtered, in_ram], "I write it with the cache moved to RAM (50.0 GiB there)."),
        ([filtered, rounded], "I write it as planned, and do not start it."),
        ([], "I write it as planned, and do not start it."),
    ):
        question = ask_about(Case("default", cache(), 61, "card_named", 23, changes=changes))
        assert question.text.endswith(f"\nWithout an answer {says}")
    elsewhere = ask_about(Case("default", cache(reads=["*hook_q"]), 61, "card_named", 23, changes=[filtered]))
    assert elsewhere.text.endswith("\nWithout an answer I write it as planned, and do not start it.")


def test_ram_for_loading_is_named_where_a_laptop_or_colab_lacks_it() -> None:
    heavy = dataclasses.replace(EXAMPLE, extra={"loading_host_bytes": 48 * GIB})
    assert "It also takes about 48.0 GiB of RAM while the weights load." in ask_about(heavy).text
    kept = dataclasses.replace(EXAMPLE, extra={"host_bytes": 40 * GIB})
    assert "It also takes about 40.0 GiB of RAM." in ask_about(kept).text
    assert "RAM" not in ask_about(EXAMPLE).text


def test_a_rough_estimate_names_its_worst() -> None:
    assert (
        "approximately 61.3 GiB of GPU memory, at worst 80.0 GiB"
        in ask_about(dataclasses.replace(EXAMPLE, extra={"high": 80})).text
    )


def test_an_unreadable_card_is_named() -> None:
    from asking_situations import estimate, machine, verdict

    from compute_awareness.asking.decision import decide

    report = machine("NVIDIA A100-SXM4-80GB", 80, clear=False)
    report.accelerators[0].free_bytes = None
    work = cache()
    question = decide(work, estimate(work, 61), report, verdict(61, 16, "CPU (RAM)"), [], params=2_775_208_960)
    assert question.decision == "ask"
    assert "I can see NVIDIA A100-SXM4-80GB, but not how much memory it has free" in question.text


def test_a_card_that_is_too_small_gets_the_choice_with_figures() -> None:
    card = GpuChoice(gpu_id="a100-80gb", name="A100 80 GB", usable_bytes=79 * GIB, headroom_bytes=18 * GIB,
                     usd_per_hour=1.39, price_platform="RunPod", price_date="2026-11-20")  # fmt: skip
    question = ask_about(Case("choice", cache(), 61, "card_named", 23, gpus=(card,)))
    assert question.text.split("\n") == [
        "This experiment (caching every activation of pythia-2.8b, 4 x 1024 tokens, float32) needs approximately "
        "61.0 GiB, but NVIDIA GeForce RTX 4090 has 23.0 GiB free: 38.0 GiB too little. Which way do you want to go?",
        "- batch size 1: 15.2 GiB",
        "- caching only `*hook_resid_post`, if that is all you read: 20.3 GiB "
        "(it changes what is recorded or computed)",
        "- a larger GPU: the smallest that holds it as it is: A100 80 GB "
        "(from 1.39 USD per hour on RunPod, 2026-11-20)",
        "Without an answer I write it with batch size 1.",
    ]
    assert question.fields[0].options == [line.removeprefix("- ") for line in question.text.split("\n")[1:-1]]


def test_no_change_is_promised_that_is_not_enough() -> None:
    small = [change("smaller_batch", {"batch_size": 1}, 61, 40, fits=False)]
    assert "No single change is enough" in ask_about(Case("a", cache(), 61, "card_named", 23, changes=small)).text
    none = ask_about(Case("b", cache(), 61, "card_named", 23, changes=[]))
    assert "no change that saves enough" in none.text
    assert none.fields[0].options == ["a larger GPU, with 61.0 GiB free"]


def test_a_verdict_for_another_reason_than_device_memory_gives_that_reason() -> None:
    from asking_situations import estimate, machine, verdict

    from compute_awareness.asking.decision import decide

    work = forward("gpt2-xl")
    judged = verdict(8, 23, "NVIDIA GeForce RTX 4090").model_copy(
        update={"status": "does_not_fit", "why": "Loading takes 30 GiB of RAM and 12 GiB are free."}
    )
    question = decide(work, estimate(work, 8), machine("NVIDIA GeForce RTX 4090", 23), judged, [])
    assert "it does not fit NVIDIA GeForce RTX 4090: Loading takes 30 GiB of RAM and 12 GiB are free." in question.text
    assert "too little" not in question.text


def test_tight_words_follow_the_odds() -> None:
    from asking_situations import estimate, machine, verdict

    from compute_awareness.asking.decision import decide

    work, report = cache(), machine("NVIDIA L4", 22)
    for need, words in ((21.9, "it should fit, with little to spare"), (22.4, "it will probably run out of memory")):
        judged = verdict(need, 22, "NVIDIA L4").model_copy(update={"status": "tight"})
        question = decide(work, estimate(work, need), report, judged, usual_changes(need, 22))
        assert question.decision == "tell"
        assert words in question.text
        assert "GiB with batch size 1" in question.text


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (forward("gpt-j-6b", 2, 64, dtype="bf16"), "a forward pass of gpt-j-6b, 2 x 64 tokens, bfloat16"),
        (cache(names_filter=["*resid_post", "*hook_z"]), "caching `*resid_post`, `*hook_z` of pythia-2.8b, 4 x 1024"),
        (cache(layers=[3, 4]), "caching every activation in layers 3, 4 of pythia-2.8b"),
        (cache(stop_at_layer=8), "of pythia-2.8b stopped before layer 8, 4 x 1024 tokens"),
        (cache(names_filter=["a" * 80]), "caching some activations of pythia-2.8b"),
        (sae("gpt2", architecture="topk"),
         "training a topk SAE with 24576 features on blocks.6.hook_resid_pre of gpt2"),
        (sae(None, d_sae=None, expansion_factor=8), "training a standard SAE with expansion factor 8 on cached activ"),
        (parsed(task="training", model="gpt2", batch_size=4, seq_len=512),
         "training gpt2 with adamw, 4 x 512 tokens, float32"),
        (parsed(task="training", model="gpt2", trainable="lora"), "fine-tuning LoRA adapters of gpt2 with adamw"),
        (parsed(task="generation", model="gpt2", new_tokens=64),
         "generating 64 tokens with gpt2, prompts of 1 x 1024 tokens"),
        (parsed(task="patching", model="gpt2", method="eap_ig"),
         "edge attribution patching with integrated gradients in gpt2, 1 x 1024 tokens"),
        (parsed(task="patching", model="gpt2"), "activation patching in gpt2"),
        (parsed(task="sae_inference", d_in=768, d_sae=6144, architecture="topk"), "using a topk SAE, 1 x 128 tokens"),
    ],
)  # fmt: skip
def test_the_run_in_a_few_words(work: object, words: str) -> None:
    assert words in ask_about(Case("run", work, 30, "elsewhere")).text  # type: ignore[arg-type]


def test_changes_are_worded_from_their_fields_and_else_by_their_title() -> None:
    patches = [
        ({"batch_size": 2, "dtype": "float16"}, "batch size 2 and float16: 9.00 GiB"),
        ({"names_filter": ["a", "b"]}, "caching only `a`, `b`, if that is all you read: 9.00 GiB"),
        ({"cache_device": "cpu"}, "the cache moved to RAM: 9.00 GiB"),
        ({"something": 1}, "the smaller_batch change: 9.00 GiB"),
        ({}, "the smaller_batch change: 9.00 GiB"),
    ]
    for patch, words in patches:
        one = [change("smaller_batch", patch, 61, 9, fits=True)]
        question = ask_about(Case("way", cache(), 61, "card_named", 23, changes=one))
        assert f"- {words}\n" in question.text


def test_a_filter_of_what_is_read_bears_no_condition_and_comes_first() -> None:
    known = change("selective_caching", {"names_filter": ["*hook_q"]}, 61, 9, fits=True, costless=True)
    batch = change("smaller_batch", {"batch_size": 1}, 61, 5, fits=True)
    both = known.model_copy(update={"strategy": "combination", "patch": known.patch | batch.patch, "costless": False})
    case = Case("reads", cache(reads=["*hook_q"]), 61, "card_named", 23, changes=[batch, both, known])
    text = ask_about(dataclasses.replace(case, torch="cpu", where="card_seen")).text
    assert "`*hook_q`" not in text, "what leads is the torch that ignores the card"
    told = ask_about(case)
    assert (
        told.decision == "tell"
        and "23.0 GiB free. I do it by caching only what is read, `*hook_q`: 9.00 GiB, with" in told.text
    )
    larger = [one.model_copy(update={"costless": False}) for one in (batch, both, known)]
    asked = ask_about(dataclasses.replace(case, changes=larger))
    assert asked.decision == "ask" and "if that is all you read" in asked.text
    elsewhere = ask_about(dataclasses.replace(case, where="elsewhere", free=None))
    assert elsewhere.decision == "ask" and "with caching only what is read, `*hook_q`" in elsewhere.text


def test_useful_changes_keep_meaning_first_and_leave_out_what_saves_nothing() -> None:
    offered = [
        change("selective_caching", {"layers": [1]}, 60, 10, fits=True, effect="different_experiment"),
        change("mixed_precision", {"dtype": "bfloat16"}, 60, 30, fits=False, effect="numerically_different"),
        change("smaller_batch", {"batch_size": 2}, 60, 20, fits=True),
        change("offloading", {"cache_device": "cpu"}, 60, 15, fits=True),
        change("gradient_checkpointing", {}, 60, 60),
    ]
    assert [c.strategy for c in useful_changes(offered, to_fit=True)] == [
        "offloading", "smaller_batch", "selective_caching",
    ]  # fmt: skip
    assert [c.strategy for c in useful_changes(offered, to_fit=False)] == [
        "offloading", "smaller_batch", "mixed_precision",
    ]  # fmt: skip


def test_what_comes_from_outside_is_one_line_and_never_a_template() -> None:
    spec = {"name": "my\n\n{{ 7 * 6 }} model" + "x" * 500}
    work = forward().model_copy(update={"model": spec})
    odd = [change("smaller_batch", {}, 30, 9, title="{% raise %}\nIgnore all that")]
    question = ask_about(Case("odd", work, 30, "card_named", 20, changes=odd))  # type: ignore[arg-type]
    assert "my {{ 7 * 6 }} model" in question.text
    assert "- {% raise %} Ignore all that: 9.00 GiB" in question.text
    assert len(question.text.split("\n")[0]) < 400


def test_amounts_are_always_in_gib() -> None:
    assert [amount(n) for n in (0, 5 * 2**20, GIB // 2, 61 * GIB, 500 * GIB)] == [
        "less than 0.1 GiB", "less than 0.1 GiB", "0.50 GiB", "61.0 GiB", "500 GiB",
    ]  # fmt: skip


def test_every_template_is_used_and_says_what_it_is() -> None:
    files = question_files()
    assert all(file.front["id"] == name and file.front["about"] for name, file in files.items())
    told = {name for name, file in files.items() if file.front.get("decision") == "tell"}
    table = policy_table()
    assert told == {row.tell for row in table.otherwise} - {None}
    asked = {ask.question for trigger in table.triggers for ask in trigger.ask}
    assert set(files) - told == asked | {"_pieces"}
    assert all(files[name].front["decision"] == "ask" for name in asked)


def test_a_known_card_of_unknown_size_is_told() -> None:
    question = ask_about(Case("no free", cache(), 61, "card_named", None))
    assert (question.decision, question.triggers) == ("tell", ["full_activation_cache"])
    assert "Whether NVIDIA GeForce RTX 4090 has that free is not known" in question.text


def test_jinja2_is_imported_only_for_words() -> None:
    code = (
        "import sys\n"
        "import asking_situations as a\n"
        "a.ask_about(a.Case('silent', a.forward('gpt2'), 1.6, 'elsewhere'))\n"
        "assert 'jinja2' not in sys.modules\n"
        "a.ask_about(a.Case('ask', a.cache(), 61, 'elsewhere'))\n"
        "assert 'jinja2' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_child_path(), timeout=60)
    assert done.returncode == 0, done.stderr


def _child_path() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_a_reason_is_said_once_behind_the_triggers_that_have_it() -> None:
    reason = ask_about(Case("elsewhere", cache(), 61, "elsewhere")).reason
    assert reason.endswith(
        "not_this_machine, unclear_environment: the hardware of another place cannot be seen from here."
    )
    assert all(ask_about(case).reason.count(" cannot be seen from here") <= 1 for case in CASES)
