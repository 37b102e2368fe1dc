"""One connection to the database server, with errors that a user can act on."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import datajoint as dj
import psycopg2
import pymysql
from datajoint.adapters import mysql

from workflow.settings import Database

CONNECT_TIMEOUT = 10  # s

#: Seconds of silence before the kernel asks, between its questions, how many, and ms for unanswered data.
_KEEP_ALIVE = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 4),
    ("TCP_USER_TIMEOUT", 90_000),
)


class DatabaseUnreachableError(ConnectionError):
    """No database server answers; the message is one line."""


class DatabaseRefusedError(PermissionError):
    """The database server answers but refuses the user; the message is one line."""


def connect(database: Database) -> dj.Connection:
    """Configure DataJoint and open its connection.

    Parameters
    ----------
    database : Database
        Where the server is and who we are.

    Returns
    -------
    datajoint.Connection

    Raises
    ------
    DatabaseUnreachableError
        If no server answers.
    DatabaseRefusedError
        If the server refuses the user, the password or the database.
    """
    _knock(database)
    mysql.client = _HurriedClient
    config = dj.config
    config["loglevel"] = "CRITICAL"  # it writes to stdout; failed keys are ours to report
    config["safemode"] = False
    config["display.show_tuple_count"] = False
    config["database.backend"] = database.backend
    config["database.host"] = database.host
    config["database.port"] = database.port
    config["database.user"] = database.user
    config["database.password"] = database.password
    config["database.name"] = database.name
    config["jobs.add_job_metadata"] = True
    if database.is_socket:
        config["database.use_tls"] = False
    try:
        return dj.conn(reset=True)
    except (psycopg2.Error, pymysql.MySQLError, dj.DataJointError) as error:
        raise _explain(database, error) from None


def another_connection() -> dj.Connection:
    """Open a second connection like the one that `connect` opened, for another thread."""
    config = dj.config
    connection = dj.Connection(
        config["database.host"],
        config["database.user"],
        config["database.password"],
        config["database.port"],
        config["database.use_tls"],
    )
    keep_alive(connection)
    return connection


def keep_alive(connection: dj.Connection) -> None:
    """Have the kernel notice within a minute or two that the server's machine is gone."""
    with socket.socket(fileno=os.dup(line_of(connection._conn))) as line:
        if line.family == socket.AF_UNIX:
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            if hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def line_of(link: Any) -> int:
    """The file descriptor of a client's connection; -1 if it has none any more."""
    if isinstance(link, pymysql.Connection):
        return link._sock.fileno() if link._sock is not None else -1
    return link.fileno() if link is not None and not link.closed else -1


class _HurriedClient:
    """PyMySQL, as DataJoint's adapter uses it, but a server that accepts and says nothing is given up.

    ``connect_timeout`` ends when the server has accepted; whoever then never hears a greeting (a proxy whose
    server is gone, a cable pulled at that moment) would wait for ever. psycopg2 has a limit for all of it.
    """

    converters = pymysql.converters

    @staticmethod
    def connect(**given: Any) -> pymysql.Connection:
        link = pymysql.connect(**given, read_timeout=CONNECT_TIMEOUT, write_timeout=CONNECT_TIMEOUT)
        link._read_timeout = link._write_timeout = None  # queries may take their time
        return link


def _knock(database: Database) -> None:
    """Fail within seconds, by name, where no server listens."""
    try:
        if database.is_socket:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(CONNECT_TIMEOUT)
                door.connect(str(Path(database.host) / f".s.PGSQL.{database.port}"))
        else:
            socket.create_connection((database.host, database.port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatabaseUnreachableError(
            f"the {database} cannot be reached ({reason}): check DJ_HOST and DJ_PORT, "
            "and that the server runs"
        ) from None


def _explain(database: Database, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if "password" in lowered or "access denied" in lowered or "authentication" in lowered:
        return DatabaseRefusedError(
            f"the {database} refuses this user and password: check DJ_USER and DJ_PASS"
        )
    if "does not exist" in lowered or "unknown database" in lowered:
        return DatabaseRefusedError(f"the {database} says: {text}: check DJ_DATABASE_NAME and DJ_USER")
    return DatabaseUnreachableError(f"the {database} does not accept a connection: {text}")
