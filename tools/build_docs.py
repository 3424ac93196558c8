"""Writes the generated parts of README.md, docs/tools.md and docs/policy.md.

    python tools/build_docs.py             write them
    python tools/build_docs.py --check     write nothing; exit with 1 where one is not what would be written

A generated part stands between `<!-- NAME:start -->` and `<!-- NAME:end -->`. Answers of tools are those that a client
of the server gets; the machine that `detect_compute` sees in them is the report `tests/docs/gpu_box.json`.
`tests/docs/test_generated.py` fails where a part is not what this script writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "server"))

from mcp import Client  # noqa: E402

from compute_awareness.asking.table import policy_table  # noqa: E402
from compute_awareness.attach.hosts import HOSTS, Surroundings  # noqa: E402
from compute_awareness.hardware.compute import THIS_MACHINE  # noqa: E402
from compute_awareness.hardware.reading import as_compute  # noqa: E402
from compute_awareness.mcp_server.server import build_server, tools  # noqa: E402
from compute_awareness.mcp_server.table import tool_table  # noqa: E402
from compute_awareness.preflight import preflight  # noqa: E402
from compute_awareness.workload import TASKS, parse_workload  # noqa: E402

GPU_BOX = ROOT / "tests" / "docs" / "gpu_box.json"
FILES = ("README.md", "docs/tools.md", "docs/policy.md")
SESSION = ["preflight", "examples/pythia_cache.json", "--gpu", "RTX 4090"]
_WIDTH = 118

_CACHE: dict[str, Any] = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 23.53 GiB "
    "of which 184.31 MiB is free."
)
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "detect_compute": ("detect_compute", {}),
    "estimate_memory": (
        "estimate_memory",
        {"task": "training", "model": "gpt2", "batch_size": 8, "seq_len": 512, "library_version": "5.23.0"},
    ),
    "recommend_compute": (
        "recommend_compute",
        {"task": "training", "model": "llama-3.1-8b", "batch_size": 4, "seq_len": 2048, "dtype": "bfloat16"},
    ),
    "preflight_experiment": ("preflight_experiment", {**_CACHE, "gpu": "RTX 4090"}),
    "preflight_script": (
        "preflight_script",
        {"text": (ROOT / "examples" / "cache_pythia.py").read_text(encoding="utf-8"), "gpu": "RTX 4090"},
    ),
    "explain_oom": ("explain_oom", {"message": _OOM, "workload": _CACHE}),
}
"""Example -> tool and arguments. A new tool gets an example here and its section in docs/tools.md: when, when not, and
the marks of `arguments-NAME` and `call-NAME`."""

SAID: dict[str, tuple[dict[str, Any], str]] = {
    "silent": ({"task": "inference", "model": "gpt2", "seq_len": 256}, "unknown"),
    "tell": ({**_CACHE, "model": "pythia-6.9b", "dtype": "bfloat16", "names_filter": ["*hook_resid_post"]}, "RTX 4090"),
    "ask_where": ({**_CACHE, "model": "llama-2-7b", "batch_size": 1, "dtype": "bfloat16"}, "unknown"),
    "ask_choice": (_CACHE, "RTX 4090"),
}
"""Examples of the policy: a workload and what the caller says of the GPU."""


def parts() -> dict[str, Callable[[], str]]:
    """Name of a generated part -> what makes it."""
    made: dict[str, Callable[[], str]] = {
        "tools": tool_table, "hosts": host_table, "session": session, "fields": field_table, "triggers": trigger_table,
    }  # fmt: skip
    for name in CALLS:
        made[f"call-{name}"] = lambda name=name: example(name)
    for tool in tools():
        made[f"arguments-{tool.name}"] = lambda tool=tool: argument_table(tool)
    for name in SAID:
        made[f"said-{name}"] = lambda name=name: said(name)
    return made


def session() -> str:
    """The README's session: a command and what it prints, 80 columns wide."""
    environment = os.environ | {"COLUMNS": "80", "PYTHONUTF8": "1", "COMPUTE_AWARENESS_PROFILE": ""}
    done = subprocess.run(
        [sys.executable, "-m", "compute_awareness", *SESSION],
        cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    command = " ".join(f'"{word}"' if " " in word else word for word in SESSION)
    return f"```\n$ compute-awareness {command}\n{done.stdout.rstrip()}\n```"


def host_table() -> str:
    """The assistants that `install` knows, with the user's file on Linux."""
    home = Path("/home/someone")
    at = Surroundings(home, home, {}, "linux")
    rows = [
        f"| `{host.id}` | {', '.join(host.places)} | `~/{host.places['user'].file(at).relative_to(home).as_posix()}` |"
        for host in HOSTS.values()
    ]
    return "\n".join(["| assistant | scopes | file of the user |", "|---|---|---|", *rows])


def trigger_table() -> str:
    """The triggers of prompts/triggers.toml, in their order."""
    rows = [f"| `{trigger.id}` | {trigger.title} | {trigger.why} |" for trigger in policy_table().triggers]
    return "\n".join(["| trigger | fires when | why it matters |", "|---|---|---|", *rows])


def field_table() -> str:
    """Every field of a workload but `task`: tasks and meaning, in a row for each meaning."""
    meant: dict[str, dict[str, list[str]]] = {}
    for task, kind in TASKS.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            if name == "task":
                continue
            meaning = ". ".join(filter(None, (schema.get("description"), _choices(schema))))
            meant.setdefault(name, {}).setdefault(meaning, []).append(task)
    rows = []
    for name, meanings in meant.items():
        for meaning, tasks in meanings.items():
            where = "all" if len(tasks) == len(TASKS) else ", ".join(f"`{task}`" for task in tasks)
            rows.append(f"| `{name}` | {where} | {_cell(meaning)} |")
    return "\n".join(["| field | tasks | meaning |", "|---|---|---|", *rows])


def _choices(schema: dict[str, Any]) -> str:
    """The values of a field that has only these."""
    values = [
        value
        for arm in (schema, *schema.get("anyOf", []))
        for value in arm.get("enum", [arm["const"]] if "const" in arm else [])
    ]
    return f"One of {', '.join(f'`{value}`' for value in values)}" if values else ""


def argument_table(tool: Any) -> str:
    """The tool's arguments beside the fields of a workload."""
    fields = {name for kind in TASKS.values() for name in kind.model_fields}
    given = {name: schema for name, schema in tool.parameters["properties"].items() if name not in fields}
    if not given:
        return "None but the fields of a workload."
    needed = tool.parameters.get("required", [])
    rows = [
        f"| `{name}` | {_cell(_kind(schema))} | {_cell(schema.get('description', ''))}"
        f"{' (required)' if name in needed else ''} |"
        for name, schema in given.items()
    ]
    more = "\n\nand the fields of a workload." if len(given) < len(tool.parameters["properties"]) else ""
    return "\n".join(["| argument | type | meaning |", "|---|---|---|", *rows]) + more


def example(name: str) -> str:
    """A call and the concise answer that a client gets, as JSON."""
    tool, arguments = CALLS[name]
    report = as_compute(json.loads(GPU_BOX.read_text("utf-8"))).model_copy(update={"seen_from": THIS_MACHINE})

    async def called() -> Any:
        async with Client(build_server(), mode="auto") as client:
            return await client.call_tool(tool, arguments)

    with (
        patch("compute_awareness.hardware.detect.detect_at", lambda host, python: report),
        patch.dict(os.environ, {"COMPUTE_AWARENESS_PROFILE": ""}),
    ):
        result = asyncio.run(called())
    if result.is_error:
        raise ValueError(f"{name}: {result.content[0].text}")
    return f"```json\n{_json(arguments)}\n```\n\n```json\n{_json(result.structured_content)}\n```"


def said(name: str) -> str:
    """What the policy decides for an example, with the words."""
    workload, gpu = SAID[name]
    with patch.dict(os.environ, {"COMPUTE_AWARENESS_PROFILE": ""}):
        asking = preflight(parse_workload(workload), gpu=gpu).asking
    lines = re.sub(r"(?m)^(- .*)\n(?=[^-\n])", r"\1\n\n", asking.text).splitlines()
    words = "\n".join(f"> {line}".rstrip() for line in lines)
    head = f"`{json.dumps(workload)}`, gpu `{gpu}`: **{asking.decision}**. {asking.reason}"
    return f"{head}\n\n{words}" if words else head


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else kind


def _cell(text: str) -> str:
    """Text for a cell: a bar would end it, an asterisk of a glob would be emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def _json(value: Any, indent: int = 0) -> str:
    """JSON with each object and list on one line where it is short."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(short) + indent <= _WIDTH:
        return short
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        rows = [f"{inner}{json.dumps(key)}: {_json(entry, indent + 2)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    rows = [f"{inner}{_json(entry, indent + 2)}" for entry in value]
    return "[\n" + ",\n".join(rows) + "\n" + " " * indent + "]"


def marked(text: str) -> Iterator[str]:
    """The names of the generated parts that a document has a place for."""
    yield from re.findall(r"<!-- ([\w-]+):start -->", text)


def filled(text: str, made: dict[str, Callable[[], str]]) -> str:
    """The document with its generated parts made anew. Raises ValueError for a mark that nothing is made for."""
    for name in marked(text):
        if name not in made:
            raise ValueError(f"nothing is generated for <!-- {name}:start -->")
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{start} has no {end}")
        text = f"{before}{start}\n{made[name]()}\n{end}{after}"
    return text


def main() -> int:
    """Writes the documents, or says with --check which are not what would be written."""
    made, stale = parts(), []
    for name in FILES:
        path = ROOT / name
        text = path.read_text("utf-8")
        anew = filled(text, made)
        if anew != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(anew, encoding="utf-8", newline="\n")
    if stale:
        print(("not what would be written: " if "--check" in sys.argv[1:] else "written: ") + ", ".join(stale))
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
