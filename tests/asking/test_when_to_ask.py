"""When to ask: a table of situations, written from the rules of the brief before the engine.

Two failures are looked for in both directions: asking where the answer would change nothing, and saying nothing
where it would have mattered.
"""

from __future__ import annotations

import pytest
from asking_situations import Case, ask_about, cache, estimate, forward, machine, sae, verdict

from compute_awareness.asking.decision import decide

LOADS_HEAVY = {"loading_host_bytes": 20 * 1024**3}
CACHE_ON_HOST = {"host_bytes": 40 * 1024**3}

LARGE, SAE, FULL = "large_model", "sae_training", "full_activation_cache"
UNCLEAR, LONG, NO_FIT = "unclear_environment", "long_running", "does_not_fit"

SMALL = [
    # A run any laptop can do: never a question, whatever is unknown.
    Case("gpt2 forward, place unknown", forward("gpt2"), 1.6, "elsewhere", None, "silent"),
    Case("gpt2 forward, no report", forward("gpt2"), 1.6, "no_report", None, "silent"),
    Case("gpt2 forward, unclear", forward("gpt2"), 1.6, "unclear", 8, "silent"),
    Case("gpt2 forward, no gpu", forward("gpt2"), 1.6, "no_gpu", 8, "silent"),
    Case("gpt2 forward, none named", forward("gpt2"), 1.6, "none_named", 8, "silent"),
    Case("gpt2 forward, card", forward("gpt2"), 1.6, "card_seen", 23, "silent"),
    Case("gpt2 full cache, place unknown", cache("gpt2", 1), 2.9, "elsewhere", None, "silent"),
    Case("gpt2 full cache, unclear", cache("gpt2", 1), 2.9, "unclear", 12, "silent"),
    Case("gpt2 full cache, card", cache("gpt2", 1), 2.9, "card_seen", 23, "silent"),
    Case("pythia-70m cache, place unknown", cache("pythia-70m", 8, 512), 2.2, "elsewhere", None, "silent"),
    Case("pythia-410m forward, place unknown", forward("pythia-410m", 1, 512), 2.6, "elsewhere", None, "silent"),
    Case("few SAE tokens, place unknown", sae("gpt2", 20_000), 2.8, "elsewhere", None, "silent"),
    Case("few SAE tokens, cached activations", sae(None, 20_000, 6144), 1.1, "unclear", 8, "silent"),
    Case("gpt2 forward, work unknown", forward("gpt2"), 1.6, "elsewhere", None, "silent", hours=0,
         extra={"flops": 0}),
    # Small, and known not to fit or to fit barely: say so, but no question.
    Case("small, busy card", forward("gpt2"), 1.6, "card_seen", 0.9, "tell", (NO_FIT,)),
    Case("small, busy named card", forward("gpt2"), 1.6, "card_named", 0.9, "tell", (NO_FIT,)),
    Case("small, starved container", forward("gpt2"), 1.6, "unclear", 1.0, "tell", (NO_FIT, UNCLEAR)),
    Case("small, tight card", forward("gpt2"), 1.9, "card_seen", 2.0, "tell"),
    # The edge of small: memory, its upper end, RAM beside it, time on a CPU.
    Case("3.99 GiB", forward("gpt2"), 3.99, "elsewhere", None, "silent"),
    Case("4 GiB", forward("gpt2"), 4.0, "elsewhere", None, "ask", (UNCLEAR,)),
    Case("rough: high end over 4 GiB", forward("gpt2"), 2.0, "elsewhere", None, "ask", (UNCLEAR,),
         extra={"high": 6}),
    Case("loading takes 20 GiB of RAM", forward("pythia-1b", dtype="bfloat16"), 2.7, "elsewhere", None, "ask",
         (UNCLEAR,), extra=LOADS_HEAVY),
    Case("cache in RAM", cache("gpt2", 32, cache_device="cpu"), 3.0, "elsewhere", None, "ask", (FULL, UNCLEAR),
         extra=CACHE_ON_HOST),
    Case("SAE, 2 M tokens, little memory", sae("gpt2"), 2.8, "elsewhere", None, "ask", (SAE, UNCLEAR)),
    Case("SAE, time unknown", sae("gpt2"), 2.8, "elsewhere", None, "ask", (SAE, UNCLEAR), extra={"flops": 0}),
]  # fmt: skip

KNOWN_CARD = [
    # It suffices: no question, one line if a trigger fired, else nothing.
    Case("2.8b forward fits", forward(), 12, "card_seen", 23, "silent"),
    Case("2.8b forward fits, named", forward(), 12, "card_named", 23, "silent"),
    Case("1b cache of 256 tokens fits", cache("pythia-1b", 4, 256), 8, "card_seen", 23, "silent"),
    Case("6B is not of the 7B class", forward("gpt-j-6b", dtype="float16"), 13, "card_seen", 23, "silent"),
    Case("7B fits", forward("llama-2-7b", dtype="bfloat16"), 14, "card_seen", 23, "tell", (LARGE,)),
    Case("6.9B fits", forward("pythia-6.9b", dtype="bfloat16"), 14, "card_named", 23, "tell", (LARGE,)),
    Case("13B on an A100", forward("llama-2-13b"), 52, "card_named", 79, "tell", (LARGE,)),
    Case("full cache fits", cache(), 61, "card_named", 79, "tell", (FULL,)),
    Case("full cache of a 7B fits", cache("mistral-7b", 1), 40, "card_seen", 79, "tell", (LARGE, FULL)),
    Case("SAE fits", sae("gpt2"), 5, "card_seen", 23, "tell", (SAE,)),
    Case("SAE of little memory fits", sae("gpt2"), 2.8, "card_seen", 23, "tell", (SAE,)),
    Case("long SAE fits", sae("gpt2", 300_000_000), 5, "card_seen", 23, "tell", (SAE, LONG), hours=9),
    Case("long SAE on a 7B fits", sae("llama-2-7b", 10**9), 50, "card_named", 79, "tell", (LARGE, SAE, LONG),
         hours=60),
    Case("exactly two hours is not long", sae("gpt2"), 5, "card_seen", 23, "tell", (SAE,), hours=2),
    Case("long forward", forward(), 12, "card_seen", 23, "tell", (LONG,), hours=3),
    # It barely suffices: a warning, not a question.
    Case("2.8b tight", forward(), 12, "card_seen", 12.5, "tell"),
    Case("full cache tight", cache(), 61, "card_named", 62, "tell", (FULL,)),
    Case("SAE tight and long", sae("gpt2"), 22, "card_named", 23, "tell", (SAE, LONG), hours=5),
    # It does not suffice: the choice.
    Case("2.8b does not fit", forward(), 12, "card_seen", 11, "ask", (NO_FIT,)),
    Case("full cache does not fit", cache(), 61, "card_seen", 23, "ask", (NO_FIT, FULL)),
    Case("full cache does not fit, named", cache(), 61, "card_named", 23, "ask", (NO_FIT, FULL)),
    Case("7B does not fit", forward("llama-2-7b"), 27, "card_named", 23, "ask", (NO_FIT, LARGE)),
    Case("SAE does not fit", sae("pythia-1.4b"), 30, "card_seen", 23, "ask", (NO_FIT, SAE)),
    Case("SAE on a 13B does not fit", sae("llama-2-13b", 10**8), 70, "card_named", 23, "ask",
         (NO_FIT, LARGE, SAE, LONG), hours=30),
    Case("selective cache does not fit", cache(names_filter="*resid_post"), 14, "card_named", 11, "ask", (NO_FIT,)),
]  # fmt: skip

FULL_CACHE = [
    Case("512 tokens is full", cache(seq=512), 30, "card_named", 79, "tell", (FULL,)),
    Case("511 tokens is not", cache(seq=511), 30, "card_named", 79, "silent"),
    Case("one hook kind", cache(names_filter="*resid_post"), 14, "card_named", 79, "silent"),
    Case("one layer", cache(layers=[3]), 14, "card_named", 79, "silent"),
    Case("a star is no filter", cache(names_filter="*"), 61, "card_named", 79, "tell", (FULL,)),
    Case("stops before block 4 of 32", cache(stop_at_layer=4), 18, "card_named", 79, "silent"),
    Case("stops before block 30 of 32", cache(stop_at_layer=30), 58, "card_named", 79, "tell", (FULL,)),
    Case("leaves out the last block", cache(stop_at_layer=-1), 59, "card_named", 79, "tell", (FULL,)),
    Case("leaves out 30 of 32 blocks", cache(stop_at_layer=-30), 14, "card_named", 79, "silent"),
    Case("a forward pass keeps nothing", forward(seq=2048), 13, "card_named", 79, "silent"),
]

NOT_KNOWN = [
    # Where it will run is not known, and it is no laptop run: ask.
    Case("the example", cache(), 61.3, "elsewhere", None, "ask", (FULL, UNCLEAR)),
    Case("the example, no report", cache(), 61.3, "no_report", None, "ask", (FULL, UNCLEAR)),
    Case("2.8b forward", forward(), 12, "elsewhere", None, "ask", (UNCLEAR,)),
    Case("7B", forward("llama-2-7b"), 27, "elsewhere", None, "ask", (LARGE, UNCLEAR)),
    Case("12B bf16", forward("pythia-12b", dtype="bfloat16"), 24, "elsewhere", None, "ask", (LARGE, UNCLEAR)),
    Case("SAE on 2.8b", sae("pythia-2.8b"), 24, "elsewhere", None, "ask", (SAE, UNCLEAR)),
    Case("long SAE", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", (SAE, LONG, UNCLEAR), hours=12),
    Case("everything at once", sae("mistral-7b", 10**9), 60, "elsewhere", None, "ask",
         (LARGE, SAE, LONG, UNCLEAR), hours=90),
    # No GPU is seen here, and it is not plain that the run will be here.
    Case("unclear, RAM too small", cache(), 61, "unclear", 16, "ask", (NO_FIT, FULL, UNCLEAR)),
    Case("unclear, RAM tight", forward(), 15, "unclear", 16, "ask", (UNCLEAR,)),
    Case("unclear, fits, hours on a CPU", sae("gpt2", 10**8), 5, "unclear", 64, "ask", (SAE, LONG, UNCLEAR)),
    Case("unclear, fits and short", forward("pythia-1b"), 5, "unclear", 64, "tell", (UNCLEAR,)),
    Case("unclear, 7B fits and short", forward("llama-2-7b", 1, 128), 27, "unclear", 256, "tell", (LARGE, UNCLEAR)),
    # No GPU is seen here, and it is plain that the run will be here.
    Case("no gpu, fits and short", forward("pythia-1b"), 5, "no_gpu", 16, "tell"),
    Case("no gpu, full cache fits and short", cache("pythia-410m", 1), 7, "no_gpu", 32, "tell", (FULL,)),
    Case("no gpu, fits, not short, no trigger", forward("gpt2-xl", 16), 14, "no_gpu", 64, "tell", hours=1),
    Case("no gpu, SAE for hours", sae("gpt2"), 5, "no_gpu", 64, "ask", (SAE, LONG)),
    Case("no gpu, SAE for an hour", sae("gpt2", 500_000), 5, "no_gpu", 64, "ask", (SAE,)),
    Case("no gpu, RAM too small", forward("gpt2-xl"), 17, "no_gpu", 16, "ask", (NO_FIT,)),
    Case("no gpu, 7B too big", forward("llama-2-7b"), 27, "no_gpu", 16, "ask", (NO_FIT, LARGE)),
    Case("no gpu, RAM tight", forward("gpt2-xl"), 15, "no_gpu", 16, "tell"),
    Case("no gpu, 7B RAM tight", forward("llama-2-7b"), 27, "no_gpu", 28, "ask", (LARGE,)),
    # The caller says there is no GPU: nothing about the place is open.
    Case("none, fits and short", forward("pythia-1b"), 5, "none_named", 16, "tell"),
    Case("none, SAE for hours", sae("gpt2"), 5, "none_named", 64, "tell", (SAE, LONG)),
    Case("none, tight", forward("gpt2-xl"), 15, "none_named", 16, "tell"),
    Case("none, does not fit", cache(), 61, "none_named", 16, "ask", (NO_FIT, FULL)),
]  # fmt: skip

CASES = SMALL + KNOWN_CARD + FULL_CACHE + NOT_KNOWN


def test_the_table_is_large_and_its_names_are_its_own() -> None:
    assert len(CASES) >= 60
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_decision(case: Case) -> None:
    question = ask_about(case)
    assert (question.decision, tuple(question.triggers)) == (case.decision, case.triggers)
    assert question.reason
    assert bool(question.text) == (question.decision != "silent")
    assert bool(question.fields) == (question.decision == "ask")


def test_a_card_in_sight_does_not_count_when_the_run_is_elsewhere() -> None:
    work = cache()
    report = machine("NVIDIA H200", 139)
    question = decide(work, estimate(work, 61), report, verdict(61, None, "not known"), [], where_unknown=True)
    assert (question.decision, question.triggers) == ("ask", [FULL, UNCLEAR])


def test_without_a_gpu_the_hours_of_a_data_centre_card_do_not_count() -> None:
    work = sae("gpt2", 10**8)
    question = decide(
        work, estimate(work, 5), machine(ram=64), verdict(5, 64, "CPU (RAM)"), [], hours_high=0.3, hours_on="an A100"
    )
    assert (question.decision, question.triggers) == ("ask", [SAE, LONG])
    assert "It may take up to 11.0 days on a laptop's CPU" in question.text


def test_a_small_run_stays_small_on_a_slow_machine() -> None:
    work = forward("gpt2")
    question = decide(
        work, estimate(work, 1.6), machine(clear=False), verdict(1.6, 8, "CPU (RAM)"), [], hours_high=3, hours_on="CPU"
    )
    assert question.decision == "silent"
