"""What the supervisor knows of the tables, and the keys that it has claimed ahead.

Keys are claimed in batches that hold about `BATCH_SECONDS` of work, as the last keys have taken: hundreds of
quick ones at once, so that statements per key stay few, but no slow one before a worker is free for it.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workflow.populate.claim import Queue
from workflow.populate.jobs_table import Job

BATCH_SECONDS = 0.25
MOST_AHEAD = 512  # keys
STALE = 10.0  # s, after which keys that nobody has taken go back


@dataclass
class Shelf:
    """One table: keys that are pending, those handed out so far, and the mean time per key (s)."""

    queue: Queue
    pending: int = 0
    handed: int = 0
    mean: float | None = None


class Stock:
    """Keys to give to workers.

    Parameters
    ----------
    queues : sequence of Queue
        Tables, parents before children.
    max_calls : int, optional
        At most so many keys of each table.
    """

    def __init__(self, queues: Sequence[Queue], max_calls: int | None) -> None:
        self.shelves = [Shelf(queue) for queue in queues]
        self.ahead: collections.deque[Job] = collections.deque()
        self._max_calls = max_calls
        self._touched = 0.0
        self._stuck = False  # keys had to be given back: nobody took them

    def label(self, job: Job) -> str:
        """The table of a key."""
        return self.shelves[job.table].queue.label

    def wanted(self, shelf: Shelf) -> int:
        """Keys of a table that are pending and may still be claimed."""
        if self._max_calls is None:
            return shelf.pending
        return min(shelf.pending, self._max_calls - shelf.handed)

    def work(self) -> int:
        """Keys that could be given to a worker now, or after a claim."""
        return len(self.ahead) + sum(max(0, self.wanted(shelf)) for shelf in self.shelves)

    def next_claim(self, idle: int, crew: int) -> tuple[int, int] | None:
        """Which table to claim from, and how many keys; None if there is no need, or nothing pending."""
        shelf = next((shelf for shelf in self.shelves if self.wanted(shelf) > 0), None)
        if shelf is None:
            return None
        ahead = 0
        if shelf.mean is not None and not self._stuck:
            ahead = min(MOST_AHEAD, round(max(1, crew) * BATCH_SECONDS / max(shelf.mean, 1e-4)))
        if len(self.ahead) > ahead // 2 or (crew and not idle and not ahead):
            return None
        count = max(1, idle + ahead - len(self.ahead))
        return shelf.queue.index, min(self.wanted(shelf), count)

    def claimed(self, table: int, asked: int, jobs: Iterable[Job]) -> bool:
        """Take claimed keys in; False if they were fewer than were asked for."""
        if not self.ahead:
            self._touched = time.monotonic()
        some = list(jobs)
        self.ahead.extend(some)
        shelf = self.shelves[table]
        shelf.handed += len(some)
        shelf.pending = max(0, shelf.pending - len(some)) if len(some) == asked else 0
        return len(some) == asked

    def take(self) -> Job:
        """Hand out the next key."""
        self._touched = time.monotonic()
        return self.ahead.popleft()

    def put_back(self, job: Job) -> None:
        """A key that was handed out was not started."""
        self.ahead.appendleft(job)

    def give_back(self, *, only_stale: bool = False) -> list[Job]:
        """Let go of the keys that were claimed ahead."""
        if only_stale:
            if not self.ahead or time.monotonic() - self._touched < STALE:
                return []
            self._stuck = True
        jobs = list(self.ahead)
        self.ahead.clear()
        for job in jobs:
            self.shelves[job.table].handed -= 1
            self.shelves[job.table].pending += 1
        return jobs

    def finished(self, job: Job, seconds: float) -> None:
        """A key has taken so long."""
        shelf = self.shelves[job.table]
        shelf.mean = seconds if shelf.mean is None else 0.8 * shelf.mean + 0.2 * seconds
        self._stuck = False
