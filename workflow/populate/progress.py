"""Tell people how far the work is: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

from workflow.populate.summary import KeyOutcome

LINE_INTERVAL = 10.0  # s, between plain lines while all goes well


class Progress:
    """Progress over one table after another.

    Parameters
    ----------
    stream : file, optional
        Where to write; a bar is drawn only if it is a terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._label, self._total, self._count, self._failed = "", 0, 0, 0
        self._began = self._last_line = 0.0

    def begin(self, label: str, total: int) -> None:
        """Start a table with ``total`` keys due."""
        self._label, self._total, self._count, self._failed = label, total, 0, 0
        self._began = self._last_line = time.monotonic()
        if self._stream.isatty():
            self._bar = tqdm(total=total, desc=label, file=self._stream, unit="key")
        else:
            self._say(f"{label}: {total} due" if total else f"{label}: nothing due")

    def advance(self, outcome: KeyOutcome) -> None:
        """One key is finished."""
        self._count += 1
        if outcome.outcome == "failed":
            self._failed += 1
            self._say(f"{self._label}: failed {outcome.key}: {outcome.reason}")
        if self._bar is not None:
            self._bar.update()
        elif self._count == self._total or time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            self._say(
                f"{self._label}: {self._count} of {self._total}, {self._failed} failed{self._time_left()}"
            )

    def end(self) -> None:
        """The table is finished."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, done: int, total: int, what: str) -> None:
        """Plain progress of something that is not a table."""
        self._say(f"{what}: {done} of {total}")

    def _time_left(self) -> str:
        remaining = self._total - self._count
        if not remaining:
            return ""
        seconds = (time.monotonic() - self._began) / self._count * remaining
        return f", about {seconds:.0f} s left"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self._stream.flush()
