"""The picture of a preflight as content of its result, for hosts that show no Apps; only where it was asked for."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from mcp.types import Annotations, EmbeddedResource, ImageContent, TextResourceContents

if TYPE_CHECKING:
    from ..preflight import Preflight

URI = "compute://memory-plan.svg"
"""Names the SVG within the result; it is nothing that can be read later."""


def picture_of(result: Preflight) -> ImageContent | EmbeddedResource:
    """For the user: a PNG where one can be drawn (extra `plot`), which hosts show; else the SVG as an embedded file."""
    from ..picture_of import preflight_svg
    from ..picture_png import png_missing, png_of

    svg = preflight_svg(result)
    shown_to = Annotations(audience=["user"])
    if png_missing():
        file = TextResourceContents(uri=URI, mime_type="image/svg+xml", text=svg)
        return EmbeddedResource(resource=file, annotations=shown_to)
    data = base64.b64encode(png_of(svg)).decode()
    return ImageContent(data=data, mime_type="image/png", annotations=shown_to)
