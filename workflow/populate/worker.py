"""Compute everything that is due, one key at a time, in one process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from workflow.populate import jobs
from workflow.populate.progress import Progress
from workflow.populate.summary import KeyOutcome, Summary, TableOutcome, now

#: What DataJoint's own SIGTERM handler, in force while a key is computed, says.
_DATAJOINT_SIGTERM = "SIGTERM received"


class Stopped(SystemExit):
    """Somebody asked this process to stop before the end.

    A SystemExit, because that is what DataJoint lets through after it has rolled back.
    """


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def populate(
    tables: Mapping[str, Any],
    where: list[Any],
    summary: Summary,
    progress: Progress,
    max_calls: int | None = None,
) -> None:
    """Compute what is due in every table, parents first.

    A key that fails leaves its error in the jobs table and in the summary; the rest goes on.

    Parameters
    ----------
    tables : mapping of str to table
        Label and table, parents before children.
    where : list
        Restriction of the keys, as `plan.parse_restriction` gives it.
    summary : Summary
        Filled in while the work goes on, so that it is right whenever the work ends.
    progress : Progress
        Told of every key.
    max_calls : int, optional
        At most so many keys per table.

    Raises
    ------
    Stopped
        If the process was asked to stop; the key in hand is due again.
    datajoint.errors.LostConnectionError
        If the database went away.
    """
    for label, table in tables.items():
        outcome = TableOutcome(label)
        summary.tables.append(outcome)
        began = time.monotonic()
        try:
            _populate_table(table, where, outcome, summary, progress, max_calls)
        finally:
            outcome.seconds = round(time.monotonic() - began, 3)


def _populate_table(
    table: Any,
    where: list[Any],
    outcome: TableOutcome,
    summary: Summary,
    progress: Progress,
    max_calls: int | None,
) -> None:
    jobs.requeue(table, where)
    table.jobs.refresh(*where, delay=-1)
    keys = jobs.matching(table.jobs.pending, table, where).keys(order_by="KEY", limit=max_calls)
    outcome.due = len(keys)
    progress.begin(outcome.table, len(keys))
    for key in keys:
        result = _populate_key(table, key, outcome.table)
        if result is None:  # another worker has it
            outcome.due -= 1
            continue
        summary.keys.append(result)
        setattr(outcome, result.outcome, getattr(outcome, result.outcome) + 1)
        progress.advance(result)
    progress.end()


def _populate_key(table: Any, key: dict[str, Any], label: str) -> KeyOutcome | None:
    started, began = now(), time.monotonic()

    def outcome(name: str, reason: str) -> KeyOutcome:
        return KeyOutcome(label, key, name, started, round(time.monotonic() - began, 3), reason)

    try:
        result = table.populate(key, reserve_jobs=True, refresh=False, suppress_errors=True)
    except SystemExit as leaving:
        if not isinstance(leaving, Stopped) and str(leaving) != _DATAJOINT_SIGTERM:
            return outcome("failed", f"SystemExit: the computation called exit({leaving.code!r})")
        jobs.release(table, key)
        raise Stopped(str(leaving)) from None
    if result["error_list"]:
        return outcome("failed", str(result["error_list"][0][1]))
    if not result["success_count"]:
        return None
    reason = _skip_reason(table, key)
    return outcome("skipped" if reason else "done", reason)


def _skip_reason(table: Any, key: dict[str, Any]) -> str:
    """Why a row holds no result; empty for tables that do not record such a thing."""
    if "skip_reason" not in table.heading.names:
        return ""
    reasons = (table & key).to_arrays("skip_reason")
    return str(reasons[0]) if len(reasons) else ""
