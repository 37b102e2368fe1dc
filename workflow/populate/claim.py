"""The jobs table of one computed table, as a queue that many machines share.

DataJoint's own jobs table stays the queue: other clients see what is pending, reserved and failed. What is
reserved by us carries the number of our supervisor in ``connection_id``; such numbers are far above those
that servers give to connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datajoint.blob import pack
from datajoint.codecs import decode_attribute

from workflow.populate import dialect

#: Supervisors have numbers above this one; servers number their connections from 1.
FIRST_CREW = 2**40

MESSAGE_LENGTH = 2047
_ATTEMPT = re.compile(r"attempt (\d+): ")


class TableError(TypeError):
    """A table that cannot be computed by a queue; the message is one line."""


@dataclass(frozen=True)
class Job:
    """One claimed key.

    Attributes
    ----------
    table : int
        Which table of the run.
    raw : tuple
        Key values as the server's client gives and takes them.
    key : dict
        The key as ``make`` gets it.
    attempts : int
        How many earlier attempts ended with the death of their worker.
    suspect : bool
        Whether an earlier attempt did not come to an end.
    """

    table: int
    raw: tuple[Any, ...]
    key: dict[str, Any]
    attempts: int = 0
    suspect: bool = False


@dataclass(frozen=True)
class Owner:
    """Who claims."""

    crew: int
    host: str
    pid: int
    user: str
    version: str


class Queue:
    """The queue of one table.

    Parameters
    ----------
    index : int
        The table's place in the run.
    label : str
        ``module.Class``.
    table : datajoint.Table
        A Computed or Imported table.
    where : list
        Restriction of its keys.
    """

    def __init__(self, index: int, label: str, table: Any, where: list[Any]) -> None:
        self.index, self.label, self.table = index, label, table
        self.jobs = table.jobs
        self.connection = table.connection
        self.names: list[str] = list(self.jobs.primary_key)
        self._attributes = [self.jobs.heading[name] for name in self.names]
        self._quote = self.connection.adapter.quote_identifier
        self._jobs, self._target = self.jobs.full_table_name, table.full_table_name
        self._own = ", ".join(self._quote(name) for name in self.names)
        self.this_key = " AND ".join(f"{self._quote(name)} = %s" for name in self.names)
        everything = table._jobs_to_do(())
        missing = [name for name in self.names if name not in everything.primary_key]
        if missing:
            raise TableError(
                f"{label}: its key_source lacks {', '.join(missing)}, which its jobs table needs: "
                "let key_source give one row per call of make"
            )
        self._source = self._keys_of(everything)
        self._wanted = self._keys_of(table._jobs_to_do(tuple(where))) if where else ""

    def _keys_of(self, query: Any) -> str:
        """A SELECT of the queue's keys, each once."""
        select: str = query.make_sql()
        if set(query.primary_key) == set(self.names):
            return select
        return f"SELECT DISTINCT {self._own} FROM ({select}) AS d"

    def same(self, left: str, right: str) -> str:
        """Join condition on the keys of two aliases or table names."""
        return " AND ".join(
            f"{left}.{self._quote(name)} = {right}.{self._quote(name)}" for name in self.names
        )

    def _among(self, select: str, other: str) -> str:
        """Whether the key of ``other`` is among those that a SELECT gives."""
        return f"EXISTS (SELECT 1 FROM ({select}) AS s WHERE {self.same('s', other)})"

    def _done(self, other: str) -> str:
        return f"EXISTS (SELECT 1 FROM {self._target} AS t WHERE {self.same('t', other)})"

    def _matching(self, other: str) -> str:
        return f" AND {self._among(self._wanted, other)}" if self._wanted else ""

    def _query(self, statement: str, *values: Any) -> Any:
        return self.connection.query(statement, values)

    # ---- filling

    def tidy(self) -> None:
        """Forget pending and failed keys that are done by now, or whose source is gone."""
        self._query(
            f"DELETE FROM {self._jobs} WHERE status IN (%s, %s) AND "
            f"({self._done(self._jobs)} OR NOT {self._among(self._source, self._jobs)})",
            "pending",
            "error",
        )

    def refresh(self) -> int:
        """Put every key that is due and not yet known into the queue; how many they were."""
        names = ", ".join(f"s.{self._quote(name)}" for name in self.names)
        adapter = self.connection.adapter
        ignore = adapter.skip_duplicates_clause(self._jobs, self.names)
        return int(
            self._query(
                f"INSERT INTO {self._jobs} ({self._own}, status, priority) "
                f"SELECT {names}, 'pending', CAST(%s AS {_INTEGER[adapter.backend]}) "
                f"FROM ({self._wanted or self._source}) AS s "
                f"WHERE {self._unknown('s')} ORDER BY {names} {ignore}",
                self.connection._config.jobs.default_priority,
            ).rowcount
        )

    def is_due_select(self) -> tuple[str, tuple[Any, ...]]:
        """A SELECT of this queue's index and whether a key is due that the queue does not know yet."""
        return (
            f"SELECT %s AS i, EXISTS (SELECT 1 FROM ({self._wanted or self._source}) AS s "
            f"WHERE {self._unknown('s')}) AS is_due",
            (self.index,),
        )

    def _unknown(self, other: str) -> str:
        known = f"EXISTS (SELECT 1 FROM {self._jobs} AS j WHERE {self.same('j', other)})"
        return f"NOT {self._done(other)} AND NOT {known}"

    def retry(self, *, ignored: bool = False) -> int:
        """Put failed keys back into the queue; how many they were."""
        return self._change(("error", "ignore") if ignored else ("error",), "pending")

    def failed(self, statuses: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Failed keys and their rows of the jobs table."""
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
            f"WHERE status IN ({', '.join(['%s'] * len(statuses))}){self._matching(self._jobs)}",
            *statuses,
        ).fetchall()
        width = len(self.names)
        return [(self._key(tuple(row[:width])), dict(zip(names, row[width:], strict=True))) for row in rows]

    def park(self) -> int:
        """Leave failed keys out of the queue from now on; how many they were."""
        return self._change(("error",), "ignore")

    def _change(self, before: Sequence[str], after: str) -> int:
        old = ", ".join(["%s"] * len(before))
        fresh = ", error_message = '', error_stack = NULL" if after == "pending" else ""
        return int(
            self._query(
                f"UPDATE {self._jobs} SET status = %s{fresh}, "
                f"scheduled_time = {dialect.now(self.connection)} "
                f"WHERE status IN ({old}){self._matching(self._jobs)}",
                after,
                *before,
            ).rowcount
        )

    def counts_select(self) -> tuple[str, tuple[Any, ...]]:
        """A SELECT of this queue's index, status, holder (0 unless it is a supervisor) and how many.

        Pending keys that are scheduled for later are not counted.
        """
        status = dialect.as_text(self.connection, "j.status")
        return (
            f"SELECT {self.index} AS i, {status}, CASE WHEN j.status = 'reserved' "
            f"AND j.connection_id > {FIRST_CREW} THEN j.connection_id ELSE 0 END AS holder, COUNT(*) AS n "
            f"FROM {self._jobs} AS j "
            f"WHERE (j.status <> %s OR j.scheduled_time <= {dialect.now(self.connection)})"
            f"{self._matching('j')} GROUP BY j.status, holder",
            ("pending",),
        )

    # ---- claiming

    def claim(self, count: int, owner: Owner) -> list[Job]:
        """Reserve up to so many pending keys, the most urgent first."""
        backend = self.connection.adapter.backend
        rows = self._claim_mysql(count, owner) if backend == "mysql" else self._claim_postgresql(count, owner)
        width = len(self.names)
        done = [tuple(row[:width]) for row in rows if row[width + 1]]
        if done:  # somebody computed them without the queue
            self.forget(done, owner.crew)
        return [self._job(tuple(row[:width]), row[width]) for row in rows if not row[width + 1]]

    def _first_pending(self, columns: str, alias: str) -> str:
        return (
            f"SELECT {columns} FROM {self._jobs} AS j WHERE j.status = 'pending' "
            f"AND j.scheduled_time <= {dialect.now(self.connection)}{self._matching('j')} "
            f"ORDER BY j.priority, j.scheduled_time LIMIT %s FOR UPDATE{alias} SKIP LOCKED"
        )

    def _reserve(self, owner: Owner) -> tuple[str, tuple[Any, ...]]:
        quoted = {
            name: self._quote(name) for name in ("status", "host", "pid", "connection_id", "user", "version")
        }
        assignments = ", ".join(f"{name} = %s" for name in quoted.values())
        return (
            f"SET {assignments}, reserved_time = {dialect.now(self.connection)}",
            ("reserved", owner.host, 0, owner.crew, owner.user, owner.version[:64]),
        )

    def _claim_postgresql(self, count: int, owner: Owner) -> list[tuple[Any, ...]]:
        reserve, values = self._reserve(owner)
        names = ", ".join(f"j.{self._quote(name)}" for name in self.names)
        rows: list[tuple[Any, ...]] = self._query(
            f"WITH c AS ({self._first_pending(names, ' OF j')}) UPDATE {self._jobs} AS j {reserve} FROM c "
            f"WHERE {self.same('j', 'c')} "
            f"RETURNING {names}, j.error_message, {self._done('j')}, j.priority, j.scheduled_time",
            count,
            *values,
        ).fetchall()
        return sorted(rows, key=lambda row: row[-2:])

    def _claim_mysql(self, count: int, owner: Owner) -> list[tuple[Any, ...]]:
        names = ", ".join(f"j.{self._quote(name)}" for name in self.names)
        reserve, values = self._reserve(owner)
        self._query("START TRANSACTION")
        rows: list[tuple[Any, ...]] = list(
            self._query(
                self._first_pending(f"{names}, j.error_message, {self._done('j')}", " OF j"), count
            ).fetchall()
        )
        if rows:
            keys = [tuple(row[: len(self.names)]) for row in rows]
            self._query(
                f"UPDATE {self._jobs} {reserve} WHERE {self._any_of(keys)}",
                *values,
                *(value for key in keys for value in key),
            )
        self._query("COMMIT")
        return rows

    def _any_of(self, keys: Sequence[tuple[Any, ...]]) -> str:
        one = f"({', '.join(['%s'] * len(self.names))})"
        return f"({self._own}) IN ({', '.join([one] * len(keys))})"

    def _job(self, raw: tuple[Any, ...], message: str) -> Job:
        return Job(self.index, raw, self._key(raw), attempts_of(message), bool(message))

    def _key(self, raw: tuple[Any, ...]) -> dict[str, Any]:
        return {
            name: decode_attribute(attribute, value, connection=self.connection)
            for name, attribute, value in zip(self.names, self._attributes, raw, strict=True)
        }

    # ---- giving back

    def forget(self, keys: Iterable[tuple[Any, ...]], crew: int) -> None:
        """Remove reserved keys that turned out to be done."""
        for raw in keys:
            self._query(f"DELETE FROM {self._jobs} WHERE {self._held(crew)}", *raw)

    def _held(self, crew: int) -> str:
        return f"{self.this_key} AND status = 'reserved' AND connection_id = {int(crew)}"

    def release_all(self, crew: int) -> int:
        """Put everything that a supervisor has reserved back, untried."""
        return int(
            self._query(
                f"UPDATE {self._jobs} SET status = %s "
                f"WHERE status = 'reserved' AND connection_id = {int(crew)}",
                "pending",
            ).rowcount
        )

    def release(self, jobs: Sequence[Job], crew: int) -> None:
        """Put some reserved keys back, untried."""
        keys = [job.raw for job in jobs]
        self._query(
            f"UPDATE {self._jobs} SET status = %s WHERE {self._any_of(keys)} "
            f"AND status = 'reserved' AND connection_id = {int(crew)}",
            "pending",
            *(value for key in keys for value in key),
        )

    def postpone(self, job: Job, crew: int, message: str) -> bool:
        """Put a key whose attempt died back, behind the others, if it is still ours."""
        return bool(
            self._query(
                f"UPDATE {self._jobs} SET status = %s, error_message = %s, "
                f"scheduled_time = {dialect.now(self.connection)} WHERE {self._held(crew)}",
                "pending",
                _storable(message)[:MESSAGE_LENGTH],
                *job.raw,
            ).rowcount
        )

    def mark(self, job: Job, crew: int, pid: int) -> None:
        """Note that a key which an earlier worker did not survive is being tried now, and by whom."""
        self._query(f"UPDATE {self._jobs} SET pid = %s WHERE {self._held(crew)}", pid, *job.raw)

    def fail(self, job: Job, crew: int, pid: int, message: str, stack: str = "") -> bool:
        """Record a failure, if the key is still ours."""
        message = _storable(message)
        if len(message) > MESSAGE_LENGTH:
            message = message[: MESSAGE_LENGTH - 14] + "...truncated"
        return bool(
            self._query(
                f"UPDATE {self._jobs} SET status = %s, completed_time = {dialect.now(self.connection)}, "
                f"error_message = %s, error_stack = %s, pid = %s WHERE {self._held(crew)}",
                "error",
                message,
                pack(_storable(stack), compress=True),
                pid,
                *job.raw,
            ).rowcount
        )

    # ---- what a dead supervisor left

    def left_by(self, crew: int) -> list[tuple[Job, bool]]:
        """Keys that a supervisor has reserved, and whether it is known that they were being tried."""
        rows = self._query(
            f"SELECT {self._own}, error_message, pid FROM {self._jobs} "
            f"WHERE status = %s AND connection_id = {int(crew)}",
            "reserved",
        ).fetchall()
        width = len(self.names)
        return [(self._job(tuple(row[:width]), row[width]), bool(row[width + 1])) for row in rows]

    # ---- within the transaction of a worker

    def is_held(self, job: Job, crew: int) -> bool:
        """Whether a key is still reserved by a supervisor."""
        query = f"SELECT 1 FROM {self._jobs} WHERE {self._held(crew)}"
        return self._query(query, *job.raw).fetchone() is not None

    def complete(self, job: Job, crew: int) -> bool:
        """Remove a key from the queue; False if it is no longer ours."""
        return bool(self._query(f"DELETE FROM {self._jobs} WHERE {self._held(crew)}", *job.raw).rowcount == 1)

    def stamp(self, job: Job, seconds: float, version: str) -> bool:
        """Write start, duration and version into the computed rows; False if there are none."""
        if not self.table._has_job_metadata_attrs():
            return self.is_done(job)
        return bool(
            self._query(
                f"UPDATE {self._target} SET _job_start_time = {dialect.ago(self.connection)}, "
                f"_job_duration = %s, _job_version = %s WHERE {self.this_key}",
                round(seconds, 6),
                seconds,
                version[:64],
                *job.raw,
            ).rowcount
        )

    def is_done(self, job: Job) -> bool:
        """Whether a key has rows."""
        query = f"SELECT 1 FROM {self._target} WHERE {self.this_key} LIMIT 1"
        return self._query(query, *job.raw).fetchone() is not None

    def is_stamped(self, job: Job, version: str) -> bool:
        """Whether a key's rows carry this version: the commit whose answer was lost did happen."""
        if not self.table._has_job_metadata_attrs():
            return False
        query = f"SELECT 1 FROM {self._target} WHERE {self.this_key} AND _job_version = %s LIMIT 1"
        return self._query(query, *job.raw, version[:64]).fetchone() is not None

    def skip_reason(self, job: Job) -> str:
        """Why a row holds no result; empty for tables that do not record such a thing."""
        if "skip_reason" not in self.table.heading.names:
            return ""
        row = self._query(
            f"SELECT skip_reason FROM {self._target} WHERE {self.this_key} LIMIT 1", *job.raw
        ).fetchone()
        return str(row[0]) if row else ""


_INTEGER = {"mysql": "SIGNED", "postgresql": "smallint"}


def attempts_of(message: str) -> int:
    """How many attempts a jobs table's message tells of."""
    found = _ATTEMPT.match(message or "")
    return int(found.group(1)) if found else 0


def count_statuses(queues: Sequence[Queue]) -> list[tuple[int, str, int, int]]:
    """Count all queues in one statement: index, status, holding supervisor (or 0), how many."""
    rows = _union(queues, [queue.counts_select() for queue in queues])
    return [(int(index), str(status), int(holder), int(n)) for index, status, holder, n in rows]


def find_due(queues: Sequence[Queue]) -> set[int]:
    """Find the queues that lack keys which are due, in one statement."""
    rows = _union(queues, [queue.is_due_select() for queue in queues])
    return {int(index) for index, is_due in rows if is_due}


def _union(queues: Sequence[Queue], selects: Sequence[tuple[str, tuple[Any, ...]]]) -> Sequence[Any]:
    statement = " UNION ALL ".join(select for select, _ in selects)
    values = tuple(value for _, some in selects for value in some)
    rows: Sequence[Any] = queues[0].connection.query(statement, values).fetchall()
    return rows


def _storable(text: str) -> str:
    return text.replace("\x00", "")
