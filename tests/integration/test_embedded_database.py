"""The embedded database: its life, and what it says when it cannot live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg2
import psycopg2.extras
import pytest
from databases import EMBEDDED_DATABASE, embedded_database, embedded_server
from embedded_support import ask, connect, one_line, postmaster, started

pytest_plugins = ("databases",)


@pytest.fixture
def directory(database_directory: Path) -> Path:
    return database_directory


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


def test_a_full_disk_is_named_before_anything_is_made(directory: Path) -> None:
    script = (
        "import shutil, sys; from types import SimpleNamespace; sys.path.insert(0, sys.argv[1]); "
        "shutil.disk_usage = lambda path: SimpleNamespace(free=7 * 2**20); "
        "import embedded_database; sys.exit(embedded_database.main(['start', '--directory', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", script, EMBEDDED_DATABASE.parent, directory]
    message = one_line(subprocess.run(command, capture_output=True, text=True, check=False))
    assert message == (
        f"embedded database: the disk of {directory} is full: "
        "7 MB are free, 300 MB are needed: free some space"
    )
    assert not (directory / "data").exists()


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
