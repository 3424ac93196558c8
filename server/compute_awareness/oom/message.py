"""Reads an out-of-memory message: CUDA, HIP, XPU, MPS, CPU allocators and numpy, whole tracebacks included.

Wordings: torch c10/cuda/CUDACachingAllocator.cpp from 1.x ("already allocated; ... reserved in total") to 2.15 ("this
process has ... in use", "allowed" under set_per_process_memory_fraction, "private pools"), aten/mps/MPSAllocator.mm,
c10/core/impl/alloc_cpu.cpp, numpy's ArrayMemoryError. Texts come wrapped, quoted in logs or commented out, so white
space and comment marks do not count.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..units import GIB, MIB

Backend = Literal["cuda", "hip", "xpu", "mps", "cpu", "unknown"]
Phase = Literal["loading", "forward", "backward", "optimizer_step", "moving_to_cpu", "unknown"]

_UNITS = {"bytes": 1, "B": 1, "KiB": 1024, "KB": 1024, "MiB": MIB, "MB": MIB, "GiB": GIB, "GB": GIB, "TiB": 1024 * GIB}
# No more digits than a figure can have: Python refuses to read thousands, and hundreds are an infinite float.
_SIZE = r"(?<!\d)(\d{1,20}(?:\.\d{1,20})?)\s*(bytes|[KMGT]iB|[KMG]B|B)"
_FRAME = re.compile(r'File "([^"\n]{1,500})", line (\d{1,9}), in (\S{1,200})')
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ABSURD = 1 << 50
"""WSL and Windows drivers do not say what a process uses; torch then prints an unsigned -1 GiB."""


class OomProcess(BaseModel):
    """A process that the message names."""

    model_config = ConfigDict(extra="forbid")
    pid: int
    used_bytes: int


class Frame(BaseModel):
    """A line of the traceback."""

    model_config = ConfigDict(extra="forbid")
    file: str
    line: int
    function: str


class OomMessage(BaseModel):
    """What the message says. Bytes; null where it does not say."""

    model_config = ConfigDict(extra="forbid")
    backend: Backend
    device_index: int | None = None
    requested_bytes: int | None = Field(
        default=None, description="The request that failed, as the allocator rounded it"
    )
    requested_step: int = Field(default=1, description="The request is known to within this many bytes, half each way")
    capacity_bytes: int | None = Field(default=None, description="Memory of the device as the process sees it")
    free_bytes: int | None = Field(default=None, description="Free on the device at that moment")
    process_bytes: int | None = Field(default=None, description="In use by this process, CUDA context included")
    allowed_bytes: int | None = Field(
        default=None, description="Cap set with set_per_process_memory_fraction, or Metal's"
    )
    allocated_bytes: int | None = Field(default=None, description="Live tensors of this process, workspaces included")
    cached_bytes: int | None = Field(default=None, description="Reserved by torch but not in use")
    other_bytes: int | None = Field(default=None, description="Held by others than torch in this process")
    processes: list[OomProcess] = Field(default_factory=list, description="Other processes that the message names")
    shape: list[int] | None = Field(default=None, description="numpy says which shape it wanted")
    phase: Phase = "unknown"
    user_frame: Frame | None = Field(default=None, description="The last line of the user's own code in the traceback")
    library_frame: Frame | None = Field(default=None, description="The innermost line of the traceback")


def read_message(text: str) -> OomMessage:
    """What an out-of-memory message or traceback says.

    Raises:
        InputError: nothing in the text speaks of memory running out.
    """
    text = _COLOUR.sub("", text)
    flat = re.sub(r"\s*\n[\s#>|/*]*", " ", text)
    found = _cuda(flat) or _cuda_async(flat) or _mps(flat) or _cpu(flat) or _bare(flat) or _killed(text)
    if found is None:
        raise InputError(
            "no out-of-memory message in the text; expected one such as 'CUDA out of memory. Tried to allocate ...', "
            "'MPS backend out of memory ...' or \"can't allocate memory: you tried to allocate ...\""
        )
    frames = [Frame(file=f[0], line=int(f[1]), function=f[2]) for f in _FRAME.findall(text)]
    if frames:
        own = [frame for frame in frames if not _installed(frame.file)]
        found.user_frame = own[-1] if own else None
        found.library_frame = frames[-1]
    found.phase = _phase(frames, text)
    return found


def _bytes(match: re.Match[str] | None, group: int = 1) -> int | None:
    if match is None:
        return None
    size = round(float(match.group(group)) * _UNITS[match.group(group + 1)])
    return None if size >= _ABSURD else size


def _find(pattern: str, text: str) -> int | None:
    return _bytes(re.search(pattern.replace("SIZE", _SIZE), text))


def _step(match: re.Match[str] | None) -> int:
    """How coarse the printed figure is: two decimals of its unit."""
    if match is None or match.group(2) in ("bytes", "B"):
        return 1
    decimals = len(match.group(1).partition(".")[2])
    return max(1, round(_UNITS[match.group(2)] / 10**decimals))


_NEXT = re.compile(r"\b(?:CUDA|HIP|XPU) out of memory\.?\s+Tried to allocate ")


def _cuda(text: str) -> OomMessage | None:
    head = re.search(r"\b(CUDA|HIP|XPU) out of memory\.?\s+Tried to allocate " + _SIZE, text)
    if head is None:
        return None
    following = _NEXT.search(text, head.end())  # of several messages the first: what follows may be another card's
    tail = text[head.start() : following.start() if following else len(text)]
    requested = re.search(r"Tried to allocate " + _SIZE, tail)
    index = re.search(r"\(?GPU (\d{1,3})(?:;| has)", tail)
    reserved_in_total = _find(r"SIZE reserved in total", tail)
    allocated = _find(r"SIZE (?:is allocated by PyTorch|already allocated)", tail)
    cached = _find(r"SIZE is reserved by PyTorch but unallocated", tail)
    if cached is None and reserved_in_total is not None and allocated is not None:
        cached = max(0, reserved_in_total - allocated)
    process = _find(r"this process has SIZE memory in use", tail)
    processes = [
        OomProcess(pid=int(pid), used_bytes=size)
        for pid, value, unit in re.findall(r"\bProcess (\d{1,10}) has " + _SIZE + " memory in use", tail)
        if (size := round(float(value) * _UNITS[unit])) < _ABSURD
    ]
    other = None
    if process is not None and allocated is not None and cached is not None:
        other = max(0, process - allocated - cached)
    backend: Backend = {"CUDA": "cuda", "HIP": "hip", "XPU": "xpu"}[head.group(1)]  # type: ignore[assignment]
    return OomMessage(
        backend=backend,
        device_index=int(index.group(1)) if index else None,
        requested_bytes=_bytes(requested),
        requested_step=_step(requested),
        # "capacty" is how torch 2.0 spelled it.
        capacity_bytes=_find(r"total capaci?ty of SIZE", tail) or _find(r"SIZE total capacity", tail),
        free_bytes=_find(r"of which SIZE is free", tail) if "of which" in tail else _find(r"SIZE free", tail),
        process_bytes=process,
        allowed_bytes=_find(r"SIZE allowed", tail),
        allocated_bytes=allocated,
        cached_bytes=cached,
        other_bytes=other,
        processes=processes,
    )


def _cuda_async(text: str) -> OomMessage | None:
    """PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync (CUDAMallocAsyncAllocator.cpp)."""
    head = re.search(r"Allocation on device (\d{1,3}) would exceed allowed memory", text)
    if head is None:
        return None
    tail = text[head.start() :]
    requested = re.search(r"Requested\s*: " + _SIZE, tail)
    limit, allowed = _find(r"Device limit\s*: SIZE", tail), _find(r"memory fraction\)\s*: SIZE", tail)
    return OomMessage(
        backend="cuda", device_index=int(head[1]), requested_bytes=_bytes(requested), requested_step=_step(requested),
        capacity_bytes=limit, free_bytes=_find(r"Free \(according to CUDA\)\s*: SIZE", tail),
        allowed_bytes=None if limit is None or allowed is None or allowed >= limit else allowed,
        allocated_bytes=_find(r"Currently allocated\s*: SIZE", tail),
    )  # fmt: skip


def _mps(text: str) -> OomMessage | None:
    head = re.search(r"MPS backend out of memory", text)
    if head is None:
        buffer = re.search(r"Invalid buffer size: " + _SIZE, text)  # one tensor above Metal's largest buffer
        if buffer is None:
            return None
        return OomMessage(backend="mps", requested_bytes=_bytes(buffer), requested_step=_step(buffer))
    tail = text[head.start() :]
    requested = re.search(r"Tried to allocate " + _SIZE, tail)
    allowed = _find(r"max allowed: SIZE", tail)
    allocated, other = _find(r"MPS allocated: SIZE", tail), _find(r"other allocations: SIZE", tail)
    free = None if None in (allowed, allocated, other) else max(0, allowed - allocated - other)  # type: ignore[operator]
    return OomMessage(
        backend="mps", requested_bytes=_bytes(requested), requested_step=_step(requested), free_bytes=free,
        allowed_bytes=allowed, allocated_bytes=allocated, other_bytes=other,
    )  # fmt: skip


def _cpu(text: str) -> OomMessage | None:
    torch_cpu = re.search(
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory: you tried to allocate (\d{1,20}) bytes", text
    )
    if torch_cpu:
        return OomMessage(backend="cpu", requested_bytes=int(torch_cpu.group(1)))
    numpy = re.search(r"Unable to allocate " + _SIZE + r" for an array with shape \(([\d, ]{1,200})\)", text)
    if numpy:
        shape = [int(part) for part in numpy.group(3).split(",") if part.strip()]
        return OomMessage(backend="cpu", requested_bytes=_bytes(numpy), requested_step=_step(numpy), shape=shape)
    if re.search(r"\bMemoryError\b|Cannot allocate memory|oom-kill|[Oo]ut of memory: Killed process|oom_kill", text):
        return OomMessage(backend="cpu")
    return None


def _bare(text: str) -> OomMessage | None:
    """Messages that say no figure."""
    if re.search(
        r"CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDA out of memory", text
    ):
        return OomMessage(backend="cuda")
    if re.search(r"HIP error: out of memory|hipErrorOutOfMemory|HIPBLAS_STATUS_ALLOC_FAILED", text):
        return OomMessage(backend="hip")
    wanted = r"RESOURCE_EXHAUSTED: Out of memory while trying to allocate (?:(\d{1,20}) bytes|" + _SIZE + ")"
    jax = re.search(wanted, text)
    if jax:
        size = int(jax.group(1)) if jax.group(1) else _bytes(jax, 2)
        return OomMessage(backend="unknown", requested_bytes=size)
    if re.search(r"exit(?:ed with)? code:? 137\b", text):  # killed, as the kernel does where RAM runs out
        return OomMessage(backend="cpu")
    return OomMessage(backend="unknown") if re.search(r"\bout of memory\b", text, re.IGNORECASE) else None


# As bash ("Killed", "run.sh: line 3: 812 Killed", "[1]+  Killed"), zsh and launchers of processes say it.
_KILLED = re.compile(
    r"^(?:\S{1,200}: line \d{1,9}: +\d{1,10} +|\[\d{1,4}\][+-]? +(?:\d{1,10} )?|zsh: )?[Kk]illed\b(?!:)"
    r"|\bSIGKILL\b|\bexit ?code:? ?-9\b",
    re.MULTILINE,
)


def _killed(text: str) -> OomMessage | None:
    """All that is left where Linux ends a process because RAM ran out: no message of its own, a word of the shell."""
    return OomMessage(backend="cpu") if _KILLED.search(text) else None


def _installed(file: str) -> bool:
    """Whether a file of a traceback is a library's, not the user's."""
    path = file.replace("\\", "/")
    return bool(re.search(r"/(?:site|dist)-packages/|/lib(?:64)?/python\d|/Lib/[a-z_]+\.py$|^<frozen", path))


# The innermost frame that says in which phase the run was; the first match from the inside out decides.
_PHASES: list[tuple[str, Phase]] = [
    (r"/optim/|optimizer\.py|bitsandbytes/optim", "optimizer_step"),
    (r"torch/autograd/|in backward\b|_tensor\.py", "backward"),
    (r"loading_from_pretrained|weight_processing|from_pretrained|modeling_utils|load_state_dict|_load_pretrained|"
     r"boot_transformers|safetensors|core_model_loading|fold_layer_norm|process_weights", "loading"),
    (r"in (?:forward|_call_impl|run_with_cache|run_with_hooks|generate)\b", "forward"),
]  # fmt: skip


def _phase(frames: list[Frame], text: str) -> Phase:
    for frame in reversed(frames):
        line = f"{frame.file.replace(chr(92), '/')} in {frame.function}"
        for pattern, phase in _PHASES:
            if re.search(pattern, line):
                # `model.to` inside from_pretrained is loading, alone it is too: nothing has run yet.
                return phase
        if frame.function == "_apply" or re.search(r"in (?:to|cuda)$", line):
            return "loading"
    return "unknown"
