"""Spectra: how much of the variance each component explains, epoch by epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from workflow.report.data import Decomposition
from workflow.report.figures import (
    COLORS,
    INK,
    Figure,
    Margins,
    drawing,
    inline_svg,
    panels,
    plain_log_axis,
    thinned,
)
from workflow.report.text import count, number, printable

MOST_PANELS = 4  # parameter sets side by side
MOST_ANIMALS = 6  # with a colour of their own

_STYLES = ("-", "--", ":", "-.")

Floats = NDArray[np.float64]


def spectra(shown: Sequence[Decomposition], variances: Sequence[Floats], n_all: int, name: str) -> Figure:
    """Draw how much variance each component explains, epoch by epoch.

    Parameters
    ----------
    shown : sequence of Decomposition
        What to draw.
    variances : sequence of ndarray
        Fractions of the variance explained, descending, one array per decomposition.
    n_all : int
        How many decompositions the database holds.
    name : str
        Unique in the page.

    Returns
    -------
    Figure
    """
    chosen = [
        params for params, _ in Counter(one.key["svd_params"] for one in shown).most_common(MOST_PANELS)
    ]
    colors, styles = _colors(shown), _line_styles(shown)
    handles = _legend(colors, styles)
    width = max(5.4, 2.25 * len(chosen) + 0.6)
    columns = int(width // 1.3)
    legend_height = 0.2 * math.ceil(len(handles) / columns) + 0.1
    margins = Margins(left=0.9, bottom=0.5 + legend_height)
    with drawing(height=4.9 + legend_height, width=width) as canvas:
        grid = panels(canvas, 2, len(chosen), margins, sharey="row")
        for (above, below), params in zip(grid.T, sorted(chosen), strict=True):
            above.set_title(printable(params), loc="left")
            for one, variance in zip(shown, variances, strict=True):
                if one.key["svd_params"] == params:
                    style = {
                        "color": colors[one.key["subject_id"]],
                        "linestyle": styles[one.key["session_epoch_type"]],
                    }
                    _spectrum(above, below, variance, one.k90, style)
            above.axhline(90, color=COLORS[-1], linewidth=0.8, zorder=0)
            above.set_ylim(0, 103)
            plain_log_axis(below, "x")
            plain_log_axis(below, "y")
            below.set_xlabel("component (counted from 1)")
        grid[0, 0].set_ylabel("variance explained\nby the first components (%)")
        grid[1, 0].set_ylabel("variance explained\nby each component (%)")
        canvas.legend(handles=handles, loc="lower center", ncols=columns)
        alt = f"Variance explained by the components of {count(len(shown), 'decomposition')}: see the table"
        svg = inline_svg(canvas, name, alt)
    of_all = (
        ""
        if len(shown) == n_all
        else f" of {number(n_all)} in the database, those of this round and the latest first"
    )
    hidden = len({one.key["svd_params"] for one in shown}) - len(chosen)
    more = f" {count(hidden, 'more parameter set')} not drawn." if hidden else ""
    return Figure(
        "How many components explain the activity",
        f"{count(len(shown), 'epoch and parameter set', 'epochs and parameter sets')}{of_all}; one panel per "
        "parameter set. Circles mark k90, the number of components that explain 90 % of the variance (grey "
        f"line).{more}",
        svg,
        (
            "Animal, session, epoch",
            "Parameters",
            "ROIs",
            "Time bins",
            "Bin (s)",
            "k90",
            "First component (%)",
        ),
        tuple(_numbers(one, variance) for one, variance in zip(shown, variances, strict=True)),
    )


def _spectrum(above: Axes, below: Axes, variance: Floats, k90: int, style: Mapping[str, Any]) -> None:
    cumulative = 100 * np.cumsum(variance)
    points = thinned(variance.size)
    above.plot(points + 1, cumulative[points], **style)
    above.plot([k90], [cumulative[k90 - 1]], "o", color=style["color"], markersize=4.5, zorder=3)
    drawn = points[variance[points] > 1e-12]
    below.plot(drawn + 1, 100 * variance[drawn], **style)


def _colors(shown: Sequence[Decomposition]) -> dict[int, str]:
    """Give a colour to each of the animals with most curves, and grey to the others."""
    ranked = [animal for animal, _ in Counter(one.key["subject_id"] for one in shown).most_common()]
    ranked = sorted(ranked[:MOST_ANIMALS]) + ranked[MOST_ANIMALS:]
    return {animal: COLORS[min(index, len(COLORS) - 1)] for index, animal in enumerate(ranked)}


def _line_styles(shown: Sequence[Decomposition]) -> dict[str, Any]:
    kinds = sorted({one.key["session_epoch_type"] for one in shown})
    return {kind: _STYLES[index % len(_STYLES)] for index, kind in enumerate(kinds)}


def _legend(colors: Mapping[int, str], styles: Mapping[str, Any]) -> list[Line2D]:
    named = [
        Line2D([], [], color=color, label=f"animal {animal}")
        for animal, color in list(colors.items())[:MOST_ANIMALS]
    ]
    others = [Line2D([], [], color=COLORS[-1], label="other animals")] if len(colors) > MOST_ANIMALS else []
    kinds = [
        Line2D([], [], color=INK, linestyle=style, label=printable(kind)) for kind, style in styles.items()
    ]
    return [*named, *others, *kinds]


def _numbers(one: Decomposition, variance: Floats) -> tuple[str, ...]:
    key = one.key
    epoch = (
        f"{key['subject_id']}, {key['session']}, {key['session_epoch_type']} {key['session_epoch_number']}"
    )
    first = f"{100 * variance[0]:.1f}"
    return (
        epoch,
        str(key["svd_params"]),
        number(one.n_rois),
        number(one.n_frames),
        f"{one.bin_width:.4g}",
        number(one.k90),
        first,
    )
