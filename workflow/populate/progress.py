"""Tell people how far the work is: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from tqdm import tqdm

from workflow.populate.summary import KeyOutcome

tqdm.monitor_interval = 0  # it would start a thread, and this process forks

LINE_INTERVAL = 10.0  # s, between plain lines while all goes well
UNKNOWN_SIZE = {
    "ncols": 79,
    "nrows": 24,
}  # of a terminal that says that it has no columns or lines: tqdm would draw nothing
MOST_FAILURES = 50  # of a table that are told one by one


class _Table:
    """How far one table is."""

    def __init__(self) -> None:
        self.total = self.count = self.failed = 0
        self.began = time.monotonic()


class Progress:
    """Progress over several tables at once.

    Parameters
    ----------
    stream : file, optional
        Where to write; a bar is drawn only if it is a terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._tables: dict[str, _Table] = {}
        self._changed: set[str] = set()
        self._last_line = time.monotonic()

    def begin(self, label: str, total: int) -> None:
        """So many keys of a table are done or due."""
        known = label in self._tables
        table = self._tables.setdefault(label, _Table())
        if known and total == table.total:
            return
        grown, table.total = total > table.total, total
        if self._stream.isatty():
            self._draw(sum(each.total for each in self._tables.values()), "key")
        elif grown and total > table.count:
            more = f" ({total - table.count} left)" if table.count else ""
            self.say(f"{label}: {total} due{more}")
        elif not known:
            self.say(f"{label}: nothing due")

    def advance(self, outcome: KeyOutcome) -> None:
        """One key is finished."""
        table = self._tables.setdefault(outcome.table, _Table())
        table.count += 1
        if outcome.outcome == "failed":
            table.failed += 1
            if table.failed <= MOST_FAILURES:
                self.say(f"{outcome.table}: failed {outcome.key}: {outcome.reason}")
            if table.failed == MOST_FAILURES:
                self.say(
                    f"{outcome.table}: further failures are only counted; 'run_workflow errors' lists them"
                )
        if self._bar is not None:
            self._bar.set_description_str(outcome.table, refresh=False)
            self._bar.update()
            return
        self._changed.add(outcome.table)
        if table.count == table.total:
            self._line(outcome.table)

    def tick(self) -> None:
        """Say where the work is, if it is time."""
        if self._changed and time.monotonic() - self._last_line >= LINE_INTERVAL:
            for label in sorted(self._changed):
                self._line(label)

    def end(self) -> None:
        """The work has ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, done: int, total: int, what: str) -> None:
        """So much of something that is not a table is done."""
        if not self._stream.isatty():
            self.say(f"{what}: {done} of {total}")
            return
        self._draw(total, f" {what}")
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def say(self, line: str) -> None:
        """Write a line."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self._stream.flush()

    def _draw(self, total: int, unit: str) -> None:
        """Have a bar of so many units, once there is anything to do."""
        if self._bar is None and total:
            size = {} if all(os.get_terminal_size(self._stream.fileno())) else UNKNOWN_SIZE
            self._bar = tqdm(total=total, file=self._stream, unit=unit, **size)
        elif self._bar is not None and self._bar.total != total:
            self._bar.total = total
            self._bar.refresh()

    def _line(self, label: str) -> None:
        table = self._tables[label]
        self._last_line = time.monotonic()
        self._changed.discard(label)
        remaining = table.total - table.count
        left = ""
        if remaining > 0:
            left = f", about {(time.monotonic() - table.began) / table.count * remaining:.0f} s left"
        self.say(f"{label}: {table.count} of {table.total}, {table.failed} failed{left}")
