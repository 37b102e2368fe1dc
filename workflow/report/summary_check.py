"""Refuse what is not a round's summary, before anything is drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from workflow.populate.summary import FORMAT, KeyOutcome, Summary, TableOutcome

_LISTS = {"tables": TableOutcome, "keys": KeyOutcome}
_NEW = {"held", "later", "waits"}  # summaries of earlier versions lack them


class SummaryError(ValueError):
    """Something is not a round's summary; the message is one line."""


def check(summary: Any) -> None:
    """Check that a summary has the entries that the report reads.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds.

    Raises
    ------
    SummaryError
        If an entry is missing, or the format is one that this version does not know.
    """
    _require(summary, Summary, "the summary")
    if summary["format"] != FORMAT:
        raise SummaryError(
            f"the summary has format {summary['format']!r} and this version of run_workflow reads format "
            f"{FORMAT}: use the version that wrote it ({summary['version']})"
        )
    for name, kind in _LISTS.items():
        if not isinstance(summary[name], list):
            raise SummaryError(f"the summary's {name!r} is not a list: give the summary.json of a round")
        for entry in summary[name]:
            _require(entry, kind, f"an entry of {name!r} in the summary")


def _require(entry: Any, kind: type[Summary | TableOutcome | KeyOutcome], what: str) -> None:
    missing = (
        [field.name for field in fields(kind) if field.name not in {*entry, *_NEW}]
        if isinstance(entry, dict)
        else ["all"]
    )
    if missing:
        raise SummaryError(f"{what} lacks {', '.join(missing)}: give the summary.json of a round")
