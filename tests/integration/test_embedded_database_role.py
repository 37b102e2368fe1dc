"""The role embedded_database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import EMBEDDED_DATABASE, embedded_database, embedded_server
from embedded_support import ask, started
from role_support import play

pytest_plugins = ("databases",)

FACTS = ("embedded_database_connection", "embedded_database_password_file")


@pytest.fixture
def directory(database_directory: Path) -> Path:
    return database_directory


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
