"""Real database servers for tests.

A test module takes the fixtures by ``pytest_plugins = ("databases",)`` (not by import: a session-wide
fixture that is imported twice is made twice) and may import everything else. PYTEST_DONT_REWRITE: pytest
would otherwise complain that the module was imported before it became a plugin.

``postgresql_server``
    The embedded PostgreSQL, in a temporary directory, for the whole session.
``mysql_server``
    The MySQL server that ``WORKFLOW_TEST_MYSQL=host:port:user:password`` names, else the one that
    ``.ci/mysql.sh`` starts in a container and that the last of the test runs which use it stops. Where
    neither can be had, the test is skipped; with ``CI=true`` it fails. The user is this process's own.
``database_directory``
    Where a test may put an embedded database of its own, which is stopped afterwards. Do not use ``tmp_path``
    for that: when root runs the tests, the server is somebody else, and pytest closes its directories again
    whenever another test run begins.
``schemas``
    A factory: ``schemas(server)`` gives a prefix for schema names that nobody else uses; all schemas that
    begin with it are dropped after the test.

A process has one global DataJoint connection, and table classes keep the one that they were bound to. Hence:

- code that binds the tables of ``workflow.pipeline``, or uses ``dj.conn()``, belongs in a process of its own:
  ``server.run(["-m", "workflow", "plan"], WORKFLOW_PREFIX=prefix)``;
- a test that needs tables of its own declares them through ``with server.instance() as instance:``
  (a ``dj.Instance``, with a configuration and a connection of its own) and ``instance.Schema(name)``; as many
  instances as you like, of both backends, live side by side.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest
from warm import WarmPython

_WARM = WarmPython()
ROOT = Path(__file__).resolve().parents[2]
EMBEDDED_DATABASE = ROOT / "roles" / "embedded_database" / "files" / "embedded_database.py"
MYSQL = ROOT / ".ci" / "mysql.sh"


@dataclass(frozen=True)
class Server:
    """How to reach one server; `name` is the database within a PostgreSQL server, '' for MySQL."""

    backend: str
    host: str
    port: int
    user: str
    password: str
    name: str = ""

    def environment(self) -> dict[str, str]:
        """Return the DJ_* variables that point DataJoint, and workflow.settings, at this server."""
        settings = {
            "DJ_BACKEND": self.backend,
            "DJ_HOST": self.host,
            "DJ_PORT": str(self.port),
            "DJ_USER": self.user,
            "DJ_PASS": self.password,
            "DJ_IGNORE_CONFIG_FILE": "true",
        }
        return {**settings, "DJ_DATABASE_NAME": self.name} if self.name else settings

    def run(self, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, in the repository, against this server."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("DJ_", "WORKFLOW_"))
        }
        return _WARM.run(arguments, {**inherited, **self.environment(), **environment}, ROOT)

    @contextmanager
    def instance(self) -> Iterator[dj.Instance]:
        """Open a DataJoint instance with a connection of its own, and close it in the end."""
        database = {"database__name": self.name} if self.name else {}
        instance = dj.Instance(
            self.host, self.user, self.password, self.port, backend=self.backend, safemode=False, **database
        )
        try:
            yield instance
        finally:
            instance.connection.close()

    def drop_schemas(self, prefix: str) -> None:
        """Drop all schemas whose names begin with a prefix, whatever refers to what."""
        with self.instance() as instance:
            query = instance.connection.query
            found = query("SELECT schema_name FROM information_schema.schemata").fetchall()
            names = [name for (name,) in found if name.startswith(prefix)]
            if self.backend == "postgresql":
                for name in names:
                    query(f'DROP SCHEMA "{name}" CASCADE')
                return
            query("SET SESSION foreign_key_checks = 0")
            for name in names:
                query(f"DROP SCHEMA `{name}`")


def embedded_database(
    verb: str, directory: Path, *more: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run embedded_database.py."""
    command = [sys.executable, EMBEDDED_DATABASE, verb, "--directory", directory, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def embedded_server(directory: Path) -> Server:
    """Read how to reach the embedded database that was started in a directory."""
    where = json.loads((directory / "connection.json").read_text())
    password = Path(where["password_file"]).read_text().strip()
    return Server(where["backend"], where["host"], where["port"], where["user"], password, where["name"])


@contextmanager
def database_folder() -> Iterator[Path]:
    """Where an embedded database may be put; it is stopped in the end."""
    with tempfile.TemporaryDirectory(prefix="workflow-test-") as folder:
        Path(folder).chmod(0o711)
        directory = Path(folder) / "database"
        yield directory
        stopped = embedded_database("stop", directory)
        assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def database_directory() -> Iterator[Path]:
    with database_folder() as directory:
        yield directory


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    with database_folder() as directory:
        started = embedded_database("start", directory)
        assert started.returncode == 0, started.stderr
        yield embedded_server(directory)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Server]:
    given = os.environ.get("WORKFLOW_TEST_MYSQL")
    if given:
        with _user_of_our_own(_mysql(given)) as server:
            yield server
        return
    in_use = ROOT / ".cache" / "mysql" / "in_use"
    in_use.parent.mkdir(parents=True, exist_ok=True)
    with in_use.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with in_use.with_name("starting").open("w") as turn:  # the second finds it running
            fcntl.flock(turn, fcntl.LOCK_EX)
            started = subprocess.run([MYSQL, "start"], capture_output=True, text=True, check=False)
        if started.returncode != 0:
            reason = f"no MySQL server for the tests: {started.stderr.strip()}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        with _user_of_our_own(_mysql(started.stdout.strip())) as server:
            yield server
        with suppress(BlockingIOError):  # another test run goes on using it, and will stop it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run([MYSQL, "stop"], check=True)


def _mysql(line: str) -> Server:
    host, port, user, password = line.split(":", 3)
    return Server("mysql", host, int(port), user, password)


@contextmanager
def _user_of_our_own(server: Server) -> Iterator[Server]:
    """Make a user for this process, by which a test tells its own connections from others' beside it."""
    own = replace(server, user=f"tester_{uuid.uuid4().hex[:10]}", password=uuid.uuid4().hex)
    with server.instance() as instance:
        query = instance.connection.query
        query(f"CREATE USER `{own.user}`@`%%` IDENTIFIED BY %s", args=(own.password,))
        query(f"GRANT ALL ON *.* TO `{own.user}`@`%%` WITH GRANT OPTION", args=())
    yield own
    with server.instance() as instance:
        instance.connection.query(f"DROP USER `{own.user}`@`%%`", args=())


@pytest.fixture
def schemas() -> Iterator[Callable[[Server], str]]:
    used: list[tuple[Server, str]] = []

    def prefix(server: Server) -> str:
        used.append((server, f"test_{uuid.uuid4().hex[:10]}_"))
        return used[-1][1]

    yield prefix
    for server, name in used:
        server.drop_schemas(name)
