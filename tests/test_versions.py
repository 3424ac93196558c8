"""Which library versions the figures hold for."""

from __future__ import annotations

import pytest

from compute_awareness.errors import InputError
from compute_awareness.versions import COVERED, check, parse


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
def test_the_verified_release_is_covered(library: str) -> None:
    verified, warnings = check(library, COVERED[library].verified.split()[-1])
    assert verified
    assert not warnings


def test_outside() -> None:
    with pytest.raises(InputError, match=r"covered: 3\.5\.1 to 3\.9"):
        check("transformer_lens", "3.4.0")
    with pytest.raises(InputError, match="removed HookedTransformer"):
        check("transformer_lens", "4.0.0")
    assert check("sae_lens", "7.0.0")[1]
