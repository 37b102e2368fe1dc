"""The HTML report of a round: one file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow.report.page import page
from workflow.report.results import results
from workflow.report.summary_check import SummaryError, check

__all__ = ["SummaryError", "write_report"]


def write_report(
    summary: dict[str, Any], path: Path, *, tables: Mapping[str, Any], everything: bool = False
) -> None:
    """Write the report of a round.

    Figures are drawn from the database that the tables are bound to. Where none is connected, the
    report says so and holds everything else.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds (`workflow.populate.summary.Summary`).
    path : Path
        The HTML file; its directory exists. It is replaced whole or not at all.
    tables : mapping of str to table
        The tables that are served, by label, parents before children; empty where no database was reached.
    everything : bool
        Draw every table, not only those to which the round has added something.

    Raises
    ------
    SummaryError
        If the summary is not one that this version can read.
    """
    check(summary)
    html = page(summary, results(summary, tables, everything=everything))
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
