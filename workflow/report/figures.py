"""Drawing: Matplotlib figures as inline SVG that takes its colours from the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from workflow.report.text import escape

#: The palette of Okabe and Ito (2008), which colour-blind people can tell apart. On the page every one
#: is a CSS variable, so that it can be lighter where the page is dark.
PALETTE = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "grey": "#8a8a8b",
}
COLORS = tuple(PALETTE.values())
INK = "#1a1b1d"  # becomes the colour of the page's text
WIDTH = 9.6  # inches of 72 points; the page scales it

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "text.parse_math": False,  # a name from the database may hold a dollar sign
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.1,
    "path.simplify": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "workflow",
}


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes
    ----------
    title : str
        Its heading.
    caption : str
        What is shown, with units; plain text.
    svg : str
        The drawing, from `inline_svg`; empty where there is nothing to draw.
    columns, rows
        The numbers behind it, where a table of them helps; plain text.
    """

    title: str
    caption: str
    svg: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@contextmanager
def drawing(height: float, width: float = WIDTH) -> Iterator[Canvas]:
    """Give an empty canvas in the report's style, without touching Matplotlib's global state.

    Parameters
    ----------
    height, width : float
        In inches of 72 points.

    Yields
    ------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the characters that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = Canvas(figsize=(width, height), dpi=144)  # of what is drawn as a picture
        yield canvas


@dataclass(frozen=True)
class Margins:
    """Space around and between panels, in inches; plain numbers draw twice as fast as a layout engine."""

    left: float = 0.65
    right: float = 0.2
    top: float = 0.25
    bottom: float = 0.5
    between_columns: float = 0.2
    between_rows: float = 0.2


def panels(
    canvas: Canvas,
    rows: int,
    columns: int,
    margins: Margins,
    *,
    sharey: Literal["all", "row", "none"],
    sharex: bool = True,
) -> NDArray[Any]:
    """Divide a canvas into equal panels.

    Parameters
    ----------
    canvas : matplotlib.figure.Figure
        From `drawing`.
    rows, columns : int
        How many.
    margins : Margins
        Space for labels.
    sharey : {'all', 'row', 'none'}
        Which panels share their y axes.
    sharex : bool
        Whether all panels share their x axes.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (rows, columns)
    """
    width, height = canvas.get_size_inches()
    panel_width = (width - margins.left - margins.right - (columns - 1) * margins.between_columns) / columns
    panel_height = (height - margins.top - margins.bottom - (rows - 1) * margins.between_rows) / rows
    place = {
        "left": margins.left / width,
        "right": 1 - margins.right / width,
        "bottom": margins.bottom / height,
        "top": 1 - margins.top / height,
        "wspace": margins.between_columns / panel_width,
        "hspace": margins.between_rows / panel_height,
    }
    return canvas.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False, gridspec_kw=place)


def legend_below(canvas: Canvas, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Say below the panels what is what; the canvas grows by the lines that this takes beyond the first.

    Parameters
    ----------
    canvas : matplotlib.figure.Figure
        With the grid that `panels` made.
    handles, labels
        As Matplotlib's legends take them; at least one.
    """
    width, height = canvas.get_size_inches()
    entry = 0.6 + 0.08 * max(map(len, labels))  # in; at nine points, letters are that wide at most
    columns = max(1, min(len(labels), int(width // entry)))
    grown = height + 0.2 * (math.ceil(len(labels) / columns) - 1)
    canvas.set_size_inches(width, grown)
    for axes in canvas.axes:  # nothing moves but the lower edge
        x, y, wide, high = axes.get_position().bounds
        axes.set_position((x, 1 - (1 - y) * height / grown, wide, high * height / grown))
    canvas.legend(handles, labels, loc="lower center", ncols=columns)


def inline_svg(canvas: Canvas, name: str, alt: str) -> str:
    """Turn a canvas, inside `drawing`, into SVG for the middle of a page.

    Parameters
    ----------
    canvas : matplotlib.figure.Figure
        The drawing.
    name : str
        Unique in the page; every id in the drawing begins with it.
    alt : str
        What the drawing shows, for people who cannot see it.

    Returns
    -------
    str
        An ``svg`` element without metadata, style sheet or references to other places; the same drawing
        gives the same text.
    """
    buffer = io.StringIO()
    backend: Any = FigureCanvasSVG(canvas)  # print_figure() would draw everything twice
    backend.print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'\swidth="[\d.]+pt"|\sheight="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(INK, "currentColor")
    for color, value in PALETTE.items():
        svg = svg.replace(value, f"var(--{color})")
    # In lines of the page's text, so that the letters of every drawing are about as large as those.
    width = float(canvas.get_size_inches()[0])
    size = f'style="max-width: {6.9 * width:.1f}rem; min-width: {3.6 * width:.1f}rem"'
    return svg.replace("<svg", f'<svg class="plot" {size} role="img" aria-label="{escape(alt)}"', 1)


def plain_log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic with labels such as 0.01, 1 and 100."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high < 30 * low:  # powers of ten alone would be one label, or none
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())  # hundreds of small ticks take most of the time


def thinned(count: int, most: int = 150) -> NDArray[np.intp]:
    """Choose indices of ``count`` points for a logarithmic axis: dense at first, then ever sparser."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.geomspace(1, count, most).round().astype(np.intp)) - 1


def envelope(
    time: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]], most: int = 600
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Thin a long trace to the least and greatest value of each of ``most`` stretches.

    A line through them looks like the whole trace, and no peak is lost.
    """
    if values.size <= 2 * most:
        return time, values
    parts = np.array_split(np.arange(values.size), most)
    extremes = [sorted((part[values[part].argmin()], part[values[part].argmax()])) for part in parts]
    chosen = np.unique(np.concatenate(extremes))
    return time[chosen], values[chosen]
