"""Maps of the field of view: where the ROIs lie, and what they weigh."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from workflow.report.data import RoiMap
from workflow.report.figures import COLORS, WIDTH, Figure, drawing, inline_svg
from workflow.report.text import count

MOST_PLANES = 4
MOST_VECTORS = 500  # ROIs of a plane; above that, the dots are one picture
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLORMAP = "PuOr_r"  # safe for colour-blind people, symmetric about a light middle
_PANEL = "#f2f2f2"  # light on a dark page too, or the middle of the colour map would stand out
_EDGE = "#55565a"

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
    n_maps = rois.weights.shape[1]
    with drawing(height=2.6 * len(planes) + 1.0, width=WIDTH if n_maps > 1 else 0.6 * WIDTH) as canvas:
        grid = canvas.subplots(len(planes), 1 + n_maps, sharex=True, sharey=True, squeeze=False)
        handles = _areas(grid[:, 0], planes, rois)
        for index in range(n_maps):
            drawn = _weights(grid[:, 1 + index], planes, rois, index)
            grid[0, 1 + index].set_title(f"component {index} ({100 * variance[index]:.1f} %)", loc="left")
            bar = canvas.colorbar(
                drawn, ax=grid[:, 1 + index], location="bottom", fraction=0.06, label="weight", extend="both"
            )
            if bar.solids is not None:
                bar.solids.set_rasterized(True)
        grid[0, 0].set_title("brain areas", loc="left")
        for axes, plane in zip(grid[:, 0], planes, strict=True):
            axes.set_ylabel(f"{plane}\ny ({rois.unit})")
        for axes in grid[-1]:
            axes.set_xlabel(f"x ({rois.unit})")
        grid[0, 0].invert_yaxis()
        canvas.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
        alt = (
            f"Maps of {count(len(rois.plane), 'ROI')} in {count(len(planes), 'plane')}, by area and by weight"
        )
        svg = inline_svg(canvas, name, alt)
    hidden = len(set(rois.plane)) - len(planes)
    more = f" {count(hidden, 'plane')} with fewer ROIs not drawn." if hidden else ""
    return Figure(
        title,
        "One mark per ROI at its centroid, y downwards as in the image. Colour is the ROI's weight on a "
        "component (its row of U); purple ROIs go against orange ones. The colours of each component end at "
        f"the 98th percentile of its weights.{more}",
        svg,
    )


def _areas(column: NDArray[Any], planes: list[str], rois: RoiMap) -> list[PathCollection]:
    """Mark the areas by colour and shape; give one handle per area for the legend."""
    ranked = [area for area, _ in Counter(area for area in rois.area if area).most_common()]
    named = sorted(ranked[: len(COLORS) - 1])
    handles: dict[str, PathCollection] = {}
    for axes, plane in zip(column, planes, strict=True):
        for index, area in enumerate([*named, "other or none"]):
            inside = [
                p == plane and (a == area or (index == len(named) and a not in named))
                for p, a in zip(rois.plane, rois.area, strict=True)
            ]
            if any(inside):
                handles[area] = _dots(
                    axes,
                    rois,
                    np.array(inside),
                    marker=_MARKERS[index],
                    color=COLORS[index if index < len(named) else -1],
                    label=area,
                )
    return list(handles.values())


def _weights(column: NDArray[Any], planes: list[str], rois: RoiMap, index: int) -> PathCollection:
    weights = rois.weights[:, index]
    limit = float(np.percentile(np.abs(weights), 98)) or 1.0
    for axes, plane in zip(column, planes, strict=True):
        inside = np.array([p == plane for p in rois.plane])
        dots = _dots(
            axes,
            rois,
            inside,
            c=weights[inside],
            cmap=_COLORMAP,
            norm=Normalize(-limit, limit),
            edgecolors=_EDGE,
            linewidths=0.25,
        )
    return dots


def _dots(axes: Axes, rois: RoiMap, inside: NDArray[np.bool_], **style: Any) -> PathCollection:
    n_dots = int(inside.sum())
    axes.set_facecolor(_PANEL)
    axes.set_aspect("equal")
    return axes.scatter(
        rois.x[inside],
        rois.y[inside],
        s=float(np.clip(6000 / max(1, len(rois.plane)), 3, 26)),
        rasterized=n_dots > MOST_VECTORS,
        **style,
    )
