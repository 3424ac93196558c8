"""One member of a JSON file is changed, and every other byte stays."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.attach.jsonc import parse, remove_member, set_member

ZED = """// Zed settings
{
  "theme": "One Dark", // dark, please
  /* the fonts
     we like */
  "buffer_font_size": 15,
  "context_servers": {
    "other": { "command": "x", "env": { "KEY": "secret" } }, // mine
  },
}
"""

_keys = st.text(max_size=6) | st.sampled_from(["mcpServers", "a//b", 'q"t', "é"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=12,
)


def test_comments_and_commas_stay() -> None:
    changed = set_member(ZED, ("context_servers", "ours"), {"command": "c", "args": []})
    for line in ZED.splitlines():
        assert line in changed.splitlines()
    assert parse(changed).data["context_servers"]["ours"] == {"command": "c", "args": []}
    assert '\n    "ours": {\n      "command"' in changed
    assert remove_member(changed, ("context_servers", "ours")) == ZED


def test_a_new_section_stands_before_the_brace_and_after_the_comments() -> None:
    text = '{\n\t"a": 1 // one\n\t// the end\n}\n'
    changed = set_member(text, ("servers", "ours"), 2)
    assert changed == '{\n\t"a": 1, // one\n\t// the end\n\t"servers": {\n\t\t"ours": 2\n\t}\n}\n'


def test_ends_of_line_and_the_byte_order_mark_stay() -> None:
    text = '\ufeff{\r\n    "a": {\r\n    }\r\n}\r\n'
    changed = set_member(text, ("a", "b"), {"c": 1})
    assert changed == '\ufeff{\r\n    "a": {\r\n        "b": {\r\n            "c": 1\r\n        }\r\n    }\r\n}\r\n'


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", "{}", "{ }", "{\n}", "{ // none\n}", "{/* none */}"])
def test_an_empty_file_gets_its_object(text: str) -> None:
    changed = set_member(text, ("mcpServers", "ours"), {"command": "c"})
    assert parse(changed).data == {"mcpServers": {"ours": {"command": "c"}}}
    assert "none" not in text or "none" in changed


def test_of_a_key_written_twice_the_one_that_counts_is_changed() -> None:
    assert parse(set_member('{"a": 1, "a": 2}', ("a",), 3)).data == {"a": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1 "b": 2}', "line 1: expected ',' or '}', found '\"b\": 2}'"),
        ("{\n'a': 1}", "line 2: expected a key in double quotes"),
        ('{"a": 1', "found the end"),
        ('{"a": nope}', "expected a value"),
        ('{"a": 1} x', "expected nothing more"),
        ('{"a": "\\x"}', "expected a value"),
        ("[" * 500, "nested more than 100 deep"),
        ('{"mcpServers": []}', "mcpServers is not an object there"),
        ("[]", "the whole is not an object there"),
        ('{"a": /* open', "expected a value"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        set_member(text, ("mcpServers", "ours"), 1)
    assert said in str(refused.value)


@settings(max_examples=300, deadline=None)
@given(data=st.dictionaries(_keys, _json, max_size=4), seed=st.integers(0, 999), value=_json, key=_keys, section=_keys)
def test_any_file_keeps_all_that_is_not_ours(
    data: dict[str, Any], seed: int, value: Any, key: str, section: str
) -> None:
    """Files with comments, blanks and trailing commas at every place where they may stand."""
    data.setdefault(section, {})
    if not isinstance(data[section], dict):
        data[section] = {}
    text = _decorated(data, random.Random(seed))
    assert parse(text).data == data
    changed = set_member(text, (section, key), value)
    wanted = json.loads(json.dumps(data))
    wanted[section][key] = value
    assert parse(changed).data == wanted
    removed = remove_member(changed, (section, key))
    del wanted[section][key]
    assert parse(removed).data == wanted
    if key not in data[section]:
        assert _comments(text) == _comments(removed)
        # Beside blanks and a comma, all is there again.
        assert _bare(removed) == _bare(text)


def _bare(text: str) -> str:
    return "".join(c for c in text if c not in " \t\r\n,")


def _comments(text: str) -> int:
    return text.count("\u25c6")


def _decorated(data: Any, chance: random.Random) -> str:
    """`data` as JSON with comments, which hold a mark that no string of the data holds."""

    def blank() -> str:
        return chance.choice(["", "", " ", "\n", "\n  ", " // \u25c6, }\n", "/*\u25c6 { */"])

    def written(value: Any) -> str:
        if isinstance(value, dict):
            parts = [f"{blank()}{json.dumps(k)}{blank()}:{blank()}{written(v)}{blank()}" for k, v in value.items()]
            return "{" + ",".join(parts) + (chance.choice(["", ","]) if parts else "") + blank() + "}"
        if isinstance(value, list):
            parts = [f"{blank()}{written(item)}{blank()}" for item in value]
            return "[" + ",".join(parts) + (chance.choice(["", ","]) if parts else "") + blank() + "]"
        return json.dumps(value)

    return blank() + written(data) + blank()
