"""Database servers that a test may crash and restart: they are nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg2
import pymysql
import pytest
from databases import MYSQL, Server, database_folder, embedded_database, embedded_server
from machines import wait_for


class Restartable(Protocol):
    """A server that can be crashed and restarted."""

    server: Server

    def restart(self) -> None:
        """Shut down in an orderly way, dropping all connections, and start again."""

    def crash(self) -> None:
        """End without a word to anybody, and start again."""


def connect(server: Server) -> Any:
    """Open a plain connection."""
    whom = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    if server.backend == "mysql":
        return pymysql.connect(**whom, autocommit=True)
    link = psycopg2.connect(**whom, dbname=server.name)
    link.autocommit = True
    return link


def ask(server: Server, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement on a plain connection of its own; the rows, if it gives any."""
    with closing(connect(server)) as link, link.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def cut_connections(server: Server) -> int:
    """Cut all connections of this user to a server; how many they were."""
    found = connections(server)
    end = "KILL {}" if server.backend == "mysql" else "SELECT pg_terminate_backend({})"
    for number in found:
        try:
            ask(server, end.format(number))
        except pymysql.MySQLError as error:
            if error.args[0] != 1094:  # it has gone by itself
                raise
    return len(found)


def connections(server: Server) -> list[int]:
    """All connections of this user but the one that asks."""
    query = (
        "SELECT id FROM information_schema.processlist WHERE user = SUBSTRING_INDEX(USER(), '@', 1) "
        "AND id <> CONNECTION_ID()"
        if server.backend == "mysql"
        else "SELECT pid FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
    )
    return [int(number) for (number,) in ask(server, query)]


@dataclass
class EmbeddedPostgresql:
    """The embedded server in a directory of its own."""

    directory: Path
    server: Server

    def restart(self) -> None:
        for verb in ("stop", "start"):
            done = embedded_database(verb, self.directory)
            assert done.returncode == 0, done.stderr

    def crash(self) -> None:
        [pid_file] = self.directory.rglob("postmaster.pid")
        pid = int(pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)  # "immediate": no checkpoint, no farewell, recovery at the next start
        wait_for("the end of PostgreSQL", lambda: not Path(f"/proc/{pid}").exists())
        done = embedded_database("start", self.directory)
        assert done.returncode == 0, done.stderr


@dataclass
class ContainedMysql:
    """A MySQL server in a container of its own."""

    container: str
    server: Server

    def restart(self) -> None:
        _docker("restart", self.container)
        self.await_ready()

    def crash(self) -> None:
        _docker("kill", self.container)
        _docker("start", self.container)
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until the user can log in."""

        def answers() -> bool:
            try:
                ask(self.server, "SELECT 1")
            except pymysql.MySQLError:
                return False
            return True

        wait_for("an answer from MySQL", answers)


@contextmanager
def contained_mysql(folder: Path) -> Iterator[ContainedMysql]:
    """Start a server from the image that the tests' usual MySQL server is made of."""
    image = subprocess.run([MYSQL, "image"], capture_output=True, text=True, check=False)
    if image.returncode != 0:
        reason = f"no MySQL server to crash: {image.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    server = Server("mysql", "127.0.0.1", port, "tester", uuid.uuid4().hex)
    init = folder / "init.sql"
    init.write_text(
        f"CREATE USER IF NOT EXISTS 'tester'@'%' IDENTIFIED BY '{server.password}';\n"
        "GRANT ALL ON *.* TO 'tester'@'%';\n"
    )
    init.chmod(0o644)
    mysql = ContainedMysql(f"workflow-drill-{uuid.uuid4().hex[:10]}", server)
    publish = ["--publish", f"127.0.0.1:{port}:3306", "--ulimit", "nofile=20000:20000"]
    volume = ["--volume", f"{init}:/init.sql:ro"]
    command = ["mysqld", "--no-defaults", "--init-file=/init.sql", "--mysqlx=OFF", "--skip-log-bin"]
    _docker("run", "--detach", "--init", "--name", mysql.container, *publish, *volume, "mysql-sid", *command)
    try:
        mysql.await_ready()
        yield mysql
    finally:
        _docker("rm", "--force", "--volumes", mysql.container)


@contextmanager
def embedded_postgresql() -> Iterator[EmbeddedPostgresql]:
    """Start an embedded server."""
    with database_folder() as directory:
        started = embedded_database("start", directory)
        assert started.returncode == 0, started.stderr
        yield EmbeddedPostgresql(directory, embedded_server(directory))


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
