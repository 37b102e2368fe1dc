"""One round on one machine: open, compute, record, whatever happens."""

from __future__ import annotations

import platform
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datajoint as dj

from workflow import __version__
from workflow.exit_codes import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    VERDICTS,
)
from workflow.pipeline.connection import DatabaseRefusedError, DatabaseUnreachableError
from workflow.pipeline.discovery import ModuleError
from workflow.pipeline.schemas import UpstreamError
from workflow.populate import ledger, worker
from workflow.populate.plan import RequestError, parse_restriction, select
from workflow.populate.progress import Progress
from workflow.populate.summary import Summary, now
from workflow.settings import Settings

REFUSALS = (RequestError, DatabaseRefusedError, UpstreamError, ModuleError)
UNREACHABLE = (DatabaseUnreachableError, dj.errors.LostConnectionError)


def begin(settings: Settings) -> Summary:
    """Start the summary of a round."""
    database = settings.database
    return Summary(
        round=settings.round or f"local-{uuid.uuid4().hex[:12]}",
        commit=settings.commit,
        version=__version__,
        user=settings.user,
        machine=platform.node(),
        started=now(),
        database={
            "backend": database.backend,
            "host": database.host,
            "port": database.port,
            "prefix": settings.prefix,
        },
    )


def carry_out(
    summary: Summary,
    open_tables: Callable[[], Mapping[str, Any]],
    names: list[str],
    where: str,
    max_calls: int | None = None,
) -> None:
    """Compute what is due and fill in the summary, its verdict and its exit code.

    Parameters
    ----------
    summary : Summary
        From `begin`.
    open_tables : callable
        Connects and returns the served tables by label.
    names, where
        What to compute, as an operator gives it.
    max_calls : int, optional
        At most so many keys per table.
    """
    is_open = False
    try:
        with worker.stoppable():
            everything = open_tables()
            tables = select(everything, names)
            restriction = parse_restriction(where, tables)
            ledger.opened(summary)
            is_open = True
            worker.populate(tables, restriction, summary, Progress(sys.stderr), max_calls)
        _end(summary, EXIT_FAILED if summary.total("failed") else EXIT_DONE, _outcome(summary))
    except REFUSALS as error:
        _end(summary, EXIT_REFUSED, str(error))
    except UNREACHABLE as error:
        _end(summary, EXIT_UNREACHABLE, f"the connection to the database was lost: {error}")
    except worker.Stopped as stop:
        left = summary.total("due") - len(summary.keys)
        _end(summary, EXIT_STOPPED, f"stopped by {stop} before the end: {left} key(s) in hand are due again")
    except dj.DataJointError as error:
        _end(summary, EXIT_REFUSED, f"the database refuses: {error}: check the rights of the database user")
    if is_open:
        _close(summary)


def _close(summary: Summary) -> None:
    """Record the end; results do not depend on it."""
    try:
        ledger.closed(summary)
    except dj.DataJointError as error:
        print(f"run_workflow: the ledger could not be written: {error}", file=sys.stderr)


def write(summary: Summary, output: Path, write_report: Callable[[dict[str, Any], Path], None]) -> None:
    """Write ``summary.json`` and ``report.html``.

    A report that cannot be drawn is said on stderr and changes no verdict: the results are in the
    database.
    """
    output.mkdir(parents=True, exist_ok=True)
    summary.write(output / "summary.json")
    try:
        write_report(summary.as_dict(), output / "report.html")
    except Exception as error:
        print(
            f"run_workflow: the report could not be written: {type(error).__name__}: {error}", file=sys.stderr
        )


def _end(summary: Summary, exit_code: int, message: str) -> None:
    summary.ended = now()
    summary.exit_code = exit_code
    summary.verdict = VERDICTS[exit_code]
    summary.message = " ".join(message.split())


def _outcome(summary: Summary) -> str:
    due, done, failed, skipped = (summary.total(count) for count in ("due", "done", "failed", "skipped"))
    if not due:
        return "nothing was due"
    text = f"{done} of {due} keys done"
    if skipped:
        text += f", {skipped} skipped with a reason"
    if failed:
        text += f", {failed} failed (due again in the next round)"
    return text
