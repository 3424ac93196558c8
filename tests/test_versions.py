"""Which library versions the figures hold for."""

from __future__ import annotations

import itertools

import pytest

from compute_awareness.errors import InputError
from compute_awareness.versions import COVERED, check, is_verified, parse, span_of


@pytest.mark.parametrize(
    ("text", "parsed"), [("3.9.0", (3, 9, 0)), ("3.9", (3, 9, 0)), ("v5.23.0rc1", (5, 23, 0)), ("6", (6, 0, 0))]
)
def test_parse(text: str, parsed: tuple[int, int, int]) -> None:
    assert parse(text) == parsed


@pytest.mark.parametrize("text", ["", "latest", "99999.1", "-1", "1" * 400])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InputError, match="is not a version"):
        parse(text)


@pytest.mark.parametrize("library", sorted(COVERED))
def test_verified_releases_are_covered(library: str) -> None:
    for span in COVERED[library].spans:
        release = span.verified.split()[-1]
        assert span.oldest <= parse(release) <= span.newest
        assert check(library, release) == (span.verified, [])
        assert is_verified(library, release)
        assert span_of(library, release) is span


@pytest.mark.parametrize("library", sorted(COVERED))
def test_spans_follow_each_other(library: str) -> None:
    spans = COVERED[library].spans
    for before, after in itertools.pairwise(spans):
        assert before.oldest <= before.newest < after.oldest
        assert before.differs
    assert not spans[-1].differs
    assert check(library, None) == (spans[-1].verified, [])


def test_outside() -> None:
    with pytest.raises(InputError, match=r"covered: 2\.0\.0 to 3\.9"):
        check("transformer_lens", "1.19.0")
    with pytest.raises(InputError, match="removed HookedTransformer"):
        check("transformer_lens", "4.0.0")
    assert check("sae_lens", "7.0.0")[1]


def test_each_span_answers_for_itself() -> None:
    """3.4 is measured as it is, not taken to be like 3.9; 3.5.1 is taken to be like 3.9."""
    assert check("transformer_lens", "3.4.0")[0] != check("transformer_lens", "3.9.0")[0]
    assert is_verified("transformer_lens", "3.2.1")
    assert not is_verified("transformer_lens", "3.5.1")
    assert not is_verified("transformer_lens", "3.10.0")
