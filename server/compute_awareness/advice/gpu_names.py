"""How people write GPU names: "2xH100", "A100 80GB", "rtx4090", "NVIDIA A100-SXM4-80GB"."""

from __future__ import annotations

import re

from ..errors import InputError

_COUNT_FIRST = re.compile(r"^(?:(\d+)\s*[x×*](?!tx?\b)|(\d{1,2})\s(?!gi?b))\s*([a-z0-9].*)$")
_COUNT_LAST = re.compile(r"^(.+?)(?:\s+[x×*]\s*|\s*[:×*]\s*|(?<=[0-9])x)(\d+)$")
_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s*(?:gib|gb|g)\b")
# Where one word is made of two that other spellings keep apart.
_SEAMS = (
    (re.compile(r"\b(rtx|gtx|titan|quadro|tesla|geforce|nvidia|apple|radeon|instinct|arc)(?=[a-z0-9])"), r"\1 "),
    (re.compile(r"\bpro(?=\d)"), "pro "),
    (re.compile(r"(?<=\d)(tisuper|ti|super|ada|laptop|sxm\d?|pcie|nvl|hbm\de?|blackwell)\b"), r" \1"),
    (re.compile(r"\btisuper\b"), "ti super"),
    (re.compile(r"\b(m\d)(pro|max|ultra)\b"), r"\1 \2"),
    (re.compile(r"\bsxm\d\b"), "sxm"),
    (re.compile(r"\bmacbook\s+(?:pro|air)\b|\bmac\s+(?:studio|mini|pro)\b|\bimac\b"), " "),
    (re.compile(r"\bmax[\s-]?q\b"), "maxq"),
)
_NOISE = frozenset((
    "colab", "kaggle", "modal", "runpod", "vast", "lambda", "aws", "gcp", "cloud", "free",
    "nvidia", "geforce", "tesla", "rtx", "gtx", "amd", "instinct", "radeon", "intel", "apple",
    "google", "graphics", "gpu", "gpus", "card", "cards", "generation", "edition", "workstation",
    "the", "an", "a", "on", "of", "per", "one", "two", "dies", "tiles", "chip", "vram", "memory",
))  # fmt: skip
_QUALIFIERS = frozenset((
    "ti", "super", "ada", "laptop", "sxm", "pcie", "nvl", "blackwell", "pro", "max", "maxq",
    "ultra", "server", "converted",
))  # fmt: skip


def split_count(text: str) -> tuple[int, str]:
    """("2xH100") -> (2, "h100"): how many cards, and the rest in lower case. One where no number is written.

    Raises:
        InputError: a count of 0 or beyond 1024.
    """
    name = " ".join(text[:200].lower().split())
    count = 1
    if first := _COUNT_FIRST.match(name):
        count, name = int(first[1] or first[2]), first[3]
    elif last := _COUNT_LAST.match(name):
        count, name = int(last[2]), last[1]
    if not 1 <= count <= 1024:
        raise InputError(f"{text[:80]!r} means {count} GPUs; give a count from 1 to 1024")
    return count, name


def words(text: str) -> frozenset[str]:
    """The words that tell one card from another, in any order: {"a100", "sxm", "80gb"}."""
    name = _SIZE.sub(r" \1gb ", text.lower())
    for seam, parted in _SEAMS:
        name = seam.sub(parted, name)
    return frozenset(re.findall(r"[a-z0-9]+", name)) - _NOISE


def size_in(of: frozenset[str]) -> int | None:
    """The GB named among `of`, if exactly one is."""
    sizes = [int(word[:-2]) for word in of if re.fullmatch(r"\d+gb", word)]
    return sizes[0] if len(sizes) == 1 else None


def without_size(of: frozenset[str]) -> frozenset[str]:
    """`of` without what says GB."""
    return frozenset(word for word in of if not re.fullmatch(r"\d+gb", word))


def names_a_card(of: frozenset[str]) -> bool:
    """Whether a word is left that is more than a qualifier or a size."""
    return bool(without_size(of) - _QUALIFIERS)


def only_a_size(of: frozenset[str]) -> int | None:
    """The GB of "a card with 24 GB", where no more is said than that; None else."""
    size = size_in(of)
    return size if size is not None and 1 <= size <= 2048 and without_size(of) == {"with"} else None
