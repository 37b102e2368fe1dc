"""The supervisor: hands keys to workers, notices how they fare, and ends when nothing is due any more.

Everything here happens in one thread that never waits for the database: workers, the nursery and the clerk
are all heard through one selector.
"""

from __future__ import annotations

import collections
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.populate import machine
from workflow.populate.claim import Queue
from workflow.populate.clerk import Census, Clerk, Death
from workflow.populate.jobs_table import Job
from workflow.populate.ledger import Hand
from workflow.populate.liveness import Heart, Others
from workflow.populate.nursery import Nursery
from workflow.populate.roster import CrewError, Member, Obituary, Roster
from workflow.populate.stock import Stock
from workflow.populate.stopping import SIGNALS, become_deaf
from workflow.populate.tally import Tally
from workflow.populate.worker import Contract, Report

TICK = 0.5  # s, between looks at the clock
LEAST_SEARCH = 0.2  # s, between two searches for new keys, and as long as the server takes for one
WORKING_SEARCH = 10  # times as long, while keys are in hand
MOST_SEARCH = 30.0  # s, between two searches, however long one takes
PARTING = 5.0  # s, that an idle worker has to go


@dataclass(frozen=True)
class Orders:
    """What the crew is to do: workers, keys per table, seconds to stop in, and when to stop.

    The deadline is as ``time.monotonic()`` counts.
    """

    processes: int
    max_calls: int | None = None
    grace: float = 30.0
    deadline: float = math.inf


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
        self._orders, self._clerk, self._heart, self._tally = orders, clerk, heart, tally
        self._nursery = nursery
        self._selector = selectors.DefaultSelector()
        self._stock = Stock(queues, orders.max_calls)
        self._roster = Roster(nursery, self._selector, recruit, self._finished, self._died)
        self._stop = _Stop()
        self._signals: list[int] = []
        self._claiming = self._searching = False
        self._news = False  # something may have become due since the last search began
        self._searched = -float("inf")  # when the last search ended
        self._search_seconds = 0.0  # that the server took for it
        self._holders: set[int] = set()  # other crews that have reserved something
        self._written_off: dict[int, Any] = {}  # dead ones that have been taken care of: last heartbeats

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
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
        self._selector.register(bell, selectors.EVENT_READ, lambda: os.read(bell, 512))
        self._selector.register(self._clerk, selectors.EVENT_READ, self._clerk.deliver)
        try:
            self._counted(census)
            while not self._is_over():
                for key, _ in self._selector.select(TICK):
                    key.data()
                self._look_at_clock()
                if not self._stop.disbanding:
                    self._hand_out()
                    self._provide()
            return self._stop.reason
        except Exception:
            if not self._stop.reason:
                raise
            return self._stop.reason  # stopped, and the database did not answer any more
        finally:
            self._roster.kill()
            signal.set_wakeup_fd(-1)
            if self._stop.reason:
                become_deaf()  # what is left to do is to sign off
            else:
                for number, handler in before.items():
                    signal.signal(number, handler)
            self._selector.close()
            os.close(bell)
            os.close(rope)

    def hands(self) -> list[Hand]:
        """What the living workers do; asked by the heart, on its thread."""
        return [member.hand for member in self._roster.members()]

    def _note(self, number: int, _: Any) -> None:
        self._signals.append(number)

    def _is_over(self) -> bool:
        if self._stop.disbanding:
            hung = bool(self._stop.reason) and time.monotonic() > self._stop.kill_at + PARTING
            return hung or not (len(self._roster) or self._clerk.outstanding)
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
        others = self._heart.others
        return not (
            self._clerk.outstanding
            or self._news
            or self._stock.work()
            or self._roster.jobs()
            or self._holders & others.silent
            or self._unsettled(others)
        )

    def _unsettled(self, others: Others) -> set[int]:
        """Crews that have died since they were last taken care of: who came back may die again."""
        return {crew for crew, beat in others.dead.items() if self._written_off.get(crew) != beat}

    def _look_at_clock(self) -> None:
        moment = time.monotonic()
        if self._signals:
            self._disband(signal.Signals(self._signals[0]).name, self._orders.grace)
            if len(self._signals) > 1:
                self._stop.kill_at = min(self._stop.kill_at, moment)
        if moment >= self._orders.deadline:
            self._disband("its deadline", self._orders.grace)
        if moment >= self._stop.kill_at:
            self._clerk.hurry = bool(self._stop.reason)  # an orderly end waits for the database
            self._roster.kill()
        self._release(self._stock.give_back(only_stale=True))
        if (trouble := self._heart.trouble()) is not None:
            raise trouble
        machine.reap_orphans(self._nursery.pid)
        self._tally.tick()

    def _disband(self, reason: str, grace: float) -> None:
        """Hand out nothing more; let everybody finish and go."""
        if self._stop.disbanding:
            return
        self._stop = _Stop(True, reason, time.monotonic() + grace)
        if reason:
            self._tally.say(f"stopping ({reason}): keys in hand have {grace:g} s; a second signal stops now")
        self._release(self._stock.give_back())
        self._roster.dismiss()

    def _release(self, jobs: list[Job]) -> None:
        if jobs:
            self._clerk.ask(lambda desk: desk.release(jobs))

    # ---- what workers do

    def _finished(self, member: Member, job: Job, report: Report) -> None:
        outcome = report.outcome
        if outcome.outcome == "unrecorded":
            raise CrewError(outcome.reason)  # no other key could be stored either
        self._stock.finished(job, outcome.seconds)
        self._news = self._news or outcome.outcome != "failed"  # what is gone may be done
        if outcome.outcome != "gone":
            _count(member.hand, outcome.outcome)
            self._tally.ended(self._stock.label(job), job, outcome, member.number)
        if self._stop.disbanding:
            self._roster.dismiss()

    def _died(self, obituary: Obituary) -> None:
        """Count a worker's death against the key that it had in hand."""
        hand, verdict, job = obituary.member.hand, obituary.verdict, obituary.job
        self._clerk.ask(lambda desk: desk.retire([hand], verdict))
        if job is None:
            return
        if self._stop.disbanding:
            self._release([job])
            return
        label, number = self._stock.label(job), obituary.member.number

        def counted(death: Death) -> None:
            if death.outcome == "again":
                self._stock.shelves[job.table].handed -= 1
            self._news = self._news or death.outcome in {"again", "done"}
            if death.outcome in {"failed", "done"}:
                _count(hand, death.outcome)
                self._tally.died(label, job, death, obituary.seconds, number)

        self._tally.say(f"worker {number} {verdict} ({label} {job.key})")
        cause, stack, pid = f"the worker {verdict}", obituary.stack, obituary.member.pid
        self._clerk.ask(lambda desk: desk.died(job, cause, stack=stack, pid=pid), counted)

    # ---- giving work

    def _hand_out(self) -> None:
        """Give keys that are claimed to workers that are free."""
        for member in self._roster.members():
            if self._stock.ahead and member.free:
                self._give(member, self._stock.take())

    def _give(self, member: Member, job: Job) -> None:
        member.job, member.since = job, time.monotonic()
        member.hand.doing = f"{self._stock.label(job)} {job.key}"[:512]

        def send(_: Any = None) -> None:
            if member.job is job and not self._roster.send(member, job):
                self._stock.put_back(job)

        if job.suspect:  # say first that it is tried now: it may take this whole machine with it
            self._clerk.ask(lambda desk: desk.mark(job, member.pid), send)
        else:
            send()

    def _provide(self) -> None:
        """Have workers and keys for them; search for new keys when there are none."""
        busy = len(self._roster.jobs())
        while len(self._roster) < min(self._orders.processes, busy + self._stock.work()):
            self._roster.hire()
        idle = len(self._roster) - busy
        if self._claiming:
            return
        if (claim := self._stock.next_claim(idle, len(self._roster))) is not None:
            self._claim(*claim)
        elif not self._stock.work() and (idle or not len(self._roster)):
            self._search()

    def _claim(self, table: int, count: int) -> None:
        self._claiming = True

        def claimed(jobs: list[Job]) -> None:
            self._claiming = False
            if not self._stock.claimed(table, count, jobs):
                self._news = True  # somebody else has the others, or had: count again before the end
            if self._stop.disbanding:
                self._release(self._stock.give_back())

        self._clerk.ask(lambda desk: desk.claim(table, count), claimed)

    def _search(self) -> None:
        """Look for keys that have become due, or that somebody who died has left."""
        others = self._heart.others
        suspects = (self._holders & others.silent) | self._unsettled(others)
        pause = LEAST_SEARCH + self._search_seconds * (WORKING_SEARCH if self._roster.jobs() else 1)
        if self._searching or time.monotonic() < self._searched + min(MOST_SEARCH, pause):
            return
        if not (self._news or suspects):
            return
        dead, news = dict(others.dead), self._news
        self._searching, self._news = True, False

        def searched(census: Census) -> None:
            self._searching = False
            self._written_off.update(dead)
            self._searched, self._search_seconds = time.monotonic(), census.seconds
            self._counted(census)

        self._clerk.ask(lambda desk: desk.refresh(dead) if news else desk.look(dead), searched)

    def _counted(self, census: Census) -> None:
        held = collections.Counter(job.table for job in [*self._stock.ahead, *self._roster.jobs()])
        for shelf, pending in zip(self._stock.shelves, census.pending, strict=True):
            shelf.pending = pending
            self._tally.due(shelf.queue.label, self._stock.wanted(shelf) + held[shelf.queue.index])
        self._tally.wait(census.held, census.later)
        self._holders = census.holders
        self._news = self._news or not census.is_filled


def _count(hand: Hand, outcome: str) -> None:
    """Add a finished key to what a worker has done."""
    setattr(hand, f"n_{outcome}", getattr(hand, f"n_{outcome}") + 1)
