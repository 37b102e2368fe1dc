"""Figures of timescale.ComponentTimescale and timescale.AreaComponentTimescale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from workflow.pipeline import timescale
from workflow.report.figures import COLORS, INK, Figure, Margins, drawing, inline_svg, panels, plain_log_axis
from workflow.report.text import number, printable

FIRST = 10  # components of each key; later ones are mostly noise
MOST_PANELS = 4

_ESTIMATES = (("tau_e1", "first below 1/e"), ("tau_fit", "exponential fit"))

Done = Sequence[Mapping[str, Any]]
Floats = NDArray[np.float64]


def component_timescales(done: Done) -> Iterator[Figure]:
    """Draw the distribution of the timescales of whole fields of view."""
    yield from _distributions(timescale.ComponentTimescale, "svd_params", "timescale")


def area_component_timescales(done: Done) -> Iterator[Figure]:
    """Draw the distribution of the timescales of areas."""
    yield from _distributions(timescale.AreaComponentTimescale, "area_svd_params", "area-timescale")


def _distributions(table: Any, params: str, name: str) -> Iterator[Figure]:
    part = table.Component() & f"component < {FIRST}" & {"unusable": ""}
    names = [params, "timescale_params", "tau_e1", "censored_e1", "tau_fit"]
    columns = dict(zip(names, part.to_arrays(*names), strict=True))
    of_each = np.array(
        [f"{one}, {lags}" for one, lags in zip(columns[params], columns[names[1]], strict=True)]
    )
    sets = sorted(set(of_each.tolist()))
    if not sets:
        return
    shown = sets[:MOST_PANELS]
    found = {one: _of(columns, of_each == one) for one in shown}
    finite = np.concatenate([tau for taus in found.values() for tau in taus[:2]])
    bins = (
        np.geomspace(finite.min() * 0.999, finite.max() * 1.001, 32) if finite.size else np.array([1.0, 2.0])
    )
    width = max(4.6, 2.25 * len(shown) + 0.8)
    with drawing(height=4.05, width=width) as canvas:
        margins = Margins(left=0.75, top=0.4, bottom=0.55, between_rows=0.3)
        grid = panels(canvas, len(_ESTIMATES), len(shown), margins, sharey="row")
        for column, one in zip(grid.T, shown, strict=True):
            column[0].set_title(printable(one).replace(", ", ",\n"), loc="left")
            for axes, tau, color, none in zip(column, found[one][:2], COLORS, found[one][2:], strict=False):
                _histogram(axes, tau, bins, color, none)
            column[-1].set_xlabel("timescale (s)")
        for axes, (_, label) in zip(grid[:, 0], _ESTIMATES, strict=True):
            axes.set_ylabel(f"components\n{label}")
        svg = inline_svg(canvas, name, "Histograms of timescales: see the table")
    more = (
        f" {number(len(sets) - len(shown))} more parameter sets not drawn." if len(sets) > len(shown) else ""
    )
    yield Figure(
        "How fast the components change",
        f"The first {FIRST} components of every key in the database, by the parameters of the decomposition "
        "and of the lags. "
        "Above: where the autocorrelation first falls below 1/e; where it never does within the lags, the "
        "timescale is censored, that is, longer than could be seen. Below: the fit, which white noise does "
        "not shorten; there is none where nothing decays, or more slowly than twice the lags. Black lines: "
        "the median of those that have a timescale, too short where many have none because it is long."
        f"{more}",
        svg,
        ("Parameters", "Components", "Median of 1/e (s)", "Censored", "Median of the fit (s)", "No fit"),
        tuple(_numbers(one, *found[one]) for one in shown),
    )


def _of(columns: Mapping[str, Any], chosen: NDArray[np.bool_]) -> tuple[Floats, Floats, int, int]:
    """Timescales by either estimate, and how many components have none."""
    e1, fit = (np.asarray(columns[name][chosen], dtype=np.float64) for name in ("tau_e1", "tau_fit"))
    censored = int(np.asarray(columns["censored_e1"][chosen], dtype=bool).sum())
    return (
        e1[np.isfinite(e1) & (e1 > 0)],
        fit[np.isfinite(fit) & (fit > 0)],
        censored,
        int(np.isnan(fit).sum()),
    )


def _histogram(axes: Axes, tau: Floats, bins: Floats, color: str, none: int) -> None:
    axes.hist(tau, bins=bins.tolist(), color=color)
    axes.margins(y=0.3)  # room for the words, which the line must not cross
    if tau.size:
        axes.axvline(float(np.median(tau)), ymax=0.8, color=INK, linewidth=1.2)
    plain_log_axis(axes, "x")
    is_fit = color == COLORS[1]
    axes.text(
        0.98, 0.95, f"{number(none)} {'without fit' if is_fit else 'censored'}", ha="right", va="top",
        transform=axes.transAxes,
    )  # fmt: skip


def _numbers(name: str, e1: Floats, fit: Floats, censored: int, no_fit: int) -> tuple[str, ...]:
    def middle(tau: Floats) -> str:
        return f"{np.median(tau):.3g}" if tau.size else "–"

    total = fit.size + no_fit
    return (name, number(total), middle(e1), number(censored), middle(fit), number(no_fit))
