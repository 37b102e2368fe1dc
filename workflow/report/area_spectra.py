"""Figures of the decompositions of areas, of equally large parts, of partitions and of random subsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from workflow.pipeline import area_svd, matched_svd, partition_svd, shuffle
from workflow.report.figures import (
    COLORS,
    INK,
    Figure,
    Margins,
    drawing,
    inline_svg,
    legend_below,
    panels,
    plain_log_axis,
    thinned,
)
from workflow.report.groups import EPOCH, choose, computed, describe, styles
from workflow.report.text import count, number, printable

MOST_BANDS = 6

_NUMBERS = ("ROIs", "Time bins", "k90", "First component (%)")

Floats = NDArray[np.float64]
Done = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Curve:
    name: str
    n_rois: int
    n_frames: int
    k90: int
    variance: Floats  # fraction that each component explains


def area_svds(done: Done) -> Iterator[Figure]:
    """Draw the spectra of the areas of one epoch."""
    yield from _of_areas(area_svd.AreaSVD(), "area_svd_params", "Spectra by area", "area-svd", done)


def matched_area_svds(done: Done) -> Iterator[Figure]:
    """Draw the spectra of equally large parts of the areas of one epoch."""
    title = "Spectra by area, at equal size"
    yield from _of_areas(matched_svd.MatchedAreaSVD(), "matched_area_svd_params", title, "matched-svd", done)


def partition_svds(done: Done) -> Iterator[Figure]:
    """Draw the spectra of the partitions of one epoch."""
    table = partition_svd.PartitionSVD()
    rows = computed(table)
    if not rows:
        return
    [one, *_], why = choose(rows, done, table.primary_key, [*EPOCH, "partition_svd_params"])
    key = {name: one[name] for name in table.primary_key}
    parts = (partition_svd.PartitionSVD.Partition() & key & {"skip_reason": ""}).to_dicts(
        order_by="partition"
    )
    curves = [_curve(f"partition {row['partition']}", row) for row in parts]
    if curves:
        yield _spectra("Spectra of the partitions", one, "partition_svd_params", why, curves, "partition-svd")


def area_shuffles(done: Done) -> Iterator[Figure]:
    """Draw the range of the spectra of random subsets of each area, with that of the whole area."""
    table = shuffle.AreaShuffle()
    rows = computed(table)
    if not rows:
        return
    chosen, why = choose(rows, done, table.primary_key, [*EPOCH, "area_shuffle_params"])
    key = {name: chosen[0][name] for name in (*EPOCH, "area_shuffle_params")}
    params = (shuffle.AreaShuffleParams() & key).fetch1()
    bands = [(row, _subsets(row, table.primary_key), _whole(row, params)) for row in chosen[:MOST_BANDS]]
    columns = 2 if len(bands) == 4 else min(3, len(bands))
    lines = -(-len(bands) // columns)
    margins = Margins(left=0.8, bottom=0.75, between_rows=0.4)
    with drawing(height=1.9 * lines + 0.75, width=2.6 * columns + 1.0) as canvas:
        grid = panels(canvas, lines, columns, margins, sharey="all")
        for index in range(len(bands), grid.size):
            grid.flat[index].set_visible(False)
            grid.flat[index - columns].tick_params(labelbottom=True)
        for axes, (_, subsets, whole) in zip(grid.flat, bands, strict=False):
            _band(axes, subsets, whole)
        for axes, (row, *_) in zip(grid.flat, bands, strict=False):
            plain_log_axis(axes, "x")
            plain_log_axis(axes, "y")
            axes.set_title(printable(f"{row['brain_area']}: {params['subset_rois']} ROIs"), loc="left", pad=3)
        for axes in grid[-1]:
            axes.set_xlabel("component (counted from 1)")
        for axes in grid[:, 0]:
            axes.set_ylabel("variance explained (%)")
        legend_below(canvas, *grid.flat[0].get_legend_handles_labels())
        svg = inline_svg(canvas, "area-shuffle", "Spectra of random subsets by area: see the table")
    hidden = len(chosen) - len(bands)
    yield Figure(
        f"Spectra of random subsets: {describe(key)}, parameters {key['area_shuffle_params']}",
        f"The epoch is {why}. {count(int(params['n_shuffles']), 'subset')} of {params['subset_rois']} ROIs "
        "per area: median and the range from the 5th to the 95th percentile. The dashed line is the whole "
        f"area, where it was decomposed with the same preparation.{_not_drawn(hidden, 'area')}",
        svg,
        ("Area", "Usable ROIs", "Time bins", "k90 of the subsets: median", "5 %", "95 %"),
        tuple(_band_numbers(row, table.primary_key) for row, *_ in bands),
    )


def _of_areas(table: Any, params: str, title: str, name: str, done: Done) -> Iterator[Figure]:
    rows = computed(table, "k90")
    if not rows:
        return
    chosen, why = choose(rows, done, table.primary_key, [*EPOCH, params])
    chosen.sort(key=lambda row: -row["n_rois"])
    curves = []
    for row in chosen:
        key = {column: row[column] for column in table.primary_key}
        values = (table & key).fetch1("singular_values")
        curves.append(_curve(str(row["brain_area"]), {**row, "singular_values": values}))
    yield _spectra(title, chosen[0], params, why, curves, name)


def _spectra(
    title: str, one: Mapping[str, Any], params: str, why: str, curves: Sequence[_Curve], name: str
) -> Figure:
    style = styles(curve.name for curve in curves)
    with drawing(height=3.3, width=8.4) as canvas:
        margins = Margins(left=0.75, bottom=0.75, between_columns=0.85)
        [[left, right]] = panels(canvas, 1, 2, margins, sharey="none", sharex=False)
        for curve in curves:
            points = thinned(curve.variance.size)
            cumulative = 100 * np.cumsum(curve.variance)
            left.plot(points + 1, cumulative[points], label=printable(curve.name), **style[curve.name])
            left.plot([curve.k90], [cumulative[curve.k90 - 1]], "o", color=style[curve.name]["color"], ms=4.5)
            drawn = points[curve.variance[points] > 1e-12]
            right.plot(drawn + 1, 100 * curve.variance[drawn], **style[curve.name])
        left.axhline(90, color=COLORS[-1], linewidth=0.8, zorder=0)
        left.set_ylim(0, 103)
        left.set_ylabel("variance explained\nby the first components (%)")
        right.set_ylabel("variance explained\nby each component (%)")
        plain_log_axis(right, "y")
        for axes in (left, right):
            axes.set_xlabel("component (counted from 1)")
        plain_log_axis(right, "x")
        handles, labels = left.get_legend_handles_labels()
        legend_below(canvas, handles[:8], labels[:8])
        svg = inline_svg(canvas, name, f"{title}: see the table")
    return Figure(
        f"{title}: {describe(one)}, parameters {one[params]}",
        f"The epoch is {why}. Circles mark k90, the number of components that explain 90 % of the variance "
        "(grey line).",
        svg,
        ("", *_NUMBERS),
        tuple(
            (c.name, number(c.n_rois), number(c.n_frames), number(c.k90), f"{100 * c.variance[0]:.1f}")
            for c in curves
        ),
    )


def _curve(name: str, row: Mapping[str, Any]) -> _Curve:
    return _Curve(name, row["n_rois"], row["n_frames"], row["k90"], _variance(row["singular_values"]))


def _variance(singular_values: Any) -> Floats:
    squares: Floats = np.asarray(singular_values, dtype=np.float64) ** 2
    total = squares.sum()
    return squares / total if total > 0 else squares


def _subsets(row: Mapping[str, Any], primary: Sequence[str]) -> Floats:
    """Spectra of the subsets of an area, shape (n_shuffles, components)."""
    part = shuffle.AreaShuffle.Shuffle() & {name: row[name] for name in primary}
    return np.array([_variance(s) for s in part.to_arrays("singular_values", order_by="shuffle")])


def _whole(row: Mapping[str, Any], params: Mapping[str, Any]) -> Floats | None:
    """Spectrum of the whole area, if there is one with the same preparation."""
    same = {name: params[name] for name in ("activity", "recording", "time_bin", "threshold")}
    epoch = {name: row[name] for name in (*EPOCH, "brain_area")}
    found = area_svd.AreaSVD() & epoch & {"skip_reason": ""} & (area_svd.AreaSVDParams() & same)
    spectra = found.to_arrays("singular_values")
    return _variance(spectra[0]) if len(spectra) else None


def _band(axes: Axes, subsets: Floats, whole: Floats | None) -> None:
    points = thinned(subsets.shape[1])
    points = points[np.median(subsets[:, points], axis=0) > 1e-12]
    low, middle, high = 100 * np.percentile(subsets[:, points], [5, 50, 95], axis=0)
    axes.fill_between(points + 1, low, high, color=COLORS[0], alpha=0.3, linewidth=0, label="5 to 95 %")
    axes.plot(points + 1, middle, color=COLORS[0], label="median of the subsets")
    if whole is not None:
        drawn = thinned(whole.size)
        drawn = drawn[whole[drawn] > 1e-12]
        axes.plot(drawn + 1, 100 * whole[drawn], color=INK, linestyle="--", linewidth=0.9, label="whole area")


def _band_numbers(row: Mapping[str, Any], primary: Sequence[str]) -> tuple[str, ...]:
    part = shuffle.AreaShuffle.Shuffle() & {name: row[name] for name in primary}
    low, middle, high = np.percentile(part.to_arrays("k90"), [5, 50, 95])
    counts = (number(row["n_rois"]), number(row["n_frames"]))
    return (str(row["brain_area"]), *counts, f"{middle:.4g}", f"{low:.4g}", f"{high:.4g}")


def _not_drawn(hidden: int, what: str) -> str:
    return f" {count(hidden, f'more {what}')} not drawn." if hidden else ""
