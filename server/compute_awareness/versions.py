"""Library versions: which ones the figures were checked against, and how sure that makes us."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import InputError

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Covered:
    """The span of releases a library's figures hold for, and the release they were measured on."""

    distribution: str
    oldest: Version
    """First release with the same allocations, by its source and release notes."""
    newest: Version
    """Last release known to have them; a patch release beyond counts as it."""
    verified: str
    """What the tests really ran."""
    same_from: Version
    """First release whose source is the verified one's wherever memory is decided (files compared)."""
    before: str
    """Why older releases differ."""
    after: str = ""
    """Why newer ones differ, where that is known."""


COVERED: dict[str, Covered] = {
    "transformer_lens": Covered(
        "transformer-lens", (3, 5, 1), (3, 9, 99), "transformer_lens 3.9.0", (3, 8, 0),
        before="before 3.5.1 it keeps n_ctx x n_ctx masks or longer rotary tables in every block",
        after="4.0 removed HookedTransformer (use transformer-lens<4, or TransformerBridge, which is not covered yet)",
    ),
    "transformers": Covered(
        "transformers", (5, 0, 0), (5, 23, 99), "transformers 5.23.0", (5, 23, 0),
        before="before 5.0 masks, caches and default dtypes differ",
    ),
    "sae_lens": Covered(
        "sae-lens", (6, 27, 3), (6, 54, 99), "sae_lens 6.54.12", (6, 54, 0),
        before="before 6.27.3 the activation buffer is store_batch_size_prompts times as large",
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
        InputError: a version the figures do not hold for; the message says which are covered and why not this one.
    """
    covered = COVERED[library]
    if version is None:
        return covered.verified, []
    given = parse(version)
    span = f"{_words(covered.oldest)} to {_words(covered.newest[:2])}"
    if given < covered.oldest:
        raise InputError(
            f"library_version: {covered.distribution} {version} is not covered yet (covered: {span}); {covered.before}"
        )
    if given > covered.newest:
        if covered.after:
            raise InputError(
                f"library_version: {covered.distribution} {version} is not covered (covered: {span}); {covered.after}"
            )
        return covered.verified, [f"{covered.distribution} {version} is newer than what was checked ({span})"]
    return covered.verified, []


def is_verified(library: str, version: str | None) -> bool:
    """Whether `version` allocates by the very source that was measured; None = that release itself is assumed."""
    covered = COVERED[library]
    return version is None or covered.same_from <= parse(version) <= covered.newest


def _words(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
