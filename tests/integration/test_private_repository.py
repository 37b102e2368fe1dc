"""Private repositories: the control node fetches with the credential, and nobody else ever sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_server import git_server
from role_support import Outcome, play

TOKEN = "ghp-a-token-that-nobody-may-see"
ENVIRONMENT = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

#: Stands for ssh: keeps its words, and runs the server's side of git here.
SSH = """#!/bin/sh
echo "$@" >>"{seen}"
for last; do :; done
exec sh -c "$last"
"""

#: Keeps the words and the environment of every process that git starts, then is git.
WATCH = """#!/bin/sh
ps -A -ww -o args >>"{seen}"
exec "{git}" "$@"
"""


def git(*words: object) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    return subprocess.run(
        ["git", *identity, *map(str, words)], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with a branch that is not its default one."""
    folder = tmp_path_factory.mktemp("served")
    work = tmp_path_factory.mktemp("work")
    git("init", "--quiet", "--initial-branch=main", work)
    for branch, text in (("main", "published"), ("study", "private")):
        git("-C", work, "checkout", "--quiet", "-B", branch)
        (work / "text").write_text(text)
        git("-C", work, "add", "text")
        git("-C", work, "commit", "--quiet", f"--message={text}")
    git("-C", work, "checkout", "--quiet", "main")
    git("clone", "--quiet", "--bare", work, folder / "lab.git")
    return folder / "lab.git"


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[tuple[str, list[str]]]:
    with git_server(repository.parent, "x-access-token", TOKEN) as (url, refused):
        yield f"{url}/lab.git", refused


def find(folder: Path, url: str, **more: object) -> Outcome:
    inputs = {"workflow_source_repository": url, "workflow_source_version": "study", **more}
    return play("workflow_source", folder, ("workflow_source_commit",), ENVIRONMENT, "preflight", **inputs)


def test_a_token_opens_the_repository_and_is_left_nowhere(
    tmp_path: Path, repository: Path, served: tuple[str, list[str]]
) -> None:
    """The worker has the commit; its disk, every process's words, and what Ansible says lack the token."""
    url, _ = served
    programs, seen, home = tmp_path / "programs", tmp_path / "seen", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (programs / "git").write_text(WATCH.format(seen=seen, git=real))
    (programs / "git").chmod(0o755)
    (home / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    environment = ENVIRONMENT | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_VERBOSITY": "3",
        "LAB_TOKEN": TOKEN,
    }
    common = {"workflow_source_repository": url, "workflow_source_version": "study"}
    private = {**common, "workflow_source_token": "{{ lookup('ansible.builtin.env', 'LAB_TOKEN') }}"}
    found = play(
        "workflow_source", tmp_path, ("workflow_source_commit",), environment, "preflight", **private
    )
    commit = git("--git-dir", repository, "rev-parse", "study")
    assert found.facts["workflow_source_commit"] == commit, found.output
    worker = tmp_path / "worker"
    worker.mkdir()
    more = {"workflow_source_commit": commit, "workflow_source_directory": str(worker / "source")}
    done = play("workflow_source", tmp_path, (), environment, "main", **private, **more)
    assert done.status == 0, done.output
    assert (worker / "source" / "text").read_text() == "private"
    for path in [*worker.rglob("*"), *home.rglob("*"), seen]:
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    assert "git" in seen.read_text()
    assert TOKEN not in found.output + done.output


def test_a_credential_that_is_wrong_or_missing_is_named(
    tmp_path: Path, served: tuple[str, list[str]]
) -> None:
    url, refused = served
    for given in ({}, {"workflow_source_token": "wrong"}):
        said = find(tmp_path, url, **given).refusal()
        assert "cannot be read: fatal:" in said
        assert "workflow_source_token or workflow_source_key_file" in said
        assert "wrong" not in said
    assert refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"workflow_source_repository": f"https://anna:{TOKEN}@git.example.org/lab.git"},
            "give it as workflow_source_token",
        ),
        (
            {"workflow_source_repository": f"https://{TOKEN}@git.example.org/lab.git"},
            "a token or a name before its @",
        ),
        ({"workflow_source_repository": f"HTTPS://anna:{TOKEN}@git.example.org/lab.git"}, "before its @"),
        (
            {
                "workflow_source_repository": "http://git.example.org/lab.git",
                "workflow_source_token": TOKEN,
            },
            "is no https:// URL",
        ),
        ({"workflow_source_key_file": "/no/such/key"}, "/no/such/key is no file on the control node"),
    ],
)
def test_what_would_give_the_credential_away_is_refused(
    tmp_path: Path, given: dict[str, object], words: str
) -> None:
    said = find(tmp_path, "https://git.example.org/lab.git", **given).refusal()
    assert words in said
    assert TOKEN not in said


def test_a_key_is_named_as_the_shell_would_have_it(tmp_path: Path, repository: Path) -> None:
    """`~` is the home of whoever runs the round, for us and for ssh; what is not there is still refused."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "deploy_key").write_text("a key")
    (tmp_path / "ssh").write_text(SSH.format(seen=tmp_path / "seen"))
    (tmp_path / "ssh").chmod(0o755)
    found = play(
        "workflow_source",
        tmp_path,
        ("workflow_source_commit",),
        {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        "preflight",
        workflow_source_repository=f"git@git.example.org:{repository}",
        workflow_source_key_file="~/.ssh/deploy_key",
        workflow_source_known_hosts="~/.ssh/hosts",
    )
    commit = git("--git-dir", repository, "rev-parse", "main")
    assert found.facts.get("workflow_source_commit") == commit, found.output
    said = (tmp_path / "seen").read_text()
    assert f"-i {tmp_path}/.ssh/deploy_key" in said
    assert "-o ServerAliveCountMax=3 -o ServerAliveInterval=15" in said
    assert f"-o UserKnownHostsFile={tmp_path}/.ssh/hosts" in said
