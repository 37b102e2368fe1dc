"""The supervisor's dealings with the database, on a thread of their own.

The supervisor itself must never wait: it notices deaths and signals. So whatever asks the database goes
through this thread, one request after the other, and the answer comes back to the supervisor's loop.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from workflow.populate import dialect, ledger
from workflow.populate.attempt import steadily
from workflow.populate.claim import Owner, Queue
from workflow.populate.filling import count_statuses, find_due
from workflow.populate.jobs_table import Job
from workflow.populate.liveness import lock_name

#: One machine at a time looks for new keys of the same tables; another waits this long for it (s).
REFRESH_PATIENCE = 120.0
NOBODY: Mapping[int, Any] = MappingProxyType({})


class Census(NamedTuple):
    """What the queues hold."""

    pending: list[int]  # per table
    holders: set[int]  # other crews that have reserved something
    held: list[int]  # per table: reserved by DataJoint clients that are no crews
    later: list[int]  # per table: scheduled for later
    is_filled: bool = True  # False: somebody else was filling them, who may not come to the end of it
    seconds: float = 0.0  # that the database took, without what came before a lost connection


class Death(NamedTuple):
    """What becomes of the key of a worker that died."""

    outcome: str  # again, failed, done (it had stored its results), gone (somebody else has it)
    message: str


@dataclass(frozen=True)
class _Request:
    action: Callable[[], Any]
    then: Callable[[Any], None]


class Clerk:
    """Serve requests in a thread.

    Parameters
    ----------
    queues : sequence of Queue
        All tables of the run, on one connection that only this thread uses from now on.
    owner : Owner
        Who claims.
    retries : int
        How many more tries a key gets whose worker died.
    patience : float
        Seconds to wait for a database that went away.
    """

    def __init__(self, queues: Sequence[Queue], owner: Owner, retries: int, patience: float) -> None:
        self._desk = Desk(queues, owner, retries)
        self._connection = queues[0].connection
        self._patience = patience
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[_Request, Any]] = queue.SimpleQueue()
        self._bell, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.outstanding = 0
        self.hurry = False  # give up instead of waiting for the database
        self.troubled = False  # an answer was lost: we may hold keys that we do not know of
        self._thread = threading.Thread(target=self._serve, name="clerk", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable when there are answers."""
        return self._bell

    def ask(self, action: Callable[[Desk], Any], then: Callable[[Any], None] = lambda answer: None) -> None:
        """Have something done; ``then`` is called with the answer, by `deliver`."""
        self.outstanding += 1
        self._requests.put(_Request(lambda: action(self._desk), then))

    def deliver(self) -> None:
        """Call back for every answer that has come; raises what a request raised."""
        try:
            os.read(self._bell, 512)
        except BlockingIOError:
            return
        while not self._answers.empty():
            request, answer = self._answers.get()
            self.outstanding -= 1
            if isinstance(answer, Exception):
                raise answer
            request.then(answer)

    def leave(self, timeout: float) -> None:
        """Serve what has been asked, call back where there is an answer, and end."""
        self._requests.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():  # the server says neither yes nor no
            self._connection._is_closed = True
        while not self._answers.empty():
            request, answer = self._answers.get()
            if not isinstance(answer, Exception):
                request.then(answer)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            began = time.monotonic()

            def given_up(_: Exception, began: float = began) -> bool:
                self.troubled = True
                return self.hurry or time.monotonic() - began > self._patience

            try:
                answer = steadily(self._connection, request.action, given_up)
            except Exception as error:
                answer = error
            self._answers.put((request, answer))
            os.write(self._rope, b".")


class Desk:
    """What can be asked of the clerk; everything here may be repeated after a lost connection."""

    def __init__(self, queues: Sequence[Queue], owner: Owner, retries: int) -> None:
        self.queues, self.owner, self.retries = queues, owner, retries
        self._connection = queues[0].connection

    def fill(self, dead: Mapping[int, Any], patience: float) -> Census:
        """Prepare the queues for a run: forget what is past, give failed keys another try, and refresh."""
        known = {(index, status) for index, status, _, _ in count_statuses(self.queues)}
        for each in self.queues:
            if {(each.index, status) for status in ("pending", "later", "error", "success")} & known:
                each.tidy()
        if failed := [each for each in self.queues if (each.index, "error") in known]:
            since = self._at_work_since()
            for each in failed:
                each.retry(before=since)
        for each in self.queues:
            if each.waits_for:
                each.withdraw()
        return self.refresh(dead, patience)

    def _at_work_since(self) -> Any:
        """When the first of the crews at work began: what failed since then, failed in this round."""
        return min(
            (
                row["started"]
                for row in ledger.beating(self._connection)
                if row["crew"] != self.owner.crew
                and dialect.is_locked(self._connection, lock_name(int(row["crew"])))
            ),
            default=None,
        )

    def refresh(self, dead: Mapping[int, Any] = NOBODY, patience: float = 0.0) -> Census:
        """Look for new keys in every table, take over what the dead have left, and count.

        Two statements if there is nothing new.
        """
        began = time.monotonic()
        due = find_due(self.queues)
        is_filled = not due or self._insert(due, patience)
        census = self.look(dead)
        return census._replace(is_filled=is_filled, seconds=time.monotonic() - began)

    def _insert(self, due: set[int], patience: float) -> bool:
        """Fill some queues, unless somebody else is doing so for longer than we are patient."""
        deadline = time.monotonic() + patience
        while True:
            with dialect.locked(self._connection, f"refresh {ledger.schema.database}") as mine:
                if mine:
                    for index in sorted(due):
                        self.queues[index].refresh()
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)

    def look(self, dead: Mapping[int, Any] = NOBODY) -> Census:
        """Take over what the dead have left, and count; one statement more than `count` if others work.

        The dead come with their last heartbeats: the database may have been away since they were taken for
        dead, and whoever has beaten since then lives.
        """
        began = time.monotonic()
        census = self._look(dead)
        return census._replace(seconds=time.monotonic() - began)

    def _look(self, dead: Mapping[int, Any]) -> Census:
        census = self.count()
        if not census.holders and not dead:
            return census
        alive = {int(row["crew"]): row["heartbeat"] for row in ledger.beating(self._connection)}
        gone = (census.holders - alive.keys()) | {crew for crew in alive if dead.get(crew) == alive[crew]}
        for crew in sorted(gone):
            self.take_over(crew)
        return self.count() if gone else census

    def count(self) -> Census:
        """Count what is pending, and what others hold, in one statement."""
        pending, held, later = ([0] * len(self.queues) for _ in range(3))
        holders = set()
        for index, status, holder, n in count_statuses(self.queues):
            if status == "reserved" and holder:
                holders.add(holder)
            elif (counts := {"pending": pending, "reserved": held, "later": later}.get(status)) is not None:
                counts[index] += n
        return Census(pending, holders - {self.owner.crew}, held, later)

    def take_over(self, crew: int) -> None:
        """Put back what a dead crew had reserved.

        A key that is known to have been tried when the crew died has used up an attempt. Of the others
        nobody knows which were tried; they are marked, and are noted down when they are tried again.

        Its connections are ended first: of a machine that was unplugged, the server keeps them, with what
        they have locked.
        """
        workers = ledger.unfinished(self._connection, crew)
        parts = ["heart", "clerk", *(f"worker {worker}" for worker in workers)]
        dialect.end_holders(self._connection, [lock_name(crew, part) for part in parts])
        for each in self.queues:
            for job, tried in each.left_by(crew):
                why = "its machine or its supervisor was lost while it was computed"
                if tried:
                    self.died(job, f"the worker ended: {why}", crew=crew)
                else:
                    attempts = f"attempt {job.attempts}: " if job.attempts else ""
                    each.postpone(job, crew, f"{attempts}put back: {why}, or waited for that")
        ledger.written_off(self._connection, crew, "lost: its heart stopped beating")

    def claim(self, table: int, count: int) -> list[Job]:
        """Reserve keys."""
        return self.queues[table].claim(count, self.owner)

    def release(self, jobs: Sequence[Job]) -> None:
        """Put claimed keys back."""
        for each in self.queues:
            if some := [job for job in jobs if job.table == each.index]:
                each.release(some, self.owner.crew)

    def release_all(self) -> Census:
        """Put back whatever this crew still holds; then count what is left."""
        for each in self.queues:
            each.release_all(self.owner.crew)
        return self.count()

    def hired(self, row: Mapping[str, Any]) -> None:
        """Record a new process."""
        ledger.hired([row])

    def retire(self, hands: Sequence[ledger.Hand], verdict: str) -> None:
        """Record how processes ended."""
        ledger.ended(self._connection, hands, verdict)

    def sign_off(self, captain: ledger.Hand, verdict: str) -> None:
        """Record that the crew has ended, with everybody in it."""
        self.retire([captain], verdict)
        ledger.written_off(self._connection, self.owner.crew, "ended with its supervisor")

    def mark(self, job: Job, pid: int) -> None:
        """Note that a suspect key is being tried."""
        self.queues[job.table].mark(job, self.owner.crew, pid)

    def died(self, job: Job, cause: str, *, stack: str = "", pid: int = 0, crew: int | None = None) -> Death:
        """Count an attempt that its worker did not survive."""
        attempt = job.attempts + 1
        message = f"attempt {attempt}: {cause}"
        holder = self.owner.crew if crew is None else crew
        queue = self.queues[job.table]
        if attempt > self.retries:
            ours, verdict = queue.fail(job, holder, pid, message, stack), Death("failed", message)
        else:
            ours, verdict = queue.postpone(job, holder, message), Death("again", message)
        if ours:
            return verdict
        return Death("done" if queue.is_done(job) else "gone", "")
