"""The picture of a preflight for hosts that show no Apps: only where asked for, and the same as `--plot` draws."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from mcp import Client
from mcp.types import EmbeddedResource, ImageContent, TextResourceContents
from PIL import Image

from compute_awareness.mcp_server.budget import LIMIT_BYTES
from compute_awareness.picture_of import preflight_svg
from compute_awareness.picture_png import SCALE, png_of
from compute_awareness.preflight import preflight
from compute_awareness.workload import parse_workload

pytestmark = pytest.mark.anyio

TOOL = "preflight_experiment"
CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}


async def called(server: Any, mode: str, **more: Any) -> Any:
    async with Client(server, mode=mode) as client:
        return await client.call_tool(TOOL, CACHE | {"gpu": "RTX 4090"} | more)


async def test_a_picture_comes_where_it_is_asked_for_and_only_there(server: Any, mode: str) -> None:
    plain = await called(server, mode)
    drawn = await called(server, mode, detail="picture")
    assert [one.type for one in plain.content] == ["text"]
    assert [one.type for one in (await called(server, mode, detail="full")).content] == ["text"]
    # Beside the picture the answer is the concise one, and as short.
    assert drawn.content[0] == plain.content[0] and drawn.structured_content == plain.structured_content
    assert len(cast(Any, drawn.content[0]).text.encode()) <= LIMIT_BYTES["concise"]
    picture = drawn.content[1]
    assert isinstance(picture, ImageContent) and len(drawn.content) == 2
    assert picture.mime_type == "image/png" and picture.annotations and picture.annotations.audience == ["user"]
    svg = preflight_svg(preflight(parse_workload(dict(CACHE)), gpu="RTX 4090"))
    data = base64.b64decode(picture.data, validate=True)
    assert data == png_of(svg) and len(data) < 100_000
    with Image.open(io.BytesIO(data)) as image:
        assert image.width == SCALE * int(ElementTree.fromstring(svg).attrib["width"])


async def test_without_pillow_it_is_the_svg(server: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    result = await called(server, mode, detail="picture")
    file = result.content[1]
    assert isinstance(file, EmbeddedResource) and isinstance(file.resource, TextResourceContents)
    assert file.resource.mime_type == "image/svg+xml" and file.annotations and file.annotations.audience == ["user"]
    assert file.resource.text == preflight_svg(preflight(parse_workload(dict(CACHE)), gpu="RTX 4090"))


async def test_other_tools_have_none(server: Any, mode: str) -> None:
    async with Client(server, mode=mode) as client:
        refused = await client.call_tool("estimate_memory", CACHE | {"detail": "picture"})
    assert refused.is_error and "detail" in cast(Any, refused.content[0]).text
