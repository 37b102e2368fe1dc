"""Figures of lds.LDS and lds.AreaLDS: eigenvalues in the complex plane, and their time constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow.pipeline import lds
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
)
from workflow.report.groups import choose, computed, more_sets, styles
from workflow.report.text import count, number, printable

MOST_VECTORS = 3000  # eigenvalues; above that, they are a picture
_MARKERS = ("o", "s", "^", "D", "v", "P")

Done = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Kind:
    """One of the two tables: the parameters of what it starts from, and by what its results are coloured."""

    table: Any
    params: str
    group: str
    label: str
    heading: str
    name: str


def systems(done: Done) -> Iterator[Figure]:
    """Draw the systems of whole fields of view."""
    yield from _eigenvalues(_Kind(lds.LDS(), "svd_params", "subject_id", "animal {}", "Animal", "lds"), done)


def area_systems(done: Done) -> Iterator[Figure]:
    """Draw the systems of areas."""
    kind = _Kind(lds.AreaLDS(), "area_svd_params", "brain_area", "{}", "Area", "area-lds")
    yield from _eigenvalues(kind, done)


def _eigenvalues(kind: _Kind, done: Done) -> Iterator[Figure]:
    table, group, label = kind.table, kind.group, kind.label
    every = computed(table)
    if not every:
        return
    # Eigenvalues are per time bin, and models differ in size: one set of parameters at a time.
    by = [kind.params, "lds_params"]
    chosen, why = choose(every, done, table.primary_key, by)
    params = {column: chosen[0][column] for column in by}
    rows = (table.Eigenvalue & params).to_dicts(order_by="KEY")
    names = [value for value, _ in Counter(row[group] for row in rows).most_common()]
    style = styles(names)
    with drawing(height=3.9, width=8.4) as canvas:
        margins = Margins(left=0.75, bottom=0.75, between_columns=0.85)
        [[plane, decays]] = panels(canvas, 1, 2, margins, sharey="none", sharex=False)
        circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        plane.plot(circle.real, circle.imag, color=INK, linewidth=0.8)
        plane.axhline(0, color=COLORS[-1], linewidth=0.5, zorder=0)
        plane.axvline(0, color=COLORS[-1], linewidth=0.5, zorder=0)
        for index, value in enumerate(names):
            of = [row for row in rows if row[group] == value]
            marker: dict[str, Any] = {
                "color": style[value]["color"],
                "marker": _MARKERS[index % len(_MARKERS)],
                "linestyle": "none",
                "markersize": 3.2,
                "markeredgewidth": 0,
                "alpha": 0.7,
                "rasterized": len(rows) > MOST_VECTORS,
            }
            text = printable(label.format(value))
            plane.plot([r["real_part"] for r in of], [r["imaginary_part"] for r in of], label=text, **marker)
            finite = [r for r in of if r["time_constant"]]
            decays.plot([r["frequency"] for r in finite], [r["time_constant"] for r in finite], **marker)
        plane.set(aspect="equal", adjustable="datalim", xlabel="real part", ylabel="imaginary part")
        decays.set(xlabel="frequency of the rotation (Hz)", ylabel="time constant (s)")
        plain_log_axis(decays, "y")
        handles, labels = plane.get_legend_handles_labels()
        legend_below(canvas, handles[:8], labels[:8])
        svg = inline_svg(canvas, kind.name, "Eigenvalues in the complex plane and their time constants")
    yield Figure(
        f"Dynamics: eigenvalues and their time constants, parameters {' and '.join(params.values())}",
        f"{count(len(chosen), 'system')} in the database with these parameters; the set is {why}."
        f"{more_sets(every, by)} Left: eigenvalues of the dynamics, per time bin, and the unit circle; on "
        "the circle, activity neither grows nor decays. Right: how long each mode lasts and how fast it "
        "rotates. Those on or outside the circle have no time constant.",
        svg,
        (kind.heading, "Systems", "Eigenvalues", "Unstable", "Longest time constant (s): median", "largest"),
        tuple(_numbers(label.format(v), [r for r in rows if r[group] == v], table) for v in sorted(names)),
    )


def _numbers(name: str, rows: Sequence[Mapping[str, Any]], table: Any) -> tuple[str, ...]:
    longest: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = tuple(row[column] for column in table.primary_key)
        longest[key] = max(longest.get(key, 0.0), float(row["time_constant"] or 0.0))
    taus = list(longest.values())
    unstable = sum(bool(row["unstable"]) for row in rows)
    counts = (number(len(longest)), number(len(rows)), number(unstable))
    return (name, *counts, f"{np.median(taus):.3g}", f"{max(taus):.3g}")
