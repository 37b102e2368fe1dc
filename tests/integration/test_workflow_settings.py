"""Settings of a database that cannot be: what is said of them, and what is not."""

from __future__ import annotations

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
