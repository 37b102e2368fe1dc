"""The section with what is in the database: all of it, or what a round has added."""

from __future__ import annotations

from typing import Any

from workflow.report import data
from workflow.report.text import section


def results(summary: dict[str, Any], *, everything: bool) -> str:
    """Draw the tables of the database.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds, checked.
    everything : bool
        Draw every table, not only those to which the round has added something.

    Returns
    -------
    str
        HTML; a notice where there is nothing to draw or no database is connected.
    """
    return section("results", "Results", _drawn(summary, everything))


def _drawn(summary: dict[str, Any], everything: bool) -> str:
    if summary["verdict"] == "refused" or not data.connected():
        return _notice(
            "Figures are drawn from the database, and this report was made without a connection to it."
        )
    computed = {table["table"] for table in summary["tables"] if table["done"]}
    labels = [label for label in data.tables() if everything or label in computed]
    if not labels:
        return _notice(
            "This round added no result. All that the database holds is drawn by: "
            "run_workflow report --all --summary summary.json"
        )
    from workflow.report import gallery  # it imports Matplotlib, which takes longer than a round without work

    return gallery.figures(summary, labels)


def _notice(text: str) -> str:
    return f'<p class="notice">{text}</p>'
