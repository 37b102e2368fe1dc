"""Bring a supervisor and its workers together for one run, and apart again."""

from __future__ import annotations

import functools
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datajoint as dj

from workflow.pipeline.connection import another_connection
from workflow.populate import dialect, ledger, machine
from workflow.populate.attempt import reopen, steadily
from workflow.populate.claim import Owner, Queue
from workflow.populate.clerk import REFRESH_PATIENCE, Census, Clerk, Desk
from workflow.populate.filling import count_waiting
from workflow.populate.gathering import let_gatherers_wait
from workflow.populate.jobs_table import FIRST_CREW
from workflow.populate.liveness import Heart, Watch, lock_name
from workflow.populate.nursery import Nursery
from workflow.populate.progress import Progress
from workflow.populate.stopping import Stopped, deaf
from workflow.populate.summary import Summary
from workflow.populate.supervisor import Orders, Supervisor
from workflow.populate.tally import Tally
from workflow.populate.worker import Contract, work

FAREWELL = 10.0  # s, for the last statements of a run that was stopped
SETTLING = 30.0  # s, for those of a run that has come to its end


@dataclass(frozen=True)
class Terms:
    """How a run is to be done.

    Attributes
    ----------
    processes : int, optional
        Workers; by default as many as there are cores and memory for.
    max_calls : int, optional
        At most so many keys of each table.
    deadline : float
        When to stop, as ``time.monotonic()`` counts.
    retries : int
        More tries for a key whose worker died.
    grace, heartbeat, patience : float
        Seconds that a key in hand has when the run is stopped, between two heartbeats, and that a database
        which went away is waited for.
    image : str
        What the container was made of.
    """

    processes: int | None = None
    max_calls: int | None = None
    deadline: float = math.inf
    retries: int = 2
    grace: float = 30.0
    heartbeat: float = 5.0
    patience: float = 300.0
    image: str = ""

    def patience_left(self) -> float:
        """Seconds that a database which goes away now is waited for: not beyond the deadline."""
        return max(0.0, min(self.patience, self.deadline - time.monotonic()))


def populate(
    tables: Mapping[str, Any],
    where: list[Any],
    summary: Summary,
    progress: Progress,
    terms: Terms,
    served: Mapping[str, Any],
) -> str:
    """Compute what is due in every table, and what becomes due by that.

    Parameters
    ----------
    tables : mapping of str to table
        Label and table, parents before children; all on DataJoint's own connection.
    where : list
        Restriction of the keys, as `plan.parse_restriction` gives it.
    summary : Summary
        Filled in while the work goes on.
    progress : Progress
        Told of every key.
    terms : Terms
        How.
    served : mapping of str to table
        All tables, these among them: what gathers rows waits for tables that are not computed now, too.

    Returns
    -------
    str
        What stopped it before the end; empty if nothing is due any more.
    """
    tally = Tally(summary, list(tables), progress)
    if not tables:
        return ""
    connection = dj.conn()
    dj.config["database.reconnect"] = False  # who has lost a connection must know of it
    connection.for_queues, connection.lock_name = True, ""
    dialect.prepare_session(connection)
    dialect.limit_waits(connection)
    queues = [Queue(index, label, table, where) for index, (label, table) in enumerate(tables.items())]
    let_gatherers_wait(queues, served)
    crew = _number()
    owner = Owner(crew, summary.machine, os.getpid(), connection.get_user(), summary.commit)
    given_up_at = time.monotonic() + terms.patience_left()
    census, others = steadily(
        connection,
        lambda: _fill(queues, Desk(queues, owner, terms.retries), crew, terms),
        lambda _: time.monotonic() > given_up_at,
    )
    tally.wait(census.held, census.later)
    for queue, pending in zip(queues, census.pending, strict=True):
        tally.due(queue.label, pending if terms.max_calls is None else min(pending, terms.max_calls))
    if census.is_filled and not any(census.pending) and not census.holders & others:
        tally.gather(count_waiting(queues))
        tally.settle([0] * len(queues))
        return ""
    if time.monotonic() >= terms.deadline:
        tally.settle(census.pending, terms.max_calls)
        return "its deadline"
    for queue in queues:
        _prepare(queue)
    connection.close()
    nursery = Nursery(functools.partial(work, queues))
    connection.lock_name = lock_name(crew, "clerk")
    try:
        reopen(connection)
        return _supervise(queues, owner, census, summary, tally, terms, nursery)
    finally:
        nursery.close()


def _number() -> int:
    """A number that no other process has, and no server gives to a connection."""
    return FIRST_CREW + secrets.randbelow(2**62)


def _fill(queues: Sequence[Queue], desk: Desk, crew: int, terms: Terms) -> tuple[Census, frozenset[int]]:
    """Put what is due into the queues; returns the census, and crews that are not known to live."""
    others = Watch(queues[0].connection, crew, terms.heartbeat).look()
    patience = min(REFRESH_PATIENCE, terms.deadline - time.monotonic())
    return desk.fill(others.dead, patience), others.silent


def _prepare(queue: Queue) -> None:
    """Load what every worker would otherwise ask the server for."""
    for table in (queue.table, *queue.table.parts(as_objects=True)):
        _ = table.heading.attributes


def _supervise(
    queues: Sequence[Queue],
    owner: Owner,
    census: Census,
    summary: Summary,
    tally: Tally,
    terms: Terms,
    nursery: Nursery,
) -> str:
    processes, threads = staffing([queue.table for queue in queues], terms.processes)
    recruiter = _Recruiter(summary, owner.crew, threads, terms.image)
    ledger.hired([recruiter.row(owner.crew, 0, os.getpid())])
    captain = ledger.Hand(owner.crew, os.getpid())
    clerk = Clerk(queues, owner, terms.retries, terms.patience)
    crew: list[Supervisor] = []

    def hands() -> list[ledger.Hand]:
        return [captain, *(hand for supervisor in crew for hand in supervisor.hands())]

    heart = Heart(another_connection, owner.crew, terms.heartbeat, terms.patience, hands)
    orders = Orders(processes, terms.max_calls, terms.grace, terms.deadline)
    recruit = functools.partial(recruiter.recruit, clerk.ask)
    stopped = "an error"
    try:
        crew.append(Supervisor(queues, orders, clerk, nursery, heart, tally, recruit))
        heart.start()
        stopped = crew[0].run(census)
    except Stopped as stop:  # before the supervisor heard signals itself
        stopped = str(stop)
        raise
    finally:
        with deaf():
            heart.leave()
            if not stopped:
                clerk.ask(lambda desk: count_waiting(desk.queues), tally.gather)
            left = _leave(clerk, captain, stopped, summary)
            heart.stop()
            nothing = None if stopped else [0] * len(queues)
            tally.settle(left.pending if left else nothing, terms.max_calls)
    return stopped


def _leave(clerk: Clerk, captain: ledger.Hand, stopped: str, summary: Summary) -> Census | None:
    """Sign off, and give back what is still reserved; what is due then, if that was done."""
    answers: list[Census] = []
    captain.n_done, captain.n_failed, captain.n_skipped = (
        summary.total(count) for count in ("done", "failed", "skipped")
    )
    clerk.hurry = bool(stopped)
    if stopped:
        clerk.ask(lambda desk: desk.release_all(), answers.append)
    verdict = f"stopped by {stopped}" if stopped else "ended"
    clerk.ask(lambda desk: desk.sign_off(captain, verdict))
    clerk.leave(FAREWELL if stopped else SETTLING)
    return answers[0] if answers else None


def staffing(tables: Sequence[Any], wanted: int | None) -> tuple[int, int]:
    """How many workers there are to be, and how many threads each has for linear algebra.

    A table says by a class attribute ``worker_memory`` how many bytes one call of its ``make`` may take.
    """
    cores = machine.cores()
    processes = wanted or cores
    if wanted is None:  # only then are the tables asked, who may ask the database
        need = max((int(getattr(table, "worker_memory", 0)) for table in tables), default=0)
        processes = max(1, min(processes, machine.free_memory() // need)) if need else processes
    return processes, max(1, cores // processes)


class _Recruiter:
    """Papers for new workers."""

    def __init__(self, summary: Summary, crew: int, threads: int, image: str) -> None:
        self._summary, self._crew, self._threads, self._image = summary, crew, threads, image
        self._place, self._software = machine.place(), machine.software()

    def row(self, worker: int, number: int, pid: int) -> dict[str, Any]:
        """A row of the ledger."""
        return {
            "worker": worker,
            "round": self._summary.round,
            "machine": self._summary.machine,
            "crew": self._crew,
            "number": number,
            "pid": pid,
            "place": self._place,
            "pid_started": machine.started(pid),
            "image": self._image,
            "software": self._software,
        }

    def recruit(self, ask: Callable[..., None], number: int) -> tuple[ledger.Hand, Contract]:
        """Number a new worker and enter it in the ledger."""
        worker = _number()
        row = self.row(worker, number, 0)
        ask(lambda desk: desk.hired(row))
        version = f"{self._summary.commit or 'unknown'} {worker:x}"
        return ledger.Hand(worker), Contract(self._crew, worker, version, self._threads)
