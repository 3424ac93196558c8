"""Out-of-memory messages of every wording that torch and its neighbours have used."""

from __future__ import annotations

import pytest

from compute_awareness.errors import InputError
from compute_awareness.oom.message import read_message
from compute_awareness.units import GIB, MIB

NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB. GPU 1 has a total capacity of "
    "23.65 GiB of which 1.12 GiB is free. Process 4242 has 10.00 GiB memory in use. Including non-PyTorch memory, this "
    "process has 12.50 GiB memory in use. Of the allocated memory 11.90 GiB is allocated by PyTorch, and 130.50 MiB is "
    "reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 48.00 MiB (GPU 0; 15.78 GiB total capacity; 14.56 GiB already "
    "allocated; 18.75 MiB free; 14.64 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try "
    "setting max_split_size_mb to avoid fragmentation."
)


def test_the_wording_since_torch_2() -> None:
    found = read_message(NEW)
    assert (found.backend, found.device_index) == ("cuda", 1)
    assert found.requested_bytes == round(2.25 * GIB)
    assert found.capacity_bytes == round(23.65 * GIB)
    assert found.free_bytes == round(1.12 * GIB)
    assert found.process_bytes == round(12.5 * GIB)
    assert found.allocated_bytes == round(11.9 * GIB)
    assert found.cached_bytes == round(130.5 * MIB)
    assert found.other_bytes == found.process_bytes - found.allocated_bytes - found.cached_bytes
    assert [(p.pid, p.used_bytes) for p in found.processes] == [(4242, 10 * GIB)]


def test_the_wording_of_torch_1() -> None:
    found = read_message(OLD)
    assert (found.backend, found.device_index) == ("cuda", 0)
    assert found.requested_bytes == 48 * MIB
    assert found.capacity_bytes == round(15.78 * GIB)
    assert found.allocated_bytes == round(14.56 * GIB)
    assert found.free_bytes == round(18.75 * MIB)
    assert found.cached_bytes == round(14.64 * GIB) - round(14.56 * GIB)
    assert found.process_bytes is None


@pytest.mark.parametrize("mark", ["\n", "\n# ", "\n  | ", "\r\n    "])
def test_wrapped_quoted_and_commented_text_reads_the_same(mark: str) -> None:
    wrapped = NEW.replace(". ", f".{mark}").replace("of which", f"of{mark}which")
    assert read_message(wrapped) == read_message(NEW)


def test_a_cap_and_private_pools() -> None:
    found = read_message(
        "CUDA out of memory. Tried to allocate 250.00 MiB. GPU 0 has a total capacity of 79.19 GiB of which 2.07 GiB "
        "is free. Including non-PyTorch memory, this process has 77.11 GiB memory in use. 75.23 GiB allowed; Of the "
        "allocated memory 74.23 GiB is allocated by PyTorch, with 17.00 MiB allocated in private pools (e.g., CUDA "
        "Graphs), and 943.54 MiB is reserved by PyTorch but unallocated."
    )
    assert found.allowed_bytes == round(75.23 * GIB)
    assert found.allocated_bytes == round(74.23 * GIB)
    assert found.cached_bytes == round(943.54 * MIB)


def test_of_several_messages_each_figure_is_the_first_ones() -> None:
    """As the ranks of one run write them: what the first does not say is not taken from another card's."""
    first = (
        "CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 39.38 GiB of which "
        "2.00 GiB is free."
    )
    both = read_message(f"[rank0]: {first}\n[rank1]: {NEW}")
    assert both == read_message(first)
    assert (both.process_bytes, both.allocated_bytes, both.processes) == (None, None, [])
    assert read_message(f"{NEW}\n{first}") == read_message(NEW)


def test_colours_of_a_terminal_do_not_count() -> None:
    assert read_message(
        NEW.replace("2.25", "\x1b[1m2.25\x1b[0m").replace("GPU 1", "GPU \x1b[1;36m1\x1b[0m")
    ) == read_message(NEW)


def test_the_allocator_of_the_driver() -> None:
    """PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync."""
    found = read_message(
        "torch.OutOfMemoryError: Allocation on device 1 would exceed allowed memory. (out of memory)\n"
        "Currently allocated     : 22.10 GiB\nRequested               : 1.50 GiB\n"
        "Device limit            : 23.64 GiB\nFree (according to CUDA): 19.00 MiB\n"
        "PyTorch limit (set by user-supplied memory fraction)\n                        : 17179869184.00 GiB"
    )
    assert (found.backend, found.device_index, found.requested_bytes) == ("cuda", 1, round(1.5 * GIB))
    assert (found.capacity_bytes, found.free_bytes) == (round(23.64 * GIB), 19 * MIB)
    assert (found.allocated_bytes, found.allowed_bytes) == (round(22.1 * GIB), None)


def test_a_driver_that_does_not_say_what_the_process_uses() -> None:
    found = read_message(NEW.replace("12.50 GiB", "17179869184.00 GiB"))
    assert found.process_bytes is None and found.other_bytes is None
    assert found.allocated_bytes == round(11.9 * GIB)


def test_the_misspelling_of_torch_2_0_and_hip() -> None:
    found = read_message(NEW.replace("capacity", "capacty").replace("CUDA out", "HIP out"))
    assert found.backend == "hip" and found.capacity_bytes == round(23.65 * GIB)


def test_metal() -> None:
    found = read_message(
        "RuntimeError: MPS backend out of memory (MPS allocated: 17.36 GB, other allocations: 613.56 MB, max allowed: "
        "18.13 GB). Tried to allocate 192.00 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable "
        "upper limit for memory allocations (may cause system failure)."
    )
    assert (found.backend, found.requested_bytes) == ("mps", 192 * MIB)
    assert found.allowed_bytes == round(18.13 * GIB) and found.allocated_bytes == round(17.36 * GIB)
    assert found.other_bytes == round(613.56 * MIB)


def test_a_tensor_above_metals_largest_buffer() -> None:
    found = read_message("RuntimeError: Invalid buffer size: 24.00 GiB")
    assert (found.backend, found.requested_bytes, found.allowed_bytes) == ("mps", 24 * GIB, None)


def test_ram() -> None:
    torch_cpu = read_message(
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 51539607552 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert (torch_cpu.backend, torch_cpu.requested_bytes) == ("cpu", 48 * GIB)
    numpy = read_message(
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.46 GiB for an array with shape (4, 12, 2048, "
        "2000) and data type float64"
    )
    assert (numpy.backend, numpy.shape) == ("cpu", [4, 12, 2048, 2000])


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("RuntimeError: CUDA error: out of memory", "cuda"),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", "cuda"),
        ("Out of memory: Killed process 812 (python)", "cpu"),
        ("kernel: Memory cgroup out of memory: Killed process 812 (python) total-vm:91824kB", "cpu"),
        ("srun: error: node1: task 0: Exited with exit code 137", "cpu"),
        ('File "train.py", line 137, in step\ntorch.AcceleratorError: HIP error: out of memory', "hip"),
        ("File \"train.py\", line 137, in step\nRuntimeError: NCCL: Cuda failure 2 'out of memory'", "unknown"),
        ("MemoryError", "cpu"),
        ("Killed", "cpu"),
        ("Loading checkpoint shards:  50%|##   | 1/2\nKilled\n", "cpu"),
        ("./run.sh: line 3:   812 Killed                  python train.py", "cpu"),
        ("[1]+  Killed                  python train.py", "cpu"),
        ("zsh: killed     python train.py", "cpu"),
        ("subprocess.CalledProcessError: died with <Signals.SIGKILL: 9>.", "cpu"),
        ("failed (exitcode: -9) local_rank: 0 (pid: 812) of binary: python", "cpu"),
        ("jaxlib: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes.", "unknown"),
    ],
)
def test_messages_without_figures(text: str, backend: str) -> None:
    assert read_message(text).backend == backend


@pytest.mark.parametrize("text", ["the head was Killed off", "Killed: 3 heads", "exitcode: 9", "hello"])
def test_a_word_in_a_sentence_is_no_message(text: str) -> None:
    with pytest.raises(InputError, match="no out-of-memory message"):
        read_message(text)


def test_the_traceback_says_line_and_phase() -> None:
    trace = "\n".join(
        [
            "Traceback (most recent call last):",
            '  File "/home/a/train.py", line 88, in <module>',
            "    loss.backward()",
            '  File "/env/lib/python3.12/site-packages/torch/_tensor.py", line 648, in backward',
            "    torch.autograd.backward(",
            '  File "/env/lib/python3.12/site-packages/torch/autograd/graph.py", line 829, in _engine_run_backward',
        ]
    )
    found = read_message(trace + "\n" + NEW)
    assert found.user_frame is not None and (found.user_frame.line, found.user_frame.file) == (88, "/home/a/train.py")
    assert found.phase == "backward"
    loading = trace.replace("torch/_tensor.py", "transformer_lens/HookedTransformer.py").replace(
        "torch/autograd/graph.py", "transformer_lens/loading_from_pretrained.py"
    )
    assert read_message(loading.replace("backward", "load") + "\n" + NEW).phase == "loading"
    windows = (
        r'  File "C:\Users\a\run.py", line 3, in main'
        + "\n"
        + r'  File "C:\env\Lib\site-packages\torch\x.py", line 1, in f'
    )
    frame = read_message(windows + "\n" + OLD).user_frame
    assert frame is not None and frame.line == 3


def test_other_text_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="no out-of-memory message") as error:
        read_message("RuntimeError: shape mismatch")
    assert "\n" not in str(error.value)
