"""The picture of `--plot`: an answer as an SVG or a PNG."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .given import write_new


def picture_path(path: str | None) -> str | None:
    """The path of a picture to write, looked at before any work is done.

    Raises:
        InputError: it ends in neither `.svg` nor `.png`, or in `.png` where none can be drawn.
    """
    if path is None or _is_svg(path):
        return path
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"--plot {path}: a picture is an SVG or a PNG; give a name that ends in .svg or .png")
    from ..picture_png import png_missing

    if missing := png_missing():
        raise InputError(f"--plot {path}: {missing}; or give a name that ends in .svg, which needs nothing")
    return path


def write_picture(path: str, svg: str) -> None:
    """The picture as a new file, of the kind that its name says. Raises InputError as `write_new` does."""
    if _is_svg(path):
        write_new(path, svg, "--plot")
        return
    from ..picture_png import png_of

    write_new(path, png_of(svg), "--plot")


def _is_svg(path: str) -> bool:
    return Path(path).suffix.lower() == ".svg"
