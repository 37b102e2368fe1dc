"""When each key was computed, and by which worker: a lane per table, a row per worker, a bar per key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from workflow.report.text import count, duration, escape, key_text, moment, section, shorten

WIDTH = 1000.0  # of the drawing; the page scales it
#: All rows together are about this high, so that many workers fit a printed page too.
ROWS = 800.0
HIGHEST_ROW, LOWEST_ROW = 16.0, 2.0
NARROWEST = 1.0  # neighbours of one outcome that are both narrower are drawn as one bar
_LABEL, _AXIS, _GAP, _NUMBER, _MARGIN = 20.0, 40.0, 10.0, 11.0, 64.0
_STEPS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)

#: Height of a bar as a part of its row, and its least width: outcomes differ by more than colour.
_SHAPES = {"done": (0.8, 0.8), "skipped": (0.45, 2.0), "failed": (1.0, 2.5)}


@dataclass(frozen=True)
class _Bar:
    """One key, or several that are too short to be told apart."""

    start: float  # s since the round began
    end: float
    outcome: str
    text: str
    n_keys: int = 1

    def is_short(self, seconds: float) -> bool:
        return self.n_keys > 1 or self.end - self.start < seconds


@dataclass
class _Lane:
    table: str
    rows: dict[int, list[_Bar]]  # by worker

    @property
    def bars(self) -> list[_Bar]:
        return [bar for row in self.rows.values() for bar in row]


def timeline(summary: dict[str, Any]) -> str:
    """Draw the timeline; empty if no key was computed."""
    lanes = _lanes(summary)
    if not lanes:
        return ""
    bars = [bar for lane in lanes for bar in lane.bars]
    end = max(bar.end for bar in bars)
    if (began := moment(summary["started"])) and (ended := moment(summary["ended"])):
        end = max(end, (ended - began).total_seconds())
    svg = _draw(lanes, str(summary["machine"]), end or 1.0)
    legend = "".join(_swatch(name) for name in _SHAPES if any(bar.outcome == name for bar in bars))
    left_out = sum(summary["keys_left_out"].values())
    thinned = f" {count(left_out, 'more key')} were left out, evenly over time." if left_out else ""
    machine = escape(summary["machine"] or "the machine")
    return section(
        "timeline",
        "When it ran",
        f'<figure>\n<ul class="legend">{legend}</ul>\n<div class="wide">{svg}</div>\n'
        "<figcaption>One bar per key, from its start to its end; each table has a row for every worker of "
        f"{machine} that computed some of it. Point at a bar to read which key it is. Neighbours too short "
        f"to be told apart are drawn as one, and failures wide enough to be seen.{thinned}</figcaption>\n"
        "</figure>",
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
    lanes = {name: _Lane(name, {}) for name in (str(table["table"]) for table in summary["tables"])}
    for entry in summary["keys"]:
        started = moment(entry["started"])
        if began is None or started is None:
            continue
        table, worker = str(entry["table"]), int(entry["worker"])
        start = max(0.0, (started - began).total_seconds())
        seconds = max(0.0, float(entry["seconds"]))
        text = f"{key_text(entry['key'])}: {entry['outcome']} in {duration(seconds)}"
        if entry["reason"]:
            text += f" ({shorten(' '.join(str(entry['reason']).split()), 200)})"
        rows = lanes.setdefault(table, _Lane(table, {})).rows
        rows.setdefault(worker, []).append(_Bar(start, start + seconds, str(entry["outcome"]), text))
    return [lane for lane in lanes.values() if lane.rows]


def _draw(lanes: list[_Lane], machine: str, span: float) -> str:
    n_rows = sum(len(lane.rows) for lane in lanes)
    row_height = min(HIGHEST_ROW, max(LOWEST_ROW, ROWS / n_rows))
    height = len(lanes) * (_LABEL + _GAP) + n_rows * row_height
    parts = list(_axis(span, height))
    y = 0.0
    for lane in lanes:
        label = f"{lane.table} · {count(len(lane.bars), 'key')}"
        parts.append(f'<text class="lane" x="0" y="{y + 14:.1f}">{escape(label)}</text>')
        y += _LABEL
        free = y  # down to here there are numbers of workers
        for worker, row in sorted(lane.rows.items()):
            if y >= free:
                middle = y + max(row_height, _NUMBER) / 2
                parts.append(f'<text class="worker" x="-6" y="{middle + 4:.1f}">worker {worker}</text>')
                free = y + _NUMBER
            who = f"{lane.table} by worker {worker} of {machine}"
            parts += [_drawn(bar, who, y, row_height, span) for bar in _merged(row, span)]
            y += row_height
        y += _GAP
    alt = f"Timeline of {count(sum(len(lane.bars) for lane in lanes), 'key')} over {duration(span)}"
    return (
        f'<svg class="timeline" viewBox="-{_MARGIN:.0f} 0 {WIDTH + _MARGIN + 28:.0f} {height + _AXIS:.0f}" '
        f'role="img" aria-label="{escape(alt)}">\n' + "\n".join(parts) + "\n</svg>"
    )


def _axis(span: float, height: float) -> Iterator[str]:
    for value, label in zip(*ticks(span), strict=True):
        x = WIDTH * value / span
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.1f}"/>'
        anchor = "middle" if value else "start"
        yield f'<text x="{x:.1f}" y="{height + 14:.1f}" text-anchor="{anchor}">{label}</text>'
    middle = f'x="{WIDTH / 2:.0f}" y="{height + 34:.1f}" text-anchor="middle"'
    yield f"<text {middle}>time since the round began</text>"


def _merged(row: list[_Bar], span: float) -> list[_Bar]:
    """Make one bar of neighbours of one outcome that are too short to be told apart; failures come last."""
    narrow = NARROWEST * span / WIDTH
    bars: dict[str, list[_Bar]] = {name: [] for name in _SHAPES}
    for bar in sorted(row, key=lambda bar: bar.start):
        alike = bars.setdefault(bar.outcome, [])
        last = alike[-1] if alike else None
        if last and last.is_short(narrow) and bar.is_short(narrow) and bar.start - last.end < narrow / 2:
            alike[-1] = replace(last, end=max(last.end, bar.end), n_keys=last.n_keys + 1)
        else:
            alike.append(bar)
    return [bar for alike in bars.values() for bar in alike]


def _drawn(bar: _Bar, who: str, y: float, row: float, span: float) -> str:
    share, least = _SHAPES.get(bar.outcome, _SHAPES["done"])
    width = max(least, WIDTH * (bar.end - bar.start) / span)
    width = width - 0.8 if width > 4 else width  # so that neighbours stay apart
    when = f"from {duration(bar.start)} to {duration(bar.end)} after the round began"
    what = bar.text if bar.n_keys == 1 else f"{count(bar.n_keys, 'key')} {bar.outcome}"
    return (
        f'<rect class="{escape(bar.outcome)}" x="{WIDTH * bar.start / span:.2f}" '
        f'y="{y + row * (1 - share):.1f}" width="{width:.2f}" height="{row * share:.1f}">'
        f"<title>{escape(f'{who}, {when}: {what}')}</title></rect>"
    )
