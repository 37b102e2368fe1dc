"""Count what becomes of the keys: for the summary, and for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from workflow.populate.attempt import Outcome
from workflow.populate.clerk import Death
from workflow.populate.jobs_table import Job
from workflow.populate.progress import Progress
from workflow.populate.summary import KeyOutcome, Summary, TableOutcome


class Tally:
    """Fills in a summary while the work goes on, so that it is right whenever the work ends."""

    def __init__(self, summary: Summary, labels: Sequence[str], progress: Progress) -> None:
        self._summary, self._progress = summary, progress
        self._tables = {label: TableOutcome(label) for label in labels}
        self._outstanding = dict.fromkeys(labels, 0)
        self._spans: dict[str, tuple[float, float]] = {}
        summary.tables.extend(self._tables.values())

    def due(self, label: str, outstanding: int) -> None:
        """So many keys of a table are due and not finished."""
        handled = self._handled(label)
        self._outstanding[label] = outstanding
        self._tables[label].due = handled + outstanding
        self._progress.begin(label, handled + outstanding)

    def wait(self, held: Sequence[int], later: Sequence[int]) -> None:
        """So many keys per table are reserved by other DataJoint clients, and scheduled for later."""
        for table, n_held, n_later in zip(self._tables.values(), held, later, strict=True):
            table.held, table.later = n_held, n_later

    def gather(self, waiting: Mapping[int, dict[str, int]]) -> None:
        """So many keys per table, by index, wait until some other tables are complete, by label."""
        for index, table in enumerate(self._tables.values()):
            table.waits = waiting.get(index, {})

    def ended(self, label: str, job: Job, outcome: Outcome, worker: int) -> None:
        """A worker has finished a key."""
        self._record(
            KeyOutcome(
                label,
                job.key,
                outcome.outcome,
                outcome.started,
                outcome.seconds,
                outcome.reason,
                worker=worker,
                attempts=job.attempts + 1,
            )
        )

    def died(self, label: str, job: Job, death: Death, seconds: float, worker: int) -> None:
        """A worker has died, and that was its key's last attempt: it had been done, or has failed."""
        started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        outcome = Outcome(death.outcome, started, round(seconds, 3), death.message)
        self.ended(label, job, outcome, worker)

    def say(self, line: str) -> None:
        """Tell whoever watches."""
        self._progress.say(line)

    def tick(self) -> None:
        """Time has passed."""
        self._progress.tick()

    def settle(self, left: Sequence[int] | None, max_calls: int | None = None) -> None:
        """The work has ended with so many keys per table left, or nobody knows how many."""
        for position, (label, table) in enumerate(self._tables.items()):
            handled = self._handled(label)
            table.due = handled + left[position] if left is not None else max(table.due, handled)
            if max_calls is not None:
                table.due = min(table.due, max(handled, max_calls))
        self._progress.end()

    def _handled(self, label: str) -> int:
        table = self._tables[label]
        return table.done + table.failed + table.skipped

    def _record(self, key: KeyOutcome) -> None:
        table = self._tables[key.table]
        setattr(table, key.outcome, getattr(table, key.outcome) + 1)
        table.due = max(table.due, self._handled(key.table))
        moment = time.monotonic()
        first, _ = self._spans.get(key.table, (moment - key.seconds, moment))
        first = min(first, moment - key.seconds)
        self._spans[key.table] = first, moment
        table.seconds = round(moment - first, 3)
        self._summary.record(key)
        self._progress.advance(key)
