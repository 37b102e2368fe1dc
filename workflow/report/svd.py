"""Figures of svd.PopulationSVD: spectra, temporal components and maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from workflow.report import data, maps
from workflow.report.data import Decomposition
from workflow.report.figures import (
    COLORS,
    INK,
    Figure,
    drawing,
    envelope,
    inline_svg,
    plain_log_axis,
    thinned,
)
from workflow.report.text import count, number

MOST_CURVES = 40
MOST_PANELS = 4  # parameter sets side by side
MOST_ANIMALS = 6  # with a colour of their own
N_COURSES = 6
N_MAPS = 3

_STYLES = ("-", "--", ":", "-.")
_LABEL = "svd-population"

Floats = NDArray[np.float64]


def population_svd(done: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Draw the decompositions of the database, those of this round first.

    Parameters
    ----------
    done : sequence of dict
        Primary keys that this round computed.

    Yields
    ------
    Figure
        Spectra of many epochs; temporal components and map of one of them.
    """
    every = data.decompositions()
    if not every:
        return
    new = {_identity(key) for key in done}
    ordered = sorted(
        every, key=lambda one: _identity(one.key) not in new
    )  # stable: latest first in each half
    shown = ordered[:MOST_CURVES]
    variances = [_variances(data.singular_values(one.key)) for one in shown]
    yield spectra(shown, variances, n_all=len(every))
    one, why = choose(every, new)
    known = next((v for d, v in zip(shown, variances, strict=True) if d is one), None)
    variance = _variances(data.singular_values(one.key)) if known is None else known
    yield components(one, why, variance, data.time_courses(one.key, N_COURSES))
    yield maps.roi_weights(describe(one), variance, data.roi_map(one.key, N_MAPS), f"{_LABEL}-map")


def choose(every: Sequence[Decomposition], new: set[tuple[str, ...]]) -> tuple[Decomposition, str]:
    """Choose the epoch to show in detail, and say why.

    Parameters
    ----------
    every : sequence of Decomposition
        The latest recording first; not empty.
    new : set
        Identities of the keys that this round computed.

    Returns
    -------
    Decomposition
        Of those that this round computed, the one with most ROIs, then most time bins; if there is none,
        the latest recording.
    str
        Why.
    """
    candidates = [one for one in every if _identity(one.key) in new]
    if candidates:
        largest = max(candidates, key=lambda one: (one.n_rois, one.n_frames))
        return largest, "of the epochs computed in this round, the one with most ROIs"
    return every[0], "the latest recording, since this round computed none"


def describe(one: Decomposition) -> str:
    """Name a decomposition on one line."""
    key = one.key
    return (
        f"animal {key['subject_id']}, session {key['session']} ({one.session_date}), "
        f"{key['session_epoch_type']} {key['session_epoch_number']}, parameters {key['svd_params']}"
    )


def spectra(shown: Sequence[Decomposition], variances: Sequence[Floats], n_all: int) -> Figure:
    """Draw how much variance each component explains, epoch by epoch.

    Parameters
    ----------
    shown : sequence of Decomposition
        What to draw.
    variances : sequence of ndarray
        Fractions of the variance explained, descending, one array per decomposition.
    n_all : int
        How many decompositions the database holds.

    Returns
    -------
    Figure
    """
    panels = [name for name, _ in Counter(one.key["svd_params"] for one in shown).most_common(MOST_PANELS)]
    colors, styles = _colors(shown), _line_styles(shown)
    with drawing(height=5.6, width=max(5.4, 2.4 * len(panels) + 0.6)) as canvas:
        grid = canvas.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for (above, below), name in zip(grid.T, sorted(panels), strict=True):
            above.set_title(name, loc="left")
            for one, variance in zip(shown, variances, strict=True):
                if one.key["svd_params"] == name:
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
        canvas.legend(handles=_legend(colors, styles), loc="outside lower center", ncols=4)
        alt = f"Variance explained by the components of {count(len(shown), 'decomposition')}; numbers in the table below"
        svg = inline_svg(canvas, f"{_LABEL}-spectra", alt)
    of_all = (
        ""
        if len(shown) == n_all
        else f" of {number(n_all)} in the database, those of this round and the latest first"
    )
    hidden = len({one.key["svd_params"] for one in shown}) - len(panels)
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


def components(one: Decomposition, why: str, variance: Floats, courses: Floats) -> Figure:
    """Draw the first temporal components of one epoch.

    Parameters
    ----------
    one : Decomposition
        The epoch.
    why : str
        Why this one.
    variance : ndarray
        Fractions of the variance explained.
    courses : ndarray, shape (k, T)
        Rows of Vᵀ, of unit norm.

    Returns
    -------
    Figure
    """
    time = np.arange(one.n_frames) * one.bin_width
    title = f"Temporal components: {describe(one)}"
    if not len(courses):
        return Figure(title, "No component is stored for this epoch.")
    with drawing(height=0.85 * len(courses) + 0.5) as canvas:
        rows = canvas.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0]
        for index, (axes, course) in enumerate(zip(rows, courses, strict=True)):
            axes.plot(*envelope(time, course * np.sqrt(course.size)), color=COLORS[0], linewidth=0.8)
            axes.set_title(
                f"component {index}: {100 * variance[index]:.1f} % of the variance", loc="left", pad=2
            )
            axes.margins(x=0)
            if index < len(courses) - 1:
                axes.tick_params(bottom=False)
        rows[-1].set_xlabel("time in the epoch (s)")
        canvas.supylabel("amplitude (standard deviations)", fontsize=9)
        alt = f"Time courses of the first {count(len(courses), 'component')} over {time[-1]:.0f} s"
        svg = inline_svg(canvas, f"{_LABEL}-components", alt)
    return Figure(
        title,
        f"The epoch is {why}: {count(one.n_rois, 'ROI')}, {count(one.n_frames, 'time bin')} of "
        f"{one.bin_width:.4g} s. Components are numbered as in the database, 0 being the largest; each is "
        "drawn so that its largest deflection is positive.",
        svg,
    )


def _identity(key: Mapping[str, Any]) -> tuple[str, ...]:
    """Equal for a key of the database and the same key read from JSON."""
    return tuple(f"{name}={key[name]}" for name in sorted(key))


def _variances(singular_values: Floats) -> Floats:
    squares = singular_values**2
    total = squares.sum()
    return squares / total if total > 0 else squares


def _spectrum(above: Axes, below: Axes, variance: Floats, k90: int, style: Mapping[str, Any]) -> None:
    cumulative = 100 * np.cumsum(variance)
    points = thinned(variance.size)
    above.plot(points + 1, cumulative[points], **style)
    above.plot([k90], [cumulative[k90 - 1]], "o", color=style["color"], markersize=4.5, zorder=3)
    drawn = points[variance[points] > 1e-12]
    below.plot(drawn + 1, 100 * variance[drawn], **style)


def _colors(shown: Sequence[Decomposition]) -> dict[int, str]:
    """A colour for each of the animals with most curves; grey for the others."""
    ranked = [animal for animal, _ in Counter(one.key["subject_id"] for one in shown).most_common()]
    ranked = sorted(ranked[:MOST_ANIMALS]) + ranked[MOST_ANIMALS:]
    return {animal: COLORS[min(index, len(COLORS) - 1)] for index, animal in enumerate(ranked)}


def _line_styles(shown: Sequence[Decomposition]) -> dict[str, str]:
    kinds = sorted({one.key["session_epoch_type"] for one in shown})
    return {kind: _STYLES[index % len(_STYLES)] for index, kind in enumerate(kinds)}


def _legend(colors: Mapping[int, str], styles: Mapping[str, str]) -> list[Line2D]:
    named = [
        Line2D([], [], color=color, label=f"animal {animal}")
        for animal, color in list(colors.items())[:MOST_ANIMALS]
    ]
    others = [Line2D([], [], color=COLORS[-1], label="other animals")] if len(colors) > MOST_ANIMALS else []
    kinds = [Line2D([], [], color=INK, linestyle=style, label=kind) for kind, style in styles.items()]
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
