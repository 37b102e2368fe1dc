"""Who computed what, where, and how it ended: one row per round, one per process that computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import datajoint as dj

from workflow.populate import dialect
from workflow.populate.summary import Summary

schema = dj.Schema()


@schema
class Round(dj.Manual):
    """A round of operation on one machine."""

    definition = """
    # rounds of operation
    round : varchar(64)
    machine : varchar(255)
    ---
    started : varchar(32)  # UTC, ISO 8601
    ended="" : varchar(32)  # UTC, ISO 8601; empty while it runs, or if it was killed
    code_commit="" : varchar(40)
    version="" : varchar(32)
    username="" : varchar(255)
    verdict="" : varchar(16)
    n_due=0 : int32
    n_done=0 : int32
    n_failed=0 : int32
    n_skipped=0 : int32
    """


@schema
class Worker(dj.Manual):
    """A process of a round. Times are the database server's."""

    definition = """
    # processes of rounds: number 0 is the supervisor, the others compute
    worker : int64  # the last word of a row's _job_version, in hexadecimal digits
    ---
    -> Round
    crew : int64  # worker of the supervisor: connection_id in the jobs tables
    number : int16  # within the crew
    pid : int32
    place="" : varchar(128)  # the process table that pid belongs to
    pid_started=0 : int64  # ticks
    image="" : varchar(255)  # what the container was made of
    software="" : varchar(255)  # versions of workflow, Python, DataJoint, NumPy and SciPy
    started=CURRENT_TIMESTAMP(3) : datetime(3)
    heartbeat=CURRENT_TIMESTAMP(3) : datetime(3)
    ended=null : datetime(3)
    doing="" : varchar(512)  # the key in hand, when the heart last beat
    n_done=0 : int32
    n_failed=0 : int32
    n_skipped=0 : int32
    peak_memory=0 : int64  # bytes
    verdict="" : varchar(255)  # how it ended
    INDEX (crew)
    """


@dataclass
class Hand:
    """What is written about a worker at every heartbeat."""

    worker: int
    pid: int = 0
    doing: str = ""
    n_done: int = 0
    n_failed: int = 0
    n_skipped: int = 0
    peak_memory: int = 0

    COUNTS = ("pid", "doing", "n_done", "n_failed", "n_skipped", "peak_memory")


def opened(summary: Summary) -> None:
    """Record that a round begins on this machine."""
    Round.insert1(_row(summary), skip_duplicates=True)


def closed(summary: Summary) -> None:
    """Record how a round ended."""
    Round.update1(
        _row(summary)
        | {
            "ended": summary.ended,
            "verdict": summary.verdict,
            "n_due": summary.total("due"),
            "n_done": summary.total("done"),
            "n_failed": summary.total("failed"),
            "n_skipped": summary.total("skipped"),
        }
    )


def _row(summary: Summary) -> dict[str, str]:
    return {
        "round": summary.round,
        "machine": summary.machine,
        "started": summary.started,
        "code_commit": summary.commit,
        "version": summary.version,
        "username": summary.user,
    }


def hired(rows: Iterable[Mapping[str, Any]]) -> None:
    """Record new processes; a ledger that an earlier commit declared may lack a column."""
    Worker.insert(rows, skip_duplicates=True, ignore_extra_fields=True)


def beat(connection: Any, crew: int, hands: Iterable[Hand]) -> bool:
    """Show that a crew lives, and what its workers do; False if somebody has written it off.

    One statement, however many workers there are.
    """
    written = list(hands)
    assignments, values = [f"heartbeat = {dialect.now(connection)}"], []
    for name in Hand.COUNTS if written else ():
        cases = " ".join(["WHEN %s THEN %s"] * len(written))
        assignments.append(f"{name} = CASE worker {cases} ELSE {name} END")
        for hand in written:
            values += [hand.worker, getattr(hand, name)]
    statement = (
        f"UPDATE {Worker.full_table_name} SET {', '.join(assignments)} WHERE crew = %s AND ended IS NULL"
    )
    return bool(connection.query(statement, (*values, crew)).rowcount)


def ended(connection: Any, hands: Iterable[Hand], verdict: str) -> None:
    """Record how workers ended, together with their last counts."""
    for hand in hands:
        counts = ", ".join(f"{name} = %s" for name in Hand.COUNTS)
        connection.query(
            f"UPDATE {Worker.full_table_name} SET ended = {dialect.now(connection)}, {counts}, verdict = %s "
            "WHERE worker = %s",
            (*(getattr(hand, name) for name in Hand.COUNTS), verdict[:255], hand.worker),
        )


def written_off(connection: Any, crew: int, verdict: str) -> None:
    """End whoever of a crew has not been recorded as ended."""
    connection.query(
        f"UPDATE {Worker.full_table_name} SET ended = {dialect.now(connection)}, verdict = %s "
        "WHERE crew = %s AND ended IS NULL",
        (verdict, crew),
    )


def revived(connection: Any, crew: int, workers: Iterable[int]) -> None:
    """Take back that a crew was written off: its machine was only out of reach."""
    numbers = ", ".join(str(int(worker)) for worker in (crew, *workers))
    connection.query(
        f"UPDATE {Worker.full_table_name} SET ended = NULL, heartbeat = {dialect.now(connection)}, "
        f"verdict = %s WHERE worker IN ({numbers})",
        ("",),
    )


def beating(connection: Any) -> list[dict[str, Any]]:
    """Supervisors that have not ended, as far as the ledger knows."""
    rows = connection.query(
        f"SELECT crew, place, pid, pid_started, started, heartbeat FROM {Worker.full_table_name} "
        "WHERE number = 0 AND ended IS NULL"
    ).fetchall()
    names = ("crew", "place", "pid", "pid_started", "started", "heartbeat")
    return [dict(zip(names, row, strict=True)) for row in rows]


def unfinished(connection: Any, crew: int) -> list[int]:
    """Workers of a crew that have not ended, as far as the ledger knows."""
    rows = connection.query(
        f"SELECT worker FROM {Worker.full_table_name} WHERE crew = %s AND number > 0 AND ended IS NULL",
        (crew,),
    ).fetchall()
    return [int(worker) for (worker,) in rows]
