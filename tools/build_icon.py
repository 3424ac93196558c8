"""Draws the icon's PNGs from the server's icon.svg: what fits stands beneath the line.

    python tools/build_icon.py        needs Pillow (extra `plot`)

One for the bundle (manifest.json names it) and one for the plugin's folder, which is installed without the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from compute_awareness.picture_png import png_of

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "server" / "compute_awareness" / "mcp_server" / "icon.svg"
DRAWN = (ROOT / "icon.png", ROOT / "plugin" / ".claude-plugin" / "icon.png")
PIXELS, SVG_PIXELS = 512, 32
"""Of the PNG, the least that the directories of plugins and bundles take; and of the SVG."""


def main() -> int:
    """Writes both."""
    png = png_of(SOURCE.read_text("utf-8"), PIXELS / SVG_PIXELS)
    for path in DRAWN:
        path.write_bytes(png)
        print(f"{path.relative_to(ROOT).as_posix()}: {len(png)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
