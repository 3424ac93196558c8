"""A pass of a Bridge after another one, where the model keeps every layer's attention pattern until the next pass.

What the first pass had free for its logits, the second takes patterns from, as the old ones still stand beside them:
the logits may need another segment (on an H100 they did: `again_reserved` of benchmarks/results/gpu_truth.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..card.allocator import SMALL, UNIT
from ..card.pool import Pool
from ..card.section import asking

_LARGE = SMALL * UNIT


@lru_cache(maxsize=16)
def loaded(standing: tuple[int, ...]) -> Pool:
    """The large pool with these tensors in it (bytes)."""
    pool = Pool(False)
    pool.play([asking(nbytes) for nbytes in standing if nbytes > _LARGE])
    return pool


def late_segments(pool: Pool, requests: Sequence[int], pattern: int, n_layers: int, workspace: int) -> int:
    """Bytes of the segments that a second pass opens, the results of the first being gone before.

    Args:
        pool: the large one before the first pass.
        requests: of one pass, from an empty card on (see `Tape.requests`). Each layer leaves its pattern. In the next
            pass it lets go of that where its scores go, the last of that size before the next layer's are made.
        pattern: bytes of a pattern, or of scores.
        workspace: bytes of what stays for good, from the first time that it is asked for.
    """
    first, sizes, at_pattern = _large(requests, pattern)
    freed = {~request for request in first if request < 0}
    left = [number for number in range(len(sizes)) if number not in freed]
    kept = [number for number in left if number in at_pattern][-n_layers:]
    stays = next((number for number in left if sizes[number] == asking(workspace)), None)
    gone = [number for number in left if number not in kept and number != stays]

    last: list[int] = []  # where the scores of each layer go
    made = 0
    for at, request in enumerate(first):
        if request >= 0:
            if len(last) < len(kept) and made == kept[len(last)]:
                last.append(at)
            made += 1
        elif last and ~request in at_pattern:
            last[-1] = at
    old = dict(zip(last, kept, strict=True))
    second = [0] * len(gone)
    number = 0
    for at, request in enumerate(first):
        if request < 0:
            second.append(request + (stays is not None and ~request > stays))
        else:
            if number != stays:
                second.append(request)
            number += 1
        if at in old:
            second.append(0)
            gone.append(old[at])

    pool = pool.copy()
    blocks = pool.play(first)
    before = pool.reserved
    pool.play(second, iter([blocks[number] for number in gone]))
    return (pool.reserved - before) * UNIT


def _large(requests: Sequence[int], pattern: int) -> tuple[list[int], list[int], set[int]]:
    """What the large pool is asked for; the request for each; which of them are as large as a pattern."""
    found: list[int] = []
    sizes: list[int] = []
    numbers: list[int] = []
    alike: set[int] = set()
    for request in requests:
        if request > _LARGE:
            if request == pattern:
                alike.add(len(sizes))
            numbers.append(len(sizes))
            sizes.append(asking(request))
            found.append(sizes[-1])
        elif request >= 0:
            numbers.append(-1)
        elif numbers[~request] >= 0:
            found.append(~numbers[~request])
    return found, sizes, alike
