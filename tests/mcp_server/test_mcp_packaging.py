"""What is said of the server elsewhere agrees with the server."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

from compute_awareness.mcp_server.server import build_server, tools
from compute_awareness.mcp_server.strict import SCHEMAS
from compute_awareness.mcp_server.table import END, START, first_sentence, tool_table

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def document(name: str) -> dict[str, Any]:
    return json.loads((ROOT / name).read_text("utf-8"))


def test_manifest_agrees_with_the_server() -> None:
    manifest = document("manifest.json")
    assert manifest["name"] == PROJECT["name"] and manifest["version"] == PROJECT["version"]
    assert manifest["tools"] == [
        {"name": tool.name, "description": first_sentence(tool.description)} for tool in tools()
    ], "manifest.json lists other tools, or describes them otherwise, than the server"
    assert manifest["prompts_generated"] is True and "prompts" not in manifest
    assert (ROOT / manifest["server"]["entry_point"]).is_file()
    assert manifest["server"]["type"] == "uv"
    assert manifest["server"]["mcp_config"]["args"][-1] in PROJECT["scripts"]
    assert manifest["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]
    assert manifest["license"] == PROJECT["license"]


def test_the_bundle_promises_no_more_than_the_tools_do() -> None:
    said = document("manifest.json")["long_description"]
    writes = [tool.name for tool in tools() if tool.annotations and not tool.annotations.read_only_hint]
    assert writes and "Read-only" not in said and "remembered" in said
    properties = {name for tool in tools() for name in tool.parameters["properties"]}
    for argument, word in {"host": "ssh", "live_prices": "prices", "model": "Hugging Face"}.items():
        assert argument in properties and word in said, f"{argument} may leave the machine, too"


def test_registry_entry_agrees_with_the_project() -> None:
    entry = document("server.json")
    assert len(entry["description"]) <= 100
    assert entry["version"] == PROJECT["version"]
    package = entry["packages"][0]
    assert package["identifier"] == PROJECT["name"] and package["version"] == PROJECT["version"]
    assert package["transport"] == {"type": "stdio"}
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"])
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"<!-- mcp-name: {entry['name']} -->" in readme


def test_versions_agree() -> None:
    assert build_server().version == PROJECT["version"], "install the package again: its metadata is of another version"


def test_readme_table_is_the_generated_one() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = readme.split(START, 1)[1].split(END, 1)[0].strip()
    assert shown == tool_table(), "run: python -m compute_awareness.mcp_server.table README.md"


def test_published_schemas_are_those_of_the_functions() -> None:
    """They are read from a file, since a start would wait for pydantic to make them again."""
    made = runpy.run_path(str(ROOT / "tools" / "build_tool_schemas.py"))
    assert SCHEMAS.read_text("utf-8") == made["text"](), "run: python tools/build_tool_schemas.py, and commit the file"
    published = {tool.name: (tool.parameters, tool.output_schema) for tool in tools()}
    for tool in tools():
        schemas = tool.signature.schemas()
        assert published[tool.name] == (schemas["parameters"], schemas["results"])


def test_readme_names_every_prompt() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [path.stem for path in sorted((ROOT / "prompts").glob("*.md")) if f"`{path.stem}`" not in readme]
    assert missing == []
