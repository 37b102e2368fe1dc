"""What the report shows of a table that has no figures of its own: its numbers, and how they spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.report import data
from workflow.report.figures import COLORS, INK, Figure, drawing, inline_svg
from workflow.report.text import count, number, printable, shorten

MOST_ROWS = 20
MOST_STRIPS = 6

_MOST_POINTS = 2000  # in one strip
_LONGEST_CELL = 60
_LEFT_OUT = {"code_commit"}  # the same in every row of a round, and in its facts
_SKIPPED = "skip_reason"
_STRIP, _GAP, _BELOW = 0.34, 0.52, 0.05  # inches

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Strip:
    """All values of one column: those of this round and the earlier ones."""

    label: str
    new: Floats
    earlier: Floats

    @property
    def all(self) -> Floats:
        return np.concatenate([self.earlier, self.new])


def any_table(label: str, table: Any, n_done: int, done: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Show what a table holds outside its blobs and parts.

    Parameters
    ----------
    label : str
        ``module.Class``.
    table : datajoint.Table
    n_done : int
        How many keys this round computed.
    done : sequence of dict
        These keys, or, of very many, some of them.

    Yields
    ------
    Figure
        Rows of this round first, then the others, and a strip of points for each column of numbers.
    """
    content = data.scalars(table, done)
    if not content.rows:
        return
    columns = [name for name in content.comments if name not in _LEFT_OUT and _says_something(name, content)]
    columns.sort(key=lambda name: name == _SKIPPED)  # stable: the reason goes last
    shown = content.rows[:MOST_ROWS]
    yield Figure(
        "What is stored",
        _caption(content, columns, max(content.n_new, n_done), len(shown)),
        _draw([_strip(name, content) for name in columns], f"{label.replace('.', '-')}-strips"),
        (", ".join(map(_words, content.primary)), *map(_words, columns)),
        tuple(
            (", ".join(_cell(row[name]) for name in content.primary), *(_cell(row[name]) for name in columns))
            for row in shown
        ),
    )


def _says_something(name: str, content: data.Scalars) -> bool:
    """Leave out a column that no row fills, such as the reason of skipping where nothing was skipped."""
    return any(row[name] not in (None, "") for row in content.rows)


def _caption(content: data.Scalars, columns: Sequence[str], n_new: int, n_shown: int) -> str:
    described = [
        f"{_words(name)}: {content.comments[name]}"
        for name in columns
        if content.comments[name] and name != _SKIPPED
    ]
    skipped = f", {number(content.n_skipped)} of them skipped" if content.n_skipped else ""
    meaning = f" {'; '.join(described)}." if described else ""
    drawn = "Each point is a row"
    if len(content.rows) < content.total:
        drawn = f"Each point is one of {number(len(content.rows))} rows, this round's first, then the latest"
    shown = "" if n_shown == content.total else f" The table below has {n_shown} of them, this round's first."
    return printable(
        f"{count(content.total, 'row')} in the database{skipped}; {number(n_new)} computed in this round "
        f"(blue; grey: earlier). {drawn}; the line is the median.{shown}{meaning}"
    )


def _strip(name: str, content: data.Scalars) -> _Strip:
    values: dict[bool, list[float]] = {True: [], False: []}
    for index, row in enumerate(content.rows):
        value = None if row.get(_SKIPPED) else row[name]
        if isinstance(value, float | int | np.number) and not isinstance(value, bool) and np.isfinite(value):
            values[index < content.n_new].append(float(value))
    comment = content.comments[name]
    label = f"{_words(name)} ({shorten(comment, 40)})" if comment and len(comment) <= 40 else _words(name)
    return _Strip(label, np.array(values[True]), np.array(values[False]))


def _draw(strips: Sequence[_Strip], name: str) -> str:
    """Draw one strip of points per column in which the rows differ; empty if there is none."""
    drawn = [strip for strip in strips if np.unique(strip.all).size > 1][:MOST_STRIPS]
    if not drawn:
        return ""
    height = len(drawn) * (_STRIP + _GAP) + _BELOW
    with drawing(height=height, width=6.4) as canvas:
        for index, strip in enumerate(drawn):
            bottom = height - (index + 1) * _STRIP - index * _GAP - _BELOW
            axes = canvas.add_axes((0.04, bottom / height, 0.92, _STRIP / height))
            for values, color in ((strip.earlier, COLORS[-1]), (strip.new, COLORS[0])):
                few = (
                    values
                    if values.size <= _MOST_POINTS
                    else np.quantile(values, np.linspace(0, 1, _MOST_POINTS))
                )
                # Heights mean nothing: they keep equal values apart, the same way in every report.
                spread = np.random.default_rng(0).uniform(-1, 1, few.size)
                axes.plot(few, spread, "o", color=color, markersize=3.5, alpha=0.7, markeredgewidth=0)
            axes.axvline(float(np.median(strip.all)), color=INK, linewidth=1.2)
            axes.set_ylim(-1.6, 1.6)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlabel(printable(strip.label), labelpad=1)
        return inline_svg(canvas, name, "One strip of points per column: see the table for the numbers")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return number(int(value)) if abs(int(value)) >= 10_000_000 else str(value)
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return shorten(str(value), _LONGEST_CELL)
