"""Library versions: which ones the figures were checked against, and how sure that makes us."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import InputError, NotCovered

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Span:
    """A run of releases that allocate alike, and the one of them that was measured."""

    oldest: Version
    newest: Version
    """A patch release beyond counts as it."""
    verified: str
    """What was really run, in words."""
    same_from: Version
    """First release whose source is the verified one's wherever memory is decided (files compared)."""
    differs: str = ""
    """What it does otherwise than the newest span."""


@dataclass(frozen=True)
class Covered:
    """The releases of a library that its figures hold for."""

    distribution: str
    spans: tuple[Span, ...]
    """Oldest first, without gaps; the last is the one assumed where no version is known."""
    before: str
    """Why older releases are not covered."""
    after: str = ""
    """Why newer ones are not, where that is known."""

    @property
    def oldest(self) -> Version:
        """First release covered."""
        return self.spans[0].oldest

    @property
    def newest(self) -> Version:
        """Last release covered."""
        return self.spans[-1].newest

    @property
    def verified(self) -> str:
        """The release that is assumed where no version is known, in words."""
        return self.spans[-1].verified


_STORED = "every block keeps an n_ctx x n_ctx mask and rotary tables for all of n_ctx"

COVERED: dict[str, Covered] = {
    "transformer_lens": Covered(
        "transformer-lens",
        (
            Span((2, 0, 0), (2, 1, 99), "transformer_lens 2.1.0", (2, 0, 0),
                 f"{_STORED}; scores are float32 in 16-bit models; biases are added in a second tensor"),
            # same_from: measured with 2.2.2, 2.4.1, 2.6.0, 2.8.1 and 2.9.1, which agree
            Span((2, 2, 0), (2, 9, 99), "transformer_lens 2.9.1", (2, 2, 2),
                 f"{_STORED}; scores are float32 in 16-bit models"),
            Span((2, 10, 0), (2, 15, 99), "transformer_lens 2.15.4", (2, 10, 0),
                 f"{_STORED}; scores are float32 in 16-bit models; inputs per head are multiplied elementwise"),
            Span((2, 16, 0), (2, 17, 99), "transformer_lens 2.17.0", (2, 16, 0),
                 f"{_STORED}; scores are float32 in 16-bit models"),
            Span((2, 18, 0), (2, 99, 99), "transformer_lens 2.18.0", (2, 18, 0),
                 f"{_STORED}; scores are float32 in 16-bit models"),
            Span((3, 0, 0), (3, 4, 99), "transformer_lens 3.4.0", (3, 0, 0), _STORED),
            Span((3, 5, 0), (3, 5, 0), "transformer_lens 3.5.0", (3, 5, 0), "rotary tables for all of n_ctx"),
            Span((3, 5, 1), (3, 9, 99), "transformer_lens 3.9.0", (3, 8, 0)),
        ),
        before="older releases were not looked at",
        after="4.0 removed HookedTransformer (use transformer-lens<4, or library transformer_bridge)",
    ),
    "transformer_bridge": Covered(
        "transformer-lens",
        (
            Span((3, 8, 0), (3, 9, 99), "TransformerBridge of transformer_lens 3.9.0", (3, 9, 0),
                 "biases made by processing stay float32"),
            Span((4, 0, 0), (4, 3, 99), "TransformerBridge of transformer_lens 4.3.0", (4, 3, 0)),
        ),
        before="before 3.8 norms, attention and compatibility mode allocate otherwise",
    ),
    "transformers": Covered(
        "transformers",
        (Span((5, 0, 0), (5, 23, 99), "transformers 5.23.0", (5, 23, 0)),),
        before="before 5.0 masks, caches and default dtypes differ",
    ),
    "nnsight": Covered(
        "nnsight",
        (Span((0, 8, 1), (0, 8, 99), "nnsight 0.8.1", (0, 8, 1)),),
        before="older releases were not looked at",
    ),
    "sae_lens": Covered(
        "sae-lens",
        (Span((6, 27, 3), (6, 54, 99), "sae_lens 6.54.12", (6, 54, 0)),),
        before="before 6.27.3 the activation buffer is store_batch_size_prompts times as large",
    ),
    "dictionary_learning": Covered(
        "dictionary-learning",
        (Span((0, 1, 0), (0, 1, 99), "dictionary_learning 0.1.0", (0, 1, 0)),),
        before="older releases were not looked at",
    ),
}  # fmt: skip


def parse(version: str) -> Version:
    """`3.9.0`, `3.9`, `v3.9.0rc1` -> (3, 9, 0). Raises InputError for anything that starts otherwise."""
    match = re.match(r"v?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?(?![\d])", version.strip())
    if match is None:
        raise InputError(f"library_version: {version[:40]!r} is not a version; expected e.g. '3.9.0'")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def check(library: str, version: str | None) -> tuple[str, list[str]]:
    """What may be said of the figures for `library` at `version`.

    Returns:
        The verified release in words, and warnings (empty where the version is covered).
    Raises:
        NotCovered: a version the figures do not hold for; the message says which are covered and why not this one.
        InputError: the version cannot be read, or has no such thing any more.
    """
    covered = COVERED[library]
    if version is None:
        return covered.verified, []
    given = parse(version)
    span = f"{_words(covered.oldest)} to {_words(covered.newest[:2])}"
    if given < covered.oldest:
        raise NotCovered(
            f"library_version: {covered.distribution} {version} is not covered yet (covered: {span}); {covered.before}"
        )
    if given > covered.newest:
        if covered.after:
            raise InputError(
                f"library_version: {covered.distribution} {version} is not covered (covered: {span}); {covered.after}"
            )
        return covered.verified, [f"{covered.distribution} {version} is newer than what was checked ({span})"]
    return span_of(library, version).verified, []


def span_of(library: str, version: str | None) -> Span:
    """The span `version` lies in; the last one for None and for releases beyond it.

    Raises:
        InputError: the version cannot be read. Versions before the first span get the first.
    """
    spans = COVERED[library].spans
    if version is None:
        return spans[-1]
    given = parse(version)
    return next((span for span in spans if given <= span.newest), spans[-1])


def is_verified(library: str, version: str | None) -> bool:
    """Whether `version` allocates by the very source that was measured; None = that release itself is assumed."""
    if version is None:
        return True
    span = span_of(library, version)
    return span.same_from <= parse(version) <= span.newest


def _words(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
