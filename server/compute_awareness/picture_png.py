"""The memory plan as a PNG, for what shows no SVG: drawn with Pillow, an optional extra, from the SVG itself.

Only the SVG that `picture.py` writes is understood: its elements, its style sheet without the dark part, and its hatch.
The letters are those of Pillow's own font, so that the picture is the same on a machine without any.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from .errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SCALE = 2
"""Pixels of the PNG for one of the SVG, as on a screen of 192 dots per inch."""
_FINER = 2
_SVG = "{http://www.w3.org/2000/svg}"
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_ANCHOR = {"start": "ls", "middle": "ms", "end": "rs"}
_HATCH = 6

Style = dict[str, str]


def png_missing() -> str:
    """Why no PNG can be drawn here, with how to mend it; empty where one can."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        return "a PNG is drawn with Pillow, which is not installed: python -m pip install 'compute-awareness[plot]'"
    return ""


def png_of(svg: str, scale: float = SCALE) -> bytes:
    """The PNG of a picture by `picture.memory_svg`, `scale` pixels for each of its own.

    Raises:
        InputError: Pillow is not installed.
    """
    if missing := png_missing():
        raise InputError(missing)
    from PIL import Image, ImageDraw

    root = ElementTree.fromstring(svg)
    rules = _rules(root.findtext(f"{_SVG}style") or "")
    fine = scale * _FINER
    size = round(float(root.attrib["width"]) * fine), round(float(root.attrib["height"]) * fine)
    image = Image.new("RGBA", size)
    draw = ImageDraw.Draw(image)
    for element in root:
        _draw(element, _style(element, rules), rules, image, draw, fine)
    image = image.reduce(_FINER)
    if image.getchannel("A").getextrema() == (255, 255):
        # A palette keeps flat colours as they are and takes a quarter of the bytes.
        image = image.convert("RGB").quantize(256)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _rules(css: str) -> dict[str, Style]:
    """Selector -> properties, of a style sheet up to its first `@media`."""
    found: dict[str, Style] = {}
    for group, body in _RULE.findall(css.split("@media")[0]):
        pairs = [pair.partition(":") for pair in body.split(";") if ":" in pair]
        style = {name.strip(): value.strip() for name, _, value in pairs}
        found |= {selector.strip(): style for selector in group.split(",")}
    return found


def _style(element: ElementTree.Element, rules: dict[str, Style]) -> Style:
    """What holds for an element: its own attributes, those of its kind, and over them those of its classes."""
    found = dict(element.attrib) | rules.get(element.tag.removeprefix(_SVG), {})
    # Of two classes the later rule holds, as in a browser.
    named = {f".{name}" for name in element.get("class", "").split()}
    for selector, rule in rules.items():
        if selector in named:
            found |= rule
    return found


def _draw(
    element: ElementTree.Element,
    style: Style,
    rules: dict[str, Style],
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    scale: float,
) -> None:
    def at(name: str) -> float:
        return float(style.get(name, 0)) * scale

    stroke = style.get("stroke")
    width = max(1, round(float(style.get("stroke-width", 1)) * scale))
    if element.tag == f"{_SVG}rect":
        box = (at("x"), at("y"), at("x") + at("width") - 1, at("y") + at("height") - 1)
        if box[2] < box[0]:
            return
        fill = style.get("fill", "#000000")
        if fill.startswith("url("):
            _hatch(box, rules[".hatch"]["stroke"], image, scale)
            fill = "none"
        draw.rounded_rectangle(
            box, at("rx"), fill=None if fill == "none" else fill, outline=stroke, width=width if stroke else 0
        )
    elif element.tag == f"{_SVG}line" and stroke:
        _dashed(draw, (at("x1"), at("y1")), (at("x2"), at("y2")), stroke, width, style.get("stroke-dasharray"), scale)
    elif element.tag == f"{_SVG}text" and element.text:
        size = float((re.search(r"([\d.]+)px", style.get("font-size") or style.get("font", "")) or [0, 14])[1])
        draw.text(
            (at("x"), at("y")), element.text, style["fill"], _font(size * scale),
            anchor=_ANCHOR[style.get("text-anchor", "start")],
        )  # fmt: skip


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _dashed(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    width: int,
    dashes: str | None,
    scale: float,
) -> None:
    """A line, in pieces where it has `stroke-dasharray`: on, off."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1])) or 1
    on, off = (float(one) * scale for one in dashes.split()) if dashes else (length, 0.0)
    so_far = 0.0
    while so_far < length:
        ends = [
            tuple(a + (b - a) * min(along, length) / length for a, b in zip(start, end, strict=True))
            for along in (so_far, so_far + on)
        ]
        draw.line([*ends[0], *ends[1]], fill=colour, width=width)
        so_far += on + off


def _hatch(box: tuple[float, float, float, float], colour: str, image: Image.Image, scale: float) -> None:
    """Slanting lines within a rectangle."""
    from PIL import Image, ImageDraw

    width, height = round(box[2] - box[0]) + 1, round(box[3] - box[1]) + 1
    tile = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(tile)
    apart = round(_HATCH * 2**0.5 * scale)
    for left in range(-height, width, apart):
        draw.line([left, height, left + height, 0], fill=colour, width=round(scale))
    image.alpha_composite(tile, (round(box[0]), round(box[1])))
