"""How every figure looks: one style, one colour for each batch size, panels that stand alone.

A drawing is one panel or several in a grid. Each panel is a figure of its own, so that a page can
set panels side by side on a wide screen and below one another on a narrow one; the files hold the
whole grid. This room is the only one that imports matplotlib.
"""

from __future__ import annotations

import colorsys
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#dfe3e8", "#ffffff"
TIED, RECOMMENDED, LIMIT, ACCENT = "#e3efe6", "#12743c", "#b3400a", "#00708f"
# The same colours on a dark page; a page sets them as CSS variables (see `variable`).
DARK = {INK: "#e6edf3", MUTED: "#9aa4af", GRID: "#30363d", PAPER: "#14181d",
        TIED: "#1d3326", RECOMMENDED: "#4cc57f", LIMIT: "#ff9a5c", ACCENT: "#4fc0dd"}  # fmt: skip

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9.0, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": MUTED, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.major.size": 3.0,
    "ytick.major.size": 0.0, "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
    "text.parse_math": False,  # a metric's unit may be a currency
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "svg.fonttype": "path", "svg.hashsalt": "figures", "path.simplify_threshold": 0.5,
}  # fmt: skip
PANEL_INCHES = (4.6, 3.4)
SMALL_INCHES = (3.0, 2.35)
PNG_DPI = 200
GRAPHICS_CONTRAST, DARK_CONTRAST = 3.0, 4.5  # WCAG 2.1: 3 for graphics, 4.5 for text
GLYPH = re.compile(r'<path id="(?P<id>DejaVu[^"]*)"(?: d="[^"]*")? transform="[^"]*"/>\s*')


@dataclass(frozen=True)
class Drawing:
    """A figure before it is written.

    Attributes:
        name: of its files, without suffix.
        heading: what it shows, a few words.
        caption: its one finding, in numbers, and what the marks mean; also the text alternative.
        panels: one matplotlib figure each, all of a row equally high.
        columns: panels in a row on a wide page.
    """

    name: str
    heading: str
    caption: str
    panels: tuple[Figure, ...]
    columns: int = 2


def gathered(
    name: str, heading: str, caption: str, panels: Sequence[Figure | None]
) -> Drawing | None:
    """The panels that could be drawn as one drawing; None where none could."""
    drawn = tuple(p for p in panels if p is not None)
    return Drawing(name, heading, caption, drawn) if drawn else None


@dataclass(frozen=True)
class Picture:
    """A figure that has been written: its words, and its panels as SVG elements for a page.

    The panels name their letters' outlines, which stand once on a page: `glyphs`, by id.
    """

    name: str
    heading: str
    caption: str
    panels: tuple[str, ...]
    columns: int
    glyphs: Mapping[str, str]


def style() -> AbstractContextManager[None]:
    """The context in which every panel is drawn and written."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def batch_colour(batch_size: int) -> str:
    """The colour of a batch size: the same in every figure of every sweep.

    Plasma, its light end darkened (distinct to colour-blind readers), read at a logistic curve of
    log2(batch size), which spends most colours on 16 to 1,024.
    """
    at = 1 / (1 + math.exp(-(math.log2(batch_size) - 6.8) / 1.7))
    red, green, blue, _ = matplotlib.colormaps["plasma"](0.8 * at)
    return _readable(_hex(red, green, blue), PAPER, GRAPHICS_CONTRAST, -0.01)


def dark_colour(colour: str) -> str:
    """The colour's twin on a dark page: the style's own, or the same hue, light enough to see."""
    return DARK.get(colour) or _readable(colour, DARK[PAPER], DARK_CONTRAST, 0.01)


def _readable(colour: str, paper: str, least: float, step: float) -> str:
    """The colour made darker or lighter until its contrast with the paper suffices."""
    hue, light, saturation = colorsys.rgb_to_hls(*_parts(colour))
    while contrast(colour, paper) < least and 0 < light < 1:
        light += step
        colour = _hex(*colorsys.hls_to_rgb(hue, light, saturation))
    return colour


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1, relative luminance)."""
    low, high = sorted(_luminance(colour) + 0.05 for colour in (one, other))
    return high / low


def _luminance(colour: str) -> float:
    linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in _parts(colour))
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _parts(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _hex(*parts: float) -> str:
    return "#" + "".join(f"{round(255 * p):02x}" for p in parts)


def variable(colour: str) -> str:
    """The CSS variable that holds a colour of the figures on a page."""
    return f"--fig-{colour[1:]}"


def panel(
    title: str, x_label: str, *, inches: tuple[float, float] = PANEL_INCHES, right: float = 0.2
) -> tuple[Figure, Axes]:
    """Empty axes with the quantity of the y axis as title; `right` inches are kept for labels."""
    width, height = inches
    figure = Figure(figsize=inches)
    FigureCanvasAgg(figure)
    box = (0.56 / width, 0.52 / height, 1 - (0.56 + right) / width, 1 - 0.92 / height)
    axes = figure.add_axes(box)
    figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", weight="bold")
    axes.set_xlabel(x_label, labelpad=3)
    return figure, axes


def slug(text: str) -> str:
    """A name for files and links: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "workload"


def write(drawing: Drawing, folder: Path) -> Picture:
    """Write `<name>.png` and `<name>.svg` and return the panels for a page."""
    glyphs: dict[str, str] = {}
    with style():
        svgs = [_svg(f, f"{drawing.name}-{i}", glyphs) for i, f in enumerate(drawing.panels)]
        image = _grid([_pixels(figure) for figure in drawing.panels], drawing.columns)
    sizes = [figure.get_size_inches() * 72 for figure in drawing.panels]
    sheet = _sheet(svgs, sizes, drawing.columns, glyphs)
    replace_file(folder / f"{drawing.name}.svg", sheet.encode())
    replace_file(folder / f"{drawing.name}.png", _png(image))
    panels = tuple(_themed(svg) for svg in svgs)
    return Picture(drawing.name, drawing.heading, drawing.caption, panels, drawing.columns, glyphs)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _pixels(figure: Figure) -> np.ndarray:
    figure.set_dpi(PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    rows = []
    width = max(sum(i.shape[1] for i in images[k : k + columns]) for k in range(len(images)))
    for start in range(0, len(images), columns):
        row = np.concatenate(images[start : start + columns], axis=1)
        missing = width - row.shape[1]
        rows.append(np.pad(row, ((0, 0), (0, missing), (0, 0)), constant_values=255))
    return np.concatenate(rows, axis=0)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.fromarray(image).save(data, "PNG", dpi=(PNG_DPI, PNG_DPI), compress_level=1)
    return data.getvalue()


def _svg(figure: Figure, prefix: str, glyphs: dict[str, str]) -> str:
    """The figure as an SVG element, made small: its letters' outlines go to `glyphs`, ids that
    nothing refers to go away, the others become its own, coordinates are kept to 0.01 points."""
    text = StringIO()
    figure.savefig(
        text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    for outline in GLYPH.finditer(svg):
        glyphs[outline["id"]] = outline[0]
    svg = GLYPH.sub("", svg)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)(?!DejaVu)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'(?<= d=")[^"]*|(?<=translate\()[^)]*|(?<=<use )[^>]*', _rounded, svg)
    svg = re.sub(r'^<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _rounded(match: re.Match[str]) -> str:
    text = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", match[0])
    return text.replace(" \n", "\n")


def _sheet(
    svgs: Sequence[str], sizes: Sequence[np.ndarray], columns: int, glyphs: Mapping[str, str]
) -> str:
    """One SVG file with the panels in a grid."""
    placed, x, y, width = [], 0.0, 0.0, 0.0
    for i, (svg, (wide, high)) in enumerate(zip(svgs, sizes, strict=True)):
        if i and i % columns == 0:
            x, y = 0.0, y + high
        placed.append(svg.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" '
                                  f'width="{wide:g}" height="{high:g}" ', 1))  # fmt: skip
        x += wide
        width = max(width, x)
    height = y + sizes[-1][1]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}">\n'
        "<style>*{stroke-linejoin:round;stroke-linecap:butt}</style>\n"
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n'
        f"<defs>\n{''.join(glyphs.values())}</defs>\n" + "\n".join(placed) + "\n</svg>\n"
    )


def _themed(svg: str) -> str:
    """The SVG with its colours as variables of the page, the plain colour as their default."""
    svg = svg.replace("xlink:href", "href")
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({variable(m[0])},{m[0]})", svg)


def colours_of(svgs: Iterable[str]) -> set[str]:
    """The colours that themed panels name."""
    return {f"#{c}" for svg in svgs for c in re.findall(r"var\(--fig-([0-9a-f]{6}),", svg)}
