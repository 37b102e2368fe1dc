"""The supervisor: hands keys to workers, notices how they fare, and ends when nothing is due any more.

Everything here happens in one thread that never waits for the database: workers, the nursery and the clerk
are all heard through one selector.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from workflow.populate import machine
from workflow.populate.claim import Job, Queue
from workflow.populate.clerk import Census, Clerk, Death
from workflow.populate.deaths import cause_of_death, last_words
from workflow.populate.ledger import Hand
from workflow.populate.liveness import Heart
from workflow.populate.nursery import Born, Died, Nursery
from workflow.populate.tally import Tally
from workflow.populate.worker import Contract, Ready, Report

TICK = 0.5  # s, between looks at the clock
BATCH_SECONDS = 0.25  # of work that is claimed ahead
MOST_AHEAD = 512  # keys
STALE = 10.0  # s, after which keys that were claimed ahead go back
LEAST_SEARCH = 0.2  # s, between two searches for new keys, and ten times what one takes
PARTING = 5.0  # s, that an idle worker has to go


class CrewError(RuntimeError):
    """Workers cannot be started or kept."""


@dataclass(frozen=True)
class Orders:
    """What the crew is to do, and how."""

    processes: int
    threads: int
    max_calls: int | None = None
    grace: float = 30.0  # s
    deadline: float | None = None  # time.monotonic()
    heartbeat: float = 5.0  # s


@dataclass
class _Table:
    """What is known of one table."""

    queue: Queue
    pending: int = 0
    handed: int = 0
    mean: float | None = None  # s per key

    def learn(self, seconds: float) -> None:
        self.mean = seconds if self.mean is None else 0.8 * self.mean + 0.2 * seconds


@dataclass
class _Member:
    """One worker."""

    number: int
    talk: Connection
    hand: Hand
    last_words: int
    pid: int = 0
    ready: bool = False
    dismissed: bool = False
    job: Job | None = None
    since: float = 0.0


@dataclass
class _Stop:
    """Whether the crew disbands: why, if before the end, and when whoever is left is killed."""

    disbanding: bool = False
    reason: str = ""
    kill_at: float = float("inf")


class Supervisor:
    """Run a crew to the end.

    Parameters
    ----------
    queues : sequence of Queue
        Tables, parents before children.
    orders : Orders
        How.
    clerk, nursery, heart
        Database, workers, liveness.
    tally : Tally
        Told of every key.
    recruit : callable
        Gives the `Hand` and the `Contract` of a new worker of some number.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        orders: Orders,
        clerk: Clerk,
        nursery: Nursery,
        heart: Heart,
        tally: Tally,
        recruit: Callable[[int], tuple[Hand, Contract]],
    ) -> None:
        self._tables = [_Table(queue) for queue in queues]
        self._orders, self._clerk, self._nursery, self._heart = orders, clerk, nursery, heart
        self._tally, self._recruit = tally, recruit
        self._members: dict[int, _Member] = {}
        self._ahead: collections.deque[Job] = collections.deque()
        self._ahead_since = 0.0
        self._stop = _Stop()
        self._signals: list[int] = []
        self._claiming = self._refreshing = False
        self._news = False  # something was completed since the last search began
        self._stuck = False  # keys that were claimed ahead had to be given back: nobody took them
        self._next_search = 0.0
        self._holders: set[int] = set()
        self._next_number = 1
        self._stillborn = 0
        self._oom_kills = machine.oom_kills()
        self._selector = selectors.DefaultSelector()

    # ---- the loop

    def run(self, census: Census) -> str:
        """Work until nothing is due; returns why it was stopped before, or nothing.

        Parameters
        ----------
        census : Census
            What was pending when the queues were filled.

        Raises
        ------
        Exception
            What a request to the database raised in the end.
        CrewError
            If workers cannot be kept.
        """
        bell, rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
        self._selector.register(bell, selectors.EVENT_READ, lambda: os.read(bell, 512))
        self._selector.register(self._clerk, selectors.EVENT_READ, self._clerk.deliver)
        self._selector.register(self._nursery, selectors.EVENT_READ, self._hear_nursery)
        try:
            self._counted(census)
            while not self._is_over():
                for key, _ in self._selector.select(TICK):
                    key.data()
                self._look_at_clock()
                self._assign()
                self._provide()
            return self._stop.reason
        except Exception:
            if not self._stop.reason:
                raise
            return self._stop.reason  # stopped, and the database did not answer any more
        finally:
            self._kill_all()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(bell)
            os.close(rope)

    def hands(self) -> list[Hand]:
        """What the living workers do; asked by the heart, on its thread."""
        return [member.hand for member in list(self._members.values())]

    def _note(self, number: int, _: Any) -> None:
        self._signals.append(number)

    def _is_over(self) -> bool:
        if self._stop.disbanding:
            hung = len(self._signals) > 1 and time.monotonic() > self._stop.kill_at + PARTING
            return hung or not (self._members or self._clerk.outstanding)
        if not self._is_idle():
            return False
        if self._clerk.troubled:  # we may hold keys that we do not know of
            self._clerk.troubled = False
            self._clerk.ask(lambda desk: desk.release_all(), self._counted)
            return False
        self._disband("", PARTING)
        return False

    def _is_idle(self) -> bool:
        """Whether nothing is due, and nobody will leave anything behind."""
        return not (
            self._clerk.outstanding
            or self._ahead
            or self._news
            or any(member.job for member in self._members.values())
            or any(self._wanted(table) > 0 for table in self._tables)
            or self._holders & (self._heart.others.silent | self._heart.others.dead)
        )

    # ---- clocks and signals

    def _look_at_clock(self) -> None:
        moment = time.monotonic()
        if self._signals:
            self._disband(signal.Signals(self._signals[0]).name, self._orders.grace)
            if len(self._signals) > 1:
                self._stop.kill_at = min(self._stop.kill_at, moment)
        if self._orders.deadline is not None and moment >= self._orders.deadline:
            self._disband("its deadline", self._orders.grace)
        if moment >= self._stop.kill_at:
            self._clerk.hurry = True
            self._kill_all()
        if self._ahead and moment - self._ahead_since > STALE:
            self._give_back()
            self._stuck = True
        if self._heart.error is not None:
            raise self._heart.error
        machine.reap_orphans(self._nursery.pid)
        self._tally.tick()

    def _disband(self, reason: str, grace: float) -> None:
        """Hand out nothing more; let everybody finish and go."""
        if self._stop.disbanding:
            return
        self._stop = _Stop(True, reason, time.monotonic() + grace)
        if reason:
            self._tally.say(f"stopping ({reason}): keys in hand have {grace:g} s; a second signal stops now")
        self._give_back()
        for member in self._members.values():
            if member.job is None:
                self._dismiss(member)

    def _give_back(self) -> None:
        jobs = list(self._ahead)
        self._ahead.clear()
        for job in jobs:
            self._tables[job.table].handed -= 1
            self._tables[job.table].pending += 1
        if jobs:
            self._clerk.ask(lambda desk: desk.release(jobs))

    def _kill_all(self) -> None:
        for member in self._members.values():
            if member.pid:
                _kill(member.pid)

    # ---- hearing

    def _hear_nursery(self) -> None:
        report = self._nursery.report()
        if report is None:
            raise CrewError("the process that starts workers was killed")
        member = self._members[report.number]
        if isinstance(report, Born):
            member.pid = member.hand.pid = report.pid
            return
        self._bury(member, report)

    def _hear(self, member: _Member) -> None:
        if member.talk.closed:  # buried a moment ago, in the same round of the loop
            return
        try:
            message = member.talk.recv()
        except (EOFError, OSError):  # it is dead; the nursery will say how it died
            self._silence(member)
            return
        self._handle(member, message)
        if self._stop.disbanding:
            self._dismiss(member)

    def _handle(self, member: _Member, message: Ready | Report) -> None:
        if isinstance(message, Report):
            self._finished(member, message)
        else:
            member.ready = True
            self._stillborn = 0

    def _finished(self, member: _Member, report: Report) -> None:
        job, outcome = member.job, report.outcome
        assert job is not None  # noqa: S101
        member.job, member.hand.doing, self._stuck = None, "", False
        member.hand.peak_memory = max(member.hand.peak_memory, report.peak_memory)
        table = self._tables[job.table]
        table.learn(outcome.seconds)
        if outcome.outcome == "gone":
            return
        self._news = self._news or outcome.outcome != "failed"
        counter = f"n_{outcome.outcome}"
        setattr(member.hand, counter, getattr(member.hand, counter) + 1)
        self._tally.ended(table.queue.label, job, outcome, member.number)

    def _silence(self, member: _Member) -> None:
        if member.talk.fileno() in self._selector.get_map():
            self._selector.unregister(member.talk)

    def _bury(self, member: _Member, report: Died) -> None:
        """Count a worker's death against the key that it had in hand."""
        self._silence(member)
        with contextlib.suppress(EOFError, OSError):
            while member.talk.poll():  # what it said before it died
                self._handle(member, member.talk.recv())
        member.talk.close()
        stack = last_words(member.last_words)
        del self._members[member.number]
        member.hand.peak_memory = max(member.hand.peak_memory, report.peak_memory)
        kills = machine.oom_kills()
        verdict = cause_of_death(report.status, member.hand.peak_memory, kills > self._oom_kills)
        self._oom_kills = kills
        hand = member.hand
        self._clerk.ask(lambda desk: desk.retire([hand], verdict))
        if not member.ready:
            self._stillborn += 1
            if self._stillborn > 3 + self._orders.processes:
                raise CrewError(f"workers end as soon as they start: the last one {verdict}")
        job = member.job
        if job is None:
            return
        if self._stop.disbanding:
            self._clerk.ask(lambda desk: desk.release([job]))
            return
        table = self._tables[job.table]
        seconds, pid = time.monotonic() - member.since, report.pid

        def counted(death: Death) -> None:
            if death.outcome == "again":
                table.handed -= 1
            if death.outcome in {"again", "done"}:
                self._news = True
            if death.outcome in {"failed", "done"}:
                setattr(hand, f"n_{death.outcome}", getattr(hand, f"n_{death.outcome}") + 1)
                self._tally.died(table.queue.label, job, death, seconds, member.number)

        self._tally.say(f"worker {member.number} {verdict} ({table.queue.label} {job.key})")
        self._clerk.ask(lambda desk: desk.died(job, f"the worker {verdict}", stack=stack, pid=pid), counted)

    # ---- giving work

    def _wanted(self, table: _Table) -> int:
        """Keys of a table that are pending and may still be claimed in this run."""
        if self._orders.max_calls is None:
            return table.pending
        return min(table.pending, self._orders.max_calls - table.handed)

    def _assign(self) -> None:
        if self._stop.disbanding:
            return
        for member in list(self._members.values()):
            if self._ahead and member.ready and member.pid and member.job is None:
                self._give(member, self._ahead.popleft())

    def _give(self, member: _Member, job: Job) -> None:
        member.job, member.since = job, time.monotonic()
        self._ahead_since = member.since
        member.hand.doing = f"{self._tables[job.table].queue.label} {job.key}"[:512]
        if job.suspect:  # say first that it is tried now: it may take this whole machine with it
            pid = member.pid
            self._clerk.ask(lambda desk: desk.mark(job, pid), lambda _: self._send(member, job))
        else:
            self._send(member, job)

    def _send(self, member: _Member, job: Job) -> None:
        if member.job is not job:
            return
        try:
            member.talk.send(job)
        except OSError:  # it died while it was idle
            member.job = None
            self._ahead.appendleft(job)

    def _provide(self) -> None:
        """Claim keys for idle workers and a little ahead; search for new ones when there are none."""
        if self._stop.disbanding:
            return
        idle = sum(member.job is None for member in self._members.values())
        self._hire()
        if not self._claiming:
            table = next((table for table in self._tables if self._wanted(table) > 0), None)
            if table is not None:
                self._claim(table, idle)
                return
        if not self._claiming and not self._ahead and (idle or not self._members):
            self._search()

    def _claim(self, table: _Table, idle: int) -> None:
        crew = max(1, len(self._members))
        ahead = min(MOST_AHEAD, round(crew * BATCH_SECONDS / max(table.mean, 1e-4))) if table.mean else 0
        ahead = 0 if self._stuck else ahead
        if len(self._ahead) > ahead // 2 or (not idle and not ahead):
            return
        count = min(self._wanted(table), max(1, idle + ahead - len(self._ahead)))
        self._claiming = True

        def claimed(jobs: list[Job]) -> None:
            self._claiming = False
            table.handed += len(jobs)
            table.pending = table.pending - len(jobs) if len(jobs) == count else 0
            if not self._ahead:
                self._ahead_since = time.monotonic()
            self._ahead.extend(jobs)
            if self._stop.disbanding:
                self._give_back()

        index = table.queue.index
        self._clerk.ask(lambda desk: desk.claim(index, count), claimed)

    def _search(self) -> None:
        """Look for keys that have become due, or that somebody who died has left."""
        others = self._heart.others
        if self._refreshing or not (self._news or self._holders & (others.silent | others.dead)):
            return
        if time.monotonic() < self._next_search:
            return
        dead, news = sorted(others.dead), self._news
        self._refreshing, self._news = True, False
        began = time.monotonic()

        def searched(census: Census) -> None:
            self._refreshing = False
            ended = time.monotonic()
            self._next_search = ended + LEAST_SEARCH + 10 * (ended - began)
            self._counted(census)

        self._clerk.ask(lambda desk: desk.refresh(dead) if news else desk.look(dead), searched)

    def _counted(self, census: Census) -> None:
        held = [*self._ahead, *(member.job for member in self._members.values() if member.job)]
        in_hand = collections.Counter(job.table for job in held)
        for table, pending in zip(self._tables, census.pending, strict=True):
            table.pending = pending
            self._tally.due(table.queue.label, self._wanted(table) + in_hand[table.queue.index])
        self._holders = census.holders

    # ---- hiring

    def _hire(self) -> None:
        """Have a worker for every key that could be computed now, up to the limit."""
        work = len(self._ahead) + sum(self._wanted(table) for table in self._tables)
        busy = sum(member.job is not None for member in self._members.values())
        while len(self._members) < min(self._orders.processes, busy + work):
            number = self._next_number
            self._next_number += 1
            hand, contract = self._recruit(number)
            words = os.memfd_create(f"worker {number}")
            talk = Connection(self._nursery.spawn(number, words, contract).detach())
            member = _Member(number, talk, hand, words)
            self._members[number] = member
            self._selector.register(talk, selectors.EVENT_READ, functools.partial(self._hear, member))

    def _dismiss(self, member: _Member) -> None:
        """Let an idle worker go."""
        if member.dismissed:
            return
        member.dismissed = True
        with contextlib.suppress(OSError):  # it is dead already
            member.talk.send(None)


def _kill(pid: int) -> None:
    """Kill a worker and whatever it has started."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
