"""What a round did, as data: the file that the control node and the report read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass
class TableOutcome:
    """Counts of one table; ``due`` = ``done`` + ``failed`` + ``skipped`` unless the round was stopped."""

    table: str
    due: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
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


@dataclass
class Summary:
    """One round on one machine."""

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
    format: int = FORMAT

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


def now() -> str:
    """The current time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
