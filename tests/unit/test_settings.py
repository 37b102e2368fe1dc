"""Settings: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow.settings import SettingsError, load

GOOD = {"DJ_HOST": "db.example.org", "DJ_USER": "lab", "DJ_PASS": "s3cret"}


def test_defaults() -> None:
    settings = load(GOOD)
    assert (settings.database.backend, settings.database.port) == ("mysql", 3306)
    assert settings.prefix == "workflow_"
    assert settings.upstream["img"] == "arseny_learning_imaging"
    assert not settings.declare_upstream


def test_the_port_follows_the_backend() -> None:
    assert load(GOOD | {"DJ_BACKEND": "postgresql"}).database.port == 5432


def test_secret_files_fill_in_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "database.password").write_text("from file\n")
    (tmp_path / "database.host").write_text("from-file")
    settings = load({"DJ_HOST": "from-environment", "DJ_USER": "lab", "WORKFLOW_SECRETS": str(tmp_path)})
    assert settings.database.password == "from file"
    assert settings.database.host == "from-environment"


def test_the_password_is_in_no_text() -> None:
    settings = load(GOOD)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.database)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"DJ_HOST": ""}, "DJ_HOST"),
        ({"DJ_USER": ""}, "DJ_USER"),
        ({"DJ_PASS": ""}, "DJ_PASS"),
        ({"DJ_BACKEND": "oracle"}, "DJ_BACKEND"),
        ({"DJ_PORT": "70000"}, "DJ_PORT"),
        ({"DJ_PORT": "33o6"}, "DJ_PORT"),
        ({"DJ_PORT": "²"}, "DJ_PORT"),
        ({"DJ_HOST": "db:3306"}, "DJ_HOST"),
        ({"WORKFLOW_PREFIX": "9lab"}, "WORKFLOW_PREFIX"),
        ({"WORKFLOW_PREFIX": "a`; drop"}, "WORKFLOW_PREFIX"),
        ({"WORKFLOW_SCHEMA_IMG": "Img"}, "WORKFLOW_SCHEMA_IMG"),
        ({"WORKFLOW_UPSTREAM": "write"}, "WORKFLOW_UPSTREAM"),
        ({"WORKFLOW_COMMIT": "main"}, "WORKFLOW_COMMIT"),
        ({"WORKFLOW_SECRETS": "/nowhere/at/all"}, "WORKFLOW_SECRETS"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(GOOD | change)
    message = str(refusal.value)
    assert named in message
    assert "\n" not in message


def test_an_unreadable_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / "database.password").mkdir()
    with pytest.raises(SettingsError, match=r"DJ_PASS: cannot read the file .*database\.password"):
        load({"DJ_HOST": "db", "DJ_USER": "lab", "WORKFLOW_SECRETS": str(tmp_path)})
