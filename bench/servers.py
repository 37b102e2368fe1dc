"""Real database servers for benchmarks, and what they say they had to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pymysql

from bench.measure import MeasurementError

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "roles" / "embedded_database" / "files" / "embedded_database.py"
MYSQL = ROOT / ".ci" / "mysql.sh"
_STATEMENT = b"LOG:  statement: "


@dataclass(frozen=True)
class Server:
    """A server that is ours alone.

    Attributes
    ----------
    settings : dict of str to str
        ``DJ_*`` variables.
    pid : int
        The server's first process.
    log : Path or None
        Where a PostgreSQL server notes every statement.
    """

    backend: str
    settings: dict[str, str]
    pid: int
    log: Path | None = None

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own; its rows."""
        where = {"host": self.settings["DJ_HOST"], "port": int(self.settings["DJ_PORT"])}
        who = {"user": self.settings["DJ_USER"], "password": self.settings["DJ_PASS"]}
        link: Any
        if self.backend == "mysql":
            link = pymysql.connect(**where, **who, autocommit=True)
        else:
            link = psycopg2.connect(**where, **who, dbname=self.settings["DJ_DATABASE_NAME"])
            link.autocommit = True
        with closing(link), link.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def statements(self) -> int:
        """How many statements clients have sent so far: MySQL's own counter, or PostgreSQL's own log."""
        if self.log is not None:
            return self.log.read_bytes().count(_STATEMENT)
        [(_, number)] = self.ask("SHOW GLOBAL STATUS LIKE 'Questions'")
        return int(number)

    def statements_of_counting(self) -> int:
        """How many of them are due to one call of `statements`."""
        first, second = self.statements(), self.statements()
        return second - first

    def seconds(self) -> float:
        """Processor time that the server has used so far."""
        return _processor_time(self.pid)

    def name(self, schema: str, table: str) -> str:
        """A table in SQL."""
        quote = "`" if self.backend == "mysql" else '"'
        return f"{quote}{schema}{quote}.{quote}{table}{quote}"

    def drop(self, prefix: str) -> None:
        """Drop the schemas whose names begin with a prefix."""
        found = self.ask("SELECT schema_name FROM information_schema.schemata")
        names = [name for (name,) in found if name.startswith(prefix)]
        if self.backend == "postgresql":
            for name in names:
                self.ask(f'DROP SCHEMA "{name}" CASCADE')
        for name in reversed(names) if self.backend == "mysql" else ():
            self.ask(f"DROP SCHEMA `{name}`")


@contextmanager
def server(backend: str) -> Iterator[Server]:
    """Start a server; it is gone afterwards."""
    with _mysql() if backend == "mysql" else _postgresql() as started:
        yield started


@contextmanager
def _mysql() -> Iterator[Server]:
    started = _run([str(MYSQL), "start"])
    host, port, user, password = started.stdout.strip().split(":", 3)
    names = ("DJ_BACKEND", "DJ_HOST", "DJ_PORT", "DJ_USER", "DJ_PASS")
    settings = dict(zip(names, ("mysql", host, port, user, password), strict=True))
    try:
        publishes = ["docker", "ps", "--quiet", "--filter", f"publish={port}"]
        container = _run(publishes).stdout.split()[0]
        pid = _run(["docker", "inspect", "--format", "{{.State.Pid}}", container]).stdout
        yield Server("mysql", settings, int(pid))
    finally:
        if "started" in started.stderr:
            _run([str(MYSQL), "stop"])


@contextmanager
def _postgresql() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="workflow-bench-") as folder:
        Path(folder).chmod(0o711)
        directory = Path(folder) / "database"
        embedded = [sys.executable, str(EMBEDDED)]
        _run([*embedded, "start", "--directory", str(directory)])
        try:
            where = json.loads((directory / "connection.json").read_text())
            settings = {
                "DJ_BACKEND": "postgresql",
                "DJ_HOST": where["host"],
                "DJ_PORT": str(where["port"]),
                "DJ_USER": where["user"],
                "DJ_PASS": Path(where["password_file"]).read_text().strip(),
                "DJ_DATABASE_NAME": where["name"],
            }
            data = directory / "data"
            pid = int((data / "postmaster.pid").read_text().split()[0])
            yield Server("postgresql", settings, pid, data / "server.log")
        finally:
            _run([*embedded, "stop", "--directory", str(directory)])


@contextmanager
def counted(of: Server) -> Iterator[None]:
    """Have the server count statements; PostgreSQL notes them in its log, which takes time."""
    if of.log is None:
        yield
        return
    configuration = of.log.with_name("postgresql.auto.conf")
    before = configuration.read_text()
    try:
        _configure(of, configuration, before + "log_statement = 'all'\n", "all")
        yield
    finally:
        _configure(of, configuration, before, "none")


def _configure(of: Server, file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    os.kill(of.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    while of.ask("SHOW log_statement") != [(expected,)]:
        if time.monotonic() > deadline:
            raise MeasurementError("the server does not count statements")


def _processor_time(root: int) -> float:
    """Seconds used by a process, by its living descendants, and by those that it has buried."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        used[int(entry.name)] = sum(map(int, fields[11:15]))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0)
        todo += children.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise MeasurementError(f"{Path(command[0]).name} ended with {done.returncode}: {last}")
    return done
