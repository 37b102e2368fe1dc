"""What MySQL and PostgreSQL say differently."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: The server's clock, when the statement runs; comparable with a jobs table's datetime(3) columns.
_NOW = {"mysql": "CURRENT_TIMESTAMP(3)", "postgresql": "CAST(clock_timestamp() AS timestamp(3))"}
_AGO = {"mysql": "INTERVAL %s SECOND", "postgresql": "make_interval(secs => %s)"}
_SESSION = {
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
}
_TRY_LOCK = {"mysql": "SELECT GET_LOCK(%s, 0)", "postgresql": "SELECT pg_try_advisory_lock(%s)"}
_UNLOCK = {"mysql": "SELECT RELEASE_LOCK(%s)", "postgresql": "SELECT pg_advisory_unlock(%s)"}
_HELD = {
    "mysql": "SELECT IS_USED_LOCK(%s) IS NOT NULL",
    "postgresql": "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 1 AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) = %s)",
}


def now(connection: Any) -> str:
    """The server's time as an SQL expression."""
    return _NOW[connection.adapter.backend]


def ago(connection: Any) -> str:
    """An SQL expression for the server's time some seconds ago; its one argument is the seconds."""
    backend = connection.adapter.backend
    return f"{_NOW[backend]} - {_AGO[backend]}"


def seconds_since(connection: Any, moment: str) -> str:
    """An SQL expression for the seconds since a moment, by the server's clock."""
    if connection.adapter.backend == "mysql":
        return f"TIMESTAMPDIFF(MICROSECOND, {moment}, {now(connection)}) / 1000000"
    return f"EXTRACT(EPOCH FROM {now(connection)} - {moment})"


def as_text(connection: Any, value: str) -> str:
    """An SQL expression as text: each PostgreSQL schema has enumerations of its own."""
    return f"CAST({value} AS {'CHAR' if connection.adapter.backend == 'mysql' else 'text'})"


def prepare_session(connection: Any) -> None:
    """Let a connection that fills and empties queues lock only the rows that it changes.

    MySQL would otherwise lock what an ``INSERT … SELECT`` reads, and the gaps between the rows of a claim.
    """
    connection.query(_SESSION[connection.adapter.backend])


def try_lock(connection: Any, name: str) -> bool:
    """Take a lock that lasts as long as the connection, unless somebody else holds it."""
    return bool(connection.query(*_with_name(_TRY_LOCK, connection, name)).fetchone()[0])


def is_locked(connection: Any, name: str) -> bool:
    """Whether any connection holds the lock."""
    return bool(connection.query(*_with_name(_HELD, connection, name)).fetchone()[0])


@contextmanager
def locked(connection: Any, name: str) -> Iterator[bool]:
    """Try to hold a lock for a block; yields whether it is ours."""
    mine = try_lock(connection, name)
    try:
        yield mine
    finally:
        if mine:
            connection.query(*_with_name(_UNLOCK, connection, name))


def _with_name(statements: dict[str, str], connection: Any, name: str) -> tuple[str, tuple[Any]]:
    """A statement and the lock's name as its server wants it: MySQL 64 letters, PostgreSQL a number."""
    backend = connection.adapter.backend
    digest = hashlib.blake2b(name.encode(), digest_size=8)
    if backend == "mysql":
        return statements[backend], (f"workflow-{digest.hexdigest()}",)
    return statements[backend], (int.from_bytes(digest.digest(), "big") >> 1,)
