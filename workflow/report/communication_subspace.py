"""The figure of communication_subspace.CommunicationSubspace: prediction by rank and by lag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.pipeline import communication_subspace
from workflow.report.figures import COLORS, Figure, Margins, drawing, inline_svg, panels
from workflow.report.groups import EPOCH, MOST_NAMED, choose, computed, describe, styles
from workflow.report.text import number, printable

_PARAMS = "communication_subspace_params"

Floats = NDArray[np.float64]


def communication_subspaces(done: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Draw R² by rank, and by lag, for the pairs of areas of one epoch."""
    table = communication_subspace.CommunicationSubspace()
    rows = computed(table, "n_source", "n_target", "best_lag", "best_rank", "best_r2")
    if not rows:
        return
    chosen, why = choose(rows, done, table.primary_key, [*EPOCH, _PARAMS])
    chosen.sort(key=lambda row: -row["best_r2"])
    style = styles(map(_pair, chosen))
    with drawing(height=3.7, width=8.4) as canvas:
        margins = Margins(left=0.75, bottom=1.05, between_columns=0.35)
        [[left, right]] = panels(canvas, 1, 2, margins, sharey="all", sharex=False)
        for row in reversed(chosen):  # the best on top
            key = {name: row[name] for name in table.primary_key}
            by_rank, by_lag, lags = _r2(key, row)
            look = style[_pair(row)]
            left.plot(np.arange(by_rank.size), by_rank, label=printable(_pair(row)), **look)
            left.plot(
                [row["best_rank"]], [by_rank[row["best_rank"]]], "o", color=look["color"], markersize=4.5
            )
            right.plot(lags, by_lag, **look)
        for axes in (left, right):
            axes.axhline(0, color=COLORS[-1], linewidth=0.8, zorder=0)
        left.set(xlabel="rank", ylabel="R², cross-validated")
        right.set(xlabel="lag (s), positive = the source leads")
        handles, labels = left.get_legend_handles_labels()
        named = list(zip(handles, labels, strict=True))[::-1][:MOST_NAMED]
        canvas.legend(*zip(*named, strict=True), loc="lower center", ncols=3)
        svg = inline_svg(canvas, "communication-subspace", "R² by rank and by lag: see the table")
    yield Figure(
        f"How areas predict each other: {describe(chosen[0])}, parameters {chosen[0][_PARAMS]}",
        f"The epoch is {why}. One curve per ordered pair of areas, source → target; grey: pairs after the "
        f"best {MOST_NAMED}. Left: at the best lag; circles mark the smallest rank within one standard error "
        "of the best. Right: at that rank.",
        svg,
        ("Source → target", "ROIs", "Best rank", "Best lag (s)", "R²"),
        tuple(_numbers(row) for row in chosen),
    )


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['source_area']} → {row['target_area']}"


def _r2(key: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """R² by rank at the best lag, R² by lag at the best rank, and those lags in seconds."""
    part = communication_subspace.CommunicationSubspace.Lag() & key
    lags, seconds, r2 = part.to_arrays("lag_bins", "lag_time", "r2", order_by="lag_bins")
    values = np.array([np.asarray(of_lag, dtype=np.float64) for of_lag in r2])
    best = int(np.flatnonzero(lags == (row["best_lag"] or 0))[0])
    return values[best], values[:, row["best_rank"]], np.asarray(seconds, dtype=np.float64)


def _numbers(row: Mapping[str, Any]) -> tuple[str, ...]:
    lag = "–" if row["best_lag"] is None else f"{row['best_lag'] * row['bin_width']:.3g}"
    rois = f"{number(row['n_source'])} → {number(row['n_target'])}"
    return (_pair(row), rois, str(row["best_rank"]), lag, f"{row['best_r2']:.3f}")
