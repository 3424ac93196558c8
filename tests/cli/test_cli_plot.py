"""`--plot`: the picture of an estimate and of a preflight, as a file."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from itertools import pairwise
from typing import get_args
from xml.etree import ElementTree

import pytest
from command_line import EXAMPLES, machine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compute_awareness.errors import InputError
from compute_awareness.estimator import estimate
from compute_awareness.mcp_server.app import page
from compute_awareness.memory.estimate import ComponentName
from compute_awareness.picture import OVERHEAD, PARTS, memory_svg, parts_of
from compute_awareness.picture_of import preflight_svg
from compute_awareness.picture_png import SCALE, png_of
from compute_awareness.preflight import preflight
from compute_awareness.units import GIB, gib
from compute_awareness.workload import parse_workload

SVG = "{http://www.w3.org/2000/svg}"
CACHE = str(EXAMPLES / "pythia_cache.json")
BAR_PIXELS = 712


def drawn(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def bar(root: ElementTree.Element) -> dict[str, float]:
    """Width in pixels of each part of the bar, by its own words; and that they stand side by side."""
    parts = [element for element in root.iter(f"{SVG}rect") if element.get("class") == "part"]
    for one, other in pairwise(parts):
        assert float(other.attrib["x"]) == pytest.approx(float(one.attrib["x"]) + float(one.attrib["width"]), abs=0.11)
    return {part.findtext(f"{SVG}title") or "": float(part.attrib["width"]) for part in parts}


def line_at(root: ElementTree.Element) -> float:
    (line,) = [element for element in root.iter(f"{SVG}line") if element.get("class") == "free"]
    return float(line.attrib["x1"]) - 24


def test_the_bar_and_the_line_are_to_scale(cli, report, tmp_path):
    path = tmp_path / "plan.svg"
    ran = cli("preflight", CACHE, "--compute", report(24), "--plot", str(path))
    assert ran.code == 1 and ran.out.rstrip().endswith(f"Picture: {path}")
    answer = cli("preflight", CACHE, "--compute", report(24), "--json").document
    needed = answer["verdict"]["needed_bytes"]
    root = drawn(path.read_text("utf-8"))
    shown = bar(root)
    expected = {c["name"]: c["bytes_at_peak"] for c in answer["estimate"]["components"] if c["bytes_at_peak"]}
    expected[OVERHEAD] = needed - sum(expected.values())
    assert list(shown) == [f"{name}: {gib(size)}" for name, size in expected.items()]
    for width, size in zip(shown.values(), expected.values(), strict=True):
        assert width == pytest.approx(size / needed * BAR_PIXELS, abs=0.11)
    assert line_at(root) == pytest.approx(24 * GIB / needed * BAR_PIXELS, abs=0.11)
    said = texts(root)
    assert "24.0 GiB free" in said and "activation_cache of pythia-2.8b, 4 x 1024 tokens, float32" in said
    for name, size in expected.items():
        assert said[said.index(name) + 1] == gib(size)
    # What the picture says is there for who does not see it.
    described = root.findtext(f"{SVG}desc") or ""
    assert root.get("role") == "img" and root.get("aria-labelledby") == "name what"
    assert all(f"{name} {gib(size)}" in described for name, size in expected.items()) and "DOES NOT FIT" in described


def test_what_others_use_of_the_card_is_hatched(cli, report, tmp_path):
    path = tmp_path / "plan.svg"
    # A card of 61 GiB, of which the driver keeps half a GiB and others have as much again.
    args = ("preflight", str(EXAMPLES / "gpt2_resid_cache.json"), "--compute", report(60), "--plot", str(path))
    assert cli(*args).code == 0
    root = drawn(path.read_text("utf-8"))
    said = texts(root)
    assert said[said.index("in use already") + 1] == "0.50 GiB"
    taken = next(element for element in root.iter(f"{SVG}rect") if element.get("class") == "taken")
    assert float(taken.attrib["width"]) == pytest.approx(0.5 / 60.5 * BAR_PIXELS, abs=0.11)
    assert line_at(root) == pytest.approx(float(taken.attrib["x"]) - 24)


def test_an_estimate_has_no_line(cli, tmp_path):
    path = tmp_path / "plan.svg"
    ran = cli("estimate", CACHE, "--plot", str(path), "--json")
    answer = json.loads(ran.out)  # one document and nothing else
    root = drawn(path.read_text("utf-8"))
    assert sum(bar(root).values()) == pytest.approx(BAR_PIXELS, abs=1)
    assert not [element for element in root.iter(f"{SVG}line") if element.get("class") == "free"]
    assert f"{gib(answer['peak']['device'])} needed on the device" in texts(root)


def test_the_picture_in_the_docs_is_what_the_command_draws(cli, tmp_path):
    """The picture of the README's session. UPDATE_SNAPSHOTS=1 draws it anew."""
    path = tmp_path / "plan.svg"
    cli("preflight", CACHE, "--gpu", "RTX 4090", "--plot", str(path))
    kept = EXAMPLES.parent / "docs" / "memory_plan.svg"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        kept.write_text(path.read_text("utf-8"), encoding="utf-8", newline="\n")
    assert kept.read_text("utf-8") == path.read_text("utf-8"), "run this test once with UPDATE_SNAPSHOTS=1"


@pytest.mark.parametrize("command", ["estimate", "preflight"])
def test_a_file_that_is_there_is_kept(cli, report, tmp_path, command):
    path = tmp_path / "plan.svg"
    path.write_text("mine", "utf-8")
    card = ("--compute", report(24)) if command == "preflight" else ()
    ran = cli(command, CACHE, *card, "--plot", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert f"{path} is there already and is kept; give another name to --plot" in ran.err
    assert path.read_text("utf-8") == "mine"


@pytest.mark.parametrize("name", ["plan.pdf", "plan", "plan.svg.gz"])
def test_other_formats_are_refused_before_any_work(cli, tmp_path, name):
    ran = cli("preflight", "no such file", "--plot", str(tmp_path / name))
    assert (ran.code, ran.out) == (2, "")
    assert "--plot" in ran.err and "in .svg or .png" in ran.err and "no such file" not in ran.err


def pixels(path):
    """Colour (red, green, blue) at a place of the SVG, by its own coordinates; and the size in those."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        opaque = picture.convert("RGB")
    return lambda x, y: opaque.getpixel((round(x * SCALE), round(y * SCALE))), (picture.width, picture.height)


def rgb(fill: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(fill.removeprefix("#")))


def test_a_png_has_the_parts_where_the_svg_has_them(cli, report, tmp_path):
    args = ("preflight", CACHE, "--compute", report(24), "--plot")
    assert cli(*args, str(tmp_path / "plan.svg")).code == 1
    ran = cli(*args, str(tmp_path / "plan.PNG"))
    assert ran.code == 1 and ran.out.rstrip().endswith(f"Picture: {tmp_path / 'plan.PNG'}")
    root = drawn((tmp_path / "plan.svg").read_text("utf-8"))
    at, size = pixels(tmp_path / "plan.PNG")
    assert size == (SCALE * int(root.attrib["width"]), SCALE * int(root.attrib["height"]))
    for part in (element for element in root.iter(f"{SVG}rect") if element.get("class") == "part"):
        left, wide = float(part.attrib["x"]), float(part.attrib["width"])
        if wide >= 4:
            for x in (left + 1.5, left + wide - 1.5):
                assert at(x, float(part.attrib["y"]) + 6) == rgb(part.attrib["fill"]), part.findtext(f"{SVG}title")
    line = line_at(root) + 24
    (free,) = [element for element in root.iter(f"{SVG}line") if element.get("class") == "free"]
    assert at(line, float(free.attrib["y1"]) + 2) == rgb("#cf222e")
    # Words are drawn: each line of text leaves ink on its row, on the side where it stands.
    words = list(root.iter(f"{SVG}text"))
    assert len(words) > 10
    for text in words:
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        kinds = text.attrib.get("class", "").split()
        start = x - 30 if "end" in kinds else x - 6 if "letter" in kinds else x
        seen = {at(start + step / SCALE, y - up / SCALE) for step in range(12 * SCALE) for up in range(10 * SCALE)}
        assert len(seen) > 2, text.text
    assert at(2, 2) == (255, 255, 255)


def test_a_png_shows_what_others_use(cli, report, tmp_path):
    args = ("preflight", str(EXAMPLES / "gpt2_resid_cache.json"), "--compute", report(60), "--plot")
    cli(*args, str(tmp_path / "plan.svg"))
    assert cli(*args, str(tmp_path / "plan.png")).code == 0
    root = drawn((tmp_path / "plan.svg").read_text("utf-8"))
    legend = [element for element in root.iter(f"{SVG}rect") if element.get("class") == "taken"][-1]
    left, top = float(legend.attrib["x"]), float(legend.attrib["y"])
    at, _ = pixels(tmp_path / "plan.png")
    row = [at(left + 2 + step / SCALE, top + 9) for step in range(14 * SCALE)]
    assert (255, 255, 255) in row and min(row) < (120, 120, 120), "the hatch has lines and gaps"


def test_a_png_without_pillow_names_the_extra(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    ran = cli("preflight", "no such file", "--plot", str(tmp_path / "plan.png"))
    assert (ran.code, ran.out) == (2, "") and "no such file" not in ran.err
    assert "pip install 'compute-awareness[plot]'" in ran.err and ".svg" in ran.err
    with pytest.raises(InputError, match="Pillow"):
        png_of("<svg/>")


@given(
    st.text(max_size=120), st.integers(0, 2**45), st.none() | st.integers(0, 2**45), st.none() | st.integers(0, 2**45)
)
@settings(max_examples=25, deadline=None)
def test_any_picture_can_be_a_png(title, needed, free, room):
    svg = memory_svg(FORWARD, title, needed=needed, where=title, free=free, room=room, words=title)
    with Image.open(io.BytesIO(png_of(svg, 1))) as picture:
        assert picture.width == int(drawn(svg).attrib["width"]) and len(picture.convert("RGB").getcolors(10**6)) > 8


def test_a_folder_that_is_not_there_is_one_line(cli, tmp_path):
    ran = cli("estimate", CACHE, "--plot", str(tmp_path / "none" / "plan.svg"))
    assert (ran.code, ran.out) == (2, "") and "cannot be written" in ran.err


def workload(**more):
    return parse_workload({"task": "inference", "model": "gpt2", "batch_size": 1, "seq_len": 64} | more)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_names_from_outside_are_text_and_nothing_else(title, where, words):
    hostile = "</text><script>alert(1)</script>&\"'\x00\x1b[31m\u202e\ud800"
    svg = memory_svg(FORWARD, hostile + title, needed=10**9, where=hostile + where, free=10**10, words=hostile + words)
    root = drawn(svg)
    assert "<script" not in svg and not [e for e in root.iter() if e.tag.endswith("script")]
    svg.encode("utf-8")


FORWARD = estimate(workload())


def test_a_hostile_model_name_is_shown_as_it_is(tmp_path):
    own = {"n_layers": 2, "d_model": 64, "n_heads": 2, "d_vocab": 100, "n_ctx": 64, "name": "<b>&\x07x"}
    answer = preflight(workload(model=own), compute=machine(24))
    assert any("<b>& x" in text for text in texts(drawn(preflight_svg(answer))))


def test_what_is_in_ram_is_said_and_not_stacked():
    moved = {"task": "activation_cache", "cache_device": "cpu", "seq_len": 512}
    answer = estimate(workload(**moved))
    in_ram = [c for c in answer.components if c.where == "host" and c.bytes]
    assert in_ram
    root = drawn(memory_svg(answer, "x", needed=answer.peak.device, where="the device"))
    assert any(f"In RAM beside it: {in_ram[0].name} {gib(in_ram[0].bytes)}" in text for text in texts(root))
    assert not any(shown.startswith(in_ram[0].name) for shown in bar(root))


def test_parts_add_up():
    parts = parts_of(FORWARD, FORWARD.peak.device)
    assert sum(size for _, size in parts) == FORWARD.peak.device and parts[-1][0] == OVERHEAD
    assert sum(size for _, size in parts_of(FORWARD, 0)) == FORWARD.peak.tensors


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_component_has_a_letter_and_a_colour_that_is_seen():
    assert list(PARTS) == [*get_args(ComponentName), OVERHEAD]
    letters, fills = zip(*PARTS.values(), strict=True)
    assert len(set(letters)) == len(set(fills)) == len(PARTS)
    for fill in fills:
        # WCAG 2.2: 3 for graphics on the page, light and dark; 4.5 for the letter on them.
        assert contrast(fill, "#ffffff") >= 3 and contrast(fill, "#0d1117") >= 3 and contrast(fill, "#000000") >= 4.5


def test_words_and_lines_are_seen_in_light_and_in_dark():
    """Of the app's page: words at 4.5 and lines at 3 against its ground, by WCAG 2.2."""
    ground, *others = re.findall(r"--(\w+): [^;]*light-dark\((#\w{6}), (#\w{6})\)", page())
    assert ground[0] == "page" and {"ink", "dim", "edge", "link", "limit", "good", "soft"} == {
        name for name, *_ in others
    }
    for name, light, dark in others:
        least = 3 if name == "edge" else 4.5
        assert contrast(light, ground[1]) >= least and contrast(dark, ground[2]) >= least, name
