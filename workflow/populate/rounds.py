"""One round on one machine: open, compute, record, whatever happens."""

from __future__ import annotations

import platform
import sys
import time
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
from workflow.populate import crew, ledger
from workflow.populate.attempt import reopen, steadily
from workflow.populate.crew import Terms
from workflow.populate.jobs_table import TableError
from workflow.populate.plan import RequestError, parse_restriction, select
from workflow.populate.progress import Progress
from workflow.populate.roster import CrewError
from workflow.populate.stopping import Stopped
from workflow.populate.summary import Summary, now
from workflow.populate.troubles import Trouble, classify, is_alive, one_line
from workflow.settings import Settings

REFUSALS = (RequestError, DatabaseRefusedError, UpstreamError, TableError, ModuleError)

#: Counts of the summary, and why such keys were not done.
WAITING = {
    "held": "reserved by other DataJoint clients ('run_workflow retry --reserved' frees those of dead ones)",
    "later": "scheduled for later",
}


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
    terms: Terms,
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
    terms : Terms
        How.
    """
    is_open = False
    try:
        everything = open_tables()
        tables, restriction = patiently(
            lambda: _begin(summary, everything, names, where), terms.patience_left
        )
        is_open = True
        stopped = crew.populate(tables, restriction, summary, Progress(sys.stderr), terms, everything)
        if stopped:
            _end(summary, EXIT_STOPPED, _stopped(summary, stopped))
        else:
            _end(summary, EXIT_FAILED if summary.total("failed") else EXIT_DONE, _outcome(summary))
    except Stopped as stop:
        _end(summary, EXIT_STOPPED, _stopped(summary, str(stop)))
    except CrewError as error:
        _end(summary, EXIT_STOPPED, f"{error}: what is not done is due again")
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        _end(summary, *explained)
    if is_open:
        _close(summary)


def _begin(
    summary: Summary, everything: Mapping[str, Any], names: list[str], where: str
) -> tuple[dict[str, Any], list[Any]]:
    """Understand what is asked for, and record that the round begins."""
    tables = select(everything, names)
    restriction = parse_restriction(where, tables)
    ledger.opened(summary)
    return tables, restriction


def patiently(action: Callable[[], Any], patience: Callable[[], float]) -> Any:
    """Do something with DataJoint's own connection; if the database goes away meanwhile, begin again.

    Parameters
    ----------
    action : callable
        Statements that may be repeated.
    patience : callable
        Asked at the first trouble for how many seconds it may last before it is raised.
    """
    given_up_at: list[float] = []

    def given_up(_: Exception) -> bool:
        if not given_up_at:
            seconds = patience()
            given_up_at.append(time.monotonic() + seconds)
            if seconds:
                print(
                    "run_workflow: trouble with the database while the run begins: "
                    f"trying again for {round(seconds, 1):g} s",
                    file=sys.stderr,
                )
        return time.monotonic() >= given_up_at[0]

    return steadily(dj.conn(), action, given_up)


def explain(error: Exception) -> tuple[int, str] | None:
    """Exit code and words for an error of the database or the operator; None for any other.

    What looks like a refusal may have the loss of the connection as its cause.
    """
    if isinstance(error, DatabaseUnreachableError):
        return EXIT_UNREACHABLE, str(error)
    if (trouble := classify(error)) is Trouble.FULL:
        return EXIT_STOPPED, f"{trouble.value} ({one_line(error)}): free some, then run again"
    if trouble:
        return EXIT_UNREACHABLE, f"{trouble.value}: {error}"
    if isinstance(error, REFUSALS):
        return EXIT_REFUSED, str(error)
    if isinstance(error, dj.DataJointError):
        return EXIT_REFUSED, refusal(error)
    return None


def refusal(error: Exception) -> str:
    """What to say where DataJoint or the server refuses."""
    if isinstance(error, dj.errors.AccessError) or "permission" in str(error).lower():
        return f"the database refuses: {error}: check the rights of the database user"
    return f"DataJoint refuses: {one_line(error)}"


def _stopped(summary: Summary, why: str) -> str:
    finished = sum(summary.total(count) for count in ("done", "failed", "skipped"))
    return f"stopped by {why} before the end: {summary.total('due') - finished} key(s) are due again"


def _close(summary: Summary) -> None:
    """Record the end; results do not depend on it."""
    try:
        if not is_alive(dj.conn()):
            reopen(dj.conn())
        ledger.closed(summary)
    except Exception as error:
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
    waiting = [
        f"{count} {'key is' if count == 1 else 'keys are'} {why}"
        for name, why in WAITING.items()
        if (count := summary.total(name))
    ]
    waiting += [
        f"{n} {'key' if n == 1 else 'keys'} of {table.table} will be due when {label} is complete "
        "('run_workflow errors' lists what failed there, 'ignore' parks it)"
        for table in summary.tables
        for label, n in table.waits.items()
    ]
    if not due:
        return ", ".join(waiting) or "nothing was due"
    text = f"{done} of {due} keys done"
    if skipped:
        text += f", {skipped} skipped with a reason"
    if failed:
        text += f", {failed} failed (due again in the next round)"
    return "; ".join([text, *waiting])
