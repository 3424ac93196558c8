"""Every labelled snippet: all its workloads are found, the stated values are right, none is stated that is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from labels import UNKNOWN, Case, Unknown
from snippets_others import CASES as OTHERS
from snippets_sae_lens import CASES as SAE_LENS
from snippets_transformer_lens import CASES as TRANSFORMER_LENS
from snippets_transformers import CASES as TRANSFORMERS
from snippets_values import CASES as VALUES

from compute_awareness.script_reading import values
from compute_awareness.script_reading.events import Event
from compute_awareness.script_reading.reading import read_text
from compute_awareness.script_reading.source import parse_script

CASES = [*TRANSFORMER_LENS, *SAE_LENS, *VALUES, *TRANSFORMERS, *OTHERS]


def test_there_are_enough_and_each_once() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 120


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_snippet(case: Case) -> None:
    reading = read_text(parse_script(case.text, f"{case.name}.py"))
    assert reading.faults == []
    assert reading.complete
    found = [event for event in reading.events if event.kind != "load_sae"]
    assert [event.kind for event in found] == [label["task"] for label in case.expected]
    for event, label in zip(found, case.expected, strict=True):
        for name, wanted in label.items():
            said = stated(event, name)
            if wanted == UNKNOWN:  # a bound that follows from the model is no value
                assert isinstance(said, Unknown), (name, said)
            else:
                assert said == wanted, name


def stated(event: Event, name: str) -> Any:
    """What the reader says of a field, in the form of the labels."""
    if name == "task":
        return event.kind
    if name in ("line", "times", "free"):
        return getattr(event, name)
    value = event.fields.get(name, values.Known(None))
    if isinstance(value, values.Known):
        return value.value
    if isinstance(value, values.Items):
        return [item.value for item in value.items]
    return Unknown(values.bound(value))
