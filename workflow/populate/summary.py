"""What a round did, as data: the file that the control node and the report read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMAT = 1

#: Keys of each outcome that are kept one by one; of more, every second one goes, then every second of those.
MOST_KEYS = 2000


@dataclass
class TableOutcome:
    """Counts of one table; ``due`` = ``done`` + ``failed`` + ``skipped`` unless the round was stopped.

    ``seconds`` is the time from the start of its first key to the end of its last. Not among those that are
    due are keys that other DataJoint clients have reserved, ``held``, that are scheduled for ``later``, and
    that gather rows of tables which are not complete: ``waits`` has how many, by the table waited for.
    """

    table: str
    due: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    held: int = 0
    later: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class KeyOutcome:
    """One key: ``outcome`` is ``done``, ``skipped`` (recorded with a reason) or ``failed``."""

    table: str
    key: dict[str, Any]
    outcome: str
    started: str
    seconds: float
    reason: str = ""
    worker: int = 0
    attempts: int = 1


@dataclass
class Summary:
    """One round on one machine.

    The counts in ``tables`` are complete. ``keys`` holds at most `MOST_KEYS` of each outcome, thinned evenly
    over time; ``keys_left_out`` says how many of each outcome it lacks.
    """

    round: str
    commit: str
    version: str
    user: str
    machine: str
    started: str
    ended: str = ""
    exit_code: int = 0
    verdict: str = ""
    message: str = ""
    database: dict[str, Any] = field(default_factory=dict)
    tables: list[TableOutcome] = field(default_factory=list)
    keys: list[KeyOutcome] = field(default_factory=list)
    keys_left_out: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Nothing has been left out yet."""
        self._kept: dict[str, list[KeyOutcome]] = {}
        self._count: dict[str, int] = {}
        self._step: dict[str, int] = {}

    def record(self, key: KeyOutcome) -> None:
        """Add a key, unless there are too many of its outcome already."""
        name = key.outcome
        kept, step, count = self._kept.setdefault(name, []), self._step.get(name, 1), self._count.get(name, 0)
        self._count[name] = count + 1
        if count % step == 0:
            kept.append(key)
            self.keys.append(key)
        if len(kept) > MOST_KEYS:
            del kept[1::2]
            self._step[name] = 2 * step
            self.keys = sorted((each for some in self._kept.values() for each in some), key=_when)
        if left_out := self._count[name] - len(kept):
            self.keys_left_out[name] = left_out

    def total(self, count: str) -> int:
        """Sum one of the counts over the tables."""
        return sum(int(getattr(table, count)) for table in self.tables)

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain data."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the summary as JSON, whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(self.as_dict(), indent=1, default=str) + "\n", encoding="utf-8")
        partial.replace(path)


def _when(key: KeyOutcome) -> str:
    return key.started


def now() -> str:
    """The current time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
