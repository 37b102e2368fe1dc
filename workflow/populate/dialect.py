"""What MySQL and PostgreSQL say differently."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql

#: The server's clock, when the statement runs; comparable with a jobs table's datetime(3) columns.
_NOW = {"mysql": "CURRENT_TIMESTAMP(3)", "postgresql": "CAST(clock_timestamp() AS timestamp(3))"}
_AGO = {"mysql": "INTERVAL %s SECOND", "postgresql": "make_interval(secs => %s)"}
_SESSION = {
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
}
#: For rows and for tables: MySQL would wait a year for a table, PostgreSQL for ever for either.
_WAITS = {
    "mysql": "SET SESSION lock_wait_timeout = 50, innodb_lock_wait_timeout = 50",
    "postgresql": "SET SESSION lock_timeout = '50s'",
}
_TRY_LOCK = {"mysql": "SELECT GET_LOCK(%s, 0)", "postgresql": "SELECT pg_try_advisory_lock(%s)"}
_UNLOCK = {"mysql": "SELECT RELEASE_LOCK(%s)", "postgresql": "SELECT pg_advisory_unlock(%s)"}
_POSTGRESQL_KEY = "(CAST(classid AS bigint) << 32 | CAST(objid AS bigint))"
_HELD = {
    "mysql": "SELECT IS_USED_LOCK(%s) IS NOT NULL",
    "postgresql": "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted "
    f"AND objsubid = 1 AND {_POSTGRESQL_KEY} = %s)",
}
LOCK_TRIES = 20


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


def limit_waits(connection: Any) -> None:
    """Let nobody else's lock hold this connection up without end: that is trouble, and tried again."""
    connection.query(_WAITS[connection.adapter.backend])


def take_lock(connection: Any, name: str) -> None:
    """Take a lock that lasts as long as the connection, from an earlier connection of ours if need be.

    A connection that broke may live on at the server's end for hours, with its transaction and its locks.
    """
    for tries in range(LOCK_TRIES):
        if try_lock(connection, name):
            return
        end_holders(connection, [name])
        time.sleep(0.02 * (tries + 1))


def end_holders(connection: Any, names: Sequence[str]) -> None:
    """End the connections that hold some locks: what they had not committed is rolled back."""
    if not names:
        return
    keys = [_with_name(_HELD, connection, name)[1][0] for name in names]
    listed = ", ".join(["%s"] * len(keys))
    if connection.adapter.backend == "postgresql":
        connection.query(
            f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            f"AND objsubid = 1 AND {_POSTGRESQL_KEY} IN ({listed}) AND pid <> pg_backend_pid()",
            tuple(keys),
        )
        return
    columns = ", ".join(["IS_USED_LOCK(%s)"] * len(keys))
    for holder in connection.query(f"SELECT {columns}", tuple(keys)).fetchone():
        if holder is not None:
            _kill(connection, int(holder))


def _kill(connection: Any, number: int) -> None:
    try:
        connection.query(f"KILL {number}")
    except pymysql.MySQLError as error:
        if error.args[0] not in {1094, 1095}:  # it has ended by itself, or is somebody else's
            raise


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
