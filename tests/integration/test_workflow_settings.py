"""Settings of a database: what is kept of them, what is said, and what is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from role_support import Outcome, play

SECRET = "a-password-that-nobody-may-see"


def check(folder: Path, **given: object) -> Outcome:
    usual = {"host": "db.example.org", "user": "anna", "password": SECRET}
    inputs = {f"workflow_settings_{name}": value for name, value in (usual | given).items()}
    return play("workflow_settings", folder, (), {"ANSIBLE_VERBOSITY": "3"}, "preflight", **inputs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": ""}, "workflow_settings_user is empty: set it for localhost in the inventory"),
        ({"host": "", "user": "", "port": -1}, "workflow_settings_host, workflow_settings_user are empty"),
        ({"port": "65536"}, "workflow_settings_port is 65536: give a port from 1 to 65535, or 0 for"),
        ({"port": -1}, "workflow_settings_port is -1: give a port"),
        ({"password": f"{SECRET}\n{SECRET}"}, "workflow_settings_password holds a line break: give one line"),
        ({"user": "anna\n"}, "workflow_settings_user or workflow_settings_password holds a line break"),
    ],
)
def test_what_is_wrong_is_named_without_the_password(
    tmp_path: Path, given: dict[str, object], words: str
) -> None:
    said = check(tmp_path, **given)
    assert words in said.refusal()
    assert SECRET not in said.output


def test_a_port_may_be_a_word(tmp_path: Path) -> None:
    assert check(tmp_path, port="3306").status == 0


def write(folder: Path, **given: object) -> Outcome:
    """Write the credentials where nothing is hidden from the output."""
    usual = {"host": "db.example.org", "user": "anna", "password": SECRET, "no_log": False}
    usual |= {"directory": str(folder / "a folder" / "secrets")}
    inputs = {f"workflow_settings_{name}": value for name, value in (usual | given).items()}
    told = {"ANSIBLE_VERBOSITY": "3"}
    return play("workflow_settings", folder, ("workflow_settings_environment",), told, **inputs)


@pytest.mark.parametrize("password", [SECRET, f" {SECRET}\\n%s'\"$HOME "])
def test_only_the_worker_reads_the_credentials(tmp_path: Path, password: str) -> None:
    done = write(tmp_path, password=password)
    assert done.status == 0, done.output
    assert done.facts["workflow_settings_environment"] == {"DJ_BACKEND": "mysql", "DJ_HOST": "db.example.org"}
    assert SECRET not in done.output
    secrets = tmp_path / "a folder" / "secrets"
    assert {path.name: path.read_text() for path in secrets.iterdir()} == {
        "database.user": "anna",
        "database.password": password,
    }
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_credentials_that_cannot_be_written_are_told_without_them(tmp_path: Path) -> None:
    (tmp_path / "a folder" / "secrets").mkdir(parents=True)
    (tmp_path / "a folder" / "secrets" / "database.password").symlink_to("/dev/full")
    done = write(tmp_path)
    said = (
        rf"The credentials could not be written to {tmp_path}/a folder/secrets: .*(I/O error|No space left)"
    )
    assert re.search(said, done.refusal()), done.refusal()
    assert SECRET not in done.output
