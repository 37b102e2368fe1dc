"""The section with what is in the database: all of it, or what a round has added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.report import data
from workflow.report.text import section


def results(summary: dict[str, Any], tables: Mapping[str, Any], *, everything: bool) -> str:
    """Draw the tables of the database.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds, checked.
    tables : mapping of str to table
        The tables that are served, by label; empty where no database was reached.
    everything : bool
        Draw every table, not only those to which the round has added something.

    Returns
    -------
    str
        HTML; a notice where there is nothing to draw or no database is connected.
    """
    return section("results", "Results", _drawn(summary, tables, everything))


def _drawn(summary: dict[str, Any], tables: Mapping[str, Any], everything: bool) -> str:
    if summary["verdict"] == "refused" or not data.connected(tables):
        return _notice(
            "Figures are drawn from the database, and this report was made without a connection to it."
        )
    computed = {table["table"] for table in summary["tables"] if table["done"]}
    shown = {label: table for label, table in tables.items() if everything or label in computed}
    if not shown:
        return _notice(
            "This round added no result. All that the database holds is drawn by: "
            "run_workflow report --all --summary summary.json"
        )
    from workflow.report import gallery  # it imports Matplotlib, which takes longer than a round without work

    return gallery.figures(summary, shown)


def _notice(text: str) -> str:
    return f'<p class="notice">{text}</p>'
