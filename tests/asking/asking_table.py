"""When to ask: the table of situations, written from the rules of the brief before the engine.

A row is: what it is, the workload, what it needs (GiB), what is known of the place, what is free there (GiB), what the
engine must decide, why, and the triggers it must name. What more is known stands behind: `hours` and `usd` the run may
take, `hours_allowed` and `usd_allowed` of the profile, `others` (GiB other users hold on the card), `download` and
`disk` (GiB), `torch` of the experiment's Python, `path` (the cluster has a GPU that holds it).

Two failures are looked for in both directions: asking where the answer would change nothing, and saying nothing where
it would have mattered.
"""

from __future__ import annotations

from typing import Any

from asking_situations import Case, Where, cache, change, forward, generation, patching, sae, sae_inference, training

from compute_awareness.advice.answers import Change
from compute_awareness.workload import AnyWorkload

LARGE, SAE, FULL = "large_model", "sae_training", "full_activation_cache"
UNCLEAR, LONG, NO_FIT = "unclear_environment", "long_running", "does_not_fit"
NOT_HERE, COSTS, SHARED = "not_this_machine", "costs_money", "shared_gpu"
DOWNLOAD, IGNORED = "download", "no_gpu_used"

LOADS_HEAVY = {"loading_host_bytes": 20 * 1024**3}
CACHE_ON_HOST = {"host_bytes": 40 * 1024**3}


def row(
    name: str, workload: AnyWorkload, need: float, where: Where, free: float | None, decision: str, why: str,
    *triggers: str, **more: Any,
) -> Case:  # fmt: skip
    return Case(name, workload, need, where, free, decision, triggers, why=why, **more)


READS = cache(reads=["*hook_resid_post"])


def filtered(after: float) -> Change:
    """The cache of what is read, where 23 GiB are free."""
    patch = {"names_filter": ["*hook_resid_post"]}
    return change("selective_caching", patch, 61, after, fits=after <= 23, costless=True)


SMALL = [
    # A run any laptop can do: never a question, whatever is unknown.
    row("gpt2 forward, place unknown", forward("gpt2"), 1.6, "elsewhere", None, "silent", "any laptop does"),
    row("gpt2 forward, no report", forward("gpt2"), 1.6, "no_report", None, "silent", "any laptop does"),
    row("gpt2 forward, unclear", forward("gpt2"), 1.6, "unclear", 8, "silent", "any laptop does"),
    row("gpt2 forward, no gpu", forward("gpt2"), 1.6, "no_gpu", 8, "silent", "a CPU is quick enough"),
    row("gpt2 forward, none named", forward("gpt2"), 1.6, "none_named", 8, "silent", "a CPU is quick enough"),
    row("gpt2 forward, card", forward("gpt2"), 1.6, "card_seen", 23, "silent", "the card is far too large for it"),
    row("gpt2 forward, login node", forward("gpt2"), 1.6, "login_node", 8, "silent", "any node does"),
    row("gpt2 full cache, place unknown", cache("gpt2", 1), 2.9, "elsewhere", None, "silent",
        "a full cache, but a small one"),
    row("gpt2 full cache, unclear", cache("gpt2", 1), 2.9, "unclear", 12, "silent", "a full cache, but a small one"),
    row("gpt2 full cache, card", cache("gpt2", 1), 2.9, "card_seen", 23, "silent", "small, and the card is known"),
    row("pythia-70m cache, place unknown", cache("pythia-70m", 8, 512), 2.2, "elsewhere", None, "silent",
        "any laptop does"),
    row("pythia-410m forward, place unknown", forward("pythia-410m", 1, 512), 2.6, "elsewhere", None, "silent",
        "any laptop does"),
    row("few SAE tokens, place unknown", sae("gpt2", 20_000), 2.8, "elsewhere", None, "silent",
        "an SAE, but minutes on a CPU"),
    row("few SAE tokens, cached activations", sae(None, 20_000, 6144), 1.1, "unclear", 8, "silent",
        "an SAE, but minutes on a CPU"),
    row("gpt2 forward, work unknown", forward("gpt2"), 1.6, "elsewhere", None, "silent",
        "little memory bounds the work of a forward pass", hours=0, extra={"flops": 0}),
    row("gpt2 generation, place unknown", generation("gpt2"), 1.8, "elsewhere", None, "silent", "any laptop does"),
    row("gpt2 patching, unclear", patching("gpt2", 1, 64), 1.5, "unclear", 8, "silent", "any laptop does"),
    row("gpt2 with an SAE, place unknown", sae_inference("gpt2"), 2.0, "elsewhere", None, "silent", "any laptop does"),
    # Small, and known not to fit or to fit barely: say so, but no question.
    row("small, busy card", forward("gpt2"), 1.6, "card_seen", 0.9, "tell", "there is a way without a choice", NO_FIT),
    row("small, busy named card", forward("gpt2"), 1.6, "card_named", 0.9, "tell", "there is a way without a choice",
        NO_FIT),
    row("small, starved container", forward("gpt2"), 1.6, "unclear", 1.0, "tell", "any other machine does",
        NO_FIT, UNCLEAR),
    row("small, tight card", forward("gpt2"), 1.9, "card_seen", 2.0, "tell", "a warning is enough"),
    # The edge of small: memory, its upper end, RAM beside it, time on a CPU.
    row("3.99 GiB", forward("gpt2"), 3.99, "elsewhere", None, "silent", "below the edge"),
    row("4 GiB", forward("gpt2"), 4.0, "elsewhere", None, "ask", "at the edge a laptop may not do", NOT_HERE, UNCLEAR),
    row("rough: high end over 4 GiB", forward("gpt2"), 2.0, "elsewhere", None, "ask", "the upper end decides",
        NOT_HERE, UNCLEAR, extra={"high": 6}),
    row("loading takes 20 GiB of RAM", forward("pythia-1b", dtype="bfloat16"), 2.7, "elsewhere", None, "ask",
        "a laptop dies while loading", NOT_HERE, UNCLEAR, extra=LOADS_HEAVY),
    row("cache in RAM", cache("gpt2", 32, cache_device="cpu"), 3.0, "elsewhere", None, "ask",
        "a laptop lacks the RAM", FULL, NOT_HERE, UNCLEAR, extra=CACHE_ON_HOST),
    row("SAE, 2 M tokens, little memory", sae("gpt2"), 2.8, "elsewhere", None, "ask", "hours on a laptop",
        SAE, NOT_HERE, UNCLEAR),
    row("SAE, time unknown", sae("gpt2"), 2.8, "elsewhere", None, "ask", "nothing bounds the work of an SAE",
        SAE, NOT_HERE, UNCLEAR, extra={"flops": 0}),
]  # fmt: skip

KNOWN_CARD = [
    # It suffices: no question, one line if a trigger fired, else nothing.
    row("2.8b forward fits", forward(), 12, "card_seen", 23, "silent", "known, sufficient, nothing unusual"),
    row("2.8b forward fits, named", forward(), 12, "card_named", 23, "silent", "known, sufficient, nothing unusual"),
    row("1b cache of 256 tokens fits", cache("pythia-1b", 4, 256), 8, "card_seen", 23, "silent", "short sequences"),
    row("6B is not of the 7B class", forward("gpt-j-6b", dtype="float16"), 13, "card_seen", 23, "silent",
        "below the 7B class"),
    row("7B fits", forward("llama-2-7b", dtype="bfloat16"), 14, "card_seen", 23, "tell", "known and sufficient",
        LARGE),
    row("6.9B fits", forward("pythia-6.9b", dtype="bfloat16"), 14, "card_named", 23, "tell", "known and sufficient",
        LARGE),
    row("13B on an A100", forward("llama-2-13b"), 52, "card_named", 79, "tell", "known and sufficient", LARGE),
    row("7B LoRA fits", training("llama-2-7b", trainable="lora", dtype="bfloat16"), 19, "card_seen", 23, "tell",
        "known and sufficient", LARGE),
    row("7B generation fits", generation("mistral-7b", dtype="bfloat16"), 16, "card_named", 23, "tell",
        "known and sufficient", LARGE),
    row("training gpt2 fits", training("gpt2"), 6, "card_seen", 23, "silent", "known, sufficient, nothing unusual"),
    row("generation fits", generation("pythia-2.8b"), 12, "card_seen", 23, "silent", "nothing unusual"),
    row("an SAE used, not trained", sae_inference("pythia-1b"), 6, "card_seen", 23, "silent", "nothing unusual"),
    row("full cache fits", cache(), 61, "card_named", 79, "tell", "known and sufficient", FULL),
    row("full cache of a 7B fits", cache("mistral-7b", 1), 40, "card_seen", 79, "tell", "known and sufficient",
        LARGE, FULL),
    row("SAE fits", sae("gpt2"), 5, "card_seen", 23, "tell", "known and sufficient", SAE),
    row("SAE of little memory fits", sae("gpt2"), 2.8, "card_seen", 23, "tell", "known and sufficient", SAE),
    row("long SAE fits", sae("gpt2", 300_000_000), 5, "card_seen", 23, "tell", "own card: the hours are told",
        SAE, LONG, hours=9),
    row("long SAE on a 7B fits", sae("llama-2-7b", 10**9), 50, "card_named", 79, "tell", "known: the hours are told",
        LARGE, SAE, LONG, hours=60),
    row("exactly two hours is not long", sae("gpt2"), 5, "card_seen", 23, "tell", "at the edge, not above it", SAE,
        hours=2),
    row("long forward", forward(), 12, "card_seen", 23, "tell", "own card: the hours are told", LONG, hours=3),
    # It barely suffices: a warning, not a question.
    row("2.8b tight", forward(), 12, "card_seen", 12.5, "tell", "it would fail in the first steps, cheaply"),
    row("7B tight", forward("llama-2-7b"), 27, "card_named", 28, "tell", "it would fail in the first steps", LARGE),
    row("full cache tight", cache(), 61, "card_named", 62, "tell", "it would fail in the first steps", FULL),
    row("SAE tight and long", sae("gpt2"), 22, "card_named", 23, "tell", "it would fail in the first steps",
        SAE, LONG, hours=5),
    # The card is known, what it has free is not: asking which it is would not help.
    row("free not known", forward(), 12, "card_named", None, "tell", "said as unknown"),
    row("free not known, 7B", forward("llama-2-7b"), 27, "card_named", None, "tell", "said as unknown", LARGE),
    row("free not known, small", forward("gpt2"), 1.6, "card_named", None, "silent", "any laptop does"),
    # It does not suffice: the choice.
    row("2.8b does not fit", forward(), 12, "card_seen", 11, "ask", "known, insufficient: the choice", NO_FIT),
    row("2.8b training does not fit", training(), 52, "card_seen", 23, "ask", "known, insufficient: the choice",
        NO_FIT),
    row("generation does not fit", generation("pythia-2.8b"), 14, "card_seen", 8, "ask", "the choice", NO_FIT),
    row("full cache does not fit", cache(), 61, "card_seen", 23, "ask", "the choice", NO_FIT, FULL),
    row("full cache does not fit, named", cache(), 61, "card_named", 23, "ask", "the choice", NO_FIT, FULL),
    row("what is read fits", READS, 61, "card_seen", 23, "tell", "nothing to give up", NO_FIT, FULL,
        changes=[filtered(9)]),
    row("what is read fits, named", READS, 61, "card_named", 23, "tell", "nothing to give up", NO_FIT, FULL,
        changes=[filtered(9)]),
    row("what is read fits beside others", READS, 61, "card_seen", 23, "tell", "nothing to give up", NO_FIT, SHARED,
        FULL, changes=[filtered(9)], others=15),
    row("what is read does not fit", READS, 61, "card_seen", 23, "ask", "the choice", NO_FIT, FULL,
        changes=[filtered(30)]),
    row("what is read fits, place unknown", READS, 61, "elsewhere", None, "ask", "which card is not known", FULL,
        NOT_HERE, UNCLEAR, changes=[filtered(9)]),
    row("7B does not fit", forward("llama-2-7b"), 27, "card_named", 23, "ask", "the choice", NO_FIT, LARGE),
    row("SAE does not fit", sae("pythia-1.4b"), 30, "card_seen", 23, "ask", "the choice", NO_FIT, SAE),
    row("SAE on a 13B does not fit", sae("llama-2-13b", 10**8), 70, "card_named", 23, "ask", "the choice",
        NO_FIT, LARGE, SAE, LONG, hours=30),
    row("selective cache does not fit", cache(names_filter="*resid_post"), 14, "card_named", 11, "ask", "the choice",
        NO_FIT),
]  # fmt: skip

FULL_CACHE = [
    row("512 tokens is full", cache(seq=512), 30, "card_named", 79, "tell", "from 512 tokens on", FULL),
    row("511 tokens is not", cache(seq=511), 30, "card_named", 79, "silent", "just below"),
    row("one hook kind", cache(names_filter="*resid_post"), 14, "card_named", 79, "silent", "a filter"),
    row("one layer", cache(layers=[3]), 14, "card_named", 79, "silent", "one layer only"),
    row("a star is no filter", cache(names_filter="*"), 61, "card_named", 79, "tell", "it matches every hook", FULL),
    row("stops before block 4 of 32", cache(stop_at_layer=4), 18, "card_named", 79, "silent", "few blocks run"),
    row("stops before block 30 of 32", cache(stop_at_layer=30), 58, "card_named", 79, "tell", "most blocks run", FULL),
    row("leaves out the last block", cache(stop_at_layer=-1), 59, "card_named", 79, "tell", "most blocks run", FULL),
    row("leaves out 30 of 32 blocks", cache(stop_at_layer=-30), 14, "card_named", 79, "silent", "few blocks run"),
    row("stops at half", cache(stop_at_layer=16), 32, "card_named", 79, "silent", "half is not more than half"),
    row("a forward pass keeps nothing", forward(seq=2048), 13, "card_named", 79, "silent", "no cache"),
    row("generation keeps nothing", generation("pythia-2.8b"), 13, "card_named", 79, "silent", "no cache"),
]  # fmt: skip

NOT_KNOWN = [
    # Where it will run is not known, and it is no laptop run: ask.
    row("the example", cache(), 61.3, "elsewhere", None, "ask", "the brief's own", FULL, NOT_HERE, UNCLEAR),
    row("the example, no report", cache(), 61.3, "no_report", None, "ask", "nothing is in sight", FULL, UNCLEAR),
    row("2.8b forward", forward(), 12, "elsewhere", None, "ask", "12 GiB is no laptop run", NOT_HERE, UNCLEAR),
    row("2.8b forward, no report", forward(), 12, "no_report", None, "ask", "12 GiB is no laptop run", UNCLEAR),
    row("7B", forward("llama-2-7b"), 27, "elsewhere", None, "ask", "the card decides", LARGE, NOT_HERE, UNCLEAR),
    row("7B, no report", forward("llama-2-7b"), 27, "no_report", None, "ask", "the card decides", LARGE, UNCLEAR),
    row("12B bf16", forward("pythia-12b", dtype="bfloat16"), 24, "elsewhere", None, "ask", "the card decides",
        LARGE, NOT_HERE, UNCLEAR),
    row("7B LoRA", training("mistral-7b", trainable="lora"), 33, "elsewhere", None, "ask", "the card decides",
        LARGE, NOT_HERE, UNCLEAR),
    row("1b training", training("pythia-1b"), 18, "elsewhere", None, "ask", "no laptop run", NOT_HERE, UNCLEAR),
    row("7B generation, no report", generation("llama-2-7b"), 28, "no_report", None, "ask", "the card decides",
        LARGE, UNCLEAR),
    row("SAE on 2.8b", sae("pythia-2.8b"), 24, "elsewhere", None, "ask", "the card decides", SAE, NOT_HERE, UNCLEAR),
    row("long SAE", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", "hours, on what?", SAE, LONG, NOT_HERE, UNCLEAR,
        hours=12),
    row("everything at once", sae("mistral-7b", 10**9), 60, "elsewhere", None, "ask", "one message for all",
        LARGE, SAE, LONG, NOT_HERE, UNCLEAR, hours=90),
    # No GPU is seen here, and it is not plain that the run will be here.
    row("unclear, RAM too small", cache(), 61, "unclear", 16, "ask", "not here as it is", NO_FIT, FULL, UNCLEAR),
    row("unclear, RAM tight", forward(), 15, "unclear", 16, "ask", "a CPU may not do", UNCLEAR),
    row("unclear, fits, hours on a CPU", sae("gpt2", 10**8), 5, "unclear", 64, "ask", "hours on a CPU",
        SAE, LONG, UNCLEAR),
    row("unclear, fits and short", forward("pythia-1b"), 5, "unclear", 64, "tell", "quick on the CPU in sight",
        UNCLEAR),
    row("unclear, 7B fits and short", forward("llama-2-7b", 1, 128), 27, "unclear", 256, "tell",
        "quick on the CPU in sight", LARGE, UNCLEAR),
    row("unclear, full cache fits and short", cache("pythia-410m", 1), 7, "unclear", 64, "tell",
        "quick on the CPU in sight", FULL, UNCLEAR),
    row("unclear, training", training("pythia-1b"), 18, "unclear", 16, "ask", "not here as it is", NO_FIT, UNCLEAR),
    # No GPU is seen here, and it is plain that the run will be here.
    row("no gpu, fits and short", forward("pythia-1b"), 5, "no_gpu", 16, "tell", "quick on the CPU"),
    row("no gpu, full cache fits and short", cache("pythia-410m", 1), 7, "no_gpu", 32, "tell", "quick on the CPU",
        FULL),
    row("no gpu, fits, not short, no trigger", forward("gpt2-xl", 16), 14, "no_gpu", 64, "tell",
        "an hour on the CPU is said, not asked", hours=1),
    row("no gpu, SAE for hours", sae("gpt2"), 5, "no_gpu", 64, "ask", "another place would change the day", SAE, LONG),
    row("no gpu, SAE for an hour", sae("gpt2", 500_000), 5, "no_gpu", 64, "ask", "a GPU would change it", SAE),
    row("no gpu, RAM too small", forward("gpt2-xl"), 17, "no_gpu", 16, "ask", "not here as it is", NO_FIT),
    row("no gpu, 7B too big", forward("llama-2-7b"), 27, "no_gpu", 16, "ask", "not here as it is", NO_FIT, LARGE),
    row("no gpu, RAM tight", forward("gpt2-xl"), 15, "no_gpu", 16, "tell", "a warning is enough"),
    row("no gpu, 7B RAM tight", forward("llama-2-7b"), 27, "no_gpu", 28, "ask", "a GPU would change it", LARGE),
    # The caller says there is no GPU: nothing about the place is open.
    row("none, fits and short", forward("pythia-1b"), 5, "none_named", 16, "tell", "known and sufficient"),
    row("none, SAE for hours", sae("gpt2"), 5, "none_named", 64, "tell", "known: the hours are told", SAE, LONG),
    row("none, tight", forward("gpt2-xl"), 15, "none_named", 16, "tell", "a warning is enough"),
    row("none, does not fit", cache(), 61, "none_named", 16, "ask", "known, insufficient: the choice", NO_FIT, FULL),
]  # fmt: skip

SHARED_CARD = [
    row("others, still fits", forward(), 12, "card_seen", 14, "tell", "sufficient, but it may change", SHARED,
        others=9),
    row("others, 7B still fits", forward("llama-2-7b", dtype="bfloat16"), 14, "card_seen", 16, "tell",
        "sufficient, but it may change", SHARED, LARGE, others=7),
    row("others, SAE for hours still fits", sae("gpt2"), 5, "card_seen", 14, "tell", "sufficient, but it may change",
        SHARED, SAE, LONG, others=9, hours=5),
    row("others, tight", forward(), 12, "card_seen", 12.5, "tell", "a warning is enough", SHARED, others=10),
    row("others, fits only without them", forward(), 12, "card_seen", 8, "ask", "wait, shrink or move: a choice",
        NO_FIT, SHARED, others=15),
    row("others, full cache fits only without them", cache(), 61, "card_seen", 40, "ask", "a choice",
        NO_FIT, SHARED, FULL, others=39),
    row("others, does not fit either way", cache(), 61, "card_seen", 14, "ask", "waiting would not help",
        NO_FIT, SHARED, FULL, others=9),
    row("others hold exactly 1 GiB", forward(), 12, "card_seen", 22, "tell", "from 1 GiB on", SHARED, others=1),
    row("others hold half a GiB", forward(), 12, "card_seen", 22, "silent", "a desktop's worth", others=0.5),
    row("others not told", forward(), 12, "card_seen", 22, "silent", "unknown is no finding", others=None),
    row("others, small run", forward("gpt2"), 1.6, "card_seen", 14, "silent", "any laptop does", others=9),
    row("others, small run, full card", forward("gpt2"), 1.6, "card_seen", 0.9, "tell", "there is another way",
        NO_FIT, SHARED, others=22),
    row("others here, run elsewhere", forward(), 12, "elsewhere", None, "ask", "this card is not its card",
        NOT_HERE, UNCLEAR, others=9),
    row("others here, card named", forward(), 12, "card_named", 23, "silent", "a named card is counted empty",
        others=9),
]  # fmt: skip

DISK = [
    row("disk too small", forward(), 12, "card_seen", 23, "ask", "it dies in the download", DOWNLOAD,
        download=5.3, disk=3),
    row("disk too small, none named", forward("pythia-1b"), 5, "none_named", 16, "ask", "it dies in the download",
        DOWNLOAD, download=1.9, disk=1),
    row("disk too small, no gpu", forward("pythia-1b"), 5, "no_gpu", 16, "ask", "it dies in the download", DOWNLOAD,
        download=1.9, disk=1),
    row("disk suffices", forward(), 12, "card_seen", 23, "silent", "nothing in the way", download=5.3, disk=50),
    row("disk just suffices", forward(), 12, "card_seen", 23, "silent", "equal is enough", download=5.3, disk=5.3),
    row("disk not known", forward(), 12, "card_seen", 23, "silent", "unknown is no finding", download=5.3),
    row("nothing to download", forward(), 12, "card_seen", 23, "silent", "the model is in the cache", disk=1),
    row("disk too small, 7B", forward("llama-2-7b", dtype="bfloat16"), 14, "card_seen", 23, "ask",
        "it dies in the download", DOWNLOAD, LARGE, download=12.6, disk=9),
    row("disk too small, tight", forward(), 12, "card_seen", 12.5, "ask", "it dies in the download", DOWNLOAD,
        download=5.3, disk=3),
    row("disk too small, card too", forward(), 12, "card_seen", 11, "ask", "both in one message", NO_FIT, DOWNLOAD,
        download=5.3, disk=3),
    row("disk too small, SAE", sae("pythia-1.4b"), 18, "card_seen", 23, "ask", "it dies in the download",
        DOWNLOAD, SAE, download=2.7, disk=2),
    row("disk too small, small run", forward("gpt2"), 1.6, "card_seen", 23, "tell", "it dies, but there is a cure",
        DOWNLOAD, download=0.5, disk=0.2),
    row("disk here too small, run elsewhere", forward(), 12, "elsewhere", None, "ask", "another machine's disk counts",
        NOT_HERE, UNCLEAR, download=5.3, disk=3),
    row("disk here too small, card named", forward(), 12, "card_named", 23, "silent", "it may be another machine",
        download=5.3, disk=3),
    row("disk too small, unclear, quick", forward("pythia-1b"), 5, "unclear", 64, "ask",
        "it will run here, and die in the download", DOWNLOAD, UNCLEAR, download=1.9, disk=1),
    row("disk too small, hours on this CPU", sae("pythia-1b"), 12, "no_gpu", 64, "ask", "three questions are enough",
        DOWNLOAD, SAE, LONG, download=1.9, disk=1),
    row("disk too small, unclear, RAM too", cache(), 61, "unclear", 16, "ask", "the place is asked, the disk is told",
        NO_FIT, DOWNLOAD, FULL, UNCLEAR, download=5.3, disk=3),
]  # fmt: skip

TORCH = [
    row("CPU-only torch, SAE", sae("gpt2"), 5, "card_seen", 23, "ask", "hours on the CPU beside an idle card",
        IGNORED, SAE, torch="cpu"),
    row("CUDA torch, SAE", sae("gpt2"), 5, "card_seen", 23, "tell", "known and sufficient", SAE, torch="cuda"),
    row("CPU-only torch, small", forward("gpt2"), 1.6, "card_seen", 23, "silent", "the CPU is good enough",
        torch="cpu"),
    row("CPU-only torch, few SAE tokens", sae("gpt2", 20_000), 2.8, "card_seen", 23, "silent",
        "the CPU is good enough", torch="cpu"),
    row("CPU-only torch, quick, much RAM", forward(), 12, "card_seen", 23, "tell", "quick on the CPU: said, not asked",
        IGNORED, torch="cpu", ram=64),
    row("CPU-only torch, quick, little RAM", forward(), 12, "card_seen", 23, "ask", "the RAM may not hold it",
        IGNORED, torch="cpu", ram=16),
    row("CPU-only torch, long on the CPU", forward("pythia-1b", 64), 14, "card_seen", 23, "ask", "an hour instead of "
        "seconds", IGNORED, torch="cpu", ram=64),
    row("CPU-only torch, 7B in 16 bits", forward("llama-2-7b", dtype="bfloat16"), 14, "card_seen", 23, "ask",
        "hours on the CPU", IGNORED, LARGE, torch="cpu", ram=64),
    row("CPU-only torch, full cache", cache(), 61, "card_seen", 79, "ask", "the RAM does not hold it", IGNORED, FULL,
        torch="cpu"),
    row("CPU-only torch, does not fit", cache(), 61, "card_seen", 23, "ask", "both in one message",
        NO_FIT, IGNORED, FULL, torch="cpu"),
    row("CPU-only torch, tight SAE", sae("gpt2"), 22, "card_seen", 23, "ask", "hours on the CPU", IGNORED, SAE,
        torch="cpu"),
    row("driver too old, SAE", sae("gpt2"), 5, "card_seen", 23, "ask", "torch will not see the card", IGNORED, SAE,
        torch="old driver"),
    row("no torch at all", forward(), 12, "card_seen", 23, "silent", "it is still to be installed", torch="missing"),
    row("Python not looked at", forward(), 12, "card_seen", 23, "silent", "unknown is no finding", torch=None),
    row("CPU-only torch here, card named", forward(), 12, "card_named", 23, "silent", "it may be another machine",
        torch="cpu"),
    row("CPU-only torch here, run elsewhere", forward(), 12, "elsewhere", None, "ask", "it says nothing of that place",
        NOT_HERE, UNCLEAR, torch="cpu"),
    row("CPU-only torch, no card", forward("pythia-1b"), 5, "no_gpu", 16, "tell", "there is no card to ignore",
        torch="cpu"),
]  # fmt: skip

MONEY = [
    row("60 USD, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", "money is not given back",
        SAE, COSTS, LONG, NOT_HERE, UNCLEAR, hours=40, usd=60),
    row("3 USD, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", "only the place matters",
        SAE, LONG, NOT_HERE, UNCLEAR, hours=5, usd=3),
    row("free of charge, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", "only the place matters",
        SAE, LONG, NOT_HERE, UNCLEAR, hours=8, usd=0),
    row("60 USD within the budget, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask",
        "the place is asked, the money is not", SAE, COSTS, NOT_HERE, UNCLEAR, hours=40, usd=60, usd_allowed=100,
        hours_allowed=100),
    row("60 USD, no gpu here", sae("gpt2"), 5, "no_gpu", 64, "ask", "a GPU would cost", SAE, COSTS, LONG, usd=60),
    row("60 USD, 7B quick here", forward("llama-2-7b", 1, 128), 27, "no_gpu", 256, "tell", "it need not be rented",
        LARGE, usd=60),
    row("exactly 10 USD is not much", forward(), 12, "card_named", 23, "silent", "at the edge, not above it", usd=10,
        hours=2),
    row("rented card, 60 USD", sae("gpt2"), 5, "card_named", 23, "ask", "money is not given back", SAE, COSTS, LONG,
        hours=40, usd=60),
    row("rented card in sight, 40 USD", forward(), 12, "card_seen", 23, "ask", "money is not given back", COSTS, LONG,
        hours=10, usd=40),
    row("dear card, short and costly", forward(), 12, "card_seen", 79, "ask", "money is not given back", COSTS,
        hours=1.5, usd=12),
    row("rented card, 60 USD, tight", sae("gpt2"), 22, "card_named", 23, "ask", "money is not given back",
        SAE, COSTS, LONG, hours=40, usd=60),
    row("rented card, 60 USD, does not fit", cache(), 61, "card_named", 23, "ask", "both in one message",
        NO_FIT, FULL, COSTS, LONG, hours=40, usd=60),
    row("rented card, 60 USD of 100", sae("gpt2"), 5, "card_named", 23, "tell", "known and sufficient", SAE, COSTS,
        LONG, hours=40, usd=60, usd_allowed=100),
    row("rented card, 60 USD of 20", sae("gpt2"), 5, "card_named", 23, "ask", "known, insufficient: the choice",
        SAE, COSTS, LONG, hours=40, usd=60, usd_allowed=20),
    row("rented card, exactly the budget", forward(), 12, "card_named", 23, "tell", "enough is enough", COSTS, LONG,
        hours=40, usd=60, usd_allowed=60),
    row("rented card, 3 USD of 1", forward(), 12, "card_named", 23, "ask", "the user's own limit is lower", COSTS,
        hours=2, usd=3, usd_allowed=1),
    row("rented card, 3 USD", sae("gpt2"), 5, "card_named", 23, "tell", "too little to ask about", SAE, hours=2, usd=3),
    row("rented card, small run", forward("gpt2"), 1.6, "card_named", 23, "silent", "cents", usd=0.01),
    row("own card, no price", sae("gpt2"), 5, "card_named", 23, "tell", "nobody pays by the hour", SAE, LONG, hours=40),
    row("own card and a budget", sae("gpt2"), 5, "card_named", 23, "tell", "nobody pays by the hour", SAE, LONG,
        hours=40, usd_allowed=5),
]  # fmt: skip

TIME = [
    row("9 h of 10 allowed", sae("gpt2"), 5, "card_seen", 23, "tell", "known and sufficient", SAE, hours=9,
        hours_allowed=10),
    row("exactly the hours allowed", forward(), 12, "card_seen", 23, "silent", "enough is enough", hours=10,
        hours_allowed=10),
    row("9 h of 5 allowed", sae("gpt2"), 5, "card_seen", 23, "ask", "known, insufficient: the choice", SAE, LONG,
        hours=9, hours_allowed=5),
    row("1.5 h of 1 allowed", forward(), 12, "card_named", 23, "ask", "the user's own limit is lower", LONG,
        hours=1.5, hours_allowed=1),
    row("9 h of 5 allowed, does not fit", cache(), 61, "card_seen", 23, "ask", "both in one message",
        NO_FIT, FULL, LONG, hours=9, hours_allowed=5),
    row("12 h of 24 allowed, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask",
        "the place is asked, the time is not", SAE, NOT_HERE, UNCLEAR, hours=12, hours_allowed=24),
    row("12 h of 6 allowed, place unknown", sae("gpt2", 10**9), 6, "elsewhere", None, "ask", "both in one message",
        SAE, LONG, NOT_HERE, UNCLEAR, hours=12, hours_allowed=6),
    row("none, SAE within the hours allowed", sae("gpt2"), 5, "none_named", 64, "tell", "known and sufficient", SAE,
        hours_allowed=1000),
    row("none, SAE over the hours allowed", sae("gpt2"), 5, "none_named", 64, "ask", "known, insufficient", SAE, LONG,
        hours_allowed=1),
    row("small run, an hour allowed", forward("gpt2"), 1.6, "card_seen", 23, "silent", "seconds", hours_allowed=1),
]  # fmt: skip

CLUSTER = [
    row("login node, the cluster has room, 7B", forward("llama-2-7b"), 27, "login_node", 64, "tell",
        "what to ask the scheduler for is known", LARGE, NOT_HERE, UNCLEAR, path=True),
    row("login node, the cluster has room, SAE", sae("gpt2"), 5, "login_node", 64, "tell",
        "what to ask the scheduler for is known", SAE, LONG, NOT_HERE, UNCLEAR, path=True, hours=12),
    row("login node, the cluster has room, full cache", cache(), 61, "login_node", 64, "tell",
        "what to ask the scheduler for is known", FULL, NOT_HERE, UNCLEAR, path=True),
    row("login node, little RAM, the cluster has room", cache(), 61, "login_node", 16, "tell",
        "the login node's RAM does not count", FULL, NOT_HERE, UNCLEAR, path=True),
    row("login node, the cluster has no room", forward("llama-2-7b"), 27, "login_node", 64, "ask",
        "where else is an open question", LARGE, NOT_HERE, UNCLEAR),
    row("login node, little RAM, no room", cache(), 61, "login_node", 16, "ask", "where else is an open question",
        FULL, NOT_HERE, UNCLEAR),
    row("login node, quick on its CPU", forward("pythia-1b"), 5, "login_node", 64, "ask",
        "nothing should run on a login node", NOT_HERE, UNCLEAR),
    row("login node with a card", forward(), 12, "login_card", 23, "tell", "nothing should run there", NOT_HERE),
    row("login node, small run", forward("pythia-70m"), 1.2, "login_node", 8, "silent", "any node does", path=True),
    row("login node, over the hours allowed", sae("gpt2"), 5, "login_node", 64, "ask", "known, insufficient",
        SAE, LONG, NOT_HERE, UNCLEAR, path=True, hours=12, hours_allowed=1),
]  # fmt: skip

MORE_CARDS = [
    # The verdict is about the cards that the run is counted on; what happens on the others is no question.
    row("2.8b forward fits, an idle card beside", forward(), 12, "card_seen", 23, "silent",
        "known, sufficient, nothing unusual", beside=((23, 0),)),
    row("2.8b forward fits, others use the card beside", forward(), 12, "card_seen", 23, "silent",
        "theirs is another card", beside=((12, 11),)),
    row("2.8b forward fits, others use a larger card beside", forward(), 12, "card_seen", 23, "silent",
        "theirs is another card", beside=((40, 8),)),
    row("7B fits the cards that it is split over", forward("llama-2-7b", library="transformers", n_devices=2), 15,
        "card_seen", 23, "tell", "known and sufficient", LARGE, beside=((23, 0), (40, 8))),
    row("7B does not fit one of two cards", forward("llama-2-7b"), 27, "card_seen", 23, "ask",
        "known, insufficient: the choice, of which two cards are one", NO_FIT, LARGE, beside=((23, 0),)),
    row("7B does not fit, others use both cards", forward("llama-2-7b"), 27, "card_seen", 20, "ask",
        "known, insufficient: the choice, waiting among it", NO_FIT, SHARED, LARGE, others=3, beside=((19, 4),)),
    row("training on two cards, tight", training("gpt2", library="transformers", n_devices=2), 22, "card_seen", 23,
        "tell", "it would fail in the first steps, cheaply", beside=((23, 0),)),
    row("small run, four busy cards beside", forward("gpt2"), 1.6, "card_seen", 23, "silent", "any laptop does",
        beside=((1, 22),) * 4),
]  # fmt: skip

CASES = SMALL + KNOWN_CARD + FULL_CACHE + NOT_KNOWN + SHARED_CARD + DISK + TORCH + MONEY + TIME + CLUSTER + MORE_CARDS
