"""The other tools that install from the package index, asked the benchmark's questions as their users would ask.

Each runs as a process of its own, in an environment made for the purpose. Compared is the part of an answer that
stands for tensors: a tool's allowance for context, fragmentation or unknown overhead is left out where it names one,
which flatters it, as the truth here is the peak of live tensors. A question that a tool cannot be asked is
"not answerable", with the reason.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_cases import kinds_of
from accuracy_hub import Hub

from compute_awareness.memory.huggingface.forward import default_attention
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import parse_workload

GIB, GB = 1024**3, 10**9
TIMEOUT_S = 180
AT_ONCE = 4


class NotAnswerable(Exception):
    """The reason, in a few words."""


@dataclass(frozen=True)
class Question:
    """A workload with every default filled in, its model, its name on the hub, the folder of its config.json."""

    workload: dict[str, Any]
    spec: ModelSpec
    hub_id: str
    folder: Path

    @property
    def training(self) -> bool:
        return self.workload["task"] == "training"

    @property
    def attention(self) -> str:
        return self.workload["attention"] or default_attention(self.spec)

    @property
    def context(self) -> int:
        """Tokens of a sequence at its end."""
        return self.workload["seq_len"] + self.workload.get("new_tokens", 0)


@dataclass(frozen=True)
class Peer:
    """`ask` gives the command after the environment's bin folder, `read` the bytes in what it prints."""

    distribution: str
    version: str
    ask: Callable[[Question], list[str]]
    read: Callable[[str], float]
    figure: str
    """What its figure stands for."""


def _no_lora(q: Question) -> None:
    if q.training and q.workload["trainable"] == "lora":
        raise NotAnswerable("has no LoRA")


_ACCELERATE = """
import json, sys
from accelerate.commands.estimate import estimate_command_parser, gather_data
args = estimate_command_parser().parse_args([sys.argv[1], "--library_name", "transformers", "--dtypes", sys.argv[2]])
row = gather_data(args)[0]
print(json.dumps({"bytes": max(row[3].values()) if sys.argv[3] == "training" else row[2]}))
"""


def _accelerate(q: Question) -> list[str]:
    _no_lora(q)
    if q.training and (q.workload["dtype"] != "float32" or not q.workload["optimizer"].startswith("adam")):
        raise NotAnswerable("knows training with Adam only")
    dtype = "float32" if q.workload["dtype"] == "float32" else "float16"
    return ["python", "-c", _ACCELERATE, q.hub_id, dtype, "training" if q.training else "weights"]


_HF_MEM = """
import sys, httpx2
hub = sys.argv.pop(1)
class Client(httpx2.AsyncClient):
    async def request(self, method, url, **more):
        return await super().request(method, str(url).replace("https://huggingface.co", hub), **more)
httpx2.AsyncClient = Client
from hf_mem.cli import main
main()
"""


def _hf_mem(q: Question) -> list[str]:
    if q.training:
        raise NotAnswerable("has no training")
    if (q.spec.checkpoint_dtype or "float32") != q.workload["dtype"]:
        raise NotAnswerable("answers for the published dtype only")
    command = ["python", "-c", _HF_MEM, "HUB", "--model-id", q.hub_id, "--json-output"]
    if q.workload["kv_cache"] is not False:
        command += ["--experimental", "--max-model-len", str(q.context), "--batch-size", str(q.workload["batch_size"])]
    return command


def _hf_mem_bytes(text: str) -> float:
    answer = json.loads(text)
    return answer["memory"] + (answer.get("kv_cache") or 0)


def _torch_preflight(q: Question) -> list[str]:
    _no_lora(q)
    w = q.workload
    dtype = {"float32": "fp32", "bfloat16": "pure-bf16", "float16": "pure-fp16"}[w["dtype"]]
    command = ["torch-preflight", "estimate", "--model", q.hub_id, "--batch-size", str(w["batch_size"]),
               "--seq-len", str(w["seq_len"]), "--dtype", dtype, "-f", "json"]  # fmt: skip
    if q.attention == "sdpa":
        command.append("--flash")
    if q.training:
        command += ["--optimizer", w["optimizer"].replace("_", "-")]
        return command + (["--checkpointing"] if w["gradient_checkpointing"] else [])
    if w["task"] == "generation":
        return [*command, "--generate", "--max-context", str(q.context)]
    return [*command, "--inference"]


def _torch_preflight_bytes(text: str) -> float:
    answer = json.loads(text)
    if not answer["resolved"]:
        raise NotAnswerable("does not know the model")
    parts = answer["breakdown"]
    return sum(size for name, size in parts.items() if name not in ("CUDA_context", "fragmentation"))


def _vramcalc(q: Question) -> list[str]:
    w = q.workload
    if q.spec.architecture.removesuffix("ForCausalLM") not in ("Llama", "Mistral", "Qwen2", "Gemma", "Gemma2"):
        raise NotAnswerable("does not know the architecture")
    dtype = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[w["dtype"]]
    command = ["vramcalc", "estimate", str(q.folder / "config.json"), "--dtype", dtype, "--json", "--batch",
               str(w["batch_size"]), "--seq", str(q.context), "--attn", q.attention]  # fmt: skip
    if not q.training:
        return command
    if w["optimizer"] == "sgd_momentum":
        raise NotAnswerable("has no SGD with momentum")
    command += ["--train", "--precision", "pure", "--optimizer", "sgd" if w["optimizer"] == "sgd" else "adamw"]
    if w["trainable"] == "lora":
        command += ["--lora", str(w["lora_rank"])]
    return command + (["--grad-checkpoint"] if w["gradient_checkpointing"] else [])


def _kitsune(q: Question) -> list[str]:
    w = q.workload
    if w["task"] == "generation":
        raise NotAnswerable("has no generation")
    if q.training and w["gradient_checkpointing"]:
        raise NotAnswerable("has no gradient checkpointing")
    lora = q.training and w["trainable"] == "lora"
    command = ["kitsune", "lora" if lora else "predict", "--hf", str(q.folder), "--seq-len", str(w["seq_len"])]
    command += ["--batch-size", str(w["batch_size"]), "--dtype", w["dtype"], "--gpu", "t4", "--format", "json"]
    if lora:
        return [*command, "--rank", str(w["lora_rank"]), "--optimizer", w["optimizer"]]
    if not q.training:
        return [*command, "--inference", "--optimizer", "none"]
    return [*command, "--training", "--optimizer", w["optimizer"].removesuffix("_momentum")]


def _kitsune_bytes(text: str) -> float:
    answer = json.loads(text[text.index("{") :])
    parts = (answer.get("memory") or answer.get("prediction") or answer)["breakdown"]
    return GIB * sum(size for name, size in parts.items() if not name.lower().startswith("overhead"))


def _llmfit(q: Question) -> list[str]:
    if q.training:
        raise NotAnswerable("has no training")
    if q.workload["batch_size"] > 1 or q.workload["dtype"] == "float32":
        raise NotAnswerable("answers for one sequence in 16 bits only")
    if q.spec.hf_id is None:
        raise NotAnswerable("does not know the model")
    quant = "BF16" if q.workload["dtype"] == "bfloat16" else "F16"
    return ["llmfit", "plan", q.hub_id, "--context", str(q.context), "--quant", quant, "--json"]


def _llmfit_bytes(text: str) -> float:
    if "{" not in text:
        raise NotAnswerable("does not know the model")
    return GB * (json.loads(text[text.index("{") :])["minimum"]["vram_gb"] - 0.5)


PEERS = (
    Peer("accelerate", "1.15.0", _accelerate, lambda text: json.loads(text.strip().splitlines()[-1])["bytes"],
         "weights; for training its total for Adam"),
    Peer("hf-mem", "0.5.6", _hf_mem, _hf_mem_bytes, "stored weights and key/value cache"),
    Peer("torch-preflight", "0.5.0", _torch_preflight, _torch_preflight_bytes,
         "all but its CUDA context and fragmentation"),
    Peer("vramcalc", "0.1.2", _vramcalc, lambda text: json.loads(text)["estimate"]["total"],
         "total without its overhead"),
    Peer("torch-kitsune", "0.7.0", _kitsune, _kitsune_bytes, "all but its overhead of 15 %"),
    Peer("llmfit", "1.1.17", _llmfit, _llmfit_bytes, "minimum VRAM less its 0.5 GB"),
)  # fmt: skip


def question(row: dict[str, Any], hub: Hub) -> Question:
    """Raises NotAnswerable where no peer knows what is asked."""
    w = parse_workload(row["workload"]).model_dump()
    if w["library"] != "transformers" or w["task"] not in ("inference", "generation", "training"):
        what = {"activation_cache": "activation caches", "patching": "patching", "sae_training": "SAEs",
                "sae_inference": "SAEs"}.get(w["task"], "TransformerLens")  # fmt: skip
        raise NotAnswerable(f"knows no {what}")
    spec = resolve(w["model"])
    return Question(w, spec, *hub.add(spec))


def install(folder: Path) -> tuple[Path, dict[str, str]]:
    """(bin folder of a new environment with the peers, why one is left out by its name).

    torch and transformers are those of the Python that runs this.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    python = str(bin_folder / "python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "measured_libraries.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    left_out = {}
    for peer in PEERS:
        command = [python, "-m", "pip", "install", "-q", f"{peer.distribution}=={peer.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            left_out[peer.distribution] = f"{peer.version} does not install here"
    return bin_folder, left_out


def ask_all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What each peer and we ourselves answered, with seconds per answer of a whole process."""
    with tempfile.TemporaryDirectory() as folder, Hub(Path(folder) / "models") as hub:
        bin_folder, left_out = install(Path(folder) / "environment")
        environment = {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "HOME": folder, "HF_ENDPOINT": hub.url,
            "HF_HOME": str(Path(folder) / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        peers = [peer for peer in PEERS if peer.distribution not in left_out]
        tools = {peer.distribution: _ask(peer, rows, hub, bin_folder, environment, Path(folder)) for peer in peers}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "left_out": left_out,
        "tools": tools,
        "our_cpu_seconds": _our_seconds(rows),
    }


def _ask(
    peer: Peer, rows: list[dict[str, Any]], hub: Hub, bin_folder: Path, environment: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Every row's answer, or why there is none; the same command is run once."""
    asked: dict[str, tuple[str, ...] | str] = {}
    for row in rows:
        try:
            command = [hub.url if part == "HUB" else part for part in peer.ask(question(row, hub))]
            asked[row["id"]] = (str(bin_folder / command[0]), *command[1:])
        except NotAnswerable as reason:
            asked[row["id"]] = str(reason)
    commands = list(dict.fromkeys(command for command in asked.values() if isinstance(command, tuple)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(commands, pool.map(lambda c: _answer(peer, c, environment, folder), commands), strict=True))
    answers: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for name, command in asked.items():
        answer = command if isinstance(command, str) else found[command][0]
        if isinstance(answer, int):
            answers[name] = answer
        else:
            reasons.setdefault(answer, []).append(name)
    print(f"{peer.distribution}: {len(answers)} answers, {len(commands)} runs", file=sys.stderr, flush=True)
    return {
        "version": peer.version, "figure": peer.figure, "cpu_seconds": [seconds for _, seconds in found.values()],
        "answers": answers, "not_answerable": reasons,
    }  # fmt: skip


def _answer(peer: Peer, command: Sequence[str], environment: dict[str, str], folder: Path) -> tuple[int | str, float]:
    """(bytes, or why there are none; CPU seconds of the process)."""
    text, seconds = _run(command, environment, folder)
    if text is None:
        return f"no answer in {TIMEOUT_S} s", seconds
    try:
        return round(peer.read(text)), seconds
    except NotAnswerable as reason:
        return str(reason), seconds
    except (ValueError, KeyError, TypeError, IndexError):
        return "fails on the model", seconds


def _run(
    command: Sequence[str], environment: dict[str, str], folder: Path, given: str = ""
) -> tuple[str | None, float]:
    """(stdout, CPU seconds) of a process; stdout is None past the time limit. CPU seconds bear a loaded machine."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as into:
        into.write(given)
        into.seek(0)
        process = subprocess.Popen(
            command, stdin=into, stdout=out, stderr=subprocess.DEVNULL, env=environment, cwd=folder
        )
        limit = threading.Timer(TIMEOUT_S, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)  # POSIX: the peers are asked on Linux or macOS
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = None if process.returncode == -signal.SIGKILL else out.read()
    return text, round(usage.ru_utime + usage.ru_stime, 2)


def _our_seconds(rows: list[dict[str, Any]]) -> list[float]:
    """CPU seconds of our command line, cold, for each row that some peer may be asked."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "server"), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "compute_awareness", "estimate", "-", "--json")
    asked = {"hf_peak", "training_peak", "generation_peak"}
    return [
        _run(command, environment, Path.cwd(), json.dumps(row["workload"]))[1]
        for row in rows
        if asked & set(kinds_of(row["workload"]))
    ]
