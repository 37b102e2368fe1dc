"""One attempt at one key: read, compute, store, and leave the queue in the same transaction.

The row that says that the key is reserved disappears in the transaction that stores its results. A key is
therefore never done twice and never done yet still queued, wherever its worker dies; and a worker that was
taken for dead finds, before it commits, that the key is no longer its own.
"""

from __future__ import annotations

import inspect
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datajoint import provenance

from workflow.pipeline.connection import keep_alive
from workflow.populate import dialect
from workflow.populate.claim import Queue
from workflow.populate.digest import digest
from workflow.populate.jobs_table import Job
from workflow.populate.packets import too_large
from workflow.populate.summary import now
from workflow.populate.troubles import Trouble, classify, is_alive, one_line, pause, rollback

#: Tries after trouble of each kind before the trouble is taken for the key's own fault. Connections that
#: cannot be opened are not counted: the supervisor decides how long to wait for a server.
_TRIES = {Trouble.LOST: 4, Trouble.BUSY: 10, Trouble.FULL: 6}
_RECOMPUTE = 3


class NothingStoredError(RuntimeError):
    """make() ended without an error and without a row."""


class _NotOursError(Exception):
    """Somebody else has the key by now, or it is done."""


class _ChangedError(RuntimeError):
    """What the computation had read is no longer what the database says."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes
    ----------
    outcome : str
        ``done``, ``skipped``, ``failed``, ``gone``: the key was no longer ours, nothing was stored; or
        ``unrecorded``: it failed, and the server has no space left to say so.
    started : str
        UTC, ISO 8601.
    seconds : float
        Duration.
    reason : str
        Why it was skipped or what went wrong.
    stack : str
        The traceback of a failure.
    """

    outcome: str
    started: str
    seconds: float
    reason: str = ""
    stack: str = ""


class Attempt:
    """Compute one key of one table.

    Parameters
    ----------
    queue : Queue
        The table's queue.
    job : Job
        What to compute.
    crew : int
        The supervisor that has reserved it.
    version : str
        Commit and worker, for the row's ``_job_version``.
    """

    def __init__(self, queue: Queue, job: Job, crew: int, version: str) -> None:
        self._queue, self._job, self._crew, self._version = queue, job, crew, version
        self._table, self._connection = queue.table, queue.connection
        self._computed: tuple[bytes, Any] | None = None  # digest of what was read, and the result
        self._committing = False
        self._began = time.monotonic()
        self._process = os.getpid()

    def run(self) -> Outcome:
        """Try until it is done, fails, or is no longer ours; nothing escapes."""
        started = now()
        tries: dict[Trouble | None, int] = {}
        while True:
            try:
                self._once(again=bool(tries))
                return self._ended("done", started)
            except _NotOursError:
                self._clean_up()
                return self._ended("gone", started)
            except BaseException as error:  # whatever a computation raises is its outcome
                self._end_copies(1)
                trouble = classify(error)
                retryable = trouble is not None or isinstance(error, _ChangedError)
                tries[trouble] = tries.get(trouble, 0) + 1
                most = _TRIES[trouble] if trouble else _RECOMPUTE
                stack = traceback.format_exc()
                self._clean_up()
                too_much = trouble is Trouble.LOST and steadily(
                    self._connection, lambda: too_large(self._connection)
                )
                if not retryable or too_much or tries[trouble] > most:
                    reason = too_much or _explain(error, trouble)
                    return self._ended("failed", started, reason, stack)
                time.sleep(pause(tries[trouble]))

    def _ended(self, outcome: str, started: str, reason: str = "", stack: str = "") -> Outcome:
        seconds = round(time.monotonic() - self._began, 3)
        if outcome == "failed":
            outcome, reason = self._record(reason, stack)
        elif outcome == "done":
            reason = steadily(self._connection, lambda: self._queue.skip_reason(self._job))
            outcome = "skipped" if reason else "done"
        return Outcome(outcome, started, seconds, reason, stack)

    def _record(self, reason: str, stack: str) -> tuple[str, str]:
        """Record a failure; the outcome and its reason."""
        tries = 0

        def given_up(error: Exception) -> bool:
            nonlocal tries
            tries += classify(error) is Trouble.FULL
            return tries > _TRIES[Trouble.FULL]

        def fail() -> bool:
            return self._queue.fail(self._job, self._crew, os.getpid(), reason, stack)

        try:
            return ("failed" if steadily(self._connection, fail, given_up) else "gone"), reason
        except Exception as error:
            trouble = classify(error)
            if trouble is not Trouble.FULL:
                raise
            return "unrecorded", _explain(error, trouble)

    def _end_copies(self, status: int) -> None:
        """End a copy of this process that make() forked and let return: the connection is not its own."""
        if os.getpid() != self._process:
            os._exit(status)

    def _clean_up(self) -> None:
        rollback(self._connection)
        if not is_alive(self._connection):
            steadily(self._connection, lambda: reopen(self._connection))

    def _once(self, *, again: bool) -> None:
        if again and not self._queue.is_held(self._job, self._crew):
            if self._committing and self._queue.is_stamped(self._job, self._version):
                return  # the server had committed; only its answer was lost
            raise _NotOursError
        self._committing = False
        make = getattr(self._table, "_make_tuples", None) or self._table.make
        with self._may_insert():
            if inspect.isgeneratorfunction(make):
                self._compute(make)
                self._connection.start_transaction()
                self._store(make)
            else:
                self._connection.start_transaction()
                make(dict(self._job.key))
        self._end_copies(0)
        if not self._queue.stamp(self._job, time.monotonic() - self._began, self._version):
            raise NothingStoredError("make() ended without inserting a row for this key")
        if not self._queue.complete(self._job, self._crew):
            raise _NotOursError
        self._committing = True
        self._connection.commit_transaction()

    def _compute(self, make: Callable[..., Any]) -> None:
        """Read and compute outside any transaction, once: the result survives a lost connection."""
        if self._computed is not None:
            return
        steps = make(dict(self._job.key))
        read = digest(next(steps))
        self._computed = read, next(steps)
        steps.close()
        if self._connection.in_transaction:
            raise RuntimeError("make() left a transaction open while it computed")

    def _store(self, make: Callable[..., Any]) -> None:
        """Read again inside the transaction, compare, and store."""
        assert self._computed is not None  # noqa: S101
        read, result = self._computed
        steps = make(dict(self._job.key))
        if digest(next(steps)) != read:
            self._computed = None
            raise _ChangedError("what make() had read was changed by somebody while it computed")
        try:
            steps.send(result)
        except StopIteration:
            return
        steps.close()

    @contextmanager
    def _may_insert(self) -> Iterator[None]:
        """Tell DataJoint, as its own populate does, that make is running for this key."""
        table, kind = self._table, type(self._table)
        kind._allow_insert = True
        table._upstream_key, table._upstream = dict(self._job.key), None
        token = provenance.set_ingesting(table.full_table_name, self._job.key, self._version)
        try:
            yield
        finally:
            provenance.reset_ingesting(token)
            table._upstream_key = table._upstream = None
            kind._allow_insert = False


def steadily(
    connection: Any, action: Callable[[], Any], given_up: Callable[[Exception], bool] = lambda _: False
) -> Any:
    """Do something with the database, reconnecting and trying again for as long as that can help.

    Parameters
    ----------
    connection : datajoint.Connection
        Opened again where it was lost.
    action : callable
        Statements that may be repeated.
    given_up : callable, optional
        Asked before every new try, with what ended the last one.

    Returns
    -------
    object
        What the action returns.
    """
    tries = 0
    while True:
        try:
            if tries:
                rollback(connection)
                if not is_alive(connection):
                    reopen(connection)
            return action()
        except Exception as error:
            if classify(error) is None or given_up(error):
                raise
            tries += 1
            time.sleep(pause(tries))


def reopen(connection: Any) -> None:
    """Connect again, as it was.

    A connection with a ``lock_name`` holds that lock, by which others can end it.
    """
    connection._in_transaction = False
    connection.connect()
    keep_alive(connection)
    dialect.limit_waits(connection)
    if getattr(connection, "for_queues", False):
        dialect.prepare_session(connection)
    if name := getattr(connection, "lock_name", ""):
        dialect.take_lock(connection, name)


def _explain(error: BaseException, trouble: Trouble | None) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit: the computation called exit({error.code!r})"
    if trouble is Trouble.LOST:
        return (
            f"{one_line(error)}: the connection was lost whenever this key was tried, although the server "
            "answers: does it end long transactions, or take only smaller rows?"
        )
    if trouble is Trouble.FULL:
        return f"{one_line(error)}: {trouble.value}: free some, then retry"
    return one_line(error)
