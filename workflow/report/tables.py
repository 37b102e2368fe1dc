"""What was due and what became of it, table by table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workflow.report.text import duration, escape, number, section
from workflow.report.verdict import totals

#: Outcomes in the order in which bars stack; the names are also CSS classes.
OUTCOMES = ("done", "skipped", "failed", "left")
_COLUMNS = (
    ("Table", ""),
    ("Due", "number"),
    ("Done", "number"),
    ("Skipped", "number"),
    ("Failed", "number"),
    ("Not reached", "number"),
    ("Outcome", ""),
    ("Time", "number"),
    ("Share of time", ""),
)


def tables(summary: dict[str, Any]) -> str:
    """Write the table of tables; empty if the round came to none."""
    rows = summary["tables"]
    if not rows:
        return ""
    longest = max(float(row["seconds"]) for row in rows)
    most = max(int(row["due"]) for row in rows)
    head = "".join(f'<th scope="col" class="{style}">{name}</th>' for name, style in _COLUMNS)
    body = "\n".join(_row(row, most, longest) for row in rows)
    foot = _foot(totals(summary), sum(float(row["seconds"]) for row in rows)) if len(rows) > 1 else ""
    return section(
        "tables",
        "Table by table",
        f'<div class="wide"><table>\n<caption>Number of computations in each table, and the time they took'
        f"</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n{foot}</table></div>",
    )


def bar(shares: Iterable[tuple[str, float]], text: str) -> str:
    """Draw a small stacked bar.

    Parameters
    ----------
    shares : iterable of (str, float)
        CSS class and length of each part; lengths from 0 to 1, together at most 1.
    text : str
        What the bar shows, for people who cannot see it.
    """
    parts, x = [], 0.0
    for name, share in shares:
        if share > 0:
            parts.append(f'<rect class="{name}" x="{100 * x:.2f}" width="{100 * share:.2f}" height="10"/>')
            x += share
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(text)}">'
        f'<rect class="track" width="100" height="10"/>{"".join(parts)}</svg>'
    )


def _row(row: dict[str, Any], most: int, longest: float) -> str:
    one = totals({"tables": [row]})
    outcome = ", ".join(f"{one[name]} {'not reached' if name == 'left' else name}" for name in OUTCOMES)
    seconds = float(row["seconds"])
    shares = [(name, one[name] / most if most else 0.0) for name in OUTCOMES]
    share = seconds / longest if longest else 0.0
    return (
        f'<tr><th scope="row">{escape(row["table"])}</th>{_counts(one)}'
        f"<td>{bar(shares, outcome)}</td>"
        f'<td class="number">{duration(seconds)}</td>'
        f"<td>{bar([('time', share)], f'{100 * share:.0f} % of the slowest table')}</td></tr>"
    )


def _foot(total: dict[str, int], seconds: float) -> str:
    return (
        f'<tfoot><tr><th scope="row">Together</th>{_counts(total)}<td></td>'
        f'<td class="number">{duration(seconds)}</td><td></td></tr></tfoot>\n'
    )


def _counts(counts: dict[str, int]) -> str:
    cells = []
    for name in ("due", "done", "skipped", "failed", "left"):
        style = "number alarm" if name == "failed" and counts[name] else "number"
        cells.append(f'<td class="{style}">{number(counts[name])}</td>')
    return "".join(cells)
