"""Maps of the field of view: where the ROIs lie, and what they weigh."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from workflow.report.data import RoiMap
from workflow.report.figures import COLORS, WIDTH, Figure, Margins, drawing, inline_svg, panels
from workflow.report.text import count, printable

MOST_PLANES = 4
MOST_VECTORS = 800  # ROIs; above that, the dots of a panel are a picture
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLORMAP = "PuOr_r"  # safe for colour-blind people, symmetric about a light middle
_PANEL = "#e6e7e9"  # light on a dark page too, or the middle of the colour map would stand out
_EDGE = "#55565a"
_MARGINS = Margins(left=0.75, bottom=1.35, between_columns=0.15, between_rows=0.15)

Floats = NDArray[np.float64]


def roi_weights(epoch: str, variance: Floats, rois: RoiMap, name: str) -> Figure:
    """Draw the ROIs of an epoch, plane by plane: their areas, and their weights on the first components.

    Parameters
    ----------
    epoch : str
        Names the epoch.
    variance : ndarray
        Fractions of the variance explained by the components.
    rois : RoiMap
        Positions and weights.
    name : str
        Unique in the page.

    Returns
    -------
    Figure
        Without a drawing if no ROI has a centroid.
    """
    title = f"Where the components live: {epoch}"
    if not rois.plane:
        return Figure(title, "The ROIs of this epoch have no centroids in the database.")
    planes = sorted(plane for plane, _ in Counter(rois.plane).most_common(MOST_PLANES))
    n_columns = 1 + rois.weights.shape[1]
    x, y = _limits(rois.x), _limits(rois.y)
    side = (WIDTH - _MARGINS.left - _MARGINS.right - 3 * _MARGINS.between_columns) / 4
    row = side * float(np.clip((y[1] - y[0]) / (x[1] - x[0]), 0.3, 1.8)) + _MARGINS.between_rows
    width = _MARGINS.left + _MARGINS.right + n_columns * (side + _MARGINS.between_columns)
    with drawing(height=row * len(planes) + _MARGINS.top + _MARGINS.bottom, width=width) as canvas:
        grid = panels(canvas, len(planes), n_columns, _MARGINS, sharey="all")
        for axes in grid.flat:
            axes.set(xlim=x, ylim=y[::-1], aspect="equal")
        for axes in grid[-1]:
            axes.set_xlabel(f"x ({rois.unit})")
        for axes, plane in zip(grid[:, 0], planes, strict=True):
            axes.set_ylabel(f"{plane}\ny ({rois.unit})")
        grid[0, 0].set_title("brain areas", loc="left")
        handles = _areas(grid[:, 0], planes, rois)
        canvas.legend(handles=handles, loc="lower left", ncols=7, borderaxespad=0.2)
        for index in range(n_columns - 1):
            column = grid[:, 1 + index]
            column[0].set_title(f"component {index} ({100 * variance[index]:.1f} %)", loc="left")
            _weights(canvas, column, planes, rois, index)
        alt = (
            f"Maps of {count(len(rois.plane), 'ROI')} in {count(len(planes), 'plane')}, by area and by weight"
        )
        svg = inline_svg(canvas, name, alt)
    hidden = len(set(rois.plane)) - len(planes)
    more = f" {count(hidden, 'plane')} with fewer ROIs not drawn." if hidden else ""
    return Figure(
        title,
        "One mark per ROI at its centroid, y downwards as in the image. Colour is the ROI's weight on a "
        "component (its row of U): purple ROIs go against orange ones. The colours of each component end at "
        f"the 98th percentile of its weights.{more}",
        svg,
    )


def _limits(values: Floats) -> tuple[float, float]:
    least, most = float(values.min()), float(values.max())
    margin = 0.04 * (most - least) or 1.0
    return least - margin, most + margin


def _areas(column: NDArray[Any], planes: list[str], rois: RoiMap) -> list[Line2D]:
    """Mark the areas by colour and shape; give one handle per area that is drawn, for the legend."""
    ranked = [area for area, _ in Counter(area for area in rois.area if area).most_common(len(_MARKERS) - 1)]
    names = [*sorted(ranked), "other or none"]
    which = np.array([names.index(area) if area in ranked else len(names) - 1 for area in rois.area])
    colors = [*COLORS[: len(names) - 1], COLORS[-1]]
    drawn: set[int] = set()
    for axes, plane in zip(column, planes, strict=True):
        for index in np.unique(which[_in_plane(rois, plane)]):
            inside = _in_plane(rois, plane) & (which == index)
            _dots(axes, rois, inside, marker=_MARKERS[index], color=colors[index])
            drawn.add(int(index))
    style: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    return [
        Line2D([], [], marker=_MARKERS[index], color=colors[index], label=printable(names[index]), **style)
        for index in sorted(drawn)
    ]


def _weights(canvas: Canvas, column: NDArray[Any], planes: list[str], rois: RoiMap, index: int) -> None:
    """Colour the ROIs of every plane by one component, with one scale below them."""
    limit = float(np.percentile(np.abs(rois.weights[:, index]), 98)) or 1.0
    scale = ScalarMappable(Normalize(-limit, limit), _COLORMAP)
    for axes, plane in zip(column, planes, strict=True):
        axes.set_facecolor(_PANEL)
        inside = _in_plane(rois, plane)
        weights = rois.weights[inside, index]
        style = {"c": weights, "cmap": scale.get_cmap(), "norm": scale.norm}
        _dots(axes, rois, inside, edgecolors=_EDGE, **style)
    below = column[-1].get_position()
    height = float(canvas.get_size_inches()[1])
    place = (below.x0 + 0.1 * below.width, 0.72 / height, 0.8 * below.width, 0.1 / height)
    bar = canvas.colorbar(scale, cax=canvas.add_axes(place), orientation="horizontal", label="weight")
    bar.set_ticks([-limit, 0.0, limit], labels=[f"\N{MINUS SIGN}{limit:.2g}", "0", f"{limit:.2g}"])
    if bar.solids is not None:
        bar.solids.set_rasterized(True)


def _in_plane(rois: RoiMap, plane: str) -> NDArray[np.bool_]:
    return np.array([name == plane for name in rois.plane])


def _dots(axes: Axes, rois: RoiMap, inside: NDArray[np.bool_], **style: Any) -> None:
    size = float(np.clip(6000 / len(rois.plane), 3, 26))  # square points
    many = len(rois.plane) > MOST_VECTORS
    edge = 0.0 if many else 0.25
    axes.scatter(rois.x[inside], rois.y[inside], s=size, linewidths=edge, rasterized=many, **style)
