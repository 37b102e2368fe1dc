"""What is going on: how far every table is, who works, how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from workflow.populate import dialect, ledger
from workflow.populate.claim import Queue
from workflow.populate.filling import count_statuses, count_waiting
from workflow.populate.gathering import let_gatherers_wait
from workflow.populate.plan import Entry, plan

STATES = ("pending", "later", "reserved", "error", "ignore")
_BAR = 24  # letters


@dataclass(frozen=True)
class Snapshot:
    """The state of everything at one moment.

    Attributes
    ----------
    tables : list of Entry
        What is due and done, parents before children.
    queues : list of dict
        The jobs tables: ``label`` and how many keys are pending, later (pending, but scheduled so), reserved,
        error and ignore; ``waits`` tells how many are not due before other tables are complete, by label.
    workers : list of dict
        Processes that have not ended, as far as the ledger knows; ``silent`` is the time since their last
        heartbeat (s).
    rounds : list of dict
        The latest.
    rate : float or None
        Keys per second that the living workers finish; None if nobody has finished any.
    seconds_left : float or None
        At this rate.
    """

    tables: list[Entry]
    queues: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    rounds: list[dict[str, Any]]
    rate: float | None = None
    seconds_left: float | None = None
    at: float = field(default_factory=time.monotonic)

    def as_dict(self) -> dict[str, Any]:
        """The snapshot as plain data."""
        return {name: value for name, value in asdict(self).items() if name != "at"}


def look(tables: Mapping[str, Any], heartbeat: float, before: Snapshot | None = None) -> Snapshot:
    """Look at everything, without changing anything.

    Parameters
    ----------
    tables : mapping of str to table
        As `plan.computed_tables` gives them.
    heartbeat : float
        Seconds between two heartbeats; workers that missed ten are left out.
    before : Snapshot, optional
        An earlier one: the rate is that since then.
    """
    entries = plan(tables, [])
    queues = [Queue(index, label, table, []) for index, (label, table) in enumerate(tables.items())]
    let_gatherers_wait(queues, tables)
    workers = [row for row in _workers() if row["silent"] < 10 * heartbeat]
    rounds: list[dict[str, Any]] = ledger.Round.to_dicts(order_by="started DESC", limit=5)
    rate = _rate(entries, workers, before)
    due = sum(entry.due for entry in entries)
    return Snapshot(entries, _states(queues), workers, rounds, rate, due / rate if rate else None)


def _states(queues: Sequence[Queue]) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = [{"label": queue.label} | dict.fromkeys(STATES, 0) for queue in queues]
    for index, status, _, n in count_statuses(queues):
        states[index][status] = states[index].get(status, 0) + n
    waiting = count_waiting(queues)
    for index, state in enumerate(states):
        state["waits"] = waiting.get(index, {})
    return states


def _workers() -> list[dict[str, Any]]:
    """Processes that have not ended, with ages by the server's clock."""
    names = ("worker", "round", "machine", "number", "pid", "doing", "n_done", "n_failed", "n_skipped")
    connection = ledger.schema.connection
    silent, age = (dialect.seconds_since(connection, moment) for moment in ("heartbeat", "started"))
    rows = connection.query(
        f"SELECT {', '.join(names)}, peak_memory, {silent}, {age} "
        f"FROM {ledger.Worker.full_table_name} WHERE ended IS NULL ORDER BY machine, crew, number"
    ).fetchall()
    found = []
    for row in rows:
        entry = dict(zip((*names, "peak_memory", "silent", "age"), row, strict=True))
        found.append(entry | {"silent": float(entry["silent"]), "age": float(entry["age"])})
    return found


def _rate(
    entries: Sequence[Entry], workers: Sequence[dict[str, Any]], before: Snapshot | None
) -> float | None:
    """Keys per second since an earlier snapshot, or else since the workers started."""
    if before is not None:
        seconds = time.monotonic() - before.at
        finished = sum(entry.done for entry in entries) - sum(entry.done for entry in before.tables)
        return finished / seconds if finished > 0 and seconds > 0 else None
    finished = sum(row["n_done"] + row["n_skipped"] + row["n_failed"] for row in workers if row["number"])
    age = max((row["age"] for row in workers), default=0.0)
    return finished / age if finished and age else None


def describe(snapshot: Snapshot) -> str:
    """The snapshot for people: failing tables first, then those being computed."""
    states = {state["label"]: state for state in snapshot.queues}
    order = sorted(
        snapshot.tables,
        key=lambda entry: (not entry.failed, not states[entry.label]["reserved"], not entry.due),
    )
    width = max((len(entry.label) for entry in order), default=0)
    lines = [_line(entry, states[entry.label], width) for entry in order]
    if snapshot.workers:
        lines += ["", *(_who(row) for row in snapshot.workers)]
    if snapshot.rate is not None:
        speed = f"{snapshot.rate:.3g} keys/s"
        left = f", about {_time(snapshot.seconds_left)} left" if snapshot.seconds_left else ""
        lines += ["", f"{speed}{left}"]
    return "\n".join(lines)


def _line(entry: Entry, state: Mapping[str, Any], width: int) -> str:
    total = entry.due + entry.done
    filled = _BAR * entry.done // total if total else _BAR
    words = [f"{entry.done} of {total} done"]
    waiting = max(state["waits"].values(), default=0)
    for count, word in (
        (entry.failed, "failed"),
        (state["reserved"], "in work"),
        (state["ignore"], "parked"),
        (state["later"], "scheduled for later"),
        (waiting, f"waiting for {', '.join(state['waits'])}"),
        (entry.due - entry.failed - state["reserved"] - state["later"] - waiting, "due"),
    ):
        words += [f"{count} {word}"] if count > 0 else []
    return f"{entry.label.ljust(width)}  [{'#' * filled}{'.' * (_BAR - filled)}]  {', '.join(words)}"


def _who(row: Mapping[str, Any]) -> str:
    name = "supervisor" if row["number"] == 0 else f"worker {row['number']}"
    heard = "" if row["silent"] < 30 else f", silent for {_time(row['silent'])}"
    if row["number"] == 0:
        return f"{row['machine']}: round {row['round']}{heard}"
    done = row["n_done"] + row["n_skipped"]
    memory = f"{row['peak_memory'] / 2**30:.1f} GiB" if row["peak_memory"] else ""
    counts = ", ".join(
        filter(None, [f"{done} done", f"{row['n_failed']} failed" * bool(row["n_failed"]), memory])
    )
    return f"  {name} ({counts}{heard}): {row['doing'] or 'idle'}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
