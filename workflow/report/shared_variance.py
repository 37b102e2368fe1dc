"""The figure of shared_variance.SharedVariance: how reliable each shared component is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.pipeline import shared_variance
from workflow.report import data
from workflow.report.figures import (
    COLORS,
    Figure,
    Margins,
    drawing,
    inline_svg,
    legend_below,
    panels,
    plain_log_axis,
    thinned,
)
from workflow.report.groups import choose, computed, describe, more_sets, styles
from workflow.report.text import count, number, printable

MOST_CURVES = 30
_PARAMS = "shared_variance_params"


def shared_variances(done: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Draw the reliable variance of each component, epoch by epoch."""
    table = shared_variance.SharedVariance()
    names = ("n_first", "n_second", "n_components", "reliable_fraction")
    every = computed(table, *names)
    if not every:
        return
    rows, why = choose(every, done, table.primary_key, [_PARAMS])
    new = {data.identity(key) for key in done}
    keys = [{name: row[name] for name in table.primary_key} for row in rows]
    order = sorted(range(len(rows)), key=lambda i: data.identity(keys[i]) not in new)[:MOST_CURVES]
    shown = [rows[i] for i in sorted(order)]
    curves = [_reliable({name: row[name] for name in table.primary_key}) for row in shown]
    style = styles(row["subject_id"] for row in shown)
    with drawing(height=3.4, width=5.6) as canvas:
        [[axes]] = panels(canvas, 1, 1, Margins(left=0.7, bottom=0.75), sharey="none")
        for row, curve in zip(shown, curves, strict=True):
            points = thinned(curve.size)
            points = points[np.isfinite(curve[points])]
            label = printable(f"animal {row['subject_id']}")
            axes.plot(points + 1, 100 * curve[points], label=label, **style[row["subject_id"]])
        axes.axhline(0, color=COLORS[-1], linewidth=0.8, zorder=0)
        axes.set(xlabel="component (counted from 1)", ylabel="reliable variance (%)")
        plain_log_axis(axes, "x")
        legend = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        legend_below(canvas, list(legend.values())[:6], list(legend)[:6])
        svg = inline_svg(canvas, "shared-variance", "Reliable variance by component: see the table")
    of_all = "" if len(shown) == len(rows) else f" of {number(len(rows))} in the database"
    yield Figure(
        f"How much of the variance is shared: parameters {rows[0][_PARAMS]}",
        f"{count(len(shown), 'epoch')}{of_all} with these parameters; the set is {why}."
        f"{more_sets(every, [_PARAMS])} For each shared component, found in the training blocks, the "
        "part of its variance in the test blocks that both halves of the population have in common. Around 0 "
        "(grey line), nothing is shared.",
        svg,
        (
            "Epoch", "ROIs of the halves", "Time bins", "Components", "Above half the first",
            "Shared of all variance (%)",
        ),
        tuple(_numbers(row, curve) for row, curve in zip(shown, curves, strict=True)),
    )  # fmt: skip


def _reliable(key: Mapping[str, Any]) -> NDArray[np.float64]:
    part = shared_variance.SharedVariance.Component() & key
    return np.asarray(part.to_arrays("reliable", order_by="component"), dtype=np.float64)


def _numbers(row: Mapping[str, Any], curve: NDArray[np.float64]) -> tuple[str, ...]:
    fraction = row["reliable_fraction"]
    return (
        describe(row),
        f"{number(row['n_first'])} + {number(row['n_second'])}",
        number(row["n_frames"]),
        number(row["n_components"]),
        number(int(np.count_nonzero(curve > 0.5 * curve[0]))) if curve.size and curve[0] > 0 else "–",
        "–" if fraction is None else f"{100 * fraction:.1f}",
    )
