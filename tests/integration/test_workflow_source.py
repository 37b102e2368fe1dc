"""Which commit a round runs, and how it comes to the worker: versions of every kind, and what is refused."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from role_support import Outcome, play

LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
MISSING = "0123456789" * 4


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    return subprocess.run(
        ["git", *identity, "-C", folder, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits: a tag of each kind on the first two, a branch on the second, and the last."""
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for tag in (["light"], ["annotated", "--annotate", "--message=it has a commit of its own"], []):
        (folder / "text").write_text(tag[0] if tag else "last")
        git(folder, "add", "text")
        git(folder, "commit", "--quiet", "--message=one more")
        if tag:
            git(folder, "tag", *tag)
    git(folder, "branch", "study/one", "main~1")
    return folder


def find(folder: Path, repository: object, version: str = "HEAD", **more: object) -> Outcome:
    inputs = {"workflow_source_repository": str(repository), "workflow_source_version": version, **more}
    return play("workflow_source", folder, ("workflow_source_commit",), LOOPBACK, "preflight", **inputs)


def fetch(folder: Path, repository: object, commit: str, **more: object) -> Outcome:
    inputs = {
        "workflow_source_repository": str(repository),
        "workflow_source_commit": commit,
        "workflow_source_directory": str(folder / "source"),
    }
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    return play("workflow_source", folder, (), LOOPBACK | {"TMPDIR": str(temporary)}, **inputs, **more)


def test_nothing_stays_on_the_control_node_where_a_commit_cannot_be_packed(
    tmp_path: Path, checkout: Path
) -> None:
    said = fetch(tmp_path, checkout, MISSING, workflow_source_ship=True).output
    assert f"could not be fetched at {MISSING}" in said
    assert "fatal: update_ref failed" in said
    assert not list(tmp_path.glob("temporary/*.workflow_source"))
    assert (
        fetch(tmp_path, checkout, git(checkout, "rev-parse", "HEAD"), workflow_source_ship=True).status == 0
    )
    assert (tmp_path / "source" / "text").read_text() == "last"
    assert not list(tmp_path.glob("temporary/*.workflow_source"))


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """It takes connections, and never answers: the control node says so, and so does the worker."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/lab.git"
        began = time.monotonic()
        asked = find(tmp_path, url, workflow_source_silence_seconds=2)
        fetched = fetch(tmp_path, url, MISSING, workflow_source_silence_seconds=2)
        assert time.monotonic() - began < 60
    assert f"{url} cannot be read: fatal:" in asked.refusal()
    assert "Operation too slow" in asked.output
    assert f"{url} could not be fetched" in fetched.output
    assert "Operation too slow" in fetched.output
