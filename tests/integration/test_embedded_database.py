"""The embedded database: its whole life, what it lets in and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import psycopg2.extras
import pytest
from databases import EMBEDDED_DATABASE, Server, embedded_database, embedded_server
from role_support import play

pytest_plugins = ("databases",)

FACTS = ("embedded_database_connection", "embedded_database_password_file")


@pytest.fixture
def directory(database_directory: Path) -> Path:
    return database_directory


def started(directory: Path) -> Server:
    done = embedded_database("start", directory)
    assert done.returncode == 0, done.stderr
    return embedded_server(directory)


def postmaster(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "data" / "postmaster.pid").read_text().split("\n")[0]))


def connect(server: Server, **options: Any) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=server.name,
        **options,
    )


def ask(server: Server, statement: str = "SELECT current_user") -> str:
    """Run a statement over a fresh connection and return its first value."""
    connection = connect(server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the single line of a refusal."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_start_status_stop_and_the_same_again(directory: Path) -> None:
    assert embedded_database("status", directory).returncode == 3
    assert embedded_database("stop", directory).returncode == 0
    assert not directory.exists()

    first = json.loads(embedded_database("start", directory, "--json").stdout)
    assert (first["running"], first["changed"]) == (True, True)
    pid = postmaster(directory).pid
    again = json.loads(embedded_database("start", directory, "--json").stdout)
    assert again == {**first, "changed": False}
    assert postmaster(directory).pid == pid
    assert embedded_database("status", directory).returncode == 0

    for changed in (True, False):
        stopped = json.loads(embedded_database("stop", directory, "--json").stdout)
        assert (stopped["running"], stopped["changed"]) == (False, changed)
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert embedded_database("status", directory).returncode == 3
    assert json.loads(embedded_database("start", directory, "--json").stdout) == first


def test_it_answers_on_the_socket_and_on_loopback_only(directory: Path) -> None:
    server = started(directory)
    where = json.loads((directory / "connection.json").read_text())
    assert where == {
        "backend": "postgresql",
        "host": str(directory / "socket"),
        "port": where["tcp_port"],
        "tcp_host": "127.0.0.1",
        "tcp_port": where["tcp_port"],
        "user": "workflow",
        "name": "workflow",
        "password_file": str(directory / "password"),
    }
    assert ask(server) == "workflow"
    assert ask(replace(server, host="127.0.0.1")) == "workflow"
    assert ask(server, "SHOW fsync") == "on"
    listening = {c.laddr.ip for c in postmaster(directory).net_connections("tcp") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


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


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_server_starts_again_with_its_data(directory: Path, busy: bool) -> None:
    server = started(directory)
    with server.instance() as instance:
        instance.connection.query("CREATE SCHEMA kept")
        instance.connection.query("CREATE TABLE kept.answers AS SELECT 42 AS answer")
    client = connect(server, async_=True)
    psycopg2.extras.wait_select(client)
    if busy:
        client.cursor().execute("SELECT pg_sleep(600)")
    postmaster(directory).send_signal(signal.SIGKILL)
    assert ask(started(directory), "SELECT answer FROM kept.answers") == "42"
    client.close()


def test_the_port_is_kept_unless_somebody_took_it(directory: Path) -> None:
    import socket

    port = started(directory).port
    embedded_database("stop", directory)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        server = started(directory)
        assert server.port != port
        assert ask(replace(server, host="127.0.0.1")) == "workflow"


@pytest.mark.parametrize("lost", ["connection.json", "socket/.s.PGSQL"])
def test_a_server_that_cannot_be_reached_any_more_is_started_afresh(directory: Path, lost: str) -> None:
    started(directory)
    for path in directory.glob(f"{lost}*"):
        path.unlink()
    assert ask(started(directory)) == "workflow"


@pytest.mark.parametrize("name", ["with space", "with,comma:colon", "very" + "-long" * 22])
def test_unusual_directories(database_directory: Path, name: str) -> None:
    directory = database_directory.parent / name
    server = started(directory)
    try:
        assert len(f"{server.host}/.s.PGSQL.{server.port}") <= 107
        assert ask(server) == "workflow"
        embedded_database("stop", directory)
        assert started(directory) == server
    finally:
        embedded_database("stop", directory)
        if not server.host.startswith(str(directory)):
            Path(server.host).rmdir()


def test_two_starts_at_once_make_one_server(directory: Path) -> None:
    command = [sys.executable, EMBEDDED_DATABASE, "start", "--json", "--directory", directory]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(start.communicate()[0]) for start in both]
    assert sorted(answer["changed"] for answer in answers) == [False, True]
    assert ask(embedded_server(directory)) == "workflow"


def test_exec_runs_a_command_with_the_database_and_leaves_things_as_they_were(directory: Path) -> None:
    show = "import os; print(sorted(k for k in os.environ if k.startswith('DJ_'))); raise SystemExit(7)"
    done = embedded_database(
        "exec", directory, "--", sys.executable, "-c", show, env={"PATH": os.environ["PATH"]}
    )
    names = ["DJ_BACKEND", "DJ_DATABASE_NAME", "DJ_HOST", "DJ_PASS", "DJ_PORT", "DJ_USER"]
    assert (done.returncode, done.stdout) == (7, f"{names}\n"), done.stderr
    assert embedded_database("status", directory).returncode == 3

    started(directory)
    assert embedded_database("exec", directory, "--", "true").returncode == 0
    assert embedded_database("status", directory).returncode == 0


def test_exec_passes_on_the_end_and_still_stops(directory: Path) -> None:
    command = [sys.executable, EMBEDDED_DATABASE, "exec", "--directory", directory, "--"]
    script = "import signal; print('ready', flush=True); signal.pause()"
    run = subprocess.Popen([*command, sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run, run.stdout:
        assert run.stdout.readline() == "ready\n"
        run.terminate()
        assert run.wait() == 128 + signal.SIGTERM
    assert embedded_database("status", directory).returncode == 3


def test_exec_without_a_usable_command(directory: Path) -> None:
    missing = embedded_database("exec", directory, "--", "no-such-program")
    assert missing.returncode == 127
    assert missing.stderr == "embedded database: cannot run no-such-program: No such file or directory\n"
    assert embedded_database("status", directory).returncode == 3
    assert "no command given" in one_line(embedded_database("exec", directory))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = one_line(embedded_database("start", tmp_path / "file" / "database"))
    assert message == (
        f"embedded database: cannot use {tmp_path}/file/database: Not a directory: choose another --directory"
    )
    assert "cannot use /proc/database" in one_line(embedded_database("start", Path("/proc/database")))


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    before = tmp_path.stat().st_mode
    assert "is not empty and holds no embedded database" in one_line(embedded_database("start", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert tmp_path.stat().st_mode == before


def test_a_broken_configuration_is_named(directory: Path) -> None:
    started(directory)
    embedded_database("stop", directory)
    with (directory / "data" / "postgresql.auto.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    message = one_line(embedded_database("start", directory))
    assert "cannot start: " in message
    assert f"see {directory}/data/server.log" in message
    assert "no_such_setting" in message


def test_a_lost_password_is_named(directory: Path) -> None:
    started(directory)
    embedded_database("stop", directory)
    (directory / "password").unlink()
    assert f"{directory}/password is missing: restore it, or remove" in one_line(
        embedded_database("start", directory)
    )


def test_an_interrupted_first_start_is_begun_again(directory: Path) -> None:
    (directory / "data.unfinished").mkdir(parents=True)
    (directory / "data.unfinished" / "PG_VERSION").write_text("18\n")
    (directory / "embedded_database.lock").touch()
    assert ask(started(directory)) == "workflow"


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

        Trace.insert([(1, value, None), (2, value.T, 0.5)])
        np.testing.assert_array_equal((Trace & {"trace_id": 1}).fetch1("trace"), value, strict=True)
        np.testing.assert_array_equal((Trace & "seconds > 0").fetch1("trace"), value.T, strict=True)


def test_a_process_of_its_own_finds_the_server_in_its_environment(postgresql_server: Server) -> None:
    script = "import datajoint as dj; print(dj.conn().query('SELECT current_user').fetchone())"
    done = postgresql_server.run(["-W", "ignore", "-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "('workflow',)"


def test_the_role_starts_once_and_says_where(directory: Path, tmp_path: Path) -> None:
    inputs = {"embedded_database_directory": str(directory)}
    first = play("embedded_database", tmp_path, FACTS, **inputs)
    assert first.status == 0, first.output
    assert first.changed == 1
    server = embedded_server(directory)
    assert first.facts == {
        "embedded_database_connection": {
            "backend": "postgresql",
            "host": server.host,
            "port": server.port,
            "user": "workflow",
            "name": "workflow",
        },
        "embedded_database_password_file": str(directory / "password"),
    }
    assert ask(server) == "workflow"
    assert server.password not in first.output
    second = play("embedded_database", tmp_path, FACTS, **inputs)
    assert (second.status, second.changed, second.facts) == (0, 0, first.facts)


def test_the_role_does_nothing_without_a_directory(tmp_path: Path) -> None:
    outcome = play("embedded_database", tmp_path, FACTS)
    assert (outcome.status, outcome.changed) == (0, 0)
    assert outcome.facts == {"embedded_database_connection": {}, "embedded_database_password_file": ""}


@pytest.mark.parametrize("before", [False, True])
def test_the_role_stops_only_what_it_started(directory: Path, tmp_path: Path, before: bool) -> None:
    if before:
        started(directory)
    tasks = [
        {"ansible.builtin.import_role": {"name": "embedded_database"}},
        {"ansible.builtin.import_role": {"name": "embedded_database", "tasks_from": "stop"}},
    ]
    playbook = tmp_path / "round.json"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    inputs = {"embedded_database_directory": str(directory), "ansible_python_interpreter": sys.executable}
    run = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", "localhost,", "--connection", "local", "--extra-vars", json.dumps(inputs)),
            playbook,
        ],
        env={**os.environ, "ANSIBLE_ROLES_PATH": str(EMBEDDED_DATABASE.parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert embedded_database("status", directory).returncode == (0 if before else 3)
    assert (directory / "connection.json").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("relative/path", "is 'relative/path': give an absolute path"),
        ("/proc/database", "cannot use /proc/database: No such file or directory: choose another"),
    ],
)
def test_the_role_refuses_a_bad_directory(tmp_path: Path, value: str, message: str) -> None:
    refusal = play("embedded_database", tmp_path, embedded_database_directory=value).refusal()
    assert "embedded_database_directory" in refusal
    assert message in refusal
