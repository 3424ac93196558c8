"""Small builders of workloads, estimates, machines and verdicts for the tests of asking."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from compute_awareness.advice.answers import Change, ClusterPath, GpuChoice, Status, Verdict
from compute_awareness.advice.cost import Cost, Price
from compute_awareness.asking.decision import decide
from compute_awareness.asking.question import Question
from compute_awareness.hardware.compute import (
    Accelerator,
    Compute,
    Environment,
    EnvironmentLayer,
    Host,
    Interpreter,
    TorchBuild,
)
from compute_awareness.memory.estimate import Component, Estimate, Peak, Range
from compute_awareness.workload import AnyWorkload, parse_workload

GIB = 1024**3

# Hugging Face parameter counts, and the number of blocks.
PARAMS = {
    "gpt2": (124_439_808, 12), "gpt2-xl": (1_557_611_200, 48), "pythia-70m": (70_426_624, 6),
    "pythia-410m": (405_334_016, 24), "pythia-1b": (1_011_781_632, 16), "pythia-1.4b": (1_414_647_808, 24),
    "pythia-2.8b": (2_775_208_960, 32), "gpt-j-6b": (6_050_882_784, 28), "llama-2-7b": (6_738_415_616, 32),
    "pythia-6.9b": (6_857_302_016, 32), "mistral-7b": (7_241_732_096, 32), "pythia-12b": (11_846_072_320, 36),
    "llama-2-13b": (13_015_864_320, 40),
}  # fmt: skip

Where = Literal[
    "elsewhere", "no_report", "unclear", "no_gpu", "none_named", "card_seen", "card_named", "login_node", "login_card"
]  # fmt: skip


def cache(model: str = "pythia-2.8b", batch: int = 4, seq: int = 1024, **more: Any) -> AnyWorkload:
    return parse_workload({"task": "activation_cache", "model": model, "batch_size": batch, "seq_len": seq, **more})


def forward(model: str = "pythia-2.8b", batch: int = 1, seq: int = 1024, **more: Any) -> AnyWorkload:
    return parse_workload({"task": "inference", "model": model, "batch_size": batch, "seq_len": seq, **more})


def sae(model: str | None = "gpt2", tokens: int = 2_000_000, d_sae: int | None = 24576, **more: Any) -> AnyWorkload:
    source = {"model": model, "hook_name": "blocks.6.hook_resid_pre"} if model else {"d_in": 768}
    return parse_workload({"task": "sae_training", "d_sae": d_sae, "training_tokens": tokens, **source, **more})


def generation(model: str, **more: Any) -> AnyWorkload:
    return parse_workload({"task": "generation", "model": model, "new_tokens": 64, "seq_len": 128, **more})


def training(model: str = "pythia-2.8b", **more: Any) -> AnyWorkload:
    return parse_workload({"task": "training", "model": model, "seq_len": 512, **more})


def patching(model: str, batch: int = 1, seq: int = 1024, **more: Any) -> AnyWorkload:
    return parse_workload({"task": "patching", "model": model, "batch_size": batch, "seq_len": seq, **more})


def sae_inference(model: str, **more: Any) -> AnyWorkload:
    source = {"model": model, "hook_name": "blocks.6.hook_resid_pre", "d_sae": 24576}
    return parse_workload({"task": "sae_inference", **source, **more})


def params_of(workload: AnyWorkload) -> int | None:
    return PARAMS[workload.model][0] if isinstance(workload.model, str) else None


def flops_of(workload: AnyWorkload) -> int:
    """2 per parameter and token forward; an SAE step is a forward and a backward of two matrices."""
    size = params_of(workload) or 0
    if workload.task == "sae_training":
        return (2 * size + 12 * 768 * (workload.d_sae or 0)) * workload.training_tokens
    return 2 * size * workload.batch_size * workload.seq_len


def estimate(workload: AnyWorkload, need: float, *, high: float | None = None, **more: Any) -> Estimate:
    """An estimate whose peak on the device is `need` GiB."""
    peak = round(need * GIB)
    return Estimate(
        workload=workload.model_dump(),
        components=[Component(name="weights", bytes=peak, at_peak=True, bytes_at_peak=peak, where="device")],
        peak=Peak(tensors=peak, reserved=peak, device=peak),
        range=Range(low=peak, high=round((high if high is not None else need) * GIB)),
        precision="close",
        **{"flops": flops_of(workload), **more},
    )


def machine(
    card: str | None = None, free: float = 0, *, ram: float = 16, clear: bool = True, login: bool = False,
    others: float | None = None, disk: float | None = None, torch: str | None = None,
    beside: tuple[tuple[float, float], ...] = (),
) -> Compute:  # fmt: skip
    """A machine with `free` GiB on its card, of which `others` more are held by other users' processes; `beside` it
    cards of the same name, each with what is free and what others hold."""
    cards = [
        Accelerator(
            index=0, kind="cuda", name=card, compute_capability="8.9",
            total_bytes=round((free + (others or 0)) * GIB), free_bytes=round(free * GIB),
            free_without_others_bytes=None if others is None else round((free + others) * GIB),
        )
    ] if card else []  # fmt: skip
    cards += [
        replace(
            cards[0], index=index, free_bytes=round(left * GIB), total_bytes=round((left + held) * GIB),
            free_without_others_bytes=round((left + held) * GIB) if held else None,
        )
        for index, (left, held) in enumerate(beside, 1)
    ]  # fmt: skip
    kind = "slurm_login_node" if login else "local" if clear else "docker"
    layer = EnvironmentLayer(id=kind, layer="fallback" if clear else "container", confidence="medium", evidence=[])
    return Compute(
        host=Host(
            os="Linux", cpus=8, ram_total_bytes=round(ram * GIB), ram_available_bytes=round(ram * GIB),
            disk_path="/home/me/.cache/huggingface/hub", disk_free_bytes=None if disk is None else round(disk * GIB),
        ),
        environment=Environment(primary=kind, layers=[layer], clear=clear and not login),
        accelerators=cards,
        driver_cuda_version=None if card is None else "12.2" if torch == "old driver" else "13.0",
        python=None if torch is None else python(torch),
    )  # fmt: skip


def python(torch: str) -> Interpreter:
    """The experiment's Python with a `cpu` or `cuda` build of torch; `missing` = without torch."""
    build = {
        "cpu": TorchBuild(version="2.13.0+cpu"),
        "cuda": TorchBuild(version="2.13.0", cuda_build="13.0", cuda_available=True),
        "old driver": TorchBuild(version="2.13.0", cuda_build="13.0"),
        "missing": None,
    }[torch]
    return Interpreter(path="/home/me/project/.venv/bin/python", source=".venv", torch=build)


def verdict(need: float, free: float | None, device: str) -> Verdict:
    """Against `free` GiB: fits with a tenth to spare, tight with less, else does not fit."""
    status: Status = "unknown"
    if free is not None:
        status = "fits" if need <= 0.9 * free else "tight" if need <= free else "does_not_fit"
    return Verdict(
        status=status,
        device=device,
        free_bytes=None if free is None else round(free * GIB),
        needed_bytes=round(need * GIB),
        headroom_bytes=None if free is None else round(free * GIB) - round(need * GIB),
        why="made by the test",
    )


def change(strategy: Any, patch: dict[str, Any], before: float, after: float, **more: Any) -> Change:
    return Change(
        strategy=strategy,
        applies=after < before,
        patch=patch,
        peak_before=round(before * GIB),
        peak_after=round(after * GIB),
        saving=max(0, round((before - after) * GIB)),
        **{"title": f"the {strategy} change", "effect": "equivalent", **more},
    )


def usual_changes(need: float, free: float | None) -> list[Change]:
    """What advice would offer for a cache of `need` GiB."""

    def fits(after: float) -> bool | None:
        return None if free is None else after <= free

    quarter, third, half = need / 4, need / 3, need / 2
    return [
        change("smaller_batch", {"batch_size": 1}, need, quarter, fits=fits(quarter)),
        change("selective_caching", {"names_filter": ["*hook_resid_post"]}, need, third,
               fits=fits(third), effect="different_experiment"),
        change("mixed_precision", {"dtype": "bfloat16"}, need, half,
               fits=fits(half), effect="numerically_different"),
        change("gradient_checkpointing", {}, need, need),
    ]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One situation: what is to be run, what it needs (GiB), where, what is free there (GiB), what else is known."""

    id: str
    workload: AnyWorkload
    need: float
    where: Where
    free: float | None = None
    decision: str = ""
    triggers: tuple[str, ...] = ()
    hours: float | None = None  # None: computed from the work
    extra: dict[str, Any] = field(default_factory=dict, hash=False)  # fields of the estimate
    changes: list[Change] | None = None
    gpus: tuple[GpuChoice, ...] = ()
    why: str = ""  # the reason for the decision, in a phrase
    usd: float | None = None
    usd_allowed: float | None = None
    hours_allowed: float | None = None
    others: float | None = None  # GiB that other users' processes hold on the card in sight
    download: float | None = None  # GiB
    disk: float | None = None  # GiB
    torch: str | None = None
    ram: float = 16  # GiB, beside a card
    path: bool = False
    beside: tuple[tuple[float, float], ...] = ()  # more cards in sight: GiB free, GiB that others hold


A_PATH = ClusterPath(
    cluster="uni", partition="gpu", gpu="a100", free_now=True, interactive="srun -p gpu --gres=gpu:a100:1 --pty bash",
    batch="sbatch -p gpu --gres=gpu:a100:1 job.sh", why="2 of 8 are free",
)  # fmt: skip


def ask_about(case: Case) -> Question:
    """Runs the engine on a case as preflight would call it."""
    workload, where = case.workload, case.where
    need = estimate(workload, case.need, **case.extra)
    on_cpu = where in ("unclear", "no_gpu", "none_named", "login_node")
    free = case.free or 16
    seen = {"disk": case.disk, "torch": case.torch, "others": case.others}
    card = "NVIDIA GeForce RTX 4090"
    compute: Compute | None = {
        "elsewhere": machine(card, 24, **seen) if any(value is not None for value in seen.values()) else None,
        "no_report": None,
        "unclear": machine(ram=free, clear=False, disk=case.disk, torch=case.torch),
        "no_gpu": machine(ram=free, disk=case.disk, torch=case.torch),
        "none_named": machine(ram=free, disk=case.disk, torch=case.torch),
        "card_seen": machine(card, case.free or 24, ram=case.ram, beside=case.beside, **seen),
        "card_named": machine(clear=False, disk=case.disk, torch=case.torch),
        "login_node": machine(ram=free, login=True),
        "login_card": machine(card, case.free or 24, login=True),
    }[where]
    unknown = compute is None or where == "elsewhere"
    device = "the CPU (RAM)" if on_cpu else "not known" if unknown else card
    cpu_counts = on_cpu and where != "login_node"  # no job runs on a login node's CPU
    rate = 5e10 if cpu_counts else 5e13
    hours = case.hours if case.hours is not None else need.flops / rate / 3600
    model = workload.model if isinstance(workload.model, str) else None
    return decide(
        workload,
        need,
        compute,
        verdict(case.need, None if unknown else case.free, device),
        usual_changes(case.need, case.free) if case.changes is None else case.changes,
        gpu_named=where in ("none_named", "card_named"),
        where_unknown=where == "elsewhere",
        params=params_of(workload),
        n_layers=PARAMS[model][1] if model else None,
        hours_high=hours,
        hours_on="this machine's CPU" if cpu_counts else "an A100" if unknown or on_cpu else "the RTX 4090",
        hours_allowed=case.hours_allowed,
        cost=None if case.usd is None else Cost(case.usd, Price(1.5, "A100 40 GB", "RunPod", "2026-11-20")),
        usd_allowed=case.usd_allowed,
        to_download=None if case.download is None else round(case.download * GIB),
        gpus=case.gpus,
        paths=[A_PATH] if case.path else [],
    )  # fmt: skip
