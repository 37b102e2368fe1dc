"""What went wrong with the database, and whether trying again can help."""

from __future__ import annotations

import enum
import random
from typing import Any

import datajoint as dj
import psycopg2
import pymysql


class Trouble(enum.Enum):
    """Kinds of trouble that a second try may cure."""

    LOST = "the connection to the database was lost"
    BUSY = "the database was busy (a deadlock or a lock held too long)"
    FULL = "the database server has no space left"


_MYSQL_LOST = {
    0,
    1053,
    1077,
    1079,
    1152,
    1158,
    1159,
    1160,
    1161,
    1927,
    2002,
    2003,
    2006,
    2013,
    2014,
    2055,
    4031,
}
_MYSQL_BUSY = {1040, 1205, 1213, 1290, 3101, 3572}
_MYSQL_FULL = {3, 1021, 1114, 1026}
_POSTGRESQL_LOST = ("08", "57P")
_POSTGRESQL_BUSY = ("40001", "40P01", "55P03", "53300", "25006")
_POSTGRESQL_FULL = ("53100",)


def classify(error: BaseException) -> Trouble | None:
    """Tell trouble with the server from a mistake in a computation.

    Parameters
    ----------
    error : exception
        What was raised; its causes are looked at too.

    Returns
    -------
    Trouble or None
        None where trying again would end in the same way.
    """
    seen: BaseException | None = error
    while seen is not None:
        if trouble := _classify(seen):
            return trouble
        seen = seen.__cause__
    return None


def _classify(error: BaseException) -> Trouble | None:
    if isinstance(error, dj.errors.LostConnectionError | ConnectionError):
        return Trouble.LOST
    if isinstance(error, pymysql.MySQLError):
        return _of_mysql(error)
    if isinstance(error, psycopg2.Error):
        return _of_postgresql(error)
    return None


def _of_mysql(error: pymysql.MySQLError) -> Trouble | None:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    if isinstance(error, pymysql.err.InternalError) and number is None:
        return Trouble.LOST  # "Packet sequence number wrong": the client has closed the connection
    for numbers, trouble in (
        (_MYSQL_LOST, Trouble.LOST),
        (_MYSQL_BUSY, Trouble.BUSY),
        (_MYSQL_FULL, Trouble.FULL),
    ):
        if number in numbers:
            return trouble
    return None


def _of_postgresql(error: psycopg2.Error) -> Trouble | None:
    code = error.pgcode
    if code is None:  # no answer from a server: libpq's own words
        lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        return Trouble.LOST if lost or type(error) is psycopg2.DatabaseError else None
    for codes, trouble in (
        (_POSTGRESQL_LOST, Trouble.LOST),
        (_POSTGRESQL_BUSY, Trouble.BUSY),
        (_POSTGRESQL_FULL, Trouble.FULL),
    ):
        if code.startswith(codes):
            return trouble
    return None


def pause(tries: int, most: float = 5.0) -> float:
    """Seconds to wait before the next try: twice as long each time, and never the same for everybody."""
    return min(most, 0.1 * 2.0**tries) * random.uniform(0.5, 1.0)  # noqa: S311


def one_line(error: BaseException) -> str:
    """The error as one line: its type and what it says."""
    parts = error.args if isinstance(error, dj.DataJointError) else (error,)
    try:
        text = " ".join(" ".join(str(part) for part in parts).split())
    except Exception as unspeakable:
        text = f"(it cannot say what is wrong: {type(unspeakable).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def rollback(connection: Any) -> None:
    """End a transaction whatever state the connection is in."""
    try:
        connection.cancel_transaction()
    except Exception as error:  # whatever it says, the transaction ended with the connection
        connection._in_transaction = False
        if classify(error) is None:
            raise


def is_alive(connection: Any) -> bool:
    """Whether the server answers; DataJoint's own ``is_connected`` does not hear it when it does not."""
    return not connection._is_closed and bool(connection.adapter.ping(connection._conn))
