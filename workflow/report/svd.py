"""Figures of svd.PopulationSVD: spectra, temporal components and maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.report import data, maps
from workflow.report.data import Decomposition
from workflow.report.figures import COLORS, Figure, Margins, drawing, envelope, inline_svg, panels
from workflow.report.spectra import spectra
from workflow.report.text import count

MOST_CURVES = 40
N_COURSES = 6
N_MAPS = 3

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
    new = {data.identity(key) for key in done}
    ordered = sorted(
        every, key=lambda one: data.identity(one.key) not in new
    )  # stable: latest first in each half
    shown = sorted(ordered[:MOST_CURVES], key=lambda one: tuple(one.key.values()))
    variances = [_variances(data.singular_values(one.key)) for one in shown]
    yield spectra(shown, variances, len(every), f"{_LABEL}-spectra")
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
    candidates = [one for one in every if data.identity(one.key) in new]
    if candidates:
        largest = max(candidates, key=lambda one: (one.n_rois, one.n_frames))
        return largest, "the one with most ROIs of those computed in this round"
    return every[0], "the latest recording, since this round computed none"


def describe(one: Decomposition) -> str:
    """Name a decomposition on one line."""
    key = one.key
    return (
        f"animal {key['subject_id']}, session {key['session']} ({one.session_date}), "
        f"{key['session_epoch_type']} {key['session_epoch_number']}, parameters {key['svd_params']}"
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
    time = one.bin_width * np.arange(one.n_frames)
    title = f"Temporal components: {describe(one)}"
    if not len(courses):
        return Figure(title, "No component is stored for this epoch.")
    with drawing(height=0.8 * len(courses) + 0.75) as canvas:
        rows = panels(canvas, len(courses), 1, Margins(between_rows=0.3), sharey="all")[:, 0]
        for index, (axes, course) in enumerate(zip(rows, courses, strict=True)):
            axes.plot(*envelope(time, np.sqrt(float(course.size)) * course), color=COLORS[0], linewidth=0.8)
            axes.set_title(
                f"component {index}: {100 * variance[index]:.1f} % of the variance", loc="left", pad=2
            )
            axes.margins(x=0)
            if index < len(courses) - 1:
                axes.tick_params(bottom=False)
        rows[-1].set_xlabel("time in the epoch (s)")
        canvas.supylabel("amplitude (standard deviations)", x=0.005, ha="left", fontsize=9)
        alt = f"Time courses of the first {count(len(courses), 'component')} over {time[-1]:.0f} s"
        svg = inline_svg(canvas, f"{_LABEL}-components", alt)
    return Figure(
        title,
        f"The epoch is {why}: {count(one.n_rois, 'ROI')}, {count(one.n_frames, 'time bin')} of "
        f"{one.bin_width:.4g}\u00a0s. Components are numbered as in the database, 0 being the largest; each "
        "is drawn so that its largest deflection is positive.",
        svg,
    )


def _variances(singular_values: Floats) -> Floats:
    squares = singular_values**2
    total = squares.sum()
    return squares / total if total > 0 else squares
