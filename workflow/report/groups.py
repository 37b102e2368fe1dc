"""Choosing what to draw of tables that hold several rows per epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workflow.report import data
from workflow.report.figures import COLORS
from workflow.report.text import count

EPOCH = ("subject_id", "session", "session_epoch_type", "session_epoch_number")

MOST_NAMED = 6  # curves with a colour of their own
_STYLES = ("-", "--", "-.", (0, (1.2, 0.8)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)))

Row = dict[str, Any]


def computed(table: Any, *names: str) -> list[Row]:
    """Fetch the rows of a table that hold a result: key, size and other columns without blobs."""
    wanted = ("n_rois", "n_frames", "bin_width", *names)
    rows = (table & {"skip_reason": ""}).proj(*wanted).to_dicts(order_by="KEY")
    return list(rows)


def choose(
    rows: Sequence[Row], done: Sequence[Mapping[str, Any]], primary: Sequence[str], by: Sequence[str]
) -> tuple[list[Row], str]:
    """Choose the rows to show in detail: all that agree in some columns.

    Parameters
    ----------
    rows : sequence of dict
        From `computed`; not empty.
    done : sequence of dict
        Primary keys that this round computed.
    primary : sequence of str
        Names of the primary key.
    by : sequence of str
        The columns that the chosen rows share, such as epoch and parameters.

    Returns
    -------
    list of dict
        Of the groups with a key of this round, or of all if there is none, the one with most rows, then most
        ROIs.
    str
        Why.
    """
    new = {data.identity(key) for key in done}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    of_round = [
        group
        for group in groups.values()
        if any(data.identity({name: row[name] for name in primary}) in new for row in group)
    ]
    chosen = max(of_round or groups.values(), key=lambda group: (len(group), sum(r["n_rois"] for r in group)))
    which = "of those computed in this round" if of_round else "in the database; this round computed none"
    return chosen, f"the largest {which}"


def more_sets(rows: Sequence[Row], by: Sequence[str]) -> str:
    """Say in a caption that one set of parameters is drawn of several; else nothing."""
    others = len({tuple(row[name] for name in by) for row in rows}) - 1
    return f" {count(others, 'more parameter set')} not drawn." if others else ""


def describe(row: Mapping[str, Any]) -> str:
    """Name an epoch."""
    return (
        f"animal {row['subject_id']}, session {row['session']}, "
        f"{row['session_epoch_type']} {row['session_epoch_number']}"
    )


def styles(names: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Give the first names a colour and a dash each, so that print tells them apart, and grey to the rest."""
    grey = {"color": COLORS[-1], "linestyle": "-", "linewidth": 0.8}
    return {
        name: {"color": COLORS[i], "linestyle": _STYLES[i]} if i < MOST_NAMED else grey
        for i, name in enumerate(dict.fromkeys(names))
    }
