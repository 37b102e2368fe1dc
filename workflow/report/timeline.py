"""When each key was computed: one lane per table, one bar per key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from workflow.report.text import count, duration, escape, key_text, moment, section, shorten

WIDTH = 1000.0  # of the drawing; the page scales it
MOST_ROWS = 16  # of one lane, for keys that were computed at the same time
MOST_BARS = 400  # above that, bars that touch are drawn as one
_LABEL, _AXIS, _GAP = 20.0, 40.0, 10.0
_STEPS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)

#: Height of a bar as a part of its row, and its least width: outcomes differ by more than colour.
_SHAPES = {"done": (0.8, 0.8), "skipped": (0.45, 2.0), "failed": (1.0, 2.5)}


@dataclass(frozen=True)
class _Bar:
    start: float  # s since the round began
    end: float
    outcome: str
    text: str


@dataclass
class _Lane:
    table: str
    rows: list[list[_Bar]]

    @property
    def row_height(self) -> float:
        return 20.0 if len(self.rows) == 1 else 10.0

    @property
    def height(self) -> float:
        return _LABEL + self.row_height * len(self.rows) + _GAP


def timeline(summary: dict[str, Any]) -> str:
    """Draw the timeline; empty if no key was computed."""
    lanes = _lanes(summary)
    if not lanes:
        return ""
    bars = [bar for lane in lanes for row in lane.rows for bar in row]
    end = max(bar.end for bar in bars)
    if (began := moment(summary["started"])) and (ended := moment(summary["ended"])):
        end = max(end, (ended - began).total_seconds())
    svg = _draw(lanes, end or 1.0, merge=len(bars) > MOST_BARS)
    note = (
        " Bars that touch are drawn as one, and failures are drawn wide enough to be seen."
        if len(bars) > MOST_BARS
        else ""
    )
    legend = "".join(_swatch(name) for name in _SHAPES if any(bar.outcome == name for bar in bars))
    return section(
        "timeline",
        "When it ran",
        f'<figure>\n<ul class="legend">{legend}</ul>\n<div class="wide">{svg}</div>\n'
        "<figcaption>One bar per key, from its start to its end; bars above each other ran at the same "
        f"time.{note}</figcaption>\n</figure>",
    )


def ticks(span: float) -> tuple[list[float], list[str]]:
    """Choose about six round times from 0 to ``span`` (s), and their labels."""
    least = span / 7
    if least <= 30:
        power = 10.0 ** math.floor(math.log10(least))
        step = min(value for value in (power, 2 * power, 5 * power, 10 * power, 30.0) if value >= least)
    else:
        step = next(
            (float(value) for value in _STEPS if value >= least), 604800.0 * math.ceil(least / 604800)
        )
    unit, name = (1.0, "s") if step < 60 else (60.0, "min") if step < 3600 else (3600.0, "h")
    values = [index * step for index in range(math.floor(span / step + 1e-9) + 1)]
    return values, [f"{value / unit:g} {name}" for value in values]


def _swatch(outcome: str) -> str:
    height = 16 * _SHAPES[outcome][0]
    rect = f'<rect class="{outcome}" y="{16 - height:.1f}" width="16" height="{height:.1f}"/>'
    return f'<li><svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{rect}</svg> {outcome}</li>'


def _lanes(summary: dict[str, Any]) -> list[_Lane]:
    began = moment(summary["started"])
    bars: dict[str, list[_Bar]] = {str(table["table"]): [] for table in summary["tables"]}
    for entry in summary["keys"]:
        started = moment(entry["started"])
        if began is None or started is None:
            continue
        start = max(0.0, (started - began).total_seconds())
        seconds = max(0.0, float(entry["seconds"]))
        text = f"{key_text(entry['key'])}: {entry['outcome']} in {duration(seconds)}"
        if entry["reason"]:
            text += f" ({shorten(' '.join(str(entry['reason']).split()), 200)})"
        bars.setdefault(str(entry["table"]), []).append(
            _Bar(start, start + seconds, str(entry["outcome"]), text)
        )
    return [_Lane(table, _packed(some)) for table, some in bars.items() if some]


def _packed(bars: list[_Bar]) -> list[list[_Bar]]:
    """Distribute bars over rows so that those of one row do not overlap."""
    rows: list[list[_Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        free = (row for row in rows if row[-1].end <= bar.start + 0.005)  # times are rounded to ms
        row = next(free, None)
        if row is None and len(rows) < MOST_ROWS:
            rows.append([bar])
        else:
            (row or rows[-1]).append(bar)
    return rows


def _draw(lanes: list[_Lane], span: float, *, merge: bool) -> str:
    height = sum(lane.height for lane in lanes)
    parts = list(_axis(span, height))
    y = 0.0
    for lane in lanes:
        n_keys = sum(len(row) for row in lane.rows)
        parts.append(
            f'<text class="lane" x="0" y="{y + 14:.1f}">{escape(lane.table)} · {count(n_keys, "key")}</text>'
        )
        y += _LABEL
        for row in lane.rows:
            drawn = (
                _merged(row, y, lane.row_height, span) if merge else _single(row, y, lane.row_height, span)
            )
            parts += drawn
            y += lane.row_height
        y += _GAP
    n_bars = sum(len(row) for lane in lanes for row in lane.rows)
    alt = f"Timeline of {count(n_bars, 'key')} over {duration(span)}"
    return (
        f'<svg class="timeline" viewBox="-2 0 {WIDTH + 30:.0f} {height + _AXIS:.0f}" role="img" '
        f'aria-label="{escape(alt)}">\n' + "\n".join(parts) + "\n</svg>"
    )


def _axis(span: float, height: float) -> Iterator[str]:
    for value, label in zip(*ticks(span), strict=True):
        x = WIDTH * value / span
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.1f}"/>'
        anchor = "middle" if value else "start"
        yield f'<text x="{x:.1f}" y="{height + 14:.1f}" text-anchor="{anchor}">{label}</text>'
    middle = f'x="{WIDTH / 2:.0f}" y="{height + 34:.1f}" text-anchor="middle"'
    yield f"<text {middle}>time since the round began</text>"


def _place(bar: _Bar, y: float, row: float, span: float) -> tuple[float, float, float, float]:
    share, least = _SHAPES.get(bar.outcome, _SHAPES["done"])
    x = WIDTH * bar.start / span
    return x, y + row * (1 - share), max(least, WIDTH * (bar.end - bar.start) / span), row * share


def _single(bars: Iterable[_Bar], y: float, row: float, span: float) -> Iterator[str]:
    for bar in bars:
        x, top, width, height = _place(bar, y, row, span)
        width = width - 0.8 if width > 4 else width  # so that neighbours stay apart
        yield (
            f'<rect class="{escape(bar.outcome)}" x="{x:.2f}" y="{top:.1f}" width="{width:.2f}" '
            f'height="{height:.1f}"><title>{escape(bar.text)}</title></rect>'
        )


def _merged(bars: list[_Bar], y: float, row: float, span: float) -> Iterator[str]:
    """One path per outcome, failures on top; neighbours less than half a pixel apart become one."""
    for outcome in _SHAPES:
        pieces: list[list[float]] = []
        for bar in bars:
            if bar.outcome == outcome:
                x, top, width, height = _place(bar, y, row, span)
                if pieces and x - pieces[-1][1] < 0.5:
                    pieces[-1][1] = max(pieces[-1][1], x + width)
                else:
                    pieces.append([x, x + width])
        if pieces:
            path = "".join(f"M{a:.1f} {top:.1f}h{b - a:.1f}v{height:.1f}H{a:.1f}z" for a, b in pieces)
            yield f'<path class="{outcome}" d="{path}"/>'
