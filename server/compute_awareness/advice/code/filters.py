"""names_filter and layers as Python that the library takes."""

from __future__ import annotations

import re

from ...memory.huggingface.outputs import layout, module_regex
from ...models.spec import ModelSpec

_MAGIC = re.compile(r"[*?\[]")


def hook_test(patterns: list[str] | None, layers: list[int] | None, spec: ModelSpec) -> str:
    """TransformerLens: an expression on `name`, true of the hooks that are kept; "" where all are."""
    tests = []
    if layers is not None:
        tests.append(_starts(f"blocks.{layer % spec.n_layers}." for layer in layers))
    if patterns is not None:
        tests.append(_any(patterns))
    return " and ".join(tests)


def _any(patterns: list[str]) -> str:
    ends = [p[1:] for p in patterns if p[:1] == "*" and not _MAGIC.search(p[1:])]
    starts = [p[:-1] for p in patterns if p[-1:] == "*" and not _MAGIC.search(p[:-1])]
    exact = [p for p in patterns if not _MAGIC.search(p)]
    other = [p for p in patterns if p not in exact and p[1:] not in ends and p[:-1] not in starts]
    tests = []
    if exact:
        tests.append(f'name == "{exact[0]}"' if len(exact) == 1 else f"name in {_tuple(exact)}")
    if ends:
        tests.append(f"name.endswith({_one_or_tuple(ends)})")
    if starts:
        tests.append(_starts(starts))
    for pattern in other:
        inner = pattern[1:-1]
        plain = pattern[0] == pattern[-1] == "*" and inner and not _MAGIC.search(inner)
        tests.append(f'"{inner}" in name' if plain else f'fnmatchcase(name, "{pattern}")')
    return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"


def needs_fnmatch(test: str) -> str:
    """The import that the expression wants, with its newline; "" where it wants none."""
    return "from fnmatch import fnmatchcase\n" if "fnmatchcase(" in test else ""


def module_pattern(patterns: list[str] | None, layers: list[int] | None, spec: ModelSpec) -> str:
    """transformers: the regular expression that the paths of the kept modules match as a whole."""
    known = layout(spec)
    globs = patterns or [f"{known.layers}.*"]
    wanted = "|".join(module_regex(glob) for glob in globs)
    if layers is None:
        return wanted
    blocks = "|".join(str(layer) for layer in sorted({layer % spec.n_layers for layer in layers}))
    return rf"(?={re.escape(known.layers)}\.({blocks})(\.|$))({wanted})"


def _starts(prefixes: object) -> str:
    return f"name.startswith({_one_or_tuple(list(prefixes))})"  # type: ignore[call-overload]


def _one_or_tuple(texts: list[str]) -> str:
    return f'"{texts[0]}"' if len(texts) == 1 else _tuple(texts)


def _tuple(texts: list[str]) -> str:
    return "(" + ", ".join(f'"{text}"' for text in texts) + ")"
