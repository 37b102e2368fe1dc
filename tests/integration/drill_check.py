"""An independent check of a drill's database: plain SQL, nothing of the worker's own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from drill import Drill
from restartable import connections


def findings(drill: Drill) -> list[str]:
    """Whatever is wrong after the last run has ended; empty if all is well."""
    return [*_results(drill), *_queues(drill), *_ledger(drill), *_connections(drill)]


def in_between(drill: Drill) -> list[str]:
    """What must be so at any moment: no half results."""
    return [*_parts(drill, "__first"), *_parts(drill, "__second")]


def _results(drill: Drill) -> list[str]:
    found = in_between(drill)
    items = {item for (item,) in drill.query(f"SELECT item FROM {drill.table('item')}")}
    for kind in ("first", "second"):
        rows = [item for (item,) in drill.query(f"SELECT item FROM {drill.table(f'__{kind}')}")]
        if Counter(rows) != Counter(items):
            found.append(f"{kind}: {len(rows)} rows for {len(items)} items")
        query = f"SELECT item, COUNT(*) FROM {drill.table('witness')} WHERE kind = '{kind}' GROUP BY item"
        times = dict(drill.query(query))
        found += [f"{kind} {item}: done {n} times" for item, n in times.items() if n != 1]
        found += [f"{kind} {item}: nobody saw it done" for item in items - set(times)]
    return found


def _parts(drill: Drill, table: str) -> list[str]:
    rows = drill.query(
        f"SELECT m.item, m.n_parts, COUNT(p.part) FROM {drill.table(table)} AS m "
        f"LEFT JOIN {drill.table(table + '__part')} AS p ON p.item = m.item "
        "GROUP BY m.item, m.n_parts HAVING COUNT(p.part) <> m.n_parts"
    )
    return [f"{table} {item}: {n} of {expected} parts" for item, expected, n in rows]


def _queues(drill: Drill) -> list[str]:
    found = []
    for table in ("~~first", "~~second"):
        rows = drill.query(f"SELECT item, status, connection_id, error_message FROM {drill.table(table)}")
        found += [f"{table}: left behind: {row}" for row in rows]
    return found


def _ledger(drill: Drill) -> list[str]:
    workers = {
        int(worker): (int(number), int(n_done), str(verdict))
        for worker, number, n_done, verdict in drill.query(
            f"SELECT worker, number, n_done, verdict FROM {drill.table('worker', 'ledger')}"
        )
    }
    found = [
        f"worker {worker:x} ({number} of {crew:x}, {machine}, since {started}) is alive in the ledger"
        for worker, number, crew, machine, started in drill.query(
            "SELECT worker, number, crew, machine, started "
            f"FROM {drill.table('worker', 'ledger')} WHERE ended IS NULL ORDER BY started"
        )
    ]
    done: Counter[int] = Counter()
    for table in ("__first", "__second"):
        for (version,) in drill.query(f"SELECT _job_version FROM {drill.table(table)}"):
            done[int(version.split()[1], 16)] += 1
    found += [
        f"worker {w:x}: {n} results, unknown to the ledger" for w, n in done.items() if w not in workers
    ]
    for worker, (number, n_done, verdict) in workers.items():
        if number and not _agrees(done[worker], n_done, verdict):
            found.append(f"worker {worker:x}: {done[worker]} results, {n_done} in the ledger ({verdict})")
    return found + _rounds(drill)


def _agrees(results: int, counted: int, verdict: str) -> bool:
    """Whoever was killed may have had no time to say what was done; whoever left has said all."""
    return counted == results if verdict == "ended" else counted <= results


def _rounds(drill: Drill) -> list[str]:
    """Rounds that came to their own end say how; and together they have done no more than there is."""
    rounds: Sequence[Any] = drill.query(
        f"SELECT round, machine, ended, verdict, n_done FROM {drill.table('round', 'ledger')}"
    )
    found = [f"round {row[:2]}: ended, without a verdict" for row in rounds if row[2] and not row[3]]
    if len(rounds) > len(drill.machines):
        found.append(f"{len(rounds)} rounds in the ledger, {len(drill.machines)} were started")
    killed = drill.cut_off + sum(machine.exit_code() not in (0, 4) for machine in drill.machines)
    if (n := sum(not row[2] for row in rounds)) > killed:
        found.append(f"{n} rounds have no end in the ledger, {killed} were killed")
    if (n := sum(row[4] for row in rounds)) > (most := 2 * drill.count("item")):
        found.append(f"the rounds together have done {n} keys of {most}")
    return found


def _connections(drill: Drill) -> list[str]:
    """Nobody stays connected, and so nobody holds a lock."""
    return [f"connection {number} is still open" for number in connections(drill.server)]
