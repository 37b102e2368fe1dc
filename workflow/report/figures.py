"""Drawing: Matplotlib figures as inline SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, NullFormatter
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
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(canvas)
        yield canvas


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
    canvas.savefig(buffer, format="svg", dpi=144, metadata={"Date": None})
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
    return svg.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(alt)}"', 1)


def plain_log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic with labels such as 0.01, 1 and 100."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def thinned(count: int, most: int = 150) -> NDArray[np.intp]:
    """Choose indices of ``count`` points for a logarithmic axis: dense at first, then ever sparser."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.geomspace(1, count, most).round().astype(np.intp)) - 1


def envelope(
    time: NDArray[np.float64], values: NDArray[np.float64], most: int = 600
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thin a long trace to the least and greatest value of each of ``most`` stretches.

    A line through them looks like the whole trace, and no peak is lost.
    """
    if values.size <= 2 * most:
        return time, values
    parts = np.array_split(np.arange(values.size), most)
    extremes = [sorted((part[values[part].argmin()], part[values[part].argmax()])) for part in parts]
    chosen = np.unique(np.concatenate(extremes))
    return time[chosen], values[chosen]
