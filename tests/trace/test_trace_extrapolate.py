"""Lines through shallow traces: which section is the worst may change with the depth."""

from __future__ import annotations

import pytest

from compute_awareness.trace import worker
from compute_awareness.trace.extrapolate import NotLinear, extend


def shallow(n: int) -> dict:
    return {
        "n_layers": n,
        "parameters": 10 + 3 * n,
        "retained": {"parameters": 40 + 12 * n, "logits": 7},
        "sections": {
            "forward:after": {"parameters": 40 + 12 * n, "other": 1000 + n},
            "forward:middle": {"other": n * n},
            "optimizer:before": {"parameters": 40 + 12 * n, "gradients": 40 + 12 * n, "other": 5},
        },
    }


def test_another_section_is_the_worst_in_a_deep_model():
    traces = [shallow(n) for n in (2, 3, 4)]
    assert all(extend([trace], None).section == "forward:after" for trace in traces)
    deep = extend(traces, 100)
    assert deep.section == "optimizer:before"
    assert deep.at_peak == {"parameters": 1240, "gradients": 1240, "other": 5}
    assert deep.retained == {"parameters": 1240, "logits": 7}
    assert deep.parameters == 310


def test_a_bend_is_refused():
    traces = [shallow(n) for n in (2, 3, 4)]
    traces[2]["sections"]["forward:after"]["other"] += 1
    with pytest.raises(NotLinear, match="other"):
        extend(traces, 10)


def test_a_section_that_comes_or_goes_is_refused():
    traces = [shallow(n) for n in (2, 3, 4)]
    del traces[0]["sections"]["optimizer:before"]
    with pytest.raises(NotLinear, match="sections"):
        extend(traces, 10)


def test_half_a_layer_is_refused():
    traces = [shallow(n) for n in (2, 4, 6)]
    for trace in traces:
        trace["sections"]["forward:after"]["other"] = 5 * trace["n_layers"] // 2
    assert extend(traces, 8).at_peak["other"] == 5
    with pytest.raises(NotLinear, match="whole layers"):
        extend(traces, 9)


@pytest.mark.parametrize(
    "layers, expected",
    [
        ("aaaaaaaa", (0, 1)),
        ("abababab", (0, 2)),
        ("bbbbabbbbabbbba", None),  # a period of five is not repeated often enough to be sure of it
        ("xaaaaaaa", (1, 1)),
        ("abcdefgh", None),
        ("aaaaaaab", None),
    ],
)
def test_the_pattern_of_the_layers(layers, expected):
    assert worker.pattern(list(layers)) == expected


def test_lists_of_one_entry_per_layer_are_cut_with_the_depth():
    config = {
        "num_hidden_layers": 6,
        "layer_types": ["a", "b"] * 3,
        "vocab_size": 6,
        "attention_types": [[["g", "l"], 3]],
    }
    assert worker.cut(config, 4, 6) == {
        "num_hidden_layers": 4, "layer_types": ["a", "b", "a", "b"], "vocab_size": 6,
        "attention_types": [[["g"], 1], [["l"], 1], [["g"], 1], [["l"], 1]],
    }  # fmt: skip
