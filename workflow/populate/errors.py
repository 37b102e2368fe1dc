"""Failed keys: list them by cause, try them again, or leave them alone.

Errors live in DataJoint's jobs tables, so other clients see them, and they are gone when the key is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datajoint.blob import unpack

from workflow.populate import ledger
from workflow.populate.claim import Queue
from workflow.populate.jobs_table import attempts_of

_KEPT = 300  # letters of a cause


@dataclass(frozen=True)
class Failure:
    """One failed key, as the jobs table has it."""

    table: str
    key: dict[str, Any]
    status: str  # error, or ignore
    message: str
    attempts: int
    failed: str  # when, server time
    host: str
    worker: str  # number within its round and the round, or empty
    commit: str
    traceback: str


@dataclass
class Cause:
    """Failures of one table that say the same but for numbers and names."""

    table: str
    cause: str
    failures: list[Failure] = field(default_factory=list)


def queues_of(tables: Mapping[str, Any], where: list[Any]) -> list[Queue]:
    """Queues of some tables."""
    return [Queue(index, label, table, where) for index, (label, table) in enumerate(tables.items())]


def failures(queues: Sequence[Queue], *, ignored: bool = False) -> list[Failure]:
    """Failed keys of some queues, the latest last.

    Parameters
    ----------
    queues : sequence of Queue
        Their restriction applies.
    ignored : bool
        List parked keys too.
    """
    found: list[Failure] = []
    workers: dict[tuple[int, int], str] = {}
    for queue in queues:
        for key, row in queue.failed(("error", "ignore") if ignored else ("error",)):
            crew = int(row["connection_id"])
            if (crew, 0) not in workers:
                workers |= _workers(queue.connection, crew)
            worker = workers.get((crew, int(row["pid"])), workers[crew, 0])
            stack = unpack(row["error_stack"]) if row["error_stack"] else ""
            found.append(
                Failure(
                    queue.label,
                    key,
                    row["status"],
                    row["error_message"],
                    max(1, attempts_of(row["error_message"])),
                    str(row["completed_time"] or ""),
                    row["host"],
                    worker,
                    row["version"],
                    str(stack),
                )
            )
    return sorted(found, key=lambda failure: failure.failed)


def _workers(connection: Any, crew: int) -> dict[tuple[int, int], str]:
    """Process ids of a crew, as the ledger has them; pid 0 stands for those it has not."""
    rows = connection.query(
        f"SELECT pid, number, round FROM {ledger.Worker.full_table_name} WHERE crew = %s", (crew,)
    ).fetchall()
    named = {(crew, int(pid)): f"{number} of {name}" for pid, number, name in rows if pid}
    return {(crew, 0): ""} | named


def by_cause(found: Sequence[Failure]) -> list[Cause]:
    """Group failures that say the same, the most frequent first."""
    causes: dict[tuple[str, str], Cause] = {}
    for failure in found:
        name = cause(failure.message)
        causes.setdefault((failure.table, name), Cause(failure.table, name)).failures.append(failure)
    return sorted(causes.values(), key=lambda each: -len(each.failures))


def cause(message: str) -> str:
    """A message without what differs from key to key: numbers, and what is in quotes or brackets."""
    text = re.sub(r"^attempt \d+: ", "", message)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\{[^{}]*\}|\([^()]*\)|\[[^][]*\]", "…", text)
    text = re.sub(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", text)
    return " ".join(text.split())[:_KEPT]
