"""Fill the queues, count what they hold, and say what becomes of failed keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workflow.populate import dialect
from workflow.populate.jobs_table import FIRST_CREW, JobsTable

_INTEGER = {"mysql": "SIGNED", "postgresql": "smallint"}


class Filling(JobsTable):
    """A queue as those see it who do not claim from it."""

    #: Queues that must be complete before a key of this one is due.
    waits_for: Sequence[Filling] = ()

    def tidy(self) -> None:
        """Forget pending and failed keys that are done by now, or whose source is gone.

        And keys that other clients keep as done whose results were deleted since.
        """
        done = self._done(self._jobs)
        self._query(
            f"DELETE FROM {self._jobs} WHERE status IN (%s, %s) AND "
            f"({done} OR NOT {self._among(self.source, self._jobs)}) OR status = %s AND NOT {done}",
            "pending",
            "error",
            "success",
        )

    def withdraw(self) -> None:
        """Forget pending keys that gather what is not complete any more: they become due again when it is."""
        complete = f"(TRUE{self._complete(self._jobs)})"
        self._query(f"DELETE FROM {self._jobs} WHERE status = %s AND NOT {complete}", "pending")

    def refresh(self) -> int:
        """Put every key that is due and not yet known into the queue; how many they were."""
        names = ", ".join(f"s.{self._quote(name)}" for name in self.names)
        adapter = self.connection.adapter
        ignore = adapter.skip_duplicates_clause(self._jobs, self.names)
        return int(
            self._query(
                f"INSERT INTO {self._jobs} ({self._own}, status, priority) "
                f"SELECT {names}, 'pending', CAST(%s AS {_INTEGER[adapter.backend]}) "
                f"FROM ({self._wanted or self.source}) AS s "
                f"WHERE {self._unknown('s')}{self._complete('s')} ORDER BY {names} {ignore}",
                self.connection._config.jobs.default_priority,
            ).rowcount
        )

    def is_due_select(self) -> tuple[str, tuple[Any, ...]]:
        """A SELECT of this queue's index and whether a key is due that the queue does not know yet."""
        return (
            f"SELECT %s AS i, EXISTS (SELECT 1 FROM ({self._wanted or self.source}) AS s "
            f"WHERE {self._unknown('s')}{self._complete('s')}) AS is_due",
            (self.index,),
        )

    def _unknown(self, other: str) -> str:
        known = f"EXISTS (SELECT 1 FROM {self._jobs} AS j WHERE {self.same('j', other)})"
        return f"NOT {self._done(other)} AND NOT {known}"

    def waiting_selects(self) -> list[tuple[str, tuple[Any, ...]]]:
        """SELECTs of this queue's index, that of one it waits for, and how many keys wait for that."""
        waiting = f"({self._wanted or self.source}) AS s WHERE {self._unknown('s')}"
        return [
            (
                f"SELECT {self.index} AS i, %s AS source, COUNT(*) AS n "
                f"FROM {waiting} AND {self._lacks(other, 's')}",
                (other.index,),
            )
            for other in self.waits_for
        ]

    def _complete(self, mine: str) -> str:
        """Whether nothing is left to do for a key in the tables that this one waits for."""
        return "".join(f" AND NOT {self._lacks(other, mine)}" for other in self.waits_for)

    def _lacks(self, other: Filling, mine: str) -> str:
        """Whether another queue has keys that agree with one of this queue and are neither done nor parked.

        One that has failed may be done yet, and nobody would compute again what has gathered without it.
        """
        parked = f"SELECT 1 FROM {other._jobs} AS p WHERE {other.same('p', 'u')} AND p.status = 'ignore'"
        common = [self._quote(name) for name in other.names if name in self.names]
        agree = "".join(f" AND u.{name} = {mine}.{name}" for name in common)
        return (
            f"EXISTS (SELECT 1 FROM ({other.source}) AS u "
            f"WHERE NOT {other._done('u')} AND NOT EXISTS ({parked}){agree})"
        )

    def retry(self, *, ignored: bool = False, before: Any = None) -> int:
        """Put failed keys back into the queue, those that failed before some moment; how many they were."""
        return self._change(("error", "ignore") if ignored else ("error",), "pending", before)

    def failed(self, statuses: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Failed keys that nobody has done since, and their rows of the jobs table."""
        names = (
            "status",
            "error_message",
            "error_stack",
            "completed_time",
            "host",
            "pid",
            "connection_id",
            "version",
        )
        columns = ", ".join(self._quote(name) for name in names)
        rows = self._query(
            f"SELECT {self._own}, {columns} FROM {self._jobs} "
            f"WHERE status IN ({', '.join(['%s'] * len(statuses))}) AND NOT {self._done(self._jobs)}"
            f"{self._matching(self._jobs)}",
            *statuses,
        ).fetchall()
        width = len(self.names)
        return [(self._key(tuple(row[:width])), dict(zip(names, row[width:], strict=True))) for row in rows]

    def park(self) -> int:
        """Leave failed keys out of the queue from now on; how many they were."""
        return self._change(("error",), "ignore")

    def free(self) -> int:
        """Put keys that other DataJoint clients have reserved back into the queue; how many they were.

        What a supervisor has reserved comes back by itself when that is dead.
        """
        return int(
            self._query(
                f"UPDATE {self._jobs} SET status = %s WHERE status = 'reserved' "
                f"AND connection_id <= {FIRST_CREW}{self._matching(self._jobs)}",
                "pending",
            ).rowcount
        )

    def _change(self, before: Sequence[str], after: str, moment: Any = None) -> int:
        old = ", ".join(["%s"] * len(before))
        earlier = "" if moment is None else " AND completed_time < %s"
        fresh = ", error_message = '', error_stack = NULL" if after == "pending" else ""
        return int(
            self._query(
                f"UPDATE {self._jobs} SET status = %s{fresh}, "
                f"scheduled_time = {dialect.now(self.connection)} "
                f"WHERE status IN ({old}){earlier} AND NOT {self._done(self._jobs)}"
                f"{self._matching(self._jobs)}",
                after,
                *before,
                *(() if moment is None else (moment,)),
            ).rowcount
        )

    def failed_select(self) -> tuple[str, tuple[Any, ...]]:
        """A SELECT of this queue's index, status and how many: failed and parked keys not done since."""
        return (
            f"SELECT {self.index} AS i, {dialect.as_text(self.connection, 'j.status')}, COUNT(*) AS n "
            f"FROM {self._jobs} AS j WHERE j.status IN (%s, %s) AND NOT {self._done('j')}"
            f"{self._matching('j')} GROUP BY j.status",
            ("error", "ignore"),
        )

    def counts_select(self) -> tuple[str, tuple[Any, ...]]:
        """A SELECT of this queue's index, status, holder (0 unless it is a supervisor) and how many.

        Pending keys that are scheduled for later have the status ``later``.
        """
        status = dialect.as_text(self.connection, "j.status")
        return (
            f"SELECT {self.index} AS i, CASE WHEN j.status = %s "
            f"AND j.scheduled_time > {dialect.now(self.connection)} THEN 'later' ELSE {status} END AS state, "
            f"CASE WHEN j.status = 'reserved' AND j.connection_id > {FIRST_CREW} "
            f"THEN j.connection_id ELSE 0 END AS holder, COUNT(*) AS n "
            f"FROM {self._jobs} AS j WHERE TRUE{self._matching('j')} GROUP BY 2, 3",
            ("pending",),
        )


def count_statuses(queues: Sequence[Filling]) -> list[tuple[int, str, int, int]]:
    """Count all queues in one statement: index, status, holding supervisor (or 0), how many."""
    rows = _union(queues, [queue.counts_select() for queue in queues])
    return [(int(index), str(status), int(holder), int(n)) for index, status, holder, n in rows]


def count_failed(queues: Sequence[Filling]) -> dict[tuple[int, str], int]:
    """Count failed and parked keys in one statement: how many, by index and status."""
    rows = _union(queues, [queue.failed_select() for queue in queues])
    return {(int(index), str(status)): int(n) for index, status, n in rows}


def find_due(queues: Sequence[Filling]) -> set[int]:
    """Find the queues that lack keys which are due, in one statement."""
    rows = _union(queues, [queue.is_due_select() for queue in queues])
    return {int(index) for index, is_due in rows if is_due}


def count_waiting(queues: Sequence[Filling]) -> dict[int, dict[str, int]]:
    """Count the keys that wait until others are done, by index and by the label of the table they wait for.

    One statement, if any table gathers rows of others, else none.
    """
    selects = [select for queue in queues for select in queue.waiting_selects()]
    labels = {other.index: other.label for queue in queues for other in queue.waits_for}
    found: dict[int, dict[str, int]] = {}
    for index, source, n in _union(queues, selects) if selects else ():
        if n:
            found.setdefault(int(index), {})[labels[int(source)]] = int(n)
    return found


def _union(queues: Sequence[Filling], selects: Sequence[tuple[str, tuple[Any, ...]]]) -> Sequence[Any]:
    statement = " UNION ALL ".join(select for select, _ in selects)
    values = tuple(value for _, some in selects for value in some)
    rows: Sequence[Any] = queues[0].connection.query(statement, values).fetchall()
    return rows
