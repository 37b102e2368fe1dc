"""Claim keys, give them back, and complete them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datajoint.blob import pack

from workflow.populate import dialect
from workflow.populate.filling import Filling
from workflow.populate.jobs_table import Job

MESSAGE_LENGTH = 2047


@dataclass(frozen=True)
class Owner:
    """Who claims."""

    crew: int
    host: str
    pid: int
    user: str
    version: str


class Queue(Filling):
    """The queue of one table, as workers and their supervisor use it."""

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
        message = _storable(message)[:MESSAGE_LENGTH]
        statement = (
            f"UPDATE {self._jobs} SET status = %s, error_message = %s, "
            f"scheduled_time = {dialect.now(self.connection)} WHERE {self._held(crew)}"
        )
        changed = self._query(statement, "pending", message, *job.raw).rowcount
        return bool(changed) or self._is_recorded(job, crew, "pending", message)

    def mark(self, job: Job, crew: int, pid: int) -> None:
        """Note that a key which an earlier worker did not survive is being tried now, and by whom."""
        self._query(f"UPDATE {self._jobs} SET pid = %s WHERE {self._held(crew)}", pid, *job.raw)

    def fail(self, job: Job, crew: int, pid: int, message: str, stack: str = "") -> bool:
        """Record a failure, if the key is still ours."""
        message = _storable(message)
        if len(message) > MESSAGE_LENGTH:
            message = message[: MESSAGE_LENGTH - 14] + "...truncated"
        statement = (
            f"UPDATE {self._jobs} SET status = %s, completed_time = {dialect.now(self.connection)}, "
            f"error_message = %s, error_stack = %s, pid = %s WHERE {self._held(crew)}"
        )
        packed = pack(_storable(stack), compress=True)
        changed = self._query(statement, "error", message, packed, pid, *job.raw).rowcount
        return bool(changed) or self._is_recorded(job, crew, "error", message)

    def _is_recorded(self, job: Job, crew: int, status: str, message: str) -> bool:
        """Whether an earlier try, whose answer was lost, has recorded this already."""
        row = self._query(
            f"SELECT {dialect.as_text(self.connection, 'status')}, connection_id, error_message "
            f"FROM {self._jobs} WHERE {self.this_key}",
            *job.raw,
        ).fetchone()
        return row is not None and tuple(row) == (status, crew, message)

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
        return str(row[0] or "") if row else ""


def _storable(text: str) -> str:
    return text.replace("\x00", "")
