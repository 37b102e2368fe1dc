"""The embedded database: who gets in, and what he may do."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import site
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import psycopg2.extras
import pytest
from databases import EMBEDDED_DATABASE, Server, embedded_database
from embedded_support import ask, postmaster, started

pytest_plugins = ("databases",)


@pytest.fixture
def directory(database_directory: Path) -> Path:
    return database_directory


def test_it_answers_on_the_socket_and_on_loopback_only(directory: Path) -> None:
    server = started(directory)
    where = json.loads((directory / "connection.json").read_text())
    assert where == {
        "backend": "postgresql",
        "host": str(directory / "socket"),
        "port": where["tcp_port"],
        "tcp_host": "127.0.0.1",
        "tcp_port": where["tcp_port"],
        "addresses": ["127.0.0.1"],
        "user": "workflow",
        "name": "workflow",
        "password_file": str(directory / "password"),
    }
    assert ask(server) == "workflow"
    assert ask(replace(server, host="127.0.0.1")) == "workflow"
    assert ask(server, "SHOW fsync") == "on"
    listening = {c.laddr.ip for c in postmaster(directory).net_connections("tcp") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_it_answers_at_a_further_address_to_the_network_that_may_use_it(directory: Path) -> None:
    """127.0.0.2 stands for a container engine's bridge; a server without the address is restarted with it."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, str(EMBEDDED_DATABASE), "start", "--directory", str(directory), *options]
        return subprocess.run(start, capture_output=True, text=True, check=False)

    server = started(directory)
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        ask(replace(server, host="127.0.0.2"))
    assert run("--address=127.0.0.2", "--clients=127.0.0.0/24").returncode == 0
    there = replace(started(directory), host="127.0.0.2")
    assert ask(there) == "workflow"
    assert run("--address=127.0.0.2", "--clients=192.0.2.0/24").returncode == 0, "it is left as it runs"
    assert ask(there) == "workflow"
    absent = run("--address=192.0.2.77", "--clients=192.0.2.0/24")
    assert absent.returncode == 1
    assert absent.stderr.strip() == (
        "embedded database: 192.0.2.77 is no address of this machine: name one that it has"
    )


@pytest.mark.parametrize("host", ["socket", "127.0.0.1"])
@pytest.mark.parametrize("intruder", [{"password": "wrong"}, {"user": "postgres"}, {"name": "postgres"}])
def test_nobody_else_gets_in(postgresql_server: Server, host: str, intruder: dict[str, str]) -> None:
    server = postgresql_server if host == "socket" else replace(postgresql_server, host=host)
    assert ask(server) == "workflow"
    with pytest.raises(
        psycopg2.OperationalError, match=r"password authentication failed|no pg_hba\.conf entry"
    ):
        ask(replace(server, **intruder))


def test_the_role_cannot_act_on_the_machine(postgresql_server: Server) -> None:
    for statement in ("COPY (SELECT 1) TO PROGRAM 'true'", "SELECT pg_read_file('/etc/passwd')"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            ask(postgresql_server, statement)


def test_the_password_is_in_its_file_only(directory: Path) -> None:
    server = started(directory)
    password_file = directory / "password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert len(server.password) >= 32
    files = [path for path in directory.rglob("*") if path.is_file() and path != password_file]
    assert directory / "connection.json" in files
    leaks = [path for path in files if server.password.encode() in path.read_bytes()]
    assert leaks == []
    assert all(
        server.password not in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])
    )


def test_the_data_are_private_and_the_socket_directory_holds_nothing_else(directory: Path) -> None:
    server = started(directory)
    assert stat.S_IMODE((directory / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE(Path(server.host).stat().st_mode) == 0o755
    names = {path.name for path in Path(server.host).iterdir()}
    assert names == {f".s.PGSQL.{server.port}", f".s.PGSQL.{server.port}.lock"}
    assert postmaster(directory).uids().effective != 0


def test_a_normal_user_needs_no_system_user(postgresql_server: Server, directory: Path) -> None:
    identity = {} if os.geteuid() else {"user": "nobody", "group": "nogroup", "extra_groups": ()}
    if identity:  # `postgresql_server` has opened the way to the wheel
        shutil.chown(directory.parent, "nobody")
    python = interpreter_for(identity)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(site.getsitepackages())}
    for verb, status in (("start", 0), ("status", 0), ("stop", 0), ("status", 3)):
        done = subprocess.run(
            [python, EMBEDDED_DATABASE, verb, "--directory", directory],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            **identity,
        )
        assert (done.returncode, done.stderr) == (status, "")
        owners = {directory.stat().st_uid, (directory / "data").stat().st_uid}
        assert owners == {pwd.getpwnam("nobody").pw_uid if identity else os.geteuid()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    if identity:  # root takes over a database of somebody else without taking it away
        assert embedded_database("start", directory).returncode == 0
        assert postmaster(directory).username() == "nobody"


def interpreter_for(identity: dict[str, Any]) -> str:
    """Find a Python that this user may run, since root's own may be out of reach: the system's will do."""
    new_enough = "import sys; assert sys.version_info >= (3, 11)"
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(PermissionError, FileNotFoundError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", new_enough], cwd="/", check=True, capture_output=True, **identity)
            return python
    reason = f"a normal user cannot run {sys.executable}, and /usr/bin/python3 is not Python 3.11 or newer"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def test_a_datajoint_round_trip(postgresql_server: Server, schemas: Callable[[Server], str]) -> None:
    import datajoint as dj

    value = np.tile(np.linspace(-1, 1, 50, dtype=np.float32), (40, 1))
    value[-1] = 0
    with postgresql_server.instance() as instance:
        schema = instance.Schema(schemas(postgresql_server) + "trial")

        @schema
        class Trace(dj.Manual):
            definition = """
            trace_id : int32
            ---
            trace : <blob>
            seconds=null : float64
            """

        Trace.insert(
            [
                {"trace_id": 1, "trace": value, "seconds": None},
                {"trace_id": 2, "trace": value.T, "seconds": 0.5},
            ]
        )
        np.testing.assert_array_equal((Trace & {"trace_id": 1}).fetch1("trace"), value, strict=True)
        np.testing.assert_array_equal((Trace & "seconds > 0").fetch1("trace"), value.T, strict=True)


def test_a_process_of_its_own_finds_the_server_in_its_environment(postgresql_server: Server) -> None:
    script = "import datajoint as dj; print(dj.conn().query('SELECT current_user').fetchone())"
    done = postgresql_server.run(["-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "('workflow',)"
