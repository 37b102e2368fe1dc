"""The workers of a crew: hired, heard, given keys, dismissed, killed and buried."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from workflow.populate import machine
from workflow.populate.deaths import cause_of_death, last_words
from workflow.populate.jobs_table import Job
from workflow.populate.ledger import Hand
from workflow.populate.nursery import Born, Died, Nursery
from workflow.populate.worker import Contract, Ready, Report

#: Workers in a row that may die before they are connected.
MOST_STILLBORN = 10


class CrewError(RuntimeError):
    """Workers cannot be started or kept."""


@dataclass
class Member:
    """One worker."""

    number: int
    talk: Connection
    hand: Hand
    words: int  # the file for its last words
    pid: int = 0
    ready: bool = False
    dismissed: bool = False
    job: Job | None = None
    since: float = 0.0

    @property
    def free(self) -> bool:
        """Whether it waits for a key."""
        return self.ready and bool(self.pid) and self.job is None and not self.dismissed


@dataclass(frozen=True)
class Obituary:
    """How a worker died, and with which key."""

    member: Member
    verdict: str
    stack: str
    job: Job | None
    seconds: float


class Roster:
    """All workers of a crew.

    Parameters
    ----------
    nursery : Nursery
        Where they come from.
    selector : selectors.BaseSelector
        Of the supervisor's loop; the data of its keys are called when they are ready.
    recruit : callable
        Gives the `Hand` and the `Contract` of a new worker of some number.
    on_report, on_death : callable
        Told of finished keys, and of deaths.
    """

    def __init__(
        self,
        nursery: Nursery,
        selector: selectors.BaseSelector,
        recruit: Callable[[int], tuple[Hand, Contract]],
        on_report: Callable[[Member, Job, Report], None],
        on_death: Callable[[Obituary], None],
    ) -> None:
        self._nursery, self._selector, self._recruit = nursery, selector, recruit
        self._on_report, self._on_death = on_report, on_death
        self._members: dict[int, Member] = {}
        self._hired = self._stillborn = 0
        self._oom_kills = machine.oom_kills()
        selector.register(nursery, selectors.EVENT_READ, self._hear_nursery)

    def __len__(self) -> int:
        """How many are alive, as far as is known."""
        return len(self._members)

    def members(self) -> list[Member]:
        """Everybody who is alive, as far as is known."""
        return list(self._members.values())

    def jobs(self) -> list[Job]:
        """Keys in hand."""
        return [member.job for member in self.members() if member.job is not None]

    def hire(self) -> None:
        """Have one more worker."""
        self._hired += 1
        hand, contract = self._recruit(self._hired)
        words = os.memfd_create(f"worker {self._hired}")
        talk = Connection(self._nursery.spawn(self._hired, words, contract).detach())
        member = Member(self._hired, talk, hand, words)
        self._members[self._hired] = member
        self._selector.register(talk, selectors.EVENT_READ, functools.partial(self._hear, member))

    def send(self, member: Member, job: Job) -> bool:
        """Have a worker start a key; False if it has died meanwhile."""
        try:
            member.talk.send(job)
        except OSError:
            member.job = None
            return False
        return True

    def dismiss(self) -> None:
        """Let idle workers go."""
        for member in self.members():
            if not member.dismissed and member.job is None:
                member.dismissed = True
                with contextlib.suppress(OSError):  # it is dead already
                    member.talk.send(None)

    def kill(self) -> None:
        """Kill everybody, with whatever they have started."""
        for member in self.members():
            for end in (os.killpg, os.kill) if member.pid else ():
                with contextlib.suppress(ProcessLookupError):
                    end(member.pid, signal.SIGKILL)

    # ---- hearing

    def _hear_nursery(self) -> None:
        report = self._nursery.report()
        if report is None:
            raise CrewError("the process that starts workers was killed")
        member = self._members[report.number]
        if isinstance(report, Born):
            member.pid = member.hand.pid = report.pid
        else:
            self._bury(member, report)

    def _hear(self, member: Member) -> None:
        if member.talk.closed:  # buried a moment ago, in the same round of the loop
            return
        try:
            message = member.talk.recv()
        except (EOFError, OSError):  # it is dead; the nursery will say how it died
            self._silence(member)
            return
        self._handle(member, message)

    def _handle(self, member: Member, message: Ready | Report) -> None:
        if isinstance(message, Ready):
            member.ready = True
            self._stillborn = 0
        elif member.job is not None:
            job, member.job, member.hand.doing = member.job, None, ""
            member.hand.peak_memory = max(member.hand.peak_memory, message.peak_memory)
            self._on_report(member, job, message)

    def _silence(self, member: Member) -> None:
        if member.talk.fileno() in self._selector.get_map():
            self._selector.unregister(member.talk)

    def _bury(self, member: Member, report: Died) -> None:
        self._silence(member)
        with contextlib.suppress(EOFError, OSError):
            while member.talk.poll():  # what it said before it died
                self._handle(member, member.talk.recv())
        member.talk.close()
        stack = last_words(member.words)
        del self._members[member.number]
        member.hand.peak_memory = max(member.hand.peak_memory, report.peak_memory)
        kills = machine.oom_kills()
        verdict = cause_of_death(report.status, member.hand.peak_memory, kills > self._oom_kills)
        self._oom_kills = kills
        seconds = time.monotonic() - member.since
        job, member.job = member.job, None  # it must not be handed to the dead once more
        self._on_death(Obituary(member, verdict, stack, job, seconds))
        if not member.ready:
            self._stillborn += 1
            if self._stillborn > MOST_STILLBORN:
                raise CrewError(f"workers end as soon as they start: the last one {verdict}")
